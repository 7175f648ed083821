"""Training one module inside a meta model that stays as it is."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from assembling import tiny_modules as tiny
from kind_jax import flops, model, partition
from kind_jax.assembling import cuts
from kind_jax.assembling.bundles import assemble_bundles, divide_bundle
from kind_jax.assembling.config import ModuleConfig, module_run, whole_run
from kind_jax.assembling.project import progress
from kind_jax.assembling.task import ModuleTask, around, beginning, hybrid_weights
from kind_jax.config import MeshConfig, change, from_json, to_json
from kind_jax.config.training import RuleConfig
from kind_jax.data import pipeline
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy.bundle import export, open_bundle
from kind_jax.deploy.compose import compose
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import sharding
from kind_jax.train import state as states
from kind_jax.train.loop import train
from kind_jax.train.step import draw, gradients, make_step
from kind_jax.transferring import start as transfer
from kind_jax.transferring.run import prepare

SLOW = pytest.mark.slow


@pytest.fixture(scope="module", params=["dit", *(pytest.param(name, marks=SLOW) for name in ("kind", "vit", "resnet"))])
def project(request, tmp_path_factory):
    """A meta model and the runs of all modules around it, the last of them in two goes."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    config, count = tiny.whole(name), len(tiny.NETWORKS[name][1])
    train(tiny.meta_of(name, config), folder / "meta")
    for k in range(count):
        run = tiny.module_of(name, config, k, meta=str(folder / "meta"))
        train(run, folder / f"module-{k}", stop_after=3 if k == count - 1 else None)
    return name, config, folder


def test_modules_become_one_model_that_trains_on(project):
    name, config, folder = project
    net, depths = tiny.NETWORKS[name]
    last = len(depths) - 1
    run = tiny.module_of(name, config, last, meta=str(folder / "meta"))
    assert [each.state for each in progress(folder)][-1] == "stopped"
    train(run, folder / f"module-{last}")
    train(run, folder / "untouched")
    again, once = (open_bundle(folder / where) for where in (f"module-{last}", "untouched"))
    chex.assert_trees_all_equal(again.collections, once.collections)

    found = progress(folder)
    assert [each.state for each in found] == ["finished"] * len(depths)
    parts = [open_bundle(each.folder) for each in found]
    whole = assemble_bundles(parts)
    assert type(whole.config) is type(config)
    assert whole.config.model == net
    chex.assert_trees_all_equal_shapes(whole.collections, model.definition(net)[1])
    for part, divided in zip(parts, divide_bundle(whole, depths), strict=True):
        chex.assert_trees_all_equal(part.collections, divided.collections)
    for i, part in enumerate(parts):  # what travels is checked as any artifact is
        export(part, folder / f"artifact-{i}")
    travelled = [open_bundle(folder / f"artifact-{i}") for i in range(len(parts))]
    assert all(each.config.module.meta is None for each in travelled)
    chex.assert_trees_all_equal(assemble_bundles(travelled).collections, whole.collections)

    import importlib

    if name == "dit":  # tailors are still a group's own, and learngenes move to other classes
        served = compose(whole, classes=[3]).bundle
        np.testing.assert_allclose(served.sample([3], seed=0), whole.sample([3], seed=0), atol=2e-4)
        begun = transfer.start(prepare(whole, change(config, transfer={"method": "kind"})), whole)
        chex.assert_trees_all_equal(begun["learngenes"], whole.collections["learngenes"])

    from kind_jax.kinds import KINDS

    if name == "dit":  # losses of two diffusion processes do not belong together
        other = dataclasses.replace(parts[1], config=change(parts[1].config, diffusion={"prediction": "clean"}))
        with pytest.raises(UserError, match=r"^diffusion\.prediction of .* is 'clean', but that of "):
            assemble_bundles([parts[0], other])
        strange = change(parts[1].config, diffusion={"prediction": "clean"}, module={"meta": str(folder / "meta")})
        with pytest.raises(UserError, match=r"^diffusion\.prediction is 'clean', but module\.meta, .*, has"):
            train(strange, folder / "strange")
        assert not (folder / "strange").exists()
    export(whole, folder / "assembled")
    start = importlib.import_module(KINDS[config.task].start)
    tuned, initial = start.begin_run(start.defaults(config, folder / "assembled", folder / "tuned"),
                                     folder / "assembled", folder / "tuned")  # fmt: skip
    train(tuned, folder / "tuned", stop_after=1, initial=initial)
    chex.assert_trees_all_equal_shapes(open_bundle(folder / "tuned").collections, whole.collections)


def test_only_the_module_moves_and_only_it_is_kept(project):
    name, _, folder = project
    run = open_bundle(folder / "module-0").config
    before = partition.fingerprint(open_bundle(folder / "meta").collections)
    assert run.module.source == before
    raw = open_bundle(folder / "module-0", weights="raw").collections
    meta = open_bundle(folder / "meta").collections
    start = beginning(run, meta)
    chex.assert_trees_all_equal_shapes(raw, start)
    same = {
        path
        for (path, a), b in zip(
            partition.flatten(raw["params"]).items(), partition.flatten(start["params"]).values(), strict=True
        )
        if np.array_equal(a, b)
    }
    # What conditions every block of a diffusion transformer is the meta model's, and stays.
    assert {path.split("/")[0] for path in same} <= set(cuts.CONDITION)
    assert bool(same) == (name == "dit")
    for path in same:
        np.testing.assert_array_equal(
            partition.flatten(raw["params"])[path], partition.flatten(meta["params"])[path], err_msg=path
        )


def _hybrid(name, index, **settings):
    """A module's run, its weights, its frozen neighbours and a batch."""
    config = tiny.module_of(name, tiny.whole(name), index, **settings)
    meta = tiny.weights(cuts.resized(config.model, config.module.around), seed=1)
    task = ModuleTask(config)
    # At its initialisation DiT's blocks do nothing.
    part = jax.tree.map(lambda a: jnp.asarray(np.asarray(a) + np.float32(0.02)), beginning(config, meta))
    data = pipeline.batches(open_dataset(config.data, "train"), batch=config.train.batch, seed=0)
    return config, task, part, jax.tree.map(jnp.asarray, around(config, meta)), jax.tree.map(jnp.asarray, next(data))


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("first", "dit"), ("last", "kind"),
        *(
            pytest.param(*case, marks=SLOW)
            for case in (
                *(("first", name) for name in ("vit", "kind", "resnet")),
                *(("last", name) for name in ("vit", "resnet", "dit")),
            )
        ),
    ],
)  # fmt: skip
def test_the_gradient_is_a_slice_of_the_whole_ones(name, place):
    index = 0 if place == "first" else len(tiny.NETWORKS[name][1]) - 1
    config, task, part, fixed, batch = _hybrid(name, index)
    drawn = task.draw(batch, jax.random.key(0))
    weights = hybrid_weights(config, part, fixed)
    slice_ = jax.jit(jax.grad(lambda p: task.loss({**part, **p}, drawn, fixed).value))(
        {k: v for k, v in part.items() if k != "stats"}
    )
    whole = jax.jit(jax.grad(lambda w: task.base.loss({**weights, **w}, drawn.samples, {}).value))(
        {k: v for k, v in weights.items() if k != "stats"}
    )
    own = hybrid_weights(config, {**part, **slice_}, {})
    wanted = partition.flatten(whole)
    found = {path: leaf for path, leaf in partition.flatten(own).items() if not path.startswith("stats")}
    assert found
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, wanted[path], atol=2e-6, err_msg=path)


@pytest.mark.slow
def test_nothing_is_computed_that_is_not_needed():
    """A step of the last module has no backward pass before it, one of the first no weight gradients behind it: FLOPs
    of the compiled programs, against those that are counted on the jaxpr and against training the hybrid whole."""
    depths = (2, 2, 2)
    base = change(tiny.whole("vit"), model={"depth": 6, "width": 32}, train={"batch": 32})
    counted, compiled = [], []
    for index in range(3):
        config = module_run(base, ModuleConfig(depths=depths, index=index))
        task = ModuleTask(config)

        def grads(collections, batch, fixed, task=task):
            return gradients(task, collections, draw(task, batch, jnp.int32(0)), fixed)

        lowered = jax.jit(grads).lower(task.shapes(), task.batch(), task.fixed_shapes())
        compiled.append(lowered.compile().cost_analysis()["flops"])
        counted.append(task.flops())
    hybrid = task_of(change(base, model={"depth": 4}))

    def all_grads(collections, batch):
        return gradients(hybrid, collections, draw(hybrid, batch, jnp.int32(0)), {})

    whole = jax.jit(all_grads).lower(hybrid.shapes(), hybrid.batch()).compile().cost_analysis()["flops"]
    exact = flops.count(jax.make_jaxpr(all_grads)(hybrid.shapes(), hybrid.batch()))
    assert hybrid.flops() == pytest.approx(exact, rel=0.05)
    block = hybrid.flops() / 3 / 4  # forward through one, roughly
    for found, program in zip(counted, compiled, strict=True):
        assert program / whole == pytest.approx(found / hybrid.flops(), abs=0.06)
    assert counted[0] - counted[1] == pytest.approx(block, rel=0.2)  # a gradient through one frozen block less
    assert counted[1] - counted[2] == pytest.approx(block, rel=0.2)
    assert compiled[0] > 1.05 * compiled[1] > 1.05**2 * compiled[2]


def test_frozen_stages_normalise_by_their_running_statistics():
    """In training too: the batch's own would make another function of them for every batch."""
    _, task, part, fixed, batch = _hybrid("resnet", 2)
    drawn, loss = task.draw(batch, jax.random.key(0)), jax.jit(task.loss)
    found = loss(part, drawn, fixed)
    moved = {**fixed, "stats": jax.tree.map(lambda a: a + 0.5, fixed["stats"])}
    assert float(found.value) != float(loss(part, drawn, moved).value)
    other = {**part, "stats": jax.tree.map(lambda a: a + 0.5, part["stats"])}  # of the trained stage the batch's count
    np.testing.assert_allclose(loss(other, drawn, fixed).value, found.value, rtol=1e-6)
    assert set(partition.flatten(found.moved["stats"])) == set(partition.flatten(part["stats"]))


def test_modules_know_nothing_of_each_other():
    """What surrounds a module is the meta model's alone: neither another module's depth nor its seed matters."""
    first = module_run(tiny.whole("vit"), ModuleConfig(depths=(2, 1, 2), index=1))
    other = module_run(change(tiny.whole("vit"), model={"depth": 8}), ModuleConfig(depths=(4, 1, 3), index=1))
    chex.assert_trees_all_equal(beginning(first, {}), beginning(other, {}))
    seeds = [beginning(dataclasses.replace(first, module=ModuleConfig(depths=(2, 1, 2), index=k)), {}) for k in (0, 2)]
    kernels = [seed["params"]["blocks"]["mlp_in"]["kernel"] for seed in seeds]
    assert not np.array_equal(*kernels)


@pytest.mark.slow
def test_a_step_takes_the_rows_of_frozen_tailors_too():
    """With many groups, a step works on the rows that its batch names: of the trained module's bank and the others'."""
    _, _, _, _, batch = _hybrid("dit", 0)
    many = change(tiny.whole("dit"), train={"batch": 4})
    assert task_of(many).bank.taken == 4
    config = tiny.module_of("dit", many, 0)
    meta = tiny.weights(cuts.resized(config.model, config.module.around), seed=1)
    some, every = ModuleTask(config), ModuleTask(change(config, optimizer={"lazy_tailors": False}))
    assert (some.bank.taken, every.bank.taken) == (4, None)
    fixed = jax.tree.map(jnp.asarray, around(config, meta))
    batch = jax.tree.map(lambda a: a[:4], batch)
    found = []
    for each in (some, every):
        weights = jax.tree.map(lambda a: np.asarray(a) + np.float32(0.02), beginning(config, meta))
        state = jax.jit(states.start, static_argnums=0)(each, weights)
        _, metrics = jax.jit(make_step(each))(state, batch, fixed)
        found.append((float(metrics["loss"]), float(metrics["grad_norm"])))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_a_module_that_begins_from_the_meta_model():
    config, _, _, _, _ = _hybrid("vit", 0, init="meta")
    meta = tiny.weights(cuts.resized(config.model, config.module.around))
    found = beginning(config, meta)["params"]["blocks"]["mlp_in"]["kernel"]
    theirs = np.asarray(meta["params"]["blocks"]["mlp_in"]["kernel"])
    np.testing.assert_array_equal(found, theirs[[0, 0]])
    with pytest.raises(UserError, match=r"^module\.init is 'meta', but it must be 'random' for a network"):
        tiny.module_of("resnet", tiny.whole("resnet"), 0, init="meta")


@pytest.mark.parametrize(
    ("name", "frozen"),
    [
        ("vit", "sharded"),
        *(pytest.param(*at, marks=SLOW) for at in (("vit", "replicated"), ("dit", "replicated"), ("dit", "sharded"))),
    ],
)  # fmt: skip
def test_frozen_modules_on_a_mesh(name, frozen):
    _, task, part, fixed, batch = _hybrid(name, 0, frozen=frozen)
    mesh = sharding.make_mesh(MeshConfig(data=2, fsdp=4))
    where = sharding.shard_like(fixed, mesh, task.rules)
    split = {path for path, at in partition.flatten(where).items() if any(axis is not None for axis in at.spec)}
    assert bool(split) == (frozen == "sharded")
    assert not any(at.spec and at.spec[0] == "fsdp" and path.startswith("params/blocks")
                   for path, at in partition.flatten(where).items())  # fmt: skip
    state = jax.jit(states.start, static_argnums=0)(task, part)
    shardings = sharding.shard_like(state, mesh, task.rules)
    alone = jax.jit(lambda weights, batch, fixed: task.loss(weights, draw(task, batch, state.step), fixed).value)(
        part, batch, fixed
    )
    step = jax.jit(make_step(task), out_shardings=(shardings, sharding.replicated(mesh)))
    batch = jax.device_put(batch, sharding.batch_sharding(mesh))
    _, metrics = step(jax.device_put(state, shardings), batch, jax.device_put(fixed, where))
    np.testing.assert_allclose(metrics["loss"], alone, rtol=1e-5)


def test_rules_are_about_the_leaves_of_a_module():
    base = tiny.whole("vit")
    rules = (RuleConfig(path="params/head/.*", learning_rate=0.5), *base.optimizer.rules)
    config = module_run(change(base, optimizer={"rules": rules}), ModuleConfig(depths=(2, 1, 2), index=1))
    from kind_jax.assembling.task import _optimizer

    assert _optimizer(config).rules == base.optimizer.rules
    wrong = change(config, optimizer={"rules": (RuleConfig(path="params/hed/.*"),)})
    task = ModuleTask(dataclasses.replace(wrong, optimizer=_optimizer(wrong)))
    with pytest.raises(UserError, match=r"^optimizer\.rules has 'params/hed/\.\*', but it must be the first to match"):
        states.abstract(task)


def test_settings_of_a_module_travel(project):
    _, config, folder = project
    run = open_bundle(folder / "module-0").config
    assert from_json(to_json(run), "here") == run
    assert whole_run(run, optimizer=config.optimizer).model == config.model
    with pytest.raises(UserError, match=r"^module\.index is missing, but it must say which module to train, 0 to"):
        ModuleTask(dataclasses.replace(run, module=dataclasses.replace(run.module, index=None)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"meta": None}, r"^module\.meta is missing, but it must name the meta model"),
        ({"meta": "/nowhere"}, r"^module\.meta is '/nowhere', but it must be a run or an artifact"),
        ({"meta_depths": (2, 1, 1)}, r"^module\.meta is .*, with 3 blocks, but it must have 4, \(2, 1, 1\)"),
        (
            {"source": "1" * 64},
            r"^module\.meta is .*, whose weights have .*, but this module began in .* 111111111111…",
        ),
    ],
)
def test_meta_models_that_do_not_fit(tmp_path_factory, changes, sentence):
    folder = tmp_path_factory.getbasetemp() / "meta-of-vit"
    config = tiny.whole("vit", steps=1, sample_every=0)
    if not folder.exists():
        tiny.untrained(folder, tiny.meta_of("vit", config))
    settings = {"meta": str(folder), **changes}
    run = tiny.module_of("vit", config, 1, **settings)
    with pytest.raises(UserError, match=sentence):
        train(run, folder.parent / "refused")
    assert not (folder.parent / "refused").exists()


def test_meta_models_of_other_networks(tmp_path):
    config = tiny.whole("vit", steps=1, sample_every=0)
    meta = tiny.meta_of("vit", config)
    tiny.untrained(tmp_path / "wide", change(meta, model={"width": 32}))
    tiny.untrained(tmp_path / "resnet", tiny.meta_of("resnet", tiny.whole("resnet")))
    for folder, sentence in (
        ("wide", r"^module\.meta has model\.width 32, but the module's network has 16"),
        ("resnet", r"^module\.meta is .*, a ResNetConfig, but the module is of a ViTConfig"),
    ):
        run = tiny.module_of("vit", config, 1, meta=str(tmp_path / folder))
        with pytest.raises(UserError, match=sentence):
            train(run, tmp_path / "refused")


def test_a_run_goes_on_in_the_same_meta_model_alone(tmp_path):
    config = tiny.whole("vit", sample_every=0)
    for seed, folder in ((0, "meta"), (1, "other")):
        tiny.untrained(tmp_path / folder, tiny.meta_of("vit", config), seed)
    run = tiny.module_of("vit", config, 1, meta=str(tmp_path / "meta"))
    train(run, tmp_path / "module-1", stop_after=2)
    moved = change(run, module={"meta": str(tmp_path / "other")})
    with pytest.raises(UserError, match=r"module\.source was '[0-9a-f]{64}', now '|module\.source differs"):
        train(moved, tmp_path / "module-1")
    (tmp_path / "meta").rename(tmp_path / "elsewhere")
    assert train(change(run, module={"meta": str(tmp_path / "elsewhere")}), tmp_path / "module-1").step == 4
