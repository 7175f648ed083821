"""The folder that synthetic images are drawn into: images, each whole or absent, and how far each class is.

train/CLASS/NUMBER.png    image NUMBER of a class; of images that were drawn and not kept the number is missing
samples.png               a few images of each class
synthesis.json            the recipe, sealed and written last
.synthesis/               settings.json, and for each class how many of its images were drawn: what drawing on needs
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from kind_jax import sealed
from kind_jax.data.mix import RECIPE, STATE
from kind_jax.errors import UserError
from kind_jax.evaluating.shards import check_same
from kind_jax.files import atomic_write_bytes, atomic_write_text, is_leftover, sha256_file, sweep
from kind_jax.images import png_bytes
from kind_jax.train import lock
from kind_jax.untrusted import documents
from kind_jax.untrusted.text import printable

GRID, SETTINGS = "samples.png", "settings.json"
DIGITS = 8  # of a number in a file's name
_THREADS = 16  # a disk that syncs many files at once is faster than one by one


@dataclasses.dataclass(kw_only=True)
class Progress:
    """How far a class is: images looked at, those of them that were kept, and the seconds it took."""

    drawn: int = 0
    kept: int = 0
    seconds: float = 0.0


class Store:
    """A folder that is taken: images go in, and what is there is known."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        """Look at what is there; of images that are missing or were not finished, the class begins anew.

        Args:
          names: of the classes.
        """
        self.folder, self._names = folder, tuple(names)
        sweep(folder)
        sweep(folder / STATE)
        self.progress = {name: self._look(number, name) for number, name in enumerate(self._names)}

    def path(self, name: str, number: int) -> Path:
        """The file of an image."""
        return self.folder / "train" / name / f"{number:0{DIGITS}}.png"

    def add(self, name: str, images: dict[int, UInt8[np.ndarray, "H W C"]], progress: Progress) -> None:
        """Write images of a class by number, and only then that they are there."""

        def write(number: int) -> None:
            atomic_write_bytes(self.path(name, number), png_bytes(images[number]))

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(write, images))
        self.progress[name] = progress
        sealed.write(self._state(self._names.index(name)), dataclasses.asdict(progress))

    def begin(self, settings: dict[str, Any]) -> None:
        """Say what is drawn here. A recipe of fewer images is void: the folder is not complete any more."""
        atomic_write_text(self.folder / STATE / SETTINGS, json.dumps(settings, indent=1))
        (self.folder / RECIPE).unlink(missing_ok=True)

    def content(self) -> str:
        """SHA-256 over class, number and bytes of every image.

        Raises:
          UserError: the folder has something else in it.
        """
        digest = hashlib.sha256()
        found = {entry.name for entry in _visible(self.folder / "train")}
        if strange := sorted(found - set(self._names)):
            raise UserError(f"{str(self.folder / 'train')!r} has {strange[0]!r} in it, which was not drawn; remove it.")
        with ThreadPoolExecutor(_THREADS) as pool:
            for name in self._names:
                paths = sorted(_visible(self.folder / "train" / name))
                if strange := [path for path in paths if _number(path) is None]:
                    raise UserError(f"{str(strange[0])!r} was not drawn, but lies among synthetic images; remove it.")
                for path, sha256 in zip(paths, pool.map(sha256_file, paths), strict=True):
                    digest.update(f"{name}/{path.name} {sha256}\n".encode())
        return digest.hexdigest()

    def first(self, name: str, count: int) -> list[UInt8[np.ndarray, "H W C"]]:
        """The first images of a class."""
        found = []
        for path in sorted(_visible(self.folder / "train" / name))[:count]:
            with Image.open(path) as image:
                pixels = np.asarray(image)
            found.append(pixels[..., None] if pixels.ndim == 2 else pixels)
        return found

    def finish(self, recipe: dict[str, Any]) -> None:
        """Write the recipe, the sign that all is there."""
        sealed.write(self.folder / RECIPE, recipe)

    def _state(self, number: int) -> Path:
        return self.folder / STATE / f"{number}.json"

    def _look(self, number: int, name: str) -> Progress:
        place, state = self.folder / "train" / name, self._state(number)
        sweep(place)
        if not state.is_file():
            return Progress()
        found = _progress(state)
        numbers = [n for path in _visible(place) if (n := _number(path)) is not None]
        for beyond in (n for n in numbers if n >= found.drawn):  # of a block that was not finished
            self.path(name, beyond).unlink()
        return found if sum(n < found.drawn for n in numbers) == found.kept else Progress()


def check_folder(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Refuse a folder that images of ``settings`` cannot go to; nothing is created.

    More images of each class than a folder was begun with are no other settings.

    Returns:
      The recipe of a folder that is complete.

    Raises:
      UserError: other settings (the first that differs is named), a folder of something else, a damaged file.
    """
    path = folder / STATE / SETTINGS
    if not path.is_file():
        free = not os.path.lexists(folder) or (
            folder.is_dir() and all(_left_behind(entry) for entry in folder.iterdir())
        )
        if not free:
            raise UserError(f"{str(folder)!r} exists, but kind-jax synthesize did not begin it; use another --out.")
        return None
    found, wanted = documents.read(path), json.loads(json.dumps(settings))
    if not isinstance(found, dict) or not isinstance(found.get("per_class"), int):
        raise UserError(f"{path} is damaged; use another --out.")
    before, now = found.pop("per_class"), wanted.pop("per_class")
    check_same(found, wanted, folder)
    if now < before:
        raise UserError(
            f"{str(folder)!r} was begun with per_class {before}, but it is {now} now, which must not be less; use "
            "another --out."
        )
    if not (folder / RECIPE).is_file():
        return None
    recipe = documents.parse(sealed.read(folder / RECIPE), folder / RECIPE)
    return recipe if isinstance(recipe, dict) and recipe.get("per_class") == now else None


def check_name(name: str) -> None:
    """Refuse the name of a class that no folder can have.

    Raises:
      UserError: naming it.
    """
    if "/" in name or "\0" in name or name.startswith(".") or len(os.fsencode(name)) > 255:
        raise UserError(
            f"the model has the class {printable(name, 60)!r}, but to be the name of a folder it must have no slash, "
            "no dot in front, and at most 255 bytes; --classes can leave it out."
        )


def _left_behind(entry: Path) -> bool:
    """What a command leaves that was killed before it had said what it draws."""
    begun = entry.name == STATE and entry.is_dir() and all(is_leftover(inside.name) for inside in entry.iterdir())
    return begun or entry.name == lock.FILE_NAME or is_leftover(entry.name)


def _visible(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")] if folder.is_dir() else []


def _number(path: Path) -> int | None:
    """The number of an image; None for what was not drawn."""
    digits = path.stem
    return int(digits) if path.suffix == ".png" and len(digits) == DIGITS and digits.isdecimal() else None


def _progress(path: Path) -> Progress:
    found = documents.parse(sealed.read(path), path)
    try:
        progress = Progress(**found)
        sound = 0 <= progress.kept <= progress.drawn and progress.seconds >= 0
    except TypeError:
        sound = False
    if not sound:
        raise UserError(f"{path} is damaged: it does not say how far a class is; remove it to draw the class again.")
    return progress  # pyright: ignore[reportPossiblyUnboundVariable]
