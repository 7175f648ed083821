"""The models that race, and their training step as a contestant."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from harness import Contestant

from kind_jax import model, partition
from kind_jax.config import Config, DiffusionConfig, FactorConfig, ModelConfig, SamplerConfig, TrainConfig, change
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.step import make_step
from kind_jax.train.task import Batch


def kind(
    *, width: int, depth: int, tokens: int, batch: int, classes: int = 100, learngenes: int | None = None,
    tailors: int = 4, **model_settings: Any,
) -> Config:  # fmt: skip
    """A KIND model of latents under rectified flow; ``learngenes`` None is half the width.

    The stack is unrolled, as in configs/digits.py: on a CPU that is the faster one.
    """
    settings: dict[str, Any] = {"scan_unroll": 0, **model_settings}
    return Config(
        model=ModelConfig(
            size=2 * math.isqrt(tokens), channels=4, patch=2, width=width, depth=depth, heads=max(width // 64, 1),
            num_classes=classes, learn_sigma=False, factor=FactorConfig(learngenes=learngenes, tailors=tailors),
            **settings,
        ),
        diffusion=DiffusionConfig(process="flow"),
        sampler=SamplerConfig(method="euler", steps=10),
        train=TrainConfig(batch=batch),
    )  # fmt: skip


def dense(config: Config) -> Config:
    """The same model with every projection dense: a plain DiT."""
    return change(config, model={"factor": FactorConfig(projections=())})


def random_batch(config: Config) -> Batch:
    """Noise for images and random labels, class by class where the config says so, on the device."""
    rng, m, batch = np.random.default_rng(0), config.model, config.train.batch
    together = config.data.per_class or 1
    labels = rng.integers(0, m.num_classes, batch)
    if together > 1:
        labels = np.repeat(rng.permutation(m.num_classes)[: batch // together], together)
    return jax.device_put({
        "image": rng.standard_normal((batch, m.size, m.size, m.channels), np.float32),
        "label": labels.astype(np.int32),
    })  # fmt: skip


def compiled(
    function: Callable[..., Any], *arguments: Any, donate: bool = False
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """``function`` as an executable, and what a contestant tells of it."""
    begin = time.perf_counter()
    program = jax.jit(function, donate_argnums=(0,) if donate else ()).lower(*arguments).compile()
    seconds = time.perf_counter() - begin
    analysis: Any = program.memory_analysis()
    if analysis is None:
        return program, {"compile_seconds": seconds}
    temporary = int(analysis.temp_size_in_bytes)
    held = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return program, {
        "compile_seconds": seconds, "temporary_bytes": temporary, "total_bytes": temporary + int(held)
    }  # fmt: skip


def train_step(
    name: str, config: Config, *, weights: partition.Collections | None = None, donate: bool = True
) -> Contestant:
    """The trainer's whole step: draws, gradient, AdamW, moving average."""
    batch = random_batch(config)
    initial = model.init(config.model, 0) if weights is None else weights
    state = jax.jit(functools.partial(states.start, task_of(config)))(initial)
    program, facts = compiled(make_step(task_of(config)), state, batch, donate=donate)
    held = [state]

    def step() -> None:
        held[0], _ = program(held[0], batch)
        jax.block_until_ready(held[0])

    return Contestant(name=name, step=step, **facts)


def compile_step(name: str, config: Config) -> Contestant:
    """Tracing and compiling the trainer's step, from shapes alone, each time from the beginning."""
    state, batch = states.abstract(task_of(config)), random_batch(config)

    def step() -> None:
        jax.clear_caches()
        jax.jit(make_step(task_of(config)), donate_argnums=0).lower(state, batch).compile()

    return Contestant(name=name, step=step)


def call(name: str, function: Callable[..., Any], *arguments: Any) -> Contestant:
    """A compiled function of fixed arguments."""
    program, facts = compiled(function, *arguments)
    return Contestant(name=name, step=lambda: jax.block_until_ready(program(*arguments)), **facts)
