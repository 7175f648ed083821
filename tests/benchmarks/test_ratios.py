"""Benchmarks: a drifting machine does not move a ratio, the order rotates, and finished measures are kept."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from kind_jax.errors import UserError

FOLDER = Path(__file__).parents[2] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # under its plain name, as `python benchmarks/run.py` has it: record imports harness
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def harness():
    yield load("harness")
    del sys.modules["harness"]


@pytest.fixture(scope="module")
def record(harness):
    yield load("record")
    del sys.modules["record"]


class Machine:
    """A clock that only steps move, ever more slowly, and a note of who ran when."""

    def __init__(self, harness):
        self.now, self.pace, self.order, self._harness = 0.0, 1.0, [], harness

    def contestant(self, name, cost, **facts):
        def step():
            self.order.append(name)
            self.now += cost * self.pace

        return self._harness.Contestant(name=name, step=step, **facts)


def test_a_drift_between_rounds_cancels_and_the_order_rotates(harness):
    machine = Machine(harness)
    contestants = [
        machine.contestant("a", 1.0, temporary_bytes=100, total_bytes=50),
        machine.contestant("b", 1.5, temporary_bytes=80, total_bytes=60),
    ]
    contestants.append(machine.contestant("c", 0.5))
    turns = []

    def clock():
        if len(turns) % 6 == 0:  # two readings a turn, three turns a round
            machine.pace *= 10
        turns.append(None)
        return machine.now

    made = harness.race(contestants, rounds=4, steps=2, warmup=1, clock=clock)
    ratio = made.ratio("b", "a")
    assert (ratio.low, ratio.median, ratio.high, ratio.minimum) == pytest.approx((1.5, 1.5, 1.5, 1.5))
    assert made.ratio("c", "b").median == pytest.approx(1 / 3)
    assert made.seconds["a"][3] == pytest.approx(1000 * made.seconds["a"][0])
    assert "".join(machine.order) == "abc" + "aabbcc" + "bbccaa" + "ccaabb" + "aabbcc"
    assert made.memory("b", "a").median == pytest.approx(0.8)
    assert made.memory("b", "a", total=True).median == pytest.approx(1.2)
    assert made.memory("c", "a") is None


def test_quartiles_and_minimum(harness):
    ratio = harness.Ratio.of([1.0, 2.0, 3.0, 4.0, 10.0])
    assert (ratio.minimum, ratio.low, ratio.median, ratio.high) == (1.0, 2.0, 3.0, 4.0)
    assert str(ratio) == "3.000 (2.000 to 4.000)"
    assert str(harness.Ratio.exact(0.5)) == "0.500"


def test_finished_measures_are_kept_until_asked_for_or_circumstances_change(harness, record, tmp_path, capsys):
    calls = []

    def compute():
        calls.append(len(calls))
        return harness.Found(rows=(harness.Row(what="x", ratio=harness.Ratio.exact(float(len(calls)))),))

    def interrupted():
        raise KeyboardInterrupt

    given = record.circumstances(record.Settings(rounds=5))
    first = record.measure("one", compute, tmp_path, given, again=False)
    with pytest.raises(KeyboardInterrupt):
        record.measure("two", interrupted, tmp_path, given, again=False)
    assert [p.name for p in tmp_path.iterdir()] == ["one.json"]
    assert record.measure("one", compute, tmp_path, given, again=False) == first
    assert "one: kept" in capsys.readouterr().out
    assert record.measure("one", compute, tmp_path, given, again=True)["rows"][0]["ratio"]["median"] == 2.0
    other = record.circumstances(record.Settings(rounds=7))
    assert record.measure("one", compute, tmp_path, other, again=False)["rows"][0]["ratio"]["median"] == 3.0
    skipping = harness.Found(skipped="Nothing to measure.")
    record.measure("three", lambda: skipping, tmp_path, given, again=False)
    record.measure("three", compute, tmp_path, given, again=False)  # what was skipped is tried again
    assert len(calls) == 4
    (tmp_path / "one.json").write_text("{")
    with pytest.raises(UserError, match=r"one\.json is damaged, remove it"):
        record.measure("one", compute, tmp_path, given, again=False)


def test_the_table_judges_medians_but_no_smoke_tests(harness, record, tmp_path):
    rows = tuple(
        harness.Row(what=what, ratio=harness.Ratio.of(values), target=target)
        for what, values, target in (
            ("fast", [0.9, 1.0, 1.3], 1.1),
            ("slow", [1.0, 1.2, 1.3], 1.1),
            ("free", [2.0], None),
        )
    )

    def table(quick):
        given = record.circumstances(record.Settings(quick=quick))
        found = harness.Found(rows=rows, skipped="The rest is absent.")
        return record.table([record.measure("m", lambda: found, tmp_path, given, again=True)])

    real = table(False)
    assert "| m | fast | 1.000 (0.950 to 1.150) | ≤ 1.10 | yes |" in real
    assert "| m | slow | 1.200 (1.100 to 1.250) | ≤ 1.10 | no |" in real
    assert "| m | free | 2.000 | | |" in real
    assert "m: The rest is absent." in real
    quick = table(True)
    assert "| not judged |" in quick
    assert "| yes |" not in quick
    assert "figures mean nothing" in quick
    saved = json.loads((tmp_path / "m.json").read_text())
    assert saved["cpu"]
    assert saved["versions"]["jax"]
    assert saved["rows"][0]["ratio"]["minimum"] == 0.9
