"""A report as one HTML file that needs nothing else: pictures and style are inside, nothing is fetched."""

import base64
import dataclasses
from collections.abc import Sequence
from html import escape

from kind_jax.report_style import CSS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph; blank lines in ``body`` start further paragraphs."""

    body: str
    heading: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG with a caption, which is its alternative text too; ``pixelated`` keeps enlarged pixels crisp."""

    png: bytes
    caption: str
    heading: str = ""
    pixelated: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures side by side; their own headings are not shown."""

    pictures: tuple[Picture, ...]
    heading: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under a header; every row has as many cells as the header. Numbers are aligned to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    heading: str = ""
    caption: str = ""


Section = Text | Picture | Pictures | Table


def _numeric(cell: str) -> bool:
    # "1,234", "-0.5", "98.4 %", "3.1 MB", "~2x", or nothing: what a reader compares down a column. Signs are dropped
    # by not being letters, since the typographic ones are many.
    letters = [c for c in cell if c.isalnum()]
    return not letters or letters[0].isdigit()


def _figure(picture: Picture) -> str:
    assert picture.png.startswith(b"\x89PNG"), "pictures of a report are PNG"
    data = base64.b64encode(picture.png).decode()
    kind = ' class="pixelated"' if picture.pixelated else ""
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    return f'<figure><img{kind} src="data:image/png;base64,{data}" alt="{escape(picture.caption)}">{caption}</figure>'


def _table(table: Table) -> str:
    assert all(len(row) == len(table.header) for row in table.rows), "every row has a cell for each header"
    columns = range(len(table.header))
    right = [bool(table.rows) and all(_numeric(row[i]) for row in table.rows) for i in columns]

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=number' if right[i] else ''}>{escape(row[i])}</{tag}>" for i in columns)

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in table.rows)
    caption = f"<p class=note>{escape(table.caption)}</p>" if table.caption else ""
    return (
        f"<div class=scroll><table><thead><tr>{cells('th', table.header)}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>{caption}"
    )


def _section(section: Section) -> str:
    match section:
        case Text(body=body):
            content = "".join(f"<p>{escape(part.strip())}</p>" for part in body.split("\n\n") if part.strip())
        case Picture():
            content = _figure(section)
        case Pictures(pictures=pictures):
            content = f"<div class=side>{''.join(_figure(picture) for picture in pictures)}</div>"
        case Table():
            content = _table(section)
    heading = f"<h2>{escape(section.heading)}</h2>" if section.heading else ""
    # A section without a heading continues the one above it.
    return f"<section{'' if heading else ' class=more'}>{heading}{content}</section>"


def render_report(title: str, summary: Sequence[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The page as HTML text; every string is escaped, so names and captions may hold anything.

    Args:
      title: heading of the page and of the browser's tab.
      summary: the few figures that matter, as (name, value), shown large at the top.
      sections: what follows, in order.
    """
    cards = "\n".join(
        f"<div class=card><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in summary
    )
    body = "\n".join(_section(section) for section in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<main>
<header><h1>{escape(title)}</h1></header>
{f"<dl class=cards>{cards}</dl>" if summary else ""}
{body}
</main>
</body>
</html>
"""
