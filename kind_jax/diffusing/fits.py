"""Whether a diffusion model fits its data."""

from __future__ import annotations

import dataclasses

from kind_jax.config import Config
from kind_jax.config.check import refuse
from kind_jax.data.sets import Dataset
from kind_jax.errors import UserError


def check_data(config: Config, dataset: Dataset) -> None:
    """Refuse a model that is not made for the images or the classes of a data set.

    Raises:
      UserError: naming all settings that do not fit, what the model has and what the data set has, and the options that
        would make the model fit.
    """
    problems: list[str] = []
    fitting: dict[str, int] = {}
    shape = (config.model.size, config.model.size, config.model.channels)
    source = f"data.source {config.data.source!r}"
    if dataset.image_shape != shape:
        files = " (data.size and data.channels)"
        how = {"folder": files, "tfds": files, "emoji": " (data.size)"}.get(config.data.source, "")
        if dataset.latents is not None:
            how = f", latents of images {dataset.latents.image_shape}"
        problems.append(
            f"model.size and model.channels make images {shape}, but {source} has {dataset.image_shape}{how}."
        )
        fitting |= {"size": dataset.image_shape[0], "channels": dataset.image_shape[-1]}
    settings = config.model
    if settings.num_classes > 1 and not (
        settings.label_embedding or any(form.tailors for form in settings.forms.values())
    ):
        problems.append(
            "model.label_embedding is False, but it must be True where no weight has tailors: nothing would tell the "
            f"model which of its {settings.num_classes} classes to draw."
        )
    if config.model.num_classes != len(dataset.class_names):
        settings = (("data.protocol", config.data.protocol), ("data.classes", config.data.classes))
        given = [f"{name} {value!r:.60}" for name, value in settings if value is not None]
        chosen = f" with {' and '.join(given)}" if given else ""
        problems.append(
            f"model.num_classes is {config.model.num_classes}, but {source}{chosen} has "
            f"{len(dataset.class_names)} classes."
        )
        fitting["num_classes"] = len(dataset.class_names)
    if fitting:
        options = " ".join(f"--model.{name.replace('_', '-')} {value}" for name, value in fitting.items())
        problems.append(f"{options} would fit the data.")
    refuse(problems)


def check_guidance(config: Config) -> list[str]:
    """Refuse Model Guidance of a model whose null class is each sample's own.

    Returns:
      A warning where samples would be guided a second time.

    Raises:
      UserError: naming the setting.
    """
    if not config.guidance.on:
        return []
    settings = config.model
    tailored = settings.null_gate != "keep" and any(form.tailors for form in settings.forms.values())
    if not (settings.label_embedding or tailored):
        raise UserError(
            f"guidance.scale is {config.guidance.scale}, but it must be 1 (off): without model.label_embedding and "
            f"with model.null_gate {settings.null_gate!r}, the null class is no other than a sample's own."
        )
    if config.sampler.guidance == 1:
        return []
    return [
        f"warning: guidance.scale is {config.guidance.scale}, so training guides already, and sampler.guidance "
        f"{config.sampler.guidance:g} guides its samples a second time; 1 draws them as Model Guidance does."
    ]


def with_scale(config: Config, dataset: Dataset) -> Config:
    """``config`` that knows the scale of its latents.

    Raises:
      UserError: it names another one.
    """
    made_by = None if dataset.latents is None else dataset.latents.vae
    scale = None if made_by is None else (made_by.scaling_factor, made_by.shift_factor)
    if config.data.latent_scale not in (None, scale):
        raise UserError(f"data.latent_scale is {config.data.latent_scale}, but that of the data set is {scale}.")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, latent_scale=scale))
