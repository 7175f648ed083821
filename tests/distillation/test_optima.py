"""Distillation module by module: what each loss trains, and what a round does."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distillation import tiny_optima as tiny
from kind_jax import partition
from kind_jax.distillation import arms, inherit, rounds
from kind_jax.distillation.optima_config import ArmConfig, OptimaConfig
from kind_jax.errors import UserError
from kind_jax.losses import feature
from kind_jax.train import state as states
from kind_jax.train.step import make_step

MODULES = ("image", "text", "multimodal")
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def task():
    found, teacher = tiny.task_of(tiny.captions(tiny.coca()), tiny.coca(image=2, width=16))
    return found, teacher, tiny.begun(found)


@functools.cache
def _gradients(task):
    """Compiled once for all modules of a task: the one of the round is an argument."""
    batch = tiny.batch_of(task)

    def f(trained, others, teacher):
        return task.loss({**others, **trained}, task.draw(batch, KEY), teacher).value

    return jax.jit(jax.grad(f))


def gradient(task, weights, teacher):
    """Gradients of a batch's loss by path; of everything, frozen or not."""
    trained = {name: tree for name, tree in weights.items() if name != partition.MEMORY}
    found = _gradients(task)(trained, {name: tree for name, tree in weights.items() if name not in trained}, teacher)
    return {path: leaf for name, tree in found.items() for path, leaf in partition.flatten({name: tree}).items()}


def values_of(task, weights, teacher):
    return jax.jit(lambda w, t: task.values(w, task.draw(tiny.batch_of(task), KEY), t))(weights, teacher)


def loss_of(task, weights, teacher):
    """The loss of a batch and its parts."""
    found = jax.jit(lambda w, t: task.loss(w, task.draw(tiny.batch_of(task), KEY), t)[:2])
    return found(weights, teacher)


def norm(grads, beginning):
    found = [float(jnp.max(jnp.abs(leaf))) for path, leaf in grads.items() if path.startswith(beginning)]
    assert found, beginning
    return max(found)


def test_layers_meet_evenly_and_the_last_meets_the_last():
    assert arms.layer_map(12, 24) == tuple(range(1, 24, 2))
    assert arms.layer_map(6, 12) == tuple(range(1, 12, 2))
    assert arms.layer_map(5, 5) == tuple(range(5))
    for student in range(1, 8):
        for teacher in range(student, 12):
            found = arms.layer_map(student, teacher)
            assert found[-1] == teacher - 1
            assert all(a < b for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("plain", "network"),
    [
        (tiny.captions(tiny.coca()), tiny.coca()),
        (tiny.classifier(tiny.vit(1)), tiny.vit(1)),
        (tiny.generator(tiny.dit(1)), tiny.dit(1)),
    ],
    ids=["captions", "classifier", "generator"],
)
def test_a_copy_of_its_teacher_has_nothing_to_learn(plain, network):
    task, teacher = tiny.task_of(plain, network, label=0.0, projection="identity", layer=2.0)
    weights = {**tiny.begun(task), **teacher}
    values = values_of(task, weights, teacher)
    np.testing.assert_allclose(values[1:], 0, atol=1e-9)
    for leaf in gradient(task, weights, teacher).values():
        np.testing.assert_allclose(leaf, 0, atol=1e-5)
    arm = jnp.int32(0)
    assert float(rounds.reward(task.config.optima, values, values, arm)) == 0


def test_only_the_projector_of_the_round_is_trained(task):
    found, teacher, weights = task
    for i, name in enumerate(MODULES):
        grads = gradient(found, tiny.with_arm(weights, i), teacher)
        for other in MODULES:
            size = norm(grads, f"projectors/{other}/")
            assert size > 0 if other == name else size == 0, (name, other)


@pytest.mark.slow
def test_what_a_module_trains(task):
    """Its loss alone: everything that leads to its states, or its own leaves."""
    alone = tiny.replaced(task[0], label=0.0, prediction=0.0)
    teacher, weights = task[1:]
    everything = {i: gradient(alone, tiny.with_arm(weights, i), teacher) for i in range(3)}
    assert norm(everything[2], "params/image/") > 0  # captions see the image
    assert norm(everything[2], "params/text/") > 0
    assert norm(everything[1], "params/image/") == 0  # words alone do not
    assert norm(everything[0], "params/text/") == norm(everything[0], "params/multimodal/") == 0
    inside = tiny.replaced(alone, scope="module")
    for i, name in enumerate(MODULES):
        grads = gradient(inside, tiny.with_arm(weights, i), teacher)
        for other in MODULES:
            size = norm(grads, f"params/{other}/")
            assert size > 0 if other == name else size == 0, (name, other)
        for path in grads:  # of its own leaves the gradient is the same
            if path.startswith(f"params/{name}/"):
                chex.assert_trees_all_close(grads[path], everything[i][path], atol=1e-6)


def test_a_loss_is_that_of_its_parts(task):
    found, teacher, weights = task
    loss, parts = loss_of(found, tiny.with_arm(weights, 2), teacher)
    want = parts["own"] + parts["prediction"] + parts["layers_multimodal"]
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    plain = tiny.replaced(found, policy="all")
    everything, _ = loss_of(plain, weights, teacher)
    want = parts["own"] + parts["prediction"] + sum(parts[f"layers_{name}"] for name in MODULES)
    np.testing.assert_allclose(everything, want, rtol=1e-6)
    probe = rounds.weighted(found.config.optima, values_of(found, weights, teacher))
    np.testing.assert_allclose(everything, probe, rtol=1e-6)


def test_padding_has_no_influence_on_a_module():
    arm = arms.Arm("text", "text", (0,), (0,), (3, 3))
    rng = np.random.default_rng(0)
    mine, theirs = (rng.standard_normal((1, 2, 4, 3)).astype(np.float32) for _ in range(2))
    valid = jnp.asarray([[True, True, False, True], [True, True, True, True]])
    found = arms.loss(arm, None, {"text": jnp.asarray(mine)}, {"text": jnp.asarray(theirs)}, {"text": valid})
    mine[0, 0, 2] = np.nan
    again = arms.loss(arm, None, {"text": jnp.asarray(mine)}, {"text": jnp.asarray(theirs)}, {"text": valid})
    assert float(found) == float(again)
    whole = arms.loss(arm, None, {"text": jnp.asarray(theirs + 1)}, {"text": jnp.asarray(theirs)}, {})
    np.testing.assert_allclose(whole, 1, rtol=1e-6)
    half = jnp.mean(optax.l2_loss(jnp.asarray(theirs + 1), jnp.asarray(theirs)))
    np.testing.assert_allclose(whole, 2 * half, rtol=1e-6)
    np.testing.assert_allclose(feature(jnp.asarray(theirs), jnp.asarray(theirs)), 0)


@pytest.mark.slow
def test_one_module_alone_is_the_fixed_one():
    """With a single arm no policy has a choice, and the run is the same step for step."""
    alone = (ArmConfig(name="tower", states="mlp", leaves="params/blocks/.*"),)
    losses = {}
    for policy in ("thompson", "fixed:tower", "all"):
        task, teacher = tiny.task_of(tiny.classifier(tiny.vit(1)), tiny.vit(2, 16), arms=alone, policy=policy, round=2)
        step, state = jax.jit(make_step(task)), states.start(task, tiny.begun(task))
        for i in range(4):
            if task.control is not None and i % 2 == 0:
                moved, _ = task.control.turn(state.collections, tiny.batch_of(task, 9), teacher)
                state = state._replace(collections=state.collections | moved)
            state, metrics = step(state, tiny.batch_of(task, i), teacher)
            losses.setdefault(policy, []).append(float(metrics["loss"]))
        assert step._cache_size() == 1
    assert losses["thompson"] == losses["fixed:tower"] == losses["all"]


def test_a_turn_rewards_and_chooses(task):
    found, teacher, weights = task
    turn = jax.jit(found.control.turn)
    probe = tiny.batch_of(found, 5)
    moved, figures = turn(weights, probe, teacher)
    assert np.isnan(float(figures["reward"]))
    assert int(figures["arm"]) == 0  # each module once, in turn
    again, second = turn(weights | moved, probe, teacher)
    assert float(second["reward"]) == 0  # nothing was trained meanwhile
    assert int(second["arm"]) == 1
    assert int(again["memory"]["rounds"]["count"]) == 2
    np.testing.assert_allclose(again["memory"]["rounds"]["bandit"]["pulls"], [1, 0, 0])
    assert turn._cache_size() == 1


@pytest.mark.parametrize("loss", ["full", "task", "modules", "self"])
def test_rewards(loss):
    settings = OptimaConfig(reward_loss=loss, layer=2.0)
    before, after = np.asarray([4.0, 1.0, 2.0, 8.0], np.float32), np.asarray([3.0, 1.0, 1.0, 6.0], np.float32)
    want = {"full": (25 - 18) / 25, "task": 1 / 4, "modules": (1 / 2 + 1 / 4) / 2, "self": 1 / 4}[loss]
    found = rounds.reward(settings, jnp.asarray(before), jnp.asarray(after), jnp.int32(1))
    np.testing.assert_allclose(found, want, rtol=1e-6)
    scaled = rounds.reward(settings, jnp.asarray(7 * before), jnp.asarray(7 * after), jnp.int32(1))
    np.testing.assert_allclose(scaled, want, rtol=1e-6)
    nothing = rounds.reward(settings, jnp.zeros(4), jnp.zeros(4), jnp.int32(1))
    assert float(nothing) == 0


def test_a_student_begins_with_its_teachers_layers():
    task, teacher = tiny.task_of(tiny.classifier(tiny.vit(2)), tiny.vit(4))
    found = inherit.layers(task.student.init(), jax.tree.map(np.asarray, teacher))
    theirs = teacher["params"]["blocks"]["mlp_in"]["kernel"]
    np.testing.assert_array_equal(found["params"]["blocks"]["mlp_in"]["kernel"], theirs[np.asarray([1, 3])])
    np.testing.assert_array_equal(found["params"]["head"]["kernel"], teacher["params"]["head"]["kernel"])
    wide, other = tiny.task_of(tiny.classifier(tiny.vit(2)), tiny.vit(4, 16))
    with pytest.raises(UserError, match=r"optima.init is 'teacher'.*must be 'random' for a student of another width"):
        inherit.layers(wide.student.init(), jax.tree.map(np.asarray, other))


def test_groups_of_blocks_are_modules():
    """Halves of a stack: each has the states and, within one stacked leaf, the rows of its own blocks."""
    halves = tuple(
        ArmConfig(name=name, states="mlp", leaves="params/blocks/.*", blocks=blocks)
        for name, blocks in (("lower", (0, 1)), ("upper", (1, 2)))
    )
    settings = {"arms": halves, "label": 0.0, "prediction": 0.0, "scope": "module"}
    task, teacher = tiny.task_of(tiny.classifier(tiny.vit(2)), tiny.vit(4), **settings)
    assert [arm.teacher for arm in task.arms] == [(1,), (3,)]
    weights = tiny.begun(task)
    for own, other, arm in ((0, 1, 0), (1, 0, 1)):
        kernel = gradient(task, tiny.with_arm(weights, arm), teacher)["params/blocks/mlp_in/kernel"]
        assert float(jnp.max(jnp.abs(kernel[own]))) > 0
        assert float(jnp.max(jnp.abs(kernel[other]))) == 0


@pytest.mark.slow
def test_a_generator_with_a_bank_is_distilled():
    """Steps that take rows of tailors out of the bank, beside a teacher with a bank of its own."""
    plain = tiny.generator(tiny.dit(1, groups=12))
    task, teacher = tiny.task_of(plain, tiny.dit(2, groups=12), policy="thompson")
    assert task.names == ("attention", "mlp", "adaln")
    assert task.bank.taken == tiny.BATCH
    state, step = states.start(task, tiny.begun(task)), jax.jit(make_step(task))
    moved, _ = task.control.turn(state.collections, tiny.batch_of(task, 9), teacher)
    state, first = step(state._replace(collections=state.collections | moved), tiny.batch_of(task), teacher)
    for _ in range(20):
        state, metrics = step(state, tiny.batch_of(task), teacher)
    assert float(metrics["layers_attention"]) < float(first["layers_attention"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"arms": (ArmConfig(name="a", states="mlp", leaves="params/nothing/.*"),)}, "match no leaf"),
        ({"arms": (ArmConfig(name="a", states="image", leaves="params/blocks/.*"),)}, "there are attention, mlp"),
        (
            {
                "arms": (
                    ArmConfig(name="a", states="mlp", leaves="params/blocks/.*"),
                    ArmConfig(name="b", states="mlp", leaves="params/blocks/mlp_in/.*"),
                )
            },
            "in a and b, but a leaf is in one module at most",
        ),
        ({"arms": (ArmConfig(name="a", states="mlp", leaves="params/blocks/.*", blocks=(0, 3)),)}, "but there are 2"),
    ],
)
def test_modules_that_fit_nothing_are_refused(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        _ = tiny.task_of(tiny.classifier(tiny.vit(2)), tiny.vit(4), **changes)[0].arms


def test_a_student_deeper_than_its_teacher_is_refused():
    with pytest.raises(UserError, match=r"has 3 blocks .* at most as many as its teacher, 2"):
        _ = tiny.task_of(tiny.classifier(tiny.vit(3)), tiny.vit(2))[0].arms
    with pytest.raises(UserError, match=r"projection is 'identity'.* 8 features.* 16"):
        _ = tiny.task_of(tiny.classifier(tiny.vit(1)), tiny.vit(2, 16), projection="identity")[0].arms


@pytest.mark.parametrize(
    ("setting", "value"),
    [("gamma", 1.01), ("gamma", -0.1), ("round", 0), ("policy", "best"), ("kappa", 0.0), ("probe", 0), ("tau", -1.0)],
)
def test_impossible_settings_are_refused(setting, value):
    with pytest.raises(UserError, match=f"optima.{setting} is {value!r}, but it must be"):
        OptimaConfig(**{setting: value})
    with pytest.raises(UserError, match=r"optima.policy is 'fixed:nose'.* attention, mlp"):
        tiny.task_of(tiny.classifier(tiny.vit(1)), tiny.vit(2), policy="fixed:nose")
