"""Residual streams rotated into each other, exactly. D: width, N: models.

LayerNorm is a projection onto what is orthogonal to (1, ..., 1), a norm that rotations do not change, and a gain and an
offset, which :func:`folded` moves into the projections that read it. So a whole residual stream may be multiplied with
any orthogonal matrix that leaves (1, ..., 1) where it is: the network computes what it did before. This is the
symmetry of *Generalized Linear Mode Connectivity for Transformers* (2025, arXiv 2506.22712), kept within LayerNorm.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.linalg

from kind_jax import partition
from kind_jax.config.networks import ViTConfig, ZippedConfig
from kind_jax.errors import UserError
from kind_jax.merging.maps import Maps
from kind_jax.merging.statistics import Statistics
from kind_jax.partition import PARAMS, Collections


def rotations(statistics: Statistics, models: int) -> tuple[Maps, ...]:
    """The orthogonal matrices that bring each model's features closest to the first one's (Procrustes).

    Returns:
      the :class:`kind_jax.merging.plan.Maps` of each model: the mean of all after rotation, and back.
    """
    width = len(statistics.mean) // models
    moment = statistics.covariance
    basis = _centred(width)
    found = []
    for m in range(models):
        cross = moment[:width, m * width : (m + 1) * width]
        u, _, vh = np.linalg.svd(basis.T @ cross @ basis)
        rotation = basis @ (u @ vh) @ basis.T + 1 / width if m else np.eye(width)
        found.append(Maps((rotation / models).astype(np.float32), rotation.T.astype(np.float32)))
    return tuple(found)


def random(width: int, seed: int) -> np.ndarray:
    """An orthogonal matrix that leaves (1, ..., 1) where it is."""
    basis = _centred(width)
    inner = np.linalg.qr(np.random.default_rng(seed).standard_normal((width - 1, width - 1)))[0]
    return basis @ inner @ basis.T + 1 / width


def _centred(width: int) -> np.ndarray:
    """An orthonormal basis [width, width - 1] of what is orthogonal to (1, ..., 1)."""
    return scipy.linalg.null_space(np.ones((1, width)))


def has_norms(config: Any) -> bool:
    """Whether a network has LayerNorms that can be folded: a vision transformer, or several with one trunk."""
    return has_norms(config.of) if isinstance(config, ZippedConfig) else isinstance(config, ViTConfig)


def folded(config: Any, collections: Collections) -> tuple[Any, Collections]:
    """A network whose LayerNorms have gain 1 and offset 0, computing the same: a projection that reads one, W, becomes
    diag(gain) W, and its bias b becomes b + offset W.

    Returns:
      its settings, which have biases wherever offsets went, and its collections (NumPy).

    Raises:
      UserError: a network without LayerNorms, or factored projections.
    """
    if not has_norms(config):
        raise UserError(f"a {type(config).__name__.removesuffix('Config')} has no LayerNorms to be folded.")
    leaves = {path: np.asarray(leaf) for path, leaf in partition.flatten(collections[PARAMS]).items()}
    for norm in sorted(path.removesuffix("/scale") for path in leaves if path.endswith("/scale") or path == "scale"):
        gain, offset = leaves[f"{norm}/scale"], leaves[f"{norm}/bias"]
        for reader in _readers(norm, leaves):
            kernel = leaves[f"{reader}/kernel"]
            bias = leaves.get(f"{reader}/bias", np.zeros_like(kernel[..., 0, :]))
            leaves[f"{reader}/bias"] = bias + np.einsum("...i,...io->...o", offset, kernel)
            leaves[f"{reader}/kernel"] = gain[..., None] * kernel
        leaves[f"{norm}/scale"], leaves[f"{norm}/bias"] = np.ones_like(gain), np.zeros_like(offset)
    return _with_biases(config), {**collections, PARAMS: partition.unflatten(leaves)}


def _readers(norm: str, leaves: dict[str, Any]) -> list[str]:
    """The projections that read a LayerNorm."""
    before, _, name = norm.rpartition("/")
    around = f"{before}/" if before else ""
    inputs = {"norm_1": [f"{around}attention/{each}" for each in ("qkv", "q", "k", "v")], "norm_2": [f"{around}mlp_in"]}
    found = inputs.get(name, [f"{around}head"])
    if name == "norm" and f"{around}head/kernel" not in leaves:  # of a trunk, read by the last layers of all heads
        root = norm.rpartition("trunk/")[0]
        found = [path.removesuffix("/kernel") for path in leaves if path.startswith(f"{root}heads/")]
    found = [each for each in found if f"{each}/kernel" in leaves]
    if not found:
        raise UserError(f"what reads {norm} is factored, but streams are rotated between dense projections alone.")
    return found


def _with_biases(config: Any) -> Any:
    if isinstance(config, ZippedConfig):
        return dataclasses.replace(config, of=_with_biases(config.of))
    return dataclasses.replace(config, qkv_bias=True)
