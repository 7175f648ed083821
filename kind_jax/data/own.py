"""A data set of one's own: records that a Python program has, in place of files that a config names."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, SupportsIndex, runtime_checkable

import numpy as np
from jaxtyping import Float32
from PIL import Image

from kind_jax.config import DataConfig
from kind_jax.config.check import is_whole, require
from kind_jax.data.decode import to_float
from kind_jax.data.sets import MEMORY_LIMIT, Dataset, MemorySource
from kind_jax.errors import UserError
from kind_jax.untrusted.text import check_names

SOURCE = "own"


@runtime_checkable
class Records(Protocol):
    """What has a length and gives a record by its number, as PyTorch's map-style data sets do.

    A record is an image and the number of its class, as a pair or as a dict of ``image`` and ``label``. An image is
    uint8 [H, W, C] or [H, W], float [H, W, C] in [-1, 1], or a PIL image in grey or RGB; all have one shape.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class OwnData:
    """The splits of a data set of one's own, for :func:`kind_jax.fit`; see :func:`records`."""

    train: Dataset
    test: Dataset | None = None


def records(train: Records, class_names: Sequence[str], *, test: Records | None = None, version: str = "") -> OwnData:
    """A data set of records that this program has.

    Records that fit in memory are read once, here; of more, the first is looked at, and the others are read when a
    batch needs them.

    Args:
      train: what is trained on: anything with ``__len__`` and ``__getitem__``, see :class:`Records`.
      class_names: a name for each class, in the order of their numbers.
      test: held-out records, for those kinds of runs that measure on them.
      version: of records that do not fit in memory, so that a run refuses to go on with others; those in memory are
        told apart by their content.

    Raises:
      UserError: no records, or one that is not as :class:`Records` says; its number is named.
    """
    is_list = isinstance(class_names, Sequence) and not isinstance(class_names, str)
    named = is_list and len(class_names) > 0 and all(isinstance(name, str) for name in class_names)
    require(named, "class_names", class_names, "a list of names, one for each class")
    names = tuple(class_names)
    require(len(set(names)) == len(names), "class_names", names, "free of repetitions")
    check_names(names, "class_names")
    return OwnData(
        train=_dataset(train, names, "train", version),
        test=None if test is None else _dataset(test, names, "test", version),
    )


_given: contextvars.ContextVar[OwnData | None] = contextvars.ContextVar("own data", default=None)


@contextlib.contextmanager
def given(data: OwnData | None) -> Iterator[None]:
    """Inside, a config whose ``data.source`` is ``own`` opens ``data``."""
    token = _given.set(data)
    try:
        yield
    finally:
        _given.reset(token)


def open_own(split: Literal["train", "test"]) -> Dataset:
    """The split of the data set that this program gave.

    Raises:
      UserError: it gave none, or none of this split.
    """
    data = _given.get()
    if data is None:
        raise UserError(
            f"data.source is {SOURCE!r}: the images came from a Python program (kind_jax.fit(..., data=)), and are not "
            "here, so a folder of images must be named in their place (--data, where the command has it)."
        )
    if split == "test" and data.test is None:
        raise UserError("the data set has no test records, but they are needed; kind_jax.records(..., test=) has them.")
    return data.train if split == "train" else data.test  # pyright: ignore[reportReturnType]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Source:
    """Records that are read when they are asked for."""

    records: Any
    classes: int
    shape: tuple[int, int, int]
    split: str

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        number = int(index.__index__())
        try:
            record = self.records[number]
        except Exception as e:
            raise UserError(f"{self.split} record {number} cannot be read: {type(e).__name__}: {e}.") from e
        image, label = _parts(record, f"{self.split} record {number}")
        where = f"the image of {self.split} record {number}"
        if image.shape != self.shape:
            raise UserError(f"{where} has the shape {image.shape}, but it must be {self.shape}, as the first one's.")
        possible = is_whole(label) and 0 <= int(label) < self.classes
        require(
            possible,
            f"the label of {self.split} record {number}",
            label,
            f"a whole number from 0 to {self.classes - 1}",
        )
        return {"image": image, "label": np.int32(label)}

    def gather(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        found = [self[int(index)] for index in indices]
        return {
            "image": np.stack([record["image"] for record in found]),
            "label": np.asarray([record["label"] for record in found], np.int32),
        }


def _dataset(given: Records, names: tuple[str, ...], split: str, version: str) -> Dataset:
    has_both = hasattr(given, "__len__") and hasattr(given, "__getitem__")
    require(has_both, split, given, "something with __len__ and __getitem__")
    try:
        count = len(given)
    except TypeError as e:  # an array of no dimension
        raise UserError(f"{split} has no length: {e}.") from e
    require(count > 0, f"len({split})", count, "1 or more")
    shape = _first(given, split)
    source: Any = _Source(records=given, classes=len(names), shape=shape, split=split)
    if count * math.prod(shape) * 4 < MEMORY_LIMIT:
        read = source.gather(range(count))
        source = MemorySource(images=read["image"], labels=read["label"])
        content = {"sha256": source.sha256()}
    else:
        content = {"version": version}
    told = {
        "name": SOURCE, "split": split, "records": count, "content": content, "classes": list(names),
        "image_shape": list(shape),
    }  # fmt: skip
    return Dataset(source=source, class_names=names, all_names=names, image_shape=shape, fingerprint=told)


def _first(given: Any, split: str) -> tuple[int, int, int]:
    try:
        record = given[0]
    except Exception as e:
        raise UserError(f"{split} record 0 cannot be read: {type(e).__name__}: {e}.") from e
    return _parts(record, f"{split} record 0")[0].shape  # pyright: ignore[reportReturnType]


def _parts(record: Any, where: str) -> tuple[Float32[np.ndarray, "H W C"], Any]:
    """Image and label of a record."""
    if isinstance(record, dict):
        require("image" in record and "label" in record, where, sorted(map(str, record)), "with image and label")
        return _image(record["image"], where), _number(record["label"])
    pair = isinstance(record, tuple | list) and len(record) == 2
    require(pair, where, type(record).__name__, "an image and the number of its class, as a pair or a dict")
    return _image(record[0], where), _number(record[1])


def _number(label: Any) -> Any:
    """A label, also where it is an array of one number, as PyTorch gives it."""
    return label.item() if hasattr(label, "item") and getattr(label, "shape", None) == () else label


def _image(value: Any, where: str) -> Float32[np.ndarray, "H W C"]:
    if isinstance(value, Image.Image):
        require(value.mode in ("L", "RGB"), f"the mode of the image of {where}", value.mode, "L (grey) or RGB")
    image = np.asarray(value)
    image = image[..., None] if image.ndim == 2 else image
    fits = image.ndim == 3 and 0 not in image.shape and image.shape[-1] <= 16
    require(fits, f"the shape of the image of {where}", image.shape, "(height, width) or (height, width, channels)")
    if image.dtype == np.uint8:
        return to_float(image)
    floats = np.issubdtype(image.dtype, np.floating)
    require(floats, f"the dtype of the image of {where}", image.dtype.name, "uint8, or floats from -1 to 1")
    inside = bool(np.isfinite(image).all()) and float(np.abs(image).max()) <= 1.001
    require(inside, f"the image of {where}", f"{image.min():g} to {image.max():g}", "from -1 to 1")
    return image.astype(np.float32)


def as_config(data: DataConfig, dataset: Dataset) -> DataConfig:
    """``data`` whose source is ``dataset``: how records are chosen and batched stays, where they were does not.

    Raises:
      UserError: the images are not square, or have other channels than grey or colour.
    """
    height, width, channels = dataset.image_shape
    require(height == width, "the shape of the images", dataset.image_shape, "square")
    require(channels in (1, 3), "the channels of the images", channels, "1 (grey) or 3 (colour)")
    nowhere = {"path": None, "name": None, "classes": None, "protocol": None, "held_out": 0.0, "latent_scale": None}
    return dataclasses.replace(data, source=SOURCE, size=height, channels=channels, **nowhere)  # pyright: ignore[reportArgumentType]
