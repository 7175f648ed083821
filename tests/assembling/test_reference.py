"""The published code's own numbers (fixtures/dma_reference.npz; its README entry says how they were recorded)."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax.assembling import Module, assemble, cuts, divide, reference, replace
from kind_jax.assembling.config import ClassifierModuleRun, ModuleConfig
from kind_jax.assembling.task import Drawn, ModuleTask, around
from kind_jax.classifying import network
from kind_jax.classifying.task import Drawn as Samples
from kind_jax.config import FactorConfig, OptimizerConfig, TrainConfig
from kind_jax.config.networks import ViTConfig
from kind_jax.config.training import RuleConfig
from kind_jax.losses import cross_entropy
from kind_jax.nn.gate import learngenes_only
from kind_jax.train.optimizer import learning_rate, make_optimizer

RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "dma_reference.npz")
TARGET = ViTConfig(size=16, channels=3, num_classes=5, patch=8, width=16, depth=6, heads=2)
DEPTHS, AROUND = (2, 2, 2), (1, 1, 1)
META = cuts.resized(TARGET, AROUND)
IMAGES = jnp.asarray(np.moveaxis(RECORDED["x"], 1, -1))


def recorded(prefix):
    return {name.removeprefix(prefix): RECORDED[name] for name in RECORDED.files if name.startswith(prefix)}


def logits(settings, collections):
    return network.logits(settings, jax.tree.map(jnp.asarray, collections), IMAGES, learngenes_only())[0]


def hybrid_depths(k):
    return tuple(2 if i == k else 1 for i in range(3))


def weights_of(k, name):
    settings = cuts.resized(TARGET, hybrid_depths(k))
    return cuts.take(settings, reference.read(recorded(f"hybrid{k}/{name}/"), settings), hybrid_depths(k), k)


@pytest.fixture(scope="module")
def meta():
    return divide(META, reference.read(recorded("meta/"), META), AROUND)


def test_the_meta_model(meta):
    np.testing.assert_allclose(logits(*assemble(meta)), RECORDED["meta_out"], rtol=1e-5, atol=1e-6)
    assert [sum(a.size for a in jax.tree.leaves(m.collections)) for m in meta] == [6464, 3280, 3397]


@pytest.mark.parametrize("k", [0, 2])
def test_a_hybrid_and_three_steps_of_its_module(meta, k):
    part = weights_of(k, "init")
    module = Module(network=TARGET, depths=DEPTHS, index=k, collections=part, source="0" * 64)
    np.testing.assert_allclose(logits(*replace(meta, module)), RECORDED[f"hybrid{k}/out0"], rtol=1e-5, atol=1e-6)

    config = ClassifierModuleRun(
        model=TARGET, module=ModuleConfig(depths=DEPTHS, index=k, decay_tokens=True),
        optimizer=OptimizerConfig(
            learning_rate=1e-2, rules=(RuleConfig(path="params/.*/kernel", weight_decay=0.05),)
        ),
        train=TrainConfig(batch=4, steps=3, ema=None),
    )  # fmt: skip
    task = ModuleTask(config)
    settings = _decaying(config)  # as the run itself makes them of module.decay_tokens
    labels = jnp.zeros(4, jnp.int32)
    samples = Samples(
        images=IMAGES, labels=labels, targets=jnp.asarray(RECORDED["y_soft"]), superclass=labels,
        gate=learngenes_only(), paths=jnp.zeros((4, 0, 2)),
    )  # fmt: skip
    drawn = Drawn(samples, samples.gate)
    whole = assemble(meta).collections
    fixed = jax.tree.map(jnp.asarray, around(config, whole))

    @jax.jit
    def step(weights, opt):
        loss, grads = jax.value_and_grad(lambda w: task.loss(w, drawn, fixed).value)(weights)
        updates, opt = tx.update(grads, opt, weights, present=jnp.zeros(0, bool))
        return jax.tree.map(jnp.add, weights, updates), opt, loss, grads

    tx = make_optimizer(settings, learning_rate(settings, 3))
    weights = jax.tree.map(jnp.asarray, part)
    opt, losses = tx.init(weights), []
    for count in range(3):
        weights, opt, loss, grads = step(weights, opt)
        losses.append(float(loss))
        if count == 0:
            found = reference.write_module(dataclasses.replace(module, collections=jax.device_get(grads)))
            wanted = recorded(f"hybrid{k}/grad0/")
            assert set(found) == set(wanted)
            for name, value in wanted.items():
                assert np.abs(found[name] - value).max() <= 1e-5 * np.abs(value).max(), name
    np.testing.assert_allclose(losses, RECORDED[f"hybrid{k}/losses"], rtol=1e-5)
    after = weights_of(k, "after3")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), jax.device_get(weights), after)


def _decaying(config):
    """The optimizer's settings that a run makes of its config."""
    from kind_jax.assembling.task import _optimizer

    return _optimizer(config)


@pytest.mark.parametrize("k", [0, 2])
def test_the_functions_can_be_differentiated(meta, k):
    """The gradient through ``replace``, with nothing but public functions."""
    module = Module(network=TARGET, depths=DEPTHS, index=k, collections=weights_of(k, "init"), source="0" * 64)

    def loss(collections):
        hybrid = replace(meta, dataclasses.replace(module, collections=collections))
        found = logits(*hybrid)
        return jnp.mean(cross_entropy(found, jnp.asarray(RECORDED["y_soft"])))

    value, grads = jax.jit(jax.value_and_grad(loss))(jax.tree.map(jnp.asarray, module.collections))
    np.testing.assert_allclose(value, RECORDED[f"hybrid{k}/losses"][0], rtol=1e-5)
    found = reference.write_module(dataclasses.replace(module, collections=jax.device_get(grads)))
    for name, wanted in recorded(f"hybrid{k}/grad0/").items():
        assert np.abs(found[name] - wanted).max() <= 1e-5 * np.abs(wanted).max(), name


def test_modules_read_alone_and_written_again():
    part = weights_of(2, "init")
    module = Module(network=TARGET, depths=DEPTHS, index=2, collections=part, source="0" * 64)
    state = reference.write_module(module)
    assert {name.split(".")[0] for name in state} == {"blocks", "norm", "head"}
    again = reference.read_module(state, TARGET, DEPTHS, 2, source="0" * 64)
    jax.tree.map(np.testing.assert_array_equal, again.collections, part)


def test_the_lagged_rate_of_every_epoch():
    config = OptimizerConfig(
        learning_rate=2e-3, schedule="deit", epoch=7, warmup=140, warmup_start=1e-6 / 2e-3, minimum=1e-5 / 2e-3
    )
    rate = learning_rate(config, 700)
    for inside in (0, 6):
        found = [float(rate(jnp.int32(7 * epoch + inside))) for epoch in range(100)]
        np.testing.assert_allclose(found, RECORDED["lr/epochs100_warmup20_base0.002"], rtol=3e-6)


@pytest.mark.parametrize(
    ("depths", "rates"),
    [
        ((3, 1, 1, 1), [0, 0.02, 0.04, 0.06, 0.08, 0.1]), ((1, 1, 1, 3), [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        ((1, 1, 1, 1), [0, 1 / 30, 2 / 30, 0.1]),
    ],
)  # fmt: skip
def test_stochastic_depth_counts_all_blocks_of_the_hybrid(depths, rates):
    net = dataclasses.replace(cuts.resized(TARGET, (1,) * 4), drop_path=0.1)
    k = max(range(4), key=lambda i: depths[i])
    everywhere = cuts.staged(net, depths, k, frozen_paths=True)
    np.testing.assert_allclose(everywhere.drop_rates, rates, atol=1e-12)
    only = np.asarray(cuts.staged(net, depths, k, frozen_paths=False).drop_rates)
    begin, end = sum(depths[:k]), sum(depths[: k + 1])
    np.testing.assert_allclose(only[begin:end], rates[begin:end], atol=1e-12)
    assert not only[:begin].any()
    assert not only[end:].any()


def test_what_decays_in_module_0():
    """The reference's surprise: class token and positions decay there, and nowhere else."""
    settings = ModuleConfig(depths=DEPTHS, index=0, decay_tokens=True)
    rule = RuleConfig(path="params/.*/kernel", weight_decay=0.05)
    config = ClassifierModuleRun(model=TARGET, module=settings, optimizer=OptimizerConfig(rules=(rule,)))
    tokens = RuleConfig(path=r"params/(class_token|position)", weight_decay=0.05)
    assert _decaying(config).rules == (tokens, rule)
    last = dataclasses.replace(config, module=dataclasses.replace(settings, index=2))
    assert _decaying(last).rules == (rule,)
    ours = dataclasses.replace(config, module=dataclasses.replace(settings, decay_tokens=False))
    assert _decaying(ours).rules == (rule,)


def test_bad_state_dicts_are_refused():
    from kind_jax.errors import UserError

    state = recorded("meta/")
    with pytest.raises(UserError, match=r"'norm\.weight'"):
        reference.read({k: v for k, v in state.items() if k != "norm.weight"}, META)
    with pytest.raises(UserError, match=r"blocks\.2"):
        reference.read_module(state, TARGET, DEPTHS, 0, source="0" * 64)
    with pytest.raises(UserError, match=r"^index is -1, but it must be a whole number from 0 to 2"):
        reference.read_module(state, TARGET, DEPTHS, -1, source="0" * 64)
    factored = dataclasses.replace(META, factor=FactorConfig(learngenes=4))
    with pytest.raises(UserError, match=r"^the network is 'ViTConfig', but it must be .* whose weights are dense"):
        reference.read(state, factored)
