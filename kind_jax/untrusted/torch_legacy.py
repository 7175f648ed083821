"""PyTorch's files of before version 1.6, read without PyTorch and without unpickling.

Such a file is five pickles – a magic number, a version, facts about the machine, the object, the keys of its storages –
and then the storages, each its number of elements and the elements. A pickle is a program; here its instructions are
read one by one as data, and only those few are known that put together dictionaries, tuples and the descriptions of
tensors. Nothing is imported or called for a name in the file.
"""

from __future__ import annotations

import math
import pickletools
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from kind_jax.errors import UserError
from kind_jax.untrusted.regular import open_regular
from kind_jax.untrusted.text import printable

_MAGIC = 0x1950A86A20F9469CFC6C
_BEGINNING = b"\x80\x02\x8a\x0a" + _MAGIC.to_bytes(10, "little")
_VERSION = 1001
_INSTRUCTIONS = 10_000_000  # in one pickle; a state dict has some 30 for each tensor
_DTYPES: dict[str, np.dtype] = {
    f"torch {name}Storage": np.dtype(dtype)
    for name, dtype in {
        "Float": "<f4", "Half": "<f2", "BFloat16": ml_dtypes.bfloat16, "Double": "<f8", "Long": "<i8", "Int": "<i4",
        "Short": "<i2", "Char": "i1", "Byte": "u1", "Bool": "?",
    }.items()
}  # fmt: skip
_MARK = object()


class _Name(NamedTuple):
    """What the file calls a Python object."""

    name: str


class _Storage(NamedTuple):
    dtype: np.dtype
    key: str
    elements: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def is_legacy(path: Path) -> bool:
    """Whether a file begins as these do."""
    with open_regular(path) as (file, _):
        return file.read(len(_BEGINNING)) == _BEGINNING


def read(path: Path) -> dict[str, Shaped[np.ndarray, ...]]:
    """The tensors of a state dict by name, in the dtypes that they have.

    Raises:
      UserError: the file is damaged, of another kind, holds anything but tensors by name, or names a Python object that
        no tensor needs.
    """
    with open_regular(path) as (file, size):
        try:
            return _read(file, size, path)
        except UserError:
            raise
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, EOFError) as e:
            raise UserError(
                f"{path} is no file of tensors as PyTorch wrote them before version 1.6, or is damaged: "
                f"{type(e).__name__}."
            ) from e


def _read(file: BinaryIO, size: int, path: Path) -> dict[str, Shaped[np.ndarray, ...]]:
    magic, version, machine, found, keys = (_value(file, path) for _ in range(5))
    if magic != _MAGIC or version != _VERSION or machine["little_endian"] is not True:
        raise UserError(f"{path} is no file of tensors as PyTorch wrote them before version 1.6 on today's machines.")
    if not isinstance(found, dict) or not all(isinstance(t, _Tensor) for t in found.values()):
        raise UserError(f"{path} holds something else than a state dict: tensors by name.")
    wanted = {tensor.storage.key: tensor.storage for tensor in found.values()}
    storages = {}
    for key in keys:
        storage = wanted[key]
        count = int.from_bytes(file.read(8), "little")
        if count != storage.elements or count * storage.dtype.itemsize > size - file.tell():
            raise UserError(f"{path} is damaged: it ends within its tensors, or tells two sizes of one.")
        storages[key] = np.frombuffer(file.read(count * storage.dtype.itemsize), storage.dtype)
    return {name: _array(t, storages[t.storage.key], f"{path}: '{printable(name)}'") for name, t in found.items()}


def _array(tensor: _Tensor, storage: np.ndarray, which: str) -> np.ndarray:
    offset, shape, strides = tensor.offset, tensor.shape, tensor.strides
    whole = all(type(n) is int and n >= 0 for n in (offset, *shape, *strides)) and len(shape) == len(strides)
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=False)) if whole else -1
    count = math.prod(shape) if whole else 0
    # A view of one number can claim any shape, and would be given it as memory.
    if not whole or count > storage.size or (count and last >= storage.size):
        raise UserError(f"{which} has a shape, but too few numbers for it.")
    if not count:
        return np.zeros(shape, storage.dtype)
    item = storage.dtype.itemsize
    view = np.lib.stride_tricks.as_strided(storage[offset:], shape, [n * item for n in strides], writeable=False)
    return np.ascontiguousarray(view)


def _value(file: BinaryIO, path: Path) -> Any:
    """What one pickle describes: numbers, texts, dictionaries, lists, tuples and tensors."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for number, (code, argument, _) in enumerate(pickletools.genops(file)):
        if number > _INSTRUCTIONS:
            raise UserError(f"{path} has more than {_INSTRUCTIONS:,} instructions, too many for a state dict.")
        match code.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_MARK)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE" | "BINFLOAT":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[code.name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(_marked(stack)))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(code.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "APPEND":
                item = stack.pop()
                _extend(stack[-1], [item])
            case "APPENDS":
                items = _marked(stack)
                _extend(stack[-1], items)
            case "SETITEM":
                pair = [stack.pop(), stack.pop()]
                _put(stack[-1], pair[::-1])
            case "SETITEMS":
                pairs = _marked(stack)
                _put(stack[-1], pairs)
            case "BUILD":  # attributes of a dictionary, like the versions of the modules, which nothing needs
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise ValueError(code.name)
            case "GLOBAL":
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_called(stack.pop(), arguments, path))
            case other:
                raise UserError(f"{path} is not loaded: it has the instruction {other}, which no tensor needs.")
    raise EOFError


def _marked(stack: list[Any]) -> list[Any]:
    """What lies above the last mark; both are taken off."""
    at = max(i for i, value in enumerate(stack) if value is _MARK)
    values = stack[at + 1 :]
    del stack[at:]
    return values


def _extend(into: Any, items: list[Any]) -> None:
    if not isinstance(into, list):
        raise ValueError("list")
    into.extend(items)


def _put(into: Any, pairs: list[Any]) -> None:
    if not isinstance(into, dict) or not all(isinstance(key, str) for key in pairs[::2]):
        raise ValueError("keys")
    into.update(zip(pairs[::2], pairs[1::2], strict=True))


def _storage(named: Any) -> _Storage:
    what, kind, key, _, elements, view = named
    if what != "storage" or view is not None or type(elements) is not int or not isinstance(key, str):
        raise ValueError("storage")
    return _Storage(_DTYPES[kind.name], key, elements)


def _called(named: Any, arguments: Any, path: Path) -> Any:
    """What a call would give: the only two that are known describe a dictionary and a tensor."""
    name = named.name
    if name == "collections OrderedDict" and arguments == ():
        return {}
    if name == "torch._utils _rebuild_tensor_v2":
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
            raise ValueError("tensor")
        return _Tensor(storage, offset, shape, strides)
    raise UserError(
        f"{path} is not loaded: it asks for the Python object '{printable(name.replace(' ', '.'), 100)}', but it must "
        "hold tensors alone."
    )
