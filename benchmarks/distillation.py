"""What a step of distillation costs: alignment and uniformity beside plain KD, and a cached teacher beside none."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from harness import Found, Row, race
from modules import contestant
from record import Settings

from kind_jax import model
from kind_jax.classifying import network
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config import TrainConfig
from kind_jax.config.networks import CNNConfig, ResNetConfig
from kind_jax.distillation.config import DistilConfig, distil_run
from kind_jax.distillation.task import DistilTask
from kind_jax.tasks import task_of

EMBEDDING, CACHED = 1.05, 1.15


def measure(settings: Settings) -> Found:
    """A small ResNet (28 x 28, batch 128) beside the judge's network: alignment and uniformity over KD alone, with the
    teacher in the step; and with its outputs cached, over training without a teacher."""
    batch = 16 if settings.quick else 128
    student = ResNetConfig(size=28, channels=1, num_classes=10, stages=(1, 1, 1))
    teacher = CNNConfig(size=28, channels=1, num_classes=10)
    plain = ClassifyRun(model=student, train=TrainConfig(batch=batch, steps=1000, ema=0.99))
    rng = np.random.default_rng(0)
    images = {
        "image": rng.uniform(-1, 1, (batch, 28, 28, 1)).astype(np.float32),
        "label": rng.integers(0, 10, batch).astype(np.int32),
    }
    outputs = {
        "teacher_features": rng.standard_normal((batch, network.feature_width(teacher))).astype(np.float32),
        "teacher_logits": rng.standard_normal((batch, 10)).astype(np.float32),
    }
    weights, base = model.init(teacher, 0), task_of(plain)
    contestants = [contestant("plain", base, base.init(), {}, images)]
    for name, given in {
        "kd": {"method": "kd"},
        "align_uniform": {},
        "kd, cached": {"method": "kd", "cache": "x"},
        "align_uniform, cached": {"cache": "x"},
    }.items():
        distil = DistilConfig(network=teacher, source="0" * 64, **given)  # pyright: ignore[reportArgumentType]
        task = DistilTask(distil_run(plain, distil))
        cached = distil.cache is not None
        begun = jax.tree.map(np.asarray, task.init())
        fixed = {} if cached else weights
        contestants.append(contestant(name, task, begun, fixed, images | (outputs if cached else {})))
    made = race(contestants, rounds=settings.rounds)
    pairs = [
        ("align_uniform", "kd", EMBEDDING),
        ("align_uniform, cached", "kd, cached", None),
        ("kd, cached", "plain", CACHED),
        ("align_uniform, cached", "plain", CACHED),
        ("align_uniform", "plain", None),
    ]
    rows = tuple(Row(what=f"{a} / {b}", ratio=made.ratio(a, b), target=target) for a, b, target in pairs)
    sizes = {"student": dataclasses.asdict(student), "teacher": dataclasses.asdict(teacher), "batch": batch}
    return Found(rows=rows, sizes=sizes, details=made.details())
