"""Writing latents: shards that are finished stay, whoever goes on, and latents.json comes last.

Every shard has a small file of its own beside it, written after it, with its checksum and labels: the sign that it is
finished. encoding.json says what is being encoded, so that nothing else is written among it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
from jaxtyping import Float, Int32

from kind_jax import sealed
from kind_jax.config.check import STRICT
from kind_jax.data import latent_files
from kind_jax.data.latent_files import LABELS, Autoencoder, Index, Shard, Split, shard_name
from kind_jax.data.pipeline import describe_difference
from kind_jax.errors import UserError
from kind_jax.files import atomic_write_bytes, is_leftover, sha256_file, sync
from kind_jax.untrusted import documents

STATE = "encoding.json"
_OPTIONS = "group_size:1,uncompressed"  # read one by one, and noise does not shrink


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
    """What is known of a finished shard.

    Attributes:
      content: SHA-256 of the file.
      skipped: a line about each image that could not be read.
      sums: of numbers, means, squares of means, and variances.
    """

    __pydantic_config__ = STRICT
    records: pydantic.NonNegativeInt
    bytes: pydantic.NonNegativeInt
    content: str
    labels: tuple[pydantic.NonNegativeInt, ...]
    skipped: tuple[str, ...]
    sums: tuple[float, float, float, float]


_NOTE = pydantic.TypeAdapter(Note)


class OpenShard:
    """A shard that is being written."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.labels: list[int] = []
        self.skipped: list[str] = []
        self.sums = np.zeros(4)

    def add(self, labels: Int32[np.ndarray, " N"], moments: Float[np.ndarray, "N 2 2 h w c"]) -> None:
        """Append records."""
        for record in latent_files.pack(labels, moments):
            self._write(record)
        self.labels += labels.tolist()
        mean, logvar = (moments[:, :, i].astype(np.float64) for i in (0, 1))
        self.sums += mean.size, mean.sum(), (mean**2).sum(), np.exp(logvar).sum()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shards:
    """The shards of one split: shard i has records i * ``size`` to (i + 1) * ``size`` but for those that are bad."""

    folder: Path
    records: int
    size: int

    @property
    def count(self) -> int:
        return -(-self.records // self.size)

    def rows(self, number: int) -> range:
        """The source's records of a shard."""
        return range(number * self.size, min((number + 1) * self.size, self.records))

    def path(self, number: int) -> Path:
        return self.folder / shard_name(number, self.count)

    def whole(self, number: int) -> bool:
        """Whether a shard is finished and its content is what was written; reads all of it."""
        note, path = self.note(number), self.path(number)
        try:
            return note is not None and sha256_file(path) == note.content
        except OSError:
            return False

    def note(self, number: int) -> Note | None:
        """What is known of a shard; None if it is not finished, or has not the size that it had then."""
        path = self.path(number)
        try:
            note = _NOTE.validate_json(sealed.read(path.with_suffix(".json")))
            return note if path.stat().st_size == note.bytes else None
        except (UserError, OSError, pydantic.ValidationError):
            return None

    @contextlib.contextmanager
    def writing(self, number: int) -> Iterator[OpenShard]:
        """Write a shard; it is there, and finished, only if the block succeeds.

        Raises:
          UserError: it cannot be written.
        """
        from array_record.python.array_record_module import ArrayRecordWriter

        path = self.path(number)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        with _said(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(f".{path.name}.*.tmp"):
                if is_leftover(left.name):
                    left.unlink()
            writer = ArrayRecordWriter(str(temporary), _OPTIONS)

        def write(record: bytes) -> None:
            with _said(path):
                writer.write(record)

        try:
            shard = OpenShard(write)
            try:
                yield shard
            except BaseException:
                with contextlib.suppress(Exception):  # the first error is the one to report
                    writer.close()
                raise
            with _said(path):
                writer.close()
                sync(temporary)
                os.replace(temporary, path)
                sync(self.folder)
                size, digest = path.stat().st_size, sha256_file(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        count, means, squares, variances = shard.sums.tolist()
        note = Note(
            records=len(shard.labels), bytes=size, content=digest, labels=tuple(shard.labels),
            skipped=tuple(shard.skipped), sums=(count, means, squares, variances),
        )  # fmt: skip
        sealed.write(path.with_suffix(".json"), _NOTE.dump_python(note, mode="json"))


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    """Turn a failure to write into one :class:`UserError` that names the file."""
    try:
        yield
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as e:  # ArrayRecord has its own for a full disk
        reason = " ".join(str(getattr(e, "strerror", None) or e).split())[:200].rstrip(".")
        raise UserError(f"{str(path)!r} could not be written: {reason or type(e).__name__}.") from e


def check(root: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that holds something else, or latents of other settings; changes nothing.

    Args:
      settings: what decides the content of all files, as JSON values; ``splits`` has an entry for each split.

    Raises:
      UserError: naming what differs.
    """
    if not (root / STATE).is_file():
        foreign = os.path.lexists(root) and (not root.is_dir() or any(p.name[0] != "." for p in root.iterdir()))
        if foreign:
            raise UserError(f"--out is {str(root)!r}, which is not empty and holds no latents; choose another folder.")
        return
    saved, now = _state(root), json.loads(json.dumps(settings))
    both = [name for name in now["splits"] if name in saved["splits"]]
    for part in (saved, now):
        part["splits"] = {name: part["splits"][name] for name in both}
    changed = describe_difference(saved, now)
    if changed:
        raise UserError(f"--out is {str(root)!r}, which holds latents of something else: {changed}.")


def begin(root: Path, settings: Mapping[str, Any]) -> dict[str, Shards]:
    """Say in the folder what is written to it; splits that are there already stay.

    Returns:
      The shards of each split in ``settings``.

    Raises:
      UserError: as :func:`check`.
    """
    check(root, settings)
    earlier = _state(root)["splits"] if (root / STATE).is_file() else {}
    sealed.write(root / STATE, {**settings, "splits": {**earlier, **settings["splits"]}})
    size = settings["shard_records"]
    return {
        name: Shards(folder=root / name, records=split["records"], size=size)
        for name, split in settings["splits"].items()
    }


def _state(root: Path) -> dict[str, Any]:
    path = root / STATE
    return documents.parse(sealed.read(path), path)


def missing(root: Path) -> dict[str, int]:
    """How many shards of each split are not finished."""
    state = _state(root)
    found = {}
    for name, split in state["splits"].items():
        shards = Shards(folder=root / name, records=split["records"], size=state["shard_records"])
        found[name] = sum(shards.note(number) is None for number in range(shards.count))
    return found


def finish(root: Path) -> tuple[Index, list[str]] | None:
    """Write latents.json if every shard of every split is there; of several hosts, the last one finds it so.

    Returns:
      What it says, and a line about each image that was skipped; None if shards are missing.

    Raises:
      UserError: no image of a split could be read, or a file cannot be written.
    """
    state, splits, skipped = _state(root), {}, []
    vae = Autoencoder(**state["vae"])
    for name, split in state["splits"].items():
        shards = Shards(folder=root / name, records=split["records"], size=state["shard_records"])
        notes = [shards.note(number) for number in range(shards.count)]
        done = [note for note in notes if note is not None]
        if len(done) < len(notes):
            return None
        labels = np.asarray([label for note in done for label in note.labels], "<i4").tobytes()
        if not labels:
            raise UserError(f"{str(shards.folder)!r} has no record: no image of the split could be read.")
        atomic_write_bytes(shards.folder / LABELS, labels)
        skipped += [line for note in done for line in note.skipped]
        count, means, squares, variances = (math.fsum(note.sums[i] for note in done) for i in range(4))
        mean = means / count
        spread = math.sqrt(max(squares / count + variances / count - mean**2, 0.0))
        splits[name] = Split(
            records=sum(note.records for note in done),
            skipped=sum(len(note.skipped) for note in done),
            mean=(mean - vae.shift_factor) * vae.scaling_factor,
            std=spread * vae.scaling_factor,
            labels=sha256_file(shards.folder / LABELS),
            source=split["source"],
            shards=tuple(Shard(records=note.records, bytes=note.bytes, sha256=note.content) for note in done),
        )
    index = Index(
        format=latent_files.FORMAT, vae=vae, image_shape=tuple(state["image_shape"]), shape=tuple(state["shape"]),
        dtype=state["dtype"], class_names=tuple(state["class_names"]), splits=splits,
    )  # fmt: skip
    latent_files.write_index(root, index)
    return index, skipped
