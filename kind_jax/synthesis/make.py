"""Drawing a training set from a model, as a folder of images with its recipe."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from kind_jax import __version__, partition
from kind_jax.classes import ClassList, numbers_of
from kind_jax.config import SamplerConfig
from kind_jax.config.check import check_path, check_seed, is_whole, require
from kind_jax.deploy.bundle import Bundle, check_bundle
from kind_jax.errors import UserError
from kind_jax.evaluating.generate import Drawing
from kind_jax.evaluating.progress import counting
from kind_jax.evaluating.record import versions
from kind_jax.images import grid, save_png
from kind_jax.synthesis.agreement import Agreement
from kind_jax.synthesis.blocks import ROWS, Block, Drawer
from kind_jax.synthesis.store import DIGITS, GRID, Progress, Store, check_folder, check_name
from kind_jax.train.lock import run_lock
from kind_jax.untrusted.text import printable
from kind_jax.vae import Vae

ATTEMPTS = 4
_COLUMNS, _PICTURES, _SIDE = 20, 8, 48  # of the grid: classes, images of each, least pixels of one


def synthesize(
    bundle: Bundle,
    directory: str | Path,
    *,
    per_class: int,
    classes: ClassList | None = None,
    seed: int = 0,
    sampler: SamplerConfig | None = None,
    vae: Vae | None = None,
    agree: Bundle | None = None,
    attempts: int | None = None,
    devices: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """Draw images of classes into a folder that ``data.mix`` and ``data.source`` 'folder' read.

    A folder that was begun with the same settings is continued, also with more images of each class than before, of
    which the first ones stay as they are. Image n of a class follows from model, sampler, seed, class and n alone.

    Args:
      bundle: a diffusion model.
      directory: gets train/CLASS/NUMBER.png, samples.png and synthesis.json, the recipe.
      per_class: images of each class.
      classes: by number or name; None is all that the model serves.
      seed: of the noise, 0 to 2³² - 1.
      sampler: None takes the config's.
      vae: decodes the latents of a model of latents.
      agree: a classifier; images in which it sees another class than the one they were drawn for are not kept.
      attempts: with ``agree``, images drawn for each that is wanted, at most; None is :data:`ATTEMPTS`.
      devices: None is all of this machine's.

    Returns:
      The recipe, as JSON values.

    Raises:
      UserError: an argument that does not fit, a class that the model does not serve or that cannot be a folder's name,
        a folder of something else or of other settings, a classifier that lacks a class or agrees too seldom, images
        that are not finite, or a full disk.
    """
    check_bundle(bundle)
    require(is_whole(per_class) and per_class >= 1, "per_class", per_class, "a whole number, 1 or more")
    require(attempts is None or agree is not None, "attempts", attempts, "None without a classifier to agree")
    attempts = ATTEMPTS if attempts is None else attempts
    require(is_whole(attempts) and attempts >= 1, "attempts", attempts, "a whole number, 1 or more")
    require(sampler is None or isinstance(sampler, SamplerConfig), "sampler", sampler, "a SamplerConfig or None")
    most = 10**DIGITS
    require(per_class * attempts < most, "per_class", per_class, f"below {most} divided by attempts, {attempts}")
    if jax.process_count() > 1:
        raise UserError(f"synthetic images are drawn in one process, but there are {jax.process_count()}.")
    drawing = Drawing(
        bundle=bundle,
        sampler=sampler or bundle.config.sampler,
        classes=bundle.served if classes is None else numbers_of(classes, bundle.class_names),
        seed=check_seed(seed),
        vae=vae,
    )
    names = _names(drawing)
    if drawing.shape[-1] not in (1, 3):
        raise UserError(
            f"the model draws {drawing.shape[-1]} channels, but pictures have 1 or 3; of latents, the autoencoder that "
            "made them (--vae) makes pictures."
        )
    agreement = None if agree is None else Agreement.of(agree, names, drawing.shape)
    settings = _settings(drawing, agreement, int(per_class))
    folder = check_path(directory, "directory")
    _check_outside(bundle, folder)
    if (recipe := check_folder(folder, settings)) is not None and _whole(folder, names, per_class):
        return recipe
    with run_lock(folder):
        check_folder(folder, settings)  # another process may have begun there meanwhile
        store = Store(folder, names)
        store.begin(settings)
        _draw(drawing, store, agreement, int(per_class), int(per_class * attempts), devices)
        recipe = _recipe(drawing, store, agreement, settings)
        _save_grid(store, names, folder / GRID)
        store.finish(recipe)
    return recipe


def _names(drawing: Drawing) -> list[str]:
    names = [drawing.bundle.class_names[number] for number in drawing.classes]
    for name in names:
        check_name(name)
        if names.count(name) > 1:
            raise UserError(
                f"the model has {names.count(name)} classes named {printable(name, 60)!r}, whose images would go to "
                "one folder; --classes can choose one of them by its number."
            )
    return names


def _settings(drawing: Drawing, agreement: Agreement | None, per_class: int) -> dict[str, Any]:
    """What the images follow from."""
    settings = drawing.settings
    weights = settings["weights"] | {"sha256": partition.fingerprint(drawing.bundle.collections)}
    return settings | {
        "weights": weights,
        "class_names": [drawing.bundle.class_names[number] for number in drawing.classes],
        "image_shape": list(drawing.shape),
        "noise": f"image n of a class is row n % {ROWS} of its block n // {ROWS}, drawn from seed, class and block",
        "agree": None if agreement is None else agreement.settings,
        "per_class": per_class,
    }


def _check_outside(bundle: Bundle, folder: Path) -> None:
    data = bundle.config.data
    if data.source == "folder" and data.path and folder.resolve().is_relative_to(Path(data.path).resolve()):
        raise UserError(
            f"--out is {str(folder)!r}, inside data.path of the model, {data.path!r}: what is drawn would become real "
            "images; choose a folder outside of it."
        )


def _whole(folder: Path, names: Sequence[str], per_class: int) -> bool:
    """Whether no image of a complete folder is missing."""
    places = [folder / "train" / name for name in names]
    return all(place.is_dir() and sum(p.suffix == ".png" for p in place.iterdir()) == per_class for place in places)


def _draw(
    drawing: Drawing,
    store: Store,
    agreement: Agreement | None,
    wanted: int,
    limit: int,
    devices: Sequence[Any] | None,
) -> None:
    """Draw what is missing. Blocks that are needed whatever the classifier says of them are drawn together."""
    names = dict(zip(drawing.classes, (drawing.bundle.class_names[n] for n in drawing.classes), strict=True))
    drawer: Drawer | None = None
    with counting("drawing", wanted * len(names)) as progress:
        while blocks := [
            Block(number, block)
            for number, name in names.items()
            for block in _needed(store.progress[name], name, wanted, limit, agreement)
        ]:
            drawer = drawer or Drawer(drawing, devices)
            since = time.monotonic()
            for block, pixels in drawer(blocks):
                name = names[block.of]
                chosen = np.ones(ROWS, bool) if agreement is None else agreement(pixels, name)
                images, after = _take(pixels, chosen, block.number, store.progress[name], wanted, limit)
                after.seconds += time.monotonic() - since
                store.add(name, images, after)
                since = time.monotonic()
                _report(progress, store, agreement)


def _needed(found: Progress, name: str, wanted: int, limit: int, agreement: Agreement | None) -> range:
    """Numbers of the blocks that a class cannot do without.

    Raises:
      UserError: as many were drawn as may be.
    """
    missing = wanted - found.kept
    if missing <= 0:
        return range(0)
    limit = limit if agreement is not None else wanted
    if found.drawn >= limit:
        raise UserError(
            f"of {found.drawn} images that were drawn of {printable(name, 60)!r}, the classifier sees that class in "
            f"{found.kept} ({found.kept / found.drawn:.1%}), but {wanted} are wanted: more --attempts draw on, and a "
            "classifier that knows such images, guidance or a better model keep more."
        )
    return range(found.drawn // ROWS, (min(found.drawn + missing, limit) - 1) // ROWS + 1)


def _take(
    pixels: UInt8[np.ndarray, "N H W C"],
    chosen: np.ndarray,
    block: int,
    before: Progress,
    wanted: int,
    limit: int,
) -> tuple[dict[int, UInt8[np.ndarray, "H W C"]], Progress]:
    """The images of a block that are kept, by number, and how far the class is then."""
    after, images = dataclasses.replace(before), {}
    for row in range(before.drawn - block * ROWS, ROWS):
        if after.kept == wanted or after.drawn == limit:
            break
        if chosen[row]:
            images[after.drawn] = pixels[row]
            after.kept += 1
        after.drawn += 1
    return images, after


def _report(progress: Callable[..., None], store: Store, agreement: Agreement | None) -> None:
    kept, drawn = (sum(getattr(one, which) for one in store.progress.values()) for which in ("kept", "drawn"))
    progress(kept, "" if agreement is None else f"the classifier agrees on {kept / drawn:.1%}")


def _recipe(drawing: Drawing, store: Store, agreement: Agreement | None, settings: dict[str, Any]) -> dict[str, Any]:
    found = store.progress
    kept, drawn = (sum(getattr(one, which) for one in found.values()) for which in ("kept", "drawn"))
    numbers = dict(zip(found, drawing.classes, strict=True))
    agreed = None
    if agreement is not None:
        name = os.path.basename(os.path.abspath(agreement.classifier.origin))
        agreed = {"classifier": name, **agreement.settings, "share": kept / drawn}
    return {
        "format": 1,
        **settings,
        "kind_jax": __version__,
        "model_name": os.path.basename(os.path.abspath(drawing.bundle.origin)),
        "agree": agreed,
        "images": kept,
        "drawn": drawn,
        "classes": {
            name: {"number": numbers[name], "images": one.kept, "drawn": one.drawn, "share": one.kept / one.drawn}
            for name, one in found.items()
        },
        "content": {"sha256": store.content()},
        "seconds": round(sum(one.seconds for one in found.values()), 3),
        "versions": versions(),
    }


def _save_grid(store: Store, names: Sequence[str], path: Path) -> None:
    """A few images of the first classes, a column for each."""
    columns = [store.first(name, _PICTURES) for name in names[:_COLUMNS]]
    rows = min(map(len, columns))
    images = np.stack([column[row] for row in range(rows) for column in columns])
    save_png(path, grid(images, len(columns), scale=-(-_SIDE // images.shape[1])))
