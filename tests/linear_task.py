"""A kind of run outside of the package: a linear classifier of digits. As a script, it trains one in sys.argv[1]."""

import dataclasses
import sys
from pathlib import Path
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from kind_jax.config import RunConfig
from kind_jax.config.check import STRICT
from kind_jax.kinds import KINDS, Kind
from kind_jax.train.task import Loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearRun(RunConfig):
    """It has no settings of its own."""

    __pydantic_config__ = STRICT
    task: ClassVar[str] = "linear"


class Drawn(NamedTuple):
    images: jax.Array
    labels: jax.Array


@dataclasses.dataclass(frozen=True)
class LinearTask:
    """Softmax regression on images with a little noise."""

    config: LinearRun
    bank = None
    whole_batch = None
    rules = ()
    held: ClassVar = {}

    def batch(self):
        size = self.config.train.batch
        return {
            "image": jax.ShapeDtypeStruct((size, 8, 8, 1), jnp.float32),
            "label": jax.ShapeDtypeStruct((size,), jnp.int32),
        }

    def shapes(self):
        return jax.eval_shape(self.init)

    def init(self):
        return {"params": {"head": {"kernel": np.zeros((64, 10), np.float32), "bias": np.zeros(10, np.float32)}}}

    def fixed(self):
        return {}

    def fixed_shapes(self):
        return jax.eval_shape(self.fixed)

    def columns(self, dataset, collections):
        del dataset, collections
        return {}

    def draw(self, batch, key):
        return Drawn(batch["image"] + 0.1 * jax.random.normal(key, batch["image"].shape), batch["label"])

    def loss(self, collections, drawn, fixed):
        del fixed
        head = collections["params"]["head"]
        logits = drawn.images.reshape(-1, 64) @ head["kernel"] + head["bias"][None, :]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, drawn.labels).mean()
        return Loss(loss, {"loss": loss, "accuracy": jnp.mean(jnp.argmax(logits, -1) == drawn.labels)})

    def bound(self, dataset, *, begins):
        del dataset, begins
        return self, ["warning: it is linear"]

    def flops(self):
        return 6.0 * self.config.train.batch * 64 * 10

    def watch(self, state, fixed, mesh, directory, step):
        del fixed, mesh
        (directory / f"bias_{step}.txt").write_text(str(np.asarray(state.collections["params"]["head"]["bias"])))
        return {"bias": float(np.asarray(state.collections["params"]["head"]["bias"])[0])}


KINDS["linear"] = Kind(config="linear_task:LinearRun", task="linear_task:LinearTask")


if __name__ == "__main__":
    import linear_task  # the module that the table names, instead of this script

    from kind_jax.config import OptimizerConfig, TrainConfig
    from kind_jax.train.loop import train

    config = linear_task.LinearRun(
        optimizer=OptimizerConfig(learning_rate=0.05),
        train=TrainConfig(steps=60, batch=32, ema=0.5, log_every=1, checkpoint_every=20, sample_every=30),
    )
    folder = Path(sys.argv[1])
    train(config, folder / "whole")
    train(config, folder / "parts", stop_after=25)
    train(config, folder / "parts")
    strangers = {"kind_jax.nn.dit", "kind_jax.model", "kind_jax.diffusing.task"} & set(sys.modules)
    assert not strangers, strangers
