"""What features go through before they are compared: small networks as nested dictionaries, thrown away in the end.

B: samples, D: features of a network, P: features that are compared.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
from jaxtyping import Array, Float

from kind_jax.nn.init import Initializer

_HIDDEN = {"linear": 0, "mocov2": 1, "simclrv2": 2}


def widths(kind: str, features: int, width: int) -> tuple[int, ...]:
    """The widths that a projector leads through, from a network's features to what is compared."""
    return (features,) * (1 + _HIDDEN[kind]) + (width,)


def connector(student: int, teacher: int) -> tuple[int, ...]:
    """Those of SRRL's connector, from the student's features to the teacher's (``mlp2`` of the published code)."""
    return student, (student + teacher) // 2, teacher


def layers(sizes: tuple[int, ...], init: Initializer) -> dict[str, Any]:
    """Kernels and biases of dense layers, drawn as PyTorch draws those of its own."""

    def layer(d_in: int, d_out: int) -> dict[str, Any]:
        bound = d_in**-0.5
        return {"kernel": init.uniform(d_in, d_out, bound=bound), "bias": init.uniform(d_out, bound=bound)}

    return {str(i): layer(*pair) for i, pair in enumerate(itertools.pairwise(sizes))}


def apply(tree: dict[str, Any], x: Float[Array, "B D"], *, rectified: bool = False) -> Float[Array, "B P"]:
    """The layers in order, with ReLU between them; ``rectified``: and after the last."""
    for i in range(len(tree)):
        layer = tree[str(i)]
        x = x @ layer["kernel"] + layer["bias"][None, :]
        if rectified or i < len(tree) - 1:
            x = jax.nn.relu(x)
    return x
