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
from kind_jax.config.networks import ViTConfig
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


def folded(config: Any, collections: Collections) -> tuple[Any, Collections]:
    """A vision transformer whose LayerNorms have gain 1 and offset 0, computing the same: W becomes diag(gain) W, and
    b becomes b + offset W.

    Returns:
      its settings, which have biases wherever offsets went, and its collections (NumPy).

    Raises:
      UserError: another network.
    """
    if not isinstance(config, ViTConfig):
        raise UserError(
            f"stream is 'orthogonal' for a {type(config).__name__.removesuffix('Config')}, but it must be 'identity' or "
            f"'permute': only a ViT's norms can be folded into what reads them."
        )
    flat = {name: dict(partition.flatten(tree)) for name, tree in collections.items()}
    leaves = {path: np.asarray(leaf) for path, leaf in flat[PARAMS].items()}
    inputs = ("q", "k", "v") if config.factor.separate else ("qkv",)
    for norm, readers in (
        ("blocks/norm_1", tuple(f"blocks/attention/{name}" for name in inputs)),
        ("blocks/norm_2", ("blocks/mlp_in",)),
        ("norm", ("head",)),
    ):
        gain, offset = leaves[f"{norm}/scale"], leaves[f"{norm}/bias"]
        for reader in readers:
            kernel = leaves.get(f"{reader}/kernel")
            if kernel is None:
                raise UserError(
                    f"{reader} is factored, but stream 'orthogonal' is for dense projections: compose the model first."
                )
            bias = leaves.get(f"{reader}/bias", np.zeros_like(kernel[..., 0, :]))
            leaves[f"{reader}/bias"] = bias + np.einsum("...i,...io->...o", offset, kernel)
            leaves[f"{reader}/kernel"] = gain[..., None] * kernel
        leaves[f"{norm}/scale"], leaves[f"{norm}/bias"] = np.ones_like(gain), np.zeros_like(offset)
    return dataclasses.replace(config, qkv_bias=True), {**collections, PARAMS: partition.unflatten(leaves)}
