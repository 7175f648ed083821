"""Dense models of other programs, as bundles."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from kind_jax.config import Config, DiffusionConfig, ModelConfig, SamplerConfig, TimeFrequencies
from kind_jax.config.check import change
from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError
from kind_jax.interchange import diffusers, marker, names, official, state_dict
from kind_jax.interchange.names import StateDict
from kind_jax.untrusted import documents
from kind_jax.untrusted.regular import read_small
from kind_jax.untrusted.text import check_names

IMAGENET = 1000  # classes


def load_dit(
    path: str | Path,
    *,
    heads: int | None = None,
    weights: Literal["ema", "raw"] | None = None,
    time_frequencies: TimeFrequencies | None = None,
    class_names: tuple[str, ...] | None = None,
) -> Bundle:
    """The model in a state dict with the official names.

    Args:
      path: a ``.safetensors`` file, or a ``.pt`` file of tensors alone.
      heads: attention heads; None for what the file says if we wrote it, or those of the published size of its width.
      weights: of a checkpoint of the official training script, the moving average (None too) or the last weights.
      time_frequencies: None for the official ones.
      class_names: None for what the file says if we wrote it, ImageNet's synsets for 1000 classes, or numbers.

    Raises:
      UserError: the file is missing, damaged or of another kind, an array is missing, unknown, of another shape or not
        finite, or the embedding table has no row for the null class.
    """
    path = Path(path)
    arrays, metadata = state_dict.read_file(path, weights)
    kept = None
    if marker.KEY in metadata and names.TABLE in arrays:  # what else we have written has another marker
        kept = marker.from_text(metadata[marker.KEY], f"The metadata of {path}")
    heads = kept.heads if heads is None and kept is not None else heads
    config = official.sizes({name: a.shape for name, a in arrays.items()}, path, heads=heads)
    _check_null_row(config.num_classes + 1, kept, class_names, path)
    if kept is not None:
        config = change(config, time_frequencies=kept.time_frequencies, mlp_norm_eps=kept.mlp_norm_eps)
    if time_frequencies is not None:
        config = change(config, time_frequencies=time_frequencies)
    state_dict.check(arrays, official.shapes_of(config), path)
    # The official code guides the first three channels of the four.
    guided = 3 if config.channels >= 3 else None
    return _bundle(config, arrays, path, kept, class_names, guided, weights or "ema")


def load_diffusers(
    path: str | Path,
    *,
    time_frequencies: TimeFrequencies | None = None,
    class_names: tuple[str, ...] | None = None,
) -> Bundle:
    """The model in a folder that diffusers' DiTTransformer2DModel, or its pipeline, was saved to.

    Args:
      time_frequencies: ``diffusers`` (also None, unless we wrote the folder) gives what diffusers computes with the
        weights; ``dit`` gives what the official code does, its epsilon of 1e-6 included: right for weights that were
        trained there and only renamed, as facebook/DiT-XL-2-256.
      class_names: None for what the folder says, ImageNet's synsets for 1000 classes, or numbers.

    Raises:
      UserError: as :func:`load_dit`, or config.json has a setting that our model cannot follow, or the blocks differ
        in what they must share.
    """
    top = Path(path)
    folder = top / "transformer" if (top / "transformer").is_dir() else top
    if not folder.is_dir():
        raise UserError(f"{str(top)!r} is no folder, but --from diffusers reads the folder of a model or a pipeline.")
    kept = None
    if (folder / diffusers.MARKER).exists():
        origin = folder / diffusers.MARKER
        kept = marker.from_text(read_small(origin, marker.LIMIT), origin)
    frequencies = time_frequencies or (kept.time_frequencies if kept is not None else "diffusers")
    settings = folder / diffusers.CONFIG
    config = diffusers.model_config(documents.read(settings), settings, frequencies)
    if time_frequencies == "dit" and kept is None:
        config = change(config, mlp_norm_eps=1e-6)
    arrays = state_dict.read_folder(folder)
    positions = arrays.pop(names.KEPT_POSITIONS, None)
    if positions is not None:
        official.check_positions(config, positions, folder)
    empty = official.empty_state_dict(config)
    state_dict.check(arrays, {n: a.shape for n, a in names.to_diffusers(empty, config.depth).items()}, folder)
    found = names.from_diffusers(arrays, empty, config.depth, folder)
    if class_names is None and kept is None and (top / diffusers.PIPELINE).exists():
        class_names = diffusers.labels(documents.read(top / diffusers.PIPELINE), config.num_classes)
    return _bundle(config, found, top, kept, class_names, None, "ema")


def _check_null_row(rows: int, kept: marker.Marker | None, class_names: tuple[str, ...] | None, origin: object) -> None:
    """A model that was trained without dropping labels has a row less; nothing in the file says which it is."""
    known = None if class_names is None else len(class_names)
    if known == rows or (known is None and kept is None and rows == IMAGENET):
        raise UserError(
            f"{origin}: '{names.TABLE}' has {rows} rows for {rows} classes, but there must be one more, for the null "
            f"class (class_dropout_prob was 0?); if it has {rows - 1} classes, --class-names must name them."
        )


def _bundle(
    config: ModelConfig, found: StateDict, origin: Path, kept: marker.Marker | None,
    class_names: tuple[str, ...] | None, guided: int | None, weights: Literal["ema", "raw"],
) -> Bundle:  # fmt: skip
    if names.POSITIONS in found:
        official.check_positions(config, found[names.POSITIONS], origin)
    named = class_names if class_names is not None else _default_names(config.num_classes, kept)
    if len(named) != config.num_classes:
        raise UserError(f"{len(named)} class names are given, but {origin} has {config.num_classes} classes.")
    check_names(named, "The model")
    diffusion = DiffusionConfig() if kept is None else kept.diffusion
    flow = diffusion.process == "flow"
    sampler = SamplerConfig(
        method="euler" if flow else "ddpm", steps=50 if flow else min(250, diffusion.train_steps),
        guidance_channels=guided if kept is None else kept.guidance_channels,
    )  # fmt: skip
    return Bundle(
        config=Config(model=config, diffusion=diffusion, sampler=sampler),
        collections=official.to_collections(config, found),
        groups=tuple(range(config.num_groups)),
        class_names=named,
        weights=weights,
        step=0,
        origin=origin,
    )


def _default_names(classes: int, kept: marker.Marker | None) -> tuple[str, ...]:
    if kept is not None:
        return kept.class_names
    return imagenet_synsets() if classes == IMAGENET else tuple(map(str, range(classes)))


def imagenet_synsets() -> tuple[str, ...]:
    """WordNet's names of ImageNet's 1000 classes, like n01440764, in the order that labels are numbered."""
    spec = importlib.util.find_spec("tensorflow_datasets")  # found, not imported, which takes seconds
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "datasets" / "imagenet2012" / "labels.txt").read_text()
    return tuple(text.split())
