"""OFT (Qiu et al. 2023): R W with R orthogonal and block-diagonal, R = (I + Q)(I - Q)^-1 with Q skew (Cayley)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from kind_jax.config.transfer import TransferConfig
from kind_jax.errors import UserError

TRAINED: tuple[str, ...] = ()


def init(
    kernel: Float[Array, "L d_in d_out"], config: TransferConfig, key: PRNGKeyArray
) -> tuple[Float[Array, "L d_in d_out"], dict[str, Float[Array, ...]]]:
    """The upper triangle of every Q, zero at the start, so R = I.

    Raises:
      UserError: ``transfer.block`` does not divide the kernel's inputs.
    """
    del key
    depth, d_in, _ = kernel.shape
    if d_in % config.block:
        raise UserError(f"transfer.block is {config.block}, but it must divide {d_in}, the inputs of a kernel.")
    free = config.block * (config.block - 1) // 2
    return kernel, {"q": jnp.zeros((depth, d_in // config.block, free), kernel.dtype)}


_ITERATIONS = 20  # enough for rotations far beyond what training reaches: |Q|² up to 1e5


def rotation(free: Float[Array, "L blocks free"], block: int) -> Float[Array, "L blocks side side"]:
    """The orthogonal blocks.

    (I + Q)(I - Q)^-1 = (I + Q)² (I - Q²)^-1, and I - Q² = I + Q Qᵀ is symmetric with eigenvalues from 1 to 1 + |Q|²,
    so Newton's iteration for its inverse converges from a multiple of I. It is products of matrices only: a LAPACK
    solve in every step costs many times more on CPU, and does not run on a TPU's matrix unit.
    """
    rows, columns = jnp.triu_indices(block, 1)
    upper = jnp.zeros((*free.shape[:2], block, block), free.dtype).at[:, :, rows, columns].set(free)
    skew = upper - jnp.swapaxes(upper, 2, 3)
    eye = jnp.broadcast_to(jnp.eye(block, dtype=free.dtype), skew.shape)
    wanted = eye - skew @ skew
    largest = jnp.max(jnp.sum(jnp.abs(wanted), axis=3), axis=2)  # bounds the eigenvalues
    inverse = eye * (2 / (1 + largest))[:, :, None, None]
    for _ in range(_ITERATIONS):  # the error is squared each time; it begins at 1 - 2 / (1 + largest)
        inverse = inverse @ (2 * eye - wanted @ inverse)
    return (eye + skew) @ (eye + skew) @ inverse


def merge(
    kernel: Float[Array, "L d_in d_out"], arrays: dict[str, Float[Array, ...]], config: TransferConfig
) -> Float[Array, "L d_in d_out"]:
    depth, d_in, d_out = kernel.shape
    parts = kernel.reshape(depth, d_in // config.block, config.block, d_out)
    return jnp.einsum("lnij,lnjo->lnio", rotation(arrays["q"], config.block), parts).reshape(kernel.shape)
