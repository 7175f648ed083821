"""Training steps of classifiers against the same networks in PyTorch, after a check that they are the same."""
# PyTorch comes with the extra `bench` alone, so a type checker may not find it.
# pyright: reportMissingImports=false

from __future__ import annotations

import dataclasses
import importlib.util
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cases import compiled
from harness import Contestant, Found, Row, race
from record import Settings

from kind_jax import partition
from kind_jax.classifying import network
from kind_jax.classifying.config import AugmentConfig, ClassifyRun
from kind_jax.config import OptimizerConfig, TrainConfig
from kind_jax.config.networks import ResNetConfig, ViTConfig
from kind_jax.config.training import RuleConfig
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.step import make_step

TARGET, TOLERANCE = 1.0, 1e-4


def measure(settings: Settings) -> Found:
    """ResNet-20 and a ViT of width 192 and depth 6 on 28 x 28, batch 128; ours also with crops, flips aside."""
    if importlib.util.find_spec("torch") is None:
        return Found(skipped="PyTorch is not installed; pip install -e '.[bench]', or make bench.")
    batch = 8 if settings.quick else 128
    depth = 1 if settings.quick else 6
    networks = {
        "ResNet-20": ResNetConfig(size=28, channels=1),
        "ViT 192 x 6": ViTConfig(size=28, channels=1, patch=4, width=192, depth=depth, heads=3),
    }
    rows, details = [], {}
    for name, config in networks.items():
        run = _run(config, batch)
        plain, images = task_of(run), _batch(run)
        peer = _peer(run, plain.init(), images)
        cropped = dataclasses.replace(run, augment=AugmentConfig(crop=3))
        contestants = [peer, _ours("ours", run, images), _ours("ours with crops", cropped, images)]
        made = race(contestants, rounds=settings.rounds)
        rows.append(Row(what=f"{name} / PyTorch", ratio=made.ratio("ours", "PyTorch"), target=TARGET))
        rows.append(
            Row(
                what=f"{name} with crops / PyTorch without", ratio=made.ratio("ours with crops", "PyTorch"), target=None
            )
        )
        details[name] = made.details()
    sizes = {name: dataclasses.asdict(config) for name, config in networks.items()}
    return Found(rows=tuple(rows), sizes={**sizes, "batch": batch}, details=details)


def _run(model: Any, batch: int) -> ClassifyRun:
    sgd = isinstance(model, ResNetConfig)
    rules = (RuleConfig(path=".*", weight_decay=5e-4 if sgd else 0.05),)
    optimizer = OptimizerConfig(method="sgd" if sgd else "adamw", learning_rate=0.1 if sgd else 1e-3, rules=rules)
    return ClassifyRun(
        model=model, smoothing=0.1, optimizer=optimizer, train=TrainConfig(batch=batch, steps=1000, ema=None)
    )


def _batch(run: ClassifyRun) -> dict[str, np.ndarray]:
    rng, model, count = np.random.default_rng(0), run.model, run.train.batch
    return {
        "image": rng.standard_normal((count, model.size, model.size, model.channels), np.float32),
        "label": rng.integers(0, model.num_classes, count).astype(np.int32),
    }


def _ours(name: str, run: ClassifyRun, batch: dict[str, np.ndarray]) -> Contestant:
    task = task_of(run)
    state = jax.jit(lambda weights: states.start(task, weights))(jax.tree.map(jnp.asarray, task.init()))
    placed = jax.device_put(batch)
    program, facts = compiled(make_step(task), state, placed, donate=True)
    held = [state]

    def step() -> None:
        held[0], _ = program(held[0], placed)
        jax.block_until_ready(held[0])

    return Contestant(name=name, step=step, **facts)


def _peer(run: ClassifyRun, weights: partition.Collections, batch: dict[str, np.ndarray]) -> Contestant:
    """PyTorch's step from our weights.

    Raises:
      UserError: its network is not the same function as ours, so that comparing speed would mean nothing.
    """
    import torch
    from torch_classifiers import TorchResNet, TorchStep, TorchViT

    torch.set_num_threads(os.cpu_count() or 1)
    sgd = isinstance(run.model, ResNetConfig)
    assert isinstance(run.model, ResNetConfig | ViTConfig)
    net = TorchResNet(run.model) if isinstance(run.model, ResNetConfig) else TorchViT(run.model)
    net.load(weights)
    images = np.ascontiguousarray(batch["image"].transpose(0, 3, 1, 2))
    with torch.no_grad():
        theirs = net.train()(torch.tensor(images)).numpy()
    net.load(weights)
    gate = network.gate_of(run.model, jnp.zeros(len(images), jnp.int32))
    ours, _ = jax.jit(lambda w, x: network.logits(run.model, w, x, gate, train=True))(weights, batch["image"])
    error = np.max(np.abs(np.asarray(ours) - theirs)) / np.max(np.abs(theirs))
    if not error <= TOLERANCE:  # a NaN is refused, too
        raise UserError(
            f"PyTorch's logits differ from ours by {error:.2g} of the largest, but at most {TOLERANCE:.0e} is wanted: "
            "it is not the same function, so nothing was timed."
        )
    return Contestant(name="PyTorch", step=TorchStep(net, images, batch["label"], sgd=sgd).step)
