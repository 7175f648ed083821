"""Waits and utilisation, by a clock that the test turns."""

import pytest
import tiny

from kind_jax.train import meter as meters
from kind_jax.train.meter import Meter, describe, step_flops


def test_waits_are_shares_of_the_wall_time_of_their_interval(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(meters, "peak_flops", lambda kind: 1e9)
    meter = Meter(tiny.CONFIG, clock=lambda: now[0])

    def spend(seconds, what=None):
        if what is None:
            now[0] += seconds
            return
        with meter.waiting(what):
            now[0] += seconds

    spend(1, "input_wait")
    spend(9)
    first = meter.read()
    assert first == pytest.approx({"input_wait": 0.1, "checkpoint_stall": 0, "sampling": 0})
    spend(2, "checkpoint_stall")
    spend(1, "input_wait")
    spend(7)
    second = meter.read()
    assert second["input_wait"] == pytest.approx(0.1)
    assert second["checkpoint_stall"] == pytest.approx(0.2)
    assert meter.mfu(3.0) == pytest.approx(3 * step_flops(tiny.CONFIG) / (8 * 1e9))  # of eight devices
    assert describe(second) == ["input wait 10 %", "checkpoint stall 20 %"]
    assert meter.summary() == "input wait 10.0 %, checkpoint stall 10.0 %, sampling 0.0 % of 20 s"
