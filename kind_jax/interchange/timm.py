"""timm's image classifiers: plain vision transformers (``vit_*_patch*``), and ResNet-18, 34 and 50."""

from __future__ import annotations

from kind_jax import partition
from kind_jax.config.networks import Network, ResNetConfig, ViTConfig
from kind_jax.errors import UserError
from kind_jax.interchange import resnet_state, vit_names, vit_state
from kind_jax.interchange.classifier import HALF, Found, Moments
from kind_jax.interchange.names import StateDict

_PROGRAM = vit_names.TIMM.program


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

    A vision transformer without a class token pools the mean of its normalised patches, as timm's does with
    ``class_token=False, global_pool='avg', fc_norm=False``. What no array tells, an ordinary network is taken to have:
    an epsilon of 1e-6, or 1e-5 in a ResNet's BatchNorm; and with a class token, the head on that.

    Args:
      state_dict: arrays in PyTorch's names and layouts. A ResNet's ``num_batches_tracked`` are passed over.
      size: image size; None for that of the positions, or 224 for a ResNet.
      heads: attention heads; None for width / 64, or those of the published size of the same width.
      mean, std: what images were normalised with. None for both: 0.5, as the networks of AugReg have it, or ImageNet's
        for a ResNet.
      interpolate: whether positions for another image size are resized (:mod:`kind_jax.interchange.positions`).
      origin: what the arrays are from, for messages.

    Raises:
      UserError: an array is missing, unknown, of another shape, not of float32, float16 or bfloat16, or not finite; the
        network is of another kind; or the positions are for another size.
    """
    if resnet_state.is_resnet(state_dict):
        return resnet_state.read(state_dict, size=size, mean=mean, std=std, origin=origin)
    if not vit_state.is_vit(state_dict, vit_names.TIMM):
        raise UserError(
            f"{origin} has neither 'patch_embed.proj.weight' nor 'conv1.weight' and 'layer1.0.*', but it must be "
            "timm's state dict of a plain vision transformer or of ResNet-18, 34 or 50."
        )
    if "fc_norm.weight" in state_dict:
        raise UserError(
            f"{origin} has the array 'fc_norm.weight', but patches must be normalised before they are pooled: "
            "'norm.weight'."
        )
    return vit_state.read(
        state_dict, vit_names.TIMM, size=size, heads=heads, mean=mean, std=std, usual=HALF,
        interpolate=interpolate, origin=origin,
    )  # fmt: skip


def write(config: Network, collections: partition.Collections) -> StateDict:
    """The inverse of :func:`read`: float32 arrays by timm's names, in PyTorch's layouts.

    Image size of a ResNet, heads, mean and std, and settings of training are in no array; a reader must be told.

    Raises:
      UserError: timm has no such network (factored weights, gates, ResNets for small images, another epsilon), or the
        collections are not those of the config.
    """
    if isinstance(config, ViTConfig):
        return vit_state.write(config, collections, vit_names.TIMM)
    if isinstance(config, ResNetConfig):
        return resnet_state.write(config, collections, _PROGRAM)
    raise UserError(f"model.network is {config.network!r}, but it must be 'vit' or 'resnet' for {_PROGRAM}.")
