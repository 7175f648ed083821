"""Samples on disk: ``settings.json`` and one ``.npz`` file for every so many images, each whole or absent."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from kind_jax.errors import UserError
from kind_jax.files import atomic_write_bytes, atomic_write_text, is_leftover
from kind_jax.train import lock
from kind_jax.untrusted import arrays as untrusted
from kind_jax.untrusted import documents
from kind_jax.untrusted.text import printable

SETTINGS, JUDGE = "settings.json", "judge.safetensors"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Shards:
    """Shards of one set of samples.

    Attributes:
      labels: class of each image.
      size: images in a shard; the last may have fewer.
      shape: (H, W, C).
    """

    folder: Path
    labels: Int32[np.ndarray, " N"]
    size: int
    shape: tuple[int, int, int]

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        settings: dict[str, Any],
        labels: Int32[np.ndarray, " N"],
        size: int,
        shape: tuple[int, int, int],
    ) -> Shards:
        """Create the folder, or continue in one of the very same settings.

        Raises:
          UserError: other settings (the first that differs is named), a folder of something else, a damaged file.
        """
        check_folder(folder, settings)
        path = folder / SETTINGS
        if not path.is_file():
            atomic_write_text(path, json.dumps(settings, indent=1))
        return cls(folder=folder, labels=labels, size=size, shape=shape)

    @property
    def number(self) -> int:
        """How many shards there are in all."""
        return -(-len(self.labels) // self.size)

    def rows(self, number: int) -> slice:
        """The images of a shard."""
        return slice(number * self.size, min((number + 1) * self.size, len(self.labels)))

    def path(self, number: int) -> Path:
        return self.folder / "shards" / f"{number:05}.npz"

    def missing(self) -> list[int]:
        """Shards that are not written yet."""
        numbers = [number for number in range(self.number) if not self.path(number).is_file()]
        for number in numbers:
            if os.path.lexists(self.path(number)):  # to write to a pipe would wait for somebody who reads it
                raise UserError(f"{self.path(number)} is not a file; delete it to draw its images again.")
        return numbers

    def done(self) -> int:
        """Images in the shards that are written."""
        absent = (self.rows(number) for number in self.missing())
        return len(self.labels) - sum(rows.stop - rows.start for rows in absent)

    def write(self, number: int, pixels: UInt8[np.ndarray, "N H W C"]) -> None:
        """Write a shard, whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, pixels=pixels, labels=self.labels[self.rows(number)])
        atomic_write_bytes(self.path(number), buffer.getvalue())

    def read(self, number: int) -> UInt8[np.ndarray, "N H W C"]:
        """The images of a shard.

        Raises:
          UserError: the file is damaged, or holds other images.
        """
        path, labels = self.path(number), self.labels[self.rows(number)]
        expect = {"pixels": ((len(labels), *self.shape), "uint8"), "labels": ((len(labels),), "int32")}
        try:
            arrays = untrusted.read(path, expect, expect=expect)
        except UserError as e:
            raise UserError(f"{str(e).removesuffix('.')}; delete it to draw its images again.") from e
        pixels, found = arrays["pixels"], arrays["labels"]
        if not np.array_equal(found, labels):
            raise UserError(f"{path} holds other images than {SETTINGS} says; delete it to draw its images again.")
        return pixels


def check_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that samples of ``settings`` cannot go to; nothing is created.

    Raises:
      UserError: as :meth:`Shards.open`.
    """
    path = folder / SETTINGS
    if path.is_file():
        check_same(documents.read(path), json.loads(json.dumps(settings)), folder)
    elif os.path.lexists(path):
        raise UserError(f"{path} is not a file; use another --out.")
    elif folder.exists() and not (folder.is_dir() and all(_left_behind(entry.name) for entry in folder.iterdir())):
        raise UserError(f"{str(folder)!r} exists, but holds no evaluation ({SETTINGS}); use another --out.")


def _left_behind(name: str) -> bool:
    """Whether an evaluation that was killed before its settings were written leaves such a file."""
    return name in (lock.FILE_NAME, JUDGE) or is_leftover(name)


def check_same(found: Any, wanted: Any, folder: Path, name: str = "") -> None:
    """Refuse to continue with other settings.

    Raises:
      UserError: naming the first setting that differs.
    """
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            inner = f"{name}.{printable(key)}" if name else printable(key)
            check_same(found.get(key), wanted.get(key), folder, inner)
    elif found != wanted:
        raise UserError(
            f"{str(folder)!r} was begun with {name} {_short(found)}, but it is {_short(wanted)} now; use another --out."
        )


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:
        text = "nested deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."
