"""Models of the tests of the page: five classes, of which two share tailors."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import tiny

from kind_jax import Bundle
from kind_jax.evaluating import judge_train
from kind_jax.evaluating.judge import Judge
from kind_jax.evaluating.judge_file import HeldOut
from kind_jax.playing.controls import Controls

NAMES = ("zero", "one", "two", "<b>three</b> ![four](http://example.org/4.png)", "${big}, {{red}}")
CONFIG = tiny.change(
    tiny.CONFIG, model={"depth": 1, "num_classes": 5, "groups": (0, 1, 2, 3, 3)}, sampler={"steps": 2, "guidance": 1.0}
)


def bundle_of(config=CONFIG, origin="somewhere", names=NAMES):
    return Bundle(
        config=config,
        collections=jax.tree.map(np.asarray, tiny.weights(config.model, 0.3)),
        groups=tuple(range(config.model.num_groups)),
        class_names=names,
        weights="ema",
        step=7,
        origin=Path(origin),
    )


BUNDLE = bundle_of()


def many_classes(count):
    config = tiny.change(CONFIG, model={"num_classes": count, "groups": None})
    return bundle_of(config, names=tuple(f"class {c}" for c in range(count)))


START = Controls(classes=(0, 1), weights=(1.0, 1.0))


def moved(**changes):
    return dataclasses.replace(START, **changes)


def judge_of(shape=(8, 8, 1), num_classes=5):
    """One that was never trained, but looks at every pixel."""
    weights = judge_train.initial(judge_train.settings(shape, num_classes), 0)
    for block in weights["params"]["stages"].values():
        kernel = block["conv_2"]["kernel"]
        block["conv_2"]["kernel"] = jax.random.normal(jax.random.key(1), kernel.shape) / 20
    held_out = HeldOut(right=1, images=5)
    return Judge(weights=weights, shape=shape, num_classes=num_classes, fingerprint="", held_out=held_out)
