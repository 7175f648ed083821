"""Captions of a folder of images: a line of captions.jsonl for each, as Hugging Face's imagefolder has its metadata."""

from __future__ import annotations

import codecs
import os
import posixpath
from pathlib import Path

from kind_jax.data.folder import CAPTIONS, SUFFIXES, FolderSource
from kind_jax.errors import UserError
from kind_jax.untrusted import documents
from kind_jax.untrusted.regular import read_small
from kind_jax.untrusted.text import printable

_LARGEST = 4 << 30  # bytes
_WANTED = 'an object like {"file_name": "cats/1.png", "text": "a cat"}'


def captions_of(source: FolderSource, root: Path) -> tuple[tuple[str, ...], ...] | None:
    """The captions of each image, in the order of the lines; None where there is no captions.jsonl.

    Args:
      source: images of a split, perhaps of some of its classes alone; lines about others are passed over.
      root: ``data.path``.

    Raises:
      UserError: a line is none of the form, or its image is not there; an image has no caption; or the file lies beside
        the folders of the splits instead of in them.
    """
    path = source.folder / CAPTIONS
    if not os.path.lexists(path):
        if source.folder != root and os.path.lexists(root / CAPTIONS):
            raise UserError(
                f"{str(root / CAPTIONS)!r} is not in the folder of a split, but it must be, beside what it describes: "
                f"{str(path)!r}."
            )
        return None
    found: dict[bytes, list[str]] = {source.name(index): [] for index in range(len(source))}
    content = read_small(path, _LARGEST).removeprefix(codecs.BOM_UTF8)  # which some editors put in front
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        name, text = _parsed(line, f"line {number} of {str(path)!r}")
        if (own := found.get(os.fsencode(name))) is not None:
            if text in own:
                raise UserError(
                    f"line {number} of {str(path)!r} has the caption {printable(text, 80)!r} a second time."
                )
            own.append(text)
        elif not (source.folder / name).is_file() or not name.lower().endswith(SUFFIXES):
            raise UserError(
                f"line {number} of {str(path)!r} has the file_name {printable(name)!r}, but it must be an image below "
                f"{str(source.folder)!r}."
            )
    if lacking := next((name for name, own in found.items() if not own), None):
        count = sum(not own for own in found.values())
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise UserError(
            f"{str(path)!r} has no caption of the image {printable(os.fsdecode(lacking))!r}{more}, but it must have "
            "one of every image."
        )
    return tuple(tuple(own) for own in found.values())


def _parsed(line: bytes, origin: str) -> tuple[str, str]:
    """The path of an image, without detours, and a caption of it."""
    value = documents.parse(line, origin)
    if not isinstance(value, dict):
        raise UserError(f"{origin} is {printable(line.decode(), 80)}, but it must be {_WANTED}.")
    for key in ("file_name", "text"):
        if not isinstance(found := value.get(key), str) or not found.strip():
            shown = printable(repr(found), 80) if key in value else "missing"
            raise UserError(f"{origin} has the {key} {shown}, but it must be text: {_WANTED}.")
    name = posixpath.normpath(value["file_name"])
    if posixpath.isabs(name) or name.split("/")[0] == ".." or "\0" in name:
        raise UserError(f"{origin} has the file_name {printable(name)!r}, but it must be a path below its own folder.")
    return name, value["text"]
