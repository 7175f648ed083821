"""The settings of an autoencoder, as diffusers' AutoencoderKL has them in its config.json."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pydantic

from kind_jax.config.check import STRICT, problem, require
from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable

# Far beyond any autoencoder, but no number that is damaged or hostile asks for what no machine has.
_MOST_LEVELS, _MOST_LAYERS, _MOST_CHANNELS, _MOST_SCALE = 8, 16, 8192, 1e6

_DOWN, _UP = "DownEncoderBlock2D", "UpDecoderBlock2D"
_ONE_VALUE = {"act_fn": ("silu", "swish"), "latents_mean": (None,), "latents_std": (None,)}
_NO_EFFECT = ("sample_size", "force_upcast")  # how diffusers cuts images into tiles, and casts weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class VaeConfig:
    """Architecture and scale of an AutoencoderKL; names and defaults are diffusers'.

    Attributes:
      in_channels, out_channels: of images.
      block_out_channels: width of each level, from full resolution down; all levels but the last halve it.
      layers_per_block: residual blocks of a level of the encoder; the decoder has one more.
      latent_channels: of latents; the encoder gives mean and log-variance of each.
      norm_num_groups: groups of every group normalisation.
      scaling_factor, shift_factor: a model's latents are (z - shift) * scale of the autoencoder's z.
      use_quant_conv, use_post_quant_conv: whether a 1x1 convolution follows the encoder, and precedes the decoder.
      mid_block_add_attention: whether the lowest level has attention.
    """

    __pydantic_config__ = STRICT

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    def __post_init__(self) -> None:
        for name, most in (
            ("in_channels", _MOST_CHANNELS), ("out_channels", _MOST_CHANNELS), ("latent_channels", _MOST_CHANNELS),
            ("layers_per_block", _MOST_LAYERS), ("norm_num_groups", _MOST_CHANNELS),
        ):  # fmt: skip
            value = getattr(self, name)
            require(1 <= value <= most, name, value, f"between 1 and {most}")
        widths, groups = self.block_out_channels, self.norm_num_groups
        require(1 <= len(widths) <= _MOST_LEVELS, "block_out_channels", widths, f"a list of 1 to {_MOST_LEVELS} widths")
        fits = all(1 <= n <= _MOST_CHANNELS and n % groups == 0 for n in widths)
        wanted = f"multiples of norm_num_groups, which is {groups}, and at most {_MOST_CHANNELS}"
        require(fits, "block_out_channels", widths, wanted)
        scale, shift = self.scaling_factor, self.shift_factor
        wanted = f"between {1 / _MOST_SCALE:g} and {_MOST_SCALE:g}"
        require(1 / _MOST_SCALE <= scale <= _MOST_SCALE, "scaling_factor", scale, wanted)
        possible = shift is None or (math.isfinite(shift) and abs(shift) <= _MOST_SCALE)
        require(possible, "shift_factor", shift, f"null, or at most {_MOST_SCALE:g} in size")

    @property
    def factor(self) -> int:
        """How many pixels a latent stands for along each side."""
        return 2 ** (len(self.block_out_channels) - 1)


_ADAPTER = pydantic.TypeAdapter(VaeConfig)
_OURS = tuple(field.name for field in dataclasses.fields(VaeConfig))


def from_document(found: Any, origin: object) -> VaeConfig:
    """The config that the JSON value of a diffusers config.json stands for.

    Raises:
      UserError: it is of another class, or a setting is unknown or has a value that cannot be represented; ``origin``
        and the setting are named.
    """
    if not isinstance(found, dict):
        raise UserError(f"{origin} is no config of a VAE: it is no JSON object.")
    kind = found.get("_class_name", "AutoencoderKL")
    if kind != "AutoencoderKL":
        raise UserError(f"{origin} has _class_name '{printable(kind, 60)}', but it must be 'AutoencoderKL'.")
    known = {*_OURS, *_ONE_VALUE, *_NO_EFFECT, "down_block_types", "up_block_types"}
    for name in found:
        if name not in known and not name.startswith("_"):
            raise UserError(f"{origin} has the setting '{printable(name, 60)}', which no AutoencoderKL has.")
    for name, values in _ONE_VALUE.items():
        if found.get(name, values[0]) not in values:
            value = printable(found[name], 60)
            raise UserError(f"{origin}: {name} is {value}, but it must be {json.dumps(values[0])}.")
    try:
        config = _ADAPTER.validate_json(json.dumps({name: found[name] for name in _OURS if name in found}))
    except pydantic.ValidationError as e:
        raise UserError(f"{origin}: {problem(e)}.") from e
    for name, kind in (("down_block_types", _DOWN), ("up_block_types", _UP)):
        kinds = found.get(name, [kind])
        if kinds != [kind] * len(config.block_out_channels):
            raise UserError(
                f"{origin}: {name} is {printable(kinds, 100)}, but it must be {kind!r} for each of the "
                f"{len(config.block_out_channels)} levels of block_out_channels."
            )
    return config


def to_document(config: VaeConfig) -> dict[str, Any]:
    """The config as the JSON value that diffusers reads."""
    levels = len(config.block_out_channels)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "down_block_types": [_DOWN] * levels,
        "up_block_types": [_UP] * levels,
        **_ADAPTER.dump_python(config, mode="json"),
    }
