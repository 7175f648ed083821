"""Autoencoders on disk, in diffusers' form: config.json and diffusion_pytorch_model.safetensors.

Anybody may have written them: what the config asks for is compared with the header of the weights before any array is
made, and nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from kind_jax import partition
from kind_jax.errors import UserError
from kind_jax.files import atomic_directory
from kind_jax.untrusted import documents, tensors
from kind_jax.untrusted.text import printable
from kind_jax.vae.config import VaeConfig, from_document, to_document
from kind_jax.vae.vae import Vae, definition, fingerprint

CONFIG = "config.json"
STEM = "diffusion_pytorch_model"
WEIGHTS, HALF = f"{STEM}.safetensors", f"{STEM}.fp16.safetensors"

_DTYPES = ("float32", "float16", "bfloat16")
_PARTS = {
    "/downsample/": "/downsamplers/0/conv/", "/upsample/": "/upsamplers/0/conv/",
    "/attention/norm/": "/attentions/0/group_norm/", "/attention/out/": "/attentions/0/to_out/0/",
    **{f"/attention/{x}/": f"/attentions/0/to_{x}/" for x in "qkv"},
}  # fmt: skip
# Before diffusers 0.12, attention of autoencoders had other names; its files are still about.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(r"(?<=\.attentions\.0\.)(query|key|value|proj_attn)(?=\.(weight|bias)\Z)")


def load_vae(folder: str | Path) -> Vae:
    """Read an autoencoder from a diffusers folder of it, or of a pipeline that has it in ``vae``.

    Weights in float16 and bfloat16 become float32.

    Raises:
      UserError: the folder, a file, a setting or an array is missing, unknown, damaged or not finite; it is named.
    """
    home, config, path = _open(folder)
    kept = tensors.read(path, lambda header: _check(header, config, path))
    found = {_current(name): array for name, array in kept.items()}
    leaves = {}
    for name, leaf in partition.flatten(definition(config)[1]).items():
        array = found[_theirs(name)].astype(np.float32)
        if not np.isfinite(array).all():
            raise UserError(f"{path} is damaged: its array '{_theirs(name)}' holds values that are not finite.")
        ours = _transposed(array.reshape(array.shape[: len(leaf.shape)]), inverse=True)
        leaves[name] = np.ascontiguousarray(ours)
    params = partition.unflatten(leaves)
    return Vae(config=config, params=params, fingerprint=fingerprint(config, params), origin=home)


def look_vae(folder: str | Path) -> VaeConfig:
    """The config of an autoencoder that :func:`load_vae` would read; of its weights only the header is read.

    Raises:
      UserError: as :func:`load_vae`, but for values that are not finite.
    """
    _, config, path = _open(folder)
    _check(tensors.look(path), config, path)
    return config


def save_vae(config: VaeConfig, params: Mapping[str, Any], folder: str | Path, *, replace: bool = False) -> None:
    """Write an autoencoder as a folder that diffusers' ``AutoencoderKL.from_pretrained`` loads, all of it or nothing.

    Raises:
      UserError: the parameters are not those of the config, the folder exists and is not an autoencoder to be replaced,
        or it cannot be written.
    """
    partition.check_like(params, definition(config)[1], "the VAE to be saved")
    if replace and os.path.lexists(folder):
        _refuse_to_replace(Path(folder))
    arrays = {
        _theirs(name): np.ascontiguousarray(_transposed(np.asarray(leaf)))
        for name, leaf in partition.flatten(params).items()
    }
    with atomic_directory(folder, replace=replace) as temporary:
        (temporary / CONFIG).write_text(json.dumps(to_document(config), indent=2) + "\n")
        (temporary / WEIGHTS).write_bytes(safetensors.numpy.save(arrays, {"format": "pt"}))


def _refuse_to_replace(folder: Path) -> None:
    look_vae(folder)
    extra = sorted({p.name for p in folder.iterdir()} - {CONFIG, WEIGHTS})
    if extra:
        raise UserError(f"{folder} holds '{printable(extra[0])}' beside its VAE, so it is not replaced.")


def _open(folder: str | Path) -> tuple[Path, VaeConfig, Path]:
    """The folder of the autoencoder itself, its config, and the file of its weights."""
    folder = Path(folder)
    home = next((f for f in (folder, folder / "vae") if os.path.lexists(f / CONFIG)), None)
    if home is None:
        raise UserError(f"{str(folder)!r} is no folder of a VAE: neither it nor its vae/ holds a {CONFIG}.")
    config = from_document(documents.read(home / CONFIG, 1 << 20), home / CONFIG)
    path = next((home / name for name in (WEIGHTS, HALF) if os.path.lexists(home / name)), None)
    if path is None and os.path.lexists(home / f"{STEM}.bin"):
        raise UserError(
            f"{home / f'{STEM}.bin'} is a pickle, which could run code, but the weights must be in {WEIGHTS}; "
            f"diffusers writes it: AutoencoderKL.from_pretrained({str(home)!r}).save_pretrained(OUT)."
        )
    return home, config, path or home / WEIGHTS


def _theirs(name: str) -> str:
    """Our path of an array in diffusers' words."""
    for ours, theirs in _PARTS.items():
        name = name.replace(ours, theirs)
    head, _, leaf = name.replace("/", ".").rpartition(".")
    return f"{head}.{'bias' if leaf == 'bias' else 'weight'}"


def _current(name: str) -> str:
    return _OLD_NAME.sub(lambda match: _OLD[match[1]], name)


def _transposed(array: np.ndarray, *, inverse: bool = False) -> np.ndarray:
    """HWIO to PyTorch's OIHW and [in, out] to [out, in], or back; vectors as they are."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0) if inverse else array.transpose(3, 2, 0, 1)
    return array.T


def _check(header: tensors.Header, config: VaeConfig, path: Path) -> None:
    """Refuse a file that does not hold exactly the arrays of the config."""
    wanted = {_theirs(name): leaf.shape for name, leaf in partition.flatten(definition(config)[1]).items()}
    found = {}
    for name, info in header.arrays.items():
        if _current(name) in found:
            raise UserError(f"{path} holds '{printable(_current(name))}' twice, under an old name too.")
        found[_current(name)] = info
    for name, ours in wanted.items():
        shape = _shape(ours)
        if name not in found:
            raise UserError(f"{path} lacks the array '{name}' of shape {list(shape)}, which its {CONFIG} asks for.")
        info = found[name]
        # An attention's product may be kept as a 1x1 convolution, as in the files of Latent Diffusion.
        if info.shape != shape and not (len(shape) == 2 and info.shape == (*shape, 1, 1)):
            raise UserError(
                f"{path}: '{name}' has shape {printable(list(info.shape), 60)}, but its {CONFIG} asks for "
                f"{list(shape)}."
            )
        if info.dtype not in _DTYPES:
            raise UserError(f"{path}: '{name}' has dtype {info.dtype}, but it must be one of {', '.join(_DTYPES)}.")
    for name in found:
        if name not in wanted:
            raise UserError(f"{path} holds the array '{printable(name)}', which its {CONFIG} does not ask for.")


def _shape(ours: tuple[int, ...]) -> tuple[int, ...]:
    if len(ours) == 4:
        height, width, d_in, d_out = ours
        return d_out, d_in, height, width
    return ours[::-1]
