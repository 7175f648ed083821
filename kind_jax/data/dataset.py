"""Open a data set: records as float images and renumbered labels, with a fingerprint of where they came from."""

from __future__ import annotations

import dataclasses
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32, Int64

from kind_jax.config import DataConfig
from kind_jax.config.check import check_choice, require
from kind_jax.data import folder as folders
from kind_jax.data import labels as labelling
from kind_jax.data import latents, own, texts
from kind_jax.data.bad import check_share
from kind_jax.data.captions import captions_of
from kind_jax.data.decode import to_float
from kind_jax.data.folder import FolderSource
from kind_jax.data.mix import mix
from kind_jax.data.named import open_named
from kind_jax.data.parts import only
from kind_jax.data.prepared import data_root, open_prepared, prepare
from kind_jax.data.records import RecordSource
from kind_jax.data.sets import MEMORY_LIMIT, Dataset, MemorySource
from kind_jax.data.validation import among, divide, fraction
from kind_jax.errors import UserError

_BLOCK = 256  # records read at a time


Split = Literal["train", "validation", "test"]


def open_dataset(config: DataConfig, split: Split) -> Dataset:
    """Open a split of the configured data set, preparing the data set on first use.

    ``validation`` is what ``data.validation`` holds out of ``train``, of which ``data.only`` takes some classes and
    ``data.fraction`` a part; behind that come the synthetic images of ``data.mix``. The other splits are real.

    A set whose decoded images take less than ``MEMORY_LIMIT`` bytes is decoded once, here, without the records that
    cannot be read; a larger one is read record by record. Selecting classes in a larger prepared one reads every record
    once for its label, without decoding images.

    Raises:
      UserError: an unknown split, ``data.path`` is unusable, ``data.classes`` names an unknown class, the prepared data
        set is damaged, more than ``data.skip_bad`` of its records cannot be read, or the package that the data set is
        made from is not installed or lacks a file.
    """
    require(isinstance(config, DataConfig), "config", config, "settings of data, like config.data of kj.preset")
    check_choice(split, Split, "split")
    if split == "test":
        return _open(config, split)
    if split == "validation" and not config.validation:
        raise UserError("data.validation is 0, but it must be above 0 for there to be a validation split.")
    dataset = _open(config, "train")
    if config.validation:
        dataset = divide(dataset, config.validation, split)
    if split == "train" and config.only is not None:
        dataset = among(dataset, config.only)
    if split == "train" and config.fraction < 1:
        dataset = fraction(dataset, config.fraction)
    if split == "train" and config.mix is not None:
        dataset = mix(dataset, config, memory=MEMORY_LIMIT)
    return dataset


def real(config: DataConfig) -> DataConfig:
    """``config`` with real images alone and of all classes: what samples are compared with, and a judge learns from."""
    return dataclasses.replace(config, mix=None, mix_ratio=1.0, only=None)


def _open(config: DataConfig, split: Literal["train", "test"]) -> Dataset:
    if config.source == "folder":
        return _open_folder(config, split)
    if config.source == "latents":
        return _open_latents(config, split)
    if config.source == own.SOURCE:
        return dataclasses.replace(own.open_own(split), flip=config.flip)
    return _open_prepared(config, split)


def _open_folder(config: DataConfig, split: Literal["train", "test"]) -> Dataset:
    if config.held_out:
        folders.refuse_test_split(config.path, config.held_out)
    found = folders.find_split(config.path, "train" if config.held_out else split)
    labels = labelling.choose(config, found.classes, str(config.path))
    numbered = zip(found.folders, labels.renumber.tolist(), strict=True)
    chosen = [(name, new) for name, new in numbered if new >= 0]  # records stay in the order of names
    files, digest = folders.list_files(found.folder, chosen, config.size, config.channels)
    if not len(files):
        raise UserError(f"{str(found.folder)!r} has no image of the classes that {_choice(config)} names.")
    captions = captions_of(files, Path(config.path or "").expanduser())
    if config.held_out:
        out = folders.held_out(files, config.held_out)
        rows = np.flatnonzero(out == (split == "test"))
        files, captions = files.only(rows), _of(captions, rows)
        if not len(files):
            raise UserError(
                f"data.held_out is {config.held_out}, but every class in {str(found.folder)!r} has a single image, "
                "which cannot be held out."
            )
    source, bad = files, []
    image_shape = (config.size, config.size, config.channels)
    if _fits_in_memory(files, image_shape):
        pixels, rows, bad = files.decode_all(config.skip_bad)
        source, captions = MemorySource(images=to_float(pixels), labels=files.labels[rows]), _of(captions, rows)
        digest = source.sha256()
    return Dataset(
        source=source,
        class_names=labels.names,
        all_names=labels.known,
        image_shape=image_shape,
        fingerprint={
            "name": "folder",
            "reading": folders.READING,
            "split": split,
            "records": len(source),
            "content": {"sha256": digest},
            **labels.fingerprint,
            "image_shape": list(image_shape),
            **({"held_out": {"share": config.held_out, "rule": folders.HELD_OUT}} if config.held_out else {}),
            **texts.fingerprint(captions, None),
        },
        bad=tuple(bad),
        others=files.others,
        beside=found.beside,
        flip=config.flip,
        captions=captions,
    )


def _open_prepared(config: DataConfig, split: Literal["train", "test"]) -> Dataset:
    if config.source == "tfds":
        prepared = open_named(config, split)
    else:
        prepared = open_prepared(prepare(config.source, data_root(config.path), config.size), split)
    labels = labelling.choose(config, prepared.class_names, prepared.name)
    records = RecordSource(
        records=prepared.records, keep=None, renumber=labels.renumber, image_shape=prepared.image_shape,
        folder=prepared.folder, encoded=prepared.encoded,
    )  # fmt: skip
    source, kept, bad = records, np.arange(len(records)), []
    if _fits_in_memory(records, prepared.image_shape):
        source, kept, bad = _decode(records, config.skip_bad)
    elif not labels.all_used:
        kept, bad = _selected(records, config.skip_bad)
        source = dataclasses.replace(records, keep=kept)
    captions = families = None
    if prepared.captions:
        told = texts.read(records, kept, prepared.captions, families=prepared.families)
        for line in told.bad:
            bad.append(line)
            check_share(len(bad), len(records), config.skip_bad, lambda: bad[-1])
        source = only(source, told.rows) if told.bad else source
        captions, families = told.captions, told.families
    if len(source) == 0:
        raise UserError(f"the {split} split of {prepared.name} has no record of what {_choice(config)} names.")
    sizes = {path.name: path.stat().st_size for path in prepared.files}
    content = {"sha256": source.sha256()} if isinstance(source, MemorySource) else {"sizes": sizes}
    return Dataset(
        source=source,
        class_names=labels.names,
        all_names=labels.known,
        image_shape=prepared.image_shape,
        fingerprint={
            "name": prepared.name,
            "version": prepared.version,
            **({"reading": folders.READING} if prepared.encoded else {}),
            "split": split,
            "records": len(source),
            "content": content,
            **labels.fingerprint,
            "image_shape": list(prepared.image_shape),
            **texts.fingerprint(captions, families),
        },
        bad=tuple(bad),
        flip=config.flip,
        captions=captions,
        families=families,
    )


def _open_latents(config: DataConfig, split: Literal["train", "test"]) -> Dataset:
    index, found = latents.open_split(config.path, split)
    labels = labelling.choose(config, index.class_names, str(config.path))
    folder = Path(config.path or "").expanduser() / split
    source, bad = latents.open_source(folder, index, found, labels.renumber, config.skip_bad, memory=MEMORY_LIMIT)
    if len(source) == 0:
        raise UserError(f"the {split} split of {config.path!r} has no record of what {_choice(config)} names.")
    return Dataset(
        source=source,
        class_names=labels.names,
        all_names=labels.known,
        image_shape=index.shape,
        fingerprint={
            "name": "latents",
            "reading": latents.READING,
            "split": split,
            "records": len(source),
            "content": {"sha256": found.digest},
            "vae": index.vae.fingerprint,
            **labels.fingerprint,
            "image_shape": list(index.shape),
        },
        bad=tuple(bad),
        flip=config.flip,
        latents=index,
    )


def _choice(config: DataConfig) -> str:
    return "data.classes" if config.classes is not None else "data.protocol"


def _fits_in_memory(records: RecordSource | FolderSource, image_shape: tuple[int, int, int]) -> bool:
    return len(records) * math.prod(image_shape) * 4 < MEMORY_LIMIT


def _of(captions: texts.Captions | None, rows: Int64[np.ndarray, " M"]) -> texts.Captions | None:
    return None if captions is None else tuple(captions[row] for row in rows.tolist())


def _decode(source: RecordSource, limit: float) -> tuple[MemorySource, Int64[np.ndarray, " M"], list[str]]:
    """The records that can be read, which these are, and of one that cannot in a sound file a line."""
    images, labels, kept, bad = [], [], [], []

    def block(start: int) -> tuple[dict[str, np.ndarray], list[str]]:
        indices, lines = range(start, min(start + _BLOCK, len(source))), []
        source.refuse_damaged_files(indices)
        return source.gather_good(indices, 1.0, lines), lines

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for chunk, lines in pool.map(block, range(0, len(source), _BLOCK)):
            for line in lines:
                bad.append(line)
                check_share(len(bad), len(source), limit, lambda: bad[-1])
            selected = chunk["label"] >= 0
            images.append(chunk["image"][selected])
            labels.append(chunk["label"][selected])
            kept.append(chunk["index"][selected].astype(np.int64))
    return MemorySource(images=np.concatenate(images), labels=np.concatenate(labels)), np.concatenate(kept), bad


def _selected(source: RecordSource, limit: float) -> tuple[Int32[np.ndarray, " N"], list[str]]:
    """The numbers of the records of selected classes, and a line about each record whose class cannot be read."""
    numbers, bad = [], []
    for start in range(0, len(source), _BLOCK):
        numbers += source.selected(range(start, min(start + _BLOCK, len(source))), limit, bad)
    return np.asarray(numbers, np.int32), bad
