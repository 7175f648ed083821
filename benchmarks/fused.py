"""Which attention is in a compiled program, from its HLO text."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
from accelerator_log import WrongError

from kind_jax.nn.attention import implementation

_TARGET = re.compile(r'custom_call_target="([^"]+)"')
# What cuDNN's fused attention is called by: __cudnn$fmhaSoftmax, __cudnn$fmhaSoftmaxBackward, and variants.
_FUSED = re.compile(r"^__cudnn\$fmha[\w$]*$", re.IGNORECASE)


def targets(text: str) -> dict[str, int]:
    """Custom calls of a program by name, and how often each stands there; the body of a loop counts once."""
    found: dict[str, int] = {}
    for name in _TARGET.findall(text):
        found[name] = found.get(name, 0) + 1
    return dict(sorted(found.items()))


def attention(text: str) -> dict[str, int]:
    """How many calls of cuDNN's fused attention a program has, forward and backward."""
    calls = [(name, n) for name, n in targets(text).items() if _FUSED.match(name)]
    backward = sum(n for name, n in calls if "backward" in name.lower())
    return {"forward": sum(n for _, n in calls) - backward, "backward": backward}


def expected(dtype: str, features: int, device: Any = None) -> bool:
    """Whether the package asks for cuDNN's attention, for heads of ``features``; None is the default device."""
    return implementation(jax.devices()[0] if device is None else device, jnp.dtype(dtype), features) == "cudnn"


def check(text: str, *, wanted: bool) -> dict[str, int]:
    """:func:`attention` of a training step, which must have both passes where fused attention is ``wanted``.

    Raises:
      WrongError: it has not.
    """
    found = attention(text)
    if wanted and not (found["forward"] and found["backward"]):
        raise WrongError(
            f"cuDNN's fused attention was asked for, but the compiled training step has {found['forward']} calls of it "
            f"forward and {found['backward']} backward",
            {"fused_attention": found, "custom_calls": targets(text)},
        )
    return found
