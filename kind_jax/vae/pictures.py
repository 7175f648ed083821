"""Which autoencoder turns a model's samples into pictures, and whether it fits."""

from __future__ import annotations

from pathlib import Path

from kind_jax.config import Config
from kind_jax.data.latent_files import Autoencoder
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


def check(config: Config, made_by: Autoencoder | None = None) -> None:
    """Refuse a ``data.vae`` that grids of samples cannot be decoded with, without reading its weights.

    Args:
      made_by: what is known about the autoencoder that made the latents. Another decoder may be of use, since
        fine-tuned ones share an encoder, but not one of another scale.

    Raises:
      UserError: as :func:`choose`, or its folder is missing.
    """
    if config.data.vae is None:
        return
    vae = look_vae(config.data.vae)
    _check(vae, config, "data.vae", config.data.vae)
    if made_by is None:
        return
    found, wanted = (vae.scaling_factor, vae.shift_factor or 0.0), (made_by.scaling_factor, made_by.shift_factor)
    if found != wanted:
        raise UserError(
            f"data.vae is {config.data.vae!r} with scaling_factor {found[0]} and shift_factor {found[1]}, but the "
            f"latents in {config.data.path!r} were made with {wanted[0]} and {wanted[1]}."
        )


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
    if vae.out_channels not in (1, 3):
        raise UserError(
            f"{setting} is {str(folder)!r} with images of {vae.out_channels} channels, but pictures have 1 or 3."
        )
