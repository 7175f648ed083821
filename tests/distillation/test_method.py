"""The loss of distillation: what it is made of, and that it is plain training where it should be."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distillation import tiny_students as tiny
from kind_jax import losses, partition
from kind_jax.classifying import network
from kind_jax.config import MeshConfig
from kind_jax.data import pipeline
from kind_jax.distillation import memory, projectors
from kind_jax.tasks import task_of
from kind_jax.train import sharding
from kind_jax.train import state as states
from kind_jax.train.step import draw, make_step


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("teachers")


def stepped(task, dataset, count=3, fixed=None):
    """States and metrics after each of the first steps."""
    columns = task.columns(dataset, {})
    data = pipeline.batches(dataclasses.replace(dataset, columns=columns), batch=task.config.train.batch, seed=0)
    step, state = jax.jit(make_step(task)), jax.jit(states.start, static_argnums=0)(task, task.init())
    fixed, found = jax.tree.map(jnp.asarray, task.fixed() if fixed is None else fixed), []
    for _ in range(count):
        state, metrics = step(state, next(data), fixed)
        found.append((state, jax.device_get(metrics)))
    return found


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0, 0.0), (1.0, 0.0, 1.0, 0.0)])
def test_without_embedding_it_is_plain_training_and_plain_kd(folder, weights):
    """Step for step with the same seed, and with nothing beside the student."""
    given = dict(zip(("label", "embedding", "logits", "regression"), weights, strict=True))
    task, dataset = tiny.bound(tiny.run(folder, **given))
    assert set(task.shapes()) == set(task.student.shapes())
    found = stepped(task, dataset)
    if not weights[2]:
        assert task.fixed() == {}
        for (ours, ours_metrics), (plain, plain_metrics) in zip(found, stepped(task.student, dataset), strict=True):
            chex.assert_trees_all_equal(ours.collections, plain.collections)
            assert ours_metrics["loss"] == plain_metrics["loss"]
        return
    other, _ = tiny.bound(tiny.run(folder, method="kd"))
    for (ours, _), (kd, metrics) in zip(found, stepped(other, dataset), strict=True):
        chex.assert_trees_all_equal(ours.collections, kd.collections)
        assert metrics["loss"] == pytest.approx(metrics["cross_entropy"] + metrics["kd"], rel=1e-6)


@pytest.mark.parametrize(
    ("method", "student", "of"),
    [
        ("align_uniform", "cnn", "resnet"), ("align_uniform", "kind", "vit"), ("kd", "vit", "kind"),
        ("crd", "vit", "cnn"), ("srrl", "vit", "kind"),
        pytest.param("kd", "kind", "resnet", marks=pytest.mark.slow),
        pytest.param("srrl", "resnet", "vit", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_any_two_networks(folder, method, student, of):
    """Losses are finite and add up as published; both projectors train."""
    task, dataset = tiny.bound(tiny.run(folder, student, of, method=method))
    (first, metrics), (second, _) = stepped(task, dataset, count=2)
    assert all(np.isfinite(value) for value in metrics.values())
    parts = {"align_uniform": "cross_entropy kd align", "kd": "cross_entropy kd", "crd": "cross_entropy kd crd",
             "srrl": "cross_entropy features regression"}[method]  # fmt: skip
    total = sum(float(metrics[name]) for name in parts.split())
    if method == "align_uniform":
        total += float(metrics["uniform_student"] + metrics["uniform_teacher"]) / 2
    assert metrics["loss"] == pytest.approx(total, rel=1e-5)
    if method != "kd":
        moved = jax.tree.map(
            lambda a, b: bool((a != b).any()), first.collections["projectors"], second.collections["projectors"]
        )
        kernels = {path: on for path, on in partition.flatten(moved).items() if path.endswith("kernel")}
        assert all(kernels.values()), kernels


def test_a_student_that_is_its_teacher(folder):
    """Behind the same projector: alignment and KD are 0, and the loss is cross-entropy and uniformity."""
    task, dataset = tiny.bound(tiny.run(folder, "vit", "vit"))
    fixed = jax.tree.map(jnp.asarray, task.fixed())
    drawn = draw(task, jax.tree.map(jnp.asarray, dataset.source.gather(np.arange(16))), jnp.int32(0))
    weights = jax.tree.map(jnp.asarray, {**task.init(), **fixed})
    weights["projectors"] = {**weights["projectors"], "teacher": weights["projectors"]["student"]}
    metrics = jax.jit(task.loss)(weights, drawn, fixed).metrics
    assert float(metrics["align"]) == pytest.approx(0, abs=1e-6)
    assert float(metrics["kd"]) == pytest.approx(0, abs=1e-5)
    assert float(metrics["uniform_student"]) == float(metrics["uniform_teacher"])
    assert float(metrics["loss"]) == pytest.approx(
        float(metrics["cross_entropy"] + metrics["uniform_student"]), abs=2e-5
    )


@pytest.mark.parametrize("method", ["align_uniform", "crd"])
def test_one_device_and_eight(folder, method):
    task, dataset = tiny.bound(tiny.run(folder, "vit", "vit", method=method))
    batch = jax.tree.map(jnp.asarray, dataset.source.gather(np.arange(16)) | {"slot": np.arange(16, dtype=np.int32)})
    if method != "crd":
        del batch["slot"]
    weights, fixed = (jax.tree.map(jnp.asarray, tree) for tree in (task.init(), task.fixed()))

    def loss(weights, batch, fixed):
        return task.loss(weights, draw(task, batch, jnp.int32(0)), fixed)

    one = jax.jit(loss)(weights, batch, fixed)
    mesh = sharding.make_mesh(MeshConfig(data=4, fsdp=2))
    many = jax.jit(loss)(
        jax.device_put(weights, sharding.shard_like(weights, mesh, task.rules)),
        jax.device_put(batch, sharding.batch_sharding(mesh)),
        jax.device_put(fixed, sharding.shard_like(fixed, mesh, task.rules)),
    )
    for name, value in one.metrics.items():
        np.testing.assert_allclose(many.metrics[name], value, rtol=2e-5, atol=1e-6, err_msg=name)
    chex.assert_trees_all_close(many.moved, one.moved, rtol=2e-5, atol=1e-5)


def test_the_memory_of_crd():
    labels, counts = np.asarray([2, 0, 1, 2, 0, 2]), (2, 1, 3)
    slots = memory.slots(labels)
    assert slots.tolist() == [3, 0, 2, 4, 1, 5]
    given = jnp.asarray([0, 1, 2], jnp.int32)
    drawn = np.asarray(memory.draw_negatives(jax.random.key(0), given, counts, 300))
    wanted = [{2, 3, 4, 5}, {0, 1, 3, 4, 5}, {0, 1, 2}]
    assert [set(row.tolist()) for row in drawn] == wanted  # every image of another class, and none of its own
    rng = np.random.default_rng(0)
    u, v, bank_u, bank_v = (
        losses.normalised(jnp.asarray(rng.standard_normal((n, 4)), jnp.float32)) for n in (2, 2, 6, 6)
    )
    kept = {
        "student": {"bank": bank_u, "constant": jnp.zeros(1)},
        "teacher": {"bank": bank_v, "constant": jnp.zeros(1)},
    }
    slot, negatives = jnp.asarray([3, 0]), jnp.asarray([[0, 1, 2], [2, 4, 5]])
    found = memory.look(kept, u, v, slot, negatives, temperature=0.07, momentum=0.5)
    total = 0.0
    for mine, bank in ((u, bank_v), (v, bank_u)):  # the published code, image by image
        index = np.concatenate([np.asarray(slot)[:, None], np.asarray(negatives)], axis=1)
        scores = np.exp(np.einsum("bd,bnd->bn", mine, np.asarray(bank)[index]) / 0.07)
        p = scores / (scores.mean() * 6)
        noise = 3 / 6
        total -= np.mean(np.log(p[:, 0] / (p[:, 0] + noise)) + np.log(noise / (p[:, 1:] + noise)).sum(axis=1))
    np.testing.assert_allclose(found.loss, total, rtol=1e-4)
    after = found.memory["student"]
    half = np.asarray(bank_u)[3] / 2 + np.asarray(u)[0] / 2
    np.testing.assert_allclose(after["bank"][3], half / np.linalg.norm(half), rtol=1e-5)
    np.testing.assert_array_equal(after["bank"][1], bank_u[1])
    again = memory.look(found.memory, u, v, slot, negatives, temperature=0.07, momentum=0.5).memory
    assert float(again["student"]["constant"][0]) == float(after["constant"][0]) > 0


def test_projectors():
    assert projectors.widths("linear", 5, 3) == (5, 3)
    assert projectors.widths("mocov2", 5, 3) == (5, 5, 3)
    assert projectors.widths("simclrv2", 5, 3) == (5, 5, 5, 3)
    assert projectors.connector(4, 9) == (4, 6, 9)
    tree = {
        "0": {"kernel": jnp.eye(2), "bias": jnp.asarray([-1.0, 0.0])},
        "1": {"kernel": -jnp.eye(2), "bias": jnp.zeros(2)},
    }
    x = jnp.asarray([[0.5, 2.0]])
    np.testing.assert_allclose(projectors.apply(tree, x), [[0, -2]])
    np.testing.assert_allclose(projectors.apply(tree, x, rectified=True), [[0, 0]])


def test_the_student_has_nothing_of_its_teacher(folder):
    task, _ = tiny.bound(tiny.run(folder))
    shapes = task.shapes()
    assert {name: shapes[name] for name in task.student.shapes()} == task.student.shapes()
    assert set(shapes) - set(task.student.shapes()) == {"projectors"}
    assert network.feature_width(task.config.model) != network.feature_width(task.network)
    assert task_of(task.config).config == task.config
