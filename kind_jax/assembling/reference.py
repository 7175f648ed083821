"""Weights under the names of the published code (LeapLabTHU/Deep-Incubation, whose transformers are timm 0.3's).

There a module's state dict counts its blocks from 0 (``blocks.0.attn.qkv.weight``); the first also has ``cls_token``,
``pos_embed`` and ``patch_embed.proj.*``, the last ``norm.*`` and ``head.*``.
"""

from __future__ import annotations

from collections.abc import Sequence

from kind_jax.assembling import cuts, modules
from kind_jax.assembling.modules import Module
from kind_jax.config.check import is_whole, require
from kind_jax.config.networks import ViTConfig
from kind_jax.interchange import classifier, layouts, vit_names
from kind_jax.interchange.classifier import Found
from kind_jax.interchange.layouts import Places
from kind_jax.interchange.names import StateDict
from kind_jax.partition import COLLECTIONS, Collections, flatten


def read(state_dict: Found, network: ViTConfig, *, origin: object = "the state dict") -> Collections:
    """The collections of a whole network, meta model, hybrid or target.

    Args:
      state_dict: arrays in PyTorch's layouts; blocks are numbered through.
      network: its settings, whose ``depth`` is that of all modules together.

    Raises:
      UserError: an array is missing, unknown, of another shape or dtype, or not finite; it is named.
    """
    _check_network(network)
    places = vit_names.places(network, vit_names.TIMM)
    return classifier.read(places, network, classifier.floats(state_dict, origin), origin)


def read_module(
    state_dict: Found, network: ViTConfig, depths: Sequence[int], index: int, *, source: str,
    origin: object = "the state dict",
) -> Module:  # fmt: skip
    """One module.

    Args:
      state_dict: its arrays alone, blocks numbered from 0.
      network: settings of the whole network.
      depths, index, source: see :class:`kind_jax.assembling.Module`.

    Raises:
      UserError: as :func:`read`, or the network cannot be divided like that.
    """
    _check_network(network)
    cuts.check_depths(network, depths)
    possible = is_whole(index) and 0 <= index < len(depths)
    require(possible, "index", index, f"a whole number from 0 to {len(depths) - 1}")
    shallow, places = _places(network, depths, index)
    found = classifier.read(places, shallow, classifier.floats(state_dict, origin), origin)
    return Module(
        network=network, depths=tuple(depths), index=index, source=source,
        collections={name: found.get(name, {}) for name in COLLECTIONS},
    )  # fmt: skip


def write_module(module: Module) -> StateDict:
    """The inverse of :func:`read_module`: float32 arrays in PyTorch's layouts.

    Raises:
      UserError: the module is not one of a dense vision transformer, or its weights are not those of its place.
    """
    _check_network(module.network)
    modules.check_module(module)
    return layouts.to_state_dict(_places(module.network, module.depths, module.index)[1], module.collections)


def _check_network(network: object) -> None:
    plain = isinstance(network, ViTConfig) and not network.factor.projections
    require(plain, "the network", type(network).__name__, "a vision transformer whose weights are dense")


def _places(network: ViTConfig, depths: Sequence[int], index: int) -> tuple[ViTConfig, Places]:
    """A network that has the blocks of one module, and where the module's arrays lie in it."""
    shallow = cuts.resized(network, (depths[index],))
    own = {f"{name}/{path}" for name, tree in modules.shapes(network, depths, index).items() for path in flatten(tree)}
    places = vit_names.places(shallow, vit_names.TIMM)
    return shallow, {name: place for name, place in places.items() if place.path in own}
