"""Studies: finished parts are not repeated, other settings are refused, and the sweep trains as the trainer does."""

import functools
import importlib.util
import json
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from kind_jax import model
from kind_jax.data import pipeline
from kind_jax.data.dataset import open_dataset
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.step import make_step

# One config, so that the trainer's program is compiled once.
CONFIG = tiny.change(tiny.CONFIG, train={"steps": 3}, optimizer={"schedule": "cosine", "warmup": 1})
FILE = Path(__file__).parents[2] / "studies" / "common.py"


@pytest.fixture(scope="module")
def common():
    spec = importlib.util.spec_from_file_location("studies_common", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_an_interrupted_study_continues_without_repeating(common, tmp_path):
    calls = []

    def compute(name):
        calls.append(name)
        if name == "b" and calls.count("b") == 1:
            raise KeyboardInterrupt
        return {"value": name}

    def study():
        records = common.Records(tmp_path / "records.json", {"steps": 3})
        return [records.get(name, lambda name=name: compute(name)) for name in "abc"]

    with pytest.raises(KeyboardInterrupt):
        study()
    assert study() == [{"value": "a"}, {"value": "b"}, {"value": "c"}]
    assert calls == ["a", "b", "b", "c"]
    with pytest.raises(UserError, match=r"other settings \(steps was 3, now 4\); choose another --out"):
        common.Records(tmp_path / "records.json", {"steps": 4})
    (tmp_path / "records.json").write_text("{")
    with pytest.raises(UserError, match="is damaged, remove it"):
        common.Records(tmp_path / "records.json", {"steps": 3})


def test_a_study_that_is_refused_ends_with_a_sentence(common, capsys):
    def main():
        raise UserError("steps is 0.")

    with pytest.raises(SystemExit) as e:
        common.entry(main)
    assert e.value.code == 2
    assert capsys.readouterr().err == "error: steps is 0.\n"


@pytest.mark.slow
def test_one_compiled_step_serves_every_rate_and_seed_as_the_trainer_would(common):
    trainer, config = common.Trainer(CONFIG), CONFIG
    initial = tiny.weights(config.model)
    found = {(r, s): trainer.run(initial, rate=r, seed=s, at=[3])[3] for r, s in ((1e-3, 0), (5e-3, 7))}
    assert trainer._step._cache_size() == 1
    tuned = tiny.change(config, optimizer={"learning_rate": 5e-3}, train={"seed": 7})
    data = pipeline.batches(open_dataset(tuned.data, "train"), batch=8, seed=7)
    state = jax.jit(functools.partial(states.start, task_of(tuned)))(jax.tree.map(jnp.asarray, initial))
    step = jax.jit(make_step(task_of(tuned)))
    for _ in range(3):
        state, _ = step(state, next(data))
    # Two programs round differently, and Adam enlarges that; another rate or seed differs by a thousandth.
    chex.assert_trees_all_close(found[5e-3, 7], jax.device_get(states.averaged(config, state)), rtol=1e-5, atol=5e-5)


def test_pretrained_weights_are_kept_and_checked(common, tmp_path):
    config, file = CONFIG, tmp_path / "w.safetensors"
    first = common.pretrained(config, 0, file)
    written = file.stat().st_mtime_ns
    chex.assert_trees_all_equal(common.pretrained(config, 0, file), first)
    assert file.stat().st_mtime_ns == written
    assert json.dumps(sorted(first)) == '["learngenes", "params", "tailors"]'
    assert np.isfinite(jax.tree.leaves(first)[0]).all()
    wider = tiny.change(config, model={"width": 32})
    assert model.definition(wider.model)
    with pytest.raises(UserError, match="has shape"):
        common.pretrained(wider, 0, file)
