"""Which of our arrays is which of the official DiT's, and which of these is which of diffusers'.

diffusers has the official arrays under other names, but for three things: the attention input is three matrices q, k
and v, every block has its own copy of the time and label embedders, and the position embedding is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable

StateDict = dict[str, Float[np.ndarray, "..."]]
"""Arrays by name, in PyTorch's layouts: a linear layer's weight is [d_out, d_in]."""

PROJECTIONS = {
    "attention/qkv": "attn.qkv",
    "attention/o": "attn.proj",
    "mlp_in": "mlp.fc1",
    "mlp_out": "mlp.fc2",
    "adaln": "adaLN_modulation.1",
}
"""Linear layers of a block: ours, the official name behind ``blocks.<i>.``"""

LINEAR = {
    "time_embed/hidden": "t_embedder.mlp.0",
    "time_embed/out": "t_embedder.mlp.2",
    "final/adaln": "final_layer.adaLN_modulation.1",
    "final/linear": "final_layer.linear",
}
"""Linear layers outside of the blocks."""

PATCHES, TABLE, POSITIONS = "x_embedder.proj", "y_embedder.embedding_table.weight", "pos_embed"

_ALONE = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
_COPIED = {
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}
_BLOCK = {
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm1.linear",
}
_THIRDS = ("attn1.to_q", "attn1.to_k", "attn1.to_v")

KEPT_POSITIONS = "pos_embed.pos_embed"
"""Where some versions of diffusers keep the position embedding after all."""


def diffusers_names(name: str, depth: int) -> tuple[str, ...]:
    """diffusers' names of an official array: one, one for each third of its rows, one a block, or none."""
    layer, _, leaf = name.rpartition(".")
    if name == POSITIONS:
        return ()
    if layer in _ALONE:
        return (f"{_ALONE[layer]}.{leaf}",)
    if layer in _COPIED:
        return tuple(f"transformer_blocks.{i}.{_COPIED[layer]}.{leaf}" for i in range(depth))
    _, block, inner = layer.split(".", 2)
    theirs = _THIRDS if inner == PROJECTIONS["attention/qkv"] else (_BLOCK[inner],)
    return tuple(f"transformer_blocks.{block}.{other}.{leaf}" for other in theirs)


def to_diffusers(official: StateDict, depth: int) -> StateDict:
    """An official state dict under diffusers' names."""
    found: StateDict = {}
    for name, array in official.items():
        theirs = diffusers_names(name, depth)
        parts = np.split(array, 3) if _is_fused(name) else [array] * len(theirs)
        found |= dict(zip(theirs, parts, strict=True))
    return found


def from_diffusers(found: StateDict, wanted: Iterable[str], depth: int, origin: object) -> StateDict:
    """The inverse of :func:`to_diffusers`, without the position embedding.

    Args:
      wanted: names of the official arrays.

    Raises:
      UserError: blocks have different copies of what must be one array.
    """
    official: StateDict = {}
    for name in wanted:
        theirs = diffusers_names(name, depth)
        for other in () if _is_fused(name) else theirs[1:]:
            if not np.array_equal(found[other], found[theirs[0]]):
                raise UserError(
                    f"{origin}: '{printable(other)}' differs from '{theirs[0]}', but in a DiT all blocks share the "
                    "time and label embedders."
                )
        if theirs:
            official[name] = np.concatenate([found[n] for n in theirs]) if _is_fused(name) else found[theirs[0]]
    return official


def _is_fused(name: str) -> bool:
    return f".{PROJECTIONS['attention/qkv']}." in name
