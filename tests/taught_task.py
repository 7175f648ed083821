"""A kind of run with a teacher: a linear classifier that follows the logits of a fixed one."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from linear_task import LinearRun, LinearTask

from kind_jax.config.check import STRICT
from kind_jax.kinds import KINDS, Kind
from kind_jax.train.task import Loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaughtRun(LinearRun):
    __pydantic_config__ = STRICT
    task: ClassVar[str] = "taught"


@dataclasses.dataclass(frozen=True)
class TaughtTask(LinearTask):
    config: TaughtRun
    teacher: ClassVar[float] = 1.0

    def fixed(self):
        kernel = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)
        return {"params": {"teacher": {"kernel": np.float32(self.teacher) * kernel}}}

    def loss(self, collections, drawn, fixed):
        x = drawn.images.reshape(-1, 64)
        theirs = x @ fixed["params"]["teacher"]["kernel"]
        head = collections["params"]["head"]
        loss = jnp.mean((x @ head["kernel"] + head["bias"][None, :] - theirs) ** 2)
        return Loss(loss, {"loss": loss})


KINDS["taught"] = Kind(config="taught_task:TaughtRun", task="taught_task:TaughtTask")
