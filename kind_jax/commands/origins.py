"""What ``kind-jax convert`` reads: the options of each --from, the model there, and what it is in words."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kind_jax.commands.console import table
from kind_jax.config import Config
from kind_jax.config.coca import CoCaConfig
from kind_jax.config.networks import EfficientNetConfig, Network, ResNetConfig, ViTConfig
from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.commands.convert import Arguments
    from kind_jax.deploy.bundle import Bundle

Origin = Literal["dit", "diffusers", "kind", "timm", "torchvision", "efficientnet-lite0", "open_clip"]

_DIFFUSION, _CLASSIFIERS = ("dit", "diffusers", "kind"), ("timm", "torchvision")
_PACKAGED = "efficientnet-lite0"  # whose file a package has
_COCA = "open_clip"
_BELONGS: dict[str, tuple[str, ...]] = {
    "heads": ("dit", *_CLASSIFIERS, _COCA),
    "weights": ("dit", "kind"),
    "time_frequencies": ("dit", "diffusers"),
    "class_names": ("dit", "diffusers", *_CLASSIFIERS, _PACKAGED),
    "interpolate": _CLASSIFIERS,
    "size": (*_CLASSIFIERS, _PACKAGED),
    **dict.fromkeys(("mean", "std"), (*_CLASSIFIERS, _PACKAGED, _COCA)),
    **dict.fromkeys(("text_heads", "pooler_heads", "cls_mask", "activation"), (_COCA,)),
    **dict.fromkeys(
        ("learngenes", "tailors", "groups", "projections", "residual", "seed", "plot"), _DIFFUSION
    ),
}  # fmt: skip


def check_options(parsed: Arguments, given: Collection[str]) -> None:
    """Refuse options that belong to another --from, or to an option that is not there.

    Args:
      given: names of the options on the command line.

    Raises:
      UserError: naming the first one.
    """
    for name, origins in _BELONGS.items():
        option = name.replace("_", "-")
        if option in given and parsed.origin not in origins:
            value = getattr(parsed, name)
            shown = repr(str(value)) if isinstance(value, Path) else repr(value)
            *rest, last = origins
            whose = f"{', '.join(rest)} or {last}" if rest else last
            raise UserError(f"--{option} is {shown:.200}, but it belongs to --from {whose}.")
    if parsed.interpolate and parsed.size is None:
        raise UserError("--interpolate is given, but --size is not, the size of images to resize positions for.")
    if (parsed.mean is None) != (parsed.std is None):
        names = ("--mean", "--std") if parsed.std is None else ("--std", "--mean")
        raise UserError(f"{names[0]} is given, but {names[1]} is not: both are needed, or neither.")


def source_of(parsed: Arguments) -> Path:
    """What is to be read: the source that is given, or the file in the package that --from means.

    Raises:
      UserError: there is neither.
    """
    if parsed.source is not None:
        return parsed.source
    if parsed.origin != _PACKAGED:
        raise UserError(f"the source is missing, but --from {parsed.origin} needs one: a file or a folder.")
    from kind_jax.interchange.efficientnet import installed

    return installed()


def load(parsed: Arguments, source: Path, class_names: tuple[str, ...] | None) -> Bundle:
    """The model at the source.

    Raises:
      UserError: it is missing, damaged or of another kind.
    """
    if parsed.origin == "kind":
        from kind_jax.deploy.bundle import open_bundle

        return open_bundle(source, weights=parsed.weights, kind=Config)
    if parsed.origin == "efficientnet-lite0":
        from kind_jax.interchange.incoming_classifier import load_efficientnet_lite0

        return load_efficientnet_lite0(
            source, size=parsed.size, mean=parsed.mean, std=parsed.std, class_names=class_names
        )
    if parsed.origin == "open_clip":
        from kind_jax.interchange.incoming_coca import load_coca

        return load_coca(
            source, heads=parsed.heads, text_heads=parsed.text_heads, pooler_heads=parsed.pooler_heads,
            cls_mask=parsed.cls_mask, activation=parsed.activation, mean=parsed.mean, std=parsed.std,
        )  # fmt: skip
    if parsed.origin in ("timm", "torchvision"):
        from kind_jax.interchange.incoming_classifier import load_classifier

        return load_classifier(
            source, parsed.origin, size=parsed.size, heads=parsed.heads, mean=parsed.mean, std=parsed.std,
            interpolate=parsed.interpolate, class_names=class_names,
        )  # fmt: skip
    from kind_jax.interchange.incoming import load_diffusers, load_dit

    if parsed.origin == "dit":
        return load_dit(
            source, heads=parsed.heads, weights=parsed.weights, time_frequencies=parsed.time_frequencies,
            class_names=class_names,
        )  # fmt: skip
    return load_diffusers(source, time_frequencies=parsed.time_frequencies, class_names=class_names)


def describe(bundle: Bundle, source: Path) -> None:
    """Print the sizes of a model, and the parameters of its parts."""
    from kind_jax import partition

    parts: dict[str, list[int]] = {}
    for path, leaf in partition.flatten(bundle.collections[partition.PARAMS]).items():
        parts.setdefault(_part(path), []).append(leaf.size)
    rows = [(part, f"{len(sizes)}", f"{sum(sizes):,}") for part, sizes in parts.items()]
    total = sum(sum(sizes) for sizes in parts.values())
    rows.append(("whole model", f"{sum(map(len, parts.values()))}", f"{total:,}"))
    stats = partition.flatten(bundle.collections.get(partition.STATS, {})).values()
    if stats:
        rows.append(("and its statistics", f"{len(stats)}", f"{sum(leaf.size for leaf in stats):,}"))
    print(f"{source}: {_sizes(bundle.config.model)}")
    table("", ("part", "arrays", "parameters"), rows)


def _part(path: str) -> str:
    if path.startswith("stages/"):  # of residual networks, which have many layers
        return "/".join(path.split("/")[:2])
    return (path.rpartition("/")[0] or path).replace("attention/", "")


def _sizes(model: Any) -> str:
    if isinstance(model, CoCaConfig):
        towers = ", ".join(f"{name} {t.depth} x {t.width}" for name, t in model.towers.items())
        return (
            f"CoCa, layers x width: {towers}; inputs {model.size} x {model.size} x {model.channels}, texts of "
            f"{model.context} out of {model.vocabulary} tokens, {untold(model)}"
        )
    inputs = f"{model.num_classes} classes, inputs {model.size} x {model.size} x {model.channels}"
    if isinstance(model, ResNetConfig):
        return f"ResNet-{model.depth}, {model.channels_of(0)} channels at first, {inputs}, {_moments(model)}"
    if isinstance(model, EfficientNetConfig):
        return f"EfficientNet-Lite0, {inputs}, {_moments(model)}"
    sizes = f"{model.depth} blocks, width {model.width}, {model.heads} heads, {inputs}, patches {model.patch}"
    if isinstance(model, ViTConfig):
        return f"vision transformer, {sizes}, {_moments(model)}"
    return f"{sizes}, {model.time_frequencies} frequencies"


def untold(model: ViTConfig | ResNetConfig | CoCaConfig) -> str:
    """What the state dict of a classifier or a CoCa does not say about it, in words."""
    if isinstance(model, CoCaConfig):
        heads = ", ".join(str(tower.heads) for tower in model.towers.values())
        return (
            f"{heads} heads, {model.pooler_heads} of the pooler, {model.activation}, CLS sees with the mask "
            f"{model.cls_mask}, {_moments(model)} of pixels in [0, 1]"
        )
    heads = f"{model.heads} heads, " if isinstance(model, ViTConfig) else ""
    return f"{heads}images of {model.size} pixels, {_moments(model)} of pixels in [0, 1]"


def _moments(model: Network | CoCaConfig) -> str:
    half = (0.5,) * model.seen_channels  # images in [-1, 1], which are given as they are where there are no moments
    mean, std = (" ".join(f"{value:g}" for value in values or half) for values in (model.mean, model.std))
    return f"mean {mean}, std {std}"
