"""Waits and utilisation, by a clock that the test turns."""

import jax
import jax.numpy as jnp
import pytest
import tiny

from kind_jax import model
from kind_jax.config import FactorConfig
from kind_jax.deploy import cost
from kind_jax.train import meter as meters
from kind_jax.train.meter import Meter, describe
from kind_jax.train.profile import Profile

FLOPS = 6e7  # of a step


def test_waits_are_shares_of_the_wall_time_of_their_interval(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(meters, "peak_flops", lambda kind: 1e9)
    meter = Meter(FLOPS, clock=lambda: now[0])

    def spend(seconds, what=None):
        if what is None:
            now[0] += seconds
            return
        with meter.waiting(what):
            now[0] += seconds

    spend(1, "input_wait")
    spend(9)
    first = meter.read()
    assert first == pytest.approx({"input_wait": 0.1, "checkpoint_stall": 0, "watching": 0})
    spend(2, "checkpoint_stall")
    spend(1, "input_wait")
    spend(7)
    second = meter.read()
    assert second["input_wait"] == pytest.approx(0.1)
    assert second["checkpoint_stall"] == pytest.approx(0.2)
    assert meter.mfu(3.0) == pytest.approx(3 * FLOPS / (8 * 1e9))  # of eight devices
    assert describe(second) == ["input wait 10 %", "checkpoint stall 20 %"]
    assert meter.summary() == "input wait 10.0 %, checkpoint stall 10.0 %, watching 0.0 % of 20 s"


@pytest.mark.parametrize(
    "change", [{}, {"null_gate": "all"}, {"contraction": "folded"}, {"factor": FactorConfig(projections=())}], ids=str
)
def test_flops_are_those_that_the_compiled_model_multiplies(change):
    """XLA also counts what is element-wise, so its figure is larger, but alike for every model."""
    config = tiny.change(tiny.CONFIG, model={"width": 64, "depth": 1, **change})
    images, m = 8, config.model
    labels = jax.ShapeDtypeStruct((images,), jnp.int32)

    def forward(weights, x, t, labels):
        gate = model.class_gate(m)(labels, jnp.zeros(images, bool))
        return model.apply(m, weights, x, t, labels, gate)

    x, t = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((images, 8, 8, 1), (images,)))
    analysis = jax.jit(forward).lower(model.definition(m)[1], x, t, labels).compile().cost_analysis()
    assert 0.95 < analysis["flops"] / cost.products(m, images).total < 1.35


def test_a_profile_begins_in_its_window_wherever_the_run_does(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda where: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    for steps, expected in ((range(1, 9), ["start", "stop"]), (range(5, 9), ["start", "stop"]), (range(7, 9), [])):
        calls.clear()
        profile = Profile(tmp_path, (4, 6))
        for step in steps:
            profile.before(step)
            profile.after(step, jnp.zeros(()))
        profile.close()
        assert calls == expected
