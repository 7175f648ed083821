"""Adapters: each begins as the frozen model, follows its formula, and trains only what its paper trains."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from kind_jax import adapters, partition
from kind_jax.adapters import oft
from kind_jax.config import TransferConfig
from kind_jax.errors import UserError

DENSE = tiny.change(tiny.CONFIG, model={"factor": {"projections": ()}, "label_embedding": True})
PATH = "blocks/attention/qkv"
METHODS = sorted(adapters.METHODS)


def config(method, **settings):
    return TransferConfig(method=method, rank=3, block=4, scale=0.5, projections=("qkv", "mlp_out"), **settings)


def attached(method, **settings):
    weights = tiny.weights(DENSE.model)
    return weights, adapters.attach(config(method, **settings), weights, jax.random.key(0))


def shaken(collections, seed=0):
    """With every adapter array moved, as training would."""
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(
        lambda a: a + 0.1 * jnp.asarray(rng.standard_normal(a.shape, np.float32)), collections["adapters"]
    )
    return {**collections, "adapters": moved}


def kernel_of(collections, path=PATH):
    return np.asarray(partition.flatten(collections["params"])[f"{path}/kernel"], np.float64)


@pytest.mark.parametrize("method", METHODS)
def test_a_fresh_adapter_does_not_change_the_model(method):
    before, with_adapter = attached(method)
    merged = adapters.merge(config(method), with_adapter)
    assert set(merged) == {"learngenes", "tailors", "params"}
    chex.assert_trees_all_close(merged, before, rtol=1e-5, atol=1e-6)
    if method == "svdiff":
        chex.assert_trees_all_equal(merged, before)


@pytest.mark.parametrize("method", METHODS)
def test_the_merged_kernel_follows_the_formula_of_its_paper(method):
    before, with_adapter = attached(method)
    moved = shaken(with_adapter)
    leaves = partition.flatten(moved["adapters"])
    own = {p.split("/")[-1]: np.asarray(a, np.float64) for p, a in leaves.items() if p.startswith(PATH)}
    w = kernel_of(before)
    if method == "lora":
        expected = w + 0.5 * own["a"] @ own["b"]
    elif method == "pissa":
        u, s, v = np.linalg.svd(w, full_matrices=False)
        residual = w - (u[:, :, :3] * s[:, None, :3]) @ v[:, :3]
        expected = residual + own["a"] @ own["b"]
    elif method == "dora":
        direction = w + 0.5 * own["a"] @ own["b"]
        expected = own["m"][:, None, :] * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    elif method == "svdiff":
        moved["adapters"] = with_adapter["adapters"] | jax.tree.map(lambda a: a, moved["adapters"])
        u, s, v = (own[name] for name in "usv")
        expected = w + (u * (np.maximum(s + own["delta"], 0) - s)[:, None, :]) @ v
    else:
        expected = np.empty_like(w)
        for layer in range(w.shape[0]):
            for i, free in enumerate(own["q"][layer]):
                q = np.zeros((4, 4))
                q[np.triu_indices(4, 1)] = free
                q -= q.T
                r = (np.eye(4) + q) @ np.linalg.inv(np.eye(4) - q)
                expected[layer, 4 * i : 4 * i + 4] = r @ w[layer, 4 * i : 4 * i + 4]
    merged = adapters.merge(config(method), moved)
    np.testing.assert_allclose(kernel_of(merged), expected, rtol=1e-4, atol=1e-5)
    untouched = "blocks/mlp_in"
    np.testing.assert_array_equal(kernel_of(merged, untouched), kernel_of(before, untouched))


def test_oft_rotations_are_orthogonal():
    free = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 6)), jnp.float32)
    r = np.asarray(oft.rotation(free, 4))
    np.testing.assert_allclose(r @ np.swapaxes(r, 2, 3), np.broadcast_to(np.eye(4), r.shape), atol=1e-5)
    with pytest.raises(UserError, match=r"transfer.block is 5, but it must divide 16"):
        adapters.attach(TransferConfig(method="oft", block=5, projections=("qkv",)), tiny.weights(DENSE.model))


def test_svdiff_trains_only_the_shifts():
    assert adapters.trained(config("svdiff")) == (f"{PATH}/delta", "blocks/mlp_out/delta")
    assert adapters.trained(config("lora")) == ()


def test_a_factored_projection_cannot_be_adapted():
    with pytest.raises(UserError, match=r"transfer.projections contains 'qkv', but lora adapts dense kernels"):
        adapters.attach(config("lora"), tiny.weights(tiny.CONFIG.model))


def test_oft_stays_orthogonal_far_from_the_start():
    free = 3 * jnp.asarray(np.random.default_rng(1).standard_normal((1, 2, 496)), jnp.float32)
    r = np.asarray(oft.rotation(free, 32), np.float64)
    np.testing.assert_allclose(r @ np.swapaxes(r, 2, 3), np.broadcast_to(np.eye(32), r.shape), atol=2e-3)
