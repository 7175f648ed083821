"""The training step: what moves, what stays, and that neither devices nor micro-batches change it."""

import functools
import itertools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from kind_jax.config import CollectionConfig, MeshConfig
from kind_jax.diffusing import task as diffusing
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import rows, sharding, state, step
from kind_jax.train.task import Bank

BATCH = {
    "image": np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 1)).astype(np.float32),
    "label": np.array([1, 3, 1, 3, 5, 5, 1, 3], np.int32),
}
ABSENT = (0, 2, 4, 6, 7, 8, 9)


def start(config):
    return jax.jit(state.start, static_argnums=0)(task_of(config), tiny.weights(config.model))


@functools.lru_cache
def compiled(config):
    return jax.jit(step.make_step(task_of(config)))


def run(config, steps=3, batch=BATCH):
    current, f = start(config), compiled(config)
    for _ in range(steps):
        current, metrics = f(current, batch)
    return current, metrics


def test_the_step_compiles_once_and_learns():
    config = tiny.change(tiny.CONFIG, train={"null": 0.0}, optimizer={"learning_rate": 5e-3})
    draws = jax.jit(step.draw, static_argnums=0)(task_of(config), BATCH, jnp.asarray(10_000))
    loss = jax.jit(lambda c: task_of(config).loss(c, draws).value)
    f = jax.jit(chex.assert_max_traces(step.make_step(task_of(config)), 1), donate_argnums=0)
    current = start(config)
    before = loss(current.collections)
    for _ in range(60):
        current, _ = f(current, BATCH)
    assert int(current.step) == 60
    assert loss(current.collections) < 0.8 * before


def frozen_and_clipped(frozen):
    return tiny.change(tiny.CONFIG, optimizer={frozen: CollectionConfig(freeze=True), "clip": 1e-3})


@pytest.mark.parametrize("frozen", ["learngenes", pytest.param("params", marks=pytest.mark.slow)])
def test_a_frozen_collection_stays_bit_identical_and_has_no_moments(frozen):
    config = frozen_and_clipped(frozen)
    before = start(config)
    after, metrics = run(config)
    chex.assert_trees_all_equal(after.collections[frozen], before.collections[frozen])
    for name in {"learngenes", "tailors", "params"} - {frozen}:
        with pytest.raises(AssertionError):
            chex.assert_trees_all_equal(after.collections[name], before.collections[name])
    assert frozen not in after.ema
    size = {name: sum(a.size for a in jax.tree.leaves(c)) for name, c in after.collections.items()}
    moments = sum(a.size for a in jax.tree.leaves(after.opt) if a.ndim and a.dtype == jnp.float32)
    assert moments == 2 * (sum(size.values()) - size[frozen])
    assert np.isfinite(metrics["grad_norm"])


def test_collections_have_their_own_learning_rate_and_decay():
    changes = {"tailors": CollectionConfig(learning_rate=0.0), "learngenes": CollectionConfig(weight_decay=0.5)}
    changed = tiny.change(tiny.CONFIG, optimizer=changes)
    before, plain, shrunk = jax.device_get((start(changed), run(tiny.CONFIG, 1)[0], run(changed, 1)[0]))
    chex.assert_trees_all_equal(shrunk.collections["tailors"], before.collections["tailors"])
    rate = tiny.CONFIG.optimizer.learning_rate
    expected = jax.tree.map(
        lambda p, w: p - rate * 0.5 * w, plain.collections["learngenes"], before.collections["learngenes"]
    )
    chex.assert_trees_all_close(shrunk.collections["learngenes"], expected, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(shrunk.collections["params"], plain.collections["params"], rtol=1e-6, atol=1e-8)


def test_lazy_tailors_of_absent_classes_do_not_move():
    """After class 0 was trained, batches without it move its tailors under plain Adam, but not under lazy Adam."""
    first = {**BATCH, "label": np.array([0, 3, 1, 3, 5, 5, 1, 3], np.int32)}
    for lazy in (False, True):
        optimizer = {"lazy_tailors": lazy, "tailors": CollectionConfig(weight_decay=0.1)}
        config = tiny.change(tiny.CONFIG, train={"null": 0.0}, optimizer=optimizer)
        f = compiled(config)
        once, _ = f(start(config), first)
        later, _ = f(f(once, BATCH)[0], BATCH)
        for path, was in jax.tree_util.tree_leaves_with_path(once.collections["tailors"]):
            now = later.collections["tailors"]
            for key in path:
                now = now[key.key]
            assert np.array_equal(now[0], was[0]) == lazy
            assert not np.array_equal(now[1], was[1])
        if lazy:
            fresh = start(config)
            for a, b in zip(
                *map(jax.tree.leaves, (later.collections["tailors"], fresh.collections["tailors"])), strict=True
            ):
                np.testing.assert_array_equal(a[np.array([2, 4, 6])], b[np.array([2, 4, 6])])


def test_lazy_adam_is_adam_where_every_group_is_present():
    # A large eps keeps Adam from turning rounding noise of vanishing gradients into full steps.
    config = tiny.change(tiny.CONFIG, train={"null": 0.0, "batch": 20}, optimizer={"eps": 1e-3})
    everyone = {"image": np.tile(BATCH["image"], (3, 1, 1, 1))[:20], "label": np.arange(20, dtype=np.int32) % 10}
    lazy = tiny.change(config, optimizer={"lazy_tailors": True})
    chex.assert_trees_all_close(
        run(lazy, 3, everyone)[0].collections, run(config, 3, everyone)[0].collections, rtol=1e-4, atol=1e-5
    )


def test_a_step_that_is_not_finite_changes_no_weight_and_no_moment():
    """One is skipped, the second in a row stops the run for good, whatever comes after."""
    config = tiny.change(tiny.CONFIG, train={"skip_nonfinite": 1})
    good = jax.tree.map(jnp.asarray, BATCH)
    bad = good | {"image": good["image"].at[0].set(jnp.nan)}
    run = jax.jit(step.make_step(task_of(config)))
    state, _ = run(start(config), good)
    held, metrics = run(state, bad)
    assert (int(held.step), int(metrics["nonfinite_steps"])) == (2, 1)
    chex.assert_trees_all_equal((held.collections, held.opt), (state.collections, state.opt))
    again, _ = run(held, good)
    assert [int(x) for x in (again.step, again.health.row, again.health.skipped)] == [3, 0, 1]
    stopped, _ = run(held, bad)
    later, metrics = run(stopped, good)
    chex.assert_trees_all_equal(later, stopped)
    assert [int(x) for x in (later.step, later.health.row, later.health.skipped)] == [2, 2, 2]
    assert int(metrics["nonfinite_row"]) == 2


def test_micro_batches_do_not_change_the_gradient():
    draws = step.draw(task_of(tiny.CONFIG), jax.tree.map(jnp.asarray, BATCH), jnp.zeros((), jnp.int32))
    weights = start(tiny.CONFIG).collections
    whole, _ = jax.jit(step.gradients, static_argnums=0)(task_of(tiny.CONFIG), weights, draws, {})
    parts, _ = jax.jit(step.gradients, static_argnums=0)(
        task_of(tiny.change(tiny.CONFIG, train={"accumulate": 4})), weights, draws, {}
    )
    chex.assert_trees_all_close(parts, whole, rtol=1e-4, atol=1e-6)


# Every mesh of 2, 4 and 8 devices, most of them only in `make test-all`; 41 groups are divided by no axis.
CLASSES = {(1, 8, 1): 41, (2, 2, 2): 41}
MESHES = [
    pytest.param(shape, CLASSES.get(shape, 40), id=str(shape), marks=() if shape == (2, 2, 2) else pytest.mark.slow)
    for shape in itertools.product((1, 2, 4, 8), repeat=3)
    if np.prod(shape) in (2, 4, 8)
]


@pytest.mark.parametrize(("shape", "classes"), MESHES)
def test_the_mesh_does_not_change_the_result(shape, classes):
    """On 2, 4 and 8 devices; with a bank that is stepped by rows, spread over `fsdp` by group or (41) by feature."""
    # A large eps keeps Adam from turning rounding noise of vanishing gradients into full steps.
    config = tiny.change(
        tiny.CONFIG,
        mesh=MeshConfig(**dict(zip(sharding.AXES, shape, strict=True))),
        model={"factor": {"learngenes": 8}, "num_classes": classes},
        optimizer={"eps": 1e-3},
    )
    mesh = sharding.make_mesh(config.mesh, jax.devices()[: np.prod(shape)])
    where = sharding.shard_like(state.abstract(task_of(config)), mesh)
    current = jax.jit(lambda c: state.start(task_of(config), c), out_shardings=where)(
        jax.device_put(tiny.weights(config.model), where.collections)
    )
    batch = jax.device_put(BATCH, sharding.batch_sharding(mesh))
    f = jax.jit(step.make_step(task_of(config)), donate_argnums=0, out_shardings=(where, sharding.replicated(mesh)))
    program = f.lower(current, batch).compile()

    # What the compiled program holds on a device: every array of weights, averages and moments is split as promised.
    data, fsdp, tensor = shape
    expected = sum(a.nbytes for a in batch.values()) // (data * fsdp)
    for path, leaf in jax.tree_util.tree_leaves_with_path(current):
        text, ways = jax.tree_util.keystr(path), 1
        name = text.split("'")[-2] if "'" in text else ""
        if name.endswith("_t"):
            ways = fsdp if classes % fsdp == 0 or name != "s_t" else 1
        elif "learngenes" in text and leaf.ndim > 1:
            ways = tensor if text.endswith("['s']") else fsdp * tensor
        elif "kernel" in text and leaf.shape[0 if "blocks" not in text else 1] % fsdp == 0:
            ways = fsdp
        expected += leaf.nbytes // ways
    analysis = program.memory_analysis()
    assert analysis.argument_size_in_bytes == pytest.approx(expected, rel=1e-3)
    assert analysis.alias_size_in_bytes >= 0.99 * (expected - sum(a.nbytes for a in batch.values()))  # donated
    # No device ever sees the whole bank: what is gathered are the rows in use.
    if fsdp > 1:
        assert not re.search(r"= f32\[40,\S* all-(gather|reduce)", program.as_text())

    with jax.transfer_guard("disallow"):
        for _ in range(2):
            current, metrics = program(current, batch)
    single, one_device = run(tiny.change(config, mesh=MeshConfig()), 2)
    np.testing.assert_allclose(metrics["loss"], one_device["loss"], rtol=1e-5)
    chex.assert_trees_all_close(jax.device_get(current.ema), jax.device_get(single.ema), rtol=1e-3, atol=1e-5)
    u = current.collections["learngenes"]["blocks"]["mlp_out"]["u"]
    moments = [a for a in jax.tree.leaves(current.opt) if a.shape == u.shape]
    assert moments
    assert all(m.sharding.is_equivalent_to(u.sharding, u.ndim) for m in moments)


def test_meshes_and_batches_that_do_not_fit():
    with pytest.raises(UserError, match="axes must multiply to the number of devices, which is 8"):
        sharding.make_mesh(MeshConfig(data=3, fsdp=1, tensor=1))
    with pytest.raises(UserError, match=r"train.batch is 12 in 1 micro-batches.*multiple of the 8"):
        sharding.check_batch(12, 1, sharding.make_mesh(MeshConfig()))
    with pytest.raises(UserError, match="no sharding rule covers 'params/strange'"):
        sharding.spec("params/strange", (4,), sharding.make_mesh(MeshConfig()))


def test_the_average_starts_as_a_copy_and_follows():
    before, after = jax.device_get((start(tiny.CONFIG), run(tiny.CONFIG, 1)[0]))
    decay = 2 / 11  # (1 + step) / (10 + step), far below the configured decay in the first step
    expected = jax.tree.map(lambda e, w: decay * e + (1 - decay) * w, before.ema, after.collections)
    chex.assert_trees_all_close(after.ema, expected, rtol=1e-5, atol=1e-7)


def test_null_samples_and_embedding_dropout():
    batch = jax.tree.map(
        jnp.asarray, {"image": np.zeros((4000, 1, 1, 1), np.float32), "label": np.zeros(4000, np.int32)}
    )
    config = tiny.change(tiny.CONFIG, train={"null": 0.2, "embedding_dropout": 0.5})
    draws = step.draw(task_of(config), batch, jnp.zeros((), jnp.int32))
    assert abs(float(draws.null.mean()) - 0.2) < 0.03
    assert abs(float(draws.no_embedding.mean()) - 0.6) < 0.03  # 0.2 + 0.8 * 0.5
    assert bool(jnp.all(draws.no_embedding | ~draws.null))
    other = step.draw(task_of(config), batch, jnp.ones((), jnp.int32))
    assert not np.array_equal(draws.noise, other.noise)


def test_gradient_clipping_bounds_what_adam_sees():
    after, metrics = run(frozen_and_clipped("learngenes"), 1)
    assert metrics["grad_norm"] > 1e-3  # the metric is the norm before clipping
    mu = [
        m for p, m in jax.tree_util.tree_leaves_with_path(after.opt) if any(getattr(k, "name", "") == "mu" for k in p)
    ]
    norm = np.sqrt(sum(np.sum(np.square(m)) for m in jax.device_get(mu)))
    np.testing.assert_allclose(norm, 0.1 * 1e-3, rtol=1e-4)  # (1 - b1) * clip


@pytest.mark.parametrize(
    ("null_gate", "accumulate"), [pytest.param("learngenes", 1, marks=pytest.mark.slow), ("keep", 2)]
)
def test_a_large_bank_is_stepped_by_the_rows_in_use(null_gate, accumulate, monkeypatch):
    """Taking rows out and putting them back is exactly lazy Adam, and the plain moving average, of the whole bank."""
    config = tiny.change(
        tiny.CONFIG,
        model={"num_classes": 40, "null_gate": null_gate},
        optimizer={"eps": 1e-3, "clip": 0.1, "tailors": CollectionConfig(weight_decay=0.1)},
        train={"null": 0.3, "accumulate": accumulate, "ema": 0.8},  # 0.8 is reached by (1 + n) / (10 + n) at step 35
    )
    labels = np.random.default_rng(0).integers(0, 40, (60, 8)).astype(np.int32)

    def trained():
        f = jax.jit(step.make_step(task_of(config)), donate_argnums=0)
        # Compiled anew each time: the bank is another below.
        current = jax.jit(lambda weights: state.start(task_of(config), weights))(tiny.weights(config.model))
        for row in labels:
            current, metrics = f(current, {**BATCH, "label": row})
        return state.averaged(config, current), current, metrics

    assert task_of(config).bank.taken == 8
    average, few, metrics = trained()
    assert few.averaged is not None
    assert len(set(np.asarray(few.averaged))) > 5
    monkeypatch.setattr(diffusing, "_bank", lambda config: Bank(config.model.num_groups, None))
    dense, whole, expected = trained()
    assert whole.averaged is None
    chex.assert_trees_all_close(few.collections, whole.collections, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(few.opt, whole.opt, rtol=1e-3, atol=1e-6)
    chex.assert_trees_all_close(average, dense, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], expected["grad_norm"], rtol=1e-3)


def test_a_step_costs_no_more_flops_with_more_classes():
    def flops(classes):
        config = tiny.change(tiny.CONFIG, model={"num_classes": classes, "label_embedding": False})
        lowered = jax.jit(step.make_step(task_of(config))).lower(state.abstract(task_of(config)), BATCH)
        return lowered.cost_analysis()["flops"]

    assert flops(4000) < 1.1 * flops(40)


@pytest.mark.parametrize("ema", [0.0, 0.1, 0.5, 0.9, 0.999, 1 - 1e-12])
def test_the_decay_over_many_steps_has_a_closed_form(ema):
    steps = np.arange(1, 60)
    one_by_one = np.minimum(ema, (1 + steps) / (10 + steps))
    for after, until in ((0, 0), (0, 1), (3, 20), (0, 59), (30, 59), (59, 59)):
        found = rows.decay_between(ema, jnp.asarray(after), jnp.asarray(until))
        np.testing.assert_allclose(found, np.prod(one_by_one[after:until]), rtol=1e-4, atol=1e-7)
