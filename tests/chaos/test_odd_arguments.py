"""Public functions answer odd arguments with a sentence."""

import jaxtyping
import pytest
import tiny

import kind_jax as kj
from chaos import fuzz, python

# What takes configs, states, arrays and gates of this package, whose types say what they take.
_INSIDE = {
    "all_groups", "apply", "batches", "change", "class_gate", "classify", "concatenate", "first_state", "init", "join",
    "learngenes_only", "make_step", "mixture", "one_group", "open_dataset", "presets", "select", "split", "task_of",
    "trained", "transplant",
}  # fmt: skip


def test_odd_arguments_of_public_functions(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users call
    whole = fuzz.make_run(tiny.change(tiny.CONFIG, train={"steps": 1}), tmp_path / "whole")
    place = tmp_path / "place"
    place.mkdir()
    functions = {name for name in kj.__all__ if callable(getattr(kj, name)) and not isinstance(getattr(kj, name), type)}
    called = set(python.calls(place, whole.directory, whole.artifact))
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
