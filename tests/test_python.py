"""Python as the first door: what docs/python.md says, and sentences for what cannot be."""

import re
from pathlib import Path

import chex
import jaxtyping
import numpy as np
import pytest
import tiny

import kind_jax as kj
from kind_jax.train.loop import train

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
SMALL = tiny.change(tiny.CONFIG, train={"steps": 3, "sample_every": 0})


def test_the_loop_of_the_page_trains_what_the_trainer_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kj, "preset", lambda name: SMALL, raising=False)
    own, code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(own.replace('"steps": 200', '"steps": 3'), "docs/python.md", "exec"), {})
    assert kj.open_bundle(tmp_path / "of_mine").class_names == ("even", "odd")
    exec(compile(code, "docs/python.md", "exec"), {})
    train(SMALL, tmp_path / "run")
    found, expected = kj.open_bundle(tmp_path / "mine"), kj.open_bundle(tmp_path / "run")
    chex.assert_trees_all_close(found.collections, expected.collections, rtol=1e-6, atol=1e-7)
    assert (found.step, found.weights, found.groups) == (expected.step, expected.weights, expected.groups)
    assert found.class_names == expected.class_names
    task = kj.task_of(SMALL)
    state = kj.first_state(task, tiny.weights(SMALL.model))
    with pytest.raises(kj.UserError, match=r"class_names is .*, but it must be 10 names"):
        kj.trained(task, state, ["one"])


def test_every_function_of_the_page_is_there():
    for name in re.findall(r"`kj\.(\w+)", PAGE):
        assert hasattr(kj, name), name


def test_models_go_to_other_programs_and_come_back(tmp_path):
    model = tiny.change(SMALL, model={"factor": {"projections": ()}, "label_embedding": True})
    bundle = kj.Bundle(
        config=model, collections=tiny.weights(model.model), groups=(), class_names=tuple("0123456789"),
        weights="ema", step=0, origin=tmp_path,
    )  # fmt: skip
    assert kj.export(bundle, tmp_path / "dit.safetensors", to="dit") == {"difference": 0.0}
    back = kj.convert(tmp_path / "dit.safetensors", "dit")
    chex.assert_trees_all_equal(back.collections["params"], bundle.collections["params"])


@pytest.fixture
def as_users_call(monkeypatch):
    """Without the checks of types that only tests have."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda path: kj.convert(path / "x.pt", "keras"),
            "origin is 'keras', but it must be one of 'dit'",
        ),
        (lambda path: kj.convert(path / "x.pt", "dit"), "x.pt"),
        (lambda path: kj.convert(path / "x.pt", "dit", size=3), "size is given, but a model of 'dit' has no such"),
        (lambda path: kj.export("art", path / "y", to="onnx"), "to is 'onnx', but it must be one of 'artifact'"),
        (lambda path: kj.export("art", path / "y", to="timm"), "bundle is 'art', but it must be a model"),
    ],
)
def test_what_cannot_be(tmp_path, call, sentence):
    with pytest.raises(kj.UserError, match=re.escape(sentence)):
        call(tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.usefixtures("as_users_call")
def test_a_notebook_shows_models_and_images(tmp_path):
    names = ("<b>", *"123456789")
    bundle = kj.Bundle(
        config=SMALL, collections=tiny.weights(SMALL.model), groups=tuple(range(10)), class_names=names, weights="ema",
        step=3, origin=tmp_path,
    )  # fmt: skip
    page = bundle._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<td style='text-align:left'>tailors</td>" in page
    assert kj.show(np.zeros((5, 8, 8, 1), np.float32), columns=4).size == (4 * 64 + 6, 2 * 64 + 2)
    assert kj.show(np.zeros((8, 8, 1), np.uint8)).size == (64, 64)
    with pytest.raises(kj.UserError, match=r"must be an array \[N, height, width, channels\]"):
        kj.show(np.zeros((8, 8)))
