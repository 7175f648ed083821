"""The published recipe of Deep Model Assembling: sizes, phases and the figures of its table."""

import jax
import numpy as np
import pytest

from kind_jax import model
from kind_jax.assembling import recipes
from kind_jax.assembling.config import ClassifierModuleRun, whole_run
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config.presets import preset
from kind_jax.train.optimizer import learning_rate

SIZES = {
    "vit_b16": ("B/16", 86_567_656, 3, 0.1),
    "vit_l16": ("L/16", 304_326_632, 6, 0.5),
    "vit_h14": ("H/14", 631_922_920, 8, 0.6),
}


@pytest.mark.parametrize("name", SIZES)
def test_three_phases_of_one_network(name):
    size, count, depth, drop = SIZES[name]
    meta, module, tuned = (preset(f"{name}_{phase}") for phase in ("meta", "module", "assembled"))
    assert [type(c) for c in (meta, module, tuned)] == [ClassifyRun, ClassifierModuleRun, ClassifyRun]
    assert meta == recipes.meta(size)
    shapes = model.definition(tuned.model)[1]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert module.module.depths == (depth,) * 4
    assert (meta.model.depth, tuned.model.depth, module.model.depth) == (4, 4 * depth, 4 * depth)
    assert [c.model.drop_path for c in (meta, module, tuned)] == [0, 0.1, drop]
    assert [c.train.steps // 625 for c in (meta, module, tuned)] == [300, 100, 100]
    assert [c.optimizer.warmup // 625 for c in (meta, module, tuned)] == [20, 20, 0]
    assert [c.optimizer.clip for c in (meta, module, tuned)] == [None, None, 1.0]
    for config in (meta, whole_run(module), tuned):
        assert (config.train.batch, config.train.ema, config.smoothing) == (2048, None, 0.1)
        rate = learning_rate(config.optimizer, config.train.steps)
        found = float(rate(0)), float(rate(config.optimizer.warmup)), float(rate(config.train.steps))
        np.testing.assert_allclose(found, [1e-6 if config.optimizer.warmup else 2e-3, 2e-3, 1e-5], rtol=1e-5)
    assert (tuned.model.qkv_bias, tuned.model.norm_eps) == ((False, 1e-5) if size == "H/14" else (True, 1e-6))
