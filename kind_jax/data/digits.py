"""scikit-learn's handwritten digits as a TFDS data set, built without a download and without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from kind_jax.data.packaged import Packaged, features

_TEST_PER_CLASS = 50
_SPLIT_SEED = 0


class Digits(Packaged):
    """1797 grey images of 8x8 pixels, ten classes; 1297 train and 500 test records.

    The images come inside scikit-learn (``sklearn.datasets.load_digits``): the test part of UCI's "Optical Recognition
    of Handwritten Digits" (Alpaydin & Kaynak 1998), 13 writers. Both splits are drawn from it, so they share writers:
    the test split tells how well a model knows these writers' digits, not how it does on new writers.

    The split is stratified and fixed: exactly 50 records of every class go to ``test``, picked by a seeded permutation
    of the records of that class; the others go to ``train``.

    Features of a record:
      image: uint8 [8, 8, 1]. The source counts ink from 0 to 16; here 0 is 0 and 16 is 255, rounded between.
      label: the digit, 0 to 9.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS reads it from the class)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits, 8x8 pixels, as shipped inside scikit-learn.",
            features=features([str(digit) for digit in range(10)]),
            homepage="https://archive.ics.uci.edu/dataset/80",
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        from sklearn.datasets import load_digits  # slow to import, and only needed once a machine

        digits: Any = load_digits()
        # RandomState's stream is frozen for good (NEP 19), so every machine draws the same split.
        random = np.random.RandomState(_SPLIT_SEED)
        shuffled = [random.permutation(np.flatnonzero(digits.target == label)) for label in range(10)]
        test = np.concatenate([records[:_TEST_PER_CLASS] for records in shuffled])
        chosen = test if split == "test" else np.setdiff1d(np.arange(len(digits.target)), test)
        for record in np.sort(chosen).tolist():
            image = np.rint(digits.images[record] * (255 / 16)).astype(np.uint8)
            yield record, {"image": image[:, :, None], "label": int(digits.target[record])}
