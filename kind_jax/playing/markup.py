"""What a page shows, as HTML. Everything is within: pictures are data, and nothing is fetched."""

from __future__ import annotations

import base64
import html

from kind_jax.images import grid, png_bytes
from kind_jax.playing.shown import Figures, Shown, Strip

_LEAST_SIDE = 48  # pixels of a picture as it is sent; the browser enlarges it further, without smoothing

STYLE = """
.kind-heading h1 { font-size: 1.75rem; font-weight: 700; margin: .4rem 0 .6rem; }
.kind-strips { display: flex; flex-wrap: wrap; gap: 1.1rem 1.4rem; }
.kind-strip { margin: 0; flex: 1 1 16rem; min-width: 0; max-width: 26rem; }
.kind-strip.large { flex: 1 1 100%; max-width: 53.5rem; }
.kind-strip img { width: 100%; border-radius: 6px; image-rendering: pixelated; }
.kind-strip figcaption { display: flex; align-items: baseline; justify-content: space-between; flex-wrap: wrap;
  gap: 0 1rem; margin-bottom: .3rem; font-weight: 600; }
.kind-strip.large figcaption { font-size: 1.15rem; }
.kind-strip .remark { font-size: .9rem; }
.kind-strip.large .remark { font-size: 1rem; }
.kind-strip .remark, .kind-note { color: var(--body-text-color-subdued); font-weight: 400; }
.kind-figures table { width: 100%; max-width: 53.5rem; border-collapse: collapse; }
.kind-figures :is(table, tbody, tr) { border: none !important; }
.kind-figures tr :is(td, th) { padding: .25rem .6rem; border: none; text-align: right;
  border-bottom: 1px solid var(--border-color-primary); font-variant-numeric: tabular-nums; }
.kind-figures tr :is(td, th):first-child { text-align: left; }
.kind-refused { padding: .8rem 1rem; border-left: 4px solid #d9480f; border-radius: 4px;
  background: var(--background-fill-secondary); }
"""


def heading(name: str, classes: str) -> str:
    """What the page is about; names may be anybody's, so that they are text and nothing else."""
    return (
        f"<div class='kind-heading'><h1>Play with {html.escape(name)}</h1><p>A model of {html.escape(classes)}. Its "
        "weights are sums of components: <i>learngenes</i>, which all classes share, and <i>tailors</i> of each class. "
        "Choose classes, weigh their tailors against each other, and make the model smaller: every change is drawn at "
        "once.</p></div>"
    )


def pictures(shown: Shown) -> str:
    """All strips, with what the notes say above them."""
    notes = "".join(f"<p class='kind-note'>{html.escape(note)}</p>" for note in shown.notes)
    return f"{notes}<div class='kind-strips'>{''.join(map(_strip, shown.strips))}</div>"


def figures(shown: Shown) -> str:
    """A table of sizes, and what the judge says."""
    rows = "".join(
        f"<tr><td>{name}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for name, *cells in _rows(shown.figures)
    )
    head = "<tr><th></th><th>whole, these classes</th><th>shown</th><th>ratio</th></tr>"
    accuracy = ""
    if shown.accuracy is not None:
        accuracy = (
            f"<p id='kind-accuracy'>Class accuracy of the pictures of single classes: <b>{shown.accuracy}</b> "
            "<span class='kind-note'>(by the run's judge, a classifier of real images; 95 % interval)</span></p>"
        )
    return f"<div class='kind-figures'>{accuracy}<table>{head}{rows}</table></div>"


def refused(sentence: str) -> str:
    """Why there is nothing to show."""
    return f"<div class='kind-refused' role='alert'>{html.escape(sentence)}</div>"


def _rows(found: Figures) -> list[tuple[str, str, str, str]]:
    counted = [
        ("parameters", found.parameters), ("FLOPs of one evaluation", found.flops), ("bytes", found.bytes)
    ]  # fmt: skip
    rows = [(name, f"{old:,}", f"{new:,}", f"{new / old:.2f}") for name, (old, new) in counted]
    if found.components is not None:
        kept, whole = found.components
        rows.append(("components kept", f"{whole:,}", f"{kept:,}", f"{kept / whole:.2f}"))
    rows.append(("energy of the components", "100 %", f"{100 * found.energy:.1f} %", f"{found.energy:.2f}"))
    return rows


def _strip(strip: Strip) -> str:
    count, side = strip.images.shape[:2]
    columns = min(count, 8)
    picture = grid(strip.images, columns, scale=-(-_LEAST_SIDE // side))
    data = base64.b64encode(png_bytes(picture)).decode()
    title, remark = html.escape(strip.title), html.escape(strip.remark)
    return (
        f"<figure class='kind-strip{' large' if strip.large else ''}'>"
        f"<figcaption><span>{title}</span><span class='remark'>{remark}</span></figcaption>"
        f"<img alt='{title}' src='data:image/png;base64,{data}'></figure>"
    )
