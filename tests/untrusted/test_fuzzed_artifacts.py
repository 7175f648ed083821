"""Whatever is wrong with an artifact, it is the model that was written or one sentence."""

from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from chaos.fuzz import fuzz_headers
from kind_jax import model
from kind_jax.deploy.bundle import Bundle, export

CASES = 60
CONFIG = tiny.change(tiny.CONFIG, model={"num_classes": 3, "groups": (0, 0, 1)})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fuzz") / "art"
    bundle = Bundle(
        config=CONFIG, collections=jax.tree.map(np.asarray, model.init(CONFIG.model, 0)), groups=(0, 1),
        class_names=("zero", "one", "two"), weights="ema", step=7, origin=Path("nowhere"),
    )  # fmt: skip
    export(bundle, directory)
    return directory


def test_every_outcome_is_the_model_or_a_sentence(whole, tmp_path):
    outcome = fuzz_headers(whole, tmp_path, CASES, seed=0)
    assert outcome.failures == ()
    assert outcome.figures["refused"] + outcome.figures["valid"] == CASES
    assert outcome.figures["refused"] > CASES // 2
