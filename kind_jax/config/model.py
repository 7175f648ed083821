"""The network of a diffusion transformer."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from kind_jax.config.check import STRICT, gathered, require
from kind_jax.config.factored import Contraction, FactorConfig, Transformer
from kind_jax.errors import UserError

_MOST_BLOCKS = 1000

TimeFrequencies = Literal["dit", "diffusers"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Transformer):
    """A diffusion transformer (Peebles & Xie 2023) on images or latents of shape [size, size, channels].

    Attributes:
      num_classes: classes that the model knows; label ``num_classes`` is the null class.
      groups: the group of each class, numbered from 0; None makes every class a group of its own.
      null_gate: the gate of the null class: ``learngenes`` switches every tailor off, ``all`` switches every group
        on, ``mean`` switches every group on with weight 1/groups, ``keep`` leaves the gate of the sample's own class
        on and drops only its label embedding. ``all`` and ``mean`` cost time that grows with the groups.
      label_embedding: whether the class also enters through DiT's embedding table.
      learn_sigma: whether the model predicts a variance beside the mean (doubles the output channels).
      time_frequencies: how the 128 frequencies of the time features are spaced, exp(-ln(10⁴) i / n): ``dit`` has
        n = 128, as the official code, ``diffusers`` n = 127, as diffusers' DiTTransformer2DModel.
      mlp_norm_eps: what the norm before the MLP adds to the variance; DiT's other norms add 1e-6, and so does this one
        in the official code, but diffusers has a setting for it (norm_eps, 1e-5 unless told otherwise).
      scan_unroll: blocks in one iteration of the scan over depth; 0 unrolls the whole stack.
      dtype: the dtype of activations; parameters are float32.
      contraction: how components that all samples share meet their input: ``factored`` as two thin products, ``folded``
        as one product with the weight, which is multiplied out once a step, ``auto`` by FLOPs, from shapes alone.
        Changes speed and memory, not the model.
      remat: whether the backward pass recomputes each block instead of keeping its activations.
    """

    __pydantic_config__ = STRICT

    size: int = 32
    channels: int = 4
    patch: int = 2
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    groups: tuple[int, ...] | None = None
    null_gate: Literal["learngenes", "all", "mean", "keep"] = "learngenes"
    label_embedding: bool = True
    learn_sigma: bool = True
    time_frequencies: TimeFrequencies = "dit"
    mlp_norm_eps: float = 1e-6
    scan_unroll: int = 1
    remat: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    contraction: Contraction = "auto"
    factor: FactorConfig = FactorConfig()

    @gathered()
    def __post_init__(self) -> None:
        if not self._check_sizes():
            return
        eps = self.mlp_norm_eps
        require(0 < eps <= 1, "model.mlp_norm_eps", eps, "positive and at most 1")
        unroll, most = self.scan_unroll, _MOST_BLOCKS
        require(0 <= unroll <= most, "model.scan_unroll", unroll, f"0 (the whole stack) or more, at most {most}")
        require(
            self.width % 4 == 0, "model.width", self.width, "a multiple of 4 (the position embedding needs four parts)"
        )
        self._check_weights()

    @property
    def projection_sizes(self) -> dict[str, tuple[int, int]]:
        """(d_in, d_out) of every projection of a block, the attention input fused or separate as ``factor`` asks."""
        return super().projection_sizes | {"adaln": (self.width, 6 * self.width)}

    @property
    def out_channels(self) -> int:
        return self.channels * (2 if self.learn_sigma else 1)


_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}


def dit(name: str, **settings: Any) -> ModelConfig:
    """A published size by name, ``S/2`` to ``XL/8``, on 32 x 32 x 4 latents and 1000 classes unless told otherwise.

    Raises:
      UserError: the size or the patch is not one of DiT's.
    """
    require(isinstance(name, str), "name", name, "a size and a patch, like XL/2")
    size, _, patch = name.partition("/")
    if size not in _SIZES or patch not in ("2", "4", "8"):
        raise UserError(
            f"the model is {name!r:.100}, but it must be one of {', '.join(_SIZES)} with /2, /4 or /8, like 'B/2'."
        )
    width, depth, heads = _SIZES[size]
    sizes: dict[str, Any] = {"width": width, "depth": depth, "heads": heads, "patch": int(patch)}
    return ModelConfig(**(sizes | settings))
