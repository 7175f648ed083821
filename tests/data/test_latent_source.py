"""Latents as a data set: what a batch has of them, damaged records, and refusals."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from kind_jax.config import DataConfig
from kind_jax.data import augment, latent_files, latent_shards
from kind_jax.data import dataset as dataset_module
from kind_jax.data.bad import BadRecords
from kind_jax.data.dataset import open_dataset
from kind_jax.data.latents import LatentFiles, MemoryLatents
from kind_jax.data.pipeline import _epoch_order, batches, describe_difference, fingerprint
from kind_jax.errors import UserError

RECORDS, SHAPE, SCALE, SHIFT = 50, (3, 2, 4), 0.25, 0.5
ROW = latent_files.row_dtype(SHAPE, "float16").itemsize


def moments():
    found = np.random.default_rng(0).standard_normal((RECORDS, 2, 2, *SHAPE)).astype(np.float16)
    found[0, :, 1] = 25  # beyond what an autoencoder gives: clipped to 20
    return found


LABELS = (np.arange(RECORDS, dtype=np.int32) * 7) % 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of latents in four shards."""
    root = tmp_path_factory.mktemp("latents") / "set"
    settings = {
        "vae": {"fingerprint": "f" * 64, "scaling_factor": SCALE, "shift_factor": SHIFT, "factor": 8},
        "image_shape": [24, 16, 3], "shape": list(SHAPE), "dtype": "float16", "shard_records": 15,
        "class_names": ["ant", "bee", "cat"], "splits": {"train": {"records": RECORDS, "source": {"name": "x"}}},
    }  # fmt: skip
    shards = latent_shards.begin(root, settings)["train"]
    for number in range(shards.count):
        assert latent_shards.finish(root) is None
        with shards.writing(number) as shard:
            rows = np.asarray(shards.rows(number))
            shard.add(LABELS[rows], moments()[rows])
    assert latent_shards.finish(root) is not None
    return root


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


@pytest.fixture(params=[LatentFiles, MemoryLatents])
def kind(request, monkeypatch):
    limit = 0 if request.param is LatentFiles else 1 << 30
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", limit)
    return request.param


def config(root, **settings):
    return DataConfig(source="latents", path=str(root), **settings)


def drawn(rows, first, seed, flip):
    """What must come, from the definition alone."""
    side = augment.flips(seed, first, len(rows)).astype(int) if flip else np.zeros(len(rows), int)
    mean, logvar = (moments()[rows, side, i].astype(np.float32) for i in (0, 1))
    noise = augment.normals(seed, first, len(rows), SHAPE)
    return SCALE * (mean + np.exp(np.clip(logvar, -30, 20) / 2) * noise - SHIFT)


@pytest.mark.parametrize("flip", [False, True])
def test_batches_are_drawn_from_the_distributions_alike_on_any_number_of_hosts(made, kind, flip):
    dataset = open_dataset(config(made, flip=flip), "train")
    assert isinstance(dataset.source, kind)
    assert (dataset.image_shape, dataset.class_names) == (SHAPE, ("ant", "bee", "cat"))
    order = np.concatenate([_epoch_order(RECORDS, 9, epoch) for epoch in range(3)]).astype(np.int64)
    stream = batches(dataset, batch=20, seed=9)
    whole = [next(stream) for _ in range(6)]  # two epochs and more
    for step, batch in enumerate(whole):
        rows = order[20 * step : 20 * step + 20]
        assert (batch["image"].dtype, batch["label"].dtype) == (np.float32, np.int32)
        np.testing.assert_allclose(batch["image"], drawn(rows, 20 * step, 9, flip), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(batch["label"], LABELS[rows])
    for shards in (1, 2, 4):
        parts = [batches(dataset, batch=20, seed=9, shard=i, shards=shards) for i in range(shards)]
        for part in parts:
            part.set_state({"next_index": 3})
        for step in (3, 4):
            found = np.concatenate([next(part)["image"] for part in parts])
            np.testing.assert_array_equal(found, whole[step]["image"])
    again = batches(dataset, batch=20, seed=9, workers=1)
    again.set_state(json.loads(json.dumps({"next_index": 5})))
    np.testing.assert_array_equal(next(again)["image"], whole[5]["image"])
    again.close()


def test_records_as_such_are_means(made, kind):
    source = open_dataset(config(made), "train").source
    wanted = SCALE * (moments()[:, 0, 0].astype(np.float32) - SHIFT)
    np.testing.assert_allclose(source.gather(range(RECORDS))["image"], wanted, rtol=1e-6)
    np.testing.assert_allclose(source[7]["image"], wanted[7], rtol=1e-6)
    assert source[7]["label"] == LABELS[7]


def test_classes_are_chosen_by_the_labels_file(made, kind):
    dataset = open_dataset(config(made, classes=(2, 0)), "train")
    keep = np.flatnonzero(LABELS != 1)
    batch = dataset.source.gather(range(len(keep)))
    assert (len(dataset.source), dataset.class_names) == (len(keep), ("cat", "ant"))
    np.testing.assert_array_equal(batch["label"], np.asarray([1, -1, 0])[LABELS[keep]])
    np.testing.assert_allclose(batch["image"], SCALE * (moments()[keep, 0, 0].astype(np.float32) - SHIFT), rtol=1e-6)


def test_the_fingerprint_is_that_of_the_latents_not_of_the_place(made, copy, kind):
    def of(root, **settings):
        return fingerprint(open_dataset(config(root, **settings), "train"), batch=4, seed=0)

    base = of(made)
    assert json.loads(json.dumps(base)) == base == of(copy, size=3, skip_bad=0.5, workers=2)
    assert describe_difference(base, of(made, flip=True)) == "flip was absent, now True"
    others = [base, of(made, classes=(0, 2)), of(made, classes=(2, 0))]
    index = latent_files.read_index(copy)
    split = index.splits["train"]
    shard = dataclasses.replace(split.shards[0], sha256="0" * 64)
    other = dataclasses.replace(split, shards=(shard, *split.shards[1:]))
    latent_files.write_index(copy, dataclasses.replace(index, splits={"train": other}))
    others.append(of(copy))
    assert len({json.dumps(found) for found in others}) == len(others)


def rewrite(root, number, change):
    """Write a shard anew with one changed record, and ArrayRecord's own checksums right."""
    path = root / "train" / latent_files.shard_name(number, 4)
    reader = ArrayRecordReader(str(path))
    records = reader.read_all()
    reader.close()
    records[2] = change(records[2])
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for record in records:
        writer.write(record)
    writer.close()


def flipped(record):
    return record[:60] + bytes([record[60] ^ 1]) + record[61:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [(flipped, "its checksum is not that of its content"), (lambda r: r + b"\0", f"it has {ROW + 1} bytes, not {ROW}")],
)
def test_damaged_records_are_gone_around_or_left_out(copy, kind, change, reason):
    rewrite(copy, 1, change)
    dataset = open_dataset(config(copy, skip_bad=0.02), "train")
    if kind is MemoryLatents:
        assert (len(dataset.source), len(dataset.bad)) == (RECORDS - 1, 1)
        assert dataset.bad[0] == f"record 17 of {str(copy / 'train')!r}: {reason}"
    else:
        batch = dataset.source.gather([16, 17, 18])
        assert batch["bad"].tolist() == [-1, 17, -1]
        np.testing.assert_array_equal(batch["image"][1], batch["image"][2])
        said = []
        assert BadRecords(dataset, 0.02, said.append).take(batch).keys() == {"image", "label"}
        assert said[0].endswith(f"record 17 of {str(copy / 'train')!r}: {reason}")
    message = r"data.skip_bad is 0.0, but 1 of the 50 records \(2.00%\) cannot be read"
    if kind is MemoryLatents:
        with pytest.raises(UserError, match=message):
            open_dataset(config(copy, skip_bad=0.0), "train")
    else:
        with pytest.raises(UserError, match=message):
            BadRecords(dataset, 0.0, print).take(batch)


def test_a_bit_on_the_disk_is_noticed(copy, kind):
    path = copy / "train" / latent_files.shard_name(3, 4)
    raw = bytearray(path.read_bytes())
    where = raw.index(moments()[46].tobytes())
    raw[where + 5] ^= 4
    path.write_bytes(raw)
    dataset = open_dataset(config(copy, skip_bad=0.02), "train")
    found = [*dataset.bad, *([dataset.source.explain(46)] if kind is LatentFiles else [])]
    assert len(found) == 1
    assert found[0].startswith(f"record 46 of {str(copy / 'train')!r}: ")


def _seal_other(root):
    path = root / latent_files.INDEX
    path.write_text(path.read_text().replace("ant", "elk"))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda root: (root / "latents.json").unlink(), r"where there is no latents.json, .* latents command goes"),
        (_seal_other, r"latents.json is damaged or was changed by hand"),
        (lambda root: os.truncate(root / "train/00002-of-00004.array_record", 100), r"00002-of.* it is 100 bytes"),
        (lambda root: (root / "train" / "00000-of-00004.array_record").unlink(), r"00000-of-00004.* cannot be opened"),
        (lambda root: (root / "train" / "labels.bin").write_bytes(bytes(4 * RECORDS)), r"labels.bin is damaged"),
        (lambda root: shutil.rmtree(root), r"data.path is .*copy', but for data.source 'latents' it must be a folder"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_whole_set_is_refused(copy, harm, message):
    harm(copy)
    with pytest.raises(UserError, match=message):
        open_dataset(config(copy), "train")


def test_other_refusals(made):
    with pytest.raises(UserError, match=r"which has latents of train only; kind-jax latents --split test adds"):
        open_dataset(config(made), "test")
    with pytest.raises(UserError, match=r"data.path is None, but for data.source 'latents'"):
        open_dataset(DataConfig(source="latents"), "train")
    with pytest.raises(UserError, match=r"data.protocol is 'kind-611', but .* has 3 classes"):
        open_dataset(config(made, protocol="kind-611"), "train")


def test_a_shard_that_cannot_be_written_leaves_nothing(made, tmp_path, monkeypatch):
    shards = latent_shards.Shards(folder=tmp_path / "train", records=10, size=10)

    def full(path):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(latent_shards, "sync", full)
        with (
            pytest.raises(UserError, match=r"00000-of-00001.array_record' could not be written: No space left"),
            shards.writing(0) as shard,
        ):
            shard.add(LABELS[:10], moments()[:10])
    assert not list(shards.folder.iterdir())
    with pytest.raises(KeyboardInterrupt), shards.writing(0):
        raise KeyboardInterrupt
    assert not list(shards.folder.iterdir())
    assert shards.note(0) is None
