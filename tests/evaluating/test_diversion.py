"""Conditions of the diversion measurement: what is switched on, and which class is wrong."""

import dataclasses

import numpy as np
import tiny

from kind_jax.evaluating import diversion

LABELS = np.arange(60, dtype=np.int32) % 6


def test_wrong_classes_belong_to_other_groups_and_take_turns():
    grouped = tiny.change(tiny.CONFIG, model={"num_classes": 6, "groups": (0, 0, 0, 1, 1, 2)})
    group = np.array(grouped.model.group_of_class)
    wrong = diversion.another_class(grouped, LABELS)
    assert np.all(group[wrong] != group[LABELS])
    for label in range(6):
        counts = np.bincount(wrong[label == LABELS], minlength=6)
        others = group != group[label]
        assert counts[others].max() - counts[others].min() <= 1
    single = tiny.change(tiny.CONFIG, model={"num_classes": 6})
    np.testing.assert_array_equal(diversion.another_class(single, LABELS)[:6], [1, 2, 3, 4, 5, 0])


def test_what_each_condition_switches_on():
    config = tiny.change(tiny.CONFIG, model={"num_classes": 6})
    for condition in diversion.CONDITIONS:
        embedded, gate = diversion.inputs(config, condition, LABELS)
        null = condition in ("tailors_only", "learngenes_only")
        np.testing.assert_array_equal(embedded, np.full_like(LABELS, 6) if null else LABELS)
        if condition in ("no_tailors", "learngenes_only"):
            assert float(np.abs(gate.weight).sum()) == 0
        else:
            right = gate.index[:, 0] == LABELS
            assert bool(np.all(gate.weight == 1))
            assert not np.any(right) if condition == "wrong_tailors" else np.all(right)


def test_conditions_that_say_nothing_are_left_out():
    plain = tiny.change(tiny.CONFIG, model={"label_embedding": False})
    assert list(diversion.conditions(plain)) == ["complete", "wrong_tailors", "learngenes_only"]
    alone = tiny.change(tiny.CONFIG, model={"num_classes": 2, "groups": (0, 0)})
    assert "wrong_tailors" not in diversion.conditions(alone)
    assert list(diversion.conditions(tiny.CONFIG)) == list(diversion.CONDITIONS)


def test_samples_are_drawn_without_guidance():
    guided = dataclasses.replace(tiny.CONFIG, sampler=dataclasses.replace(tiny.CONFIG.sampler, guidance=5.0))
    weights, labels = tiny.weights(tiny.CONFIG.model, 0.3), np.arange(4, dtype=np.int32)
    images = [diversion.draw(c, weights, "complete", labels, seed=0) for c in (tiny.CONFIG, guided)]
    np.testing.assert_array_equal(*images)
