"""What is common to reading and writing other programs' classifiers, whatever their network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from kind_jax import model, partition
from kind_jax.config.check import require
from kind_jax.errors import UserError
from kind_jax.interchange import layouts, state_dict
from kind_jax.interchange.names import StateDict
from kind_jax.untrusted.text import printable

Found = Mapping[str, Shaped[np.ndarray, "..."]]
"""Arrays by name, as a file has them: of any shape and dtype."""

Moments = tuple[float, ...] | None
"""The mean or the standard deviation of each channel, of images in [0, 1]; None for what the program is known for."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Means and standard deviations of ImageNet's channels."""

HALF = (0.5,), (0.5,)
"""Those that bring images to [-1, 1], whatever their channels."""


def floats(found: Found, origin: object) -> StateDict:
    """The arrays as float32.

    Raises:
      UserError: one has another dtype than float32, float16 or bfloat16; it is named.
    """
    for name, array in found.items():
        if array.dtype.name not in state_dict.FLOATS:
            raise UserError(
                f"{origin}: '{printable(name)}' has dtype {array.dtype.name}, but it must be one of "
                f"{', '.join(state_dict.FLOATS)}."
            )
    return {name: array.astype(np.float32, copy=False) for name, array in found.items()}


def shape(found: Found, name: str, axes: str, origin: object) -> tuple[int, ...]:
    """The shape of an array that sizes follow from.

    Args:
      axes: what its axes are, like ``width, channels, patch, patch``; those of one name are of one length, a 1 is one.

    Raises:
      UserError: it is absent, empty, or has other axes.
    """
    if name not in found:
        raise UserError(f"{origin} lacks the array '{name}' of shape [{axes}].")
    lengths, names = found[name].shape, axes.split(", ")
    known: dict[str, int] = {"1": 1}
    fits = len(lengths) == len(names) and all(n > 0 and known.setdefault(axis, n) == n
                                              for axis, n in zip(names, lengths, strict=True))  # fmt: skip
    if not fits:
        raise UserError(f"{origin}: '{name}' has shape {lengths}, but it must be [{axes}].")
    return lengths


def moments(
    mean: Moments, std: Moments, usual: tuple[tuple[float, ...], tuple[float, ...]], channels: int, origin: object
) -> dict[str, Any]:
    """``mean`` and ``std`` as settings of a network, or where neither is given the ``usual`` ones.

    Args:
      usual: one number is for all channels.

    Raises:
      UserError: neither is given, and the usual ones are for another number of channels.
    """
    if mean is None and std is None:
        if len(usual[0]) not in (1, channels):
            raise UserError(
                f"--mean and --std are not given, but they must be, since {origin} has {channels} channels and the "
                f"usual ones are of {len(usual[0])}."
            )
        mean, std = (values * (channels // len(values)) for values in usual)
    return {"mean": mean, "std": std}


def read(places: layouts.Places, config: Any, found: StateDict, origin: object) -> partition.Collections:
    """The collections of a network of these settings.

    Raises:
      UserError: an array is missing, unknown, of another shape, or not finite; it is named.
    """
    state_dict.check(found, layouts.shapes(places, config), origin)
    return layouts.to_collections(places, found)


def write(places: layouts.Places, config: Any, collections: partition.Collections) -> StateDict:
    """The inverse of :func:`read`.

    Raises:
      UserError: the collections are not those of the config.
    """
    partition.check_like(collections, model.definition(config)[1], "the model to be written")
    return {name: np.ascontiguousarray(a) for name, a in layouts.to_state_dict(places, collections).items()}


def check_eps(config: Any, wanted: float, program: str) -> None:
    """Refuse another epsilon than the program's, which is in no array.

    Raises:
      UserError: see there.
    """
    require(
        config.norm_eps == wanted, "model.norm_eps", config.norm_eps, f"{wanted:g}, as {program}'s networks have it"
    )
