"""Parts of networks that classify. Places in a network of S stages (of a transformer, its blocks) are numbered:

    0        images
    1 … S    what the stage of that number gives
    S + 1    features, which the head sees
    S + 2    logits

A network is ``logits(leave(through(enter(images))))``; a piece between two places has the weights of what lies there.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import nnx

from kind_jax.config.networks import ViTConfig
from kind_jax.nn.init import Initializer


def drop(module: nnx.Module, *names: str) -> None:
    """Take layers out of a module."""
    for name in names:
        setattr(module, name, None)


def keep_stages(stages: Any, begin: int, end: int) -> None:
    """Take out the stages before ``begin`` and from ``end``."""
    drop(stages, *(str(i) for i in range(stages.length) if not begin <= i < end))


def piece(config: Any, begin: int, end: int, *, make: Any, init: Initializer) -> Any:
    """What lies between two places of the network of these settings; ``make`` makes a whole network."""
    count = config.ends
    if isinstance(config, ViTConfig):
        config = dataclasses.replace(config, depth=max(min(end, count) - min(begin, count), 1), drop_path=0.0)
    network = make(config, init)
    network.keep(begin, end, count)
    return network


def run(network: Any, x: Any, begin: int, end: int, count: int, gate: Any, *, train: bool) -> Any:
    """What a piece between two places makes of what the first of them has."""
    if begin == 0 < end:
        x = network.enter(x, train=train)
    if begin < end and begin < count:
        x = network.through(x, gate, train=train)
    if begin <= count < end:
        x = network.leave(x, train=train)
    return network.logits(x) if end > count + 1 else x
