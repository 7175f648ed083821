"""Samples on disk: ``settings.json`` and one ``.npz`` file for every so many images, each whole or absent."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from kind_jax.errors import UserError
from kind_jax.files import atomic_write_bytes, atomic_write_text

SETTINGS = "settings.json"


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
    def open(cls, folder: Path, *, settings: dict[str, Any], labels: Int32[np.ndarray, " N"], size: int) -> Shards:
        """Create the folder, or continue in one of the very same settings.

        Raises:
          UserError: other settings (the first that differs is named), a folder of something else, a damaged file.
        """
        path = folder / SETTINGS
        text = json.dumps(settings, indent=1)
        if path.is_file():
            try:
                there = json.loads(path.read_bytes())
            except (OSError, ValueError) as e:
                raise UserError(f"{path} cannot be read: {e}; use another --out.") from e
            check_same(there, json.loads(text), folder)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{str(folder)!r} exists, but holds no evaluation ({SETTINGS}); use another --out.")
        else:
            atomic_write_text(path, text)
        side, channels = settings["model"]["size"], settings["model"]["channels"]
        return cls(folder=folder, labels=labels, size=size, shape=(side, side, channels))

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
        return [number for number in range(self.number) if not self.path(number).is_file()]

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
        try:
            with np.load(path) as file:
                pixels, found = file["pixels"], file["labels"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
            raise UserError(f"{path} is damaged: {e}; delete it to draw its images again.") from e
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), *self.shape) or not np.array_equal(found, labels):
            raise UserError(f"{path} holds other images than {SETTINGS} says; delete it to draw its images again.")
        return pixels


def check_same(found: Any, wanted: Any, folder: Path, name: str = "") -> None:
    """Refuse to continue with other settings.

    Raises:
      UserError: naming the first setting that differs.
    """
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            inner = f"{name}.{key}" if name else key
            check_same(found.get(key), wanted.get(key), folder, inner)
    elif found != wanted:
        raise UserError(
            f"{str(folder)!r} was begun with {name} {_short(found)}, but it is {_short(wanted)} now; use another --out."
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
