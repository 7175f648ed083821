"""Tiny students and teachers that are distilled module by module, without a file."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from kind_jax import model
from kind_jax.captioning.config import CaptionRun
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import Config, DataConfig, DiffusionConfig, FactorConfig, ModelConfig, OptimizerConfig, TrainConfig
from kind_jax.config.coca import CoCaConfig, TowerConfig
from kind_jax.config.networks import ViTConfig
from kind_jax.distillation.optima import OptimaTask
from kind_jax.distillation.optima_config import OptimaConfig, optima_run

BATCH, CONTEXT = 4, 6
TRAIN = TrainConfig(steps=40, batch=BATCH, null=0.1, ema=None, log_every=1, sample_every=0, checkpoint_every=0)
ADAM = OptimizerConfig(learning_rate=1e-3, clip=1.0)


def coca(image=1, text=1, multimodal=1, width=8):
    towers = {"image": image, "text": text, "multimodal": multimodal}
    return CoCaConfig(
        size=4, channels=1, patch=2, vocabulary=11, context=CONTEXT, embedding=4, queries=3, pooler_heads=2,
        **{name: TowerConfig(width=width, depth=depth, heads=2) for name, depth in towers.items()},
    )  # fmt: skip


def captions(network, **settings):
    return CaptionRun(model=network, train=TRAIN, optimizer=ADAM, **settings)


def vit(depth, width=8):
    return ViTConfig(size=4, channels=1, num_classes=3, patch=2, width=width, depth=depth, heads=2)


def classifier(network):
    return ClassifyRun(model=network, train=TRAIN, optimizer=ADAM)


def dit(depth, groups=3):
    return ModelConfig(
        size=4, channels=1, num_classes=groups, patch=2, width=8, depth=depth, heads=2,
        factor=FactorConfig(learngenes=3, tailors=1),
    )  # fmt: skip


def generator(network):
    return Config(
        model=network, train=TRAIN, optimizer=ADAM, data=DataConfig(), diffusion=DiffusionConfig(train_steps=250)
    )


def task_of(plain, network, **settings):
    """The task of a run of ``plain`` beside a teacher, and the teacher's weights."""
    known = OptimaConfig(teacher=".", source="0" * 64, network=network, **settings)
    weights = jax.tree.map(jnp.asarray, model.init(network, 7))
    return OptimaTask(optima_run(plain, known)), weights


def batch_of(task, seed=0):
    """A batch of noise, and of captions of different lengths."""
    rng, found = np.random.default_rng(seed), {}
    for name, spec in task.batch().items():
        if name == "tokens":
            rows = np.zeros(spec.shape, np.int32)
            for row, length in zip(rows.reshape(-1, CONTEXT), (3, 4, 5, 6), strict=True):
                row[:length] = [1, *rng.integers(3, 11, length - 2), 2]
            found[name] = rows
        elif name == "captions":
            found[name] = np.ones(spec.shape, np.int32)
        elif name == "label":
            found[name] = rng.integers(0, 3, spec.shape).astype(np.int32)
        else:
            found[name] = rng.standard_normal(spec.shape).astype(np.float32)
    return jax.tree.map(jnp.asarray, found)


def begun(task):
    """The first weights of a run, with nothing that must come from a file."""
    return jax.tree.map(jnp.asarray, task.init())


def with_arm(weights, arm):
    """The same weights in a round of another module."""
    state = {**weights["memory"]["rounds"], "arm": jnp.int32(arm)}
    return {**weights, "memory": {**weights["memory"], "rounds": state}}


def replaced(task, **settings):
    """A task with other settings of OPTIMA."""
    return OptimaTask(dataclasses.replace(task.config, optima=dataclasses.replace(task.config.optima, **settings)))
