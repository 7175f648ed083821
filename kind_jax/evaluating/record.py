"""The record of an evaluation: the figures, and every setting that moves them."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import jax

from kind_jax.errors import UserError
from kind_jax.evaluating.extractor import Extractor
from kind_jax.evaluating.intervals import METHOD, Interval
from kind_jax.evaluating.metrics import REFERENCE_IMAGES, SPLIT
from kind_jax.evaluating.neighbours import NEIGHBOURS
from kind_jax.evaluating.pixels import RULE
from kind_jax.files import atomic_write_text
from kind_jax.untrusted import documents
from kind_jax.untrusted.text import printable

FILE_NAME = "evaluation.json"
_PACKAGES = ("kind-jax", "jax", "jaxlib", "flax", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages whose numerics matter."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a source tree
            from kind_jax import __version__

            found[name] = __version__
    return found


def make_record(
    *,
    source: Path,
    settings: dict[str, Any],
    extractor: Extractor,
    details: dict[str, Any],
    reference: dict[str, Any],
    metrics: dict[str, float],
    intervals: dict[str, Interval],
    baseline: dict[str, Any],
) -> dict[str, Any]:
    """One record as JSON values.

    Args:
      settings: of the samples, as :attr:`kind_jax.evaluating.generate.Plan.settings`.
      details: what else the extractor's features depend on.
      intervals: of the metrics, 95 % (:mod:`kind_jax.evaluating.intervals`).
      baseline: metrics of held-out real images, their intervals and number, or why there are none.
    """
    devices = jax.local_devices()
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return {
        "format": 1,
        "source": str(source),
        "samples": settings,
        "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint, **details},
        "reference": reference,
        "images": RULE,
        "precision_recall": {"neighbours": NEIGHBOURS, "reference_images_at_most": REFERENCE_IMAGES},
        "score_split": SPLIT,
        "metrics": metrics,
        "intervals": {name: list(interval) for name, interval in intervals.items()},
        "interval_method": METHOD,
        "baseline": baseline,
        "versions": versions(),
        "devices": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "matmul_precision": precision or "default",
        },
    }


def write_record(folder: Path, record: dict[str, Any]) -> Path:
    """Write ``evaluation.json`` atomically; returns its path."""
    path = folder / FILE_NAME
    atomic_write_text(path, json.dumps(record, indent=1) + "\n")
    return path


def check_record(folder: Path, extractor: str, reference: str | None) -> None:
    """Refuse to replace the record of another extractor or reference.

    Args:
      extractor: name of the extractor.
      reference: path of the reference file or of the data given; None is the data set of the model's config.

    Raises:
      UserError: the folder holds another record, or one that cannot be read.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return
    there = documents.read(path)
    try:
        found = there["extractor"]["name"], there["reference"].get("path")
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{path} is damaged: it is no record; move it away or use another --out.") from e
    if found != (extractor, reference):
        against = printable(found[1] or "the data set")
        raise UserError(
            f"{path} was measured by {printable(found[0])} against {against}, but now it is {extractor} "
            f"against {reference or 'the data set'}; move it away (the samples are used again) or use another --out."
        )
