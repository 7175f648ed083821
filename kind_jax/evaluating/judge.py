"""An independent judge of class-conditional samples: a classifier trained on the real images, offline.

Its feature space belongs to one data set and one training, so a Fréchet distance in it is *not* FID: it compares
models on the same data with the same judge, and nothing else. A judge that is often wrong gives wrong figures, so it is
first tried on real images that it was not trained on, and refused below a bound. N: images, L = N: labels, M and T:
held-out images and their labels, H: height, W: width, C: channels.
"""

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from kind_jax import model, partition
from kind_jax.config.networks import CNNConfig
from kind_jax.errors import UserError
from kind_jax.evaluating import judge_file, judge_train
from kind_jax.evaluating.judge_file import HeldOut
from kind_jax.evaluating.progress import counting
from kind_jax.nn.cnn import CNN, FEATURES

BOUND = 0.8
"""Held-out accuracy below which a judge is refused."""
HELD_OUT_SHARE = 0.15
"""Of each class's images, held out of the judge's training where no held-out images are given."""
_RECIPE = 3  # to be raised with every change of network or training, so that cached judges are trained anew
_BATCH = 256


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """A trained classifier.

    Attributes:
      weights: collections of :class:`~kind_jax.nn.cnn.CNN`.
      shape: (H, W, C) of the images that it judges.
      num_classes: classes that it tells apart.
      fingerprint: SHA-256 of all that it was trained and tried with (images, labels, classes, seed, steps).
      held_out: how often it is right on real images that it was not trained on; None if it was never tried.
      steps: of its training.
    """

    weights: partition.Collections
    shape: tuple[int, int, int]
    num_classes: int
    fingerprint: str
    held_out: HeldOut | None = None
    steps: int = 0

    def features(self, images: Float[np.ndarray | jax.Array, "N H W C"]) -> Float32[np.ndarray, "N 32"]:
        """What the last hidden layer sees in images in [-1, 1].

        Raises:
          UserError: images of another shape, or not finite.
        """
        return self.look(images)[0]

    def predict(self, images: Float[np.ndarray | jax.Array, "N H W C"]) -> Int32[np.ndarray, " N"]:
        """The most likely class of each image in [-1, 1].

        Raises:
          UserError: images of another shape, or not finite.
        """
        return self.look(images)[1].argmax(axis=-1).astype(np.int32)

    def look(
        self, images: Float[np.ndarray | jax.Array, "N H W C"]
    ) -> tuple[Float32[np.ndarray, "N 32"], Float32[np.ndarray, "N classes"]]:
        """Features and logits of images in [-1, 1], in one pass.

        Raises:
          UserError: images of another shape, or not finite.
        """
        batches = list(self._run(images))
        features = np.concatenate([np.zeros((0, FEATURES), np.float32), *(f for f, _ in batches)])
        return features, np.concatenate([np.zeros((0, self.num_classes), np.float32), *(x for _, x in batches)])

    def _run(self, images: np.ndarray | jax.Array) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        values = np.asarray(images, np.float32)
        _check_images(values, self.shape)
        for start in range(0, len(values), _BATCH):
            batch = values[start : start + _BATCH]
            # The last batch is filled up, so that one compiled program serves any number of images.
            full = np.concatenate([batch, np.zeros((_BATCH - len(batch), *self.shape), np.float32)])
            features, logits = _look(judge_train.settings(self.shape, self.num_classes), self.weights, full)
            yield np.asarray(features)[: len(batch)], np.asarray(logits)[: len(batch)]

    def save(self, path: str | Path) -> None:
        """Write weights and facts to one safetensors file, whole or not at all.

        Raises:
          UserError: the file cannot be written.
        """
        facts = {name: getattr(self, name) for name in judge_file.Facts.model_fields}
        judge_file.write(path, self.weights, judge_file.Facts(**facts))

    @classmethod
    def load(cls, path: str | Path) -> "Judge":
        """Read what :meth:`save` wrote.

        Raises:
          UserError: the file is absent, damaged, no judge, does not say how often it is right, or its tensors differ
            from the network's in name, shape or dtype, or are not finite.
        """
        facts, weights = judge_file.read(path)
        return cls(weights=weights, **{name: getattr(facts, name) for name in judge_file.Facts.model_fields})


@functools.partial(jax.jit, static_argnums=0)
def _look(
    settings: CNNConfig, weights: partition.Collections, images: Float[jax.Array, "B H W C"]
) -> tuple[Float[jax.Array, "B 32"], Float[jax.Array, "B classes"]]:
    net: CNN = partition.join(model.definition(settings)[0], weights)
    features = net.features(images)
    return features, net.logits(features)


def _check_images(images: np.ndarray, shape: tuple[int, int, int]) -> None:
    if images.shape[1:] != shape:
        raise UserError(f"The judge got images of shape {images.shape[1:]}, but it was trained on shape {shape}.")
    if not np.isfinite(images).all():
        raise UserError("The judge got images with values that are not finite, but all must lie in [-1, 1].")


def _check_labels(labels: np.ndarray, count: int, num_classes: int) -> None:
    if len(labels) != count:
        raise UserError(f"The judge got {len(labels)} labels for {count} images, but each image needs one.")
    if count == 0:
        raise UserError("The judge got 0 images to train on, but it needs at least 1.")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise UserError(f"The judge got the label {wrong[0]}, but labels must be 0 to {num_classes - 1}.")


def _fingerprint(*parts: np.ndarray, settings: tuple[object, ...]) -> str:
    digest = hashlib.sha256(repr((_RECIPE, *(a.shape for a in parts), *settings)).encode())
    for part in parts:
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def hold_out(labels: Int[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Which images are held out of a judge's training where no others are given: a share of every class.

    At least one image of a class that has two; the choice follows from the labels alone.
    """
    chosen, rng = np.zeros(len(labels), bool), np.random.default_rng(0)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        chosen[rows[: max(1, round(HELD_OUT_SHARE * len(rows)))]] = len(rows) > 1
    return chosen


def check_bound(judge: Judge, bound: float) -> None:
    """Refuse a judge that is right on fewer held-out images than ``bound``.

    Raises:
      UserError: naming the accuracy and the bound; or the bound is not between 0 and 1.
    """
    if not 0 <= bound <= 1:
        raise UserError(f"--judge-bound is {bound}, but it must be between 0 and 1.")
    if judge.held_out is None:
        raise UserError("The judge was never tried on held-out images, but its accuracy must be known.")
    if judge.held_out.accuracy < bound:
        raise UserError(
            f"The judge is {judge.held_out}, but it must be right on {bound:.0%} or its figures mean little: train it "
            f"longer (--judge-steps, {judge.steps} now), give it more images, or knowingly lower --judge-bound."
        )


def train_judge(
    images: Float[np.ndarray | jax.Array, "N H W C"],
    labels: Int[np.ndarray | jax.Array, " L"],
    num_classes: int,
    *,
    seed: int,
    steps: int | None = None,
    cache: str | Path | None = None,
    held_out: tuple[Float[np.ndarray | jax.Array, "M H W C"], Int[np.ndarray | jax.Array, " T"]] | None = None,
    bound: float = BOUND,
    flip: bool = False,
    show: bool = False,
) -> Judge:
    """Train a judge on real images in [-1, 1] and try it on others; the same arguments give the same judge.

    With ``cache``, a judge saved there from the very same arguments is loaded instead, and a newly trained one is saved
    there, whether or not it is then refused.

    Args:
      steps: of training; None follows the images (:func:`kind_jax.evaluating.judge_train.default_steps`).
      held_out: images and labels that the judge is tried on; None takes a share of every class's ``images``, which it
        is then not trained on (:func:`hold_out`).
      bound: accuracy on the held-out images below which the judge is refused.
      flip: whether a mirrored image shows the same class; half of the images are then mirrored in training.
      show: whether to print how far the training is.

    Raises:
      UserError: labels that do not fit, images that are not finite, none to hold out, a judge below the bound, or a
        cache file that is no judge.
    """
    values, targets = np.asarray(images, np.float32), np.asarray(labels, np.int32)
    shape = (values.shape[1], values.shape[2], values.shape[3])
    _check_images(values, shape)
    if shape[0] != shape[1]:
        raise UserError(f"The judge got images of shape {shape}, but they must be square.")
    _check_labels(targets, len(values), num_classes)
    if held_out is None:
        chosen = hold_out(targets)
        real, share = (values[chosen], targets[chosen]), HELD_OUT_SHARE
        values, targets = values[~chosen], targets[~chosen]
        if not chosen.any():
            raise UserError("The judge got one image a class, but some class needs two, so that one can be held out.")
    else:
        real, share = (np.asarray(held_out[0], np.float32), np.asarray(held_out[1], np.int32)), None
        _check_images(real[0], shape)
        _check_labels(real[1], len(real[0]), num_classes)
    steps = judge_train.default_steps(len(values), shape) if steps is None else steps
    fingerprint = _fingerprint(values, targets, *real, settings=(num_classes, seed, steps, share, flip))
    if cache is not None and Path(cache).exists() and judge_file.read_facts(cache).fingerprint == fingerprint:
        judge = Judge.load(cache)
    else:
        weights = _fit(values, targets, num_classes, seed=seed, steps=steps, flip=flip, show=show)
        judge = Judge(weights=weights, shape=shape, num_classes=num_classes, fingerprint=fingerprint, steps=steps)
        right = int(np.sum(judge.predict(real[0]) == real[1]))
        judge = dataclasses.replace(judge, held_out=HeldOut(right=right, images=len(real[0]), share=share))
        if cache is not None:
            try:
                judge.save(cache)
            except UserError as e:  # of a run that is only to be read, say: the judge serves all the same
                print(f"the judge is not kept for the next time: {e}", file=sys.stderr, flush=True)
    check_bound(judge, bound)
    return judge


def _fit(
    images: np.ndarray, labels: np.ndarray, num_classes: int, *, seed: int, steps: int, flip: bool, show: bool
) -> partition.Collections:
    settings = judge_train.settings(images.shape[1:], num_classes)
    if not show:
        return judge_train.fit(settings, images, labels, seed=seed, steps=steps, flip=flip)
    with counting("training the judge, a classifier of real images", steps * judge_train.BATCH) as count:

        def progress(done: int, accuracy: float) -> None:
            count(done * judge_train.BATCH, f"right on {accuracy:.0%} of them")

        return judge_train.fit(settings, images, labels, seed=seed, steps=steps, flip=flip, progress=progress)
