"""The rule of replacement, and how bad records are counted, said and refused."""

import numpy as np
import pytest

from kind_jax.data.bad import LINES, TRIES, BadRecords, check_share, read_around
from kind_jax.data.decode import BadImage
from kind_jax.data.sets import Dataset, MemorySource
from kind_jax.errors import UserError


class Records:
    """A hundred records, of which only some can be read; knows how often it was asked for reasons."""

    def __init__(self, size=100):
        self.size, self.explained = size, []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return {name: array[0] for name, array in self.gather([index]).items()}

    def gather(self, indices):
        return batch(*[-1] * len(indices))

    def explain(self, index):
        self.explained.append(index)
        return f"file {index}: broken"


def dataset(source, bad=()):
    return Dataset(source=source, class_names=("a",), image_shape=(1, 1, 1), fingerprint={}, bad=bad)


def batch(*bad):
    return {"image": np.zeros((len(bad), 1, 1, 1), np.float32), "bad": np.asarray(bad, np.int64)}


def reader(good, asked):
    def read(index):
        asked.append(index)
        if index not in good:
            raise BadImage(f"number {index}")
        return str(index)

    return read


def test_the_next_readable_record_stands_in():
    asked = []
    rows, bad = read_around(np.asarray([1, 8, 4, 9], np.uint32), 10, reader({1, 4, 5, 6}, asked))
    assert rows == ["1", "1", "4", "1"]
    assert bad.tolist() == [-1, 8, -1, 9]
    assert asked == [1, 8, 9, 0, 1, 4, 9, 0, 1]


def test_names_are_said_without_commands_to_the_terminal():
    said, source = [], Records(1000)
    source.explain = lambda index: "train/x\n\x1b[31m\udcff.png: broken"
    BadRecords(dataset(source), 1.0, said.append).take(batch(3))
    assert len(said) == 1
    assert said[0].isprintable()


@pytest.mark.parametrize(("records", "tries"), [(7, 7), (10 * TRIES, TRIES)])
def test_it_gives_up_in_the_end(records, tries):
    asked = []
    with pytest.raises(UserError, match=rf"None of {tries} records in a row .* number 5 of {records} .*number \d+\)"):
        read_around([5], records, reader(set(), asked))
    assert asked == [(5 + i) % records for i in range(tries)]


def test_each_is_said_once_and_only_so_many():
    source, said = Records(), []
    bad = BadRecords(dataset(source, bad=("left out: x",)), 1.0, said.append)
    assert (bad.count, said) == (1, ["skipped a record that cannot be read: left out: x"])
    for rows in ([3, -1, 3], [-1, -1, 3], [5, 3, -1]):
        assert bad.take(batch(*rows)).keys() == {"image"}
    assert (bad.count, source.explained) == (3, [3, 5])
    assert said[1:] == [f"skipped a record that cannot be read: file {i}: broken" for i in (3, 5)]
    bad.take(batch(*range(50)))
    bad.take(batch(*range(60)))
    assert bad.count == 61
    assert len(said) == LINES + 1
    assert said[-1] == "skipped more than 20 records that cannot be read; further ones are only counted"
    assert len(source.explained) == LINES - 1  # a record that is not named is not read again


def test_more_than_the_share_is_refused():
    bad = BadRecords(dataset(Records()), 0.29, lambda line: None)  # 0.29 * 100 is 28.999...
    bad.take(batch(*range(29)))
    message = (
        r"data.skip_bad is 0.29, but 30 of the 100 records \(30.00%\) cannot be read; the last one: file 70: broken; "
        r"remove them, or raise data.skip_bad\.$"
    )
    with pytest.raises(UserError, match=message):
        bad.take(batch(-1, 70))
    with pytest.raises(UserError, match=r"data.skip_bad is 0.0, but 1 of the 100"):
        BadRecords(dataset(Records()), 0.0, lambda line: None).take(batch(3))
    check_share(0, 0, 0.0, lambda: "")


def test_batches_from_memory_pass():
    source = MemorySource(images=np.zeros((2, 1, 1, 1), np.float32), labels=np.zeros(2, np.int32))
    bad = BadRecords(dataset(source), 0.0, lambda line: None)
    whole = source.gather([0, 1])
    assert bad.take(whole) is whole
    assert bad.count == 0
