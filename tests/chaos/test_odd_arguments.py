"""Public functions answer odd arguments with a sentence."""

import jaxtyping
import pytest
import tiny

import kind_jax as kj
from chaos import fuzz, python

# What takes nothing, or what other functions of this package gave, and is called inside of traced functions.
_INSIDE = {"apply", "join", "learngenes_only", "presets", "split", "trained"}


def test_odd_arguments_of_public_functions(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users call
    whole = fuzz.make_run(tiny.change(tiny.CONFIG, train={"steps": 1}), tmp_path / "whole")
    place = tmp_path / "place"
    place.mkdir()
    functions = {name for name in kj.__all__ if callable(getattr(kj, name)) and not isinstance(getattr(kj, name), type)}
    called = {name.partition(" ")[0] for name in python.calls(place, whole.directory, whole.artifact)}
    assert functions - _INSIDE == called - {"sample", "gate"}
    before = fuzz.listing(whole.artifact)
    outcome = python.fuzz_python(place, whole.directory, whole.artifact, cases=400, seed=3)
    assert outcome.failures == ()
    assert outcome.figures["refused"] > 200
    assert fuzz.listing(whole.artifact) == before


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_more_odd_arguments(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    whole = fuzz.make_run(tiny.change(tiny.CONFIG, train={"steps": 1}), tmp_path / "whole")
    (tmp_path / "place").mkdir()
    outcome = python.fuzz_python(tmp_path / "place", whole.directory, whole.artifact, cases=2000, seed=seed)
    assert outcome.failures == ()
