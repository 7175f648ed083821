"""What timm and torchvision call the arrays of a vision transformer."""

from __future__ import annotations

from typing import NamedTuple

from kind_jax import model, partition
from kind_jax.config.networks import ViTConfig
from kind_jax.interchange import layouts
from kind_jax.interchange.layouts import Place

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}


class VitNames(NamedTuple):
    """The names of one program.

    Attributes:
      token, positions: the class token and the positions.
      outer: what the arrays of a layer outside of the blocks begin with, by our name of the layer.
      block: what those of a block begin with; its number goes into the braces.
      inner: what follows for a layer of a block.
      fixed: whether all networks of the program have a class token and a bias in the attention's input.
    """

    program: str
    token: str
    positions: str
    outer: dict[str, str]
    block: str
    inner: dict[str, str]
    fixed: bool


TIMM = VitNames(
    program="timm",
    token="cls_token",
    positions="pos_embed",
    outer={"patch_embed": "patch_embed.proj.", "norm": "norm.", "head": "head."},
    block="blocks.{}.",
    inner={
        "norm_1": "norm1.", "attention/qkv": "attn.qkv.", "attention/o": "attn.proj.", "norm_2": "norm2.",
        "mlp_in": "mlp.fc1.", "mlp_out": "mlp.fc2.",
    },
    fixed=False,
)  # fmt: skip

TORCHVISION = VitNames(
    program="torchvision",
    token="class_token",
    positions="encoder.pos_embedding",
    outer={"patch_embed": "conv_proj.", "norm": "encoder.ln.", "head": "heads.head."},
    block="encoder.layers.encoder_layer_{}.",
    inner={
        "norm_1": "ln_1.", "attention/qkv": "self_attention.in_proj_", "attention/o": "self_attention.out_proj.",
        "norm_2": "ln_2.", "mlp_in": "mlp.0.", "mlp_out": "mlp.3.",
    },
    fixed=True,
)  # fmt: skip


def places(config: ViTConfig, names: VitNames) -> dict[str, Place]:
    """Where the arrays of a dense vision transformer lie, by their names."""
    found = {}
    for path, leaf in partition.flatten(model.definition(config)[1][partition.PARAMS]).items():
        ours = f"{partition.PARAMS}/{path}"
        layer, _, last = path.rpartition("/")
        if path == "class_token":
            found[names.token] = Place(ours, layouts.leading(2))
        elif path == "position":
            found[names.positions] = Place(ours, layouts.leading(1))
        elif layer == "patch_embed" and last == "kernel":
            found[f"{names.outer[layer]}weight"] = Place(ours, layouts.patches(config.patch))
        elif layer.startswith("blocks/"):
            layout = layouts.DENSE if leaf.ndim == 3 else layouts.SAME
            behind = names.inner[layer.removeprefix("blocks/")] + _LEAVES[last]
            found |= {names.block.format(i) + behind: Place(ours, layout, i) for i in range(config.depth)}
        else:
            layout = layouts.DENSE if leaf.ndim == 2 else layouts.SAME
            found[names.outer[layer] + _LEAVES[last]] = Place(ours, layout)
    return found
