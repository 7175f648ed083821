"""Prepared sets with records that cannot be read: gone around in a large one, left out or refused in a small one."""

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from kind_jax.config import DataConfig
from kind_jax.data import dataset as dataset_module
from kind_jax.data.bad import BadRecords
from kind_jax.data.dataset import open_dataset
from kind_jax.data.pipeline import _epoch_order, batches
from kind_jax.data.records import RecordSource
from kind_jax.errors import UserError

IMAGE = b"\n\x05image"  # the name of the field in the record


@pytest.fixture
def large(monkeypatch):
    """Nothing fits in memory."""
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)


def _file(folder):
    return next(folder.glob("digits-test*"))


def flip(folder):
    """Change a bit of one record on disk."""
    raw = bytearray(_file(folder).read_bytes())
    raw[3000] ^= 1
    _file(folder).write_bytes(raw)


def rewrite(folder, numbers, change):
    """Write the records anew, some changed, with checksums that fit."""
    file = _file(folder)
    reader = ArrayRecordReader(str(file))
    records = reader.read_all()
    reader.close()
    writer = ArrayRecordWriter(str(file), "group_size:1")
    for number, record in enumerate(records):
        writer.write(change(record) if number in numbers else record)
    writer.close()


def spoil(record):
    """The same record, that TFDS cannot decode."""
    assert IMAGE in record
    return record.replace(IMAGE, b"\n\x05imagx")


def test_a_large_set_goes_around_what_cannot_be_read(digits_copy, digits_root, large):
    root, folder = digits_copy
    clean = open_dataset(DataConfig(path=str(digits_root)), "test").source.gather(range(500))
    rewrite(folder, {3, 4, 499}, spoil)
    dataset = open_dataset(DataConfig(path=str(root)), "test")
    order = _epoch_order(500, 0, 0).astype(np.int64)
    instead = np.arange(500)
    instead[[3, 4, 499]] = 5, 5, 0
    said = []
    bad = BadRecords(dataset, 0.01, said.append)
    stream = batches(dataset, batch=100, seed=0)
    for rows in [*order.reshape(5, 100), *_epoch_order(500, 0, 1).astype(np.int64).reshape(5, 100)]:
        batch = next(stream)
        np.testing.assert_array_equal(batch["bad"], np.where(np.isin(rows, (3, 4, 499)), rows, -1))
        batch = bad.take(batch)
        assert batch.keys() == {"image", "label"}
        for name in batch:
            np.testing.assert_array_equal(batch[name], clean[name][instead[rows]])
    assert bad.count == len(said) == 3
    for number in (3, 4, 499):
        assert sum(f"record {number} of {str(folder)!r}: " in line for line in said) == 1


def test_a_damaged_part_of_a_large_file_is_gone_around(digits_copy, large):
    root, folder = digits_copy
    flip(folder)
    source = open_dataset(DataConfig(path=str(root)), "test").source
    batch = source.gather(range(500))
    (number,) = np.flatnonzero(batch["bad"] >= 0).tolist()
    assert batch["bad"][number] == number
    np.testing.assert_array_equal(batch["image"][number], batch["image"][number + 1])
    assert f"record {number} of {str(folder)!r}: Corrupted" in source.explain(number)
    assert "hash mismatch" in source.explain(number)
    assert "but now it can" in source.explain(number + 1)


def test_selecting_classes_of_a_large_set_leaves_out_what_has_no_class(digits_copy, large):
    root, folder = digits_copy
    everything = open_dataset(DataConfig(path=str(root)), "test")
    labels = everything.source.gather(range(500))["label"]
    first = int(np.flatnonzero(labels == 7)[0])
    rewrite(folder, {first}, spoil)
    dataset = open_dataset(DataConfig(path=str(root), classes=(7, 3)), "test")
    assert len(dataset.source) == 99
    assert len(dataset.bad) == 1
    batch = dataset.source.gather(range(99))
    assert (batch["bad"] == -1).all()
    assert batch["label"].tolist() == [[7, 3].index(label) for label in np.delete(labels, first) if label in (3, 7)]
    # Bad ones among the selected are named by their number in the set.
    second = int(np.flatnonzero(labels == 7)[1])
    row = int(np.flatnonzero(batch["label"] == 0)[0])
    assert f"record {second} of" in dataset.source.explain(row)
    assert BadRecords(dataset, 0.0, lambda line: None).count == 1  # it was within data.skip_bad of all records


def test_a_small_set_leaves_out_an_undecodable_record(digits_copy, digits_root):
    root, folder = digits_copy
    clean = open_dataset(DataConfig(path=str(digits_root)), "test")
    rewrite(folder, {0, 250, 499}, spoil)
    dataset = open_dataset(DataConfig(path=str(root)), "test")
    assert [line.split(" of ")[0] for line in dataset.bad] == ["record 0", "record 250", "record 499"]
    for name, array in clean.source.gather(range(500)).items():
        np.testing.assert_array_equal(dataset.source.gather(range(497))[name], np.delete(array, [0, 250, 499], axis=0))
    assert dataset.fingerprint["records"] == 497
    message = r"data.skip_bad is 0.005, but 3 of the 500 records \(0.60%\) cannot be read; the last one: record 499 of"
    with pytest.raises(UserError, match=message):
        open_dataset(DataConfig(path=str(root), skip_bad=0.005), "test")


def test_a_small_set_on_a_damaged_file_stays_refused(digits_copy):
    root, folder = digits_copy
    flip(folder)
    with pytest.raises(UserError, match=rf"{folder}.*hash mismatch.*remove that folder"):
        open_dataset(DataConfig(path=str(root), skip_bad=1.0), "test")


class Decoded:
    """A TFDS data source of image files, whose size TFDS does not check."""

    sizes = (8, 8, 9, 8)

    def __len__(self):
        return len(self.sizes)

    def __getitems__(self, keys):
        return [{"image": np.full((self.sizes[i], 8, 1), i, np.uint8), "label": np.int64(i)} for i in keys]


def test_an_image_of_another_shape_is_bad(tmp_path):
    source = RecordSource(
        records=Decoded(), keep=None, renumber=np.arange(4, dtype=np.int32), image_shape=(8, 8, 1), folder=tmp_path
    )
    batch = source.gather(range(4))
    assert batch["bad"].tolist() == [-1, -1, 2, -1]
    assert batch["label"].tolist() == [0, 1, 3, 3]
    assert source.explain(2) == f"record 2 of {str(tmp_path)!r}: its image has the shape (9, 8, 1), not (8, 8, 1)"


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_a_label_that_does_not_exist_is_refused(digits_copy, monkeypatch, memory):
    root, folder = digits_copy
    source = open_dataset(DataConfig(path=str(root)), "test").source
    number = int(np.flatnonzero(source.gather(range(500))["label"] == 7)[0])

    def relabel(record):
        assert record.count(b"\x1a\x03\n\x01\x07") == 1  # Feature(int64_list=Int64List(value=[7]))
        return record.replace(b"\x1a\x03\n\x01\x07", b"\x1a\x03\n\x01\x63")

    rewrite(folder, {number}, relabel)
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", memory)
    with pytest.raises(UserError, match=r"is damaged \(a label is outside 0..9\)"):
        open_dataset(DataConfig(path=str(root)), "test").source.gather(range(500))
