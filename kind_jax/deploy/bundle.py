"""A model in hand: weights with everything needed to use them, whether they come from a run or an artifact."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from kind_jax import adapters, finite, model, partition, sampling
from kind_jax.classes import ClassList, describe, labels_of, numbers_of, readable
from kind_jax.config import Config, RunConfig, SamplerConfig, is_of
from kind_jax.config.check import check_choice, check_path, check_seed, require
from kind_jax.deploy import artifact, card, hub
from kind_jax.deploy.class_mixture import gate_of
from kind_jax.deploy.record import Composition
from kind_jax.deploy.summary import html_of, text_of
from kind_jax.errors import UserError
from kind_jax.kinds import product_of
from kind_jax.nn.gate import ClassGate, Gate, check_gate
from kind_jax.tasks import task_of
from kind_jax.train import checkpoint
from kind_jax.train.run import load_config

Choice = Literal["ema", "raw", "best"]
BEST = "best"  # an artifact in the folder of a run


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Bundle:
    """Collections and their meaning.

    Attributes:
      config: the settings of the run that trained them, of any kind.
      collections: learngenes, params, and the tailors of ``groups``, a bank row for each.
      groups: the groups aboard, in the order of the bank.
      class_names: name of every class that the model was trained on.
      weights: ``ema`` or ``raw``.
      step: training step that the weights come from.
      origin: where they were read from.
      composition: how the model was composed, if it was.
    """

    config: Any
    collections: partition.Collections
    groups: tuple[int, ...]
    class_names: tuple[str, ...]
    weights: checkpoint.Weights
    step: int
    origin: Path
    composition: Composition | None = None

    def __repr__(self) -> str:
        return text_of(self)

    def _repr_html_(self) -> str:
        return html_of(self)

    @property
    def gates(self) -> ClassGate:
        """Class labels to gates over the groups aboard."""
        return model.class_gate(self.config.model, self.groups)

    @property
    def served(self) -> tuple[int, ...]:
        """Numbers of the classes whose tailors are aboard."""
        return tuple(c for c, row in enumerate(self.gates.row_of_class) if row >= 0)

    def gate(
        self,
        classes: Mapping[int | str, float]
        | Sequence[int | str | Mapping[int | str, float] | None]
        | Int[np.ndarray, " N"],
    ) -> Gate:
        """A gate in terms of classes, each by its number or name, for :meth:`sample`.

        Args:
          classes: a dict of classes and weights is a mixture, the same for all samples; an empty one is learngenes
            alone. A list has an entry for each sample: a class, whose tailors are on; a dict; or None for learngenes
            alone. Weights of classes that share their tailors add up.

        Raises:
          UserError: a class that is unknown or whose tailors are not aboard, a weight that is not a finite number, an
            empty list, or a model that has no gated tailors.
        """
        self._check_gated()
        return gate_of(classes, self.class_names, self.gates)

    def sample(
        self,
        labels: Sequence[int | str] | Int[np.ndarray, " N"],
        *,
        seed: int,
        sampler: SamplerConfig | None = None,
        gate: Gate | None = None,
    ) -> Float[np.ndarray, "N H W C"]:
        """One image for each label, with the label's own tailors unless ``gate`` says other.

        Args:
          labels: N classes by number or name; a class may come several times.
          seed: of the noise, 0 to 2³² - 1.
          sampler: None takes the config's.
          gate: for N samples or for all alike; see :meth:`gate`.

        Returns:
          float32, nominally in [-1, 1].

        Raises:
          UserError: labels that are no list or one-dimensional array of classes, a class that the model does not know,
            or whose tailors are not aboard; a seed, sampler or gate that does not fit; a gate for tailors that were
            folded into the weights; guidance for a model that has no unconditional branch; images that are not finite.
        """
        check_bundle(self, "the model")
        numbers = labels_of(labels, self.class_names)
        self.gates.check(tuple(map(int, np.unique(numbers))))
        check_seed(seed)
        require(sampler is None or isinstance(sampler, SamplerConfig), "sampler", sampler, "a SamplerConfig or None")
        if sampler is not None:
            dataclasses.replace(self.config, sampler=sampler)  # refuses one that does not fit the diffusion process
        guidance = (sampler or self.config.sampler).guidance
        gated = bool(self.collections[partition.TAILORS])
        if not gated and not self.config.model.label_embedding and guidance != 1.0:
            raise UserError(
                f"sampler.guidance is {guidance}, but it must be 1: the model has neither gated tailors nor a label "
                "embedding, so it has no unconditional branch."
            )
        if gate is not None:
            self._check_gated()
            check_gate(gate, len(numbers), max(len(self.groups), 1))
        rows = jnp.asarray(numbers)
        return sampling.draw(
            self.config,
            self.collections,
            numbers,
            self.gates(rows, jnp.zeros(len(numbers), bool)) if gate is None else gate,
            null_gate=self.gates(rows, jnp.ones(len(numbers), bool)),
            seed=int(seed),
            sampler=sampler,
        )

    def _check_gated(self) -> None:
        if not self.collections[partition.TAILORS]:
            folded = self.composition is not None and self.composition.folded
            why = (
                "the tailors are folded into the weights and cannot be gated" if folded else "the model has no tailors"
            )
            raise UserError(f"a gate was given, but {why}.")


def check_bundle(value: object, name: str = "bundle", kind: type[RunConfig] = Config) -> None:
    """Refuse what is not a bundle, like a path to one, or not of a kind of run.

    Args:
      kind: of its config; RunConfig is any.

    Raises:
      UserError: naming the argument, the value found and how to get a bundle, or the two kinds.
    """
    require(isinstance(value, Bundle), name, value, "a model, as kind_jax.open_bundle(path) gives")
    assert isinstance(value, Bundle)
    if not is_of(value.config, kind):
        where = "" if str(value.origin) == name else f" (from {value.origin})"
        raise UserError(f"{name} is of the kind {value.config.task!r}{where}, but it must be {kind.task!r} here.")


def with_data(bundle: Bundle, path: Path | None) -> Bundle:
    """``bundle`` whose data set is in ``path`` (``data.path``); None leaves it where the config says."""
    if path is None:
        return bundle
    data = dataclasses.replace(bundle.config.data, path=str(path))
    return dataclasses.replace(bundle, config=dataclasses.replace(bundle.config, data=data))


def groups_of(config: Any, classes: Sequence[int] | None) -> tuple[int, ...]:
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
    path: str | Path,
    *,
    classes: ClassList | None = None,
    weights: Choice | None = None,
    kind: type[RunConfig] = RunConfig,
) -> Bundle:
    """Open a run directory or an artifact; of an artifact, only the tailor files that ``classes`` need are touched.

    Args:
      path: a run or an artifact, or ``hf://user/name`` (``hf://user/name@revision``): an artifact on the Hugging Face
        Hub, of which the shared files and the tailors of ``classes`` are fetched (extra ``hub``).
      classes: by number or name; None is all.
      weights: None is the moving average of a run, where it keeps one, and what an artifact holds;
        ``best`` are those of a run that had the best held-out accuracy (its best.json says on which split).
      kind: of its config; RunConfig is any.

    Raises:
      UserError: neither a run nor an artifact, damaged files, a weight that is not finite, or a class that it does not
        know or serve.
    """
    path = check_path(path, "path")
    if weights is not None:
        check_choice(weights, Choice, "weights")
    if hub.is_address(path):
        path = hub.fetch(path, classes)
    if weights == "best":
        if not (path / BEST / artifact.MANIFEST).is_file():
            raise UserError(
                f"{str(path)!r} has no best weights; a run of a classifier keeps them in {BEST!r} from the first time "
                "that its held-out accuracy is measured (train.sample_every)."
            )
        path, weights = path / BEST, None
    if (path / artifact.MANIFEST).is_file():
        bundle = _from_artifact(path, classes, weights)
    elif (path / "config.json").is_file():
        bundle = _from_run(path, classes, weights)
    else:
        raise UserError(
            f"{str(path)!r} is neither a run (it has no config.json) nor an artifact (no {artifact.MANIFEST})."
        )
    check_bundle(bundle, str(path), kind)
    if classes is not None and getattr(bundle.config.model, "gated", True) is False:
        raise UserError(f"classes of {path} were chosen, but it has no tailors, so that all classes come together.")
    finite.check(bundle.collections, path)
    return bundle


def export(
    bundle: Bundle, directory: str | Path, *, replace: bool = False, license: str | None = None
) -> dict[str, Any]:
    """Write a bundle as an artifact; returns its manifest.

    Args:
      license: what the card says, as the Hub identifies licences; None is that of the artifact it was opened from.

    Raises:
      UserError: the folder exists and is not to be replaced, or cannot be written; or the licence has another form.
    """
    check_bundle(bundle, kind=RunConfig)
    folder = check_path(directory, "directory")
    if replace and folder.is_dir():
        card.check_own(card.kept(folder).get(card.CARD), license)
    return artifact.write(
        folder,
        config=bundle.config,
        collections=bundle.collections,
        groups=bundle.groups,
        class_names=bundle.class_names,
        weights=bundle.weights,
        step=bundle.step,
        composition=bundle.composition,
        replace=replace,
        beside=card.beside(bundle, license),
    )


def _from_artifact(path: Path, classes: ClassList | None, weights: checkpoint.Weights | None) -> Bundle:
    manifest = artifact.read_manifest(path)
    if weights is not None and weights != manifest.weights:
        raise UserError(f"{path} holds the {manifest.weights} weights, but the {weights} weights were asked for.")
    chosen = None if classes is None else numbers_of(classes, manifest.class_names)
    groups = manifest.groups if chosen is None else groups_of(manifest.config, chosen)
    group_of_class = getattr(manifest.config.model, "group_of_class", ())  # pyright: ignore[reportAttributeAccessIssue]
    if lacking := [c for c in chosen or () if group_of_class[c] not in manifest.groups]:
        served = [c for c, group in enumerate(group_of_class) if group in manifest.groups]
        names = manifest.class_names
        raise UserError(
            f"{path} has no tailors of class {describe(lacking, names)}; it serves {describe(served, names)}."
        )
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


def _from_run(path: Path, classes: ClassList | None, weights: checkpoint.Weights | None) -> Bundle:
    config = load_config(path)
    if not hasattr(config, "model"):
        raise UserError(f"{path} is a run of the kind {config.task!r}, whose model is not one that can be opened.")
    weights = weights or ("raw" if config.train.ema is None else "ema")
    directory = path / "checkpoints"
    for _ in range(4):
        try:
            return _newest(path, directory, config, classes, weights)
        except UserError:
            if not _moves_on(directory):
                raise
    return _newest(path, directory, config, classes, weights)


def _moves_on(directory: Path) -> bool:
    """Whether a run is saving here, and so may have removed a checkpoint while it was read."""
    return any(p.name.partition(".")[2].startswith(("saving", "deleting")) for p in directory.glob("*.*"))


def _newest(
    path: Path,
    directory: Path,
    config: Any,
    classes: ClassList | None,
    weights: checkpoint.Weights,
) -> Bundle:
    step = checkpoint.latest(directory, without=("optimizer", "data"))
    names = tuple(checkpoint.read_meta(directory, step)["class_names"])
    names = names if config.model.num_classes else ()  # of its data, which such a model tells apart in words
    aboard = getattr(config, "aboard", None)  # of a run whose model was composed for some of its classes
    groups = groups_of(config, None if classes is None else numbers_of(classes, names))
    if aboard is not None:
        if classes is not None and not set(groups) <= set(aboard):
            served = [names[c] for c, group in enumerate(config.model.group_of_class) if group in aboard]
            raise UserError(f"{path} does not serve all of the classes that were asked for, only {readable(served)}.")
        groups = aboard if classes is None else groups
    product = product_of(config)
    kept = None if product is config else tuple(task_of(product).shapes())
    collections = checkpoint.load_collections(directory, step, task_of(config), kept, weights=weights)
    config = product
    if is_of(config, Config):
        collections = adapters.merge(config.transfer, collections)
    if classes is not None and collections[partition.TAILORS]:
        held = groups_of(config, None) if aboard is None else aboard
        rows = [held.index(group) for group in groups]  # of the bank
        collections[partition.TAILORS] = partition.select(collections[partition.TAILORS], rows)
    return Bundle(
        config=config,
        collections=collections,
        groups=groups,
        class_names=names,
        weights=weights,
        step=step,
        origin=path,
    )
