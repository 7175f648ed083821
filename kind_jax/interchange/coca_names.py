"""What open_clip calls the arrays of its CoCa, and how these lie in ours.

Its attention to other tokens keeps queries, keys and values in one array, or in three where what is attended to has
another width; ours has two, queries and the rest. So state dicts pass through a form that has two, under names of our
own (``in_q`` and ``in_kv``), and each array of that form has one place in our collections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kind_jax import model, partition
from kind_jax.config.coca import CoCaConfig
from kind_jax.interchange import layouts
from kind_jax.interchange.layouts import Layout, Leaf, Place
from kind_jax.interchange.names import StateDict

PATCHES, POOLER = "visual.conv1.weight", "visual.attn_pool."
IMAGE, TEXT, CAPTIONS, CROSS = (
    f"{stack}." for stack in
    ("visual.transformer.resblocks", "text.transformer.resblocks", "text_decoder.resblocks", "text_decoder.cross_attn")
)  # fmt: skip
POSITIONS, WORDS, TABLE = "visual.positional_embedding", "text.positional_embedding", "text.token_embedding.weight"
TEMPERATURE = "logit_scale"

_NEGATIVE = Layout(lambda a: -a, lambda a: -a)  # of a logarithm: a scale is one over a temperature
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_ALONE = {
    "image/class_token": "visual.class_embedding",
    "image/position": POSITIONS,
    "poolers/caption/query": f"{POOLER}query",
    "text/table": TABLE,
    "text/position": WORDS,
    "text/cls_token": "text.cls_emb",
    "multimodal/logits/kernel": "text_decoder.text_projection",
    "heads/image": "visual.proj",
    "heads/text": "text.text_projection",
    "heads/log_temperature": TEMPERATURE,
}
"""Arrays by our paths, as they are but for the last."""

_OUTER = {
    "image/norm_input": "visual.ln_pre.",
    "poolers/caption/norm_query": f"{POOLER}ln_q.",
    "poolers/caption/norm_memory": f"{POOLER}ln_k.",
    "poolers/caption/attention/q": f"{POOLER}attn.in_q_",
    "poolers/caption/attention/kv": f"{POOLER}attn.in_kv_",
    "poolers/caption/attention/o": f"{POOLER}attn.out_proj.",
    "poolers/caption/norm": "visual.ln_post.",
    "text/norm": "text.ln_final.",
    "multimodal/norm": "text_decoder.ln_final.",
}
"""Layers outside of the stacks."""

_MLP = {"norm": "ln_2.", "mlp_in": "mlp.c_fc.", "mlp_out": "mlp.c_proj."}
_SELF = {"norm": "ln_1.", "attention/qkv": "attn.in_proj_", "attention/o": "attn.out_proj."}
_OTHER = {
    "norm_cross": "ln_1.", "norm_memory": "ln_1_kv.", "cross/q": "attn.in_q_", "cross/kv": "attn.in_kv_",
    "cross/o": "attn.out_proj.",
}  # fmt: skip


def _behind(block: str, layers: Mapping[str, str]) -> dict[str, str]:
    return {ours: f"{block}{{}}.{theirs}" for ours, theirs in layers.items()}


def _below(ours: str, layers: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}/{name}": theirs for name, theirs in layers.items()}


_STACKS = {
    "image": _behind(IMAGE, _SELF | _below("last", _MLP)),
    "text": _behind(TEXT, _SELF | _below("last", _MLP)),
    # A layer of ours is two of theirs: one that sees words, one that sees the image.
    "multimodal": _behind(CAPTIONS, _SELF | _below("first", _MLP)) | _behind(CROSS, _OTHER | _below("last", _MLP)),
}
"""Layers of a block, with braces for its number."""


def places(config: CoCaConfig) -> dict[str, Place]:
    """Where the arrays lie, by their names with queries apart from keys and values."""
    found: dict[str, Place] = {}
    for path, leaf in partition.flatten(model.definition(config)[1][partition.PARAMS]).items():
        ours = f"{partition.PARAMS}/{path}"
        layer, _, last = path.rpartition("/")
        tower, _, inner = layer.partition("/blocks/")
        if path in _ALONE:
            found[_ALONE[path]] = Place(ours, _NEGATIVE if _ALONE[path] == TEMPERATURE else layouts.SAME)
        elif path == "image/patch_embed/kernel":
            found[PATCHES] = Place(ours, layouts.patches(config.patch))
        elif inner:
            layout, name = layouts.DENSE if leaf.ndim == 3 else layouts.SAME, _STACKS[tower][inner] + _LEAVES[last]
            found |= {name.format(i): Place(ours, layout, i) for i in range(config.towers[tower].depth)}
        else:
            found[_OUTER[layer] + _LEAVES[last]] = Place(ours, layouts.DENSE if leaf.ndim == 2 else layouts.SAME)
    return found


def fused(parted: StateDict) -> StateDict:
    """Their arrays, of those in which queries are apart from keys and values."""
    found: StateDict = {}
    for name, array in parted.items():
        begin, q, leaf = name.rpartition("in_q_")
        if not q:
            if "in_kv_" not in name:
                found[name] = array
            continue
        kv = parted[f"{begin}in_kv_{leaf}"]
        if array.ndim == 1 or array.shape[1] == kv.shape[1]:
            found[f"{begin}in_proj_{leaf}"] = np.concatenate([array, kv])
        else:
            k, v = np.split(kv, 2)
            found |= {f"{begin}q_proj_weight": array, f"{begin}k_proj_weight": k, f"{begin}v_proj_weight": v}
    return found


def parted(fused: Mapping[str, Leaf], names: Mapping[str, Any]) -> StateDict:
    """The inverse of :func:`fused`.

    Args:
      names: of what it gives.
    """
    found: StateDict = {}
    for name in names:
        begin, kv, leaf = name.rpartition("in_kv_")
        begin, q, leaf = (begin, kv, leaf) if kv else name.rpartition("in_q_")
        if not q:
            found[name] = fused[name]
        elif f"{begin}in_proj_{leaf}" in fused:
            whole = fused[f"{begin}in_proj_{leaf}"]
            found[name] = whole[len(whole) // 3 :] if kv else whole[: len(whole) // 3]
        else:
            k, v = (fused[f"{begin}{part}_proj_weight"] for part in "kv")
            found[name] = np.concatenate([k, v]) if kv else fused[f"{begin}q_proj_weight"]
    return found
