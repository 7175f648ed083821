"""Autoencoders that diffusers makes are read, and ours are read by diffusers, with the same outputs."""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from kind_jax.vae import VaeConfig, decode, encode, init, load_vae, save_vae  # noqa: E402

SETTINGS = {"block_out_channels": (8, 16, 32, 32), "layers_per_block": 2, "norm_num_groups": 8}


def both(theirs, ours):
    """The largest differences in mean, log-variance and image."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (2, 32, 24, 3)).astype(np.float32)
    latents = rng.standard_normal((2, 4, 3, ours.config.latent_channels)).astype(np.float32)
    with torch.no_grad():
        posterior = theirs.encode(torch.from_numpy(images.transpose(0, 3, 1, 2))).latent_dist
        scale, shift = theirs.config.scaling_factor, theirs.config.shift_factor or 0.0
        z = torch.from_numpy(latents.transpose(0, 3, 1, 2)) / scale + shift
        wanted = [a.numpy().transpose(0, 2, 3, 1) for a in (posterior.mean, posterior.logvar, theirs.decode(z).sample)]
    found = [
        *encode(ours.config, ours.params, jnp.asarray(images)),
        decode(ours.config, ours.params, jnp.asarray(latents)),
    ]
    assert all(np.std(a) > 0.01 for a in wanted)
    return [float(np.abs(a - np.asarray(b)).max()) for a, b in zip(wanted, found, strict=True)]


def test_theirs_read_by_us(tmp_path):
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKL(
        **SETTINGS, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # norms begin as the identity, which says nothing
            parameter += 0.05 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path / "vae")
    assert max(both(theirs, load_vae(tmp_path / "vae"))) < 1e-4


@pytest.mark.parametrize(
    "newer",
    [{}, {
        "use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": False, "latent_channels": 16,
        "scaling_factor": 0.3611, "shift_factor": 0.1159,
    }],
    ids=["Stable Diffusion", "as in newer models"],
)  # fmt: skip
def test_ours_read_by_them(newer, tmp_path):
    config = VaeConfig(**SETTINGS, **newer)
    save_vae(config, init(config, 1), tmp_path / "vae")
    theirs = diffusers.AutoencoderKL.from_pretrained(tmp_path / "vae").eval()
    assert max(both(theirs, load_vae(tmp_path / "vae"))) < 1e-4
    theirs.save_pretrained(tmp_path / "back")
    assert load_vae(tmp_path / "back").fingerprint == load_vae(tmp_path / "vae").fingerprint
