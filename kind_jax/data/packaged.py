"""What the data sets share that are made from files inside installed packages: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from kind_jax.errors import UserError

SIDE = 8  # pixels, unless a data set says otherwise: a model of one of those of 8x8 pixels fits the others


def features(class_names: Sequence[str], *, side: int = SIDE) -> tfds.features.FeaturesDict:
    """Features of a record: ``image`` uint8 [side, side, 1] and ``label``, the number of its class."""
    # Tensor and not Image: TFDS encodes arrays given to Image with TensorFlow.
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Tensor(shape=(side, side, 1), dtype=np.uint8),
            "label": tfds.features.ClassLabel(names=list(class_names)),
        }
    )


class Packaged(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set with the splits ``train`` and ``test`` that is built without a download."""

    # No downloads, so no checksums. Looking for them, TFDS imports importlib_resources, which it does not require.
    url_infos = None

    @classmethod
    def config_of(cls, size: int | None) -> tfds.core.BuilderConfig | None:
        """TFDS's configuration for images of ``size`` pixels; None where a data set has images of one size alone."""
        del size

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in ("train", "test")}


def matplotlib_file(name: str) -> Path:
    """Path of a file that matplotlib packages, ``name`` below its data folder.

    Raises:
      UserError: this installation lacks it; some distributions remove the fonts or the sample data.
    """
    import matplotlib  # only needed once a machine

    path = Path(matplotlib.get_data_path(), name)
    if not path.is_file():
        raise UserError(f"{str(path)!r} is missing, but matplotlib must be installed whole, as pip installs it.")
    return path
