"""Many samples for an evaluation: split over all devices, written in shards, and continued after an interruption.

The noise of a batch follows from the seed and the batch's number alone, so neither the number of devices nor an
interruption changes the samples. B: batch, N: samples, H, W, C: image shape.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32, UInt8

from kind_jax import __version__, partition, sampling
from kind_jax.config import MeshConfig, SamplerConfig
from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError
from kind_jax.evaluating.pixels import quantise
from kind_jax.evaluating.shards import Shards
from kind_jax.train.sharding import batch_sharding, make_mesh, replicated
from kind_jax.vae import Vae, decoder

BATCH = 256
SHARD_BATCHES = 4

# Far beyond any evaluation, but no number that is typed by mistake asks for what no machine has.
_MOST, _MOST_BATCH = 10_000_000, 65_536


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """How images of some classes are drawn.

    Attributes:
      classes: that are drawn, by number.
      vae: decodes the model's latents to images; None where it draws images.
    """

    bundle: Bundle
    sampler: SamplerConfig
    classes: tuple[int, ...]
    seed: int
    vae: Vae | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed is {self.seed}, but it must be between 0 and {2**32 - 1}.")
        config = self.bundle.config
        dataclasses.replace(config, sampler=self.sampler)  # refuses a sampler that does not fit the diffusion process
        self.bundle.gates.check(self.classes)
        gated = bool(self.bundle.collections[partition.TAILORS])
        if not gated and not config.model.label_embedding and self.sampler.guidance != 1.0:
            raise UserError(
                f"sampler.guidance is {self.sampler.guidance}, but it must be 1: without tailors and label embedding "
                "the model has no unconditional branch."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images."""
        model = self.bundle.config.model
        if self.vae is None:
            return model.size, model.size, model.channels
        side = model.size * self.vae.config.factor
        return side, side, self.vae.config.out_channels

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that the samples follow from, as JSON values: other settings give other samples."""
        bundle = self.bundle
        return {
            "kind_jax": __version__,
            "weights": {
                "which": bundle.weights,
                "ema_rate": bundle.config.train.ema if bundle.weights == "ema" else None,
                "step": bundle.step,
                "sha256": partition.weights_sha256(bundle.collections),
            },
            "model": dataclasses.asdict(bundle.config.model),
            "diffusion": dataclasses.asdict(bundle.config.diffusion),
            "sampler": dataclasses.asdict(self.sampler),
            "seed": self.seed,
            "classes": list(self.classes),
            "vae": None if self.vae is None else {"sha256": self.vae.fingerprint},
        }


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Plan(Drawing):
    """Samples to be drawn for an evaluation: image i shows class ``classes[i % len(classes)]``.

    Attributes:
      batch: images whose noise is drawn together; another batch means other noise.
    """

    count: int
    batch: int = BATCH

    def __post_init__(self) -> None:
        for name, most in (("count", _MOST), ("batch", _MOST_BATCH)):
            value = getattr(self, name)
            if not 1 <= value <= most:
                wanted = "1 or more" if value < 1 else f"at most {most}"
                raise UserError(f"--{name} is {value}, but it must be {wanted}.")
        super().__post_init__()

    @property
    def labels(self) -> Int32[np.ndarray, " N"]:
        """The class of each image: all classes equally often, up to one."""
        return np.array(self.classes, np.int32)[np.arange(self.count) % len(self.classes)]

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """As those of the drawing, and how many images are drawn together and in all."""
        return {
            **super().settings,
            "count": self.count,
            "labels": "image i shows classes[i % number of classes]",
            "batch": self.batch,
        }


def open_shards(plan: Plan, folder: Path) -> Shards:
    """The folder that the samples of ``plan`` go to, created if need be.

    Raises:
      UserError: it holds samples of other settings, or files of something else.
    """
    size = plan.batch * SHARD_BATCHES
    return Shards.open(folder, settings=plan.settings, labels=plan.labels, size=size, shape=plan.shape)


def generate(
    plan: Plan,
    shards: Shards,
    *,
    progress: Callable[[int], None] = lambda done: None,
    devices: Sequence[Any] | None = None,
) -> None:
    """Draw what is missing.

    Args:
      progress: called after each batch with the number of images that exist.
      devices: None is all of this machine's.

    Raises:
      UserError: more than one process, samples that are not finite, or a full disk.
    """
    if jax.process_count() > 1:
        raise UserError(f"an evaluation runs in one process, but there are {jax.process_count()}.")
    draw = _drawer(plan, devices)
    for number in shards.missing():
        rows = shards.rows(number)
        parts = []
        for start in range(rows.start, rows.stop, plan.batch):
            stop = min(start + plan.batch, rows.stop)
            parts.append(quantise(draw(start // plan.batch, plan.labels[start:stop])))
            progress(shards.done() + stop - rows.start)
        shards.write(number, np.concatenate(parts))


def _drawer(plan: Plan, devices: Sequence[Any] | None) -> Callable[[int, np.ndarray], np.ndarray]:
    mesh = make_mesh(MeshConfig(), jax.local_devices() if devices is None else devices)
    ways = mesh.shape["data"]
    # The last batch, and one that the devices do not divide, are filled up: the noise of the images before is the same.
    width = -(-min(plan.batch, plan.count) // ways) * ways
    config, gates = plan.bundle.config, plan.bundle.gates
    collections = jax.device_put(plan.bundle.collections, replicated(mesh))
    decode = None if plan.vae is None else decoder(plan.vae, sharding=batch_sharding(mesh))

    def draw(number: int, labels: np.ndarray) -> np.ndarray:
        full = np.concatenate([labels, np.repeat(labels[-1:], width - len(labels))])
        rows = jnp.asarray(full)
        images = sampling.draw(
            config,
            collections,
            full,
            gates(rows, jnp.zeros(width, bool)),
            null_gate=gates(rows, jnp.ones(width, bool)),
            seed=plan.seed,
            sampler=plan.sampler,
            batch=width,
            first=number,
            sharding=batch_sharding(mesh),
        )
        images = images[: len(labels)]
        return images if decode is None else decode(images)

    return draw


def batches(shards: Shards) -> Iterator[tuple[UInt8[np.ndarray, "B H W C"], Int32[np.ndarray, " B"]]]:
    """All samples with their labels, a shard at a time."""
    for number in range(shards.number):
        yield shards.read(number), shards.labels[shards.rows(number)]
