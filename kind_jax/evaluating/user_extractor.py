"""An extractor of the user's own, such as DINO: Python code, so load only your own. N: images, H, W, C: their shape.

It is named as a file, whose ``get_extractor()`` is called, or as ``module:function``, and that function is called.
Either returns something that is itself called with float32 images [N, H, W, C] in [-1, 1], up to 256 at a time, and
returns features [N, D] as an array, or :class:`~kind_jax.evaluating.extractor.Features` if it has spatial features or
class probabilities too:

    def get_extractor():
        weights = load("dino.safetensors")
        def features(images):  # resize, normalise, and run the network
            ...
        features.fingerprint = sha256_of("dino.safetensors")
        return features

The record of an evaluation holds the SHA-256 of the code; ``fingerprint``, if there is one, is hashed with it and
should tell one file of weights from another.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float

from kind_jax.errors import UserError
from kind_jax.evaluating.extractor import Features, MetricNames


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class UserExtractor:
    """A callable of the user's, its results checked."""

    call: Callable[[np.ndarray], Any]
    name: str
    fingerprint: str
    names: MetricNames
    dims: int
    knows_classes: bool = False

    def __call__(self, images: Float[np.ndarray, "N H W C"]) -> Features:
        """What the callable returns, as features.

        Raises:
          UserError: it fails, or returns something else than a row of finite features for each image.
        """
        return _checked(self.call, self.name, images)


def load_extractor(spec: str, shape: tuple[int, int, int]) -> UserExtractor:
    """The extractor that ``spec`` names, tried on one black image of ``shape`` [H, W, C].

    Raises:
      UserError: there is no such file, module or function, or calling it fails.
    """
    module, function, name = _find(spec)
    try:
        call = getattr(module, function)()
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"--extractor is {spec!r:.200}, but {function}() failed: {type(e).__name__}: {e}.") from e
    if not callable(call):
        what = type(call).__name__
        raise UserError(f"--extractor is {spec!r:.200}, but {function}() returned {what}, not a callable.")
    probe = _checked(call, name, np.full((1, *shape), -1.0, np.float32))
    file = getattr(module, "__file__", None)
    digest = hashlib.sha256(Path(file).read_bytes() if file else b"")
    digest.update(str(getattr(call, "fingerprint", "")).encode())
    widths = [a.shape[1] for a in (probe.pool, probe.spatial) if a is not None]
    return UserExtractor(
        call=call, name=name, fingerprint=digest.hexdigest(), names=MetricNames.of(name), dims=max(widths)
    )


def _find(spec: str) -> tuple[ModuleType, str, str]:
    """Module, function in it, and the extractor's name."""
    where, colon, function = spec.partition(":")
    file = Path(spec) if spec.endswith(".py") else None
    if file is not None and not file.is_file():
        raise UserError(f"--extractor is {spec!r:.200}, but no such file exists.")
    if file is None and not (where and colon and function):
        raise UserError(
            f"--extractor is {spec!r:.200}, but it must be judge, inception, efficientnet-lite0, a Python file, or "
            "module:function."
        )
    try:
        if file is None:
            module, name = importlib.import_module(where), function.removeprefix("get_")
        else:
            module, function, name = _run(file), "get_extractor", file.stem
    except UserError:
        raise
    except Exception as e:
        raise UserError(f"--extractor is {spec!r:.200}, but loading it failed: {type(e).__name__}: {e}.") from e
    if not callable(getattr(module, function, None)):
        raise UserError(f"--extractor is {spec!r:.200}, but it has no function {function}().")
    return module, function, name


def _run(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"kind_jax_extractor_{file.stem}", file)
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _checked(call: Callable[[np.ndarray], Any], name: str, images: np.ndarray) -> Features:
    try:
        found = call(images)
    except UserError:
        raise
    except Exception as e:
        raise UserError(
            f"the extractor {name!r} failed on images of shape {images.shape}: {type(e).__name__}: {e}."
        ) from e
    given = vars(found) if isinstance(found, Features) else {"pool": found}
    parts = {what: np.asarray(array) for what, array in given.items() if array is not None}
    for what, array in parts.items():
        if array.ndim != 2 or len(array) != len(images) or array.dtype.kind != "f" or array.shape[1] == 0:
            raise UserError(
                f"the extractor {name!r} returned {what} as {array.dtype.name}{list(array.shape)} for {len(images)} "
                f"images, but it must be a float array [{len(images)}, features]."
            )
        if not np.isfinite(array).all():
            raise UserError(f"the extractor {name!r} returned {what} that are not all finite.")
    return Features(**parts)
