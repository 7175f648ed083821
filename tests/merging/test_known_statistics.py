"""Statistics of an earlier merge serve another one up to the same place."""

import chex
import numpy as np
import pytest

from kind_jax import model
from kind_jax.config.networks import ResNetConfig
from kind_jax.errors import UserError
from kind_jax.merging import Model, Settings, zip_models

CONFIG = ResNetConfig(size=8, channels=1, num_classes=2, stages=(1, 1, 1), width=0.25)
IMAGES = [np.random.default_rng(0).uniform(-1, 1, (16, 8, 8, 1)).astype(np.float32)]


def test_statistics_are_used_again():
    models = [Model(CONFIG, model.init(CONFIG, seed)) for seed in (0, 1)]
    first = zip_models(models, IMAGES, to=4, settings=Settings(method="permute"))
    again = zip_models(models, [], to=4, settings=Settings(method="permute"), statistics=first.statistics)
    chex.assert_trees_all_equal(again.model.collections, first.model.collections)
    with pytest.raises(UserError, match="statistics are of"):
        zip_models(models, [], to=1, settings=Settings(), statistics=first.statistics)
