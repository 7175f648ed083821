"""Class-grouped batches: whole classes together, and every record as often as any other."""

import numpy as np
import pytest

from kind_jax.data import grouped, pipeline
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.errors import UserError

TAILED = [400, 150, 60, 30, 12, 5, 2, 2]


def grouping(sizes, m, **settings):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return grouped.Grouping(per_class=m, labels=labels, **settings)


def batches(of, batch, count, seed=3):
    order = grouped.Grouped(of, batch=batch, seed=seed)
    return np.stack([order(k * batch, (k + 1) * batch) for k in range(count)])


@pytest.mark.parametrize(("sizes", "m", "batch"), [([40] * 10, 4, 40), ([41] * 7, 8, 24), (TAILED, 4, 8)])
def test_cohorts_are_of_one_class_and_records_are_met_equally_often(sizes, m, batch):
    of = grouping(sizes, m)
    epochs = 6
    found = batches(of, batch, epochs * sum(sizes) // batch)
    classes = of.labels[found].reshape(len(found), -1, m)
    assert (classes == classes[:, :, :1]).all()
    met = np.bincount(found.reshape(-1), minlength=len(of.labels))
    bound = np.ceil(m / np.asarray(sizes))[of.labels] + 1
    assert (np.abs(met - epochs) <= bound).all()
    if len(set(sizes)) == 1:
        assert all(len(set(row)) == batch // m for row in classes[:, :, 0])  # each class once in a batch


def test_a_class_larger_than_its_share_of_a_batch_is_spread_evenly():
    of = grouping([900, 50, 50], 5)
    found = of.labels[batches(of, 20, 50)].reshape(50, 4, 5)[:, :, 0]
    assert set(np.sum(found == 0, axis=1)) <= {3, 4}


def test_the_stream_is_the_same_read_in_any_parts_and_another_for_another_seed():
    of = grouping(TAILED, 4)
    order = grouped.Grouped(of, batch=8, seed=3)
    whole = batches(of, 8, 30).reshape(-1)
    assert np.array_equal(np.concatenate([order(a, min(a + 7, 240)) for a in range(0, 240, 7)]), whole)
    assert not np.array_equal(batches(of, 8, 30, seed=4).reshape(-1), whole)


def test_every_piece_of_a_batch_has_the_classes_of_its_own_stream():
    stream = (0, 0, 1, 1, 2, 2)
    of = grouping([30, 20, 40, 10, 25, 25], 4, stream=stream, replicas=2)
    pieces = of.labels[batches(of, 24, 20)].reshape(20, 2, 3, 4)
    for j in range(3):
        assert {stream[label] for label in pieces[:, :, j].reshape(-1)} == {j}


def test_batches_of_several_hosts_are_parts_of_one():
    labels = np.repeat(np.arange(5), 12).astype(np.int32)
    images = np.random.default_rng(0).uniform(-1, 1, (60, 4, 4, 1)).astype(np.float32)
    dataset = Dataset(
        source=MemorySource(images=images, labels=labels), class_names=tuple("abcde"), image_shape=(4, 4, 1),
        fingerprint={}, flip=True,
    )  # fmt: skip
    of = grouped.of_dataset(dataset, 4)
    whole = pipeline.batches(dataset, batch=16, seed=0, grouping=of)
    halves = [pipeline.batches(dataset, batch=16, seed=0, shard=i, shards=2, grouping=of) for i in range(2)]
    for _ in range(6):
        batch, parts = next(whole), [next(half) for half in halves]
        for name in ("image", "label"):
            assert np.array_equal(batch[name], np.concatenate([part[name] for part in parts]))
    state = whole.get_state()
    expected = next(whole)
    again = pipeline.batches(dataset, batch=16, seed=0, grouping=of)
    again.set_state(state)
    assert np.array_equal(next(again)["label"], expected["label"])


@pytest.mark.parametrize(
    ("sizes", "m", "settings", "wanted"),
    [
        ([9, 9], 2, {}, "data.per_class is 2, which puts 4 classes into a batch of 8, but the data set has images of 2 "
         "classes: data.per_class must be 4 or more."),
        ([9, 9, 1], 4, {}, "class 'c2' has 1 training image, and class-grouped batches need 2 or more of each class."),
        ([9, 9, 0, 9], 4, {}, "class 'c2' has no training image"),
        ([9, 9, 9, 9], 4, {"stream": (0, 0, 2, 2)}, "mesh.fsdp is 3, but shard 1 of the tailors would have no class"),
        ([9, 9, 9, 9], 2, {"stream": (0, 1, 1, 1)}, "shard 0 has 1 classes: raise data.per_class."),
    ],
)  # fmt: skip
def test_classes_that_cannot_be_dealt_are_refused(sizes, m, settings, wanted):
    names = [f"c{i}" for i in range(len(sizes))]
    with pytest.raises(UserError) as refused:
        grouped.check(grouping(sizes, m, **settings), names, 8, all_classes=True)
    assert wanted in str(refused.value)


def test_uneven_shards_and_small_classes_are_told():
    names = [f"c{i}" for i in range(4)]
    lines = grouped.check(grouping([30, 10, 10, 3], 4, stream=(0, 0, 1, 1)), names, 8, all_classes=True)
    assert lines[0].startswith("data.per_class is 4, and 1 classes have fewer images, like 'c3' with 3")
    assert "have 13 to 40 images: those of the smallest are met 2.04 times as often as the mean" in lines[1]
