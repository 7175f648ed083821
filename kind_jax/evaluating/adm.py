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
from kind_jax.evaluating.moments import Gaussian
from kind_jax.evaluating.pixels import to_rgb
from kind_jax.untrusted import arrays
from kind_jax.untrusted.info import Info
from kind_jax.untrusted.text import printable

_WANTED = ("arr_0", "mu", "sigma", "mu_s", "sigma_s", "extractor")


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


def read_batch(path: Path, size: tuple[int, int] | None = None) -> Batch:
    """Read images, statistics, or both.

    Args:
      size: height and width that images must have; None is any.

    Raises:
      UserError: no such file, no ``.npz`` file, neither images nor statistics in it, or arrays of wrong shapes.
    """
    if not path.is_file():
        raise UserError(f"--reference is {str(path)!r}, but no such file exists.")
    try:
        infos = arrays.look(path, _WANTED)
        _check(path, infos, size)
        found = arrays.read(path, _WANTED)
    except UserError as e:
        raise e if str(e).startswith("--reference") else UserError(f"--reference: {e}") from e
    return Batch(
        images=found.get("arr_0"),
        pool=_gaussian(path, found, "mu", "sigma"),
        spatial=_gaussian(path, found, "mu_s", "sigma_s"),
        extractor=printable(found["extractor"]) if "extractor" in found else None,
    )


def _check(path: Path, infos: dict[str, Info], size: tuple[int, int] | None) -> None:
    """What the arrays claim to be, before they are read."""
    reference = f"--reference is {str(path)!r}"
    if "arr_0" not in infos and "mu" not in infos:
        raise UserError(f"{reference}, but it has neither images (arr_0) nor statistics (mu, sigma).")
    if (images := infos.get("arr_0")) is not None:
        shape = images.shape
        if images.dtype != "uint8" or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
            raise UserError(f"{reference}, but its arr_0 is {images} and must be uint8 [N, H, W, 3].")
        if size is not None and shape[1:3] != size:
            found = " x ".join(map(str, shape[1:3]))
            raise UserError(f"{reference} with images of {found} pixels, but the model draws {size[0]} x {size[1]}.")
    for mu, sigma in (("mu", "sigma"), ("mu_s", "sigma_s")):
        mean, cov = infos.get(mu), infos.get(sigma)
        if mean is None:
            continue
        if len(mean.shape) != 1 or cov is None or cov.shape != mean.shape * 2:
            found = list(cov.shape) if cov is not None else "absent"
            raise UserError(
                f"{reference}, but its {mu} is {list(mean.shape)} and its {sigma} is {found}: they must be [D] and "
                "[D, D]."
            )
        if not {mean.dtype, cov.dtype} <= {"float32", "float64"}:
            raise UserError(f"{reference}, but its {mu} is {mean} and its {sigma} {cov}, not floats.")
    name = infos.get("extractor")
    if name is not None and (name.shape != () or not name.dtype.startswith(("<U", ">U")) or name.bytes > 1024):
        raise UserError(f"{reference}, but its extractor is {name}, not a short text.")


def _gaussian(path: Path, found: dict[str, np.ndarray], mu: str, sigma: str) -> Gaussian | None:
    if mu not in found:
        return None
    if not (np.isfinite(found[mu]).all() and np.isfinite(found[sigma]).all()):
        raise UserError(f"--reference is {str(path)!r}, but its {mu} or {sigma} is not finite.")
    return Gaussian(mean=found[mu].astype(np.float64), cov=found[sigma].astype(np.float64))
