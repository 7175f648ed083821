import json
import statistics
import time

import numpy as np
import pytest

from kind_jax.config import DataConfig
from kind_jax.data import dataset as dataset_module
from kind_jax.data.dataset import Dataset, MemorySource, open_dataset
from kind_jax.data.pipeline import _epoch_order, batches, describe_difference, fingerprint
from kind_jax.errors import UserError


def numbered(records):
    """A data set whose every pixel and label is the record's number."""
    labels = np.arange(records, dtype=np.int32)
    images = np.broadcast_to(labels[:, None, None, None], (records, 2, 2, 1)).astype(np.float32)
    names = tuple(str(label) for label in labels)
    return Dataset(
        source=MemorySource(images=images, labels=labels), class_names=names, image_shape=(2, 2, 1), fingerprint={}
    )


def take(iterator, steps):
    """The numbers of the records in the next batches, [steps, batch]."""
    taken = [next(iterator) for _ in range(steps)]
    for batch in taken:
        assert batch["image"].dtype == np.float32
        assert batch["label"].dtype == np.int32
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
    return np.stack([batch["label"] for batch in taken])


def assert_batches_equal(a, b):
    """What is read when it is asked for also says which records are bad: here none."""
    assert (a.keys() | b.keys()) - {"bad"} == {"image", "label"}
    assert all((batch["bad"] == -1).all() for batch in (a, b) if "bad" in batch)
    for name in ("image", "label"):
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("batch", [4, 10, 25])  # below, at and above the number of records
def test_each_epoch_visits_every_record_once_in_a_new_order(batch):
    stream = take(batches(numbered(10), batch=batch, seed=0), 100 // batch).reshape(-1, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in stream.tolist())
    assert len({tuple(epoch) for epoch in stream.tolist()}) == len(stream)


def test_the_stream_depends_on_the_seed_alone():
    first, again, other = (take(batches(numbered(10), batch=10, seed=seed), 5) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    # Saved runs resume in this very order; if it has to change, so has _TRANSFORMS.
    assert _epoch_order(10, 0, 1).tolist() == [9, 4, 0, 8, 1, 5, 3, 2, 6, 7]


@pytest.mark.parametrize("shards", [2, 4])
def test_shards_are_slices_of_the_same_global_batches(shards):
    whole = take(batches(numbered(10), batch=8, seed=1), 7)
    parts = [take(batches(numbered(10), batch=8, seed=1, shard=k, shards=shards), 7) for k in range(shards)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize("shards", [1, 2])
def test_resume_is_exact_even_on_another_number_of_hosts(shards):
    iterator = batches(numbered(10), batch=6, seed=2)
    take(iterator, 5)
    state = json.loads(json.dumps(iterator.get_state()))
    assert state == {"next_index": 5}
    expected = take(iterator, 4)
    resumed = []
    for shard in range(shards):
        fresh = batches(numbered(10), batch=6, seed=2, shard=shard, shards=shards)
        fresh.set_state(state)
        resumed.append(take(fresh, 4))
    np.testing.assert_array_equal(np.concatenate(resumed, axis=1), expected)


def test_records_read_in_threads_or_processes_make_the_same_stream(digits_root, monkeypatch):
    config = DataConfig(path=str(digits_root), classes=(1, 8))
    memory = batches(open_dataset(config, "test"), batch=30, seed=0)
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    dataset = open_dataset(config, "test")
    expected = [next(memory) for _ in range(8)]
    threads = batches(dataset, batch=30, seed=0)
    for batch in expected[:3]:
        assert_batches_equal(next(threads), batch)
    # A state goes from one way of reading to another.
    processes = batches(dataset, batch=30, seed=0, workers=2)
    processes.set_state(threads.get_state())
    for batch in expected[3:]:
        assert_batches_equal(next(processes), batch)
    assert processes.get_state() == memory.get_state() == {"next_index": 8}
    processes.set_state({"next_index": 1})
    threads.set_state(processes.get_state())
    assert_batches_equal(next(threads), expected[1])
    processes.close()
    with pytest.raises(ValueError, match="closed"):
        next(processes)


def test_bad_settings_are_refused():
    with pytest.raises(UserError, match=r"train.batch is 10, .* multiple of 4"):
        batches(numbered(10), batch=10, seed=0, shard=0, shards=4)
    with pytest.raises(UserError, match=r"seed is -1"):
        batches(numbered(10), batch=10, seed=-1)


def test_a_batch_from_memory_costs_far_less_than_a_millisecond(digits_root):
    iterator = batches(open_dataset(DataConfig(path=str(digits_root)), "train"), batch=64, seed=0)
    times = []
    for _ in range(301):
        start = time.perf_counter()
        next(iterator)
        times.append(time.perf_counter() - start)
    assert statistics.median(times) < 1e-3


def test_fingerprint_tells_streams_apart_and_says_how(digits_root):
    config = DataConfig(path=str(digits_root))
    train, test = open_dataset(config, "train"), open_dataset(config, "test")
    saved = fingerprint(train, batch=64, seed=0)
    saved = json.loads(json.dumps(saved))
    assert describe_difference(saved, fingerprint(open_dataset(config, "train"), batch=64, seed=0)) is None
    assert describe_difference(saved, fingerprint(train, batch=32, seed=0)) == "batch was 64, now 32"
    assert describe_difference(saved, fingerprint(train, batch=32, seed=7)) == "batch was 64, now 32; seed was 0, now 7"
    other = describe_difference(saved, fingerprint(test, batch=64, seed=0))
    assert other is not None
    assert "dataset.split was 'train', now 'test'" in other
    assert "dataset.content.sha256 differs" in other
    del saved["seed"]
    assert describe_difference(saved, fingerprint(train, batch=64, seed=0)) == "seed was absent, now 0"
