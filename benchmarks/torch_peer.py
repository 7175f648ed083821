"""Training steps of the dense DiT and of KIND against the PyTorch DiT, after a check that it is the same function.

Both live in one process, so PyTorch's allocations profit from kind_jax.host.keep_memory, too.
"""
# PyTorch comes with the extra `bench` alone, so a type checker may not find it.
# pyright: reportMissingImports=false

from __future__ import annotations

import importlib.util
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import dense, kind, random_batch, train_step
from harness import Contestant, Found, Row, race
from record import Settings

from kind_jax import model, partition
from kind_jax.config import Config, change
from kind_jax.errors import UserError
from kind_jax.nn.gate import learngenes_only

DENSE_TARGET, KIND_TARGET = 0.95, 0.85
TOLERANCE = 1e-4


def measure(settings: Settings) -> Found:
    """DiT-S/2 on 32 x 32 latents, and a smaller one at a larger batch."""
    if importlib.util.find_spec("torch") is None:
        return Found(skipped="PyTorch is not installed; pip install -e '.[bench]', or make bench.")
    sizes = {
        "DiT-S/2": {"width": 384, "depth": 12, "tokens": 256, "batch": 8},
        "384 x 6": {"width": 384, "depth": 6, "tokens": 64, "batch": 32},
    }
    if settings.quick:
        sizes = {"tiny": {"width": 64, "depth": 1, "tokens": 16, "batch": 4}}
    rows, details = [], {}
    for name, size in sizes.items():
        plain, tailors = dense(kind(**size)), (4, 5 * size["width"] // 64)
        weights = _moved(model.init(plain.model, 0))
        contestants = [_peer(plain, weights), train_step("dense", plain, weights=weights)]
        contestants += [train_step(f"KIND, N_T {n}", kind(**size, tailors=n)) for n in tailors]
        grouped = change(kind(**size, tailors=tailors[1]), data={"per_class": min(size["batch"], 8)})
        contestants.append(train_step(f"KIND, N_T {tailors[1]}, class-grouped", grouped))
        made = race(contestants, rounds=settings.rounds)
        for contestant in contestants[1:]:
            target = DENSE_TARGET if contestant.name == "dense" else KIND_TARGET
            ratio = made.ratio(contestant.name, "PyTorch")
            rows.append(Row(what=f"{contestant.name} / PyTorch dense; {name}", ratio=ratio, target=target))
        details[name] = made.details()
    return Found(rows=tuple(rows), sizes=sizes, details=details)


def _moved(weights: partition.Collections) -> partition.Collections:
    """Weights off their initialisation, at which a DiT's output is 0 whatever its blocks do."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: a + np.float32(0.02) * rng.standard_normal(a.shape, np.float32), weights)


def _peer(config: Config, weights: partition.Collections) -> Contestant:
    """PyTorch's training step from our weights.

    Raises:
      UserError: its network is not the same function as ours, so that comparing speed would mean nothing.
    """
    import torch
    from torch_dit import TorchDiT, TorchTraining

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    net = TorchDiT(config.model)
    net.load(weights)
    batch = {name: np.asarray(value) for name, value in random_batch(config).items()}
    images = np.ascontiguousarray(batch["image"].transpose(0, 3, 1, 2))
    _check(config, weights, net, images, batch["label"])
    training = TorchTraining(net, config, images, batch["label"])
    return Contestant(name="PyTorch", step=training.step)


def _check(config: Config, weights: partition.Collections, net: Any, images: np.ndarray, labels: np.ndarray) -> None:
    import torch

    t = np.linspace(0, 1000, len(labels), dtype=np.float32)
    labels = np.where(np.arange(len(labels)) == 0, config.model.num_classes, labels)  # the null class, too
    with torch.no_grad():
        theirs = net(torch.tensor(images), torch.tensor(t), torch.tensor(labels, dtype=torch.long)).numpy()
    ours = jax.jit(lambda w, x: model.apply(
        config.model, w, x, jnp.asarray(t), jnp.asarray(labels, jnp.int32), learngenes_only()
    ))(jax.device_put(weights), jnp.asarray(images.transpose(0, 2, 3, 1)))  # fmt: skip
    error = np.max(np.abs(np.asarray(ours).transpose(0, 3, 1, 2) - theirs)) / np.max(np.abs(theirs))
    if not error <= TOLERANCE:  # a NaN is refused, too
        raise UserError(
            f"the PyTorch DiT's output differs from ours by {error:.2g} of its largest value, but at most "
            f"{TOLERANCE:.0e} is wanted: it is not the same function, so nothing was timed."
        )
