"""Stable Diffusion's autoencoder: images to latents and back, with weights from a diffusers folder."""

from kind_jax.vae.config import VaeConfig
from kind_jax.vae.vae import Vae, decode, decode_in_batches, decoder, encode, init
from kind_jax.vae.weights import load_vae, look_vae, save_vae

__all__ = [
    "Vae",
    "VaeConfig",
    "decode",
    "decode_in_batches",
    "decoder",
    "encode",
    "init",
    "load_vae",
    "look_vae",
    "save_vae",
]
