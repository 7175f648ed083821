"""FLOPs of a program, from its jaxpr: matrix products and convolutions, two for each multiply-add."""

from __future__ import annotations

import math
from typing import Any


def count(jaxpr: Any) -> float:
    """Of a (closed) jaxpr and of those inside it.

    The body of a scan counts as often as it runs, and of several branches the one with the most: of what is computed
    otherwise on CPU, the form of other platforms.
    """
    total = 0.0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, out = equation.primitive.name, getattr(next(iter(equation.outvars), None), "aval", None)
        if name == "dot_general" and out is not None:
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval
            total += 2.0 * out.size * math.prod(left.shape[axis] for axis in contracted)
        elif name == "conv_general_dilated" and out is not None:
            kernel, spec = equation.invars[1].aval, equation.params["dimension_numbers"].rhs_spec
            # A dilated input, as gradients of strided convolutions have, is mostly zeros that nobody multiplies.
            spread = math.prod(equation.params["lhs_dilation"])
            total += 2.0 * out.size * kernel.size / kernel.shape[spec[0]] / spread
        total += max(map(count, equation.params.get("branches", ())), default=0.0)
        times = equation.params["length"] if name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += times * count(inner)
    return total
