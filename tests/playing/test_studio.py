"""What is shown for which controls, and how often a sampler is compiled for it."""

import dataclasses

import numpy as np
import pytest
import tiny
from models import BUNDLE, CONFIG, NAMES, START, bundle_of, judge_of, moved

from kind_jax import compose, sampling
from kind_jax.errors import UserError
from kind_jax.playing import sizes
from kind_jax.playing.batch import ALONE, MIXED, batch_of
from kind_jax.playing.controls import Controls
from kind_jax.playing.judging import in_words, seen
from kind_jax.playing.studio import Studio


@pytest.fixture(scope="module")
def studio():
    return Studio(BUNDLE, judge=judge_of())


def test_a_page_shows_the_mixture_and_each_class_alone(studio):
    controls = moved(classes=(1, 4), weights=(0.5, 1.0), seed=3)
    shown = studio.show(controls)
    mixed, *alone = shown.strips
    assert [s.title for s in shown.strips] == [
        "Mixture of one at 0.5, ${big}, {{red}} at 1", "one alone, tailors at 0.5", "${big}, {{red}} alone"
    ]  # fmt: skip
    assert (len(mixed.images), [len(s.images) for s in alone]) == (MIXED, [ALONE // 2, ALONE // 2])
    gate = BUNDLE.gate([{1: 0.5, 4: 1.0}] * MIXED + [{1: 0.5}] * (ALONE // 2) + [{4: 1.0}] * (ALONE // 2))
    labels = [4] * MIXED + [1] * (ALONE // 2) + [4] * (ALONE // 2)
    drawn = BUNDLE.sample(labels, seed=3, gate=gate)
    np.testing.assert_allclose(np.concatenate([s.images for s in shown.strips]), drawn, atol=1e-6)
    classes = seen(studio.judge, drawn)
    right = int(np.sum(classes[MIXED:] == labels[MIXED:]))
    assert (shown.accuracy.right, shown.accuracy.count) == (right, ALONE)
    assert mixed.remark == in_words(classes[:MIXED], NAMES)
    assert shown.figures.parameters[0] == compose(BUNDLE, classes=[1, 4]).before.parameters


def test_moving_controls_compiles_nothing(studio):
    sampling.draw_batch.clear_cache()
    pictures = set()
    for controls in (
        START,
        moved(weights=(0.3, 1.0)),
        moved(weights=(0.0, 0.0)),
        moved(seed=1),
        moved(classes=(2, 3)),
        moved(learngenes_only=True),
    ):
        pictures.add(studio.show(controls).strips[0].images[:MIXED].tobytes())
    assert sampling.draw_batch._cache_size() == 1
    assert len(pictures) == 5  # weights of zero are learngenes only
    for scale in (1.5, 2.0, 7.0):
        studio.show(moved(guidance=scale))
    assert sampling.draw_batch._cache_size() == 2
    for classes in ((0, 1, 2), (1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3, 4)):
        studio.show(moved(classes=classes, weights=(1.0,) * len(classes)))
    assert sampling.draw_batch._cache_size() == 3


def test_a_model_of_each_size_is_composed_and_compiled_once(monkeypatch):
    composed, real = [], sizes.compose
    monkeypatch.setattr(sizes, "compose", lambda *a, **k: composed.append(k["max_params"]) or real(*a, **k))
    studio = Studio(BUNDLE)
    whole = studio.show(START).figures
    assert composed == [None]
    small = studio.show(moved(share=0.5))
    before = sampling.draw_batch._cache_size()
    assert small.figures.parameters[0] == whole.parameters[0] == whole.parameters[1]
    assert small.figures.parameters[1] <= composed[-1] < whole.parameters[1]
    assert small.figures.components[0] < small.figures.components[1]
    assert small.figures.bytes[1] == 4 * small.figures.parameters[1]
    for weights in ((0.5, 1.0), (1.0, 0.0)):
        again = studio.show(moved(share=0.5, weights=weights))
        assert np.any(again.strips[0].images != small.strips[0].images)
    assert (len(composed), sampling.draw_batch._cache_size()) == (2, before)
    least = studio.show(moved(share=0.0)).figures.parameters[1]
    assert studio.show(moved(max_params=least)).figures.parameters[1] == least
    with pytest.raises(UserError, match=rf"max_params is {least - 1}, but it must be {least} or more"):
        studio.show(moved(max_params=least - 1))


def test_learngenes_only(studio):
    shown = studio.show(moved(learngenes_only=True))
    (strip,) = shown.strips
    assert (strip.title, len(strip.images), shown.accuracy) == ("Learngenes only, all tailors off", MIXED + ALONE, None)
    drawn = BUNDLE.sample([0] * 32 + [1] * 16, seed=0, gate=BUNDLE.gate({}))
    np.testing.assert_allclose(strip.images, drawn, atol=1e-6)
    assert strip.remark.startswith("the judge sees ")


def test_one_class_within_a_budget_has_no_gate():
    studio = Studio(bundle_of(tiny.change(CONFIG, model={"label_embedding": False})))
    one = moved(classes=(2,), weights=(0.5,))
    assert [s.title for s in studio.show(one).strips] == ["Mixture of two at 0.5", "two alone, tailors at 0.5"]
    small = studio.show(dataclasses.replace(one, share=0.4, learngenes_only=True))
    assert [s.title for s in small.strips] == ["two alone"]
    assert small.strips[0].large
    assert "folded" in small.notes[0]
    with pytest.raises(UserError, match=r"guidance is 2\.0, but it must be 1"):
        studio.show(dataclasses.replace(one, share=0.4, guidance=2.0))


def test_a_model_without_tailors():
    dense = tiny.change(CONFIG, model={"factor": {"projections": ()}, "groups": None, "label_embedding": True})
    shown = Studio(bundle_of(dense)).show(moved(learngenes_only=True))
    assert [s.title for s in shown.strips] == ["zero alone", "one alone"]
    assert shown.notes == ("This model has no tailors that can be switched off.",)
    assert shown.figures.components is None


def test_the_batch_has_one_shape():
    for classes in ((0,), (0, 1), (3, 4), (0, 2, 4), (0, 1, 2, 3, 4)):
        batch = batch_of(BUNDLE, Controls(classes=classes, weights=(1.0,) * len(classes)))
        width = {1: 1, 2: 2, 3: 4, 5: 4}[len(classes)] if classes != (3, 4) else 1
        assert batch.gate.index.shape == (MIXED + ALONE, width)
        assert [batch.labels[rows].tolist() for rows in batch.alone.values()] == [
            [c] * (ALONE // len(classes)) for c in classes
        ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ()}, "the number of chosen classes is 0, but it must be between 1 and 10"),
        ({"classes": tuple(range(11))}, "the number of chosen classes is 11"),
        ({"weights": (1.0,)}, "the number of weights is 1, but it must be 2"),
        ({"weights": (1.0, float("nan"))}, "a weight is nan, but it must be a finite number"),
        ({"share": 1.5}, r"share is 1\.5, but it must be between 0 and 1"),
        ({"max_params": 0}, "max_params is 0, but it must be a whole number, 1 or more"),
        ({"seed": -1}, "seed is -1, but it must be a whole number between"),
    ],
)
def test_controls_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        moved(**changes)


def test_what_a_model_refuses(studio):
    with pytest.raises(UserError, match="class is 7, but it must be between 0 and 4"):
        studio.show(moved(classes=(0, 7)))
    with pytest.raises(UserError, match=r"sampler\.steps is 0"):
        studio.show(moved(steps=0))
