"""EfficientNet-Lite0's features, for a Fréchet distance without Inception's weights: FD-EfficientNet-Lite0, never FID.

Its weights come from a package of the usual registry (extra ``teachers``), where those of the reference FID have to be
found and converted; distances in its feature space compare with one another alone.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kind_jax import model, partition
from kind_jax.config.networks import EfficientNetConfig
from kind_jax.errors import UserError
from kind_jax.evaluating.extractor import Features, MetricNames
from kind_jax.files import sha256_file
from kind_jax.interchange.efficientnet import installed
from kind_jax.interchange.incoming_classifier import load_efficientnet_lite0
from kind_jax.nn import inputs
from kind_jax.nn.efficientnet import FEATURES

SIDE = 224


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EfficientNetLite0:
    """EfficientNet-Lite0 as an :class:`~kind_jax.evaluating.extractor.Extractor`.

    Attributes:
      settings: of the network, which scales all images to ``SIDE``.
      weights: its collections.
      fingerprint: SHA-256 of the file.
      batch: images in one call of the network; the last batch is filled up, so that it compiles once.
    """

    settings: EfficientNetConfig
    weights: partition.Collections
    fingerprint: str
    batch: int = 64
    name: str = "efficientnet-lite0"
    names: MetricNames = MetricNames(
        frechet="FD-EfficientNet-Lite0", spatial="spatial-FD-EfficientNet-Lite0", score="score-EfficientNet-Lite0"
    )
    dims: int = FEATURES
    knows_classes: bool = False

    def __call__(self, images: Float[np.ndarray, "N H W C"]) -> Features:
        """The 1280 pooled features of images in [-1, 1]; grey ones are shown in three equal channels.

        Raises:
          UserError: neither one channel nor three.
        """
        if images.shape[-1] not in (1, 3):
            raise UserError(f"EfficientNet-Lite0 got images of {images.shape[-1]} channels, but they must have 1 or 3.")
        colour = np.broadcast_to(np.asarray(images, np.float32), (*images.shape[:3], 3))
        parts = [np.zeros((0, FEATURES), np.float32)]
        for start in range(0, len(colour), self.batch):
            some = colour[start : start + self.batch]
            full = np.concatenate([some, np.zeros((self.batch - len(some), *some.shape[1:]), np.float32)])
            parts.append(np.asarray(_features(self.settings, self.weights, jnp.asarray(full)))[: len(some)])
        return Features(pool=np.concatenate(parts))


def load_extractor(path: str | Path | None = None) -> EfficientNetLite0:
    """Read the weights: the file that :func:`~kind_jax.interchange.incoming_classifier.load_efficientnet_lite0` takes.

    Raises:
      UserError: as there.
    """
    path = installed() if path is None else Path(path)
    bundle = load_efficientnet_lite0(path)
    settings = dataclasses.replace(bundle.config.model, resolution=SIDE)
    if settings.channels != 3:
        raise UserError(f"{path} is of images in {settings.channels} channels, but the extractor's must have 3.")
    weights = jax.tree.map(jnp.asarray, bundle.collections)
    return EfficientNetLite0(settings=settings, weights=weights, fingerprint=sha256_file(path))


@functools.partial(jax.jit, static_argnums=0)
def _features(
    settings: EfficientNetConfig, weights: partition.Collections, images: Float[Array, "B H W C"]
) -> Float[Array, "B 1280"]:
    net = partition.join(model.definition(settings)[0], weights)
    return net.features(inputs.seen(settings, images))
