"""``.npz`` files of strangers.

NumPy allocates what the header of an array asks for before it reads on, inflates whatever a zip file holds, and
unpickles if told so. Here the header must agree with the size in the zip directory, and that with the size of the file.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kind_jax.errors import UserError
from kind_jax.untrusted.info import Info, is_shape
from kind_jax.untrusted.regular import open_regular
from kind_jax.untrusted.text import printable

RATIO, SMALL = 100, 16 << 20  # a member may inflate a hundredfold, or to so many bytes
_HEADER = 10_000  # bytes, NumPy's own limit
_MEMBERS = 100_000
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, KeyError, IndexError,
    NotImplementedError, RuntimeError, OverflowError, TypeError, SyntaxError, MemoryError,
)  # fmt: skip

Expect = Mapping[str, tuple[tuple[int | None, ...], str]]


def look(path: Path, wanted: Collection[str] | None = None) -> dict[str, Info]:
    """What arrays of an ``.npz`` file claim to be, by name.

    Args:
      wanted: names of arrays; those that are absent are left out. None is every array.

    Raises:
      UserError: the file is named; it is no ``.npz`` file of plain arrays, damaged, or inflates beyond measure.
    """
    with _opened(path, wanted) as (archive, members):
        return {name: _info(archive, member, name)[0] for name, member in members.items()}


def read(path: Path, wanted: Collection[str] | None = None, *, expect: Expect | None = None) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file by name.

    Args:
      wanted: as for :func:`look`.
      expect: shape (None fits any size) and dtype of arrays that must be there.

    Raises:
      UserError: as :func:`look`, or an array is not as expected, which is found out before any is read.
    """
    with _opened(path, wanted) as (archive, members):
        infos = {name: _info(archive, member, name)[0] for name, member in members.items()}
        for name, wants in (expect or {}).items():
            _expected(name, infos.get(name), wants)
        return {name: _read(archive, member, name) for name, member in members.items()}


@contextlib.contextmanager
def _opened(path: Path, wanted: Collection[str] | None) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    with _refuse(path), open_regular(path) as (file, size), zipfile.ZipFile(file) as archive:
        members = _members(archive, size)
        yield archive, {n: m for n, m in members.items() if wanted is None or n in wanted}


@contextlib.contextmanager
def _refuse(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except _DAMAGE as e:
        reason = printable(e).rstrip(".") or type(e).__name__
        raise UserError(f"{path} is not an .npz file of plain arrays, or is damaged: {reason}.") from e


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in found:
            raise ValueError(f"it has '{printable(name, 60)}' twice")
        found[name] = member
        which = f"its '{printable(name, 60)}'"
        if member.flag_bits & 0x1:
            raise ValueError(f"{which} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{which} is compressed in a way that NumPy does not use")
        if member.compress_size > size:
            raise ValueError(f"{which} has {member.compress_size} bytes, more than the file")
        most = member.compress_size if member.compress_type == zipfile.ZIP_STORED else RATIO * member.compress_size
        if member.file_size > max(most, SMALL):
            raise ValueError(f"{which} grows from {member.compress_size} to {member.file_size} bytes")
    if len(found) > _MEMBERS:
        raise ValueError(f"it has {len(found)} arrays")
    return found


def _head(file: Any, which: str) -> tuple[Info, np.dtype, bool, int]:
    """What a ``.npy`` header says, whether the array is in Fortran's order, and the header's length."""
    magic = file.read(8)
    version = tuple(magic[6:8])
    if magic[:6] != b"\x93NUMPY" or version not in ((1, 0), (2, 0)):
        raise ValueError(f"{which} is no array")
    width = 2 if version == (1, 0) else 4
    length = file.read(width)
    count = int.from_bytes(length, "little")
    if count > _HEADER:
        raise ValueError(f"{which} has a header of {count} bytes")
    text = file.read(count)
    parse = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = parse(io.BytesIO(length + text))
    except (  # TokenError: what Python 3.12 makes of brackets without end
        ValueError, RecursionError, MemoryError, TypeError, SyntaxError, KeyError, AttributeError, tokenize.TokenError,
    ) as e:  # fmt: skip
        raise ValueError(f"{which} has a damaged header") from e
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None or dtype.kind not in "biufcU":
        raise ValueError(f"{which} is of {printable(dtype, 40)}, not of plain numbers")
    if not is_shape(shape):
        raise ValueError(f"{which} has the shape {printable(shape, 60)}")
    return Info(shape, dtype.str if dtype.kind == "U" else dtype.name), dtype, fortran, 8 + width + count


def _info(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> tuple[Info, np.dtype, bool, int]:
    which = f"its '{printable(name, 60)}'"
    with archive.open(member) as file:
        info, dtype, fortran, length = _head(file, which)
    if length + info.bytes != member.file_size:
        raise ValueError(f"{which} is {info}, but has {member.file_size - length} bytes")
    return info, dtype, fortran, length


def _expected(name: str, info: Info | None, wants: tuple[tuple[int | None, ...], str]) -> None:
    shape, dtype = wants
    wanted = f"{dtype}[{', '.join('*' if n is None else str(n) for n in shape)}]"
    if info is None:
        raise ValueError(f"it lacks '{name}', which must be {wanted}")
    same = len(info.shape) == len(shape) and all(w in (None, n) for n, w in zip(info.shape, shape, strict=True))
    if not same or info.dtype != dtype:
        raise ValueError(f"its '{name}' is {info}, but must be {wanted}")


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> np.ndarray:
    info, dtype, fortran, length = _info(archive, member, name)
    flat: Any = np.empty(info.bytes, np.uint8)
    view = memoryview(flat)
    with archive.open(member) as file:
        file.read(length)
        done = 0
        while done < info.bytes:
            part = file.read(min(info.bytes - done, 1 << 20))
            if not part:
                raise EOFError(f"its '{printable(name, 60)}' ends after {done} of {info.bytes} bytes")
            view[done : done + len(part)] = part
            done += len(part)
        if file.read(1):  # also makes zipfile compare the checksum
            raise ValueError(f"its '{printable(name, 60)}' is longer than it says")
    return np.ndarray(info.shape, dtype, flat, order="F" if fortran else "C")
