"""Students and teachers small enough for tests: real digits, networks that compile in seconds."""

import functools

import jax
import numpy as np
from classifying import tiny_classifier as tiny

from kind_jax import model
from kind_jax.classifying.config import AugmentConfig, ClassifyRun
from kind_jax.config import DataConfig, OptimizerConfig, TrainConfig
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy import artifact
from kind_jax.distillation.config import DistilConfig, distil_run
from kind_jax.distillation.task import DistilTask

NETWORKS = {"vit": tiny.VIT, "kind": tiny.KIND, "resnet": tiny.RESNET, "cnn": tiny.CNN}


def plain(network="cnn", **train):
    """A run of the student without a teacher, with neither flips nor augmentation."""
    return ClassifyRun(
        model=NETWORKS[network],
        data=DataConfig(source="digits", validation=0.2),
        holdout="validation",
        augment=AugmentConfig(),
        optimizer=OptimizerConfig(learning_rate=3e-3, clip=1.0),
        train=TrainConfig(
            **{"steps": 4, "batch": 16, "ema": 0.9, "log_every": 1, "checkpoint_every": 2, "sample_every": 2, **train}
        ),
    )


@functools.lru_cache
def names():
    return open_dataset(plain().data, "train").class_names


def teacher(folder, network="resnet", seed=7, class_names=None):
    """An untrained teacher as an artifact."""
    config, path = plain(network), folder / f"{network}-{seed}"
    if not path.exists():
        found = model.init(config.model, seed)
        if "stats" in found:  # of a network that has seen something
            found["stats"] = jax.tree.map(lambda a: np.float32(1.5) * a - np.float32(0.1), found["stats"])
        artifact.write(
            path, config=config, collections=found, class_names=class_names or names(), weights="raw", step=1,
            groups=range(config.model.num_groups),
        )  # fmt: skip
    return path


def run(folder, student="cnn", of="resnet", train=None, **distil):
    """A run of a student beside a teacher."""
    settings = {"width": 8, "negatives": 5, **distil}
    return distil_run(plain(student, **(train or {})), DistilConfig(teacher=str(teacher(folder, of)), **settings))


def bound(config):
    """Its task, completed, and its data."""
    dataset = open_dataset(config.data, "train")
    return DistilTask(config).bound(dataset, begins=True)[0], dataset
