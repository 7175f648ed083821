"""Token routing and Model Guidance: against oracles, over devices and micro-batches, in a run, and what is refused."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from kind_jax import flops, model
from kind_jax.assembling.config import DiffusionModuleRun, ModuleConfig, module_run
from kind_jax.config import Config, GuidanceConfig, MeshConfig, RoutingConfig, from_json, to_json
from kind_jax.deploy import cost
from kind_jax.diffusing import fits, guided
from kind_jax.errors import UserError
from kind_jax.nn.gate import Gate, one_group
from kind_jax.nn.route import Route, draw_kept
from kind_jax.plan.compiled import flops_per_device
from kind_jax.tasks import task_of
from kind_jax.train import sharding, step
from kind_jax.train.loop import train
from kind_jax.train.metrics import read_metrics
from kind_jax.train.task import AVERAGE, DONE

BASE = tiny.change(
    tiny.CONFIG, model={"patch": 2, "depth": 2, "label_embedding": True, "factor": {"projections": ("qkv",)}}
)
ROUTED = tiny.change(BASE, routing={"rate": 0.5, "first": 0, "last": 0})
GUIDED = tiny.change(BASE, guidance={"scale": 1.5, "start": 1, "until": 0.9}, train={"null": 0.4})
BOTH = tiny.change(ROUTED, guidance={"scale": 1.5}, train={"null": 0.4})
RNG = np.random.default_rng(0)
BATCH = {
    "image": RNG.uniform(-1, 1, (8, 8, 8, 1)).astype(np.float32),
    "label": np.array([1, 3, 1, 3, 5, 5, 1, 3], np.int32),
}


def test_tokens_that_skip_come_back_unchanged():
    x = jnp.asarray(RNG.standard_normal((3, 6, 4), np.float32))
    kept = draw_kept(jax.random.key(0), 3, 6, 2)
    assert len({tuple(sorted(row)) for row in draw_kept(jax.random.key(1), 64, 6, 2).tolist()}) == 15  # every pair
    route = Route(0, 0, kept)
    back = np.asarray(route.leave(x, route.enter(x) + 1.0))
    for b in range(3):
        on = sorted(set(kept[b].tolist()))
        off = sorted(set(range(6)) - set(on))
        assert (len(on), len(off)) == (2, 4)
        np.testing.assert_array_equal(back[b, off], x[b, off])
        np.testing.assert_array_equal(back[b, on], x[b, on] + 1)


def listed(weights, depth):
    """Stacked blocks as those of a composed model, one by one."""
    found = {}
    for name, tree in weights.items():
        axis, blocks = int(name == "tailors"), tree.get("blocks", {})
        each = {str(i): jax.tree.map(lambda a, i=i, x=axis: jnp.take(a, i, x), blocks) for i in range(depth)}
        found[name] = {**tree, "blocks": each}
    return found


def test_the_tokens_of_a_route_go_through_the_very_blocks():
    """All tokens on the route are the plain model, values and gradients; and blocks in a list are those of a stack."""
    settings = tiny.change(BASE.model, depth=3)
    weights = tiny.weights(settings)
    ranks = tuple((name, -1 if f.shared is None else f.shared, f.tailors) for name, f in settings.forms.items())
    apart = tiny.change(settings, factor={"ranks": ranks})
    noisy, times = jnp.asarray(RNG.standard_normal((2, 8, 8, 1), np.float32)), jnp.array([100.0, 900.0])
    labels, gate = jnp.arange(2), one_group(jnp.arange(2))
    every = jnp.stack([jnp.arange(16)[::-1], jnp.arange(16)])

    @jax.jit
    def outputs(weights):
        def value(weights, route, config=settings):
            found = model.apply(config, weights, noisy, times, labels, gate, route)
            return jnp.mean(found**2), found

        slope, few = jax.value_and_grad(value, has_aux=True), Route(1, 1, every[:, :8])
        return (
            slope(weights, None), slope(weights, Route(1, 1, every)),
            value(weights, few)[1], value(listed(weights, 3), few, apart)[1],
        )  # fmt: skip

    plain, whole, few, alike = outputs(weights)
    chex.assert_trees_all_close(whole, plain, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(few, alike, atol=1e-5)
    assert float(jnp.abs(few - plain[0][1]).max()) > 1e-3


def branches(task, average, drawn):
    """The conditional and the unconditional prediction, as sampling with guidance would have them."""
    settings, t = task.config.model, drawn.t[:, None, None, None]
    null = jnp.full_like(drawn.labels, settings.num_classes)
    own = jnp.where(drawn.no_embedding, null, drawn.labels)
    noisy, off = (1 - t) * drawn.clean + t * drawn.noise, Gate(drawn.gate.index, jnp.zeros_like(drawn.gate.weight))
    of = functools.partial(model.apply, settings, average, noisy, 1000 * drawn.t)
    return of(own, drawn.gate), of(null, off)


def test_guided_targets_are_those_of_the_equation_and_let_no_gradient_through():
    """Equations 10 and 11, sample by sample: null samples, noisy ones and early steps keep their target."""
    task, weights = task_of(GUIDED), tiny.weights(GUIDED.model)
    drawn = jax.jit(step.draw, static_argnums=0)(task, BATCH, jnp.asarray(3))
    drawn = drawn._replace(t=drawn.t.at[0].set(0.95), null=drawn.null.at[:2].set([False, True]))

    @jax.jit
    def outputs(weights, average):
        def loss(average, done):
            return task.loss(weights, drawn, {AVERAGE: average, DONE: done}).value

        early = loss(average, jnp.asarray(0))
        return early, jax.value_and_grad(loss)(average, jnp.asarray(1)), task.predict(weights, drawn), branches(
            task, average, drawn)  # fmt: skip

    early, (late, slopes), predicted, (towards, away) = jax.device_get(
        outputs(weights, tiny.weights(GUIDED.model, seed=1))
    )
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(slopes))
    targets = [np.asarray(drawn.noise - drawn.clean)]
    targets.append(targets[0].copy())
    kept = [b for b in range(8) if drawn.null[b] or drawn.t[b] > 0.9]
    assert 2 <= len(kept) <= 6
    for b in set(range(8)) - set(kept):
        targets[1][b] += 0.5 * (towards[b] - away[b])
    expected = [np.mean((predicted - target) ** 2) for target in targets]
    np.testing.assert_allclose([early, late], expected, rtol=1e-4)
    assert abs(early / late - 1) > 1e-4


def test_a_learned_variance_is_that_around_the_unguided_prediction():
    output = jnp.asarray(RNG.standard_normal((2, 4, 4, 2), np.float32))
    move = jnp.asarray(RNG.standard_normal((2, 4, 4, 1), np.float32))
    found = guided.subtracted(output, move)
    np.testing.assert_array_equal(found[..., 1:], output[..., 1:])
    np.testing.assert_array_equal(found[..., :1], output[..., :1] - move)
    gaussian = {"model": {"learn_sigma": True}, "diffusion": {"process": "gaussian"}, "sampler": {"method": "ddpm"}}
    task = task_of(tiny.change(BOTH, **gaussian))
    fixed = {AVERAGE: task.shapes(), DONE: jax.ShapeDtypeStruct((), jnp.int32)}

    def metrics(weights, batch, fixed):
        return task.loss(weights, step.draw(task, batch, jnp.asarray(0)), fixed).metrics

    parts = jax.eval_shape(metrics, task.shapes(), BATCH, fixed)
    assert {*parts} == {"loss", "mse", "vb"}


def gradients_on(config, devices):
    """Of one step, with another average than the weights."""
    task, average = task_of(config), tiny.weights(config.model, seed=1)
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:devices])
    where = sharding.shard_like(jax.eval_shape(lambda: average), mesh, task.rules)
    weights, average = (jax.device_put(tree, where) for tree in (tiny.weights(config.model), average))

    @jax.jit
    def f(weights, average, batch):
        fixed = step.with_average(task, {}, average, jnp.asarray(1))
        grads, (metrics, _) = step.gradients(task, weights, step.draw(task, batch, jnp.asarray(1)), fixed)
        return grads, metrics["loss"]

    return jax.device_get(f(weights, average, jax.device_put(BATCH, sharding.batch_sharding(mesh))))


@pytest.mark.slow
def test_neither_devices_nor_micro_batches_change_a_step():
    apart = tiny.change(BOTH, mesh=MeshConfig(data=2, fsdp=2), train={"accumulate": 2})
    chex.assert_trees_all_close(gradients_on(apart, 4), gradients_on(BOTH, 1), rtol=2e-3, atol=2e-5)


def test_a_run_with_both_resumes_exactly_and_gives_a_plain_model(tmp_path):
    config = tiny.change(BOTH, guidance={"start": 2}, train={"checkpoint_every": 2})
    train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop_after=2)
    train(config, tmp_path / "parts")
    rows = [[row["loss"] for row in read_metrics(tmp_path / run / "metrics.jsonl")] for run in ("whole", "parts")]
    assert len(rows[0]) == 4
    assert rows[0] == rows[1]


def test_flops_are_those_of_the_program():
    """Of dense models: in others, few tailors are applied as sums, which the count of the program leaves out."""
    for config in (tiny.change(each, model={"factor": {"projections": ()}}) for each in (BASE, ROUTED, BOTH)):
        task = task_of(config)
        fixed = {AVERAGE: task.shapes(), DONE: jax.ShapeDtypeStruct((), jnp.int32)}

        def loss(weights, batch, fixed, task=task):
            return task.loss(weights, step.draw(task, batch, jnp.asarray(0)), fixed).value

        forward = flops.count(jax.make_jaxpr(loss)(task.shapes(), BATCH, fixed))
        extra = 2 * cost.products(config.model, 8).total if task.reads_average else 0
        np.testing.assert_allclose(forward, (task.flops() - extra) / 3 + extra, rtol=1e-6)
        assert flops_per_device(tiny.change(config, mesh=MeshConfig(data=1))) == task.flops()
    assert task_of(ROUTED).flops() < 0.95 * task_of(BASE).flops() < task_of(GUIDED).flops()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"routing": {"rate": 1.0}}, "routing.rate is 1.0, but it must be 0 .off. or more, and below 1"),
        ({"routing": {"rate": 0.5, "first": 0}}, r"routing.last is None, .* between routing.first, which is 0, and 0, "
         "as the last of the 2 blocks must see all tokens .None stands for model.depth - 4, which is -2"),
        ({"routing": {"rate": 0.5, "first": 0, "last": 1}}, "routing.last is 1, but it must be between .* and 0"),
        ({"routing": {"rate": 0.01, "first": 0, "last": 0}}, "routing.rate is 0.01, .* one of the 16 tokens"),
        ({"guidance": {"scale": 0.5}}, "guidance.scale is 0.5, but it must be 1 .off. or more"),
        ({"guidance": {"scale": 2.0, "until": 0.0}}, "guidance.until is 0.0, but it must be above 0"),
        ({"guidance": {"scale": 2.0, "start": 4}}, "guidance.start is 4, but it must be below train.steps, which is 4"),
        ({"guidance": {"scale": 2.0}, "train": {"null": 0.0}}, "guidance.scale is 2.0, .* where train.null is 0"),
        ({"guidance": {"scale": 2.0}, "model": {"num_classes": 1}}, "guidance.scale is 2.0, .* a model of one class"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        tiny.change(BASE, **changes)


def test_other_kinds_of_runs_refuse_them_or_leave_them_behind():
    with pytest.raises(
        UserError, match=r"routing.rate is 0.5, .*0 for a module; guidance.scale is 1.5, .*1 for a module"
    ):
        DiffusionModuleRun(**vars(BOTH), module=ModuleConfig(depths=(1, 1)))
    assert module_run(BOTH, ModuleConfig(depths=(1, 1))).routing == RoutingConfig()
    folded = tiny.change(GUIDED, model={"null_gate": "keep", "label_embedding": False})
    with pytest.raises(UserError, match=r"guidance.scale is 1.5, .*null class is no other than a sample's own"):
        fits.check_guidance(folded)
    (warning,) = fits.check_guidance(tiny.change(GUIDED, sampler={"guidance": 2.0}))
    assert "a second time" in warning


def test_a_config_that_was_saved_before_still_loads():
    text = to_json(BASE)
    before = text[: text.index(',\n  "routing"')] + "\n}"
    assert from_json(before, "there") == Config(**vars(BASE)) == BASE
    assert from_json(to_json(BOTH), "there").guidance == GuidanceConfig(scale=1.5)
