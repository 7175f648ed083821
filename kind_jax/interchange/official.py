"""The official DiT's state dict (facebookresearch/DiT, models.py) and our collections with every projection dense."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from jaxtyping import Float

from kind_jax import model, partition
from kind_jax.config import FactorConfig, ModelConfig
from kind_jax.errors import UserError
from kind_jax.interchange.names import LINEAR, PATCHES, POSITIONS, PROJECTIONS, TABLE, StateDict
from kind_jax.nn.embed import position_embedding

HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Heads of the published sizes by their width: shapes do not tell."""

_TOLERANCE, _ROUNDED = 1e-4, 4e-3  # of the position embedding: in float32, and rounded to 16 bits (bfloat16: 2**-9)


def sizes(shapes: Mapping[str, tuple[int, ...]], origin: object, *, heads: int | None = None) -> ModelConfig:
    """The config of the model that has arrays of these shapes.

    Args:
      heads: attention heads; None for those of the published size of the same width.

    Raises:
      UserError: an array that sizes follow from is absent or has an impossible shape, or the width is no published one
        and ``heads`` is None.
    """

    def shape(name: str, wanted: str, rank: int) -> tuple[int, ...]:
        if name not in shapes:
            raise UserError(f"{origin} lacks the array '{name}', so it is not the state dict of a DiT.")
        found = shapes[name]
        if len(found) != rank or 0 in found:
            raise UserError(f"{origin}: '{name}' has shape {found}, but it must be {wanted}.")
        return found

    width, channels, patch, across = shape(f"{PATCHES}.weight", "[width, channels, patch, patch]", 4)
    if patch != across:
        raise UserError(f"{origin}: '{PATCHES}.weight' has patches of {patch} x {across}, but they must be square.")
    tokens = shape(POSITIONS, "[1, tokens, width]", 3)[1]
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise UserError(f"{origin}: '{POSITIONS}' has {tokens} tokens, but they must form a square.")
    rows = shape(TABLE, "[classes + 1, width]", 2)[0]
    hidden = shape(f"blocks.0.{PROJECTIONS['mlp_in']}.weight", "[hidden, width]", 2)[0]
    out = shape(f"{LINEAR['final/linear']}.weight", "[patch² x channels, width]", 2)[0]
    outputs = (patch * patch * channels, 2 * patch * patch * channels)
    if out not in outputs:
        raise UserError(f"{origin}: '{LINEAR['final/linear']}.weight' has {out} rows, but must have {outputs[0]} or, "
                        f"with a variance, {outputs[1]}.")  # fmt: skip
    heads = HEADS.get(width) if heads is None else heads
    if heads is None:
        raise UserError(
            f"--heads is not given, but the width {width} of {origin} is none of the published {sorted(HEADS)}, whose "
            "heads are known."
        )
    return ModelConfig(
        size=side * patch, channels=channels, patch=patch, width=width, depth=_depth(shapes), heads=heads,
        mlp_ratio=hidden / width, num_classes=rows - 1, learn_sigma=out == outputs[1],
        factor=FactorConfig(projections=()),
    )  # fmt: skip


def _depth(shapes: Mapping[str, tuple[int, ...]]) -> int:
    found = (re.match(r"blocks\.(\d{1,6})\.", name) for name in shapes)
    return len({m[1] for m in found if m})


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the official state dict of a model."""
    return {name: a.shape for name, a in empty_state_dict(config).items()}


def empty_state_dict(config: ModelConfig) -> StateDict:
    """The official state dict of a model with zeros that take no memory."""
    params = model.definition(config)[1][partition.PARAMS]
    leaves = {path: np.broadcast_to(np.float32(0), a.shape) for path, a in partition.flatten(params).items()}
    return to_state_dict(config, partition.unflatten(leaves))


def to_state_dict(config: ModelConfig, params: Mapping[str, Any]) -> StateDict:
    """Our dense parameters, blocks stacked, as an official state dict; views where possible.

    A model without a label embedding gets a table of zeros, which computes the same.
    """
    flat = {path: np.asarray(a) for path, a in partition.flatten(params).items()}
    patch, channels, width = config.patch, config.channels, config.width
    kernel = flat["patch_embed/kernel"].reshape(patch, patch, channels, width)
    found: StateDict = {
        f"{PATCHES}.weight": kernel.transpose(3, 2, 0, 1),
        f"{PATCHES}.bias": flat["patch_embed/bias"],
        POSITIONS: position_embedding(config.size // patch, width)[None],
        TABLE: flat.get("label_embed/table", np.zeros((config.num_classes + 1, width), np.float32)),
    }
    for ours, theirs in LINEAR.items():
        found |= {f"{theirs}.weight": flat[f"{ours}/kernel"].T, f"{theirs}.bias": flat[f"{ours}/bias"]}
    for ours, theirs in PROJECTIONS.items():
        for i in range(config.depth):
            found[f"blocks.{i}.{theirs}.weight"] = flat[f"blocks/{ours}/kernel"][i].T
            found[f"blocks.{i}.{theirs}.bias"] = flat[f"blocks/{ours}/bias"][i]
    return found


def to_collections(config: ModelConfig, found: StateDict) -> partition.Collections:
    """The inverse of :func:`to_state_dict`, of a state dict that has the arrays of :func:`shapes_of`."""
    conv = found[f"{PATCHES}.weight"]  # [width, channel, row, column]
    leaves = {
        "patch_embed/kernel": conv.transpose(2, 3, 1, 0).reshape(-1, config.width),
        "patch_embed/bias": found[f"{PATCHES}.bias"],
        "label_embed/table": found[TABLE],
    }
    for ours, theirs in LINEAR.items():
        leaves |= {f"{ours}/kernel": found[f"{theirs}.weight"].T, f"{ours}/bias": found[f"{theirs}.bias"]}
    for ours, theirs in PROJECTIONS.items():
        blocks = [f"blocks.{i}.{theirs}" for i in range(config.depth)]
        leaves[f"blocks/{ours}/kernel"] = np.stack([found[f"{name}.weight"].T for name in blocks])
        leaves[f"blocks/{ours}/bias"] = np.stack([found[f"{name}.bias"] for name in blocks])
    params = partition.unflatten({path: np.ascontiguousarray(a) for path, a in leaves.items()})
    return {partition.LEARNGENES: {}, partition.TAILORS: {}, partition.PARAMS: params}


def check_positions(config: ModelConfig, found: Float[np.ndarray, "1 T D"], origin: object) -> None:
    """Refuse a position embedding that is not DiT's, which is never trained.

    Raises:
      UserError: it differs, or has another shape.
    """
    ours = position_embedding(config.size // config.patch, config.width)[None]
    off = float(np.max(np.abs(found - ours))) if found.shape == ours.shape else math.inf
    rounded = any(np.array_equal(found, found.astype(t)) for t in (ml_dtypes.bfloat16, np.float16))
    most = _ROUNDED if rounded else _TOLERANCE
    if not off <= most:
        raise UserError(
            f"{origin}: '{POSITIONS}' is {off:.2g} away from DiT's sine-cosine embedding, but may be at most {most:g}."
        )
