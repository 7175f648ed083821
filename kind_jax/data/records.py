"""Records of a prepared data set that is too large for memory."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Int32

from kind_jax.data.bad import check_share, read_around
from kind_jax.data.decode import BadImage, to_float
from kind_jax.data.prepared import damaged, refuse_damage
from kind_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSource:
    """Records read and decoded when they are asked for.

    Attributes:
      records: TFDS data source that gives uint8 images and labels of the data set.
      keep: which records are used; None is all of them.
      renumber: the new label of each label of the data set, -1 for one that is not selected.
      image_shape: (H, W, C) of every image.
      folder: named in errors.
    """

    records: Any
    keep: Int32[np.ndarray, " N"] | None
    renumber: Int32[np.ndarray, " K"]
    image_shape: tuple[int, int, int]
    folder: Path

    def __len__(self) -> int:
        return len(self.records) if self.keep is None else len(self.keep)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        batch = self.gather([operator.index(index)])
        return {"image": batch["image"][0], "label": batch["label"][0]}

    def gather(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        try:
            rows = [self._checked(row) for row in self.records.__getitems__([self._number(i) for i in indices])]
            bad = np.full(len(rows), -1, np.int64)
        except UserError:
            raise
        except Exception:  # TFDS fails as a whole: whose fault it is shows one by one
            rows, bad = read_around(indices, len(self), self._read)
        labels = self.renumber[[label for _, label in rows]]
        return {"image": to_float(np.stack([image for image, _ in rows])), "label": labels, "bad": bad}

    def explain(self, index: int) -> str:
        """The name of a record and why it cannot be read."""
        name = f"record {self._number(index)} of {str(self.folder)!r}"
        try:
            self._read(index)
        except BadImage as e:
            return f"{name}: {e}"
        return f"{name}: it could not be read a moment ago, but now it can"

    def gather_good(self, indices: range, limit: float, bad: list[str]) -> dict[str, np.ndarray]:
        """Those of several records that can be read, with their ``index``; ``bad`` gets a line about each other one.

        Raises:
          UserError: ``bad`` has more lines than the share ``limit`` of all records, which is ``data.skip_bad``.
        """
        batch = self.gather(indices)
        replaced = batch["bad"]
        for index in replaced[replaced >= 0].tolist():
            bad.append(self.explain(index))
            check_share(len(bad), len(self), limit, lambda: bad[-1])
        return {name: array[replaced < 0] for name, array in {**batch, "index": np.asarray(indices)}.items()}

    def refuse_damaged_files(self, indices: range) -> None:
        """Tell damaged files from sound ones that hold a bad record.

        Raises:
          UserError: the bytes of a record are not what was written.
        """
        with refuse_damage(self.folder):
            self.records.data_source.__getitems__([self._number(index) for index in indices])

    def _number(self, index: int) -> int:
        return int(index if self.keep is None else self.keep[index])

    def _read(self, index: int) -> tuple[np.ndarray, int]:
        try:
            return self._checked(self.records.__getitems__([self._number(index)])[0])
        except (BadImage, UserError):
            raise
        except Exception as e:  # ArrayRecord, protobuf and Pillow raise many types
            raise BadImage(" ".join(str(e).split())[:200] or type(e).__name__) from e

    def _checked(self, row: dict[str, Any]) -> tuple[np.ndarray, int]:
        image, label = row["image"], int(row["label"])
        if not 0 <= label < len(self.renumber):
            raise damaged(self.folder, f"a label is outside 0..{len(self.renumber) - 1}")
        if image.shape != self.image_shape:
            raise BadImage(f"its image has the shape {image.shape}, not {self.image_shape}")
        return image, label
