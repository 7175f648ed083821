"""Flips and noise: the same for any split of the stream over hosts, and of the right distribution."""

import dataclasses
import json

import numpy as np
import pytest

from kind_jax.config import DataConfig
from kind_jax.data import augment
from kind_jax.data import dataset as dataset_module
from kind_jax.data.dataset import open_dataset
from kind_jax.data.pipeline import _epoch_order, batches, describe_difference, fingerprint


@pytest.mark.parametrize("first", [0, 1, 2, 3, 4, 4_000_000_000_001])
def test_any_part_of_the_stream_is_a_part_of_the_whole(first):
    whole = augment.flips(7, first, 50), augment.normals(7, first, 50, (3, 5, 1))
    for begin, end in ((0, 1), (1, 6), (6, 50)):
        np.testing.assert_array_equal(augment.flips(7, first + begin, end - begin), whole[0][begin:end])
        np.testing.assert_array_equal(augment.normals(7, first + begin, end - begin, (3, 5, 1)), whole[1][begin:end])


def test_the_streams_are_random():
    found = augment.flips(3, 0, 40_000)
    assert abs(found.mean() - 0.5) < 0.01
    assert abs((found[1:] == found[:-1]).mean() - 0.5) < 0.01
    assert (found != augment.flips(4, 0, 40_000)).any()
    numbers = augment.normals(3, 5, 400, (8, 8, 4))
    assert (numbers.dtype, numbers.shape) == (np.float32, (400, 8, 8, 4))
    flat = np.sort(numbers.astype(np.float64).ravel())
    assert abs(flat.mean()) < 0.01
    assert abs(flat.std() - 1) < 0.01
    assert abs((flat**4).mean() - 3) < 0.1
    assert 3.8 < flat[-1] < 6.8
    assert len(np.unique(flat)) > 0.99 * len(flat)
    rows = numbers.reshape(400, -1)
    assert abs(np.corrcoef(rows[::2].ravel(), rows[1::2].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(rows[:, :128].ravel(), rows[:, 128:].ravel())[0, 1]) < 0.02


def test_the_streams_stay_what_they_are():
    """Saved runs resume in them; if they have to change, so has the fingerprint."""
    assert augment.flips(0, 0, 12).tolist() == [True, True, True, False, True, False, *[True] * 6]
    np.testing.assert_allclose(
        augment.normals(0, 1, 1, (1, 1, 3)).ravel(), [-0.46259072, 0.92084879, 2.46242714], rtol=1e-5
    )


@pytest.fixture(params=["memory", "files"])
def flipping(request, digits_root, monkeypatch):
    """Digits with flips, in memory and read record by record."""
    if request.param == "files":
        monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    return open_dataset(DataConfig(path=str(digits_root), flip=True), "test")


def test_half_of_the_images_are_mirrored_alike_on_any_number_of_hosts_and_after_a_resume(flipping):
    plain = flipping.source.gather(range(500))
    order = np.concatenate([_epoch_order(500, 2, epoch) for epoch in range(3)]).astype(np.int64)
    stream = batches(flipping, batch=40, seed=2)
    whole = [next(stream) for _ in range(30)]
    mirrored = augment.flips(2, 0, 30 * 40)
    assert 500 < mirrored.sum() < 700
    for step, batch in enumerate(whole):
        rows = slice(step * 40, (step + 1) * 40)
        wanted, flip = plain["image"][order[rows]], mirrored[rows]
        np.testing.assert_array_equal(batch["image"][~flip], wanted[~flip])
        np.testing.assert_array_equal(batch["image"][flip], wanted[flip][:, :, ::-1])
        np.testing.assert_array_equal(batch["label"], plain["label"][order[rows]])
    np.testing.assert_array_equal(flipping.source.gather(range(500))["image"], plain["image"])  # not the source's own
    state = json.loads(json.dumps(stream.get_state()))
    after = next(stream)
    for shards in (1, 2, 4):
        parts = [batches(flipping, batch=40, seed=2, shard=i, shards=shards) for i in range(shards)]
        for part in parts:
            part.set_state({"next_index": 28})
        for step in (28, 29):
            found = np.concatenate([next(part)["image"] for part in parts])
            np.testing.assert_array_equal(found, whole[step]["image"])
        fresh = batches(flipping, batch=40, seed=2)
        fresh.set_state(state)
        np.testing.assert_array_equal(next(fresh)["image"], after["image"])


def test_only_runs_with_flips_say_so(flipping):
    off = fingerprint(dataclasses.replace(flipping, flip=False), batch=40, seed=2)
    assert set(off) == {"dataset", "batch", "seed", "transforms"}
    assert describe_difference(off, fingerprint(flipping, batch=40, seed=2)) == "flip was absent, now True"
