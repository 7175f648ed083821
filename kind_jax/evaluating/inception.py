"""Inception-v3 with weights from the user's file, for FID, sFID and the Inception score.

The weights are those that the reference FID uses. Neither they nor PyTorch come with this package. To convert the port
of mseitzer/pytorch-fid (or toshas/torch-fidelity), whose parameter names are kept, where PyTorch is installed:

    python -c "from torch import load; from safetensors.torch import save_file;
    save_file(load('pt_inception-2015-12-05-6726825d.pth', weights_only=True), 'inception.safetensors')"
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kind_jax.errors import UserError
from kind_jax.evaluating import inception_net
from kind_jax.evaluating.extractor import Features, MetricNames
from kind_jax.files import sha256_file
from kind_jax.untrusted import arrays, tensors
from kind_jax.untrusted.info import Info
from kind_jax.untrusted.text import printable

_IGNORED = ".num_batches_tracked"  # counters of training that some versions of PyTorch add
_IGNORED_BYTES = 64

_features = jax.jit(inception_net.features)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Inception:
    """Inception-v3 as an :class:`~kind_jax.evaluating.extractor.Extractor`.

    Attributes:
      weights: leaves by their PyTorch names, in PyTorch's layouts.
      fingerprint: SHA-256 of the file.
      batch: images in one call of the network; the last batch is filled up, so that it compiles once.
    """

    weights: Mapping[str, Array]
    fingerprint: str
    batch: int = 64
    name: str = "inception"
    names: MetricNames = MetricNames(frechet="fid", spatial="sfid", score="inception_score")
    dims: int = inception_net.POOL
    knows_classes: bool = False

    def __call__(self, images: Float[np.ndarray, "N H W C"]) -> Features:
        """Features of images in [-1, 1]; grey ones are shown in three equal channels.

        Raises:
          UserError: neither one channel nor three.
        """
        if images.shape[-1] not in (1, 3):
            raise UserError(f"Inception got images of {images.shape[-1]} channels, but they must have 1 or 3.")
        colour = np.broadcast_to(np.asarray(images, np.float32), (*images.shape[:3], 3))
        parts: list[tuple[np.ndarray, ...]] = []
        for start in range(0, len(colour), self.batch):
            some = colour[start : start + self.batch]
            full = np.concatenate([some, np.zeros((self.batch - len(some), *some.shape[1:]), np.float32)])
            parts.append(tuple(np.asarray(a)[: len(some)] for a in _features(self.weights, jnp.asarray(full))))
        pool, spatial, probabilities = (np.concatenate(group) for group in zip(*parts, strict=True))
        return Features(pool=pool, spatial=spatial, probabilities=probabilities)


def load_inception(path: str | Path) -> Inception:
    """Read a ``.safetensors`` or ``.npz`` file of weights; every leaf is checked before any is used.

    Raises:
      UserError: the file cannot be read, or is of another network; the first leaf that differs is named.
    """
    path = Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise UserError(
            f"--inception-weights is {str(path)!r}, but it must be a .safetensors or .npz file; the documentation of "
            "kind_jax.evaluating.inception tells how to convert a .pth file."
        )
    if not path.is_file():
        raise UserError(f"--inception-weights is {str(path)!r}, but no such file exists.")
    needed = inception_net.leaves()
    if path.suffix == ".npz":
        _check(arrays.look(path), needed, path)
        leaves = arrays.read(path, needed)
    else:
        leaves = tensors.read(path, lambda header: _check(header.arrays, needed, path))
    for name in needed:
        if not np.isfinite(leaves[name]).all():
            raise UserError(f"{str(path)!r} has values in {name!r} that are not finite.")
    weights = {name: jnp.asarray(leaves[name]) for name in needed}
    return Inception(weights=weights, fingerprint=sha256_file(path))


def _check(found: Mapping[str, Info], needed: Mapping[str, tuple[int, ...]], path: Path) -> None:
    for name, shape in needed.items():
        wanted = Info(shape, "float32")
        if name not in found:
            raise UserError(f"{str(path)!r} lacks {name!r}, but Inception-v3 for FID needs it as {wanted}.")
        if found[name] != wanted:
            raise UserError(f"{str(path)!r} has {name!r} as {found[name]}, but Inception-v3 for FID has {wanted}.")
    for name, info in found.items():
        if name not in needed and not (name.endswith(_IGNORED) and info.bytes <= _IGNORED_BYTES):
            raise UserError(f"{str(path)!r} has '{printable(name)}', but Inception-v3 for FID has no such leaf.")
