"""Embeddings of positions, times and classes, and patches (Peebles & Xie 2023, as in the official code)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from kind_jax.config import TimeFrequencies
from kind_jax.nn.init import Initializer
from kind_jax.nn.linear import Dense

FREQUENCIES = 256
MAX_PERIOD = 10_000.0


def position_embedding(side: int, width: int) -> np.ndarray:
    """Fixed sine-cosine embedding of a square grid, float32 [side * side, width]; the first half encodes columns."""
    omega = MAX_PERIOD ** -(np.arange(width // 4, dtype=np.float64) / (width / 4))
    angle = np.arange(side, dtype=np.float64)[:, None] * omega[None, :]
    axis = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    return np.concatenate([axis[columns.ravel()], axis[rows.ravel()]], axis=1).astype(np.float32)


def time_features(t: Float[Array, " B"], frequencies: TimeFrequencies = "dit") -> Float[Array, "B 256"]:
    """Cosines and sines of t (0..1000) at geometrically spaced frequencies; see ``ModelConfig.time_frequencies``."""
    half = FREQUENCIES // 2
    # diffusers' downscale_freq_shift is 1 in its DiT: the last frequency is 1e-4 itself.
    spans = half - 1 if frequencies == "diffusers" else half
    omega = jnp.exp(-np.log(MAX_PERIOD) * jnp.arange(half, dtype=jnp.float32) / spans)
    angle = t.astype(jnp.float32)[:, None] * omega[None, :]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=1)


class TimeEmbedding(nnx.Module):
    """Two-layer MLP on the time features."""

    def __init__(self, width: int, frequencies: TimeFrequencies = "dit", *, init: Initializer) -> None:
        self.frequencies: TimeFrequencies = frequencies
        self.hidden = Dense(FREQUENCIES, width, init=init, stddev=0.02)
        self.out = Dense(width, width, init=init, stddev=0.02)

    def __call__(self, t: Float[Array, " B"], dtype: jnp.dtype) -> Float[Array, "B D"]:
        return self.out(jax.nn.silu(self.hidden(time_features(t, self.frequencies).astype(dtype))))


class LabelEmbedding(nnx.Module):
    """A row for each class and one for the null class, label ``num_classes``."""

    def __init__(self, num_classes: int, width: int, *, init: Initializer) -> None:
        self.table = nnx.Param(init.normal(num_classes + 1, width, stddev=0.02))

    def __call__(self, labels: Int[Array, " B"], dtype: jnp.dtype) -> Float[Array, "B D"]:
        return self.table[...][labels].astype(dtype)


def patchify(images: Float[Array, "B H W C"], patch: int) -> Float[Array, "B T P"]:
    """Square patches in row order, each flattened as (row, column, channel)."""
    B, H, W, C = images.shape
    x = images.reshape(B, H // patch, patch, W // patch, patch, C)
    return jnp.transpose(x, (0, 1, 3, 2, 4, 5)).reshape(B, (H // patch) * (W // patch), patch * patch * C)


def unpatchify(tokens: Float[Array, "B T P"], patch: int) -> Float[Array, "B H W C"]:
    """The inverse of :func:`patchify` for square images."""
    B, T, P = tokens.shape
    side, C = round(T**0.5), P // (patch * patch)
    x = tokens.reshape(B, side, side, patch, patch, C)
    return jnp.transpose(x, (0, 1, 3, 2, 4, 5)).reshape(B, side * patch, side * patch, C)
