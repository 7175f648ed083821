"""Drawing: guidance, batches, and the two ways in which a class enters."""

import dataclasses

import chex
import jax.numpy as jnp
import numpy as np
import tiny

from kind_jax import sampling
from kind_jax.nn.gate import Gate, all_groups, learngenes_only, one_group

CONFIG = tiny.change(tiny.CONFIG, model={"num_classes": 4})
WEIGHTS = tiny.weights(CONFIG.model, 0.3)
LABELS = np.array([0, 1, 2, 3, 3], np.int32)
GATE = one_group(jnp.asarray(LABELS))


def draw(labels=LABELS, gate=GATE, *, null_gate=None, batch=sampling.BATCH, steps=1, guidance=1.0):
    sampler = dataclasses.replace(CONFIG.sampler, steps=steps, guidance=guidance)
    return sampling.draw(
        CONFIG, WEIGHTS, labels, gate, null_gate=null_gate or learngenes_only(), seed=0, sampler=sampler, batch=batch
    )


def test_guidance_extrapolates_from_the_null_branch():
    """One Euler step is linear in the model's output, hence in the guidance scale."""
    null = draw(np.full_like(LABELS, CONFIG.model.num_classes), learngenes_only())
    plain, guided = draw(), draw(guidance=3.0)
    assert np.abs(plain - null).max() > 1e-2
    chex.assert_trees_all_close(guided, null + 3.0 * (plain - null), atol=1e-4)
    chex.assert_trees_all_close(draw(guidance=0.0), null, atol=1e-5)
    # A null gate that is wider than the class gate, and one row for all samples.
    everything = draw(np.full_like(LABELS, CONFIG.model.num_classes), all_groups(4))
    found = draw(guidance=3.0, null_gate=all_groups(4))
    chex.assert_trees_all_close(found, everything + 3.0 * (plain - everything), atol=1e-4)


def test_labels_and_gates_act_independently():
    turned = Gate(GATE.index[::-1], GATE.weight)
    images = [draw(), draw(labels=LABELS[::-1].copy()), draw(gate=turned), draw(gate=learngenes_only())]
    for i, a in enumerate(images):
        for b in images[:i]:
            assert np.abs(a - b).max() > 1e-3


def test_the_last_batch_may_be_short():
    images = draw(batch=2, steps=2)
    assert images.shape == (5, 8, 8, 1)
    first = sampling.draw(
        CONFIG, WEIGHTS, LABELS[:2], one_group(jnp.asarray(LABELS[:2])), null_gate=learngenes_only(), seed=0,
        sampler=dataclasses.replace(CONFIG.sampler, steps=2), batch=2,
    )  # fmt: skip
    chex.assert_trees_all_close(images[:2], first, atol=1e-6)
    chex.assert_trees_all_equal(draw(batch=2, steps=2), images)
