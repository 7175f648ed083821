"""Records of a prepared data set that is too large for memory."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Int32, Int64

from kind_jax.data.bad import check_share, read_around
from kind_jax.data.decode import BadImage, decode, to_float
from kind_jax.data.prepared import damaged, refuse_damage


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSource:
    """Records read and decoded when they are asked for.

    Attributes:
      records: TFDS data source that gives uint8 images, or contents of image files, and labels of the data set.
      keep: which records are used; None is all of them.
      renumber: the new label of each label of the data set, -1 for one that is not selected.
      image_shape: (H, W, C) of every image.
      folder: named in errors.
      encoded: whether images are contents of files, which are decoded to ``image_shape``; then a record may have no
        label, which is label 0.
    """

    records: Any
    keep: Int32[np.ndarray, " N"] | None
    renumber: Int32[np.ndarray, " K"]
    image_shape: tuple[int, int, int]
    folder: Path
    encoded: bool = False

    def __len__(self) -> int:
        return len(self.records) if self.keep is None else len(self.keep)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        batch = self.gather([operator.index(index)])
        return {"image": batch["image"][0], "label": batch["label"][0]}

    def gather(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        return self.gather_records(indices)[0]

    def gather_records(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[dict[str, np.ndarray], Int64[np.ndarray, " B"]]:
        """As :meth:`gather`, and the index of the record that stands in each row."""
        fetched = self._fetched(indices)

        def read(index: int) -> tuple[tuple[np.ndarray, int], int]:
            return self._checked(fetched[index] if index in fetched else self._row(index)), index

        rows, bad = read_around(indices, len(self), read)
        records = np.asarray([index for _, index in rows], np.int64)
        images = to_float(np.stack([image for (image, _), _ in rows]))
        return {"image": images, "label": self.renumber[[label for (_, label), _ in rows]], "bad": bad}, records

    def rows(self, indices: Sequence[int]) -> list[dict[str, Any] | BadImage]:
        """Records as TFDS gives them, or why one cannot be read."""
        fetched = self._fetched(indices)

        def row(index: int) -> dict[str, Any] | BadImage:
            try:
                return fetched[index] if index in fetched else self._row(index)
            except BadImage as e:
                return e

        return [row(index) for index in indices]

    def called(self, index: int) -> str:
        """The name of a record."""
        return f"record {self._number(index)} of {str(self.folder)!r}"

    def explain(self, index: int) -> str:
        """The name of a record and why it cannot be read."""
        name = self.called(index)
        try:
            self._checked(self._row(index))
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

    def selected(self, indices: range, limit: float, bad: list[str]) -> list[int]:
        """The numbers of those of several records that are of a class in use; images are not decoded.

        Raises:
          UserError: as :meth:`gather_good`.
        """
        fetched, found = self._fetched(indices), []
        for index in indices:
            try:
                _, label = self._parts(fetched[index] if index in fetched else self._row(index))
            except BadImage:
                bad.append(self.explain(index))
                check_share(len(bad), len(self), limit, lambda: bad[-1])
                continue
            if self.renumber[label] >= 0:
                found.append(index)
        return found

    def labels_of(self, indices: range) -> list[int]:
        """The classes of several records, -1 of one that cannot be read; images are not decoded."""
        fetched, found = self._fetched(indices), []
        for index in indices:
            try:
                _, label = self._parts(fetched[index] if index in fetched else self._row(index))
            except BadImage:
                found.append(-1)
            else:
                found.append(int(self.renumber[label]))
        return found

    def refuse_damaged_files(self, indices: range) -> None:
        """Tell damaged files from sound ones that hold a bad record.

        Raises:
          UserError: the bytes of a record are not what was written.
        """
        with refuse_damage(self.folder):
            self.records.data_source.__getitems__([self._number(index) for index in indices])

    def _number(self, index: int) -> int:
        return int(index if self.keep is None else self.keep[index])

    def _fetched(self, indices: Sequence[int] | np.ndarray) -> dict[int, Any]:
        """Records by index as TFDS gives them; none if one of them cannot be read."""
        unique = list(dict.fromkeys(map(int, indices)))
        try:
            return dict(zip(unique, self.records.__getitems__([self._number(i) for i in unique]), strict=True))
        except Exception:  # TFDS fails as a whole: whose fault it is shows one by one
            return {}

    def _row(self, index: int) -> dict[str, Any]:
        try:
            return self.records.__getitems__([self._number(index)])[0]
        except Exception as e:  # ArrayRecord, protobuf and Pillow raise many types
            raise BadImage(" ".join(str(e).split())[:200] or type(e).__name__) from e

    def _parts(self, row: dict[str, Any]) -> tuple[Any, int]:
        """Image, not decoded if it is a file, and label of a record as TFDS gives it, None for what is absent."""
        image, label = row.get("image"), row.get("label", 0 if self.encoded else None)
        if image is None or label is None:
            raise BadImage(f"it has no {'label' if label is None else 'image'}")
        if not 0 <= int(label) < len(self.renumber):
            raise damaged(self.folder, f"a label is outside 0..{len(self.renumber) - 1}")
        if not self.encoded and image.shape != self.image_shape:
            raise BadImage(f"its image has the shape {image.shape}, not {self.image_shape}")
        return image, int(label)

    def _checked(self, row: dict[str, Any]) -> tuple[np.ndarray, int]:
        image, label = self._parts(row)
        if self.encoded:
            image = decode(image, self.image_shape[0], 1 if self.image_shape[2] == 1 else 3)
        return image, label
