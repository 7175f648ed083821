"""What the study of assembling trains, on what, and how: settings, subsets, one program for each network, imitation."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import flops, model
from kind_jax.assembling import cuts
from kind_jax.assembling.config import ModuleConfig, module_run
from kind_jax.assembling.task import ModuleTask, hybrid_network, hybrid_weights
from kind_jax.classifying.accuracy import measure
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import DataConfig, MeshConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import ViTConfig
from kind_jax.config.training import RuleConfig
from kind_jax.data.dataset import open_dataset
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.nn.embed import patchify
from kind_jax.nn.gate import learngenes_only
from kind_jax.nn.stack import over_depth
from kind_jax.partition import Collections, join
from kind_jax.train import sharding
from kind_jax.train import state as states
from kind_jax.train.short import Short
from kind_jax.train.step import draw, gradients
from kind_jax.train.task import Loss, Task

K = 4  # modules
BATCH = 16
DATA = DataConfig(source="animals", flip=True, validation=0.1)


class Recipe(NamedTuple):
    """Peak rate, steps, and steps of warm-up; one program is compiled for all of them."""

    rate: float
    steps: int
    warmup: int


def settings(depth: int, drop_path: float) -> ClassifyRun:
    """The whole network or the meta model; the rate is :func:`rate_of`'s."""
    return ClassifyRun(
        model=ViTConfig(
            size=28, channels=1, num_classes=10, patch=7, width=48, heads=3, depth=depth, drop_path=drop_path
        ),
        data=DATA,
        holdout="validation",
        smoothing=0.1,
        optimizer=OptimizerConfig(clip=1.0, rules=(RuleConfig(path=r"params/.*/kernel", weight_decay=0.05),)),
        train=TrainConfig(batch=BATCH, ema=0.99),
    )


def module_settings(depth: int, index: int, drop_path: float = 0.1, init: str = "random", seed: int = 0) -> Any:
    module = ModuleConfig(depths=(depth // K,) * K, index=index, init=init)  # pyright: ignore[reportArgumentType]
    found = module_run(settings(depth, drop_path), module)
    return dataclasses.replace(found, train=dataclasses.replace(found.train, seed=seed))


@functools.cache
def split(name: str) -> Dataset:
    return open_dataset(DATA, name)  # pyright: ignore[reportArgumentType]


@functools.cache
def subset(share: int, seed: int) -> Dataset:
    """Equally many training images of each class, those of a smaller share among those of a larger; 100: all."""
    whole = split("train")
    if share == 100:
        return whole
    found = whole.source.gather(np.arange(len(whole.source)))
    order = np.random.default_rng(seed).permutation(len(whole.source))
    labels, count = found["label"][order], round(len(order) * share / 1000)
    kept = np.sort(np.concatenate([order[labels == c][:count] for c in range(10)]))
    source = MemorySource(images=found["image"][kept], labels=found["label"][kept])
    return dataclasses.replace(whole, source=source)


def rate_of(count: Any, recipe: Any) -> Any:
    """Linear warm-up, then a cosine to 0; ``recipe`` is a :class:`Recipe` as an array."""
    peak, steps, warmup = recipe
    done = jnp.clip((count - warmup) / jnp.maximum(steps - warmup, 1), 0, 1)
    return peak * jnp.where(count < warmup, count / jnp.maximum(warmup, 1), (1 + jnp.cos(jnp.pi * done)) / 2)


@functools.cache
def program(task: Task) -> Short:
    return Short(task, rate_of)


def train(
    task: Task, initial: Collections, data: Dataset, recipe: Recipe, seed: int, fixed: Any = None
) -> tuple[Collections, dict[str, Any]]:
    """Averaged weights of the last step, and what they took; seconds are those of the processor, without compiling."""
    last, begin, state = [], 0.0, None
    run = program(task).run(initial, data, rate=recipe, seed=seed, steps=recipe.steps, fixed=fixed)
    for done, state, metrics in run:
        if done == 2:
            jax.block_until_ready(state.collections)
            begin = time.process_time()
        if done > recipe.steps - 20:
            last.append((metrics["loss"], metrics["accuracy"]))
    assert state is not None
    weights = jax.device_get(states.averaged(task.config, state))
    seconds = (time.process_time() - begin) * recipe.steps / (recipe.steps - 2)
    loss, right = np.asarray(jax.device_get(last)).mean(axis=0).tolist()
    return weights, {
        "rate": recipe.rate, "steps": recipe.steps, "seconds": seconds, "flops": task.flops() * recipe.steps,
        "block_steps": recipe.steps * _blocks(task), "train_loss": loss, "train_accuracy": right,
    }  # fmt: skip


def _blocks(task: Task) -> int:
    config: Any = task.config
    return sum(config.module.hybrid) if isinstance(task, ModuleTask) else config.model.depth


def accuracy(weights: Collections, depth: int, name: str) -> float:
    mesh = sharding.make_mesh(MeshConfig())
    placed = jax.device_put(weights, sharding.replicated(mesh))
    return measure(settings(depth, 0.0).model, placed, split(name), batch=256, mesh=mesh).top1


class ImitationTask(ModuleTask):
    """One module learns what the meta model's own gives for the same input, by mean squared error.

    ``fixed``: the frozen modules ``around`` it, and the meta model's ``own`` in its place.
    """

    def loss(self, collections: Collections, drawn: Any, fixed: Any) -> Loss:
        config, k = self.config, self.config.module.place
        meta = cuts.staged(config.model, config.module.around, k, frozen_paths=False)
        teacher = join(model.definition(meta)[0], hybrid_weights(config, fixed["own"], fixed["around"]))
        weights = hybrid_weights(config, collections, fixed["around"])
        student = join(model.definition(hybrid_network(config))[0], weights)
        x = drawn.samples.images
        for j in range(k):
            x = _behind(teacher, j, x)
        loss = jnp.mean((_behind(student, k, x) - _behind(teacher, k, x)) ** 2)
        return Loss(loss, {"loss": loss, "accuracy": jnp.zeros(())})

    def fixed_shapes(self) -> Any:
        config = self.config
        whole = model.definition(cuts.resized(config.model, config.module.around))[1]
        return imitated(config, whole) | {"around": super().fixed_shapes()}

    def flops(self) -> float:
        def f(collections: Any, batch: Any, fixed: Any) -> Any:
            return gradients(self, collections, draw(self, batch, jnp.int32(0)), fixed)

        return flops.count(jax.make_jaxpr(f)(self.shapes(), self.batch(), self.fixed_shapes()))


def _behind(net: Any, index: int, x: Any) -> Any:
    """What a module gives for the residual stream in front of it: the stream behind it; images to begin with, logits
    in the end."""
    if index == 0:
        x = net.patch_embed(patchify(x, net.config.patch))
        token = jnp.broadcast_to(net.class_token[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([token, x], axis=1) + net.position[...]
    stack = list(net.blocks)[index]
    x, _ = over_depth(stack, x, learngenes_only(), lambda block, x, gate, _: block(x, gate), unroll=0, remat=False)
    return net.head(net.norm(x)[:, 0]) if index == net.blocks.length - 1 else x


def imitated(config: Any, whole: Collections) -> dict[str, Any]:
    """The meta model's own module in the place of the one that is trained."""
    module = config.module
    return {"own": cuts.take(config.model, whole, module.around, module.place)}
