"""An autoencoder that is small enough for tests: random weights, latents of half the size."""

import functools

from kind_jax.vae import VaeConfig, init, save_vae

CONFIG = VaeConfig(block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, latent_channels=4)


@functools.cache
def weights(seed=0):
    return init(CONFIG, seed)


def save(folder, seed=0):
    """Write it as diffusers does, and return the folder."""
    save_vae(CONFIG, weights(seed), folder)
    return folder
