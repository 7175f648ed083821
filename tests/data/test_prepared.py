import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kind_jax.config import DataConfig
from kind_jax.data import prepared
from kind_jax.data.dataset import open_dataset
from kind_jax.errors import UserError

# Opens the digits once its twin is ready too; prints only to the file it is given.
_CHILD = """
import json, pathlib, sys, time

def refuse(event, args):
    if event == "socket.connect":
        raise RuntimeError(f"network access: {args}")

sys.addaudithook(refuse)
import sklearn.datasets, tensorflow_datasets
from kind_jax.config import DataConfig
from kind_jax.data.dataset import open_dataset
from kind_jax.data.pipeline import batches

root, me, twin = map(pathlib.Path, sys.argv[1:])
me.touch()
deadline = time.monotonic() + 60
while not twin.exists():
    assert time.monotonic() < deadline, "the other process never came"
    time.sleep(0.001)
dataset = open_dataset(DataConfig(path=str(root)), "train")
next(batches(dataset, batch=4, seed=0))
assert "tensorflow" not in sys.modules
me.write_text(json.dumps(dataset.fingerprint))
"""


def test_two_processes_prepare_at_once_quietly_without_tensorflow_or_network(tmp_path, digits_root):
    root, marks = tmp_path / "root", [tmp_path / "a", tmp_path / "b"]
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _CHILD, str(root), str(me), str(twin)],
            cwd=Path(prepared.__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for me, twin in (marks, marks[::-1])
    ]
    for child in children:
        output, _ = child.communicate(timeout=120)
        assert (child.returncode, output) == (0, "")
    # Every process, whoever prepared the data, sees the same records.
    expected = open_dataset(DataConfig(path=str(digits_root)), "train").fingerprint
    assert [json.loads(mark.read_text()) for mark in marks] == [expected, expected]
    assert [path.name for path in root.iterdir()] == ["digits"]


def test_the_loser_of_the_race_uses_the_winners_data(tmp_path, digits_root, monkeypatch):
    rename, folder = os.rename, tmp_path / "root" / "digits" / "1.0.0"

    def lose(source, target):
        if target == folder:  # and not one of TFDS' own renames in the scratch folder
            shutil.copytree(digits_root / "digits" / "1.0.0", folder)
        rename(source, target)

    monkeypatch.setattr(os, "rename", lose)
    open_dataset(DataConfig(path=str(tmp_path / "root")), "test")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["digits"]
    assert [path.name for path in folder.parent.iterdir()] == ["1.0.0"]


def test_a_failed_preparation_leaves_nothing_that_looks_prepared(tmp_path, monkeypatch):
    rename, folder = os.rename, tmp_path / "digits" / "1.0.0"

    def fail(source, target):
        if target == folder:
            raise OSError("No space left on device")
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", fail)
        with pytest.raises(UserError, match=r"No space left on device.*point data.path to a writable folder"):
            prepared.prepare("digits", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["digits"]
    open_dataset(DataConfig(path=str(tmp_path)), "test")


def _records(folder):
    return next(folder.glob("digits-train.array_record*"))


def _cut(folder, size):
    _records(folder).write_bytes(_records(folder).read_bytes()[:size])


def _flip(folder):
    raw = bytearray(_records(folder).read_bytes())
    raw[3000] ^= 1
    _records(folder).write_bytes(raw)


def _empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def _edit(folder, name, old, new):
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_empty, "features.json is missing"),
        (lambda folder: _records(folder).unlink(), "digits-train.* is missing"),
        (lambda folder: _cut(folder, 0), "0 records, but dataset_info.json says 1297"),
        (lambda folder: _cut(folder, 1 << 16), "0 records, but dataset_info.json says 1297"),
        (lambda folder: _cut(folder, 100_000), "0 records, but dataset_info.json says 1297"),
        (_flip, "hash mismatch"),
        (lambda folder: (folder / "dataset_info.json").write_text("{"), "JSON"),
        (lambda folder: (folder / "dataset_info.json").unlink(), "dataset_info.json"),
        (lambda folder: _edit(folder, "dataset_info.json", '"1297"', '"1200"'), "1297 records, .* says 1200"),
        (lambda folder: _edit(folder, "dataset_info.json", '"train"', '"other"'), "no split 'train'"),
        (lambda folder: (folder / "features.json").write_text("[1"), "delimiter"),
        (lambda folder: _edit(folder, "features.json", '"uint8"', '"int32"'), "not uint8"),
        (lambda folder: _edit(folder, "features.json", '"image"', '"picture"'), "'image' and a 'label'"),
        (lambda folder: (folder / "label.labels.txt").unlink(), "must name the 10 classes"),
    ],
)
def test_a_damaged_folder_is_named_and_left_alone(digits_copy, damage, reason):
    root, folder = digits_copy
    damage(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match=reason) as error:
        open_dataset(DataConfig(path=str(root)), "train")
    assert f"{str(folder)!r} is damaged" in str(error.value)
    assert str(error.value).endswith("remove that folder, or point data.path elsewhere.")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def _piped(folder):
    (folder / "label.labels.txt").unlink()
    os.mkfifo(folder / "label.labels.txt")


def _elsewhere(folder):
    records = _records(folder)
    records.rename(folder.parent / records.name)
    records.symlink_to(folder.parent / records.name)


def _template(to):
    old = '"filepathTemplate": "{DATASET}-{SPLIT}'
    return lambda folder: _edit(folder, "dataset_info.json", old, f'"filepathTemplate": "{to}/{{DATASET}}-{{SPLIT}}')


def _in(folder, old, new):
    _edit(folder, "features.json", old, new)


_TENSOR = '"pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",'


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_piped, "label.labels.txt is not a file"),
        (_elsewhere, "digits-train.* is a link to another place"),
        (_template(".."), "dataset_info.json leads to .* which is not a file in the folder"),
        (_template("/tmp"), "dataset_info.json leads to .* which is not a file in the folder"),
        (lambda folder: os.truncate(folder / "features.json", 1 << 40), "features.json has more than"),
        (lambda folder: os.truncate(folder / "label.labels.txt", 1 << 40), "label.labels.txt has more than"),
        (lambda folder: (folder / "features.json").write_text("[" * 10**5), "nested too deeply"),
        (lambda folder: (folder / "dataset_info.json").write_text("[" * 10**5), "nested too deeply"),
        (lambda folder: _in(folder, _TENSOR, _TENSOR * 2), "has the key 'pythonClassName' twice"),
        (lambda folder: _in(folder, "core.features.tensor_feature", "testing"), "the foreign class"),
        (lambda folder: _in(folder, "core.features.tensor_feature", "core.features.x.y"), "the foreign class"),
        (lambda folder: _in(folder, _TENSOR, '"type": "os.path",'), r"older form \('type'\)"),
        (lambda folder: _in(folder, _TENSOR, '"proto_cls": "os.path",'), "older form"),
        (lambda folder: _in(folder, '"tensor": {', '"jsonFeature": {"json": "{}"}, "tensor": {'), "older form"),
        (lambda folder: (folder / "label.labels.txt").write_text("0\n1\n2\n3\n4\n5\n6\n7\n8\n\x1b[2J\n"), "class name"),
    ],
)
def test_a_strangers_folder_is_refused(digits_copy, harm, reason):
    root, folder = digits_copy
    harm(folder)
    modules = set(sys.modules)
    with pytest.raises(UserError, match=reason) as error:
        open_dataset(DataConfig(path=str(root)), "train")
    assert str(folder) in str(error.value)
    assert str(error.value).isprintable()
    assert not {name for name in set(sys.modules) - modules if name.startswith("tensorflow_datasets.testing")}


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name"])
def test_features_json_cannot_import_foreign_code(digits_copy, tmp_path, monkeypatch, key):
    root, folder = digits_copy
    (tmp_path / "foreign_features.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    _edit(folder, "features.json", '"pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor"',
          f'"{key}": "foreign_features.Tensor"')  # fmt: skip
    with pytest.raises(UserError, match=r"foreign class 'foreign_features.Tensor'"):
        open_dataset(DataConfig(path=str(root)), "train")
    assert "foreign_features" not in sys.modules


def test_an_unusable_path_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path, reason in (
        (str(tmp_path / "file"), "must be a local folder"),
        ("gs://bucket/data", "must be a local folder"),
        (str(tmp_path / "file" / "below"), "writable folder"),
        ("/proc/kind_jax", "writable folder"),  # refused to root as well
    ):
        with pytest.raises(UserError, match=reason):
            open_dataset(DataConfig(path=path), "train")


def test_the_default_root_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert prepared.data_root(None) == tmp_path / "cache" / "kind_jax" / "data"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert prepared.data_root(None) == tmp_path / ".cache" / "kind_jax" / "data"
