"""Data sets as TFDS leaves them on disk: building them once, and opening them without trusting them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kind_jax import sealed
from kind_jax.data.sources import builder_of
from kind_jax.data.text_features import FAMILY, place_of
from kind_jax.errors import UserError
from kind_jax.untrusted import documents
from kind_jax.untrusted.text import check_names, printable

_SMALL = 16 << 20  # bytes of a file that describes a data set
_FEATURE_CLASS = re.compile(r"tensorflow_datasets\.core\.features\.\w+\.\w+\Z")


def data_root(path: str | None) -> Path:
    """Folder of prepared data sets: ``path``, or ``kind_jax/data`` under the user's cache folder.

    Raises:
      UserError: ``path`` is a URL or a file.
    """
    if path is None:
        # The XDG specification: an unset, empty or relative XDG_CACHE_HOME means ~/.cache.
        cache = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "kind_jax" / "data"
    root = Path(path).expanduser()
    if "://" in path or (root.exists() and not root.is_dir()):
        raise UserError(f"data.path is {path!r}, but it must be a local folder.")
    return root


def damaged(folder: Path, reason: object) -> UserError:
    """The error for a prepared data set that cannot be used; it is never repaired or overwritten silently."""
    detail = " ".join(str(reason).split())[:200].rstrip(".")
    return UserError(
        f"The data set in {str(folder)!r} is damaged ({detail}): remove that folder, or point data.path elsewhere."
    )


@contextlib.contextmanager
def refuse_damage(folder: Path) -> Iterator[None]:
    """Turn any failure to read ``folder`` into one :class:`UserError` that names it."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as e:
        raise damaged(folder, f"{Path(str(e.filename)).name} is missing") from e
    except Exception as e:  # TFDS, protobuf and ArrayRecord raise many types on a damaged file
        raise damaged(folder, str(e) or type(e).__name__) from e


def prepare(source: str, root: Path, size: int | None = None) -> Path:
    """The folder below ``root`` that holds the data set ``source``, built on first use.

    A data set whose images can have any size is built for ``size`` pixels on a side, which others ignore.

    The data set is built in a scratch folder and appears under its name by one rename. A crash therefore leaves no
    half-built data set (only a hidden ``.preparing-*`` folder), and of several processes that build at once the first
    wins and the others use its result; no lock is needed, which network file systems may lack.

    Raises:
      UserError: there is no such data set, the folder cannot be created or written, or the package that the data set
        is made from is not installed or lacks a file.
    """
    builder_class = builder_of(source)
    config = builder_class.config_of(size)
    folder = root.joinpath(source, *([config.name] if config else []), str(builder_class.VERSION))
    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".preparing-", dir=root) as scratch, _quiet():
            builder = builder_class(data_dir=scratch, file_format="array_record", config=config)
            builder.download_and_prepare()
            # mkdtemp's scratch folder is private to its owner, but what moves out of it obeys the umask.
            os.rename(builder.data_dir, folder)
    except OSError as e:
        if not folder.exists():  # it exists when another process was faster
            raise UserError(
                f"The data set {source!r} cannot be prepared in {str(root)!r} ({e}): point data.path to a writable "
                "folder."
            ) from e
    return folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """One split of a prepared data set.

    Attributes:
      name, version: of the data set.
      folder: that it is in.
      class_names: name of each label.
      image_shape: (H, W, C).
      records: TFDS data source; a record has a uint8 ``image`` [H, W, C] and an integer ``label``.
      files: the record files of the split.
      captions: keys that lead to the captions in a record (``text_features.place_of``); none where there are none.
      families: whether a record has the number of its ``family`` (of captions alone).
      encoded: whether ``image`` is instead the content of an image file, to be decoded to ``image_shape``; such a
        record may lack ``label``, which is then 0.
    """

    name: str
    version: str
    folder: Path
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    records: Any
    files: tuple[Path, ...]
    encoded: bool = False
    captions: tuple[str, ...] = ()
    families: bool = False


def open_prepared(folder: Path, split: str) -> Prepared:
    """Open one split of a prepared data set after checking everything that can be checked without decoding it.

    Args:
      folder: holds ``dataset_info.json``, ``features.json`` and the record files.
      split: name of the split.

    Raises:
      UserError: the folder is empty or damaged.
    """
    with refuse_damage(folder):
        check_folder(folder)
        return _open(folder, split)


def check_folder(folder: Path) -> Any:
    """What can be checked before TFDS looks at a folder, within :func:`refuse_damage`.

    Returns:
      The content of dataset_info.json.

    Raises:
      UserError: something in the folder is no file, or leads elsewhere, or features.json names foreign code.
    """
    _check_entries(folder)
    _check_features(_document(folder, "features.json"), folder)
    return _document(folder, "dataset_info.json")


def _document(folder: Path, name: str) -> Any:
    try:
        return documents.parse(sealed.read_small(folder / name, _SMALL), name)
    except UserError as e:
        raise damaged(folder, e) from e


def _check_entries(folder: Path) -> None:
    """Nothing in the folder is a pipe or device, which reading may never end, or lies elsewhere."""
    inside = folder.resolve()
    for path in sorted(folder.iterdir()):
        if not path.resolve().is_relative_to(inside):
            raise damaged(folder, f"{printable(path.name)} is a link to another place")
        if not path.is_file() and path.exists():
            raise damaged(folder, f"{printable(path.name)} is not a file")
        if path.suffix in (".json", ".txt") and path.exists() and path.stat().st_size > _SMALL:
            raise damaged(folder, f"{printable(path.name)} has more than {_SMALL} bytes")
    for name in ("features.json", "dataset_info.json"):
        (folder / name).stat()


def _open(folder: Path, split: str) -> Prepared:
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    features = builder.info.features
    if not {"image", "label"} <= set(features):
        raise damaged(folder, "features.json must describe an 'image' and a 'label'")
    image, label = features["image"], features["label"]
    if image.np_dtype != "uint8" or len(image.shape) != 3 or None in image.shape:
        raise damaged(folder, f"images are {image.np_dtype} {image.shape}, not uint8 of shape [H, W, C]")
    if not isinstance(label, tfds.features.ClassLabel):
        raise damaged(folder, "features.json does not make the label a ClassLabel")
    names: Any = label.names  # TFDS makes up numbers where the file of names is gone
    if not (folder / "label.labels.txt").is_file() or len(names) != label.num_classes:
        raise damaged(folder, f"label.labels.txt must name the {label.num_classes} classes")
    check_names(names, folder / "label.labels.txt")
    if split not in builder.info.splits:
        raise damaged(folder, f"dataset_info.json has no split {split!r}")
    files = record_files(folder, builder.info.splits[split])
    family: Any = dict(features).get(FAMILY)
    if family is not None and (family.shape != () or not np.issubdtype(family.np_dtype, np.integer)):
        raise damaged(folder, f"the family is {family.np_dtype} {family.shape}, not an integer")
    return Prepared(
        name=builder.name,
        version=str(builder.version),
        folder=folder,
        class_names=tuple(names),
        image_shape=tuple(image.shape),
        records=builder.as_data_source(split),
        files=files,
        captions=place_of(features),
        families=family is not None,
    )


def record_files(folder: Path, split: Any) -> tuple[Path, ...]:
    """The files of a split (TFDS's ``SplitInfo``), which are in the folder and have the records that it lists.

    Raises:
      UserError: they do not.
    """
    files = tuple(Path(path) for path in split.filepaths)
    for path in files:
        if path.parent != folder or path.name in ("", ".", ".."):  # a template in dataset_info.json names them
            raise damaged(folder, f"dataset_info.json leads to {printable(path)}, which is not a file in the folder")
    _check_counts(folder, files, split.shard_lengths)
    return files


def _check_counts(folder: Path, files: Sequence[Path], lengths: Sequence[int]) -> None:
    from array_record.python.array_record_module import ArrayRecordReader

    if not sum(lengths):
        raise damaged(folder, "dataset_info.json lists no records")
    for path, wanted in zip(files, lengths, strict=True):
        # ArrayRecord opens a file that is cut or missing without complaint and finds no records in it.
        path.stat()
        reader = ArrayRecordReader(str(path))
        if (found := reader.num_records()) != wanted:
            raise damaged(folder, f"{path.name} has {found} records, but dataset_info.json says {wanted}")
        reader.close()  # raises, often without a message, if the file is cut


def _check_features(node: Any, folder: Path) -> None:
    """TFDS imports the module of any class that features.json names, so a stranger's file could run code.

    Besides ``pythonClassName`` there is an older form, where ``type`` names the class and ``proto_cls`` a message, and
    which may hide as text in a ``jsonFeature``; no data set of this package has it.
    """
    if isinstance(node, dict):
        for key, value in node.items():
            # protobuf's JSON accepts both spellings of a field.
            if key in ("pythonClassName", "python_class_name"):
                if not (isinstance(value, str) and _FEATURE_CLASS.match(value)):
                    raise damaged(folder, f"features.json names the foreign class '{printable(value)}'")
            elif key in ("type", "proto_cls", "jsonFeature", "json_feature"):
                raise damaged(folder, f"features.json has a feature of the older form ('{key}')")
            else:
                _check_features(value, folder)
    elif isinstance(node, list):
        for value in node:
            _check_features(value, folder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFDS prints and draws progress bars, whatever its logging level."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
