"""A vision transformer as another program's state dict, and back; the program is in its names alone."""

from __future__ import annotations

import math
import re

from kind_jax import partition
from kind_jax.config.check import change, require
from kind_jax.config.networks import ViTConfig
from kind_jax.errors import UserError
from kind_jax.interchange import classifier
from kind_jax.interchange.classifier import Found, Moments
from kind_jax.interchange.names import StateDict
from kind_jax.interchange.positions import resized
from kind_jax.interchange.vit_names import VitNames, places

HEADS = {1152: 16, 1280: 16, 1408: 16, 1664: 16}
"""Heads of the published widths (So400m, H, g, G) where one does not have 64 features."""

_EPS = 1e-6


def is_vit(found: Found, names: VitNames) -> bool:
    """Whether the arrays are those of a vision transformer."""
    return f"{names.outer['patch_embed']}weight" in found


def read(
    found: Found, names: VitNames, *, size: int | None, heads: int | None, mean: Moments, std: Moments,
    usual: tuple[tuple[float, ...], tuple[float, ...]], interpolate: bool, origin: object,
) -> tuple[ViTConfig, partition.Collections]:  # fmt: skip
    """The network that has these arrays; see :func:`kind_jax.interchange.timm.read`."""
    arrays = classifier.floats(found, origin)
    config = sizes(arrays, names, heads=heads, origin=origin)
    config = change(config, **classifier.moments(mean, std, usual, config.channels, origin))
    collections = classifier.read(places(config, names), config, arrays, origin)
    if size is None or size == config.size:
        return config, collections
    if not interpolate:
        raise UserError(
            f"{origin}: '{names.positions}' is for images of {config.size} pixels, but --size is {size}: "
            "--interpolate resizes it."
        )
    config = change(config, size=size)
    params = collections[partition.PARAMS]
    position = resized(params["position"], size // config.patch, tokens=int(config.pool == "token"))
    return config, collections | {partition.PARAMS: params | {"position": position}}


def sizes(found: Found, names: VitNames, *, heads: int | None, origin: object) -> ViTConfig:
    """The config of the network that has arrays of these shapes, for images of the size that its positions are for.

    Raises:
      UserError: an array that sizes follow from is absent or has an impossible shape, or the heads do not follow.
    """

    def length(name: str, axis: str) -> int:
        return classifier.shape(found, name, axis, origin)[0]

    outer, first = names.outer, names.block.format(0)
    # Widths are those of biases: a kernel that is transposed is then found out by its own name.
    width = length(f"{outer['patch_embed']}bias", "width")
    _, channels, patch, _ = classifier.shape(
        found, f"{outer['patch_embed']}weight", "width, channels, patch, patch", origin
    )
    tokens = classifier.shape(found, names.positions, "1, tokens, width", origin)[1]
    pool = "token" if names.token in found or names.fixed else "mean"
    side = math.isqrt(max(tokens - (pool == "token"), 0))
    if side == 0 or side * side + (pool == "token") != tokens:
        wanted = "a square and one for the class token" if pool == "token" else "a square"
        raise UserError(f"{origin}: '{names.positions}' has {tokens} tokens, but they must form {wanted}.")
    block = re.compile(re.escape(names.block).replace(r"\{\}", r"(\d{1,6})"))
    return ViTConfig(
        size=side * patch, channels=channels, patch=patch, width=width,
        depth=len({m[1] for m in map(block.match, found) if m}),
        heads=_heads(width, origin) if heads is None else heads,
        mlp_ratio=length(f"{first}{names.inner['mlp_in']}bias", "hidden") / width,
        num_classes=length(f"{outer['head']}bias", "classes"),
        qkv_bias=f"{first}{names.inner['attention/qkv']}bias" in found or names.fixed,
        norm_eps=_EPS, pool=pool,
    )  # fmt: skip


def _heads(width: int, origin: object) -> int:
    if width not in HEADS and width % 64:
        raise UserError(
            f"--heads is not given, but it must be, since the width {width} of {origin} is neither a multiple of 64 "
            f"nor one of the published {sorted(HEADS)}."
        )
    return HEADS.get(width, width // 64)


def write(config: ViTConfig, collections: partition.Collections, names: VitNames) -> StateDict:
    """The inverse of :func:`read`; see :func:`kind_jax.interchange.timm.write`."""
    program = names.program
    wanted = (
        f"'none' for {program}, whose networks have no tailors: compose one superclass's into a dense network first"
    )
    require(config.gate == "none", "model.gate", config.gate, wanted)
    wanted = f"empty for {program}, whose weights are dense: multiply the factors out first"
    require(not config.factor.projections, "model.factor.projections", config.factor.projections, wanted)
    require(config.factor.ranks is None, "model.factor.ranks", config.factor.ranks, wanted.replace("empty", "None"))
    classifier.check_eps(config, _EPS, program)
    if names.fixed:
        require(config.pool == "token", "model.pool", config.pool, f"'token' for {program}, which has nothing else")
        wanted = f"True for {program}, whose attention always has that bias"
        require(config.qkv_bias, "model.qkv_bias", config.qkv_bias, wanted)
    return classifier.write(places(config, names), config, collections)
