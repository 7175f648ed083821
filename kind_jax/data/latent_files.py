"""Latents on disk: a sealed latents.json, and for each split ArrayRecord files and the labels of their records.

A record is a CRC-32 of what follows it, the label (int32), and mean and log-variance of the plain image and of the
mirrored one, unscaled, all little-endian: [2, 2, h, w, c] in float16 or float32. Every record of a set has the same
size. Labels are kept once more in a file of their own, so that choosing classes reads no record.
h, w, c: the shape of a latent; N: records.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
from jaxtyping import Float, Int32

from kind_jax import sealed
from kind_jax.config.check import STRICT, problem
from kind_jax.data.decode import BadImage
from kind_jax.errors import UserError
from kind_jax.untrusted import documents
from kind_jax.untrusted.regular import read_small
from kind_jax.untrusted.text import check_names

FORMAT = 1
INDEX, LABELS = "latents.json", "labels.bin"
Dtype = Literal["float16", "float32"]
SplitName = Literal["train", "test"]
_MOST = 1 << 24  # numbers in a latent
_MEND = "Remove it; the kind-jax latents command that wrote the folder makes it anew."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """What made the latents: a model's latents are (z - shift_factor) * scaling_factor; ``factor`` pixels make one."""

    __pydantic_config__ = STRICT
    fingerprint: str
    scaling_factor: pydantic.PositiveFloat
    shift_factor: float
    factor: pydantic.PositiveInt


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """One file of records."""

    __pydantic_config__ = STRICT
    records: pydantic.NonNegativeInt
    bytes: pydantic.NonNegativeInt
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """One split.

    Attributes:
      skipped: images that could not be read.
      mean, std: of all latents as a model sees them, scaled and with their noise.
      labels: SHA-256 of the labels' file.
      source: fingerprint of the data set that was encoded.
    """

    __pydantic_config__ = STRICT
    records: pydantic.PositiveInt
    skipped: pydantic.NonNegativeInt
    mean: float
    std: float
    labels: str
    source: dict[str, Any]
    shards: tuple[Shard, ...]

    @property
    def digest(self) -> str:
        """What identifies all records and their order."""
        return hashlib.sha256("\n".join([self.labels, *(shard.sha256 for shard in self.shards)]).encode()).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """latents.json.

    Attributes:
      image_shape: of the images that were encoded, (H, W, C).
      shape: of a latent, (h, w, c).
      class_names: name of each label.
    """

    __pydantic_config__ = STRICT
    format: Literal[1]
    vae: Autoencoder
    image_shape: tuple[pydantic.PositiveInt, pydantic.PositiveInt, pydantic.PositiveInt]
    shape: tuple[pydantic.PositiveInt, pydantic.PositiveInt, pydantic.PositiveInt]
    dtype: Dtype
    class_names: tuple[str, ...]
    splits: dict[SplitName, Split]

    @property
    def row(self) -> np.dtype:
        """NumPy's view of a record."""
        return row_dtype(self.shape, self.dtype)


_ADAPTER = pydantic.TypeAdapter(Index)


def row_dtype(shape: tuple[int, int, int], dtype: str) -> np.dtype:
    """The bytes of a record as a structure: ``crc``, ``label``, ``moments`` [plain or mirrored, mean or logvar]."""
    numbers = np.dtype(dtype).newbyteorder("<")
    return np.dtype([("crc", "<u4"), ("label", "<i4"), ("moments", numbers, (2, 2, *shape))])


def pack(labels: Int32[np.ndarray, " N"], moments: Float[np.ndarray, "N 2 2 h w c"]) -> list[bytes]:
    """Records in the dtype of ``moments``."""
    rows = np.zeros(len(labels), row_dtype(moments.shape[3:], moments.dtype.name))
    rows["label"], rows["moments"] = labels, moments
    bodies = [row.tobytes()[4:] for row in rows]
    return [struct.pack("<I", zlib.crc32(body)) + body for body in bodies]


def unpack(record: bytes, row: np.dtype) -> Float[np.ndarray, "2 2 h w c"]:
    """The moments in a record.

    Raises:
      BadImage: it is damaged.
    """
    if len(record) != row.itemsize:
        raise BadImage(f"it has {len(record)} bytes, not {row.itemsize}")
    found: Any = np.frombuffer(record, row)[0]
    if found["crc"] != zlib.crc32(memoryview(record)[4:]):
        raise BadImage("its checksum is not that of its content")
    if not np.isfinite(found["moments"]).all():
        raise BadImage("it has numbers that are not finite")
    return found["moments"]


def shard_name(number: int, count: int) -> str:
    return f"{number:05}-of-{count:05}.array_record"


def write_index(root: Path, index: Index) -> None:
    """Write latents.json, the sign that a set is complete."""
    sealed.write(root / INDEX, _ADAPTER.dump_python(index, mode="json"))


def read_index(root: Path) -> Index:
    """latents.json.

    Raises:
      UserError: it is absent or damaged, or of a version to come.
    """
    path = root / INDEX
    data = sealed.read(path)
    documents.parse(data, path)
    try:
        index = _ADAPTER.validate_json(data)
    except pydantic.ValidationError as e:
        raise UserError(f"{path} is damaged, or of another version of kind_jax: {problem(e)}.") from e
    check_names(index.class_names, path)
    if math.prod(index.shape) > _MOST:
        raise UserError(f"{path} is damaged: a latent of {index.shape} is more than any autoencoder makes.")
    for name, split in index.splits.items():
        if sum(shard.records for shard in split.shards) != split.records:
            raise UserError(f"{path} is damaged: the shards of {name} have another number of records than it says.")
    return index


def check_files(folder: Path, split: Split) -> tuple[Path, ...]:
    """The shards of a split, each a file of the right size.

    Raises:
      UserError: one is not; it is named.
    """
    paths = tuple(folder / shard_name(i, len(split.shards)) for i in range(len(split.shards)))
    for path, shard in zip(paths, split.shards, strict=True):
        try:
            status = os.stat(path)
        except OSError as e:
            raise UserError(f"{path} cannot be opened: {e.strerror}. {_MEND}") from e
        if not stat.S_ISREG(status.st_mode) or status.st_size != shard.bytes:
            found = f"{status.st_size} bytes" if stat.S_ISREG(status.st_mode) else "no file"
            raise UserError(f"{path} is damaged: it is {found}, not {shard.bytes} bytes. {_MEND}")
    return paths


def read_labels(folder: Path, split: Split, classes: int) -> Int32[np.ndarray, " N"]:
    """The label of every record of a split.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / LABELS
    data = read_small(path, 4 * split.records)
    if len(data) != 4 * split.records or hashlib.sha256(data).hexdigest() != split.labels:
        raise UserError(f"{path} is damaged: it is not what {INDEX} says. {_MEND}")
    labels = np.frombuffer(data, "<i4").astype(np.int32)
    if not ((labels >= 0) & (labels < classes)).all():
        raise UserError(f"{path} is damaged: a label is outside 0..{classes - 1}. {_MEND}")
    return labels
