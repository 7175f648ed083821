"""The programs whose classifiers are read and written, by the names that the command line has for them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple

from kind_jax import partition
from kind_jax.config.networks import Network, ResNetConfig, ViTConfig
from kind_jax.interchange import timm, torchvision, vit_names
from kind_jax.interchange.names import StateDict

Name = Literal["timm", "torchvision"]

_RESNET = {"conv1.weight", "layer1.0.conv1.weight"}


class Program(NamedTuple):
    """How its state dicts are read and written, see :mod:`kind_jax.interchange.timm`, and a name in every ViT's."""

    read: Callable[..., tuple[ViTConfig | ResNetConfig, partition.Collections]]
    write: Callable[[Network, Any], StateDict]
    vit: str

    def knows(self, names: Collection[str]) -> bool:
        """Whether arrays of these names are those of a network of the program, at a first glance."""
        return self.vit in names or set(names) >= _RESNET


PROGRAMS: dict[Name, Program] = {
    "timm": Program(timm.read, timm.write, f"{vit_names.TIMM.outer['patch_embed']}weight"),
    "torchvision": Program(torchvision.read, torchvision.write, f"{vit_names.TORCHVISION.outer['patch_embed']}weight"),
}
