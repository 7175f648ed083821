"""How a model starts from another one."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from kind_jax.config.check import STRICT, gathered, require
from kind_jax.config.factored import Projection

Method = Literal["none", "kind", "full", "layers", "lora", "pissa", "dora", "svdiff", "oft"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Transfer to new classes or a new domain.

    Attributes:
      method: ``none`` is no transfer: training from scratch, or from a whole model (train.py --init). ``kind`` freezes
        learngenes and dense parameters and trains fresh tailors. ``full`` trains everything, starting from the source's
        weights. ``layers`` inherits only the blocks ``layers`` and trains everything (heuristic learngene). The others
        freeze a dense model and train adapters of its kernels: ``lora``, ``pissa``, ``dora``, ``svdiff``, ``oft``.
      thaw: frozen dense parameters that are trained all the same, as beginnings of their paths, like ``final`` or
        ``blocks/adaln``. The rows of new classes in a label embedding are always trained; ``kind`` keeps its null row.
      tailors: how fresh tailors begin. ``random``: as a new model's. ``silent``: the same with s = 0, so that the model
        begins as its learngenes. ``mean``: the mean over the source's groups. ``nearest``: a copy of the source's group
        that best denoises the new class's images.
      rank: of LoRA, PiSSA and DoRA.
      scale: LoRA's and DoRA's factor on the low-rank product (alpha / rank).
      block: side of OFT's orthogonal blocks.
      projections: the kernels that adapters adapt.
      layers: the blocks that ``layers`` inherits.
      source: SHA-256 of the weights that the run started from; written by the program.
    """

    __pydantic_config__ = STRICT

    method: Method = "none"
    thaw: tuple[str, ...] = ()
    tailors: Literal["random", "silent", "mean", "nearest"] = "random"
    rank: int = 4
    scale: float = 1.0
    block: int = 8
    projections: tuple[Projection, ...] = ("qkv", "o", "mlp_in", "mlp_out")
    layers: tuple[int, ...] = ()
    source: str = ""

    @gathered()
    def __post_init__(self) -> None:
        require(self.rank >= 1, "transfer.rank", self.rank, "1 or more")
        require(self.block >= 2, "transfer.block", self.block, "2 or more")
        require(math.isfinite(self.scale) and self.scale > 0, "transfer.scale", self.scale, "positive and finite")
        require(len(self.projections) > 0, "transfer.projections", self.projections, "at least one projection")
        require(all(i >= 0 for i in self.layers), "transfer.layers", self.layers, "numbers of blocks, from 0")
        asked = self.method == "layers"
        require(not asked or len(self.layers) > 0, "transfer.layers", self.layers, "at least one block to inherit")
