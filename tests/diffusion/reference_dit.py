"""The official DiT's forward pass on the recorded weights, written out plainly, as a denoiser for the tests."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

HEADS, PATCH, DEPTH = 4, 2, 3


@functools.cache
def fixture() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[1] / "fixtures" / "dit_reference.npz") as recorded:
        return {name: recorded[name] for name in recorded.files}


def images(name: str) -> jax.Array:
    """A recorded array in NHWC; leading axes before the image are kept."""
    return jnp.asarray(np.moveaxis(fixture()[name], -3, -1))


def _linear(x, name):
    w = fixture()
    return jnp.einsum("...i,oi->...o", x, w[f"weights/{name}.weight"], precision="highest") + w[
        f"weights/{name}.bias"
    ].reshape((1,) * (x.ndim - 1) + (-1,))


def _norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def _modulated(x, shift, scale):
    return _norm(x) * (1 + scale[:, None]) + shift[:, None]


def _attention(x, name):
    B, L, D = x.shape
    qkv = _linear(x, f"{name}.qkv").reshape(B, L, 3, HEADS, D // HEADS)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    weights = jax.nn.softmax(jnp.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(D // HEADS), axis=-1)
    return _linear(jnp.einsum("bhij,bjhd->bihd", weights, v).reshape(B, L, D), f"{name}.proj")


def _time_embedding(t):
    frequencies = jnp.exp(-math.log(10000) * jnp.arange(128, dtype=jnp.float32) / 128)
    angles = t.astype(jnp.float32)[:, None] * frequencies[None]
    hidden = _linear(jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1), "t_embedder.mlp.0")
    return _linear(jax.nn.silu(hidden), "t_embedder.mlp.2")


def forward(x, t, y):
    """[B, H, W, 4], times [B], labels [B] -> [B, H, W, 8]."""
    w = fixture()
    B, H, W, C = x.shape
    h = H // PATCH
    patches = x.reshape(B, h, PATCH, W // PATCH, PATCH, C).transpose(0, 1, 3, 5, 2, 4).reshape(B, -1, C * PATCH**2)
    kernel = w["weights/x_embedder.proj.weight"].reshape(32, -1)
    tokens = jnp.einsum("bli,oi->blo", patches, kernel) + w["weights/x_embedder.proj.bias"][None, None]
    tokens = tokens + w["weights/pos_embed"]
    condition = _time_embedding(t) + jnp.asarray(w["weights/y_embedder.embedding_table.weight"])[y]
    active = jax.nn.silu(condition)
    for block in (f"blocks.{i}" for i in range(DEPTH)):
        modulation = jnp.split(_linear(active, f"{block}.adaLN_modulation.1"), 6, axis=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation
        tokens = tokens + gate_a[:, None] * _attention(_modulated(tokens, shift_a, scale_a), f"{block}.attn")
        hidden = jax.nn.gelu(_linear(_modulated(tokens, shift_m, scale_m), f"{block}.mlp.fc1"), approximate=True)
        tokens = tokens + gate_m[:, None] * _linear(hidden, f"{block}.mlp.fc2")
    shift, scale = jnp.split(_linear(active, "final_layer.adaLN_modulation.1"), 2, axis=-1)
    out = _linear(_modulated(tokens, shift, scale), "final_layer.linear")
    out = out.reshape(B, h, h, PATCH, PATCH, 2 * C).transpose(0, 1, 3, 2, 4, 5)
    return out.reshape(B, H, W, 2 * C)
