"""Captions and families in the records of a prepared data set: what they are, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int64

from kind_jax.data.decode import BadImage
from kind_jax.data.records import RecordSource
from kind_jax.data.text_features import FAMILY
from kind_jax.errors import UserError

Captions = tuple[tuple[str, ...], ...]
_BLOCK = 256  # records read at a time


class Told(NamedTuple):
    """What records say beside image and label.

    Attributes:
      captions: of each record that can be read.
      families: the number of its family; None where records have none.
      rows: which of the records these are, as positions among those that were asked for.
      bad: a line about each other one.
    """

    captions: Captions
    families: Int64[np.ndarray, " N"] | None
    rows: Int64[np.ndarray, " N"]
    bad: list[str]


def read(records: RecordSource, indices: Int[np.ndarray, " M"], place: Sequence[str], *, families: bool) -> Told:
    """The captions of records, each of which is read for them.

    Args:
      records: where they are.
      indices: which records.
      place: keys that lead to captions in a record (``text_features.place_of``).
      families: whether records have the number of a family, too.

    Raises:
      UserError: a record has no text there.
    """
    captions, members, rows, bad = [], [], [], []
    for start in range(0, len(indices), _BLOCK):
        block = indices[start : start + _BLOCK].tolist()
        for position, (index, row) in enumerate(zip(block, records.rows(block), strict=True), start):
            try:
                if isinstance(row, BadImage):
                    raise row
                found = _texts(row, place)
            except BadImage as e:
                bad.append(f"{records.called(index)}: {e}")
                continue
            if not found:
                raise UserError(
                    f"{records.called(index)} has no caption, but every record must have text in {'/'.join(place)!r}."
                )
            captions.append(found)
            members.append(int(row[FAMILY]) if families else 0)
            rows.append(position)
    of = np.asarray(members, np.int64) if families else None
    return Told(tuple(captions), of, np.asarray(rows, np.int64), bad)


def _texts(row: Mapping[str, Any], place: Sequence[str]) -> tuple[str, ...]:
    found: Any = row
    for key in place:
        found = found.get(key, ())
    several = [found] if isinstance(found, bytes | str) else list(found)
    try:
        texts = [text.decode() if isinstance(text, bytes) else str(text) for text in several]
    except UnicodeDecodeError as e:
        raise BadImage("its caption is not UTF-8") from e
    return tuple(text for text in texts if text.strip())


def fingerprint(
    captions: Sequence[Sequence[str]] | None, families: Int64[np.ndarray, " N"] | None
) -> dict[str, dict[str, str]]:
    """What identifies captions and families, as JSON values; nothing for what there is not."""
    found = {}
    if captions is not None:
        lines = (json.dumps(list(texts), ensure_ascii=False) + "\n" for texts in captions)
        digest = hashlib.sha256()
        for line in lines:
            digest.update(line.encode("utf-8", errors="surrogatepass"))
        found["captions"] = {"sha256": digest.hexdigest()}
    if families is not None:
        found["families"] = {"sha256": hashlib.sha256(families.astype("<i8").tobytes()).hexdigest()}
    return found
