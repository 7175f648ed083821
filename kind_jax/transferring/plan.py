"""What a transfer trains: the target's config, completed and checked against the source's."""

from __future__ import annotations

import dataclasses

from kind_jax import adapters
from kind_jax.config import CollectionConfig, Config
from kind_jax.config.roles import TRANSFER, compare
from kind_jax.errors import UserError


def plan(config: Config, source: Config, fingerprint: str) -> Config:
    """``config`` with the freeze switches of its method, ready for the trainer.

    Args:
      config: of the target; its ``optimizer`` keeps rates and decays.
      source: of the model that it starts from.
      fingerprint: of the source's weights.

    Raises:
      UserError: the method is ``none``, or a setting of the model differs from the source's.
    """
    method = config.transfer.method
    if method == "none":
        raise UserError("transfer.method is 'none', but a transfer needs a method, like 'kind'.")
    _check_agrees(config, source)
    if method == "kind" and not config.model.factor.projections:
        raise UserError(
            "transfer.method is 'kind', but the source has no factored weights; use 'lora' or 'full', or train a "
            "source with model.factor.projections."
        )
    if method in adapters.METHODS and config.model.factor.projections:
        raise UserError(
            f"transfer.method is {method!r}, but it adapts dense kernels and the source is factored; use 'kind', or "
            "compose the source with --form dense first."
        )
    return dataclasses.replace(
        config,
        transfer=dataclasses.replace(config.transfer, source=fingerprint),
        optimizer=dataclasses.replace(config.optimizer, **_freeze(config)),
    )


def _freeze(config: Config) -> dict[str, CollectionConfig]:
    """The switches of each collection; a method that trains everything changes none."""
    method, optimizer = config.transfer.method, config.optimizer
    if method in ("full", "layers"):
        return {}
    rows = ("label_embed",) if config.model.label_embedding else ()
    thawed = tuple(dict.fromkeys((*rows, *config.transfer.thaw)))
    switches = {
        "learngenes": dataclasses.replace(optimizer.learngenes, freeze=True),
        "params": dataclasses.replace(optimizer.params, freeze=True, thaw=thawed),
    }
    if method in adapters.METHODS and (trained := adapters.trained(config.transfer)):
        switches["adapters"] = dataclasses.replace(optimizer.adapters, freeze=True, thaw=trained)
    return switches


def _check_agrees(config: Config, source: Config) -> None:
    for name, wanted, found in compare(source, config, TRANSFER):
        raise UserError(f"{name} is {found!r:.200}, but the source has {wanted!r:.200}, and its weights must fit.")
    if config.transfer.layers and max(config.transfer.layers) >= config.model.depth:
        raise UserError(
            f"transfer.layers is {config.transfer.layers}, but the source's blocks are 0 to {config.model.depth - 1}."
        )
