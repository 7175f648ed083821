"""An independent judge of class-conditional samples: a classifier trained on the real images, offline.

Its feature space belongs to one data set and one training, so a Fréchet distance in it is *not* FID: it compares
models on the same data with the same judge, and nothing else. N: images, L = N: labels, H: height, W: width,
C: channels.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from kind_jax.errors import UserError
from kind_jax.evaluate import judge_file, judge_net, judge_train
from kind_jax.evaluate.judge_net import Params

STEPS = 800
_RECIPE = 1  # to be raised with every change of network or training, so that cached judges are trained anew
_BATCH = 256


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """A trained classifier.

    Attributes:
      params: weights of :class:`~kind_jax.evaluate.judge_net.JudgeNet`.
      shape: (H, W, C) of the images that it judges.
      num_classes: classes that it tells apart.
      fingerprint: SHA-256 of all that it was trained from (images, labels, classes, seed, steps).
    """

    params: Params
    shape: tuple[int, int, int]
    num_classes: int
    fingerprint: str

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
        features = np.concatenate([np.zeros((0, judge_net.FEATURES), np.float32), *(f for f, _ in batches)])
        return features, np.concatenate([np.zeros((0, self.num_classes), np.float32), *(x for _, x in batches)])

    def _run(self, images: np.ndarray | jax.Array) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        values = np.asarray(images, np.float32)
        _check_images(values, self.shape)
        for start in range(0, len(values), _BATCH):
            batch = values[start : start + _BATCH]
            # The last batch is filled up, so that one compiled program serves any number of images.
            full = np.concatenate([batch, np.zeros((_BATCH - len(batch), *self.shape), np.float32)])
            features, logits = judge_net.apply_jit(_graph(self.shape, self.num_classes), self.params, full)
            yield np.asarray(features)[: len(batch)], np.asarray(logits)[: len(batch)]

    def save(self, path: str | Path) -> None:
        """Write weights and facts to one safetensors file, whole or not at all.

        Raises:
          UserError: the file cannot be written.
        """
        facts = judge_file.Facts(shape=self.shape, num_classes=self.num_classes, fingerprint=self.fingerprint)
        judge_file.write(path, self.params, facts)

    @classmethod
    def load(cls, path: str | Path) -> "Judge":
        """Read what :meth:`save` wrote.

        Raises:
          UserError: the file is absent, damaged, no judge, or its tensors differ from the network's in name, shape
            or dtype, or are not finite.
        """
        facts, params = judge_file.read(path)
        return cls(params=params, shape=facts.shape, num_classes=facts.num_classes, fingerprint=facts.fingerprint)


@functools.lru_cache
def _graph(shape: tuple[int, int, int], num_classes: int):
    return judge_net.blueprint(shape, num_classes)[0]


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


def _fingerprint(images: np.ndarray, labels: np.ndarray, num_classes: int, seed: int, steps: int) -> str:
    digest = hashlib.sha256(repr((_RECIPE, images.shape, num_classes, seed, steps)).encode())
    digest.update(np.ascontiguousarray(images).tobytes())
    digest.update(np.ascontiguousarray(labels).tobytes())
    return digest.hexdigest()


def train_judge(
    images: Float[np.ndarray | jax.Array, "N H W C"],
    labels: Int[np.ndarray | jax.Array, " L"],
    num_classes: int,
    *,
    seed: int,
    steps: int = STEPS,
    cache: str | Path | None = None,
) -> Judge:
    """Train a judge on real images in [-1, 1]; the same arguments give the same judge.

    With ``cache``, a judge saved there from the very same images, labels, classes, seed and steps is loaded instead,
    and a newly trained one is saved there.

    Raises:
      UserError: labels that do not fit, images that are not finite, or a cache file that is no judge.
    """
    values, targets = np.asarray(images, np.float32), np.asarray(labels, np.int32)
    shape = (values.shape[1], values.shape[2], values.shape[3])
    _check_images(values, shape)
    _check_labels(targets, len(values), num_classes)
    fingerprint = _fingerprint(values, targets, num_classes, seed, steps)
    if cache is not None and Path(cache).exists() and judge_file.read_facts(cache).fingerprint == fingerprint:
        return Judge.load(cache)
    init_key, train_key = jax.random.split(jax.random.key(seed))
    params = judge_train.fit(
        _graph(shape, num_classes),
        judge_net.init(shape, num_classes, init_key),
        jnp.asarray(values),
        jnp.asarray(targets),
        train_key,
        steps,
    )
    judge = Judge(params=params, shape=shape, num_classes=num_classes, fingerprint=fingerprint)
    if cache is not None:
        judge.save(cache)
    return judge
