"""The settings that a transfer begins with, which follow from its source's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from kind_jax.config import Config, DataConfig, TransferConfig
from kind_jax.config.check import check_path, is_whole, require
from kind_jax.data.own import OwnData, as_config
from kind_jax.deploy.bundle import Bundle, check_bundle
from kind_jax.transferring import whole


def transfer_config(
    source: Bundle | str | Path,
    data: DataConfig | OwnData | None = None,
    *,
    method: str | None = None,
    steps: int | None = None,
) -> Config:
    """The source's settings, completed for other data: the config that :func:`kind_jax.transfer` takes.

    Args:
      source: a bundle, or the path of a run or an artifact.
      data: what is trained on; None is the source's own data set.
      method: of ``config.TransferConfig``; None is ``kind`` (fresh tailors on frozen learngenes), or ``full`` for a
        model whose weights are not factored.
      steps: of training; None is the source's number.

    Raises:
      UserError: there is no such model, the data cannot be opened, or a setting that does not fit.
    """
    if not isinstance(source, Bundle):
        path = check_path(source, "source", "a bundle, or the path of a run or an artifact")
        config = begun(whole.settings_of(path, Config, "the source"))
    else:
        check_bundle(source, "source")
        config = begun(source.config)
    if method is not None:
        require(isinstance(method, str), "method", method, "the name of a method, like kind")
        config = dataclasses.replace(config, transfer=dataclasses.replace(config.transfer, method=method))  # pyright: ignore[reportArgumentType]
    if steps is not None:
        require(is_whole(steps), "steps", steps, "a whole number")
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))
    if isinstance(data, OwnData):
        config = dataclasses.replace(config, data=as_config(config.data, data.train))
        return with_classes(config, len(data.train.class_names))
    require(data is None or isinstance(data, DataConfig), "data", data, "a DataConfig, what records() gives, or None")
    if data is not None:
        config = dataclasses.replace(config, data=data)
    return with_classes(config)


def begun(old: Config) -> Config:
    """``old`` as the start of a transfer: whole, nothing frozen, its real data, and the customary method."""
    # Synthetic images were drawn for the source's classes: a transfer names its own.
    data = dataclasses.replace(old.data, mix=None, mix_ratio=1.0)
    # What is frozen follows from the method.
    optimizer = dataclasses.replace(old.optimizer.thawed, warmup=0)
    return with_method(dataclasses.replace(old, data=data, transfer=TransferConfig(), optimizer=optimizer))


def with_method(config: Config) -> Config:
    """``config`` with the customary method where it has none."""
    if config.transfer.method != "none":
        return config
    method = "kind" if config.model.factor.projections else "full"
    return dataclasses.replace(config, transfer=dataclasses.replace(config.transfer, method=method))


def of_other_source(config: Config) -> Config:
    """``config`` without what its data say of the data set before, and of its latents."""
    data = dataclasses.replace(
        config.data, classes=None, protocol=None, name=None, latent_scale=None, fraction=1.0
    )  # fmt: skip
    return dataclasses.replace(config, data=data)


def with_classes(config: Config, classes: int | None = None) -> Config:
    """``config`` whose model has as many classes as the data; None opens these, to count them."""
    if classes is None:
        from kind_jax.data.dataset import open_dataset

        classes = len(open_dataset(config.data, "train").class_names)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, num_classes=classes, groups=None))
