import functools
import shutil

import numpy as np
import pytest

from kind_jax.config import DataConfig
from kind_jax.data.dataset import open_dataset
from kind_jax.data.prepared import prepare


@pytest.fixture(scope="session")
def digits_root(tmp_path_factory):
    """A data.path with the digits prepared; tests must not change it."""
    root = tmp_path_factory.mktemp("data")
    prepare("digits", root)
    return root


@pytest.fixture
def digits_copy(digits_root, tmp_path):
    """The same, to be damaged: (data.path, folder of the digits)."""
    shutil.copytree(digits_root, tmp_path / "copy")
    return tmp_path / "copy", tmp_path / "copy" / "digits" / "1.0.0"


@pytest.fixture(scope="session")
def records(tmp_path_factory):
    """A function: data.source to {split: (dataset, uint8 images [N, H, W], labels [N])}, prepared once a session."""

    @functools.cache
    def of(source):
        path = str(tmp_path_factory.mktemp(source))
        found = {}
        for split in ("train", "test"):
            dataset = open_dataset(DataConfig(source=source, path=path), split)
            batch = dataset.source.gather(range(len(dataset.source)))
            pixels = (batch["image"][..., 0] + 1) * 127.5
            np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-4)
            found[split] = dataset, np.rint(pixels).astype(np.uint8), batch["label"]
        return found

    return of


@pytest.fixture(scope="session")
def recognised(records):
    """A function: data.source to the share of each class's test images that a forest trained on the others knows."""

    def of(source):
        from sklearn.ensemble import ExtraTreesClassifier

        (_, train, known), (_, test, labels) = (records(source)[split] for split in ("train", "test"))
        # It sees pixels, not shapes, so it is also shown each image moved by a pixel.
        padded = np.pad(train, ((0, 0), (1, 1), (1, 1)), mode="edge")
        moved = np.concatenate([padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)])
        forest = ExtraTreesClassifier(100, random_state=0).fit(moved.reshape(-1, 64), np.tile(known, 9))
        right = forest.predict(test.reshape(-1, 64)) == labels
        return np.asarray([right[labels == label].mean() for label in range(labels.max() + 1)])

    return of
