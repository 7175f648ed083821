"""OPTIMA: a student that is distilled module by module (Liang et al. 2023). K: modules."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from kind_jax import model
from kind_jax.classes import mismatch
from kind_jax.config import OptimizerConfig
from kind_jax.config.training import RuleConfig
from kind_jax.data.sets import Dataset
from kind_jax.deploy.bundle import Bundle, open_bundle
from kind_jax.distillation import arms, inherit, rounds, subjects
from kind_jax.distillation.optima_config import ArmConfig, default_arms, student_run
from kind_jax.distillation.teacher import another
from kind_jax.errors import UserError
from kind_jax.nn.gate import Gate
from kind_jax.nn.init import Initializer, ShapesOnly
from kind_jax.partition import MEMORY, PROJECTORS, TAILORS, Collections, fingerprint
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.sharding import Rules
from kind_jax.train.state import TrainState
from kind_jax.train.task import Bank, Batch, Loss
from kind_jax.transferring.whole import settings_of

_RULES: Rules = ((rf"{MEMORY}/.*", ()),)


class Drawn(NamedTuple):
    """What the student's task has drawn; ``gate`` is over the student's bank, ``teacher`` over the teacher's."""

    samples: Any
    gate: Gate
    teacher: Gate


@dataclasses.dataclass(frozen=True)
class OptimaTask:
    """See :class:`kind_jax.train.task.Controlled`."""

    config: Any

    def __post_init__(self) -> None:
        # The rule must be there wherever there are projectors, and nobody should have to write it.
        object.__setattr__(self, "config", dataclasses.replace(self.config, optimizer=_optimizer(self.config)))

    @property
    def student(self) -> Any:
        """The task of a plain run of the student."""
        return _student(self.config)

    @property
    def control(self) -> rounds.Rounds | None:
        """None where nothing is chosen: in plain layerwise distillation, and where no module's loss counts."""
        settings = self.config.optima
        return None if settings.policy == "all" or not settings.layer else rounds.Rounds(self)

    @property
    def names(self) -> tuple[str, ...]:
        """The modules."""
        return tuple(arm.name for arm in self.given)

    @property
    def given(self) -> tuple[ArmConfig, ...]:
        """The modules' settings."""
        return self.config.optima.arms or default_arms(self.config.model)

    @property
    def arms(self) -> tuple[arms.Arm, ...]:
        """The modules, as they fit student and teacher.

        Raises:
          UserError: they do not.
        """
        return _arms(self.config)

    @property
    def bank(self) -> Bank | None:
        return self.student.bank

    @property
    def whole_batch(self) -> str | None:
        return self.student.whole_batch

    @property
    def rules(self) -> Rules:
        return (*_RULES, *self.student.rules)

    @property
    def held(self) -> dict[str, tuple[int, ...]]:
        return self.student.held

    def batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        return self.student.batch()

    def shapes(self) -> Collections:
        beside = self.beside(ShapesOnly())
        return self.student.shapes() | jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), beside)

    def init(self) -> Collections:
        weights = self.student.init()
        if self.config.optima.init == "teacher":
            weights = inherit.layers(weights, self.fixed())
        seed = int(np.random.SeedSequence([self.config.train.seed, 2]).generate_state(1)[0])
        return weights | self.beside(Initializer(seed))

    def beside(self, init: Initializer) -> Collections:
        """The first projectors, and the state before the first round: what a run has beside its student."""
        settings, found = self.config.optima, {}
        if settings.projection == "linear" and settings.layer:
            found[PROJECTORS] = {arm.name: _projector(arm, init) for arm in self.arms}
        if self.control is not None:
            found[MEMORY] = {rounds.STATE: rounds.fresh(len(self.names), settings)}
        return found

    def fixed(self) -> Collections:
        """The teacher."""
        bundle = _opened(self.config)
        if (found := fingerprint(bundle.collections)) != self.config.optima.source:
            raise another(self.config.optima, found, "optima.teacher")
        return {name: jax.tree.map(np.asarray, tree) for name, tree in bundle.collections.items()}

    def fixed_shapes(self) -> Collections:
        return model.definition(_network(self.config))[1]

    def columns(self, dataset: Dataset, collections: Collections) -> dict[str, np.ndarray]:
        return dict(self.student.columns(dataset, collections))

    def draw(self, batch: Batch, key: PRNGKeyArray) -> Drawn:
        """The student's own draws are those of a run without a teacher."""
        samples = self.student.draw(batch, key)
        return Drawn(samples, samples.gate, self._subject.gate(_network(self.config), samples))

    def loss(self, collections: Collections, drawn: Drawn, fixed: Collections) -> Loss:
        """The student's own loss, the difference of predictions, and the loss of the module of this round."""
        settings = self.config.optima
        mine, theirs = self._seen(collections, drawn, fixed)
        value = settings.label * mine.loss.value
        metrics = {name: figure for name, figure in mine.loss.metrics.items() if name != "loss"}
        metrics["own"] = mine.loss.value
        if settings.prediction:
            metrics["prediction"] = self._difference(mine, theirs, drawn)
            value += settings.prediction * metrics["prediction"]
        if settings.layer:
            chosen = rounds.chosen(settings, self.names, collections.get(MEMORY, {}).get(rounds.STATE))
            inside = mine
            if settings.scope == "module":  # the same states, and gradients for the module's own leaves alone
                student = arms.only(self.given, chosen, _student_alone(collections))
                inside = self._subject.seen(self.student, student, drawn.samples._replace(gate=drawn.gate))
            only = rounds.only_module(settings)  # the losses of all others are not even computed
            layers = self._layers(collections.get(PROJECTORS), inside, theirs, only)
            value += settings.layer * sum(chosen[self.names.index(name)] * each for name, each in layers.items())
            metrics |= {f"layers_{name}": each for name, each in layers.items()}
        return Loss(value, {"loss": value} | metrics, mine.loss.moved)

    def values(self, collections: Collections, drawn: Drawn, fixed: Collections) -> Float[Array, " V"]:
        """The values of a probe: the student's own loss, the difference of predictions, and each module's loss."""
        mine, theirs = self._seen(collections, drawn, fixed)
        layers = self._layers(collections.get(PROJECTORS), mine, theirs)
        return jnp.stack([mine.loss.value, self._difference(mine, theirs, drawn), *layers.values()])

    def bound(self, dataset: Dataset, *, begins: bool) -> tuple[OptimaTask, list[str]]:
        student, lines = self.student.bound(dataset, begins=begins)
        settings = self.config.optima
        if settings.teacher is None:
            raise UserError("optima.teacher is missing, but it must name a model: a run or an artifact.")
        place = os.path.abspath(os.path.expanduser(settings.teacher))
        config = dataclasses.replace(self.config, optima=dataclasses.replace(settings, teacher=place))
        bundle = _opened(config)
        found = fingerprint(bundle.collections)
        if settings.source not in (None, found):
            raise another(settings, found, "optima.teacher")
        plain = student_run(config)
        if bundle.class_names and (odd := mismatch(bundle.class_names, dataset.class_names)) is not None:
            raise UserError(
                f"optima.teacher is {place!r}, but its classes must be those of the data, in their order: {odd}."
            )
        for name, ours, other in self._subject.contradictions(plain, bundle.config):
            raise UserError(f"{name} is {ours!r:.200}, but optima.teacher has {other!r:.200}.")
        settings = dataclasses.replace(config.optima, source=found, network=bundle.config.model)
        task = OptimaTask(dataclasses.replace(config, data=student.config.data, optima=settings))
        _ = task.arms  # refused now
        if task.control is not None:
            task.control.probe(dataset)
        return task, lines

    def flops(self) -> float:
        """The student forward and backward, the teacher forward, and the projectors."""
        size = self.config.train.batch
        return self.student.flops() + self._subject.forward(_network(self.config), size)

    def watch(self, state: TrainState, fixed: Collections, mesh: Mesh, directory: Path, step: int) -> dict[str, float]:
        """What the student's task looks at."""
        del fixed
        return self._subject.look(self.student, _weights(self.config, state), mesh, directory, step)

    @property
    def _subject(self) -> subjects.Subject:
        return subjects.of(self.student.config)

    def _seen(self, collections: Collections, drawn: Drawn, fixed: Collections) -> tuple[subjects.Seen, subjects.Seen]:
        samples, subject = drawn.samples, self._subject
        teacher = task_of(subjects.taught_by(self.student.config, _network(self.config)))
        theirs = subject.seen(teacher, fixed, samples._replace(gate=drawn.teacher))
        theirs = theirs._replace(
            predictions=jax.lax.stop_gradient(theirs.predictions), states=jax.lax.stop_gradient(theirs.states)
        )
        mine = subject.seen(self.student, _student_alone(collections), samples._replace(gate=drawn.gate))
        return mine, theirs

    def _difference(self, mine: subjects.Seen, theirs: subjects.Seen, drawn: Drawn) -> Float[Array, ""]:
        return self._subject.difference(mine, theirs, drawn.samples, self.config.optima.temperature)

    def _layers(
        self, projectors: Any, mine: subjects.Seen, theirs: subjects.Seen, only: str | None = None
    ) -> dict[str, Float[Array, ""]]:
        """The loss of each module, or of one."""
        return {
            arm.name: arms.loss(
                arm, None if projectors is None else projectors[arm.name], mine.states, theirs.states, mine.valid
            )
            for arm in self.arms
            if only in (None, arm.name)
        }


def _student_alone(collections: Collections) -> Collections:
    return {name: tree for name, tree in collections.items() if name not in (PROJECTORS, MEMORY)}


def _projector(arm: arms.Arm, init: Initializer) -> dict[str, np.ndarray]:
    own, other = arm.widths
    depth, bound = len(arm.student), own**-0.5
    return {"kernel": init.uniform(depth, own, other, bound=bound), "bias": init.zeros(depth, other)}


@functools.lru_cache(maxsize=32)
def _student(config: Any) -> Any:
    return task_of(student_run(config))


@functools.lru_cache(maxsize=32)
def _arms(config: Any) -> tuple[arms.Arm, ...]:
    task = OptimaTask(config)
    plain = task.student
    teacher = task_of(subjects.taught_by(plain.config, _network(config)))
    given = task.given
    mine, theirs = (_states(each, config) for each in (plain, teacher))
    found = arms.fitted(given, plain.shapes(), mine, theirs)
    for arm in found:
        if config.optima.projection == "identity" and arm.widths[0] != arm.widths[1]:
            raise UserError(
                f"optima.projection is 'identity', but the states of {arm.name!r} have {arm.widths[0]} features, and "
                f"the teacher's {arm.widths[1]}: a 'linear' one makes them comparable."
            )
    return found


def _states(task: Any, config: Any) -> Any:
    """The shapes of the states of a model; takes no memory."""
    subject = subjects.of(task.config)

    def f(weights: Collections, batch: Batch) -> Any:
        return subject.seen(task, weights, task.draw(batch, jax.random.key(0))).states

    return jax.eval_shape(f, task.shapes(), task.batch())


def _network(config: Any) -> Any:
    """The teacher's settings: what the run has recorded, or before it has, what the teacher says itself."""
    if config.optima.network is not None:
        return config.optima.network
    return settings_of(_place(config), type(student_run(config)), "optima.teacher").model


def _place(config: Any) -> Path:
    where = config.optima.teacher
    if where is None or not Path(where).is_dir():
        raise UserError(f"optima.teacher is {where!r}, but it must be a run or an artifact of a model to learn from.")
    return Path(where)


def _opened(config: Any) -> Bundle:
    path = _place(config)
    try:
        bundle = open_bundle(path, kind=type(student_run(config)))
    except UserError as e:
        raise UserError(f"optima.teacher is {str(path)!r}, which cannot teach: {e}") from e
    if TAILORS in bundle.collections and bundle.groups != tuple(range(bundle.config.model.num_groups)):
        raise UserError(f"optima.teacher is {str(path)!r}, which lacks the tailors of some classes; all are needed.")
    return bundle


@functools.partial(jax.jit, static_argnums=0)
def _weights(config: Any, state: TrainState) -> Collections:
    return _student_alone(states.averaged(config, state))


def _optimizer(config: Any) -> OptimizerConfig:
    """The optimizer's settings, with one for the projectors where the run has none: they do not decay."""
    settings = config.optimizer
    some = config.optima.projection == "linear" and config.optima.layer
    if not some or any(re.fullmatch(rule.path, f"{PROJECTORS}/x/kernel") for rule in settings.rules):
        return settings
    return dataclasses.replace(
        settings, rules=(*settings.rules, RuleConfig(path=rf"{PROJECTORS}/.*", weight_decay=0.0))
    )
