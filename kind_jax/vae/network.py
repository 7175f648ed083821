"""The autoencoder of Latent Diffusion (Rombach et al., 2022), the one in Stable Diffusion, layer by layer as diffusers'
AutoencoderKL. B: images, H, W: pixels, h, w: H / factor, W / factor, C, c: channels of images and latents.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from kind_jax.nn.init import Initializer
from kind_jax.vae.config import VaeConfig
from kind_jax.vae.layers import Conv, GroupNorm, MidBlock, Numbered, ResnetBlock


class DownBlock(nnx.Module):
    """Residual blocks, and a convolution that halves the size unless it is the last level."""

    def __init__(self, d_in: int, d_out: int, layers: int, groups: int, *, last: bool, init: Initializer) -> None:
        widths = [d_in] + [d_out] * (layers - 1)
        self.resnets = Numbered([ResnetBlock(width, d_out, groups, init=init) for width in widths])
        self.downsample = None if last else Conv(d_out, d_out, halve=True, init=init)

    def __call__(self, x: Float[Array, "B H W d_in"]) -> Float[Array, "B h w d_out"]:
        x = self.resnets(x)
        return x if self.downsample is None else self.downsample(x)


class UpBlock(nnx.Module):
    """Residual blocks, and pixels repeated and convolved unless it is the last level."""

    def __init__(self, d_in: int, d_out: int, layers: int, groups: int, *, last: bool, init: Initializer) -> None:
        widths = [d_in] + [d_out] * (layers - 1)
        self.resnets = Numbered([ResnetBlock(width, d_out, groups, init=init) for width in widths])
        self.upsample = None if last else Conv(d_out, d_out, init=init)

    def __call__(self, x: Float[Array, "B h w d_in"]) -> Float[Array, "B H W d_out"]:
        x = self.resnets(x)
        if self.upsample is None:
            return x
        B, h, w, C = x.shape
        x = jnp.broadcast_to(x[:, :, None, :, None, :], (B, h, 2, w, 2, C)).reshape(B, 2 * h, 2 * w, C)
        return self.upsample(x)


class Encoder(nnx.Module):
    """Images to mean and log-variance, as channels in this order."""

    def __init__(self, config: VaeConfig, *, init: Initializer) -> None:
        widths, groups, layers = config.block_out_channels, config.norm_num_groups, config.layers_per_block
        self.conv_in = Conv(config.in_channels, widths[0], init=init)
        sizes = zip((widths[0], *widths), widths, strict=False)
        self.down_blocks = Numbered(
            [DownBlock(*s, layers, groups, last=i == len(widths) - 1, init=init) for i, s in enumerate(sizes)]
        )
        self.mid_block = MidBlock(widths[-1], groups, attention=config.mid_block_add_attention, init=init)
        self.conv_norm_out = GroupNorm(widths[-1], groups, init=init)
        self.conv_out = Conv(widths[-1], 2 * config.latent_channels, init=init)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        x = self.mid_block(self.down_blocks(self.conv_in(x)))
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class Decoder(nnx.Module):
    """Latents to images."""

    def __init__(self, config: VaeConfig, *, init: Initializer) -> None:
        widths, groups, layers = config.block_out_channels[::-1], config.norm_num_groups, config.layers_per_block + 1
        self.conv_in = Conv(config.latent_channels, widths[0], init=init)
        self.mid_block = MidBlock(widths[0], groups, attention=config.mid_block_add_attention, init=init)
        sizes = zip((widths[0], *widths), widths, strict=False)
        self.up_blocks = Numbered(
            [UpBlock(*s, layers, groups, last=i == len(widths) - 1, init=init) for i, s in enumerate(sizes)]
        )
        self.conv_norm_out = GroupNorm(widths[-1], groups, init=init)
        self.conv_out = Conv(widths[-1], config.out_channels, init=init)

    def __call__(self, x: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        x = self.up_blocks(self.mid_block(self.conv_in(x)))
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class Autoencoder(nnx.Module):
    """Encoder and decoder with the 1x1 convolutions between them and the latents."""

    def __init__(self, config: VaeConfig, *, init: Initializer) -> None:
        c = config.latent_channels
        self.encoder = Encoder(config, init=init)
        self.decoder = Decoder(config, init=init)
        self.quant_conv = Conv(2 * c, 2 * c, 1, init=init) if config.use_quant_conv else None
        self.post_quant_conv = Conv(c, c, 1, init=init) if config.use_post_quant_conv else None

    def encode(self, images: Float[Array, "B H W C"]) -> Float[Array, "B h w c"]:
        moments = self.encoder(images)
        return moments if self.quant_conv is None else self.quant_conv(moments)

    def decode(self, latents: Float[Array, "B h w c"]) -> Float[Array, "B H W C"]:
        return self.decoder(latents if self.post_quant_conv is None else self.post_quant_conv(latents))
