"""open_clip's CoCa (``coca_ViT-B-32``, ``coca_ViT-L-14`` and others with the same pooler) as a network, and back."""

from __future__ import annotations

import math
import re
from typing import Literal

import numpy as np

from kind_jax import model, partition
from kind_jax.config.check import require
from kind_jax.config.coca import CoCaConfig, TowerConfig
from kind_jax.errors import UserError
from kind_jax.interchange import classifier, coca_names, layouts, state_dict
from kind_jax.interchange.classifier import Found, Moments
from kind_jax.interchange.names import StateDict

MOMENTS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Means and standard deviations of channels as CLIP (Radford et al. 2021) has them."""

MASK = ".attn_mask"
"""How the names of what older versions keep beside the weights end."""

_FEATURES, _POOLER_HEADS, _EPS = 64, 8, 1e-5


def read(
    found: Found,
    *,
    heads: int | None = None,
    text_heads: int | None = None,
    multimodal_heads: int | None = None,
    pooler_heads: int | None = None,
    cls_mask: Literal["valid", "shifted"] = "shifted",
    activation: Literal["gelu", "quick_gelu"] = "gelu",
    mean: Moments = None,
    std: Moments = None,
    origin: object,
) -> tuple[CoCaConfig, partition.Collections]:
    """The network in a state dict: its settings, which follow from the shapes, and its collections in float32.

    What no array tells, it is taken to have as open_clip's own sizes do.

    Args:
      found: arrays in PyTorch's names and layouts.
      heads, text_heads, multimodal_heads: attention heads of the three towers; None for width / 64, and for the
        multimodal tower as many as the text's.
      pooler_heads: None for 8.
      cls_mask: ``shifted`` as the released weights were trained; ``valid`` for a text tower with correct_cls_mask.
      activation: ``quick_gelu`` for models that have quick_gelu.
      mean, std: what images were normalised with; None for both: as in CLIP.
      origin: what the arrays are from, for messages.

    Raises:
      UserError: an array is missing, unknown, of another shape, not of float32, float16 or bfloat16, or not finite; or
        heads do not follow from a width.
    """
    arrays = classifier.floats({name: a for name, a in found.items() if not name.endswith(MASK)}, origin)
    if coca_names.TEMPERATURE in arrays and arrays[coca_names.TEMPERATURE].shape == (1,):
        arrays[coca_names.TEMPERATURE] = arrays[coca_names.TEMPERATURE].reshape(())

    def tower(block: str, given: int | None, whose: str) -> TowerConfig:
        (width,) = classifier.shape(arrays, f"{block}0.ln_1.bias", "width", origin)
        (hidden,) = classifier.shape(arrays, f"{block}0.mlp.c_fc.bias", "hidden", origin)
        numbers = re.compile(rf"{re.escape(block)}(\d{{1,6}})\.")
        depth = len({m[1] for m in map(numbers.match, arrays) if m})
        if given is None and width % _FEATURES:
            raise UserError(
                f"{whose} is not given, but it must be, since the width {width} of '{block}*' in {origin} is no "
                f"multiple of {_FEATURES}."
            )
        return TowerConfig(
            width=width, depth=depth, hidden=hidden, heads=width // _FEATURES if given is None else given
        )  # fmt: skip

    _, channels, patch, _ = classifier.shape(arrays, coca_names.PATCHES, "width, channels, patch, patch", origin)
    tokens = classifier.shape(arrays, coca_names.POSITIONS, "tokens, width", origin)[0]
    side = math.isqrt(max(tokens - 1, 0))
    if side == 0 or side * side + 1 != tokens:
        raise UserError(
            f"{origin}: '{coca_names.POSITIONS}' has {tokens} tokens, but they must form a square and one for the "
            "class token."
        )
    text = tower(coca_names.TEXT, text_heads, "--text-heads")
    config = CoCaConfig(
        size=side * patch, channels=channels, patch=patch,
        image=tower(coca_names.IMAGE, heads, "--heads"), text=text,
        multimodal=tower(coca_names.CAPTIONS, text.heads if multimodal_heads is None else multimodal_heads, ""),
        vocabulary=classifier.shape(arrays, coca_names.TABLE, "tokens, width", origin)[0],
        context=classifier.shape(arrays, coca_names.WORDS, "positions, width", origin)[0] - 1,  # the last one for CLS
        embedding=classifier.shape(arrays, "text.text_projection", "width, features", origin)[1],
        queries=classifier.shape(arrays, f"{coca_names.POOLER}query", "queries, width", origin)[0],
        pooler_heads=_POOLER_HEADS if pooler_heads is None else pooler_heads,
        cls_mask=cls_mask, activation=activation, **_FIXED,
        **classifier.moments(mean, std, MOMENTS, channels, origin),
    )  # fmt: skip
    places = coca_names.places(config)
    shapes = layouts.shapes(places, config)
    state_dict.check(arrays, {name: a.shape for name, a in coca_names.fused(_empty(shapes)).items()}, origin)
    return config, layouts.to_collections(places, coca_names.parted(arrays, places))


_FIXED = {
    "pooler": "first", "cross": "open_clip", "class_token": True, "patch_bias": False, "norm_input": True,
    "norm_image": False, "norm_eps": _EPS,
}  # fmt: skip
"""What all of its networks have."""


def write(config: CoCaConfig, collections: partition.Collections) -> StateDict:
    """The inverse of :func:`read`: float32 arrays by open_clip's names, in PyTorch's layouts.

    Heads, the mask of CLS, the activation, mean and std are in no array; a reader must be told.

    Raises:
      UserError: open_clip has no such network, or the collections are not those of the config.
    """
    for name, value in _FIXED.items():
        require(getattr(config, name) == value, f"model.{name}", getattr(config, name), f"{value!r} for open_clip")
    wanted = f"that of model.text, {config.text.width}, for open_clip"
    require(config.embedding == config.text.width, "model.embedding", config.embedding, wanted)
    partition.check_like(collections, model.definition(config)[1], "the model to be written")
    found = coca_names.fused(layouts.to_state_dict(coca_names.places(config), collections))
    return {name: np.asarray(a, order="C") for name, a in found.items()}


def _empty(shapes: dict[str, tuple[int, ...]]) -> StateDict:
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
