"""A model in hand: weights with everything needed to use them, whether they come from a run or an artifact."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from kind_jax import adapters, model, partition, sampling
from kind_jax.config import Config, SamplerConfig
from kind_jax.deploy import artifact
from kind_jax.deploy.record import Composition
from kind_jax.errors import UserError
from kind_jax.nn.gate import ClassGate, Gate
from kind_jax.train import checkpoint
from kind_jax.train.run import load_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
    """Collections and their meaning.

    Attributes:
      config: the config that they were trained with.
      collections: learngenes, params, and the tailors of ``groups``, a bank row for each.
      groups: the groups aboard, in the order of the bank.
      class_names: name of every class that the model was trained on.
      weights: ``ema`` or ``raw``.
      step: training step that the weights come from.
      origin: where they were read from.
      composition: how the model was composed, if it was.
    """

    config: Config
    collections: partition.Collections
    groups: tuple[int, ...]
    class_names: tuple[str, ...]
    weights: checkpoint.Weights
    step: int
    origin: Path
    composition: Composition | None = None

    @property
    def gates(self) -> ClassGate:
        """Class labels to gates over the groups aboard."""
        return model.class_gate(self.config.model, self.groups)

    def sample(
        self,
        labels: Int[np.ndarray, " N"],
        *,
        seed: int,
        sampler: SamplerConfig | None = None,
        gate: Gate | None = None,
    ) -> Float[np.ndarray, "N H W C"]:
        """One image for each label, with the label's own tailors unless ``gate`` says other.

        Raises:
          UserError: a class that the model does not know, or whose tailors are not aboard; a gate for tailors that were
            folded into the weights; guidance for a model that has no unconditional branch.
        """
        self.gates.check(tuple(int(c) for c in np.unique(labels)))
        gated = bool(self.collections[partition.TAILORS])
        guidance = (sampler or self.config.sampler).guidance
        if not gated and not self.config.model.label_embedding and guidance != 1.0:
            raise UserError(
                f"sampler.guidance is {guidance}, but it must be 1: the model has neither gated tailors nor a label "
                "embedding, so it has no unconditional branch."
            )
        if gate is not None and not gated and self.composition is not None:
            raise UserError("a gate was given, but the tailors are folded into the weights and cannot be gated.")
        if gate is not None and not bool(jnp.all((gate.index >= 0) & (gate.index < max(len(self.groups), 1)))):
            raise UserError(f"the gate names rows beyond the {len(self.groups)} groups that are aboard.")
        rows = jnp.asarray(labels, jnp.int32)
        return sampling.draw(
            self.config,
            self.collections,
            labels,
            self.gates(rows, jnp.zeros(len(labels), bool)) if gate is None else gate,
            null_gate=self.gates(rows, jnp.ones(len(labels), bool)),
            seed=seed,
            sampler=sampler,
        )


def groups_of(config: Config, classes: Sequence[int] | None) -> tuple[int, ...]:
    """The groups that serve ``classes``; None is every group, and a model without factored weights has none.

    Raises:
      UserError: a class that the model does not know.
    """
    if classes is None:
        groups: Sequence[int] = range(config.model.num_groups)
    else:
        model.class_gate(config.model).check(tuple(classes))
        groups = sorted({config.model.group_of_class[c] for c in classes})
    return tuple(groups)


def open_bundle(
    path: str | Path, *, classes: Sequence[int] | None = None, weights: checkpoint.Weights | None = None
) -> Bundle:
    """Open a run directory or an artifact; of an artifact, only the tailor files that ``classes`` need are touched.

    Raises:
      UserError: neither a run nor an artifact, damaged files, or a class that it does not serve.
    """
    path = Path(path)
    if (path / artifact.MANIFEST).is_file():
        return _from_artifact(path, classes, weights)
    if (path / "config.json").is_file():
        return _from_run(path, classes, weights or "ema")
    raise UserError(f"{str(path)!r} is neither a run (it has no config.json) nor an artifact (no {artifact.MANIFEST}).")


def export(bundle: Bundle, directory: Path, *, replace: bool = False) -> dict[str, Any]:
    """Write a bundle as an artifact; returns its manifest.

    Raises:
      UserError: the folder exists and is not to be replaced, or cannot be written.
    """
    return artifact.write(
        directory,
        config=bundle.config,
        collections=bundle.collections,
        groups=bundle.groups,
        class_names=bundle.class_names,
        weights=bundle.weights,
        step=bundle.step,
        composition=bundle.composition,
        replace=replace,
    )


def _from_artifact(path: Path, classes: Sequence[int] | None, weights: checkpoint.Weights | None) -> Bundle:
    manifest = artifact.read_manifest(path)
    if weights is not None and weights != manifest.weights:
        raise UserError(f"{path} holds the {manifest.weights} weights, but the {weights} weights were asked for.")
    groups = manifest.groups if classes is None else groups_of(manifest.config, classes)
    return Bundle(
        config=manifest.config,
        collections=artifact.read(path, manifest, groups),
        groups=groups,
        class_names=manifest.class_names,
        weights=manifest.weights,
        step=manifest.step,
        origin=path,
        composition=manifest.composition,
    )


def _from_run(path: Path, classes: Sequence[int] | None, weights: checkpoint.Weights) -> Bundle:
    config = load_config(path)
    groups = groups_of(config, classes)
    directory = path / "checkpoints"
    for _ in range(4):
        try:
            return _newest(path, directory, config, groups, classes, weights)
        except UserError:
            if not _moves_on(directory):
                raise
    return _newest(path, directory, config, groups, classes, weights)


def _moves_on(directory: Path) -> bool:
    """Whether a run is saving here, and so may have removed a checkpoint while it was read."""
    return any(p.name.partition(".")[2].startswith(("saving", "deleting")) for p in directory.glob("*.*"))


def _newest(
    path: Path,
    directory: Path,
    config: Config,
    groups: tuple[int, ...],
    classes: Sequence[int] | None,
    weights: checkpoint.Weights,
) -> Bundle:
    step = checkpoint.latest(directory, without=("optimizer", "data"))
    collections = adapters.merge(config.transfer, checkpoint.load_collections(directory, step, config, weights=weights))
    if classes is not None and collections[partition.TAILORS]:
        collections[partition.TAILORS] = partition.select(collections[partition.TAILORS], groups)
    return Bundle(
        config=config,
        collections=collections,
        groups=groups,
        class_names=tuple(checkpoint.read_meta(directory, step)["class_names"]),
        weights=weights,
        step=step,
        origin=path,
    )
