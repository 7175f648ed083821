"""The ``.npz`` files that guided-diffusion's evaluator reads: batches of images, and statistics of a reference.

``arr_0`` is uint8 [N, H, W, 3]; ``mu`` and ``sigma`` are mean and covariance of pool features, ``mu_s`` and
``sigma_s`` of spatial ones. ADM's reference batches hold both: statistics of a whole data set, and 10 000 images for
precision and recall. N: images, H, W: their shape.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from kind_jax.errors import UserError
from kind_jax.evaluate.moments import Gaussian
from kind_jax.evaluate.pixels import to_rgb


def write_samples(
    path: Path,
    batches: Iterable[UInt8[np.ndarray, "n H W C"]],
    labels: Int[np.ndarray, " N"],
    shape: tuple[int, int],
) -> None:
    """Write ``arr_0`` (RGB) and ``arr_1`` (labels, int64), whole or not at all, holding one batch at a time.

    Args:
      batches: the images of ``labels`` in order; grey ones become RGB.
      shape: height and width.

    Raises:
      UserError: the file cannot be written.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
    try:
        with zipfile.ZipFile(temporary, "x", zipfile.ZIP_STORED) as file:
            # Dated 1980, ZipInfo's default: the same images give the same file.
            with file.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as out:
                header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *shape, 3)}
                np.lib.format.write_array_header_1_0(out, header)
                for pixels in batches:
                    out.write(to_rgb(pixels).data)
            with file.open(zipfile.ZipInfo("arr_1.npy"), "w") as out:
                np.lib.format.write_array(out, labels.astype("<i8"), version=(1, 0), allow_pickle=False)
        os.replace(temporary, path)
    except OSError as e:
        raise UserError(f"{str(path)!r} could not be written: {e.strerror or e}.") from e
    finally:
        temporary.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """What a file holds.

    Attributes:
      images: None in a file of statistics alone.
      pool, spatial: statistics of features, if any.
      extractor: fingerprint of the extractor that they are of; None in ADM's files, whose extractor is Inception.
    """

    images: UInt8[np.ndarray, "N H W 3"] | None
    pool: Gaussian | None
    spatial: Gaussian | None
    extractor: str | None


def read_batch(path: Path) -> Batch:
    """Read images, statistics, or both.

    Raises:
      UserError: no such file, no ``.npz`` file, neither images nor statistics in it, or arrays of wrong shapes.
    """
    if not path.is_file():
        raise UserError(f"--reference is {str(path)!r}, but no such file exists.")
    try:
        with np.load(path) as file:
            names = set(file.files) if isinstance(file, np.lib.npyio.NpzFile) else set()
            wanted = ("arr_0", "mu", "sigma", "mu_s", "sigma_s", "extractor")
            arrays = {name: file[name] for name in wanted if name in names}
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as e:
        raise UserError(f"--reference is {str(path)!r}, but it must be a .npz file of plain arrays: {e}.") from e
    if "arr_0" not in arrays and "mu" not in arrays:
        raise UserError(f"--reference is {str(path)!r}, but it has neither images (arr_0) nor statistics (mu, sigma).")
    images = arrays.get("arr_0")
    if images is not None and (images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3):
        found = f"{images.dtype.name}{list(images.shape)}"
        raise UserError(f"--reference is {str(path)!r}, but its arr_0 is {found} and must be uint8 [N, H, W, 3].")
    return Batch(
        images=images,
        pool=_gaussian(path, arrays, "mu", "sigma"),
        spatial=_gaussian(path, arrays, "mu_s", "sigma_s"),
        extractor=str(arrays["extractor"]) if "extractor" in arrays else None,
    )


def _gaussian(path: Path, arrays: dict[str, np.ndarray], mu: str, sigma: str) -> Gaussian | None:
    if mu not in arrays:
        return None
    mean = arrays[mu]
    if mean.ndim != 1 or sigma not in arrays or arrays[sigma].shape != (len(mean), len(mean)):
        found = list(arrays[sigma].shape) if sigma in arrays else "absent"
        raise UserError(
            f"--reference is {str(path)!r}, but its {mu} is {list(mean.shape)} and its {sigma} is {found}: they must "
            "be [D] and [D, D]."
        )
    if not (np.isfinite(mean).all() and np.isfinite(arrays[sigma]).all()):
        raise UserError(f"--reference is {str(path)!r}, but its {mu} or {sigma} is not finite.")
    return Gaussian(mean=mean.astype(np.float64), cov=arrays[sigma].astype(np.float64))
