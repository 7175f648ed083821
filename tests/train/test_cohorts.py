"""Class-grouped steps: the very step of mixed batches, at less cost, and tailors that stay where they are."""

import json

import jax
import numpy as np
import pytest
import tiny

from kind_jax.errors import UserError
from kind_jax.plan import collectives
from kind_jax.tasks import task_of
from kind_jax.train import sharding, state, step
from kind_jax.train.dealt import Dealt
from kind_jax.train.layout import Deal, layout_of
from kind_jax.train.loop import train

# Adam divides by the size of a gradient, which of a key's bias is rounding alone: a large eps keeps it small.
GROUPED = tiny.change(tiny.CONFIG, train={"batch": 16, "null": 0.3}, data={"per_class": 4}, optimizer={"eps": 1e-3})


def batch_of(config, classes):
    m, rng = config.model, np.random.default_rng(0)
    labels = np.repeat(classes, config.train.batch // len(classes)).astype(np.int32)
    return {"image": rng.uniform(-1, 1, (len(labels), m.size, m.size, m.channels)).astype(np.float32), "label": labels}


def steps(config, batch, mesh=None, count=2):
    """The state after some steps, in the order of the groups."""
    task = task_of(config)
    current = jax.jit(state.start, static_argnums=0)(task, tiny.weights(config.model))
    if mesh is None:
        f = jax.jit(step.make_step(task))
        for _ in range(count):
            current, metrics = f(current, batch)
        return current, metrics
    layout = layout_of(task, mesh)
    bank = Dealt(task, layout, mesh)
    shardings = sharding.shard_like(bank.shapes(state.abstract(task)), mesh, task.rules)
    current = jax.device_put(bank.deal(current), shardings)
    batch = jax.device_put(batch, sharding.batch_sharding(mesh))
    out = (shardings, sharding.replicated(mesh))
    f = jax.jit(step.make_step(task, layout=layout), out_shardings=out)
    for _ in range(count):
        current, metrics = f(current, batch)
    return bank.gather(current), metrics


def check_same(found, expected, atol=2e-6):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        {"train": {"batch": 16, "null": 0.3, "accumulate": 2}},
        pytest.param({"model": {"num_classes": 40}}, marks=pytest.mark.slow),
        pytest.param({"model": {"null_gate": "all"}}, marks=pytest.mark.slow),
        {"model": {"groups": (0, 0, 1, 1, 2, 2, 3, 3, 4, 4)}},
        pytest.param({"model": {"contraction": "folded"}}, marks=pytest.mark.slow),
        {"guidance": {"scale": 1.5}, "model": {"num_classes": 40}},  # which reads averages, of rows too
    ],
    ids=str,
)
def test_a_grouped_step_is_the_mixed_step_of_the_same_batch(changes):
    config = tiny.change(GROUPED, **changes)
    found, metrics = steps(config, batch_of(config, [3, 7, 3, 1]))
    plain = tiny.change(config, data={"per_class": None})
    expected, other = steps(plain, batch_of(config, [3, 7, 3, 1]))
    np.testing.assert_allclose(metrics["loss"], other["loss"], rtol=1e-6)
    check_same(found.collections, expected.collections)
    check_same(found.ema["learngenes"], expected.ema["learngenes"])


@pytest.mark.parametrize(
    ("data", "fsdp", "classes"),
    [(2, 4, 40), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((2, 4, 10), (1, 4, 10), (1, 4, 40)))],
)
def test_dealt_to_devices_it_is_the_same_step(data, fsdp, classes):
    """On four shards ten groups are two or three each, and forty are ten, of which rows are taken out."""
    config = tiny.change(GROUPED, model={"num_classes": classes}, mesh={"data": data, "fsdp": fsdp})
    deal = Deal(classes, fsdp)
    own = [np.flatnonzero(deal.shard_of_group == j)[1] for j in range(fsdp)]
    mesh = sharding.make_mesh(config.mesh, jax.devices()[: data * fsdp])
    batch = batch_of(config, own * data)
    found, metrics = steps(config, batch, mesh)
    expected, other = steps(tiny.change(config, data={"per_class": None}), batch)
    np.testing.assert_allclose(metrics["loss"], other["loss"], rtol=1e-5)
    check_same(found.collections, expected.collections, atol=2e-5)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(found.collections["tailors"])} == {classes}


def test_what_devices_send_does_not_grow_with_the_classes():
    sent = {}
    for classes in (16, 64):
        settings = {"num_classes": classes, "label_embedding": False}
        config = tiny.change(GROUPED, model=settings, mesh={"data": 2, "fsdp": 4})
        task, mesh = task_of(config), sharding.make_mesh(config.mesh)
        layout, shapes = layout_of(task, mesh), state.abstract(task)
        at = sharding.shard_like(shapes, mesh, task.rules)
        placed = jax.tree.map(lambda s, a: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=a), shapes, at)
        split = sharding.batch_sharding(mesh)
        batch = {n: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=split) for n, s in task.batch().items()}
        f = jax.jit(step.make_step(task, layout=layout), out_shardings=(at, sharding.replicated(mesh)))
        text = f.lower(placed, batch).compile().as_text()
        sent[classes] = collectives.count(text).total.received
    tailors = task.shapes()["tailors"]
    row = sum(leaf.size // leaf.shape[0] * leaf.dtype.itemsize for leaf in jax.tree.leaves(tailors))
    assert sent[64] - sent[16] < row / 4


def test_a_record_of_another_class_trains_no_tailors_of_its_cohort():
    """The input pipeline puts another record in the place of one that it cannot read."""
    config = tiny.change(GROUPED, train={"batch": 16, "null": 0.0})
    batch = batch_of(config, [3, 7, 5, 1])
    batch["label"][5] = 2
    found, _ = steps(config, batch, count=1)
    before, after = (jax.tree.leaves(c["tailors"])[0] for c in (tiny.weights(config.model), found.collections))
    moved = np.any(np.asarray(before != after).reshape(len(before), -1), axis=1)
    assert np.flatnonzero(moved).tolist() == [1, 3, 5, 7]


def test_groups_are_dealt_evenly_in_their_order():
    deal = Deal(150, 16)
    counts = np.bincount(deal.shard_of_group)
    assert set(counts) == {9, 10}
    assert deal.rows == 160
    assert np.array_equal(deal.row_of_group // deal.each, deal.shard_of_group)
    assert np.array_equal(deal.group_of_row[deal.row_of_group], np.arange(150))
    assert Deal(12, 4).even
    assert np.array_equal(Deal(12, 4).row_of_group, np.arange(12))


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"data": {"per_class": 3}}, "data.per_class is 3, but it must divide train.batch, which is 16."),
        ({"mesh": {"data": 1, "fsdp": 8}, "data": {"per_class": 4}},
         "which puts 4 classes into a batch, but they must be a multiple of mesh.fsdp, which is 8"),
        ({"mesh": {"data": 1, "fsdp": 8}, "data": {"per_class": 1}, "model": {"num_classes": 5}},
         "mesh.fsdp is 8, but it must be at most 5 with data.per_class"),
        ({"mesh": {"data": 2, "fsdp": 2}, "data": {"per_class": 4}, "train": {"batch": 24}},
         "data.per_class is 4, but one of it and the 6 samples that each device has"),
        ({"train": {"batch": 16, "accumulate": 8}}, "train.accumulate is 8, but it must divide the 4 samples"),
        ({"mesh": {"data": 1, "fsdp": 4}, "optimizer": {"lazy_tailors": False}}, "optimizer.lazy_tailors must be True"),
        ({"mesh": {"data": 1, "fsdp": 4}, "model": {"null_gate": "all"}}, "model.null_gate is 'all', but it must be"),
    ],
    ids=str,
)  # fmt: skip
def test_batches_that_cannot_be_dealt_are_refused(changes, wanted):
    config = tiny.change(GROUPED, **changes)
    devices = jax.devices()[: max(config.mesh.data, 1) * config.mesh.fsdp]
    with pytest.raises(UserError) as refused:
        layout_of(task_of(config), sharding.make_mesh(config.mesh, devices))
    assert wanted in str(refused.value)


@pytest.mark.slow
def test_a_run_is_dealt_anew_on_another_mesh_and_says_so(tmp_path, capsys):
    """Ten groups are unequal on four shards and equal on two, so rows move; on disk they are in order."""
    config = tiny.change(GROUPED, train={"steps": 4, "checkpoint_every": 2, "log_every": 1, "sample_every": 0})
    config = tiny.change(config, train={"batch": 32})
    first = tiny.change(config, mesh={"data": 2, "fsdp": 4})
    train(first, tmp_path / "run", stop_after=2)
    second = tiny.change(config, mesh={"data": 4, "fsdp": 2})
    train(second, tmp_path / "run")
    said = capsys.readouterr().out
    assert "10 groups on 4 shards, 2 or 3 each" in said
    assert "were dealt to 4 shards of the tailors, 2 devices each; from there on they are dealt anew, to 2" in said
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines)
    with pytest.raises(UserError, match=r"data\.per_class was 4, now None"):
        train(tiny.change(second, data={"per_class": None}, train={"steps": 4}), tmp_path / "run")


def test_a_model_without_tailors_takes_grouped_batches():
    config = tiny.change(GROUPED, model={"factor": {"projections": ()}, "label_embedding": True})
    batch = batch_of(config, [3, 7, 5, 1])
    found, _ = steps(config, batch)
    expected, _ = steps(tiny.change(config, data={"per_class": None}), batch)
    check_same(found.collections, expected.collections)
