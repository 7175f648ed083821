"""Small crops of the photographs, the brain scan and the map of heights inside scikit-learn and matplotlib."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Shaped, UInt8
from PIL import Image

from kind_jax.data.packaged import SIDE, Packaged, features, matplotlib_file

_RECORDS = {"train": 150, "test": 50}  # of each class
_SEED = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Material:
    """Where a class is found.

    Attributes:
      picture: name of the picture.
      tile: side of the squares that the regions are cut into; a crop lies inside one of them.
      zooms: a crop is one of these numbers times 8 pixels wide.
      regions: (left, top, right, bottom) in pixels.
    """

    picture: str
    tile: int
    zooms: tuple[int, ...]
    regions: tuple[tuple[int, int, int, int], ...]

    def tiles(self) -> list[tuple[int, int]]:
        """The (left, top) of every whole tile."""
        return [
            (x, y)
            for left, top, right, bottom in self.regions
            for y in range(top, bottom - self.tile + 1, self.tile)
            for x in range(left, right - self.tile + 1, self.tile)
        ]


_MATERIALS = {
    "sky": _Material(picture="china", tile=40, zooms=(4, 5), regions=((330, 0, 610, 120), (330, 120, 570, 160))),
    "roof": _Material(
        picture="china", tile=14, zooms=(1,),
        regions=((196, 78, 224, 92), (192, 92, 248, 106), (172, 262, 298, 276), (218, 366, 302, 380),
                 (190, 165, 274, 179)),
    ),
    "foliage": _Material(
        picture="china", tile=32, zooms=(2, 3, 4),
        regions=((0, 362, 224, 426), (0, 298, 32, 362), (350, 330, 510, 362), (350, 362, 414, 426)),
    ),
    "petals": _Material(
        picture="flower", tile=30, zooms=(3,),
        regions=((205, 140, 265, 290), (345, 140, 405, 290), (265, 105, 345, 165), (265, 260, 345, 320)),
    ),
    "leaf": _Material(picture="flower", tile=64, zooms=(6, 7, 8), regions=((450, 0, 640, 400), (0, 30, 165, 427))),
    "stars": _Material(
        picture="flag", tile=44, zooms=(4, 5),
        regions=((0, 54, 44, 98), (44, 66, 88, 110), (33, 160, 77, 204), (90, 76, 134, 120), (190, 0, 234, 44)),
    ),
    "brain": _Material(
        picture="scan", tile=20, zooms=(2,),
        regions=((82, 46, 162, 66), (62, 66, 182, 86), (48, 86, 168, 106), (80, 106, 120, 126)),
    ),
    "relief": _Material(picture="relief", tile=40, zooms=(4,), regions=((0, 60, 224, 344),)),
}  # fmt: skip


class Textures(Packaged):
    """1600 grey images of 8x8 pixels, eight materials; 1200 train and 400 test records, equal numbers of each class.

    No strokes on black: sky, roof tiles and foliage (scikit-learn's china.jpg, CC BY 2.0), petals and blurred leaves
    (its flower.jpg, CC BY 2.0), the stars of a flag (matplotlib's grace_hopper.jpg), the folds of a brain in a
    magnetic-resonance scan (s1045.ima.gz), and mountains lit from the upper left (jacksboro_fault_dem.npz).

    Each class is cut into tiles, a quarter of which serve ``test`` alone, so that the splits share no pixel of a
    picture. They share the pictures, and within a split crops overlap. A class has between 5 tiles (each one star)
    and 35, so this is a narrow sample of its material: a far domain for studies of transfer, and no benchmark. The
    regions were chosen so that a small classifier tells the classes apart.

    The same releases of scikit-learn, matplotlib and Pillow give the same images.

    Features of a record:
      image: uint8 [8, 8, 1]; a crop, averaged over areas, half of them mirrored.
      label: 0 to 7, in the order sky, roof, foliage, petals, leaf, stars, brain, relief.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS reads it from the class)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Crops of pictures inside scikit-learn and matplotlib, 8x8 pixels.",
            features=features(tuple(_MATERIALS)),
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        pictures = _pictures()
        for label, material in enumerate(_MATERIALS.values()):
            # RandomState's stream is frozen for good (NEP 19).
            crops = _crops(material, pictures[material.picture], np.random.RandomState([_SEED, label]))[split]
            for i, crop in enumerate(crops):
                yield label * _RECORDS[split] + i, {"image": crop[:, :, None], "label": label}


def _pictures() -> dict[str, UInt8[np.ndarray, "H W"]]:
    from sklearn.datasets import load_sample_image  # slow to import, and only needed once a machine

    with gzip.open(matplotlib_file("sample_data/s1045.ima.gz")) as file:
        scan = np.frombuffer(file.read(), "<u2").reshape(256, 256)
    with np.load(matplotlib_file("sample_data/jacksboro_fault_dem.npz")) as file:
        heights = file["elevation"].astype(np.float64)
    return {
        "china": np.asarray(Image.fromarray(load_sample_image("china.jpg")).convert("L")),
        "flower": np.asarray(Image.fromarray(load_sample_image("flower.jpg")).convert("L")),
        "flag": np.asarray(Image.open(matplotlib_file("sample_data/grace_hopper.jpg")).convert("L")),
        # A window on brain tissue, as radiologists set it: fluid in the folds is black, white matter white.
        "scan": _to_uint8((scan.astype(np.float64) - 21_600) / 27_000),
        "relief": _to_uint8(_shade(heights / 40)),
    }


def _shade(heights: Shaped[np.ndarray, "H W"]) -> Shaped[np.ndarray, "H W"]:
    """Brightness of a matt surface (Lambert's cosine) under light from the upper left; a pixel is one unit wide."""
    down, right = np.gradient(heights)
    return (down + right + 0.8) / np.sqrt((down**2 + right**2 + 1) * (1 + 1 + 0.8**2))


def _to_uint8(values: Shaped[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _crops(
    material: _Material, picture: UInt8[np.ndarray, "H W"], random: np.random.RandomState
) -> dict[str, list[UInt8[np.ndarray, "8 8"]]]:
    """Crops of both splits, no two equal or mirror images: in a clear sky even crops of different places may be."""
    tiles = material.tiles()
    order = random.permutation(len(tiles))
    tests = max(1, len(tiles) // 4)
    places = {"train": [tiles[i] for i in order[tests:]], "test": [tiles[i] for i in order[:tests]]}
    seen: set[bytes] = set()
    found: dict[str, list[np.ndarray]] = {}
    for split, count in _RECORDS.items():
        found[split] = []
        draws = 0
        while len(found[split]) < count:
            draws += 1
            assert draws <= 100 * count, f"the tiles of {material} have too few different crops"
            crop = _crop(material, picture, places[split], random)
            if not {crop.tobytes(), crop[:, ::-1].tobytes()} & seen:
                seen.add(crop.tobytes())
                found[split].append(crop)
    return found


def _crop(
    material: _Material, picture: np.ndarray, places: list[tuple[int, int]], random: np.random.RandomState
) -> UInt8[np.ndarray, "8 8"]:
    zoom = material.zooms[random.randint(len(material.zooms))]
    side = zoom * SIDE
    left, top = places[random.randint(len(places))]
    left, top = left + random.randint(material.tile - side + 1), top + random.randint(material.tile - side + 1)
    area = picture[top : top + side, left : left + side].reshape(SIDE, zoom, SIDE, zoom)
    crop = np.rint(area.mean(axis=(1, 3))).astype(np.uint8)
    return crop[:, ::-1] if random.randint(2) else crop
