"""open_clip's CoCa as a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from kind_jax.captioning.config import CaptionRun, TextConfig
from kind_jax.config import DataConfig
from kind_jax.config.check import change
from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError
from kind_jax.interchange import open_clip, state_dict
from kind_jax.interchange.classifier import Moments

_VOCABULARIES: dict[int, Literal["bytes", "clip"]] = {259: "bytes", 49_408: "clip"}
_PARALLEL = "module."  # what open_clip's training puts in front of names on several devices


def load_coca(
    path: str | Path,
    *,
    heads: int | None = None,
    text_heads: int | None = None,
    pooler_heads: int | None = None,
    cls_mask: Literal["valid", "shifted"] = "shifted",
    activation: Literal["gelu", "quick_gelu"] = "gelu",
    mean: Moments = None,
    std: Moments = None,
) -> Bundle:
    """The model of images and captions in a state dict of open_clip's CoCa.

    Args:
      path: a ``.safetensors`` file, or a ``.pt``, ``.pth`` or ``.bin`` file of tensors alone, also a checkpoint of
        open_clip's training.
      heads, text_heads, pooler_heads, cls_mask, activation, mean, std: see :func:`kind_jax.interchange.open_clip.read`.

    Raises:
      UserError: the file is missing, damaged or of another kind; an array is missing, unknown, of another shape or not
        finite; heads do not follow; or the vocabulary is of no tokenizer that there is.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, but a state dict is one file, like open_clip_model.safetensors in it.")
    found = state_dict.read_file(path, skip=(open_clip.MASK,)).arrays
    if found and all(name.startswith(_PARALLEL) for name in found):
        found = {name.removeprefix(_PARALLEL): array for name, array in found.items()}
    config, collections = open_clip.read(
        found, heads=heads, text_heads=text_heads, pooler_heads=pooler_heads, cls_mask=cls_mask, activation=activation,
        mean=mean, std=std, origin=path,
    )  # fmt: skip
    tokenizer = _VOCABULARIES.get(config.vocabulary)
    if tokenizer is None:
        known = " or ".join(f"{count} ({name})" for count, name in _VOCABULARIES.items())
        raise UserError(f"{path} has a vocabulary of {config.vocabulary} tokens, but it must be {known}.")
    data = DataConfig(source="folder", size=config.size)
    if config.channels in (1, 3):  # else images come from something else than files
        data = change(data, channels=config.channels)
    return Bundle(
        config=CaptionRun(model=config, data=data, text=TextConfig(tokenizer=tokenizer)),
        collections=collections,
        groups=tuple(range(config.num_groups)),
        class_names=(),
        weights="raw",
        step=0,
        origin=path,
    )
