"""Image folders: what is listed, refused, and streamed around files that cannot be read."""

import json
import os
import re
import shutil
import time

import hostile_images
import numpy as np
import pytest
from image_folders import CLASSES, config, files_of, fill

from kind_jax.config import DataConfig
from kind_jax.data import dataset as dataset_module
from kind_jax.data import folder as folder_module
from kind_jax.data.bad import BadRecords
from kind_jax.data.classes import imagenet_wnids, load_protocol
from kind_jax.data.dataset import MemorySource, open_dataset
from kind_jax.data.decode import decode, to_float
from kind_jax.data.folder import FolderSource
from kind_jax.data.pipeline import _epoch_order, batches, fingerprint
from kind_jax.errors import UserError


@pytest.fixture
def root(tmp_path):
    return fill(tmp_path / "images")


@pytest.fixture
def large(monkeypatch):
    """Nothing fits in memory."""
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)


def test_records_are_the_files_in_order_of_their_paths(root, large):
    ant = root / "train" / "ant"
    (ant / "deeper").mkdir()
    shutil.copy(ant / "0.png", ant / "deeper" / "X.GIF")  # the content counts, not the name
    for ignored in (".hidden.png", "notes.txt", "0.png.part"):
        shutil.copy(ant / "0.png", ant / ignored)
    (root / "train" / ".cache").mkdir()
    (root / "train" / "README.png").touch()
    (root / "train" / "bee" / "linked.png").symlink_to(ant / "0.png")
    (root / "elsewhere").mkdir()
    (root / "train" / "cat").symlink_to(root / "elsewhere")
    shutil.copy(ant / "1.JPEG", root / "elsewhere" / os.fsdecode(b"\xff\xfe.png"))

    dataset = open_dataset(config(root), "train")
    source = dataset.source
    assert isinstance(source, FolderSource)
    assert dataset.class_names == ("Zebra", "ant", "bee", "cat")
    assert dataset.image_shape == (12, 12, 3)
    eight = ["0.png", "1.JPEG", "2.bmp", "3.tif", "4.png", "5.JPEG", "6.bmp", "7.tif"]
    expected = [
        *(f"Zebra/{name}" for name in eight),
        *(f"ant/{name}" for name in eight),
        "ant/deeper/X.GIF",
        *(f"bee/{name}" for name in eight),
        "bee/linked.png",
        "cat/" + os.fsdecode(b"\xff\xfe.png"),
    ]
    assert files_of(source) == expected
    batch = source.gather(range(len(expected)))
    assert batch["label"].tolist() == [0] * 8 + [1] * 9 + [2] * 9 + [3]
    assert (batch["bad"].dtype, set(batch["bad"].tolist())) == (np.int64, {-1})
    for i, name in enumerate(expected):
        pixels = decode((root / "train" / name).read_bytes(), 12, 3)
        np.testing.assert_array_equal(batch["image"][i], to_float(pixels))
    np.testing.assert_array_equal(source[16]["image"], batch["image"][16])

    test = open_dataset(config(root, channels=1), "test")  # val/, which lacks two classes
    assert (test.class_names, test.image_shape, len(test.source)) == (dataset.class_names, (12, 12, 1), 16)


def test_selected_classes_are_renumbered_as_everywhere(root, monkeypatch):
    everything = open_dataset(config(root), "train")
    memory = open_dataset(config(root, classes=(2, 0)), "train")
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    files = open_dataset(config(root, classes=(2, 0)), "train")
    assert isinstance(memory.source, MemorySource)
    assert memory.class_names == files.class_names == ("bee", "Zebra")
    assert {**memory.fingerprint, "content": None} == {**files.fingerprint, "content": None}
    assert len({json.dumps(d.fingerprint["content"]) for d in (everything, memory, files)}) == 3
    whole = everything.source.gather(range(24))
    for source in (memory.source, files.source):
        batch = source.gather(range(16))
        assert batch["label"].tolist() == [1] * 8 + [0] * 8
        np.testing.assert_array_equal(batch["image"], whole["image"][np.isin(whole["label"], (0, 2))])
    with pytest.raises(UserError, match=r"data.classes contains 3, but the classes of .*images are 0 to 2"):
        open_dataset(config(root, classes=(3,)), "train")
    with pytest.raises(UserError, match=r"val' has no image of the classes that data.classes names"):
        open_dataset(config(root, classes=(2,)), "test")


def test_the_fingerprint_is_of_pixels_in_memory_and_of_paths_and_sizes_on_disk(root, tmp_path, monkeypatch):
    def of(root=root, split="train", **settings):
        return open_dataset(config(root, **settings), split).fingerprint

    base = of()
    assert json.loads(json.dumps(base)) == base
    moved = shutil.copytree(root, tmp_path / "moved")
    assert of(moved, workers=2, seed=3, skip_bad=1.0) == base
    others = [base, of(split="test"), of(size=13), of(channels=1), of(classes=(1, 0, 2))]
    shutil.copy(next((moved / "train" / "Zebra").glob("*.png")), moved / "train" / "bee" / "0.png")
    others.append(of(moved))
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    others.append(of(moved))
    (moved / "train" / "bee" / "0.png").rename(moved / "train" / "bee" / "00.png")
    others.append(of(moved))
    with (moved / "train" / "bee" / "00.png").open("ab") as file:
        file.write(b"\0")
    others.append(of(moved))
    assert len({json.dumps(found) for found in others}) == len(others)


def _remove(root, name):
    shutil.rmtree(root / name)


@pytest.mark.parametrize(
    ("change", "split", "message"),
    [
        (lambda root: _remove(root, ""), "train", "data.path is .*images', but for data.source 'folder' it must be"),
        (lambda root: _remove(root, "train"), "test", "where there is no train/"),
        (lambda root: _remove(root, "train"), "train", "where there is no train/ beside val/"),
        (lambda root: _remove(root, "val"), "test", "neither test/ nor val/"),
        (lambda root: [_remove(root, f"train/{name}") for name in CLASSES], "train", "train' has no folder"),
        (lambda root: _remove(root, "train/ant"), "test", "val' has the class 'ant', but .* one of the 2 in"),
        (lambda root: (root / "train/cat").mkdir(), "train", r"class 'cat' in .*train' has no file that ends in .jpg"),
        (lambda root: (root / "train/a\nb").mkdir(), "train", r"train has the class name .* printable"),
        (lambda root: (root / "train/ant/in").symlink_to(root / "train"), "train", "link to a folder that it is in"),
    ],
)
def test_a_folder_that_is_no_data_set_is_refused(root, change, split, message):
    open_dataset(config(root), split)
    change(root)
    with pytest.raises(UserError, match=message):
        open_dataset(config(root), split)


def flat(folder, count=6, seed=0):
    """Images without class folders."""
    folder.mkdir(parents=True)
    for i in range(count):
        hostile_images.photo(20 + i, 24, seed=seed + i).save(folder / f"{i}.png")
    return folder


@pytest.mark.parametrize("memory", [0, 1 << 30])
@pytest.mark.parametrize("below", ["train", ""])
def test_images_without_class_folders_are_one_class(tmp_path, monkeypatch, below, memory):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", memory)
    root = tmp_path / "Hubble"
    folder = flat(root / below)
    (folder / ".thumbnails").mkdir()
    (folder / "notes.txt").touch()
    dataset = open_dataset(config(root), "train")
    batch = dataset.source.gather(range(6))
    assert (dataset.class_names, len(dataset.source)) == (("Hubble",), 6)
    assert not batch["label"].any()
    np.testing.assert_array_equal(batch["image"][4], to_float(decode((folder / "4.png").read_bytes(), 12, 3)))
    monkeypatch.chdir(root)
    assert open_dataset(config("."), "train").class_names == ("Hubble",)
    with pytest.raises(UserError, match=r"neither test/ nor val/" if below else r"where there is no train/, but"):
        open_dataset(config(root), "test")
    if below:
        flat(root / "val", 2, seed=50)
        test = open_dataset(config(root), "test")
        assert (test.class_names, len(test.source)) == (("Hubble",), 2)
        (root / "val" / "deeper").mkdir()
        with pytest.raises(UserError, match=r"val' has the class 'deeper', but every class must be as in .*no folders"):
            open_dataset(config(root), "test")


def test_classes_without_a_train_folder(root, tmp_path):
    for name in CLASSES[:2]:
        shutil.copytree(root / "train" / name, tmp_path / "types" / name)
    own = open_dataset(config(tmp_path / "types"), "train")
    assert own.class_names == CLASSES[:2]
    assert own.fingerprint == open_dataset(config(root, classes=(0, 1)), "train").fingerprint
    shutil.copy(root / "train" / "ant" / "0.png", tmp_path / "types" / "cover.png")
    with pytest.raises(UserError, match=r"holds images like 'cover.png' beside folders like 'Zebra': put"):
        open_dataset(config(tmp_path / "types"), "train")


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_the_protocol_unites_the_folders_of_imagenet(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", memory)
    picture = flat(tmp_path / "one", 1) / "0.png"
    for wnid in imagenet_wnids():
        (tmp_path / "imagenet" / "train" / wnid).mkdir(parents=True)
        os.link(picture, tmp_path / "imagenet" / "train" / wnid / "0.png")
    table = load_protocol("kind-novel")
    dataset = open_dataset(config(tmp_path / "imagenet", size=1, protocol="kind-novel", classes=(5, 0)), "train")
    assert dataset.class_names == (table.names[5], table.names[0])
    wanted = sorted([(label, 0) for label in table.members[5]] + [(label, 1) for label in table.members[0]])
    assert dataset.source.gather(range(len(dataset.source)))["label"].tolist() == [new for _, new in wanted]
    with pytest.raises(
        UserError, match=r"data.classes contains 461, but the classes of data.protocol 'kind-novel' are 0"
    ):
        open_dataset(config(tmp_path / "imagenet", size=1, protocol="kind-novel", classes=(461,)), "train")
    first = tmp_path / "imagenet" / "train" / imagenet_wnids()[3]
    first.rename(first.with_name("n99999999"))
    with pytest.raises(UserError, match=r"data.protocol is 'kind-611', but class 3 of .* they must be the 1000 of"):
        open_dataset(config(tmp_path / "imagenet", protocol="kind-611"), "train")


@pytest.mark.parametrize("path", [None, "gs://bucket/images", "/dev/null"])
def test_a_path_that_is_no_folder_is_refused(path):
    with pytest.raises(UserError, match=r"data.path is .*, but for data.source 'folder' it must be a local folder"):
        open_dataset(DataConfig(source="folder", path=path), "train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "data.size is 0, but it must be between 1 and 8192"),
        ({"skip_bad": float("nan")}, "data.skip_bad is nan"),
        ({"skip_bad": 1.5}, "data.skip_bad is 1.5, but it must be between 0 and 1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        DataConfig(**settings)


@pytest.fixture
def hostile(root):
    """The data set with every bad file there is, and what is said about each: {path: pattern}."""
    wanted = {}
    found = hostile_images.bad()
    del found["line.png"]  # it is too long for large images only
    for i, (name, (data, reason)) in enumerate(found.items()):
        path = root / "train" / CLASSES[i % 3] / f"{5 * i % 8}_{name}"  # between the others, some next to each other
        path.write_bytes(data)
        wanted[path] = reason
    fifo, gone, last = (root / "train" / "bee" / name for name in ("4_pipe.png", "5_gone.png", "zz.png"))
    os.mkfifo(fifo)
    gone.symlink_to(root / "nowhere")
    last.write_bytes(b"the next one is the first")
    return root, wanted | {fifo: "not a file", gone: "it is missing", last: "no JPEG"}


def test_a_run_goes_around_bad_files_alike_in_threads_and_processes(hostile, large):
    root, wanted = hostile
    dataset = open_dataset(config(root, skip_bad=0.6), "train")
    source = dataset.source
    paths = [source.path(i) for i in range(len(source))]
    assert set(wanted) < set(paths)
    assert len(paths) == 24 + len(wanted)
    is_bad = np.asarray([path in wanted for path in paths])

    # What must come, worked out from the files alone.
    count, steps = len(paths), 2 * len(paths) // 6 + 1  # two epochs, and a batch across
    order = np.concatenate([_epoch_order(count, 7, epoch) for epoch in range(3)])[: 6 * steps].astype(np.int64)
    next_good = [next(j % count for j in range(i, i + count) if not is_bad[j % count]) for i in range(count)]
    images = {i: to_float(decode(paths[i].read_bytes(), 12, 3)) for i in set(next_good)}
    expected = [
        {
            "image": np.stack([images[next_good[i]] for i in rows]),
            "label": np.asarray([CLASSES.index(paths[next_good[i]].parts[-2]) for i in rows], np.int32),
            "bad": np.where(is_bad[rows], rows, -1),
        }
        for rows in order.reshape(steps, 6)
    ]

    for workers in (0, 2):
        said = []
        bad = BadRecords(dataset, 0.6, said.append)
        stream = batches(dataset, batch=6, seed=7, workers=workers)
        middle = None
        for step, want in enumerate(expected):
            if step == steps // 2:
                middle = json.loads(json.dumps(stream.get_state()))
            batch = next(stream)
            assert batch.keys() == want.keys()
            for name, array in want.items():
                np.testing.assert_array_equal(batch[name], array)
                assert batch[name].dtype == array.dtype
            seen = np.concatenate([w["bad"] for w in expected[: step + 1]])
            assert bad.take(batch).keys() == {"image", "label"}
            assert bad.count == len(set(seen.tolist()) - {-1})
        assert bad.count == len(wanted)
        assert len(said) == 21
        assert said[-1] == "skipped more than 20 records that cannot be read; further ones are only counted"
        for line in said[:-1]:
            path = next(path for path in wanted if f"{path}: " in line)
            assert re.search(wanted[path], line)
            assert "\n" not in line
        assert len(set(said)) == len(said)
        stream.close()

        resumed = batches(dataset, batch=6, seed=7)
        resumed.set_state(middle)
        for want in expected[steps // 2 : steps // 2 + 4]:
            batch = next(resumed)
            for name, array in want.items():
                np.testing.assert_array_equal(batch[name], array)
        resumed.close()
    assert fingerprint(dataset, batch=6, seed=7)["dataset"]["reading"] == folder_module.READING


def test_a_set_in_memory_leaves_bad_files_out(hostile):
    root, wanted = hostile
    dataset = open_dataset(config(root, skip_bad=0.6), "train")
    assert isinstance(dataset.source, MemorySource)
    assert len(dataset.source) == dataset.fingerprint["records"] == 24
    assert len(dataset.bad) == len(wanted)
    for path, reason in wanted.items():
        (line,) = [line for line in dataset.bad if line.startswith(f"{path}: ")]
        assert re.search(reason, line)
    clean = open_dataset(config(fill(root / "clean")), "train")
    for name, array in clean.source.gather(range(24)).items():
        np.testing.assert_array_equal(dataset.source.gather(range(24))[name], array)
    assert clean.bad == ()
    said = []
    bad = BadRecords(dataset, 0.6, said.append)
    batch = next(batches(dataset, batch=4, seed=0))
    assert bad.take(batch) is batch
    assert (bad.count, len(said)) == (len(wanted), 21)


@pytest.mark.parametrize(("limit", "fits"), [(0.0, False), (0.01, False), (0.02, True)])
def test_one_bad_file_in_fifty(tmp_path, monkeypatch, limit, fits):
    root = fill(tmp_path, 25)
    shutil.rmtree(root / "train" / "bee")
    broken = root / "train" / "ant" / "1.JPEG"
    broken.write_bytes(broken.read_bytes()[:-30])
    message = (
        rf"data.skip_bad is {limit}, but 1 of the 50 records \(2.00%\) cannot be read; the last one: "
        rf"{broken}: it cannot be decoded as JPEG \(.*truncated.*\); remove them, or "
        r"raise data.skip_bad\.$"
    )
    if fits:
        assert len(open_dataset(config(root, skip_bad=limit), "train").bad) == 1
    else:
        with pytest.raises(UserError, match=message):
            open_dataset(config(root, skip_bad=limit), "train")
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", 0)
    dataset = open_dataset(config(root, skip_bad=limit), "train")
    bad = BadRecords(dataset, limit, lambda line: None)
    batch = next(batches(dataset, batch=50, seed=0))
    if fits:
        bad.take(batch)
        assert bad.count == 1
    else:
        with pytest.raises(UserError, match=message):
            bad.take(batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_are_gone_end_a_run_with_one_sentence(root, large, workers):
    dataset = open_dataset(config(root), "train")
    shutil.rmtree(root)
    with pytest.raises(UserError, match=r"None of 24 records in a row can be read, .*it is missing\): look whether"):
        next(batches(dataset, batch=4, seed=0, workers=workers))
    assert dataset.source.explain(3) == f"{root / 'train' / 'Zebra' / '3.tif'}: it is missing"


def test_nothing_readable_is_refused_at_once(root):
    for path in (root / "train").rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"train' has no image that can be read; the last one: .*7.tif: it is empty"):
        open_dataset(config(root, skip_bad=1.0), "train")


def test_listing_is_fast_and_small(tmp_path, large):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(5000):
            os.link(tmp_path / "train/a/0.png", tmp_path / f"train/{name}/{i}.png") if i or name == "b" else (
                tmp_path / "train/a/0.png"
            ).touch()
    begin = time.monotonic()
    source = open_dataset(config(tmp_path), "train").source
    assert time.monotonic() - begin < 2  # 0.1 s without the checks of shapes
    assert len(source) == 10_000
    assert len(source.names) + source.ends.nbytes + source.labels.nbytes < 25 * 10_000
