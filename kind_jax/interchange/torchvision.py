"""torchvision's image classifiers: vision transformers (``vit_b_16`` and its like), and ResNet-18, 34 and 50."""

from __future__ import annotations

import re

from kind_jax import partition
from kind_jax.config.networks import Network, ResNetConfig, ViTConfig
from kind_jax.errors import UserError
from kind_jax.interchange import resnet_state, vit_names, vit_state
from kind_jax.interchange.classifier import IMAGENET, Found, Moments
from kind_jax.interchange.names import StateDict

_PROGRAM = vit_names.TORCHVISION.program
_OLD = {"linear_1": "0", "linear_2": "3"}  # layers of an MLP, in older files
_OLD_NAME = re.compile(r"(?<=\.mlp\.)(linear_[12])(?=\.(weight|bias)\Z)")


def read(
    state_dict: Found,
    *,
    size: int | None = None,
    heads: int | None = None,
    mean: Moments = None,
    std: Moments = None,
    interpolate: bool = False,
    origin: object,
) -> tuple[ViTConfig | ResNetConfig, partition.Collections]:
    """The network in a state dict: its settings, which follow from the shapes, and its collections in float32.

    The epsilon, which no array tells, is taken to be torchvision's own: 1e-6, or 1e-5 in a ResNet's BatchNorm.

    Args:
      state_dict: arrays in PyTorch's names and layouts. A ResNet's ``num_batches_tracked`` are passed over.
      size: image size; None for that of the positions, or 224 for a ResNet.
      heads: attention heads; None for width / 64, or those of the published size of the same width.
      mean, std: what images were normalised with. None for both: ImageNet's.
      interpolate: whether positions for another image size are resized (:mod:`kind_jax.interchange.positions`).
      origin: what the arrays are from, for messages.

    Raises:
      UserError: an array is missing, unknown, of another shape, not of float32, float16 or bfloat16, or not finite; the
        network is of another kind; or the positions are for another size.
    """
    if resnet_state.is_resnet(state_dict):
        return resnet_state.read(state_dict, size=size, mean=mean, std=std, origin=origin)
    if not vit_state.is_vit(state_dict, vit_names.TORCHVISION):
        raise UserError(
            f"{origin} has neither 'conv_proj.weight' nor 'conv1.weight' and 'layer1.0.*', but it must be "
            "torchvision's state dict of a vision transformer or of ResNet-18, 34 or 50."
        )
    return vit_state.read(
        _current(state_dict, origin), vit_names.TORCHVISION, size=size, heads=heads, mean=mean, std=std,
        usual=IMAGENET, interpolate=interpolate, origin=origin,
    )  # fmt: skip


def write(config: Network, collections: partition.Collections) -> StateDict:
    """The inverse of :func:`read`: float32 arrays by torchvision's names, in PyTorch's layouts.

    Image size of a ResNet, heads, mean and std, and settings of training are in no array; a reader must be told.

    Raises:
      UserError: torchvision has no such network (factored weights, gates, pooled patches, attention without a bias,
        ResNets for small images, another epsilon), or the collections are not those of the config.
    """
    if isinstance(config, ViTConfig):
        return vit_state.write(config, collections, vit_names.TORCHVISION)
    if isinstance(config, ResNetConfig):
        return resnet_state.write(config, collections, _PROGRAM)
    raise UserError(f"model.network is {config.network!r}, but it must be 'vit' or 'resnet' for {_PROGRAM}.")


def _current(found: Found, origin: object) -> Found:
    """The arrays under today's names."""
    renamed = {name: _OLD_NAME.sub(lambda match: _OLD[match[1]], name) for name in found}
    for name, new in renamed.items():
        if name != new and new in found:
            raise UserError(f"{origin} has the array '{new}' twice, but it must not have it as '{name}' too.")
    return {renamed[name]: array for name, array in found.items()}
