"""config.json of diffusers' DiTTransformer2DModel: what it says about a model, and what there is to say about ours.

Two things in which diffusers computes something else than the official code with the same weights, and which
``ModelConfig`` therefore has settings for: its time frequencies (CombinedTimestepLabelEmbeddings has a
downscale_freq_shift of 1, which is no setting there), and the epsilon of the norm before the MLP (norm_eps).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kind_jax.config import Config, FactorConfig, ModelConfig, TimeFrequencies
from kind_jax.errors import UserError
from kind_jax.untrusted.text import printable

CLASS = "DiTTransformer2DModel"
_CLASSES = (CLASS, "Transformer2DModel")  # the second is what its first versions were called

CONFIG, MARKER, README, PIPELINE = "config.json", "kind_jax.json", "README.md", "model_index.json"

_FIXED: dict[str, Any] = {
    "norm_type": "ada_norm_zero",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
    "dropout": 0.0,
}
_SIZES = (
    "num_attention_heads", "attention_head_dim", "in_channels", "num_layers", "sample_size", "patch_size",
    "num_embeds_ada_norm",
)  # fmt: skip
_OPTIONAL = ("out_channels", "norm_eps")
_SILENT = ("norm_num_groups", "upcast_attention")  # without effect on a DiT in float32
_HARMLESS = (None, False, "default")  # values of settings of related models that leave a DiT as it is


def model_config(found: Any, origin: object, frequencies: TimeFrequencies) -> ModelConfig:
    """The model that a config.json describes.

    Raises:
      UserError: it is of another class, lacks a setting, or has one that our model cannot follow.
    """
    if not isinstance(found, dict) or found.get("_class_name") not in _CLASSES:
        name = printable(found.get("_class_name"), 60) if isinstance(found, dict) else "none"
        raise UserError(f"{origin} is of the class {name}, but it must be a {CLASS}.")
    for name, wanted in _FIXED.items():
        if name not in found or not _same(found[name], wanted):
            raise UserError(f"{origin}: {name} is {_show(found, name)}, but it must be {wanted!r} for a DiT.")
    known = (*_FIXED, *_SIZES, *_OPTIONAL, *_SILENT)
    for name, value in found.items():
        if not (name.startswith("_") or name in known or any(value is h or value == h for h in _HARMLESS)):
            raise UserError(f"{origin}: {printable(name, 60)} is {_show(found, name)}, which a DiT has no setting for.")
    size = {name: _whole(found, name, origin) for name in _SIZES}
    channels = size["in_channels"]
    out = channels if found.get("out_channels") is None else _whole(found, "out_channels", origin)
    if out not in (channels, 2 * channels):
        raise UserError(
            f"{origin}: out_channels is {out}, but it must be {channels} or, with a variance, {2 * channels}."
        )
    eps = found.get("norm_eps", 1e-5)
    if type(eps) not in (int, float):
        raise UserError(f"{origin}: norm_eps is {_show(found, 'norm_eps')}, but it must be a number.")
    return ModelConfig(
        size=size["sample_size"], channels=channels, patch=size["patch_size"],
        width=size["num_attention_heads"] * size["attention_head_dim"], depth=size["num_layers"],
        heads=size["num_attention_heads"], mlp_ratio=4.0, num_classes=size["num_embeds_ada_norm"],
        learn_sigma=out != channels, time_frequencies=frequencies, mlp_norm_eps=float(eps),
        factor=FactorConfig(projections=()),
    )  # fmt: skip


def config_json(config: ModelConfig, version: str) -> str:
    """The config.json of a dense model.

    Raises:
      UserError: its MLP is not four times as wide as the model, which diffusers has no setting for.
    """
    if config.projection_sizes["mlp_in"][1] != 4 * config.width:
        raise UserError(f"model.mlp_ratio is {config.mlp_ratio}, but it must be 4 for diffusers, which has no other.")
    settings = {
        "_class_name": CLASS,
        "_diffusers_version": version,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "in_channels": config.channels,
        "out_channels": config.out_channels,
        "num_layers": config.depth,
        "norm_num_groups": 32,
        "sample_size": config.size,
        "patch_size": config.patch,
        "num_embeds_ada_norm": config.num_classes,
        "upcast_attention": False,
        "norm_eps": config.mlp_norm_eps,
    }
    return json.dumps(settings | _FIXED, indent=2) + "\n"


def readme(config: Config, off: float) -> str:
    """What a reader of the folder must know.

    Args:
      off: largest difference of the outputs without the line that sets DiT's frequencies, relative to the largest one.
    """
    model, diffusion = config.model, config.diffusion
    predicts = "the clean image" if diffusion.prediction == "clean" else "the velocity"
    process = (
        f"It was trained with rectified flow and predicts {predicts}; the times that it is given are 1000 times "
        "those in (0, 1)."
    )
    if diffusion.process == "gaussian":
        schedule = f"{diffusion.schedule} schedule of {diffusion.train_steps} steps"
        process = f"It predicts {diffusion.prediction} for the {schedule}."
    load = ["from diffusers import DiTTransformer2DModel", "", f'model = {CLASS}.from_pretrained("this folder")']
    about = [
        f"# {CLASS}",
        "",
        f"A diffusion transformer on {model.size} x {model.size} x {model.channels} inputs with {model.num_classes} "
        f"classes; label {model.num_classes} is the null class of classifier-free guidance. {process}",
        "",
    ]
    if model.time_frequencies == "dit":
        load.append("for b in model.transformer_blocks: b.norm1.emb.time_proj.downscale_freq_shift = 0")
        about += [
            "The model was trained with the time frequencies of the official DiT. diffusers spaces them a little "
            "differently and has no setting for it, so the last line is needed:",
            "",
        ]
    about += ["```python", *load, "```", ""]
    if model.time_frequencies == "dit":
        about += [f"Without it, outputs on noise were off by up to {off:.1e} of the largest output.", ""]
    return "\n".join(about)


def labels(found: Any, classes: int) -> tuple[str, ...] | None:
    """The class names in a pipeline's model_index.json, if it names all of them."""
    names = found.get("id2label") if isinstance(found, dict) else None
    if not isinstance(names, dict) or set(names) != {str(c) for c in range(classes)}:
        return None
    found_names = tuple(names[str(c)] for c in range(classes))
    return found_names if all(isinstance(name, str) for name in found_names) else None


def _same(value: Any, wanted: Any) -> bool:
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _show(found: Mapping[str, Any], name: str) -> str:
    return printable(repr(found[name]), 60) if name in found else "absent"


def _whole(found: Mapping[str, Any], name: str, origin: object) -> int:
    value = found.get(name)
    if type(value) is not int or not 1 <= value < 2**31:
        raise UserError(f"{origin}: {name} is {_show(found, name)}, but it must be a positive whole number.")
    return value
