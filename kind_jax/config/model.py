"""The network: sizes, factored weights, groups."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from kind_jax.config.check import STRICT, gathered, require
from kind_jax.errors import UserError

Contraction = Literal["auto", "factored", "folded"]

Energy = Literal["none", "rescale", "shuffle", "shuffle_rescale"]

TimeFrequencies = Literal["dit", "diffusers"]

Projection = Literal["qkv", "q", "k", "v", "o", "mlp_in", "mlp_out", "adaln"]

# Far beyond any model, but a config that somebody else wrote cannot ask for what no machine has.
_MOST = {
    "size": 16_384, "channels": 4096, "patch": 1024, "width": 65_536, "depth": 1000, "heads": 4096,
    "num_classes": 1_000_000,
}  # fmt: skip
_MOST_COMPONENTS = 2**20
_MOST_RATIO = 64
_MOST_PARAMETERS = 10**13


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """How one weight is held.

    Attributes:
      shared: components of the part that is always on; None for a dense kernel.
      tailors: components of each group; 0 for none.
    """

    shared: int | None
    tailors: int

    @property
    def plain(self) -> bool:
        """Whether the weight is an ordinary dense one."""
        return self.shared is None and not self.tailors


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorConfig:
    """Which weights are factored W = U diag(s) V, and how their components are dealt out.

    Attributes:
      projections: the projections of a block that are factored; the others stay dense. ``qkv`` is the fused
        projection, ``q``, ``k``, ``v`` the separate ones; asking for any of the three splits the attention input.
      learngenes: N_G, components shared by all classes, in every factored weight; None is half the width.
      tailors: components that each group of classes owns, in every factored weight; None is 5/64 of the width.
      rank: upper bound on N_G + groups * tailors in one weight; None asks for no bound.
      energy: what is done about learngenes starting with most of the initial energy, since singular values come
        sorted: ``none`` keeps the plain SVD, ``rescale`` gives the active part the energy of the dense weight,
        ``shuffle`` deals the components in random order, ``shuffle_rescale`` does both.
      ranks: the form of every projection of every block of a composed model, as (``block/projection``, components of
        the part that is always on or -1 for a dense kernel, components of each group or 0), like ("3/qkv", 20, 4).
        Where it is set, ``projections``, ``learngenes``, ``tailors`` and ``rank`` say nothing.
    """

    __pydantic_config__ = STRICT

    projections: tuple[Projection, ...] = ("qkv", "o", "mlp_in", "mlp_out")
    learngenes: int | None = None
    tailors: int | None = None
    rank: int | None = None
    energy: Energy = "rescale"
    ranks: tuple[tuple[str, int, int], ...] | None = None

    @gathered()
    def __post_init__(self) -> None:
        separate = {"q", "k", "v"} & set(self.projections)
        require(
            not (separate and "qkv" in self.projections),
            "model.factor.projections",
            self.projections,
            "either the fused 'qkv' or any of 'q', 'k', 'v', not both",
        )
        require(
            len(set(self.projections)) == len(self.projections),
            "model.factor.projections",
            self.projections,
            "free of repetitions",
        )
        for name in ("learngenes", "tailors"):
            value, most = getattr(self, name), _MOST_COMPONENTS
            require(value is None or 1 <= value <= most, f"model.factor.{name}", value, f"1 or more, at most {most}")
        most = _MOST_COMPONENTS * _MOST["num_classes"]
        require(
            self.rank is None or 1 <= self.rank <= most, "model.factor.rank", self.rank, f"1 or more, at most {most}"
        )
        for entry in self.ranks or ():
            possible = -1 <= entry[1] <= _MOST_COMPONENTS and 0 <= entry[2] <= _MOST_COMPONENTS
            wanted = f"a name, -1 (a dense kernel) or more, and 0 or more tailors, at most {_MOST_COMPONENTS} of each"
            require(possible, "model.factor.ranks", entry, wanted)

    @property
    def separate(self) -> bool:
        """Whether the attention input is three projections q, k and v instead of the fused qkv."""
        names = self.projections if self.ranks is None else [name.rpartition("/")[2] for name, _, _ in self.ranks]
        return not {"q", "k", "v"}.isdisjoint(names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
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
        values = {name: getattr(self, name) for name in _MOST}
        wanted = {name: f"1 or more, at most {most}" for name, most in _MOST.items()}
        if [n for n, v in values.items() if not require(1 <= v <= _MOST[n], f"model.{n}", v, wanted[n])]:
            return  # the other settings would be compared with these
        fits = 0 < self.mlp_ratio <= _MOST_RATIO and round(self.width * self.mlp_ratio) >= 1
        wanted = f"at most {_MOST_RATIO} and leave the MLP at least one unit"
        require(fits, "model.mlp_ratio", self.mlp_ratio, wanted)
        eps = self.mlp_norm_eps
        require(0 < eps <= 1, "model.mlp_norm_eps", eps, "positive and at most 1")
        unroll, most = self.scan_unroll, _MOST["depth"]
        require(0 <= unroll <= most, "model.scan_unroll", unroll, f"0 (the whole stack) or more, at most {most}")
        require(
            self.size % self.patch == 0, "model.patch", self.patch, f"a divisor of model.size, which is {self.size}"
        )
        require(
            self.width % self.heads == 0, "model.heads", self.heads, f"a divisor of model.width, which is {self.width}"
        )
        require(
            self.width % 4 == 0, "model.width", self.width, "a multiple of 4 (the position embedding needs four parts)"
        )
        if self.groups is not None:
            require(
                len(self.groups) == self.num_classes,
                "model.groups",
                self.groups,
                f"one group for each of the {self.num_classes} classes",
            )
            require(
                min(self.groups) == 0 and len(set(self.groups)) == max(self.groups) + 1,
                "model.groups",
                self.groups,
                "numbered 0, 1, 2, ... without gaps",
            )
        self._check_components()
        parameters = sum(self.block_parameters)
        require(
            parameters <= _MOST_PARAMETERS,
            "model",
            parameters,
            f"such that its blocks have at most {_MOST_PARAMETERS} parameters",
        )

    def _check_components(self) -> None:
        rank, n_g, n_t = self.factor.rank, self.learngenes, self.tailors
        if self.factor.ranks is not None:
            self._check_ranks(self.factor.ranks)
            return
        if not self.factor.projections:
            return
        if rank is None:
            return
        if not require(n_g <= rank, "model.factor.learngenes", n_g, f"at most model.factor.rank, which is {rank}"):
            return
        need = n_g + self.num_groups * n_t
        require(
            need <= rank,
            "model.factor.tailors",
            n_t,
            f"such that {n_g} learngenes and {self.num_groups} groups of tailors fit model.factor.rank = {rank}: "
            f"they need {need}, so at most {(rank - n_g) // self.num_groups} tailors a group fit",
        )

    def _check_ranks(self, ranks: tuple[tuple[str, int, int], ...]) -> None:
        names = [name for name, _, _ in ranks]
        wanted = {f"{block}/{name}" for block in range(self.depth) for name in self.projection_sizes}
        for name in sorted(wanted - set(names)):
            raise UserError(f"model.factor.ranks lacks '{name}', but it must name every projection of every block.")
        for name in names:
            if name not in wanted:
                raise UserError(f"model.factor.ranks names '{name}', but this model has no such projection.")
        require(len(set(names)) == len(names), "model.factor.ranks", names, "free of repetitions")

    @property
    def projection_sizes(self) -> dict[str, tuple[int, int]]:
        """(d_in, d_out) of every projection of a block, the attention input fused or separate as ``factor`` asks."""
        width, hidden = self.width, round(self.width * self.mlp_ratio)
        inputs = dict.fromkeys(("q", "k", "v"), (width, width)) if self.factor.separate else {"qkv": (width, 3 * width)}
        return inputs | {
            "o": (width, width),
            "mlp_in": (width, hidden),
            "mlp_out": (hidden, width),
            "adaln": (width, 6 * width),
        }

    @property
    def forms(self) -> dict[str, Form]:
        """The form of every projection of every block by its name, like ``3/qkv``, blocks in order."""
        ranks = self.factor.ranks
        if ranks is not None:
            given = {name: Form(shared=None if n < 0 else n, tailors=m) for name, n, m in ranks}
            return {f"{i}/{name}": given[f"{i}/{name}"] for i in range(self.depth) for name in self.projection_sizes}
        factored, dense = Form(shared=self.learngenes, tailors=self.tailors), Form(shared=None, tailors=0)
        return {
            f"{i}/{name}": factored if name in self.factor.projections else dense
            for i in range(self.depth)
            for name in self.projection_sizes
        }

    @property
    def block_parameters(self) -> tuple[int, int, int]:
        """Parameters of all blocks' weights, without biases: learngenes, dense kernels, tailors of all groups."""
        sizes, entries, times = self.projection_sizes, self.factor.ranks, 1
        if entries is None:
            form, plain, times = (self.learngenes, self.tailors), (-1, 0), self.depth
            entries = tuple((name, *(form if name in self.factor.projections else plain)) for name in sizes)
        shared = dense = own = 0
        for name, n_g, n_t in entries:
            d_in, d_out = sizes[name.rpartition("/")[2]]
            shared += max(n_g, 0) * (d_in + d_out + 1)
            dense += d_in * d_out if n_g < 0 else 0
            own += n_t * (d_in + d_out + 1)
        return times * shared, times * dense, times * own * self.num_groups

    @property
    def num_groups(self) -> int:
        return self.num_classes if self.groups is None else max(self.groups) + 1

    @property
    def group_of_class(self) -> tuple[int, ...]:
        return tuple(range(self.num_classes)) if self.groups is None else self.groups

    @property
    def learngenes(self) -> int:
        """N_G of every factored weight."""
        return self.width // 2 if self.factor.learngenes is None else self.factor.learngenes

    @property
    def tailors(self) -> int:
        """Tailors of one group in every factored weight."""
        return max(1, self.width * 5 // 64) if self.factor.tailors is None else self.factor.tailors

    @property
    def out_channels(self) -> int:
        return self.channels * (2 if self.learn_sigma else 1)


_SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}


def dit(name: str, **settings: Any) -> ModelConfig:
    """A published size by name, ``S/2`` to ``XL/8``, on 32 x 32 x 4 latents and 1000 classes unless told otherwise.

    Raises:
      UserError: the size or the patch is not one of DiT's.
    """
    size, _, patch = name.partition("/")
    if size not in _SIZES or patch not in ("2", "4", "8"):
        raise UserError(
            f"the model is {name!r}, but it must be one of {', '.join(_SIZES)} with /2, /4 or /8, like 'B/2'."
        )
    width, depth, heads = _SIZES[size]
    sizes: dict[str, Any] = {"width": width, "depth": depth, "heads": heads, "patch": int(patch)}
    return ModelConfig(**(sizes | settings))
