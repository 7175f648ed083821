"""Which autoencoder turns a model's samples into pictures, and whether it fits."""

from __future__ import annotations

from pathlib import Path

from kind_jax.config import Config
from kind_jax.errors import UserError
from kind_jax.vae.config import VaeConfig
from kind_jax.vae.vae import Vae
from kind_jax.vae.weights import load_vae, look_vae


def choose(given: Path | None, config: Config) -> Vae | None:
    """The autoencoder of ``--vae``; else that of the run's config if its folder is here; else None.

    Raises:
      UserError: it cannot be read, or its latents are not the model's.
    """
    if given is not None:
        return _fitting(given, config, "--vae")
    own = config.data.vae
    return _fitting(Path(own), config, "data.vae") if own is not None and Path(own).is_dir() else None


def check(config: Config) -> None:
    """Refuse a ``data.vae`` that grids of samples cannot be decoded with, without reading its weights.

    Raises:
      UserError: as :func:`choose`, or its folder is missing.
    """
    if config.data.vae is not None:
        _check(look_vae(config.data.vae), config, "data.vae", config.data.vae)


def _fitting(folder: Path, config: Config, setting: str) -> Vae:
    _check(look_vae(folder), config, setting, folder)  # before hundreds of megabytes are read
    return load_vae(folder)


def _check(vae: VaeConfig, config: Config, setting: str, folder: object) -> None:
    have, want = vae.latent_channels, config.model.channels
    if have != want:
        raise UserError(
            f"{setting} is {str(folder)!r} with latents of {have} channels, but they must be the {want} that the model "
            "draws."
        )
    # Another decoder may be of use, since fine-tuned ones share an encoder, but not one of another scale.
    found, scale = (vae.scaling_factor, vae.shift_factor or 0.0), config.data.latent_scale
    if scale is not None and found != scale:
        raise UserError(
            f"{setting} is {str(folder)!r} with scaling_factor {found[0]} and shift_factor {found[1]}, but the "
            f"model was trained on latents that were made with {scale[0]} and {scale[1]}."
        )
    if vae.out_channels not in (1, 3):
        raise UserError(
            f"{setting} is {str(folder)!r} with images of {vae.out_channels} channels, but pictures have 1 or 3."
        )
