"""Settings of a model that follow from its data, where a command line chooses other data than its config did."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from kind_jax.commands.console import option
from kind_jax.config import RunConfig

_CHOOSE = ("source", "path", "name", "classes", "protocol", "size", "channels")


def fitted(config: RunConfig, args: Sequence[str]) -> RunConfig:
    """``config`` whose model has the classes and the images of data that ``args`` choose.

    A setting of the model that ``args`` give stays as it is. What is changed is said.

    Raises:
      UserError: the data cannot be opened, or the model cannot have such images.
    """
    if all(option(args, f"--data.{name}") is None for name in _CHOOSE):
        return config
    from kind_jax.data.dataset import open_dataset

    model = getattr(config, "model", None)
    wanted = {name for name in ("num_classes", "size", "channels") if hasattr(model, name)}
    wanted = {name for name in wanted if option(args, f"--model.{name.replace('_', '-')}") is None}
    if not wanted:
        return config
    dataset = open_dataset(config.data, "train")
    height, _, channels = dataset.image_shape
    found = {"num_classes": len(dataset.class_names), "size": height, "channels": channels}
    # A model of no classes tells images apart in words.
    other: dict[str, Any] = {
        n: found[n] for n in sorted(wanted) if getattr(model, n) not in (found[n], *((0,) if "num" in n else ()))
    }
    if not other:
        return config
    said = ", ".join(f"model.{name} is {value} ({getattr(model, name)} before)" for name, value in other.items())
    print(f"note: the data decide: {said}")
    if "num_classes" in other and getattr(model, "groups", None) is not None:
        other["groups"] = None
    return dataclasses.replace(config, model=dataclasses.replace(model, **other))  # pyright: ignore[reportCallIssue,reportArgumentType]
