"""Greek and Cyrillic capitals, rendered from matplotlib's fonts with the irregularities of a hand."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from kind_jax.data.packaged import SIDE, Packaged, features, matplotlib_file

_LETTERS = {
    "gamma": "Γ",
    "delta": "Δ",
    "lambda": "Λ",
    "pi": "Π",
    "sigma": "Σ",
    "phi": "Φ",
    "psi": "Ψ",
    "omega": "Ω",
    "i": "И",
    "tse": "Ц",
}
_REGULAR = (
    "DejaVuSans", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Italic",
    "DejaVuSansMono", "DejaVuSansMono-Oblique", "STIXGeneral", "STIXGeneralItalic",
)  # fmt: skip
_BOLD = (
    "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic",
    "STIXGeneralBol", "STIXGeneralBolIta",
)  # fmt: skip
_RECORDS = {"train": 150, "test": 50}  # of each class
_SEED = 1
_EM, _CANVAS, _FINE = 128, 320, 16  # pixels: an em; the drawing, wide enough for every letter; those in a final pixel


class Glyphs(Packaged):
    """2000 grey images of 8x8 pixels, ten letters; 1500 train and 500 test records, equal numbers of each class.

    Eight Greek and two Cyrillic capitals in 14 faces of DejaVu and STIX: white strokes on black like the digits, of
    shapes that no digit has. Each record draws the face, weight, height, width, rotation, slant and place of its
    letter at random, is rendered large, and is brought to 8x8 by averaging areas.

    Train and test are separate draws from one seeded distribution: they share faces and letters, and no image. The
    test split tells how well a model knows this distribution, not how it does on other fonts.

    The same releases of matplotlib and Pillow give the same images.

    Features of a record:
      image: uint8 [8, 8, 1], 0 is background.
      label: 0 to 9, in the order gamma, delta, lambda, pi, sigma, phi, psi, omega, i, tse.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 (TFDS reads it from the class)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Greek and Cyrillic capitals, 8x8 pixels, rendered from the fonts that matplotlib packages.",
            features=features(tuple(_LETTERS)),
        )

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for label, letter in enumerate(_LETTERS.values()):
            # RandomState's stream is frozen for good (NEP 19).
            random = np.random.RandomState([_SEED, label, list(_RECORDS).index(split)])
            for i in range(_RECORDS[split]):
                image = _render(letter, random)
                yield label * _RECORDS[split] + i, {"image": image[:, :, None], "label": label}


@functools.cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    # The basic layout, because the other one depends on a library that Pillow finds on the machine or does not.
    path = matplotlib_file(f"fonts/ttf/{face}.ttf")
    return ImageFont.truetype(str(path), _EM, layout_engine=ImageFont.Layout.BASIC)


def _render(letter: str, random: np.random.RandomState) -> UInt8[np.ndarray, "8 8"]:
    face = (*_REGULAR, *_BOLD)[random.randint(len(_REGULAR) + len(_BOLD))]
    # A hairline would vanish at 8x8, and a bold letter made bolder would lose its holes.
    stroke = 0 if face in _BOLD else int(random.randint(1, 5))
    drawing = Image.new("L", (_CANVAS, _CANVAS))
    middle = (_CANVAS / 2, _CANVAS / 2)
    ImageDraw.Draw(drawing).text(middle, letter, fill=255, font=_font(face), anchor="mm", stroke_width=stroke)
    box = drawing.getbbox()
    assert box is not None, (letter, face)
    left, top, right, bottom = box

    tall = random.uniform(5.2, 7.6) * _FINE / (bottom - top)
    wide = min(tall * random.uniform(0.65, 1.3), 7.6 * _FINE / (right - left))
    angle, slant = math.radians(random.uniform(-20, 20)), random.uniform(-0.3, 0.3)
    place = SIDE / 2 * _FINE + random.uniform(-0.9, 0.9, 2) * _FINE

    # The letter's middle goes to ``place``; Pillow wants the way back, from the result to the drawing.
    cos, sin = math.cos(angle), math.sin(angle)
    a, b, c, d = cos * wide, (cos * slant - sin) * tall, sin * wide, (sin * slant + cos) * tall
    det = a * d - b * c
    a, b, c, d = d / det, -b / det, -c / det, a / det
    x = (left + right) / 2 - a * place[0] - b * place[1]
    y = (top + bottom) / 2 - c * place[0] - d * place[1]
    side = (SIDE * _FINE, SIDE * _FINE)
    moved = drawing.transform(side, Image.Transform.AFFINE, (a, b, x, c, d, y), Image.Resampling.BILINEAR)
    return np.asarray(moved.reduce(_FINE))
