"""Samples for an evaluation: continued bit for bit, the same on any number of devices, written as ADM reads them."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from kind_jax import sampling
from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError
from kind_jax.evaluating import adm
from kind_jax.evaluating.generate import Plan, batches, generate, open_shards
from kind_jax.evaluating.pixels import quantise
from kind_jax.partition import weights_sha256

CONFIG = tiny.change(tiny.CONFIG, sampler={"steps": 2, "guidance": 1.5})
BUNDLE = Bundle(
    config=CONFIG,
    collections=tiny.weights(CONFIG.model, 0.05),
    groups=tuple(range(10)),
    class_names=tuple("abcdefghij"),
    weights="ema",
    step=7,
    origin=Path("nowhere"),
)


def plan(**changes) -> Plan:
    """Shards of 20, 20 and 3 images."""
    wanted = {"sampler": CONFIG.sampler, "classes": (1, 4, 7), "count": 43, "seed": 3, "batch": 5}
    return Plan(bundle=BUNDLE, **(wanted | changes))


def pixels(shards):
    return np.concatenate([p for p, _ in batches(shards)])


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    shards = open_shards(plan(), tmp_path_factory.mktemp("samples") / "out")
    done = []
    generate(plan(), shards, progress=done.append)
    assert done == [5, 10, 15, 20, 25, 30, 35, 40, 43]
    return shards


def test_every_class_equally_often_each_with_its_own_tailors(straight):
    labels = np.concatenate([labels for _, labels in batches(straight)])
    np.testing.assert_array_equal(labels, np.array([1, 4, 7])[np.arange(43) % 3])
    images = pixels(straight)
    assert images.shape == (43, 8, 8, 1)
    assert len(np.unique(images.reshape(43, -1), axis=0)) == 43
    # The first batch is what the bundle draws for these labels and this seed.
    with_bundle = quantise(BUNDLE.sample(labels[:5], seed=3))
    assert np.abs(with_bundle.astype(int) - images[:5]).max() <= 1
    other = quantise(BUNDLE.sample((labels[:5] + 1) % 10, seed=3))
    assert np.abs(other.astype(int) - images[:5]).max() > 1


def test_an_interrupted_run_continues_with_the_missing_shards(straight, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def kill(done):
        if done == 30:
            raise KilledError

    shards = open_shards(plan(), tmp_path / "out")
    with pytest.raises(KilledError):
        generate(plan(), shards, progress=kill)
    assert (shards.missing(), shards.done()) == ([1, 2], 20)

    drawn = []
    real = sampling.draw
    monkeypatch.setattr(sampling, "draw", lambda *a, **k: drawn.append(k["first"]) or real(*a, **k))
    again = open_shards(plan(), tmp_path / "out")
    generate(plan(), again)
    assert drawn == [4, 5, 6, 7, 8]
    for number in range(3):
        assert again.path(number).read_bytes() == straight.path(number).read_bytes()
    generate(plan(), open_shards(plan(), tmp_path / "out"))
    assert len(drawn) == 5

    again.path(1).write_bytes(b"junk")
    with pytest.raises(UserError, match=r"00001\.npz .*is damaged: .*delete it to draw its images again"):
        pixels(again)
    again.path(1).write_bytes(again.path(0).read_bytes())
    with pytest.raises(UserError, match=r"holds other images than settings\.json says"):
        pixels(again)


def test_the_number_of_devices_does_not_matter(straight, tmp_path, monkeypatch):
    assert jax.device_count() == 8
    shardings = set()
    real = sampling.draw_batch

    def spy(*args):
        images = real(*args)
        shardings.add((images.sharding.num_devices, images.addressable_shards[0].data.shape[0]))
        return images

    monkeypatch.setattr(sampling, "draw_batch", spy)
    one = open_shards(plan(), tmp_path / "one")
    generate(plan(), one, devices=jax.devices()[:1])
    assert shardings == {(1, 5)}
    shardings.clear()
    eight = open_shards(plan(), tmp_path / "eight")
    generate(plan(), eight, devices=jax.devices())
    assert shardings == {(8, 1)}  # a batch of five, filled up to eight
    difference = np.abs(pixels(one).astype(int) - pixels(eight))
    assert difference.max() <= 1  # another order of sums can round a byte the other way
    assert (difference > 0).mean() < 0.01
    np.testing.assert_array_equal(pixels(eight), pixels(straight))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "was begun with seed 3, but it is 4 now"),
        ({"count": 44}, "count 43, but it is 44"),
        ({"classes": (1, 4)}, r"classes \[1, 4, 7\], but it is \[1, 4\]"),
        ({"batch": 10}, "batch 5, but it is 10"),
        ({"sampler": dataclasses.replace(CONFIG.sampler, guidance=2.0)}, r"sampler.guidance 1\.5, but it is 2\.0"),
        ({"bundle": dataclasses.replace(BUNDLE, step=8)}, "weights.step 7, but it is 8"),
        ({"bundle": dataclasses.replace(BUNDLE, weights="raw")}, 'weights.which "ema", but it is "raw"'),
        ({"bundle": dataclasses.replace(BUNDLE, collections=tiny.weights(CONFIG.model, 0.06))}, "weights.sha256"),
    ],
)
def test_other_settings_are_refused(changes, message, straight):
    with pytest.raises(UserError, match=f"{message}.* use another --out"):
        open_shards(dataclasses.replace(plan(), **changes), straight.folder)


def test_foreign_folders_and_impossible_plans_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(UserError, match="holds no evaluation"):
        open_shards(plan(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    for changes, message in (
        ({"count": 0}, "--count is 0"),
        ({"batch": 0}, "--batch is 0"),
        ({"seed": -1}, "--seed is -1"),
        ({"classes": (11,)}, "class is 11"),
        ({"sampler": dataclasses.replace(CONFIG.sampler, method="ddim")}, "'euler' or 'heun' for the flow process"),
    ):
        with pytest.raises(UserError, match=message):
            plan(**changes)


def test_weights_are_told_apart():
    sha = weights_sha256(BUNDLE.collections)
    assert sha == weights_sha256(jax.tree.map(np.asarray, BUNDLE.collections))
    assert sha != weights_sha256(jax.tree.map(lambda a: np.float16(a), BUNDLE.collections))


def test_the_file_for_adms_evaluator(straight, tmp_path):
    path = tmp_path / "samples.npz"
    adm.write_samples(path, (p for p, _ in batches(straight)), straight.labels, (8, 8))
    with np.load(path) as file:
        assert sorted(file.files) == ["arr_0", "arr_1"]
        assert (file["arr_0"].dtype, file["arr_0"].shape) == (np.uint8, (43, 8, 8, 3))
        np.testing.assert_array_equal(file["arr_0"], np.repeat(pixels(straight), 3, axis=-1))
        assert file["arr_1"].dtype == np.int64
        np.testing.assert_array_equal(file["arr_1"], straight.labels)
    assert [p.name for p in tmp_path.iterdir()] == ["samples.npz"]
    found = adm.read_batch(path)
    assert found.images is not None
    assert found.images.shape == (43, 8, 8, 3)


def test_reference_files_are_checked(tmp_path):
    path = tmp_path / "reference.npz"
    eye = np.eye(3)
    cases = [
        ({"x": eye}, "neither images"),
        ({"arr_0": np.zeros((2, 8, 8, 3), np.float32)}, r"arr_0 is float32\[2, 8, 8, 3\] and must be uint8"),
        ({"mu": np.zeros(4), "sigma": eye}, r"mu is \[4\] and its sigma is \[3, 3\]"),
        ({"mu": np.zeros(3)}, "its sigma is absent"),
        ({"mu": np.zeros(3), "sigma": eye * np.nan}, "not finite"),
        ({"arr_0": np.array([{}], dtype=object)}, r"is not an \.npz file of plain arrays"),
    ]
    for arrays, message in cases:
        np.savez(path, **arrays)
        with pytest.raises(UserError, match=message):
            adm.read_batch(path)
    np.save(tmp_path / "array.npy", eye)
    for other in ("array.npy", "absent.npz"):
        with pytest.raises(UserError, match=f"--reference.*{other}"):
            adm.read_batch(tmp_path / other)
