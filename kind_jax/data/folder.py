"""Folders of image files, one folder a class or one class in all: listed at once, decoded when asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import operator
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, SupportsIndex

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8

from kind_jax.data.bad import check_share, read_around
from kind_jax.data.decode import LIMIT, BadImage, decode, to_float
from kind_jax.data.least import least
from kind_jax.errors import NoSplitError, UserError
from kind_jax.untrusted.regular import read_small
from kind_jax.untrusted.text import check_names, printable

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
CAPTIONS = "captions.jsonl"  # describes the images of a split, and lies in its folder
_SUFFIXES = tuple(suffix.encode() for suffix in SUFFIXES)
# Describes a record for the fingerprint: change it whenever the pixels or the choice of records change.
READING = (
    "paths in order; convert, centre crop as ADM; of unreadable files, a set in memory leaves them out, a larger one "
    "takes the next readable one"
)
HELD_OUT = "of each class, the share of paths with the least SHA-256"  # for the fingerprint, as READING
_THREADS = 16  # network file systems answer many questions at once


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FolderSource:
    """Image files, decoded when they are asked for.

    Attributes:
      folder: of the split.
      names: paths below it, one after another: a million ``Path`` would take a quarter of a gigabyte in each worker.
      ends: where each path ends in ``names``.
      labels: class of each file.
      size, channels: of the images, after the crop.
      others: how many files there are beside these, which are no images by their names.
    """

    folder: Path
    names: bytes
    ends: Int64[np.ndarray, " N"]
    labels: Int32[np.ndarray, " N"]
    size: int
    channels: Literal[1, 3]
    others: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        batch = self.gather([operator.index(index)])
        return {"image": batch["image"][0], "label": batch["label"][0]}

    def gather(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Several records; ``bad`` [B] has the index of each file that could not be read and was replaced, else -1."""
        return self.gather_records(indices)[0]

    def gather_records(
        self, indices: Sequence[int] | np.ndarray
    ) -> tuple[dict[str, np.ndarray], Int64[np.ndarray, " B"]]:
        """As :meth:`gather`, and the index of the record that stands in each row."""
        rows, bad = read_around(indices, len(self), lambda index: (self.read(index), index))
        records = np.asarray([index for _, index in rows], np.int64)
        images = to_float(np.stack([image for image, _ in rows]))
        return {"image": images, "label": self.labels[records], "bad": bad}, records

    def path(self, index: int) -> Path:
        """The file of a record."""
        return self.folder / os.fsdecode(self.name(index))

    def name(self, index: int) -> bytes:
        """The path of a record's file below ``folder``."""
        begin = self.ends[index - 1] if index else 0
        return self.names[begin : self.ends[index]]

    def only(self, indices: Int64[np.ndarray, " M"]) -> FolderSource:
        """The records ``indices``, in that order."""
        names = [self.name(index) for index in indices.tolist()]
        ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        return dataclasses.replace(self, names=b"".join(names), ends=ends, labels=self.labels[indices])

    def read(self, index: int) -> UInt8[np.ndarray, "S S C"]:
        """The pixels of one file.

        Raises:
          BadImage: it cannot be read.
        """
        path = self.path(index)
        try:
            data = read_small(path, LIMIT)
        except UserError as e:
            raise BadImage(f"it{str(e).removeprefix(str(path)).removesuffix('.')}") from e
        return decode(data, self.size, self.channels)

    def explain(self, index: int) -> str:
        """The file of a record and why it cannot be read."""
        try:
            self.read(index)
        except BadImage as e:
            return f"{self.path(index)}: {e}"
        return f"{self.path(index)}: it could not be read a moment ago, but now it can"

    def decode_all(self, limit: float) -> tuple[UInt8[np.ndarray, "M S S C"], Int64[np.ndarray, " M"], list[str]]:
        """The pixels and indices of all files that can be read, and a line about each that cannot.

        Raises:
          UserError: the share that cannot be read exceeds ``limit``, which is ``data.skip_bad``; or none can.
        """
        images, keep, bad = [], [], []

        def attempt(index: int) -> np.ndarray | BadImage:
            try:
                return self.read(index)
            except BadImage as e:
                return e

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(self), 1024):
                block = range(start, min(start + 1024, len(self)))
                for index, found in zip(block, pool.map(attempt, block), strict=True):
                    if isinstance(found, BadImage):
                        bad.append(f"{self.path(index)}: {found}")
                        check_share(len(bad), len(self), limit, lambda: bad[-1])
                    else:
                        images.append(found)
                        keep.append(index)
        if not images:
            raise UserError(f"{str(self.folder)!r} has no image that can be read; the last one: {bad[-1]}.")
        return np.stack(images), np.asarray(keep, np.int64), bad


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Where the images of a split are.

    Attributes:
      folder: of the split.
      classes: name of each class of the data set.
      folders: the folder of each class below ``folder``; the empty string where the only class has none of its own.
      beside: an image beside the classes' folders, where there is one: it is left out.
    """

    folder: Path
    classes: tuple[str, ...]
    folders: tuple[str, ...]
    beside: str | None = None


def find_split(path: str | None, split: str) -> Split:
    """The folder of a split, and the classes of the data set.

    The training images are in ``train`` where there is one, else in ``path`` itself, which then has no other split.
    Classes are the folders there, sorted by name; where there are none, all images are one class named after ``path``.

    Raises:
      UserError: ``data.path`` holds no images in one of these ways, or no such split, or classes do not fit.
    """
    wanted = (
        "a local folder that holds images, one folder of images a class, or such a folder called train and perhaps one "
        "called test or val"
    )
    if path is None or "://" in path or not (root := Path(path).expanduser()).is_dir():
        raise UserError(f"data.path is {path!r}, but for data.source 'folder' it must be {wanted}.")
    tests = _tests(root)
    train = root / "train" if (root / "train").is_dir() else root
    if train == root and (tests or split != "train"):
        beside = f" beside {tests[0].name}/" if tests else ""
        kind = UserError if tests else NoSplitError
        raise kind(f"data.path is {path!r}, where there is no train/{beside}, but it must be {wanted}.")
    names, images = _listed(train)
    if train == root and names and images:
        raise UserError(
            f"data.path is {path!r}, which holds images like {printable(images)!r} beside folders like {names[0]!r}: "
            "put the images that are meant into one folder, or into one folder a class."
        )
    classes, folders = names, names
    if not names:
        if not images:
            raise UserError(
                f"{str(train)!r} has no folder and no file that ends in {' '.join(SUFFIXES)}, but it must have images, "
                "or one folder of images for each class."
            )
        classes, folders = (root.resolve().name or "images",), ("",)
        check_names(classes, root)
    if split == "train":
        return Split(folder=train, classes=classes, folders=folders, beside=images if names else None)
    if not tests:
        raise NoSplitError(f"data.path is {path!r}, where there is neither test/ nor val/, but it must be {wanted}.")
    found, _ = _listed(tests[0])
    unknown = [name for name in found if name not in set(folders)]
    if unknown:
        those = f"one of the {len(names)} in {str(train)!r}" if names else f"as in {str(train)!r}, which has no folders"
        raise UserError(f"{str(tests[0])!r} has the class {unknown[0]!r}, but every class must be {those}.")
    if names and not found:
        raise UserError(f"{str(tests[0])!r} has no folder, but it must have the classes' folders as {str(train)!r}.")
    return Split(folder=tests[0], classes=classes, folders=folders)


def has_test_split(path: str | None) -> bool:
    """Whether a folder of images has ``test`` or ``val`` in it."""
    return path is not None and bool(_tests(Path(path).expanduser()))


def refuse_test_split(path: str | None, share: float) -> None:
    """Raise a UserError where ``data.held_out`` is given for a folder that has a test split of its own."""
    found = _tests(Path(path or "").expanduser())
    if found:
        raise UserError(
            f"data.held_out is {share}, but it must be 0 for data.path {path!r}, which has {found[0].name}/ for that."
        )


def _tests(root: Path) -> list[Path]:
    return [root / name for name in ("test", "val") if (root / name).is_dir()]


def _listed(folder: Path) -> tuple[tuple[str, ...], str | None]:
    """The names of the folders in a folder, sorted, and that of one image file in it, if there is one."""
    names, image = [], None
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    names.append(entry.name)
                elif image is None and entry.name.lower().endswith(SUFFIXES):
                    image = entry.name
    except OSError as e:
        raise UserError(f"{str(folder)!r} cannot be listed: {e.strerror}.") from e
    check_names(names, folder)  # they go to terminals and into shared models
    return tuple(sorted(names)), image


def list_files(
    folder: Path, classes: Sequence[tuple[str, int]], size: int, channels: Literal[1, 3]
) -> tuple[FolderSource, str]:
    """List the image files of some classes, in folders below theirs too, without opening any.

    Args:
      folder: of the split.
      classes: name of the folder, empty for ``folder`` itself, and label of each, in the order in which files are
        listed; a folder that is absent has no files, as a test split may lack classes.
      size, channels: of the images to be made of them.

    Returns:
      The source, and the SHA-256 of all paths below ``folder`` and sizes in bytes.

    Raises:
      UserError: a folder cannot be listed, or a class has no image.
    """
    digest = hashlib.sha256()
    names, lengths, counts, others = [], [], [], 0
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda one: class_files(folder, one[0]), classes)
        for (name, _), listed in zip(classes, found, strict=True):
            files, skipped = listed or ([], 0)
            if listed is not None and not files:
                which = f"The class {name!r} in {str(folder)!r}" if name else repr(str(folder))
                raise UserError(
                    f"{which} has no file that ends in {' '.join(SUFFIXES)}; data.classes can leave a class out."
                )
            others += skipped
            digest.update(b"".join(b"%s\0%d\n" % file for file in files))
            names.append(b"".join(path for path, _ in files))
            lengths += [len(path) for path, _ in files]
            counts.append(len(files))
    source = FolderSource(
        folder=folder,
        names=b"".join(names),
        ends=np.cumsum(lengths, dtype=np.int64),
        labels=np.repeat(np.asarray([label for _, label in classes], np.int32), counts),
        size=size,
        channels=channels,
        others=others,
    )
    return source, digest.hexdigest()


def held_out(source: FolderSource, share: float) -> Bool[np.ndarray, " N"]:
    """Which images ``data.held_out`` keeps from training: of each class those with the least SHA-256 of their paths.

    So neither the machine nor a seed decides, and few images change sides when others come or go. At least one image of
    a class that has two is held out, and at least one is left.
    """
    digests = [hashlib.sha256(source.name(index)).digest() for index in range(len(source))]
    return least(digests, source.labels, share)


def class_files(folder: Path, name: str) -> tuple[list[tuple[bytes, int]], int] | None:
    """Path and size of each image file of a class, sorted, and how many files are none; None without a folder."""
    if not (folder / name).is_dir():
        return None
    found = list(_walk(os.fsencode(folder), os.fsencode(name), ()))
    files = sorted((path, size) for path, size in found if size is not None)
    return files, len(found) - len(files)


def _walk(root: bytes, below: bytes, above: tuple[tuple[int, int], ...]) -> Iterator[tuple[bytes, int | None]]:
    """Files in a folder and all folders in it, with the size of those that are images by their names.

    Names are bytes, as they need not be text.
    """
    here = os.path.join(root, below)
    try:
        status = os.stat(here)
        me = status.st_dev, status.st_ino
        if me in above:
            raise UserError(f"{os.fsdecode(here)!r} is a link to a folder that it is in.")
        with os.scandir(here) as entries:
            for entry in entries:
                if entry.name.startswith(b".") or (not below and entry.name == CAPTIONS.encode()):
                    continue
                path = os.path.join(below, entry.name)
                if entry.is_dir():
                    yield from _walk(root, path, (*above, me))
                else:
                    yield path, _bytes_of(entry) if entry.name.lower().endswith(_SUFFIXES) else None
    except OSError as e:
        raise UserError(f"{os.fsdecode(here)!r} cannot be listed: {e.strerror}.") from e


def _bytes_of(entry: os.DirEntry[bytes]) -> int:
    """Size of a file; of a link that leads nowhere 0: it is a record that cannot be read."""
    try:
        return entry.stat().st_size
    except OSError:
        return 0
