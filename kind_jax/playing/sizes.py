"""Models of all sizes that a page asks for, composed once each."""

from __future__ import annotations

import functools

from kind_jax.deploy.bundle import Bundle
from kind_jax.deploy.compose import Composed, compose, smallest
from kind_jax.playing.controls import Controls

_KEPT = 8  # composed models in memory, the last ones used


class Sizes:
    """Compositions of one bundle; the last few are kept."""

    def __init__(self, bundle: Bundle) -> None:
        @functools.lru_cache(maxsize=256)
        def least(classes: tuple[int, ...]) -> int:
            return smallest(bundle, classes=classes).parameters

        @functools.lru_cache(maxsize=_KEPT)
        def within(classes: tuple[int, ...], max_params: int | None) -> Composed:
            return compose(bundle, classes=classes, max_params=max_params)

        self._least, self._within = least, within

    def of(self, controls: Controls) -> Composed:
        """The model that the controls ask for; without a budget it is exact.

        Raises:
          UserError: a budget below the smallest model that there is, or a class that is unknown or not aboard.
        """
        return self._within(tuple(sorted(controls.classes)), self.budget(controls))

    def budget(self, controls: Controls) -> int | None:
        """Most parameters that the controls allow; None: nothing is to be left out.

        Raises:
          UserError: a class that is unknown or not aboard.
        """
        if controls.max_params is not None:
            return controls.max_params
        if controls.share == 1:
            return None
        classes = tuple(sorted(controls.classes))
        least, whole = self._least(classes), self._within(classes, None).after.parameters
        return least + round(controls.share * max(whole - least, 0))
