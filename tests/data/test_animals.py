import gzip
import hashlib
import importlib.metadata
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from kind_jax.cli import main
from kind_jax.config import DataConfig
from kind_jax.data import animals
from kind_jax.data.dataset import open_dataset
from kind_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def pickled(array, protocol=4):
    """As NumPy 1 pickled it, with which the package was made."""
    return pickle.dumps(array, protocol).replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")


def images_and_labels(count=100, seed=0):
    """Different images, equally many of each class."""
    images = np.random.RandomState(seed).randint(0, 256, (count, 28, 28)).astype(np.uint8)
    return images, np.arange(count, dtype="<i8") % 10


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that installs a package of the name and layout of animal-mnist, in whose files ``contents`` are.

    Its sums are those that are wanted, and so are the shapes of ``images`` and ``labels``. It returns both paths.
    """
    site = tmp_path / "site"
    (site / "animal_mnist-0.4.dist-info").mkdir(parents=True)
    (site / "animal_mnist-0.4.dist-info" / "METADATA").write_text("Name: animal_mnist\nVersion: 0.4\n")
    monkeypatch.syspath_prepend(str(site))

    def install(images, labels, contents=None):
        paths = []
        contents = contents or (gzip.compress(pickled(images)), gzip.compress(pickled(labels)))
        for name, array, content in zip(("_IMAGES", "_LABELS"), (images, labels), contents, strict=True):
            old = getattr(animals, name)
            paths.append(site / old.file)
            paths[-1].parent.mkdir(parents=True, exist_ok=True)
            paths[-1].write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            monkeypatch.setattr(animals, name, old._replace(sha256=digest, shape=array.shape))
        return paths

    return install


def opened(root, split="train"):
    return open_dataset(DataConfig(source="animals", path=str(root)), split)


def pixels(dataset):
    batch = dataset.source.gather(range(len(dataset.source)))
    return np.rint((batch["image"][..., 0] + 1) * 127.5).astype(np.uint8), batch["label"]


def refusal(root):
    """The message; nothing that looks like a data set is left."""
    with pytest.raises(UserError) as error:
        opened(root)
    assert [path.name for path in root.rglob("*")] == ["animals"]
    message = str(error.value)
    assert message.isprintable()
    assert message.endswith(".")
    return message


def test_the_files_are_read_and_every_image_keeps_its_label(install, tmp_path):
    images, labels = images_and_labels()
    install(images, labels)
    label_of = {image.tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)}
    seen = []
    for split, count in (("train", 80), ("test", 20)):
        dataset = opened(tmp_path / "data", split)
        assert dataset.image_shape == (28, 28, 1)
        assert dataset.class_names == animals._CLASSES
        assert dataset.counts == (count // 10,) * 10
        found, known = pixels(dataset)
        assert [label_of[image.tobytes()] for image in found] == known.tolist()
        seen += [image.tobytes() for image in found]
    assert sorted(seen) == sorted(label_of)


def test_of_equal_images_the_first_is_kept_and_none_whose_labels_differ():
    images, labels = images_and_labels(50)
    images[[11, 21, 31]] = images[1]  # all four of class 1
    images[[12, 23]] = images[2], images[3]
    labels[12], labels[23] = 2, 4  # a second copy of the same class, and one of another
    splits = animals._splits(images, labels)
    assert sorted(splits["train"] + splits["test"]) == sorted(set(range(50)) - {11, 21, 31, 12, 3, 23})


def test_the_split_is_stratified_disjoint_and_depends_on_the_images_alone():
    images, labels = images_and_labels(230)
    splits = animals._splits(images, labels)
    assert sorted(splits["train"] + splits["test"]) == list(range(230))
    for split, count in (("train", 18), ("test", 5)):  # of 23
        assert splits[split] == sorted(splits[split])
        np.testing.assert_array_equal(np.bincount(labels[splits[split]]), np.full(10, count))

    order = np.random.RandomState(1).permutation(230)
    moved = animals._splits(images[order], labels[order])
    assert sorted(order[moved["test"]].tolist()) == splits["test"]
    fewer = animals._splits(images[:200], labels[:200])  # an image changes sides only where the fifth's border passes
    assert len(set(fewer["test"]) & set(splits["train"])) + len(set(fewer["train"]) & set(splits["test"])) <= 20


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


HOSTILE = {
    "a call": lambda images, evil: pickled(evil),
    "a call in old text": lambda images, evil: pickle.dumps(evil, 0),
    "a call beside the array": lambda images, evil: pickled((images, evil)),
    "a call before the array": lambda images, evil: (
        f"cos\nsystem\n(S'touch {evil.mark}'\ntR0".encode() + pickled(images)
    ),
    "a call after the array": lambda images, evil: pickled(images) + pickled(evil),
    "an array of objects": lambda images, evil: pickled(np.full(images.shape, evil)),
    "another function": lambda images, evil: pickled(images).replace(b"_reconstruct", b"_reconstrucT"),
    "another module": lambda images, evil: pickled(images).replace(b"numpy.core.multiarray", b"numpy.core.multiarraY"),
    "other numbers": lambda images, evil: pickled(images.astype(np.int8)),
    "another shape": lambda images, evil: pickled(images.reshape(-1, 14, 56)),
    "fewer images": lambda images, evil: pickled(images[1:]),
    "columns first": lambda images, evil: pickled(np.asfortranarray(images)),
    "out-of-band protocol": lambda images, evil: pickled(images, 5),
    "cut in the array": lambda images, evil: pickled(images)[:5000],
    "without an end": lambda images, evil: pickled(images)[:-1],
    "empty": lambda images, evil: b"",
    "no pickle": lambda images, evil: b"\xff" * 1000,
    "a length beyond the end": lambda images, evil: b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f",
    "a number without end": lambda images, evil: b"I" + b"9" * 50_000 + b"\n.",
    "memos without end": lambda images, evil: b"\x80\x04" + b"\x94" * 70_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_and_nothing_in_it_runs(name, install, tmp_path, monkeypatch):
    """Its sum is the wanted one here, so that the reader alone stands in the way."""
    calls, mark = [], tmp_path / "mark"
    content = HOSTILE[name](images_and_labels()[0], Evil(mark))
    monkeypatch.setattr(os, "system", calls.append)
    images, labels = images_and_labels()
    path, _ = install(images, labels, (gzip.compress(content), gzip.compress(pickled(labels))))
    assert f"{path} must be a gzipped pickle of one array, but " in refusal(tmp_path / "data")
    assert not calls
    assert not mark.exists()


def test_the_hostile_pickle_is_one(tmp_path):
    images = images_and_labels()[0]
    for name in list(HOSTILE)[:4]:
        mark = tmp_path / "mark"
        pickle.loads(HOSTILE[name](images, Evil(mark)))
        assert mark.exists(), name
        mark.unlink()


def test_flipped_bytes_never_do_more_than_change_pixels():
    images, _ = images_and_labels(10)
    array, content, random = animals._IMAGES._replace(shape=images.shape), pickled(images), np.random.RandomState(0)
    assert animals._content(content, array, images.size) == images.tobytes()
    frame = [*range(170), *range(len(content) - 20, len(content))]
    read = 0
    for _ in range(2000):
        mutated = bytearray(content)
        mutated[random.choice(frame)] = random.randint(256)
        try:
            assert len(animals._content(bytes(mutated), array, images.size)) == images.size
            read += 1
        except (ValueError, OverflowError):
            pass
    assert read < 1000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(bytes(1 << 26)), "inflates to more than 82496 bytes"),
        (gzip.compress(pickled(images_and_labels()[0]))[:-1], "cut short"),
        (gzip.compress(pickled(images_and_labels()[0])) * 2, "bytes follow it"),
        (b"no gzip file", "incorrect header check"),
        (b"", "cut short"),
        (gzip.compress(pickled(images_and_labels()[0]))[:-6] + bytes(6), "incorrect data check"),
    ],
    ids=["bomb", "cut", "two", "text", "empty", "sum"],
)
def test_what_is_no_gzip_file_or_inflates_beyond_measure_is_refused(content, reason, install, tmp_path):
    images, labels = images_and_labels()
    path, _ = install(images, labels, (content, gzip.compress(pickled(labels))))
    tracemalloc.start()
    with pytest.raises(UserError, match=reason) as error:
        animals._records()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in str(error.value)
    assert peak < 2 << 20


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_of_no_class_are_refused(label, install, tmp_path):
    images, labels = images_and_labels()
    labels[7] = label
    _, path = install(images, labels)
    message = f"{path} has labels from {labels.min()} to {labels.max()}, but they must be between 0 and 9."
    assert refusal(tmp_path / "data") == message


AGAIN = "; `pip install --no-deps animal-mnist==0.4 --force-reinstall` installs it anew."


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("damage", ["a flipped bit", "another version", "cut", "missing", "pipe"])
def test_a_damaged_file_or_another_version_is_refused(which, damage, install, tmp_path):
    images, labels = images_and_labels()
    path = install(images, labels)[which]
    wanted, content = hashlib.sha256(path.read_bytes()).hexdigest(), bytearray(path.read_bytes())
    if damage in ("missing", "pipe"):
        path.unlink()
        if damage == "pipe":
            os.mkfifo(path)
        message = f"{path} is missing, but animal-mnist must be installed whole"
    else:
        if damage == "a flipped bit":
            content[len(content) // 2] ^= 1
        elif damage == "cut":
            del content[-100:]
        else:
            content = gzip.compress(pickled(images_and_labels(seed=1)[which][:90]))
        path.write_bytes(content)
        found = hashlib.sha256(content).hexdigest()
        message = f"{path} has the SHA-256 {found}, but it must be that of animal-mnist 0.4, {wanted}"
    assert refusal(tmp_path / "data") == message + AGAIN


MISSING = (
    "data.source is 'animals', but the package that it is made from is not installed; `pip install --no-deps "
    "animal-mnist==0.4` installs it."
)


def test_without_the_package_a_sentence_says_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(animals, "_PACKAGE", "animal-mnist-that-is-nowhere")
    assert refusal(tmp_path / "data") == MISSING


def test_without_the_package_the_command_line_says_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(animals, "_PACKAGE", "animal-mnist-that-is-nowhere")
    line = ["train", "--config", str(ROOT / "configs/digits.py"), "--data.source", "animals"]
    assert main([*line, "--data.path", str(tmp_path / "data"), "--workdir", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr()
    assert printed.err == f"error: {MISSING}\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_prepared_set_is_opened_without_the_package(install, tmp_path, monkeypatch):
    install(*images_and_labels())
    wanted = opened(tmp_path / "data").fingerprint
    monkeypatch.setattr(animals, "_PACKAGE", "animal-mnist-that-is-nowhere")
    assert opened(tmp_path / "data").fingerprint == wanted


def _installed():
    return any(importlib.metadata.distributions(name="animal-mnist"))


@pytest.mark.skipif(not _installed(), reason="make .venv/.animals installs animal-mnist")
def test_the_package_itself(records):
    distribution, contents = importlib.metadata.distribution("animal-mnist"), []
    # Where the arrays lie in the pickles, found by hand.
    for array, start, end in ((animals._IMAGES, 150, -14), (animals._LABELS, 146, -14)):
        with gzip.open(str(distribution.locate_file(array.file))) as file:
            contents.append(file.read()[start:end])
    images = np.frombuffer(contents[0], np.uint8).reshape(-1, 28, 28)
    labels = np.frombuffer(contents[1], "<i8")
    label_of = {image.tobytes(): label for image, label in zip(images, labels.tolist(), strict=True)}
    assert len(label_of) == 9716

    wanted = {
        "train": (
            (750, 650, 794, 797, 798, 800, 800, 798, 788, 800),
            "2f9efdc5301006526a3fc886fb43e8f0b3f5c5428ffa646f4fe3e926ba9578d5",
        ),
        "test": (
            (187, 162, 198, 199, 199, 200, 200, 199, 197, 200),
            "e3a2dd1496ab0601c573bab17a7004750f860db612d8ebe547b04792bda4ce38",
        ),
    }
    seen = []
    for split, (counts, digest) in wanted.items():
        dataset, found, known = records("animals")[split]
        assert dataset.counts == counts
        assert dataset.fingerprint["content"] == {"sha256": digest}  # the same split on every machine
        assert dataset.image_shape == (28, 28, 1)
        assert [label_of[image.tobytes()] for image in found] == known.tolist()
        seen += [image.tobytes() for image in found]
    assert len(seen) == 9716
    assert set(seen) == set(label_of)
