"""How a composed generator begins to learn from the whole one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from kind_jax.config import Config, TransferConfig
from kind_jax.deploy import artifact
from kind_jax.deploy.bundle import Bundle
from kind_jax.distillation.generator_config import GeneratorConfig, GeneratorRun, generator_run
from kind_jax.errors import UserError
from kind_jax.partition import Collections, fingerprint
from kind_jax.transferring.whole import settings_of

STEPS = 400


def settings(teacher: Path, student: Path) -> GeneratorRun:
    """The settings of a run, before any is given: the student's network, the teacher's data, and a short schedule.

    Raises:
      UserError: one of them is neither a run nor an artifact of a generator, or the student is not an artifact.
    """
    if not (student / artifact.MANIFEST).is_file():
        raise UserError(f"--into is {str(student)!r}, but it must be an artifact, as kind-jax compose writes it.")
    manifest = artifact.read_manifest(student)
    ours, theirs = settings_of(student, Config, "--into"), settings_of(teacher, Config, "the teacher")
    groups = ours.model.group_of_class
    classes = tuple(c for c, group in enumerate(groups) if group in manifest.groups)
    if manifest.composition is not None:
        classes = tuple(sorted(manifest.composition.classes))
    some = len(classes) < ours.model.num_classes
    # What is folded in has no unconditional branch.
    branch = bool(ours.model.label_embedding or any(form.tailors for form in ours.model.forms.values()))
    optimizer = dataclasses.replace(theirs.optimizer.thawed, rules=())
    return generator_run(
        ours,
        GeneratorConfig(teacher=str(teacher), classes=classes, groups=manifest.groups),
        data=dataclasses.replace(theirs.data, only=classes if some else None),
        transfer=TransferConfig(),
        optimizer=dataclasses.replace(optimizer, schedule="cosine", epoch=None, warmup=0, warmup_start=0.0),
        train=dataclasses.replace(
            theirs.train, steps=STEPS, null=theirs.train.null if branch else 0.0, ema=0.99, log_every=20,
            checkpoint_every=STEPS, sample_every=STEPS,
        ),
    )  # fmt: skip


def begin(config: GeneratorRun, student: Bundle) -> tuple[GeneratorRun, Collections]:
    """A config that knows from which weights it begins, and these weights.

    Raises:
      UserError: the student has other classes or another network than the config says.
    """
    if student.config.model != config.model or student.groups != config.aboard:
        raise UserError(f"{student.origin} has another network or other groups than the run's settings.")
    source = fingerprint(student.collections)
    return dataclasses.replace(
        config, transfer=dataclasses.replace(config.transfer, source=source)
    ), student.collections
