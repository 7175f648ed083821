"""Factored weights, and what the settings of all transformers that have some share: sizes, forms, groups."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from kind_jax.config.check import STRICT, gathered, require
from kind_jax.errors import UserError

Contraction = Literal["auto", "factored", "folded"]

Energy = Literal["none", "rescale", "shuffle", "shuffle_rescale"]

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


class Transformer:
    """Sizes, groups and forms of a transformer's blocks; its settings inherit from it and have the fields below."""

    if TYPE_CHECKING:
        size: int
        channels: int
        patch: int
        width: int
        depth: int
        heads: int
        mlp_ratio: float
        num_classes: int
        groups: tuple[int, ...] | None
        factor: FactorConfig

    def _check_sizes(self, seen: str = "size") -> bool:
        """Whether the sizes are possible at all, so that others can be compared with them.

        Args:
          seen: the setting that is the size of the images that the network itself sees.
        """
        values = {name: getattr(self, name) for name in _MOST}
        wanted = {name: f"1 or more, at most {most}" for name, most in _MOST.items()}
        if [n for n, v in values.items() if not require(1 <= v <= _MOST[n], f"model.{n}", v, wanted[n])]:
            return False
        fits = 0 < self.mlp_ratio <= _MOST_RATIO and round(self.width * self.mlp_ratio) >= 1
        wanted = f"at most {_MOST_RATIO} and leave the MLP at least one unit"
        require(fits, "model.mlp_ratio", self.mlp_ratio, wanted)
        size = getattr(self, seen)
        require(size % self.patch == 0, "model.patch", self.patch, f"a divisor of model.{seen}, which is {size}")
        require(
            self.width % self.heads == 0, "model.heads", self.heads, f"a divisor of model.width, which is {self.width}"
        )
        return True

    def _check_weights(self) -> None:
        if self.groups is not None:
            check_groups(self.groups, self.num_classes)
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
        for name in self.factor.projections:
            wanted = f"of {', '.join(self.projection_sizes)}"
            require(name in self.projection_sizes, "model.factor.projections", self.factor.projections, wanted)
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
    def stacks(self) -> tuple[int, ...]:
        """Depths of the stacks that the blocks are held in, see :mod:`kind_jax.nn.stack`: all in one, but for a network
        of which parts alone are trained (:mod:`kind_jax.assembling.cuts`)."""
        return (self.depth,)

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
    def least_parameters(self) -> tuple[int, int, int]:
        """What learngenes, params and the tailors of one group hold at least; takes no time, whatever the sizes."""
        shared, dense, own = self.block_parameters
        return shared, dense + self.depth * self.width, own // self.num_groups  # as many biases at least

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
    def projection_sizes(self) -> dict[str, tuple[int, int]]:
        """(d_in, d_out) of every projection of a block, the attention input fused or separate as ``factor`` asks."""
        width, hidden = self.width, round(self.width * self.mlp_ratio)
        inputs = dict.fromkeys(("q", "k", "v"), (width, width)) if self.factor.separate else {"qkv": (width, 3 * width)}
        return inputs | {"o": (width, width), "mlp_in": (width, hidden), "mlp_out": (hidden, width)}


def check_groups(groups: tuple[int, ...], num_classes: int) -> None:
    """Refuse groups that are not one for each class, or not numbered from 0 without gaps.

    Raises:
      UserError: see there.
    """
    require(len(groups) == num_classes, "model.groups", groups, f"one group for each of the {num_classes} classes")
    require(
        min(groups) == 0 and len(set(groups)) == max(groups) + 1, "model.groups", groups,
        "numbered 0, 1, 2, ... without gaps",
    )  # fmt: skip
