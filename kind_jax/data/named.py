"""Data sets of TFDS by name, prepared by the user: nothing is downloaded or built, and TensorFlow is not needed."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from kind_jax.config import DataConfig
from kind_jax.data.prepared import Prepared, check_folder, damaged, record_files, refuse_damage
from kind_jax.data.text_features import place_of
from kind_jax.errors import NoSplitError, UserError
from kind_jax.untrusted.text import check_names, printable

# The names that TFDS gives to folders, so that none leads out of the data_dir.
_NAME = re.compile(r"(\w+)(?:/(\w[\w.+-]*))?(?::(\d+\.\d+\.\d+))?\Z", re.ASCII)
_VERSION = re.compile(r"\d+\.\d+\.\d+\Z")
_SPLITS = {"train": ("train",), "test": ("test", "validation", "val")}
_MOST_CLASSES = 1_000_000


class _Parsed:
    """Random access to records of which some features alone are read; image files stay as they are."""

    def __init__(self, raw: Any, features: Any, decoders: Any) -> None:
        self.data_source, self._features, self._decoders = raw, features, decoders

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitems__(self, keys: Sequence[int]) -> list[dict[str, Any]]:
        raw = self.data_source.__getitems__(keys)
        return [self._features.deserialize_example_np(record, decoders=self._decoders) for record in raw]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a data set is: ``folder`` of one version in ``data_dir``; ``name`` is that of the set and its config."""

    data_dir: Path
    name: str
    folder: Path

    @property
    def command(self) -> str:
        """What prepares the data set in a format that can be read here."""
        return build_command(self.name, self.data_dir)


def build_command(name: str, data_dir: Path) -> str:
    """TFDS's own command that prepares a data set as array_record."""
    return f"`tfds build {name} --file_format=array_record --data_dir {shlex.quote(str(data_dir))}`"


def open_named(config: DataConfig, split: Literal["train", "test"]) -> Prepared:
    """Open a split of the data set ``data.name`` in the data_dir ``data.path``.

    Raises:
      UserError: it is absent, there in several versions, not in array_record, damaged, or without images of 8 bits.
    """
    assert config.name is not None
    place = find(config.name, config.path)
    with refuse_damage(place.folder):
        info = check_folder(place.folder)
        found = info.get("fileFormat", info.get("file_format", "tfrecord"))
        if found != "array_record":
            raise UserError(
                f"data.name is {config.name!r}, which {str(place.folder)!r} holds as {printable(found, 40)}, but it "
                f"must be array_record: remove that folder and run {place.command}."
            )
        return _open(place, split, config)


def find(name: str, path: str | None) -> Place:
    """The folder of a data set like ``my_set/config:1.0.0``, below the data_dir ``path``.

    Raises:
      UserError: the name is none, or nothing or more than one thing has it.
    """
    parsed = _NAME.match(name)
    if parsed is None:
        raise UserError(f"data.name is {name!r:.200}, but it must be like imagenet2012 or my_set/config:1.0.0.")
    base, config, version = parsed.groups()
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    data_dir = Path(path or default).expanduser()
    if "://" in str(path or default):
        raise UserError(f"data.path is {path or default!r}, but it must be a local folder.")
    full = f"{base}/{config}" if config else base
    below = data_dir / full
    try:
        inside = sorted(entry.name for entry in below.iterdir() if entry.is_dir() and entry.name[0] not in "._")
    except OSError:
        inside = []
    versions = [found for found in inside if _VERSION.match(found)]
    chosen = versions if version is None else [found for found in versions if found == version]
    command = build_command(f"{full}:{version}" if version else full, data_dir)
    if not chosen:
        configs = [found for found in inside if found not in versions and ".incomplete" not in found]
        if configs and not versions and config is None:
            raise UserError(
                f"data.name is {name!r}, which has configurations in {str(below)!r}, but it must name one of them: "
                f"{', '.join(f'{base}/{printable(one, 60)}' for one in configs[:10])}."
            )
        there = f", where only {', '.join(versions[:10])} is prepared" if versions else ""
        raise UserError(
            f"data.name is {name!r}, but there is no {str(below / (version or 'VERSION'))!r}{there}: give TFDS's "
            f"data_dir as data.path, or run {command}."
        )
    if len(chosen) > 1:
        raise UserError(
            f"data.name is {name!r}, of which {str(below)!r} holds the versions {', '.join(chosen[:10])}, but it must "
            f"name one of them, like {full}:{chosen[-1]}."
        )
    return Place(data_dir=data_dir, name=full, folder=below / chosen[0])


def _open(place: Place, split: str, config: DataConfig) -> Prepared:
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(place.folder)
    features = builder.info.features
    known = list(features) if isinstance(features, tfds.features.FeaturesDict) else []
    image: Any = features["image"] if "image" in known else None
    label: Any = features["label"] if "label" in known else None
    shape: Any = getattr(image, "shape", ())
    encoded = isinstance(image, tfds.features.Image)
    plain = isinstance(image, tfds.features.Tensor) and len(shape) == 3 and None not in shape
    if image is None or not (encoded or plain) or image.np_dtype != "uint8":
        raise UserError(
            f"data.name is {config.name!r}, whose records have {printable(', '.join(known)) or 'nothing'}"
            f"{f' (image: {printable(repr(image), 100)})' if image is not None else ''}, but they must have an "
            "'image' that is an Image, or a uint8 Tensor of one shape."
        )
    names = _class_names(place, label, config)
    # TFDS's own PartialDecoding imports TensorFlow.
    captions = place_of(features)
    read = ["image", *([] if label is None else ["label"]), *captions[:1]]
    subset = tfds.features.FeaturesDict({name: features[name] for name in read})
    decoders = {"image": tfds.decode.SkipDecoding()} if encoded else None
    raw_bytes = tfds.decode.DeserializeMethod.RAW_BYTES
    candidates = [name for name in _SPLITS[split] if name in builder.info.splits]
    for name in candidates:
        files = record_files(place.folder, builder.info.splits[name])
        raw = builder.as_data_source(name, deserialize_method=raw_bytes).data_source
        records = _Parsed(raw, subset, decoders)
        if split == "test" and label is not None and records.__getitems__([0])[0]["label"] == -1:
            continue  # ImageNet's test split, as TFDS has it
        return Prepared(
            name=place.name,
            version=place.folder.name,
            folder=place.folder,
            class_names=names,
            image_shape=(config.size, config.size, config.channels) if encoded else tuple(shape),
            records=records,
            files=files,
            encoded=encoded,
            captions=captions,
        )
    has = ", ".join(printable(name, 40) for name in builder.info.splits) or "none"
    labelled = " with labels" if candidates else ""
    raise NoSplitError(
        f"data.name is {config.name!r}, which has no split {' or '.join(_SPLITS[split])}{labelled} in "
        f"{str(place.folder)!r}, only {has}; {place.command} prepares the splits that the set has."
    )


def _class_names(place: Place, label: Any, config: DataConfig) -> tuple[str, ...]:
    """Names of the classes: those of label.labels.txt, or numbers where the set has none; one class without a label."""
    import tensorflow_datasets as tfds

    if label is None:
        return (place.name.partition("/")[0],)
    if not isinstance(label, tfds.features.ClassLabel) or not 1 <= (label.num_classes or 0) <= _MOST_CLASSES:
        raise UserError(
            f"data.name is {config.name!r}, whose label is {printable(repr(label), 100)}, but it must be a ClassLabel "
            f"of 1 to {_MOST_CLASSES} classes, or absent."
        )
    names = tuple(label.names)
    if len(names) != label.num_classes:
        raise damaged(place.folder, f"label.labels.txt must name the {label.num_classes} classes")
    check_names(names, place.folder / "label.labels.txt")
    return names
