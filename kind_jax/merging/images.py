"""Images that several models are matched on: as many of each task as the smallest has, mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from kind_jax.config.check import check_seed, is_whole, require
from kind_jax.data.sets import Dataset
from kind_jax.errors import UserError


class Mixed:
    """Batches of images [-1, 1], the same ones each time it is gone through.

    Attributes:
      count: how many images there are.
    """

    def __init__(self, tasks: Sequence[Dataset], *, count: int | None, batch: int, seed: int) -> None:
        """Args:
          tasks: a data set of each; models of one task may be given one.
          count: images in all; None takes as many of each task as the smallest has.

        Raises:
          UserError: more images than there are, or fewer than one of each task.
        """
        require(is_whole(batch) and batch >= 2, "batch", batch, "2 or more")
        check_seed(seed)
        least = min(len(task.source) for task in tasks)
        if count is not None:
            wanted = f"a whole number from {2 * len(tasks)} to {least * len(tasks)}, as many of each task"
            require(is_whole(count) and 2 * len(tasks) <= count <= least * len(tasks), "images", count, wanted)
            least = count // len(tasks)
        rng = np.random.default_rng(seed)
        chosen = [rng.permutation(len(task.source))[:least] for task in tasks]
        self._rows = np.asarray([(i, row) for i, rows in enumerate(chosen) for row in rows])[
            rng.permutation(least * len(tasks))
        ]
        self._tasks, self._batch, self.count = list(tasks), batch, len(self._rows)

    def __iter__(self) -> Iterator[Float[np.ndarray, "B H W C"]]:
        for start in range(0, self.count, self._batch):
            rows = self._rows[start : start + self._batch]
            if len(rows) < 2:  # too few for a variance
                return
            out: np.ndarray | None = None
            for i, task in enumerate(self._tasks):
                here = rows[:, 0] == i
                if not here.any():
                    continue
                found = task.source.gather(rows[here, 1])
                if "bad" in found and (np.asarray(found["bad"]) >= 0).any():
                    raise UserError("an image of the data cannot be read; leave it out with data.skip_bad.")
                images = found["image"]
                if out is None:
                    out = np.empty((len(rows), *images.shape[1:]), np.float32)
                out[here] = images
            assert out is not None
            yield out
