"""Whether a classifier fits its data."""

from __future__ import annotations

from kind_jax.classifying.config import ClassifyRun
from kind_jax.config.check import refuse
from kind_jax.data.sets import Dataset


def check_data(config: ClassifyRun, dataset: Dataset) -> list[str]:
    """Refuse a network that is not made for the images or the classes of a data set.

    Returns:
      Warnings.

    Raises:
      UserError: naming all settings that do not fit, and options that would.
    """
    settings, problems, fitting = config.model, [], {}
    source = f"data.source {config.data.source!r}"
    shape = (settings.size, settings.size, settings.channels)
    if dataset.image_shape != shape:
        problems.append(
            f"model.size and model.channels are for images {shape}, but {source} has {dataset.image_shape}."
        )
        fitting |= {"size": dataset.image_shape[0], "channels": dataset.image_shape[-1]}
    if settings.num_classes != len(dataset.class_names):
        problems.append(f"model.num_classes is {settings.num_classes}, but {source} has {len(dataset.class_names)}.")
        fitting["num_classes"] = len(dataset.class_names)
    if fitting:
        options = " ".join(f"--model.{name.replace('_', '-')} {value}" for name, value in fitting.items())
        problems.append(f"{options} would fit the data.")
    if len(dataset.class_names) < 2:
        problems.append(f"{source} has one class, but a classifier needs two or more.")
    refuse(problems)
    if config.holdout == "test":
        return [
            "held-out accuracy is measured on the test split, and the best weights are chosen by it: data.validation "
            "keeps the test split for the end"
        ]
    return []
