"""PyTorch's ``.pt`` and ``.pth`` files, which are pickles: only through torch's reader that builds tensors alone.

Where torch is not installed, files of the old format are still read, as data (:mod:`kind_jax.untrusted.torch_legacy`).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from kind_jax.errors import UserError
from kind_jax.interchange.names import StateDict
from kind_jax.untrusted import torch_legacy
from kind_jax.untrusted.regular import open_regular
from kind_jax.untrusted.text import printable

_ZIP = b"PK\x03\x04"


def read(path: Path, weights: Literal["ema", "raw"] | None = None, *, skip: tuple[str, ...] = ()) -> StateDict:
    """The float32 arrays of a state dict.

    Args:
      weights: of a checkpoint of the official training script ({'model', 'ema', 'opt', 'args'}), the moving average
        (also None) or the last weights; a plain state dict has no choice, and is taken as it is.
      skip: tensors whose names end in one of these are passed over.

    Raises:
      UserError: PyTorch is not installed, the file is no such file, is damaged, or asks for anything but tensors.
    """
    with open_regular(path) as (file, _):
        mapped = file.read(len(_ZIP)) == _ZIP  # the old format cannot be mapped; mapping spares the optimizer's memory
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError as e:
        if torch_legacy.is_legacy(path):
            return _without_torch(path, skip)
        raise UserError(
            f"{path} is read by PyTorch, which is not installed: pip install 'kind-jax[torch]', or give a .safetensors "
            "file."
        ) from e
    try:
        # The official script keeps its arguments beside the weights; a Namespace is a bag of values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as e:  # a damaged file can make its reader fail in any way
        raise _refused(path, e) from e
    state = _state_dict(found, weights, path)
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(skip)}
    return {name: _array(torch, tensor, f"{path}: '{printable(name)}'") for name, tensor in kept.items()}


def _without_torch(path: Path, skip: tuple[str, ...]) -> StateDict:
    kept = {name: array for name, array in torch_legacy.read(path).items() if not name.endswith(skip)}
    for name, array in kept.items():
        if array.dtype.name not in ("float32", "float16", "bfloat16"):
            raise UserError(
                f"{path}: '{printable(name)}' has dtype {array.dtype.name}, but it must be float32, float16 or "
                "bfloat16."
            )
    return {name: array.astype(np.float32, copy=False) for name, array in kept.items()}


def _refused(path: Path, error: Exception) -> UserError:
    asked = re.search(r"GLOBAL (\S+)", str(error))
    if asked:
        what = printable(asked[1].strip("`'\"."), 100)
        return UserError(
            f"{path} is not loaded: it asks for the Python object '{what}', but it must hold tensors alone."
        )
    lines = [line for line in str(error).splitlines() if line.strip()]
    told = isinstance(error, RuntimeError) and lines and "PytorchStreamReader" not in lines[0]
    reason = printable(lines[-1].strip(), 200).rstrip(".") if told else type(error).__name__
    return UserError(f"{path} is no file of tensors that torch.load(weights_only=True) reads, or is damaged: {reason}.")


def _state_dict(found: Any, weights: Literal["ema", "raw"] | None, path: Path) -> dict[str, Any]:
    if isinstance(found, Mapping) and isinstance(found.get("model"), Mapping):
        name = "model" if weights == "raw" else "ema"
        if not isinstance(found.get(name), Mapping):
            raise UserError(f"{path} is a training checkpoint without '{name}', but --weights asks for that.")
        found = found[name]
    elif isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):  # of open_clip's training
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise UserError(f"{path} holds a {type(found).__name__}, but it must hold a state dict: tensors by name.")
    return dict(found)


def _array(torch: Any, tensor: Any, which: str) -> Float[np.ndarray, ...]:
    if not isinstance(tensor, torch.Tensor):
        raise UserError(f"{which} is a {type(tensor).__name__}, but it must be a tensor.")
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise UserError(f"{which} is not an ordinary dense tensor.")
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise UserError(f"{which} has dtype {tensor.dtype}, but it must be float32, float16 or bfloat16.")
    # A view of one number can claim any shape, and would be given it as memory.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(f"{which} has shape {tuple(tensor.shape)}, but too few numbers for it.")
    return tensor.detach().to(torch.float32).contiguous().numpy()
