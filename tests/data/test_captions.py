"""Captions of folders and of TFDS's data sets, and that none meets another image."""

import dataclasses
import io
import json
import os

import hostile_images
import numpy as np
import pytest
import tensorflow_datasets as tfds
from image_folders import config, files_of, fill

from kind_jax.data import dataset as dataset_module
from kind_jax.data import texts
from kind_jax.data.dataset import open_dataset
from kind_jax.data.folder import FolderSource
from kind_jax.data.pipeline import batches
from kind_jax.data.prepared import _quiet
from kind_jax.data.records import RecordSource
from kind_jax.data.sets import MemorySource
from kind_jax.data.summary import summary
from kind_jax.errors import UserError


@pytest.fixture(params=[0, 1 << 30], ids=["files", "memory"])
def memory(request, monkeypatch):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", request.param)
    return bool(request.param)


def write(root, lines, split="train"):
    (root / split / "captions.jsonl").write_text("".join(f"{line}\n" for line in lines))


def line(name, text):
    return json.dumps({"file_name": name, "text": text, "source": "ignored"}, ensure_ascii=False)


def describe(root, split="train"):
    """A caption that names its file for each, and a second one for every other."""
    names = sorted(str(p.relative_to(root / split)) for p in (root / split).rglob("*.*") if p.suffix != ".jsonl")
    lines = [line(name, f"the image {name}") for name in names]
    write(root, [*lines, "", *(line(f"./{name}", f"again {name}") for name in names[::2])], split)
    return {name: (f"the image {name}", *([f"again {name}"] if i % 2 == 0 else [])) for i, name in enumerate(names)}


def test_each_image_of_a_folder_has_its_captions_and_damaged_ones_take_theirs_along(tmp_path, memory):
    root = fill(tmp_path)
    wanted = describe(root)
    whole = open_dataset(config(root), "train")
    assert isinstance(whole.source, MemorySource if memory else FolderSource)
    assert whole.captions == tuple(wanted[name] for name in sorted(wanted))
    assert whole.families is None
    assert summary(whole)[1] == "captions: 36, 1 to 2 for each image, the longest of 22 bytes"
    assert whole.others == 0
    assert open_dataset(config(root), "test").captions is None  # val/ has no file
    (root / "train" / "bee" / "0.png").write_bytes(b"no image")
    some = open_dataset(config(root, classes=("bee", "ant"), size=10), "train")
    names = sorted(name for name in wanted if name[:3] in ("bee", "ant"))
    assert some.captions == tuple(wanted[name] for name in names if not (memory and name == "bee/0.png"))
    assert len(some.captions) == len(some.source)


def test_divisions_take_captions_along_and_the_fingerprint_knows_them(tmp_path, memory):
    root = fill(tmp_path)
    wanted = describe(root)
    (root / "val").rename(root / "elsewhere")
    whole = open_dataset(config(root), "train")
    text_of = {whole.source[i]["image"].tobytes(): whole.captions[i] for i in range(24)}
    parts = [("train", {}), ("test", {"held_out": 0.25}), ("train", {"held_out": 0.25, "validation": 0.3})]
    parts += [("validation", {"validation": 0.3}), ("train", {"only": ("ant",), "fraction": 0.5})]
    for split, settings in parts:
        part = open_dataset(config(root, **settings), split)
        assert len(part.captions) == len(part.source) > 0
        for i, captions in enumerate(part.captions):
            assert text_of[part.source[i]["image"].tobytes()] == captions
    write(root, [line(name, "another text") for name in wanted])
    other = open_dataset(config(root), "train").fingerprint
    assert other.keys() == whole.fingerprint.keys()
    assert [key for key in other if other[key] != whole.fingerprint[key]] == ["captions"]


def test_images_without_a_folder_of_their_own_have_captions_beside_them(tmp_path):
    for i in range(3):
        hostile_images.photo(20, 20, seed=i).save(tmp_path / f"{i}.png")
    (tmp_path / "captions.jsonl").write_text("".join(line(f"{i}.png", f"number {i}") + "\n" for i in range(3)))
    dataset = open_dataset(config(tmp_path), "train")
    assert (dataset.captions, dataset.others) == ((("number 0",), ("number 1",), ("number 2",)), 0)


WRONG = {
    "no JSON": ('{"file_name": ', r"line 25 of '.*captions.jsonl' is damaged: it is not JSON"),
    "a list": ('["bee/0.png", "text"]', r'line 25 of .* is \["bee/0.png", "text"\], but it must be an object like'),
    "a key twice": ('{"text": "a", "file_name": "bee/0.png", "text": "b"}', r"line 25 .* the key 'text' twice"),
    "no text": ('{"file_name": "bee/0.png"}', r"line 25 of .* has the text missing, but it must be text"),
    "a blank text": (line("bee/0.png", "  "), r"line 25 of .* has the text '  ', but it must be text"),
    "a number": ('{"file_name": 3, "text": "a"}', r"line 25 of .* has the file_name 3, but it must be text"),
    "no image": (line("bee/9.png", "a"), r"line 25 of .* has the file_name 'bee/9.png', but it must be an image below"),
    "no image by its name": (line("captions.jsonl", "a"), r"file_name 'captions.jsonl', but it must be an image"),
    "a way out": (line("../val/ant/0.png", "a"), r"file_name '../val/ant/0.png', but it must be a path below"),
    "a way in": (line("/etc/passwd", "a"), r"file_name '/etc/passwd', but it must be a path below"),
    "no UTF-8": ("\udcff", r"line 25 of .* is damaged: it is not UTF-8"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_line_that_is_wrong_is_refused_by_its_number(name, tmp_path):
    root = fill(tmp_path)
    describe(root)
    path = root / "train" / "captions.jsonl"
    lines = path.read_bytes().split(b"\n")[:24]
    wrong, said = WRONG[name]
    path.write_bytes(b"\n".join([*lines, wrong.encode(errors="surrogateescape"), b""]))
    with pytest.raises(UserError, match=said) as error:
        open_dataset(config(root), "train")
    assert str(error.value).isprintable()


def test_an_image_without_a_caption_and_a_file_in_the_wrong_place_are_refused(tmp_path):
    root = fill(tmp_path)
    describe(root)
    path = root / "train" / "captions.jsonl"
    path.rename(root / "captions.jsonl")
    with pytest.raises(UserError, match=r"captions.jsonl' is not in the folder of a split, .*/train/captions.jsonl'"):
        open_dataset(config(root), "train")
    (root / "captions.jsonl").rename(path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:24]))
    with pytest.raises(
        UserError, match=r"has no caption of the image 'Zebra/0.png', but it must have one of every image"
    ):
        open_dataset(config(root), "train")
    assert len(open_dataset(config(root, classes=("ant",)), "train").captions) == 8  # Zebra is not asked for
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"captions.jsonl is not a file"):
        open_dataset(config(root), "train")


def numbered(dataset):
    """The data set with columns that tell which record an image is of."""
    number = np.arange(len(dataset.source), dtype=np.int32)
    return dataclasses.replace(dataset, columns={"number": number, "pair": np.stack([number, -number], 1)})


@pytest.mark.parametrize("workers", [0, 2])
def test_the_columns_of_a_record_that_is_replaced_are_the_replacements(workers, tmp_path, monkeypatch):
    root = fill(tmp_path)
    clean = open_dataset(config(root), "train").source
    for name in ("ant/3.tif", "ant/4.png", "bee/7.tif"):  # two in a row, and the last one
        (root / "train" / name).write_bytes(b"damaged")
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    dataset = numbered(open_dataset(config(root), "train"))
    names = files_of(dataset.source)
    assert names[11:13] == ["ant/3.tif", "ant/4.png"]
    stream, replaced = batches(dataset, batch=8, seed=3, workers=workers), set()
    for _ in range(3):
        batch = next(stream)
        assert batch.keys() == {"image", "label", "bad", "number", "pair"}
        np.testing.assert_array_equal(batch["image"], clean.images[batch["number"]])
        np.testing.assert_array_equal(batch["label"], clean.labels[batch["number"]])
        np.testing.assert_array_equal(batch["pair"], np.stack([batch["number"], -batch["number"]], 1))
        replaced |= {(b, n) for b, n in zip(batch["bad"].tolist(), batch["number"].tolist(), strict=True) if b >= 0}
    assert replaced == {(11, 13), (12, 13), (23, 0)}
    stream.close()


def test_columns_follow_joined_sources(tmp_path, monkeypatch):
    real, mixed = fill(tmp_path / "real"), tmp_path / "mixed"
    for label, name in enumerate(("Zebra", "ant", "bee")):
        (mixed / "train" / name).mkdir(parents=True)
        for i in range(8):
            hostile_images.photo(12, 12, seed=1000 + 100 * label + i).save(mixed / "train" / name / f"{i}.png")
    describe(real)
    both = open_dataset(config(real, mix=str(mixed)), "train")
    assert both.captions is None  # nothing describes the synthetic images
    clean = both.source.images
    (real / "train" / "ant" / "0.png").write_bytes(b"damaged")
    (mixed / "train" / "bee" / "7.png").write_bytes(b"damaged")
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    dataset = numbered(open_dataset(config(real, mix=str(mixed)), "train"))
    batch = next(batches(dataset, batch=48, seed=0))
    np.testing.assert_array_equal(batch["image"], clean[batch["number"]])
    replaced = dict(zip(batch["bad"].tolist(), batch["number"].tolist(), strict=True))
    assert (replaced[8], replaced[47]) == (9, 24)


T = tfds.features
KINDS = {
    "captions": T.Sequence(T.Text()),
    "caption": T.Text(),
    "text": T.Sequence({"id": np.int64, "text": T.Text()}),
}


class Told(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Photographs with texts about them in one of three ways."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None
    feature = "captions"
    blank = None

    def _info(self):
        described = {"image": T.Image(), "file_name": T.Text(), self.feature: KINDS[self.feature]}
        return tfds.core.DatasetInfo(builder=self, features=T.FeaturesDict(described))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(12):
            found = [f"Bild {i}: ä", " ", f"again {i}"] if i != self.blank else [""]
            value = {"captions": found, "caption": found[0], "text": [{"id": 7, "text": text} for text in found]}
            image = io.BytesIO(hostile_images.encoded(hostile_images.photo(20, 20, seed=i), "PNG"))
            yield i, {"image": image, "file_name": "x", self.feature: value[self.feature]}


def build(root, feature, blank=None):
    class Builder(Told, skip_registration=True):
        name = "told"

    Builder.feature, Builder.blank = feature, blank
    with _quiet():
        Builder(data_dir=str(root), file_format="array_record").download_and_prepare()
    return {"source": "tfds", "name": "told", "size": 20}


@pytest.mark.parametrize("feature", KINDS)
def test_captions_of_a_tfds_set_are_found_by_name(feature, tmp_path, memory):
    settings = build(tmp_path, feature)
    dataset = open_dataset(config(tmp_path, **settings), "train")
    assert isinstance(dataset.source, MemorySource if memory else RecordSource)
    assert len(dataset.captions) == 12
    photos = [np.asarray(hostile_images.photo(20, 20, seed=i).convert("RGB")) for i in range(12)]
    for i, captions in enumerate(dataset.captions):
        pixels = np.rint((dataset.source[i]["image"] + 1) * 127.5).astype(np.uint8)
        (number,) = [n for n, photo in enumerate(photos) if np.array_equal(photo, pixels)]
        assert captions == (
            (f"Bild {number}: ä",) if feature == "caption" else (f"Bild {number}: ä", f"again {number}")
        )
    assert dataset.fingerprint["captions"] == texts.fingerprint(dataset.captions, None)["captions"]
    half = open_dataset(config(tmp_path, **settings, fraction=0.5), "train")
    assert len(half.captions) == len(half.source) == 6


def test_a_tfds_record_without_text_is_refused(tmp_path):
    settings = build(tmp_path, "captions", blank=5)
    with pytest.raises(
        UserError, match=r"record \d+ of '.*told/1.0.0' has no caption, .* must have text in 'captions'"
    ):
        open_dataset(config(tmp_path, **settings), "train")


def test_sets_without_captions_have_none(digits_root):
    dataset = open_dataset(config(digits_root, source="digits"), "test")
    assert (dataset.captions, dataset.families) == (None, None)
    assert not {"captions", "families"} & set(dataset.fingerprint)
