"""Data sets of TFDS by name: image files of several sizes, as array_record, read without TensorFlow."""

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hostile_images
import numpy as np
import pytest
import tensorflow_datasets as tfds

from kind_jax.config import DataConfig
from kind_jax.data import dataset as dataset_module
from kind_jax.data import named
from kind_jax.data.bad import BadRecords
from kind_jax.data.dataset import MemorySource, open_dataset
from kind_jax.data.decode import decode, to_float
from kind_jax.data.pipeline import batches
from kind_jax.data.prepared import _quiet
from kind_jax.data.records import RecordSource
from kind_jax.errors import UserError

NAMES = ("cat", "dog", "emu")
RECORDS = 24


def file(i):
    """A JPEG or PNG, large or small, upright or not, in colour or grey."""
    photo = hostile_images.photo(20 + 7 * (i % 4), 60 - 9 * (i % 5), seed=i)
    return hostile_images.encoded(photo if i % 3 else photo.convert("L"), ("PNG", "JPEG")[i % 2])


def features(label):
    image = {"file_name": tfds.features.Text(), "image": tfds.features.Image(encoding_format="jpeg")}
    return tfds.features.FeaturesDict(image | ({"label": label} if label is not None else {}))


class Animals(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Three classes; a test split without labels, as ImageNet's."""

    VERSION = tfds.core.Version("1.2.0")
    url_infos = None
    label = tfds.features.ClassLabel(names=list(NAMES))

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=features(self.label))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in ("train", "validation", "test")}

    def _generate_examples(self, split):
        for i in range(RECORDS if split == "train" else 6):
            record = {"file_name": f"{split}_{i}", "image": io.BytesIO(file(i + (100 if split != "train" else 0)))}
            label = {} if self.label is None else {"label": -1 if split == "test" else (i * i) % 3}
            yield i, record | label


class Faces(Animals, skip_registration=True):
    """One class, without labels."""

    VERSION = tfds.core.Version("2.0.0")
    label = None


def build(builder_class, data_dir):
    with _quiet():
        builder = builder_class(data_dir=str(data_dir), file_format="array_record")
        builder.download_and_prepare()
    return Path(builder.data_dir)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    build(Animals, root)
    build(Faces, root)
    return root


@pytest.fixture
def copy(prepared, tmp_path):
    """(data_dir, folder of the animals), to be damaged."""
    shutil.copytree(prepared, tmp_path / "copy")
    return tmp_path / "copy", tmp_path / "copy" / "animals" / "1.2.0"


@pytest.fixture(params=[0, 1 << 30], ids=["files", "memory"])
def memory(request, monkeypatch):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", request.param)
    return bool(request.param)


def config(root, name="animals", **settings):
    return DataConfig(**{"source": "tfds", "name": name, "path": str(root), "size": 16, **settings})


def original(dataset, i):
    """The number of the file that a record came from: TFDS shuffles what it prepares."""
    files = [to_float(decode(file(n), 16, dataset.image_shape[2])) for n in range(RECORDS)]
    (found,) = [n for n, pixels in enumerate(files) if np.array_equal(pixels, dataset.source[i]["image"])]
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_image_files_of_any_size_are_decoded_as_from_a_folder(prepared, memory, channels):
    dataset = open_dataset(config(prepared, channels=channels), "train")
    assert isinstance(dataset.source, MemorySource if memory else RecordSource)
    assert (dataset.class_names, dataset.image_shape, dataset.bad) == (NAMES, (16, 16, channels), ())
    numbers = [original(dataset, i) for i in range(RECORDS)]
    assert sorted(numbers) == list(range(RECORDS))
    assert [int(dataset.source[i]["label"]) for i in range(RECORDS)] == [n * n % 3 for n in numbers]
    assert dataset.fingerprint["name"] == "animals"
    assert json.loads(json.dumps(dataset.fingerprint)) == dataset.fingerprint
    other = open_dataset(config(prepared, channels=channels, size=17), "train").fingerprint
    assert other != dataset.fingerprint


def test_a_test_split_without_labels_is_passed_over_and_a_set_without_labels_is_one_class(prepared, memory):
    dataset = open_dataset(config(prepared), "test")
    assert len(dataset.source) == 6
    assert sorted(dataset.source.gather(range(6))["label"].tolist()) == sorted(i * i % 3 for i in range(6))
    faces = open_dataset(config(prepared, "faces"), "train")
    assert (faces.class_names, len(faces.source)) == (("faces",), RECORDS)
    assert not faces.source.gather(range(RECORDS))["label"].any()


def test_classes_are_chosen_without_decoding_images(prepared, monkeypatch):
    everything = open_dataset(config(prepared), "train").source.gather(range(RECORDS))
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    asked = []
    monkeypatch.setattr("kind_jax.data.records.decode", lambda *a: asked.append(a) or decode(*a))
    dataset = open_dataset(config(prepared, classes=(1, 0)), "train")
    assert not asked
    keep = np.flatnonzero(everything["label"] < 2)
    assert 0 < len(keep) == len(dataset.source)
    batch = dataset.source.gather(range(len(keep)))
    np.testing.assert_array_equal(batch["image"], everything["image"][keep])
    np.testing.assert_array_equal(batch["label"], 1 - everything["label"][keep])


def test_bad_records_are_gone_around_alike_in_threads_and_processes(prepared, monkeypatch, tmp_path):
    monkeypatch.setitem(globals(), "file", lambda i, sound=file: b"no image" if i in (5, 6) else sound(i))
    build(Animals, tmp_path)
    with pytest.raises(UserError, match=r"data.skip_bad is 0.01, but 1 of the 24 records .* it is no JPEG, PNG"):
        open_dataset(config(tmp_path), "train")
    held = open_dataset(config(tmp_path, skip_bad=0.1), "train")
    assert (len(held.source), len(held.bad)) == (RECORDS - 2, 2)
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    dataset = open_dataset(config(tmp_path, skip_bad=0.1), "train")
    streams = [batches(dataset, batch=12, seed=0, workers=workers) for workers in (0, 1)]
    said = []
    bad = BadRecords(dataset, 0.1, said.append)
    for _ in range(3):
        one, two = (next(stream) for stream in streams)
        for key in ("image", "label", "bad"):
            np.testing.assert_array_equal(one[key], two[key])
        bad.take(one)
    streams[1].close()
    assert bad.count == 2
    assert all(re.search(r"record \d+ of '.*animals/1.2.0': it is no JPEG", line) for line in said)


def tfrecord(folder):
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (None, {"name": "animals/../faces"}, "data.name is 'animals/../faces', but it must be like imagenet2012"),
        (None, {"name": ".."}, "must be like imagenet2012"),
        (None, {"root": "gs://bucket"}, "data.path is 'gs://bucket', but it must be a local folder"),
        (None, {"name": "plants"}, r"no '.*copy/plants/VERSION'.* `tfds build plants --file_format=array_record"),
        (None, {"name": "animals:1.0.0"}, r"1.0.0', where only 1.2.0 is prepared.* `tfds build animals:1.0.0"),
        (lambda f: shutil.copytree(f, f.parent / "1.10.0"), {}, "versions 1.10.0, 1.2.0, but .* like animals:1.2.0"),
        (lambda f: f.parent.rename(f.parents[1] / "zoo"), {"name": "animals"}, "give TFDS's data_dir as data.path"),
        (lambda f: f.rename(f.parent / "small"), {}, "has configurations in .*: animals/small"),
        (tfrecord, {}, "holds as tfrecord, but it must be array_record: remove that folder and run `tfds"),
        (lambda f: edit(f, "dataset_info.json", '"train"', '"training"'), {}, "no split train in .* only t"),
        (lambda f: edit(f, "features.json", "image_feature.Image", "text_feature.Text"), {}, "damaged|have an 'image'"),
        (lambda f: edit(f, "features.json", "tensorflow_datasets.core", "os"), {}, "the foreign class"),
        (lambda f: edit(f, "features.json", '"numClasses": "3"', '"numClasses": "4"'), {}, "damaged"),
        (lambda f: next(f.glob("animals-train*")).unlink(), {}, "is damaged .*missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_said_in_one_sentence(copy, change, settings, message):
    root, folder = copy
    if change is not None:
        change(folder)
    with pytest.raises(UserError, match=message) as error:
        open_dataset(config(**{"root": root, **settings}), "train")
    assert str(error.value).isprintable()


def edit(folder, name, old, new):
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


def test_names_lead_to_folders(copy, monkeypatch):
    root, folder = copy
    (root / "set" / "v2-small" / "3.0.1").mkdir(parents=True)
    assert named.find("animals", str(root)).folder == folder
    assert named.find("animals:1.2.0", str(root)).folder == folder
    place = named.find("set/v2-small:3.0.1", str(root))
    assert (place.folder, place.name) == (root / "set" / "v2-small" / "3.0.1", "set/v2-small")
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert named.find("animals", None).folder == folder
    with pytest.raises(UserError, match=r"data.name is None, but it must be given for data.source 'tfds'"):
        DataConfig(source="tfds")


def test_packaged_sets_can_be_opened_by_name(digits_root):
    by_name = open_dataset(DataConfig(source="tfds", name="digits", path=str(digits_root), size=3), "train")
    own = open_dataset(DataConfig(path=str(digits_root)), "train")
    assert by_name.image_shape == (8, 8, 1)  # arrays, not files: they have their own size
    assert by_name.fingerprint == own.fingerprint


def test_the_protocol_chooses_among_imagenets_classes(prepared):
    with pytest.raises(
        UserError, match=r"data.protocol is 'kind-base', but animals has 3 classes, .* 1000 of ImageNet-1K"
    ):
        open_dataset(config(prepared, protocol="kind-base"), "train")


_CHILD = """
import sys
from kind_jax.config import DataConfig
from kind_jax.data.dataset import open_dataset

found = open_dataset(DataConfig(source="tfds", name="animals", path=sys.argv[1], size=16), "train")
assert len(found.source) == 24
assert not {"tensorflow", "torch"} & set(sys.modules)
"""


def test_nothing_is_said_and_tensorflow_is_not_imported(prepared):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _CHILD, str(prepared)],
        cwd=Path(named.__file__).parents[2], capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
