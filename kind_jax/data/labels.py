"""Which classes of a data set are used, and what number each has. K: labels of the data set."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from kind_jax.classes import Typed
from kind_jax.config import DataConfig
from kind_jax.errors import UserError

_SEVERAL = re.compile(r",|^\d+(-\d+)?$")
_WNID = re.compile(r"n\d{8}\Z")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """The classes that ``data.protocol`` and ``data.classes`` choose.

    Attributes:
      names: of the chosen classes, in the order of their new numbers.
      known: names of all classes that there are to choose from.
      renumber: the new number of each label of the data set, -1 for one that is not used.
      fingerprint: what identifies the choice, as JSON values.
    """

    names: tuple[str, ...]
    known: tuple[str, ...]
    renumber: Int32[np.ndarray, " K"]
    fingerprint: dict[str, Any]

    @property
    def all_used(self) -> bool:
        """Whether no record is left out."""
        return bool((self.renumber >= 0).all())


def choose(config: DataConfig, names: Sequence[str], of: str) -> Labels:
    """The choice among the classes ``names`` of the data set ``of``.

    Raises:
      UserError: ``data.classes`` has a class that is none, or one twice, or ``data.protocol`` is not for this data set.
    """
    class_of = np.arange(len(names), dtype=np.int32)
    fingerprint: dict[str, Any] = {}
    if config.protocol is not None:
        names, class_of = _protocol(config.protocol, names, of)
        of = f"data.protocol {config.protocol!r}"
        digest = hashlib.sha256(class_of.astype("<i4").tobytes()).hexdigest()
        fingerprint["protocol"] = {"name": config.protocol, "sha256": digest}
    given = range(len(names)) if config.classes is None else config.classes
    classes = tuple(label for one in given for label in _labels(one, names, of))
    twice = next((one for one in classes if classes.count(one) > 1), None) if len(set(classes)) < len(classes) else None
    if twice is not None:
        raise UserError(f"data.classes names the class {twice} ({names[twice]!r}) twice, but it must name each once.")
    new = np.full(len(names) + 1, -1, np.int32)  # the last is for labels of no class, whose number is -1
    new[list(classes)] = np.arange(len(classes), dtype=np.int32)
    return Labels(
        names=tuple(names[label] for label in classes),
        known=tuple(names),
        renumber=new[class_of],
        fingerprint={"classes": list(classes), **fingerprint},
    )


def _labels(given: int | str, names: Sequence[str], of: str) -> Sequence[int]:
    """The numbers of classes that are given by number or name, or several in one text, like ``0-4`` or ``cat,dog``."""
    if isinstance(given, str) and given in names:
        return [names.index(given)]
    if isinstance(given, str) and _SEVERAL.search(given):
        return Typed("data.classes", (given,)).among(names)
    if isinstance(given, str) or not 0 <= given < len(names):
        some = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise UserError(
            f"data.classes contains {given!r:.200}, but the classes of {of} are 0 to {len(names) - 1}, by name: {some}."
        )
    return [given]


def _protocol(name: Any, names: Sequence[str], of: str) -> tuple[tuple[str, ...], Int32[np.ndarray, " K"]]:
    """Names of a protocol's classes, and the class of each label of the data set, -1 for none."""
    from kind_jax.data.classes import LABELS, imagenet_wnids, load_protocol

    table, wanted = load_protocol(name), f"the {LABELS} of ImageNet-1K in the order of their WordNet ids"
    if len(names) != LABELS:
        raise UserError(f"data.protocol is {name!r}, but {of} has {len(names)} classes, which must be {wanted}.")
    if all(map(_WNID.match, names)) and tuple(names) != imagenet_wnids():
        odd = next(i for i, (a, b) in enumerate(zip(names, imagenet_wnids(), strict=True)) if a != b)
        raise UserError(f"data.protocol is {name!r}, but class {odd} of {of} is {names[odd]!r}: they must be {wanted}.")
    return table.names, table.class_of(len(names))
