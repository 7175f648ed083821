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


def rotation(free: Float[Array, "L blocks free"], block: int) -> Float[Array, "L blocks side side"]:
    """The orthogonal blocks."""
    rows, columns = jnp.triu_indices(block, 1)
    upper = jnp.zeros((*free.shape[:2], block, block), free.dtype).at[:, :, rows, columns].set(free)
    skew = upper - jnp.swapaxes(upper, 2, 3)
    eye = jnp.broadcast_to(jnp.eye(block, dtype=free.dtype), skew.shape)
    # (I + Q) and (I - Q)^-1 commute, so the order of the factors is the solver's convenience.
    return jnp.linalg.solve(eye - skew, eye + skew)


def merge(
    kernel: Float[Array, "L d_in d_out"], arrays: dict[str, Float[Array, ...]], config: TransferConfig
) -> Float[Array, "L d_in d_out"]:
    depth, d_in, d_out = kernel.shape
    parts = kernel.reshape(depth, d_in // config.block, config.block, d_out)
    return jnp.einsum("lnij,lnjo->lnio", rotation(arrays["q"], config.block), parts).reshape(kernel.shape)
