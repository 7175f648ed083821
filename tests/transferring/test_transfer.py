"""Transfer: what moves, what stays bit-identical, what it costs, and what is refused."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from kind_jax import adapters, model, partition
from kind_jax.config import CollectionConfig, Config, TransferConfig
from kind_jax.deploy.bundle import Bundle, open_bundle
from kind_jax.deploy.compose import compose
from kind_jax.deploy.groups import grow
from kind_jax.errors import UserError
from kind_jax.partition import fingerprint
from kind_jax.tasks import task_of
from kind_jax.train import checkpoint, state
from kind_jax.train.freeze import hold
from kind_jax.train.loop import train
from kind_jax.train.step import make_step
from kind_jax.transferring.plan import plan
from kind_jax.transferring.run import footprint, prepare, transfer
from kind_jax.transferring.start import start

OLD = tiny.change(tiny.CONFIG, model={"num_classes": 7, "label_embedding": False}, data={"classes": tuple(range(7))})
NEW = tiny.change(
    tiny.CONFIG,
    model={"num_classes": 3, "label_embedding": False},
    data={"classes": (7, 8, 9)},
    transfer={"method": "kind"},
)
DENSE = {"factor": {"projections": ()}, "label_embedding": True}


def bundle(config, tmp_path):
    groups = tuple(range(config.model.num_groups))
    names = tuple(map(str, range(config.model.num_classes)))
    weights = jax.tree.map(np.asarray, tiny.weights(config.model))
    return Bundle(
        config=config, collections=weights, groups=groups, class_names=names, weights="ema", step=5, origin=tmp_path
    )


def two_steps(config, collections, steps=2):
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.uniform(-1, 1, (8, 8, 8, 1)).astype(np.float32),
        "label": (np.arange(8) % config.model.num_classes).astype(np.int32),
    }
    before = jax.jit(functools.partial(state.start, task_of(config)))(jax.tree.map(jnp.asarray, collections))
    step, after = jax.jit(make_step(task_of(config))), before
    for _ in range(steps):
        after, _ = step(after, batch)
    return before, after


def test_learngenes_and_dense_parameters_stay_and_fresh_tailors_move(tmp_path):
    source = bundle(OLD, tmp_path)
    config = prepare(source, NEW)
    before, after = two_steps(config, start(config, source))
    for name in ("learngenes", "params"):
        chex.assert_trees_all_equal(after.collections[name], source.collections[name])
    moved = partition.flatten(after.collections["tailors"])
    fresh = partition.flatten(before.collections["tailors"])
    assert partition.groups_in(after.collections["tailors"]) == 3
    assert all(not np.array_equal(moved[path], fresh[path]) for path in moved)


def test_fresh_tailors_begin_as_asked(tmp_path):
    source = bundle(OLD, tmp_path)
    old = partition.flatten(source.collections["tailors"])

    def begin(tailors):
        config = prepare(source, tiny.change(NEW, transfer={"tailors": tailors}))
        return partition.flatten(start(config, source)["tailors"])

    for path, leaf in begin("silent").items():
        assert np.any(leaf) != path.endswith("s_t")
    for path, leaf in begin("mean").items():
        np.testing.assert_allclose(leaf[1], old[path].mean(0), rtol=1e-5, atol=1e-7)
    nearest = begin("nearest")
    rows = [
        [np.array_equal(nearest["blocks/mlp_out/u_t"][g], row) for row in old["blocks/mlp_out/u_t"]] for g in (0, 1)
    ]
    assert all(sum(same) == 1 for same in rows)
    chosen = rows[0].index(True)
    assert all(np.array_equal(nearest[path][0], old[path][chosen]) for path in old)


@pytest.mark.parametrize("method", ["kind", "lora", "svdiff"])
def test_only_what_is_trained_has_optimizer_state(tmp_path, method):
    changes = {} if method == "kind" else {"model": DENSE}
    source = bundle(tiny.change(OLD, **changes), tmp_path)
    config = prepare(source, tiny.change(NEW, **changes, transfer={"method": method, "rank": 2, "block": 4}))
    before, after = two_steps(config, start(config, source))
    cost = footprint(config)
    moments = sum(leaf.size for leaf in jax.tree.leaves(after.opt) if leaf.ndim and leaf.dtype == np.float32)
    assert moments == 2 * cost.trained
    assert cost.parameters == sum(leaf.size for leaf in jax.tree.leaves(after.collections))
    frozen = partition.flatten(after.collections["params"])
    old = partition.flatten(before.collections["params"])
    for path in frozen:
        same = np.array_equal(frozen[path], old[path])
        assert same == (path != "label_embed/table"), path
    full = footprint(prepare(source, tiny.change(NEW, **changes, transfer={"method": "full"})))
    ratio, share = cost.optimizer_bytes / full.optimizer_bytes, cost.trained / full.trained
    assert ratio == pytest.approx(share, rel=0.05, abs=0.002)


def test_thawed_parts_train_too(tmp_path):
    source = bundle(OLD, tmp_path)
    config = prepare(source, tiny.change(NEW, transfer={"thaw": ("final", "blocks/adaln")}))
    _, after = two_steps(config, start(config, source))
    old = partition.flatten(source.collections["params"])
    for path, leaf in partition.flatten(after.collections["params"]).items():
        if path.startswith(("final/linear", "blocks/adaln")):
            assert not np.array_equal(leaf, old[path]), path
        if not path.startswith(("final", "blocks/adaln")):
            np.testing.assert_array_equal(leaf, old[path])
    wrong = prepare(source, tiny.change(NEW, transfer={"thaw": ("head",)}))
    with pytest.raises(UserError, match=r"optimizer.params.thaw names 'head'.*'final'"):
        state.abstract(task_of(wrong))


def test_heuristic_learngenes_inherit_only_the_named_blocks(tmp_path):
    source = bundle(OLD, tmp_path)
    config = prepare(source, tiny.change(NEW, transfer={"method": "layers", "layers": (1,)}))
    found, fresh = start(config, source), model.init(config.model, config.train.seed)
    for name in ("learngenes", "params"):
        blocks, old = found[name]["blocks"], source.collections[name]["blocks"]
        chex.assert_trees_all_equal(jax.tree.map(lambda a: a[1], blocks), jax.tree.map(lambda a: a[1], old))
        chex.assert_trees_all_equal(
            jax.tree.map(lambda a: a[0], blocks), jax.tree.map(lambda a: a[0], fresh[name]["blocks"])
        )
    chex.assert_trees_all_equal(found["tailors"], fresh["tailors"])
    assert footprint(config).trained == footprint(config).parameters


def test_the_label_embedding_gets_rows_for_the_new_classes_and_keeps_the_null_row(tmp_path):
    embedded = {"model": {"label_embedding": True}}
    source = bundle(tiny.change(OLD, **embedded), tmp_path)
    config = prepare(source, tiny.change(NEW, **embedded))
    table = start(config, source)["params"]["label_embed"]["table"]
    assert table.shape == (4, 16)
    null = source.collections["params"]["label_embed"]["table"][-1]
    np.testing.assert_array_equal(table[-1], null)
    _, after = two_steps(config, start(config, source))
    trained = after.collections["params"]["label_embed"]["table"]
    np.testing.assert_array_equal(trained[-1], null)
    assert np.all(np.any(trained[:-1] != table[:-1], axis=1))


def test_nothing_moves_the_null_row_not_even_by_a_bit_and_so_the_classes_can_join(tmp_path):
    """Weight decay would, which no stopped gradient stops, and so would adding zero to -0.0."""
    embedded = {"model": {"label_embedding": True}}
    source = bundle(tiny.change(OLD, **embedded), tmp_path)
    table = np.array(source.collections["params"]["label_embed"]["table"])
    table[-1, :2] = -0.0, 0.0
    source.collections["params"]["label_embed"]["table"], null = table, table[-1].tobytes()
    decay = {"optimizer": {"params": CollectionConfig(weight_decay=0.5)}, "train": {"accumulate": 2, "null": 0.5}}
    config = prepare(source, tiny.change(NEW, **embedded, **decay))
    before, after = two_steps(config, start(config, source), 4)
    for tree in (after.collections, after.ema, state.averaged(config, after)):
        table = np.asarray(tree["params"]["label_embed"]["table"])
        assert table[-1].tobytes() == null
        assert np.all(np.any(table[:-1] != before.collections["params"]["label_embed"]["table"][:-1], axis=1))
    names = tuple(f"new {c}" for c in range(3))
    found = dataclasses.replace(bundle(config, tmp_path), class_names=names)
    found = dataclasses.replace(found, collections=jax.device_get(state.averaged(config, after)))
    assert grow(source, found).config.model.num_classes == 10
    moved = np.array(found.collections["params"]["label_embed"]["table"])
    moved[-1] *= np.float32(1 - 1e-6)
    params = {**found.collections["params"], "label_embed": {"table": moved}}
    older = dataclasses.replace(found, collections={**found.collections, "params": params})
    with pytest.raises(UserError, match=r"the null row of 'label_embed/table' of .* is not that of .*weight_decay"):
        grow(source, older)


def test_any_rows_can_be_held():
    tree = {"a": {"w": jnp.arange(6.0).reshape(3, 2), "b": jnp.zeros(3)}, "c": {}}
    other = jax.tree.map(lambda leaf: leaf - 10, tree)
    found = hold({"a/w": (0, -1), "a/b": (1,), "c/none": (0,)}, tree, other)
    np.testing.assert_array_equal(found["a"]["w"], [[-10, -9], [2, 3], [-6, -5]])
    np.testing.assert_array_equal(found["a"]["b"], [0, -10, 0])
    assert found["c"] == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"width": 32}}, r"model.width is 32, but the source has 16"),
        ({"model": {"depth": 3}}, r"model.depth is 3, but the source has 2"),
        ({"model": {"factor": {"learngenes": 7}}}, r"model.factor.learngenes is 7, but the source has 6"),
        ({"model": {"factor": {"projections": ("qkv",)}}}, r"model.factor.projections is \('qkv',\), but the source"),
        (
            {"diffusion": {"process": "gaussian"}, "sampler": {"method": "ddim"}},
            r"diffusion.process is 'gaussian', but the source has 'flow'",
        ),
        ({"transfer": {"method": "none"}}, r"transfer.method is 'none', but a transfer needs a method"),
        ({"transfer": {"method": "lora"}}, r"transfer.method is 'lora', but it adapts dense kernels"),
        ({"transfer": {"method": "layers", "layers": (2,)}}, r"transfer.layers is \(2,\).*blocks are 0 to 1"),
    ],
)
def test_a_target_that_does_not_fit_is_refused_by_its_setting(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        plan(tiny.change(NEW, **changes), OLD, "")


def test_kind_needs_a_factored_source(tmp_path):
    with pytest.raises(UserError, match=r"transfer.method is 'kind', but the source has no factored weights"):
        plan(tiny.change(NEW, model=DENSE), tiny.change(OLD, model=DENSE), "")


def test_a_transfer_resumes_exactly_and_belongs_to_its_source(tmp_path):
    source = bundle(OLD, tmp_path)
    config = tiny.change(NEW, train={"steps": 4})
    transfer(source, config, tmp_path / "whole")
    transfer(source, config, tmp_path / "parts", stop_after=2)
    transfer(source, config, tmp_path / "parts")
    whole, parts = (
        checkpoint.load_collections(tmp_path / name / "checkpoints", 4, task_of(prepare(source, config)))
        for name in ("whole", "parts")
    )
    chex.assert_trees_all_equal(whole, parts)
    opened = open_bundle(tmp_path / "whole")
    chex.assert_trees_all_equal(opened.collections["learngenes"], source.collections["learngenes"])
    assert fingerprint(opened.collections["learngenes"]) == fingerprint(source.collections["learngenes"])
    other = bundle(OLD, tmp_path)
    other.collections["params"]["final"]["linear"]["bias"] = np.ones(16, np.float32)
    with pytest.raises(UserError, match=r"transfer\.source differs"):
        transfer(other, config, tmp_path / "parts")
    with pytest.raises(UserError, match="starts from another model: use kind-jax transfer"):
        train(prepare(source, config), tmp_path / "empty")


def test_a_run_with_adapters_opens_as_the_merged_dense_model(tmp_path):
    source = bundle(tiny.change(OLD, model=DENSE), tmp_path)
    config = tiny.change(NEW, model=DENSE, transfer={"method": "lora", "rank": 2}, optimizer={"learning_rate": 0.01})
    transfer(source, config, tmp_path / "run")
    complete = prepare(source, config)
    raw = checkpoint.load_collections(tmp_path / "run" / "checkpoints", 4, task_of(complete))
    opened = open_bundle(tmp_path / "run")
    assert set(opened.collections) == {"learngenes", "tailors", "params"}
    wanted = adapters.merge(complete.transfer, raw)
    chex.assert_trees_all_close(opened.collections["params"], wanted["params"], rtol=1e-6)
    kernel = opened.collections["params"]["blocks"]["mlp_in"]["kernel"]
    assert not np.array_equal(kernel, source.collections["params"]["blocks"]["mlp_in"]["kernel"])


def test_blocks_of_a_composed_model_are_inherited_whole(tmp_path):
    composed = compose(bundle(OLD, tmp_path), classes=[2], form="factored").bundle
    target = dataclasses.replace(composed.config, transfer=TransferConfig(method="layers", layers=(1,)))
    config = plan(tiny.change(target, model={"num_classes": 1, "groups": None}), composed.config, "")
    found, fresh = start(config, composed), model.init(config.model, config.train.seed)
    for name in ("learngenes", "params"):
        chex.assert_trees_all_equal(found[name]["blocks"]["1"], composed.collections[name]["blocks"]["1"])
        chex.assert_trees_all_equal(found[name]["blocks"]["0"], fresh[name]["blocks"]["0"])


def test_a_refused_transfer_leaves_the_folder_free(tmp_path):
    source = bundle(OLD, tmp_path)
    wrong = tiny.change(NEW, transfer={"tailors": "mean"}, model={"factor": {"tailors": 4}})
    with pytest.raises(UserError, match="the source's tailors"):
        transfer(source, wrong, tmp_path / "run")
    assert {p.name for p in (tmp_path / "run").iterdir()} <= {".lock"}
    blind = tiny.change(NEW, model={"factor": {"projections": ()}}, transfer={"method": "none"})
    with pytest.raises(UserError, match=r"model.label_embedding is False.*which of its 3 classes"):
        train(blind, tmp_path / "blind")
    assert not (tmp_path / "blind").exists()


def test_everything_frozen_is_refused():
    frozen = CollectionConfig(freeze=True)
    config = tiny.change(tiny.CONFIG, optimizer={"learngenes": frozen, "tailors": frozen, "params": frozen})
    assert isinstance(config, Config)
    with pytest.raises(UserError, match="leaves nothing to train"):
        state.abstract(task_of(config))
