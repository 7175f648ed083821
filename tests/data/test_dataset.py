import json
import shutil

import jaxtyping
import numpy as np
import pytest

from kind_jax.config import DataConfig
from kind_jax.data import dataset as dataset_module
from kind_jax.data.dataset import MemorySource, RecordSource, open_dataset
from kind_jax.errors import UserError


@pytest.fixture(params=[MemorySource, RecordSource])
def kind(request, monkeypatch):
    """Run a test on decoded and on undecoded records."""
    if request.param is RecordSource:
        monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    return request.param


def test_selected_classes_are_renumbered_in_the_order_given(digits_root, kind):
    everything = open_dataset(DataConfig(path=str(digits_root)), "test")
    selected = open_dataset(DataConfig(path=str(digits_root), classes=(7, 3)), "test")
    assert isinstance(selected.source, kind)
    assert everything.class_names == tuple("0123456789")
    assert selected.class_names == ("7", "3")
    assert selected.image_shape == (8, 8, 1)
    assert len(selected.source) == 100

    whole = everything.source.gather(range(500))
    part = selected.source.gather(range(100))
    chosen = np.isin(whole["label"], (7, 3))
    np.testing.assert_array_equal(part["image"], whole["image"][chosen])
    np.testing.assert_array_equal(np.asarray([7, 3])[part["label"]], whole["label"][chosen])
    for index in (0, 99):
        record = selected.source[index]
        np.testing.assert_array_equal(record["image"], part["image"][index])
        assert record["label"] == part["label"][index]
        assert record["label"].dtype == np.int32


def test_both_kinds_of_source_give_the_same_records(digits_root, monkeypatch):
    config = DataConfig(path=str(digits_root))
    memory = open_dataset(config, "test").source
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 500 * 64 * 4)  # exactly its size: not below
    records = open_dataset(config, "test").source
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 500 * 64 * 4 + 1)
    assert isinstance(records, RecordSource)
    assert isinstance(open_dataset(config, "test").source, MemorySource)
    some = np.asarray([499, 0, 7, 7])
    for name in ("image", "label"):
        np.testing.assert_array_equal(memory.gather(some)[name], records.gather(some)[name])


@pytest.mark.parametrize("unknown", [10, -1])
def test_an_unknown_class_is_refused(digits_root, unknown):
    with pytest.raises(UserError, match=rf"data.classes contains {unknown}, .* 0 to 9"):
        open_dataset(DataConfig(path=str(digits_root), classes=(3, unknown)), "train")


def test_an_unknown_split_is_refused(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users call
    with pytest.raises(UserError, match=r"split is 'tset', but it must be one of 'train', 'validation', 'test'"):
        open_dataset(DataConfig(source="digits"), "tset")  # pyright: ignore[reportArgumentType]


def test_records_cannot_be_overwritten_through_a_view(digits_root):
    source = open_dataset(DataConfig(path=str(digits_root)), "test").source
    with pytest.raises(ValueError, match="read-only"):
        source[0]["image"][:] = 0


def test_fingerprint_is_that_of_the_records_not_of_the_place(digits_root, tmp_path, kind):
    def fingerprint(path=digits_root, split="train", **settings):
        return open_dataset(DataConfig(path=str(path), **settings), split).fingerprint

    base = fingerprint()
    assert json.loads(json.dumps(base)) == base
    shutil.copytree(digits_root, tmp_path / "moved")
    assert fingerprint(tmp_path / "moved", seed=5, workers=2) == base
    others = [fingerprint(split="test"), fingerprint(classes=(1, 2)), fingerprint(classes=(2, 1))]
    assert all(a != b for i, a in enumerate([base, *others]) for b in others[i:])


def test_fingerprint_notices_other_pixels(digits_root):
    source = open_dataset(DataConfig(path=str(digits_root)), "test").source
    images = source.images.copy()
    images[-1, -1, -1, -1] += 1 / 127.5
    other = MemorySource(images=images, labels=source.labels.copy())
    assert other.sha256() != source.sha256()
