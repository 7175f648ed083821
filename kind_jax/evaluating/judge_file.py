"""The judge on disk: one safetensors file, checked against the network in names, shapes, dtypes and values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import pydantic
import safetensors.numpy

from kind_jax import model, partition
from kind_jax.config.networks import CNNConfig
from kind_jax.errors import UserError
from kind_jax.evaluating.intervals import Interval, wilson
from kind_jax.files import atomic_write_bytes
from kind_jax.untrusted import documents, tensors
from kind_jax.untrusted.info import Info
from kind_jax.untrusted.text import printable

_KEY = "kind_jax.judge"
_Size = Annotated[int, pydantic.Field(ge=1, le=16_384)]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class HeldOut(_Strict):
    """How often the judge is right on real images that it was not trained on.

    Attributes:
      right: images in which it sees the class of their label.
      images: all held-out images.
      share: of each class's training images that was held out; None where images of their own were given.
    """

    right: Annotated[int, pydantic.Field(ge=0)]
    images: Annotated[int, pydantic.Field(ge=1)]
    share: Annotated[float, pydantic.Field(gt=0, lt=1)] | None = None

    @pydantic.model_validator(mode="after")
    def _possible(self) -> HeldOut:
        if self.right > self.images:
            raise ValueError(f"right is {self.right}, but it must be at most images, which is {self.images}")
        return self

    @property
    def accuracy(self) -> float:
        """Share of the held-out images that it is right on."""
        return self.right / self.images

    @property
    def interval(self) -> Interval:
        """95 % interval of the accuracy."""
        return wilson(self.right, self.images)

    @property
    def origin(self) -> str:
        """Which images were held out, in words."""
        if self.share is None:
            return "the test split"
        return f"{self.share:.0%} of the training images, of every class, which the judge was not trained on"

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"right on {self.accuracy:.1%} [{low:.1%}, {high:.1%}] of {self.images:,} held-out images ({self.origin})"
        )


class Facts(_Strict):
    """What the file says about the judge beside its weights; ``held_out`` and ``steps`` are absent from old files."""

    shape: tuple[_Size, _Size, _Size]
    num_classes: Annotated[int, pydantic.Field(ge=1, le=1_000_000)]
    fingerprint: Annotated[str, pydantic.Field(max_length=64)]
    held_out: HeldOut | None = None
    steps: Annotated[int, pydantic.Field(ge=0)] = 0


def _flat(weights: partition.Collections) -> dict[str, Any]:
    return {path.replace("/", "."): leaf for path, leaf in partition.flatten(weights).items()}


def write(path: str | Path, weights: partition.Collections, facts: Facts) -> None:
    """Save weights and facts atomically."""
    leaves = {name: np.asarray(leaf) for name, leaf in _flat(weights).items()}
    header = {_KEY: facts.model_dump_json()}
    atomic_write_bytes(path, safetensors.numpy.save(leaves, header))


def _facts(header: dict[str, str], path: Path) -> Facts:
    if _KEY not in header:
        raise UserError(
            f"{str(path)!r} is a safetensors file without the entry {_KEY!r}, but it must be a saved judge."
        )
    documents.parse(header[_KEY].encode(), f"The entry {_KEY} of {path}")
    try:
        return Facts.model_validate_json(header[_KEY])
    except pydantic.ValidationError as e:
        first = e.errors()[0]
        entry = printable(".".join([_KEY, *map(str, first["loc"])]))
        raise UserError(f"The judge {str(path)!r} has a wrong entry {entry}: {first['msg']}.") from e


def read_facts(path: str | Path) -> Facts:
    """The facts alone, whatever the tensors are."""
    return _facts(tensors.look(_existing(path)).metadata, Path(path))


def read(path: str | Path) -> tuple[Facts, partition.Collections]:
    """Load and check; see :meth:`kind_jax.evaluating.judge.Judge.load`."""
    path = _existing(path)
    facts = read_facts(path)
    if facts.shape[0] != facts.shape[1]:
        raise UserError(f"The judge {str(path)!r} is of images {facts.shape}, but they must be square.")
    try:
        settings = CNNConfig(size=facts.shape[0], channels=facts.shape[2], num_classes=facts.num_classes)
    except UserError as e:
        raise UserError(f"The judge {str(path)!r} is of a network that there is not: {e}") from e
    shapes = model.definition(settings)[1]
    specs = _flat(shapes)
    found = tensors.read(path, lambda header: _check(header.arrays, specs, path))
    for name, tensor in found.items():
        if not np.isfinite(tensor).all():
            raise UserError(f"The judge {str(path)!r} has values in {name!r} that are not finite.")
    if facts.held_out is None:
        raise UserError(
            f"The judge {str(path)!r} does not say how often it is right on held-out images; train it anew."
        )
    leaves = {path: jnp.asarray(found[path.replace("/", ".")]) for path in partition.flatten(shapes)}
    return facts, {name: {} for name in shapes} | partition.unflatten(leaves)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"The judge {str(path)!r} must be a file, but no such file exists.")
    return path


def _check(found: dict[str, Info], wanted: dict[str, Any], path: Path) -> None:
    for name, spec in wanted.items():
        if name not in found:
            raise UserError(f"The judge {str(path)!r} lacks the tensor {name!r}.")
        needed = Info(tuple(spec.shape), spec.dtype.name)
        if found[name] != needed:
            raise UserError(f"The judge {str(path)!r} has {name!r} as {found[name]}, but it must be {needed}.")
    for name in sorted(found.keys() - wanted.keys()):
        raise UserError(f"The judge {str(path)!r} has the tensor '{printable(name)}', which the network does not know.")
