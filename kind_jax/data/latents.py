"""Latents as a data set. B: records of a batch, N: of the split, h, w, c: the shape of a latent.

An autoencoder gives a normal distribution for an image, from which a training batch draws anew in every epoch.
"""

from __future__ import annotations

import abc
import dataclasses
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Float, Int32, Int64

from kind_jax.data import augment, latent_files
from kind_jax.data.bad import check_share, read_around
from kind_jax.data.decode import BadImage
from kind_jax.data.latent_files import INDEX, Autoencoder, Index, Split
from kind_jax.errors import UserError

# Describes a record for the fingerprint: change it whenever batches change.
READING = "(mean + exp(logvar / 2) * normal - shift) * scale; normals and flips by Philox([seed, stream]), position"
_BLOCK = 1024  # records read at a time
_LOGVAR = (-30.0, 20.0)  # as the autoencoder clips it


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Latents(abc.ABC):
    """What latents in memory and on disk have in common.

    Attributes:
      labels: of the records, in the chosen classes' numbers.
    """

    labels: Int32[np.ndarray, " N"]
    vae: Autoencoder

    @abc.abstractmethod
    def moments(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[Float[np.ndarray, "B 2 2 h w c"], Int32[np.ndarray, " B"], dict[str, Int64[np.ndarray, " B"]]]:
        """Mean and log-variance of plain and mirrored images, labels, and ``bad`` where there may be some."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        batch = self.gather([operator.index(index)])
        return {"image": batch["image"][0], "label": batch["label"][0]}

    def gather(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Several records; ``image`` float32 [B, h, w, c] is the mean of the plain image, in the model's scale."""
        found, labels, bad = self.moments(indices)
        return {"image": self._scaled(found[:, 0, 0].astype(np.float32)), "label": labels, **bad}

    def draw(self, indices: Sequence[int] | np.ndarray, *, seed: int, first: int, flip: bool) -> dict[str, np.ndarray]:
        """As :meth:`gather`, but latents drawn from their distributions, half of them mirrored if ``flip``."""
        found, labels, bad = self.moments(indices)
        mirrored = augment.flips(seed, first, len(labels)) if flip else np.zeros(len(labels), bool)
        chosen = found[np.arange(len(labels)), mirrored.astype(np.int64)].astype(np.float32)
        mean, logvar = chosen[:, 0], np.clip(chosen[:, 1], *_LOGVAR)
        noise = augment.normals(seed, first, len(labels), mean.shape[1:])
        return {"image": self._scaled(mean + np.exp(np.float32(0.5) * logvar) * noise), "label": labels, **bad}

    def _scaled(self, latents: Float[np.ndarray, "B h w c"]) -> Float[np.ndarray, "B h w c"]:
        return (latents - np.float32(self.vae.shift_factor)) * np.float32(self.vae.scaling_factor)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MemoryLatents(_Latents):
    """Latents in one array, in the dtype of their files."""

    stored: Float[np.ndarray, "N 2 2 h w c"]

    def moments(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[Float[np.ndarray, "B 2 2 h w c"], Int32[np.ndarray, " B"], dict[str, Int64[np.ndarray, " B"]]]:
        return self.stored[indices], self.labels[indices], {}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LatentFiles(_Latents):
    """Latents read when they are asked for.

    Attributes:
      records: random access to bytes.
      keep: which records are used; None is all of them.
      row: NumPy's view of a record.
      folder: named in errors.
    """

    records: Any
    keep: Int32[np.ndarray, " N"] | None
    row: np.dtype
    folder: Path

    def moments(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[Float[np.ndarray, "B 2 2 h w c"], Int32[np.ndarray, " B"], dict[str, Int64[np.ndarray, " B"]]]:
        fetched = self._fetched(indices)

        def read(index: int) -> tuple[np.ndarray, np.int32]:
            record = fetched[index] if index in fetched else self._record(index)
            return latent_files.unpack(record, self.row), self.labels[index]

        rows, bad = read_around(indices, len(self), read)
        found, labels = zip(*rows, strict=True)
        return np.stack(found), np.asarray(labels, np.int32), {"bad": bad}

    def explain(self, index: int) -> str:
        """The name of a record and why it cannot be read."""
        name = f"record {self._number(index)} of {str(self.folder)!r}"
        try:
            latent_files.unpack(self._record(index), self.row)
        except BadImage as e:
            return f"{name}: {e}"
        return f"{name}: it could not be read a moment ago, but now it can"

    def _number(self, index: int) -> int:
        return int(index if self.keep is None else self.keep[index])

    def _fetched(self, indices: Sequence[int] | np.ndarray) -> dict[int, bytes]:
        """Records by index; none if one of them cannot be read."""
        unique = list(dict.fromkeys(map(int, indices)))
        try:
            return dict(zip(unique, self.records.__getitems__([self._number(i) for i in unique]), strict=True))
        except Exception:  # ArrayRecord fails as a whole: whose fault it is shows one by one
            return {}

    def _record(self, index: int) -> bytes:
        try:
            return self.records.__getitems__([self._number(index)])[0]
        except Exception as e:  # ArrayRecord raises several types
            raise BadImage(" ".join(str(e).split())[:200] or type(e).__name__) from e


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    """What ArrayRecord's data source must know of a file so as not to open all of them at once."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def open_split(path: str | None, split: str) -> tuple[Index, Split]:
    """What latents.json in ``path`` says in all, and about one split.

    Raises:
      UserError: there is no such folder, its encoding is not finished, or it lacks the split.
    """
    wanted = "a folder that kind-jax latents wrote"
    if path is None or "://" in path or not (root := Path(path).expanduser()).is_dir():
        raise UserError(f"data.path is {path!r}, but for data.source 'latents' it must be {wanted}.")
    if not (root / INDEX).exists():
        begun = "; if its encoding was interrupted, the same kind-jax latents command goes on"
        raise UserError(f"data.path is {path!r}, where there is no {INDEX}, but it must be {wanted}{begun}.")
    index = latent_files.read_index(root)
    found = dict(index.splits).get(split)  # pyright: ignore[reportArgumentType]
    if found is None:
        raise UserError(
            f"data.path is {path!r}, which has latents of {' and '.join(index.splits)} only; kind-jax latents --split "
            f"{split} adds those of {split}."
        )
    return index, found


def open_source(
    folder: Path, index: Index, split: Split, renumber: Int32[np.ndarray, " K"], limit: float, *, memory: int
) -> tuple[MemoryLatents | LatentFiles, list[str]]:
    """The records of the chosen classes of a split, held in memory if they take less than ``memory`` bytes.

    Args:
      folder: of the split.
      renumber: the number of each label among the chosen classes, -1 for none.
      limit: ``data.skip_bad``.

    Returns:
      The source, and a line about each record that was left out because it is damaged.

    Raises:
      UserError: a file is absent or of another size, or too many records are damaged.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    paths = latent_files.check_files(folder, split)
    labels = renumber[latent_files.read_labels(folder, split, len(index.class_names))]
    keep = None if (labels >= 0).all() else np.flatnonzero(labels >= 0).astype(np.int32)
    files: Any = [
        _File(filename=str(path), skip=0, take=shard.records, examples_in_shard=shard.records)
        for path, shard in zip(paths, split.shards, strict=True)
        if shard.records
    ]
    source = LatentFiles(
        records=ArrayRecordDataSource(files), keep=keep, labels=labels if keep is None else labels[keep],
        row=index.row, folder=folder, vae=index.vae,
    )  # fmt: skip
    if len(source) and len(source) * index.row.itemsize < memory:
        return _held(source, limit)
    return source, []


def _held(source: LatentFiles, limit: float) -> tuple[MemoryLatents, list[str]]:
    parts, labels, lines = [], [], []
    for start in range(0, len(source), _BLOCK):
        indices = np.arange(start, min(start + _BLOCK, len(source)))
        found, own, extra = source.moments(indices)
        good = extra["bad"] < 0
        for index in indices[~good].tolist():
            lines.append(source.explain(index))
            check_share(len(lines), len(source), limit, lambda: lines[-1])
        parts.append(found[good])
        labels.append(own[good])
    stored = np.concatenate(parts)
    stored.flags.writeable = False
    return MemoryLatents(stored=stored, labels=np.concatenate(labels), vae=source.vae), lines
