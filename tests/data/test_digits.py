import numpy as np
from sklearn.datasets import load_digits

from kind_jax.config import DataConfig
from kind_jax.data.dataset import open_dataset


def test_splits_partition_sklearns_digits_and_are_stratified(digits_root):
    source = load_digits()
    scaled = np.rint(source.images * (255 / 16)).astype(np.uint8)
    number = {image.tobytes(): i for i, image in enumerate(scaled)}
    assert len(number) == 1797  # no two images are equal, so an image names its record

    found = {}
    for split, records in (("train", 1297), ("test", 500)):
        dataset = open_dataset(DataConfig(path=str(digits_root)), split)
        batch = dataset.source.gather(range(len(dataset.source)))
        assert batch["image"].shape == (records, 8, 8, 1)
        assert batch["image"].dtype == np.float32
        assert batch["label"].dtype == np.int32
        assert batch["image"].min() == -1
        assert batch["image"].max() == 1
        pixels = (batch["image"] + 1) * 127.5
        np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-4)
        found[split] = [number[image.tobytes()] for image in np.rint(pixels).astype(np.uint8)]
        np.testing.assert_array_equal(batch["label"], source.target[found[split]])

    assert sorted(found["train"] + found["test"]) == list(range(1797))
    np.testing.assert_array_equal(np.bincount(source.target[found["test"]]), np.full(10, 50))
