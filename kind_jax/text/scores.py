"""How good captions are: BLEU, CIDEr, accuracy of tokens, and recall of retrieval, without Java.

N: captions that are scored, or images; M: captions to choose from; L: tokens of a row. Text is cut into :func:`words`,
where COCO's evaluation calls Stanford's tokenizer: figures differ by what the two make of signs.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from kind_jax.errors import UserError

_ORDER = 4  # the longest n-grams
_SIGMA = 6.0  # of CIDEr-D's penalty on lengths
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")

_Gram = tuple[str, ...]


def words(text: str) -> list[str]:
    """The words of a text in small letters: letters and digits, with apostrophes and hyphens inside; no other signs."""
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]], *, order: int = _ORDER) -> float:
    """BLEU of a corpus (Papineni et al. 2002), from 0 to 1; BLEU-4 unless told otherwise.

    The geometric mean of the precisions of 1-grams to ``order``-grams, each clipped by the largest count in one
    reference, times exp(1 - r / c) where all candidates together have c words, fewer than the references: r is the sum
    of the lengths closest to each candidate's, of two equally close ones the shorter. As in COCO's evaluation, without
    smoothing: 0 where no n-gram of a length is right.

    Args:
      candidates: one caption of each image.
      references: one or more captions that are right, of each image.

    Raises:
      UserError: there are none, their numbers differ, or an image has no reference.
    """
    return bleu_of(bleu_counts(candidates, references, order=order).sum(0))


def bleu_counts(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, order: int = _ORDER
) -> Int64[np.ndarray, "N counts"]:
    """What BLEU is computed from, of each caption: sums over any of them make their BLEU.

    Returns:
      The length of the candidate, that of the closest reference, and for each n the n-grams that are right and all that
      there are: 2 + 2 * ``order`` numbers.
    """
    _check(candidates, references)
    counts = []
    for candidate, several in zip(candidates, references, strict=True):
        own, others = words(candidate), [words(reference) for reference in several]
        closest = min((abs(len(other) - len(own)), len(other)) for other in others)[1]
        row = [len(own), closest]
        for n in range(1, order + 1):
            most: collections.Counter[_Gram] = collections.Counter()
            for other in others:
                most |= _grams(other, n)
            found = _grams(own, n)
            row += [(found & most).total(), found.total()]
        counts.append(row)
    return np.asarray(counts, np.int64)


def bleu_of(counts: Int64[np.ndarray, " counts"]) -> float:
    """BLEU of a sum of :func:`bleu_counts`."""
    own, other, *pairs = counts.tolist()
    right, all_ = pairs[::2], pairs[1::2]
    if not all(right):
        return 0.0
    precision = sum(math.log(a / b) for a, b in zip(right, all_, strict=True)) / len(right)
    return math.exp(precision + min(0.0, 1 - other / own))


def cider(
    candidates: Sequence[str], references: Sequence[Sequence[str]], *, plain: bool = False
) -> Float[np.ndarray, " N"]:
    """CIDEr of each caption (Vedantam et al. 2015); that of a corpus is the mean.

    By default CIDEr-D, from 0 to 10, as COCO's evaluation computes it and papers report it: the cosine similarity of
    TF-IDF vectors of n-grams, with counts of the candidate clipped by those of the reference, times
    10 exp(-(difference of lengths)² / (2 * 6²)), averaged over the references and over n from 1 to 4. The IDF of an
    n-gram is the logarithm of the number of images over the number of those with it in their references, at least one.
    So scores depend on the other images, and a single one has 0.

    Args:
      candidates: one caption of each image.
      references: one or more captions that are right, of each image.
      plain: CIDEr, from 0 to 1: equation 2 of the paper, neither clipped nor penalised nor times 10.

    Raises:
      UserError: there are none, their numbers differ, or an image has no reference.
    """
    _check(candidates, references)
    known = [[words(reference) for reference in several] for several in references]
    having: collections.Counter[_Gram] = collections.Counter()
    for several in known:
        having.update({gram for one in several for n in range(1, _ORDER + 1) for gram in _grams(one, n)})
    weight = {gram: math.log(len(known) / count) for gram, count in having.items()}
    most = math.log(len(known))  # of an n-gram that is in no reference

    def vector(grams: collections.Counter[_Gram]) -> dict[_Gram, float]:
        return {gram: count * weight.get(gram, most) for gram, count in grams.items()}

    scores = []
    for candidate, several in zip(candidates, known, strict=True):
        own, total = words(candidate), 0.0
        for n in range(1, _ORDER + 1):
            mine = vector(_grams(own, n))
            for other in several:
                likeness = _likeness(mine, vector(_grams(other, n)), clipped=not plain)
                total += likeness if plain else 10 * likeness * _penalty(len(own) - len(other))
        scores.append(total / len(several) / _ORDER)
    return np.asarray(scores, np.float64)


def token_accuracy(
    predicted: Int[np.ndarray, "N L"], wanted: Int[np.ndarray, "N L"], *, pad: int = 0
) -> Float[np.ndarray, " N"]:
    """Share of each row's tokens that are predicted, without those that are ``pad``.

    Args:
      predicted: the token that a model gives the largest probability after those before it.
      wanted: the token that is there.

    Raises:
      UserError: a row is padding alone.
    """
    counted = wanted != pad
    if not (number := counted.sum(1)).all():
        raise UserError(f"row {int(np.argmin(number))} of the tokens is padding alone, but it must have a token.")
    return ((predicted == wanted) & counted).sum(1) / number


class Recall(NamedTuple):
    """Of what is looked for, the share that is found among the first k, for each k.

    Attributes:
      rows: looked for by a row: with images as rows, texts by an image.
      columns: looked for by a column: images by a text.
    """

    rows: dict[int, float]
    columns: dict[int, float]


def recall_at(
    similarity: Float[np.ndarray, "N M"], positives: Bool[np.ndarray, "N M"], ks: Sequence[int] = (1, 5, 10)
) -> Recall:
    """Recall of retrieval in both directions: whether one of those that belong together is among the k most similar.

    Of what is equally similar, that which does not belong comes first, so that a model that sees no difference finds
    nothing.

    Args:
      similarity: of each image and each text.
      positives: which belong together; an image may have several texts, and a text several images.
      ks: how many of the most similar are looked at.

    Raises:
      UserError: an image has no text or a text no image, a similarity is not finite, or a k is below 1.
    """
    if not np.isfinite(similarity).all():
        raise UserError("a similarity is not finite, but all must be.")
    if not ks or min(ks) < 1:
        raise UserError(f"the numbers that are looked at are {tuple(ks)}, but there must be some, and 1 or more.")
    return Recall(_recall(similarity, positives, ks, "row"), _recall(similarity.T, positives.T, ks, "column"))


def _recall(similarity: np.ndarray, positives: np.ndarray, ks: Sequence[int], what: str) -> dict[int, float]:
    if not (some := positives.any(1)).all():
        raise UserError(f"{what} {int(np.argmin(some))} of the similarities has nothing that belongs to it.")
    best = np.where(positives, similarity, -np.inf).max(1, keepdims=True)
    before = (~positives & (similarity >= best)).sum(1)
    return {k: float((before < k).mean()) for k in ks}


def _check(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not candidates or len(candidates) != len(references):
        raise UserError(
            f"there are {len(candidates)} captions to score and references of {len(references)} images, but there must "
            "be as many, and one or more."
        )
    if lacking := [i for i, several in enumerate(references) if isinstance(several, str) or not several]:
        raise UserError(f"caption {lacking[0]} has no list of references, but it must have one or more.")


def _grams(found: Sequence[str], n: int) -> collections.Counter[_Gram]:
    return collections.Counter(tuple(found[i : i + n]) for i in range(len(found) - n + 1))


def _likeness(own: Mapping[_Gram, float], other: Mapping[_Gram, float], *, clipped: bool) -> float:
    norm = math.hypot(*own.values()) * math.hypot(*other.values())
    both = own.keys() & other.keys()
    if not norm or not both:
        return 0.0
    return sum((min(own[gram], other[gram]) if clipped else own[gram]) * other[gram] for gram in both) / norm


def _penalty(difference: int) -> float:
    return math.exp(-(difference**2) / (2 * _SIGMA**2))
