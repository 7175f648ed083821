"""Safetensors files of strangers.

The header is parsed here before the library sees it, so that wrong names, shapes and sizes cost nothing, and what JSON
parsers read differently (a key twice) is refused. The arrays are the library's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np
import safetensors

from kind_jax.errors import UserError
from kind_jax.untrusted import documents
from kind_jax.untrusted.info import Info, is_shape
from kind_jax.untrusted.regular import open_regular, read_exactly
from kind_jax.untrusted.text import printable

HEADER_LIMIT = 100_000_000  # bytes; the library's own
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
    "BF16": np.dtype(ml_dtypes.bfloat16).name,
}  # fmt: skip


class Header(NamedTuple):
    """What a file says that it holds; its size is in accord with it."""

    metadata: dict[str, str]
    arrays: dict[str, Info]


Check = Callable[[Header], None]


def load(data: bytes, origin: object, check: Check = lambda header: None) -> dict[str, np.ndarray]:
    """The arrays in the bytes of a file.

    Args:
      check: called with the header before any array is made; what it raises is passed on.

    Raises:
      UserError: no safetensors file, or a damaged one; ``origin`` is named.
    """
    check(header(data, origin))
    try:
        return {
            name: np.frombuffer(view["data"], _DTYPES[view["dtype"]]).reshape(view["shape"])
            for name, view in safetensors.deserialize(data)
        }
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, OverflowError) as e:
        raise _refused(origin, printable(e)) from e


def read(path: Path, check: Check = lambda header: None, *, links: bool = True) -> dict[str, np.ndarray]:
    """The arrays in a file; see :func:`load`."""
    with open_regular(path, links=links) as (file, size):
        head = _read_header(file, size, path)
        check(_header(head[8:], size - len(head), path))
        file.seek(0)
        return load(read_exactly(file, size, path), path)


def header(data: bytes, origin: object) -> Header:
    """The header in the bytes of a file.

    Raises:
      UserError: as :func:`load`.
    """
    start = _start(data[:8], len(data), origin)
    return _header(data[8:start], len(data) - start, origin)


def look(path: Path, *, links: bool = True) -> Header:
    """The header of a file alone.

    Raises:
      UserError: as :func:`load`.
    """
    with open_regular(path, links=links) as (file, size):
        head = _read_header(file, size, path)
        return _header(head[8:], size - len(head), path)


def _refused(origin: object, reason: str) -> UserError:
    return UserError(f"{origin} is not a safetensors file, or is damaged: {reason}.")


def _start(first: bytes, size: int, origin: object) -> int:
    """Where the arrays begin."""
    count = int.from_bytes(first, "little")
    if len(first) < 8 or count > min(HEADER_LIMIT, size - 8):
        raise _refused(origin, f"it has {size} bytes, which its header does not fit in")
    return 8 + count


def _read_header(file: BinaryIO, size: int, path: Path) -> bytes:
    first = read_exactly(file, min(size, 8), path)
    return first + read_exactly(file, _start(first, size, path) - 8, path)


def _header(text: bytes, size: int, origin: object) -> Header:
    found: Any = documents.parse(text, f"The header of {origin}")
    if not isinstance(found, dict):
        raise _refused(origin, "its header is no object")
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _refused(origin, "its __metadata__ is not text by name")
    arrays, places = {}, []
    for name, entry in found.items():
        info, begin, end = _entry(entry, f"its array '{printable(name, 60)}'", origin)
        arrays[name] = info
        places.append((begin, end))
    reached = 0
    for begin, end in sorted(places):
        if begin != reached:
            raise _refused(origin, "its arrays overlap, or leave gaps")
        reached = end
    if reached != size:
        raise _refused(origin, f"its arrays take {reached} bytes, but it has {size} for them")
    return Header(metadata, arrays)


def _entry(entry: Any, which: str, origin: object) -> tuple[Info, int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _refused(origin, f"{which} has other fields than dtype, shape and data_offsets")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES:
        raise _refused(origin, f"{which} has the dtype {printable(entry['dtype'], 20)}")
    if not is_shape(entry["shape"]):
        raise _refused(origin, f"{which} has the shape {printable(entry['shape'], 60)}")
    offsets = entry["data_offsets"]
    info = Info(tuple(entry["shape"]), _DTYPES[entry["dtype"]])
    if not is_shape(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != info.bytes:
        raise _refused(origin, f"{which} is {printable(info, 60)}, but lies at {printable(offsets, 60)}")
    return info, offsets[0], offsets[1]
