"""Is it worth choosing which module of a teacher is distilled?

    make study-optima

A CoCa of 4 + 4 + 4 layers (image encoder, text decoder, multimodal decoder) is trained on emoji and teaches students of
2 + 2 + 2 (with --more also of 1 + 1 + 1), which begin with its layers in the places in which they are compared.
Hypotheses: (1) a student is the better for its teacher; (2) Thompson sampling of the module beats all modules at once,
and taking turns, by more than the spread over seeds; (3) one module matters more than the others; (4) whoever may try
each module in each round and keeps the best is better than all who must guess: there is something to gain from choosing
at all.

Protocol. All runs of a seed see the same batches, and the same 16 held-out pairs judge their rounds of five steps. A
seed is the order of the data, what is drawn, the probe, and the bandit's; students begin alike. The learning rate, the
weight of the modules' losses (for all modules at once) and gamma are the best of a few on another seed, by the caption
loss of all held-out images, and serve all policies. Test figures are looked at once, when a student is done. The
reward is the relative fall of everything that plain distillation would minimise, over the root mean square of the last
20, unless it is said otherwise. The oracle tries each module in each round, from the same state and on the same
batches, and keeps the one with the greatest reward. Every result is kept under --out, and an interrupted study
continues.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optima_training as training
import safetensors.numpy
import tyro
from common import Records, entry, report
from optima_picture import picture, rounds_picture
from optima_tables import tables
from optima_training import MODULES, Plan, Program, known

from kind_jax import model, partition
from kind_jax.files import atomic_write_bytes
from kind_jax.host import keep_memory
from kind_jax.partition import Collections

POLICIES = ("thompson", "all", "uniform", "random", "greedy", "window", "dsts", *(f"fixed:{name}" for name in MODULES))
FEWER = ("thompson", "all", "uniform", "random")  # of the smaller students
NONE = "none"
ABLATIONS: dict[str, dict[str, Any]] = {
    "reward_loss task": {"reward_loss": "task"},
    "reward_loss modules": {"reward_loss": "modules"},
    "reward_loss self": {"reward_loss": "self"},
    "reward absolute": {"reward": "absolute"},
    "reward_scale none": {"reward_scale": "none"},
}
TUNING_SEED, HELD = 100, {"split": "validation"}
RATES, LAYERS, GAMMAS = (3e-4, 1e-3, 3e-3), (1.0, 10.0, 100.0), (0.9, 0.95)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train the teacher, choose rate and gamma, train the students, and compare."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    few: tuple[int, ...] = (0, 1, 2)
    """Seeds of controls, and of the smaller students."""
    ablations: tuple[int, ...] = (0, 1)
    """Seeds of ablations."""
    steps: int = 150
    """Of a student."""
    teacher_steps: int = 1200
    teacher_rate: float = 3e-3
    teacher_batch: int = 32
    more: bool = False
    """Whether there are students of predictions alone, too, and such of a quarter of the teacher's depth."""
    out: Path = Path("runs/study-optima")


class Study:
    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        arguments.out.mkdir(parents=True, exist_ok=True)
        names = ("steps", "teacher_steps", "teacher_rate", "teacher_batch")
        settings = {name: getattr(arguments, name) for name in names}
        settings |= {
            "depth_of_teacher": training.TEACHER_DEPTH, "width": training.WIDTH, "context": training.CONTEXT,
            "batch": training.BATCH, "round": training.ROUND, "probe": training.PROBE,
        }  # fmt: skip
        self.records = Records(arguments.out / "records.json", settings)

    @functools.cached_property
    def teacher(self) -> Collections:
        given, file = self.arguments, self.arguments.out / "teacher.safetensors"
        if not file.is_file():
            weights = training.train_teacher(given.teacher_steps, given.teacher_rate, given.teacher_batch)
            atomic_write_bytes(file, safetensors.numpy.save(partition.flatten(weights)))
        return partition.unflatten(safetensors.numpy.load_file(file))

    @functools.lru_cache(maxsize=4)  # noqa: B019 (one study a process)
    def program(self, depth: int, scope: str = "all") -> Program:
        return Program(depth, scope)

    def student(
        self, name: str, depth: int, seed: int, policy: str = "thompson", *, of: Collections | None = None,
        plan: dict[str, Any] | None = None, **settings: Any,
    ) -> Any:  # fmt: skip
        """The run of this name: its figures, and what each round chose and got.

        Args:
          of: the teacher; None: the trained one. Students begin with that one's layers in any case.
          plan: what differs from the plan of other runs.
          settings: of the policy, where they differ from those of other runs.
        """

        def compute() -> Any:
            given = dict(plan or {})
            given = {"seed": seed, "steps": self.arguments.steps, "rate": given.get("rate") or self.rate} | given
            optima = None
            if policy != NONE:
                optima = known(
                    policy,
                    **({name: settings.get(name) or getattr(self, name) for name in ("gamma", "layer")} | settings),
                )
            program = self.program(depth, settings.get("scope", "all"))
            return program.run(Plan(optima=optima, **given), of or self.teacher, begin=self.teacher)

        return self.records.get(f"{depth} layers/{name}/{seed}", compute)

    @functools.cached_property
    def rate(self) -> float:
        """The best for students with and without a teacher together."""

        def lost(rate: float) -> float:
            found = [
                self.student(
                    f"rate {rate:g}, {policy}",
                    2,
                    TUNING_SEED,
                    policy,
                    plan={"rate": rate} | HELD,
                    gamma=1.0,
                    layer=LAYERS[0],
                )
                for policy in (NONE, "all")
            ]
            return float(np.mean([each["figures"]["caption_loss"] for each in found]))

        return self.records.get("rate", lambda: min(RATES, key=lost))

    @functools.cached_property
    def layer(self) -> float:
        """The weight of the modules' losses that is best for all modules at once."""

        def lost(layer: float) -> float:
            found = self.student(f"layer {layer:g}, all", 2, TUNING_SEED, "all", plan=HELD, gamma=1.0, layer=layer)
            return found["figures"]["caption_loss"]

        return self.records.get("layer", lambda: min(LAYERS, key=lost))

    @functools.cached_property
    def gamma(self) -> float:
        def lost(gamma: float) -> float:
            found = self.student(f"gamma {gamma:g}, tried", 2, TUNING_SEED, plan=HELD, gamma=gamma)
            return found["figures"]["caption_loss"]

        return self.records.get("gamma", lambda: min(GAMMAS, key=lost))

    def all(self) -> Iterator[Any]:
        """Every run, the most important first, so that whatever is cut off is the least."""
        given = self.arguments
        yield self.records.get(
            "teacher",
            lambda: {
                split: training.figures(training.TEACHER_DEPTH, self.teacher, split) for split in ("test", "validation")
            },
        )
        for seed in given.seeds:
            for policy in (NONE, *POLICIES):
                yield self.student(policy, 2, seed, policy)
        untrained = model.init(training.plain(training.TEACHER_DEPTH).model, 1)
        for seed in given.few:
            yield self.student("oracle", 2, seed, plan={"oracle": True})
            yield self.student("untrained teacher", 2, seed, of={"params": untrained["params"]})
        for seed in given.ablations:
            for name, settings in ABLATIONS.items():
                yield self.student(name, 2, seed, **settings)
        for depth in (2, 1) if given.more else ():
            for seed in given.few:
                yield self.student("predictions alone", depth, seed, "uniform", layer=0.0)
                for policy in (NONE, *FEWER):
                    yield self.student(policy, depth, seed, policy)

    def write(self) -> None:
        """The summary of what has been done so far."""
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        record = {
            "what": "CoCa on emoji distilled module by module, the module chosen by several policies",
            "command": "make study-optima",
            "commit": commit.stdout.strip() or "unknown",
            "seeds": self.arguments.seeds, "few": self.arguments.few, "seeds_of_ablations": self.arguments.ablations,
            "tuning_seed": TUNING_SEED,
            "machine": f"a shared virtual CPU core, Python {platform.python_version()}, jax {jax.__version__}, float32",
            "settings": self.records.settings, "ablations": ABLATIONS, "results": self.records.found,
        }  # fmt: skip
        pictures = {"optima.png": picture(record), "optima_rounds.png": rounds_picture(record)}
        report(self.arguments.out, record, tables(record), pictures)


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    keep_memory()
    study, begin = Study(arguments), time.monotonic()
    for _ in study.all():
        pass
    print(f"all runs: {time.monotonic() - begin:.0f} s")
    study.write()


if __name__ == "__main__":
    entry(main)
