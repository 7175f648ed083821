"""Does it cost quality that a batch has few classes?

    make study-grouped

Class-grouped batches (data.per_class) make a step with tailors cheaper, the more so the fewer classes a batch has. But
their records are no longer independent: a batch of one class gives another gradient than one of all. Hypothesis: with
all, half and a fifth of the classes in a batch, samples are as good as with records at random, at equal steps; a batch
of one class, the negative control, is worse.

Each class's tailors are updated less often where fewer classes are in a batch. A second question is whether a higher
rate of the tailors makes up for it (digits again).

The same config, initial weights, steps, batch and rate for every way of dealing, on digits and on animals, and in a
transfer of learngenes to three other digits. Every figure is that of samples of the averaged weights: class accuracy,
and Fréchet distance as a multiple of that of held-out real images. Nothing is chosen by these figures but the default
that the documents recommend. Results are kept under --out, and an interrupted study continues.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from common import Records, Referee, Trainer, as_bundle, entry, markdown, pretrained, report, spread

from kind_jax import model
from kind_jax.config import Config, change, load_file
from kind_jax.plots import curves
from kind_jax.transferring.plan import plan
from kind_jax.transferring.start import start

CONFIGS = Path(__file__).parents[1] / "configs"
BATCH = {"digits": 60, "animals": 30, "transfer": 60, "rates": 60}
CLASSES = {"digits": 10, "animals": 10, "transfer": 3, "rates": 10}
TRANSFER_RATE = 1e-2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train with every way of dealing, and summarise."""

    seeds: tuple[int, ...] = (0, 1, 2)
    parts: tuple[str, ...] = ("digits", "animals", "transfer", "rates")
    steps: int = 600
    """Of digits and animals."""
    transfer: int = 60
    """Steps of the transfer."""
    out: Path = Path("runs/study-grouped")
    models: Path = Path("runs/study-models")


def base(part: str, steps: int) -> Config:
    """A small model, with everything but the order of the records."""
    config: Any = load_file(CONFIGS / f"{'animals' if part == 'animals' else 'digits'}.py")
    sizes: dict[str, Any] = {"width": 64, "depth": 4, "heads": 4, "factor": {"learngenes": 32, "tailors": 8}}
    train = {"steps": steps, "batch": BATCH[part], "ema": 0.99}
    return change(config, model=sizes, train=train, optimizer={"learning_rate": 2e-3, "warmup": 50})


def ways(part: str) -> dict[str, dict[str, Any]]:
    """Changes to the config, by the classes in a batch."""
    if part == "rates":  # fewer classes in a batch are fewer updates of each class's tailors, so these are larger
        return {
            f"{n} of 10 classes, rate of the tailors x {share:g}": {
                "data": {"per_class": BATCH[part] // n}, "optimizer": {"tailors": {"learning_rate": share}}
            }
            for n in (5, 2)
            for share in ((10 / n) ** 0.5, 10 / n)
        }  # fmt: skip
    shares = (1.0, 0.5, 0.2, 0.1) if part != "transfer" else (1.0, 1 / 3)
    counts = [round(share * CLASSES[part]) for share in shares]
    named = {f"{n} of {CLASSES[part]} classes": {"data": {"per_class": BATCH[part] // n}} for n in counts}
    return {"at random": {}} | named


class Study:
    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        arguments.out.mkdir(parents=True, exist_ok=True)
        settings = {name: getattr(arguments, name) for name in ("steps", "transfer")}
        self.records = Records(arguments.out / "records.json", settings)

    def run(self, part: str) -> dict[str, list[dict[str, Any]]]:
        """Figures of every way, seed by seed."""
        steps = self.arguments.transfer if part == "transfer" else self.arguments.steps
        at = sorted({max(steps // 3, 1), max(2 * steps // 3, 1), steps})
        config = self.transferred() if part == "transfer" else base(part, steps)
        referee = Referee.of(config.data, self.arguments.out / f"judge_{part}.safetensors")
        rate = TRANSFER_RATE if part == "transfer" else config.optimizer.learning_rate
        found: dict[str, list[dict[str, Any]]] = {}
        for name, changes in ways(part).items():
            trainer = Trainer(change(config, **changes))

            def one(seed: int, trainer: Trainer = trainer) -> dict[str, Any]:
                weights = trainer.run(self.first(part, config, seed), rate=rate, seed=seed, at=at)
                scored = change(config, transfer={"method": "none"})
                return {str(k): referee.score(scored, each, seed=1) for k, each in weights.items()}

            found[name] = [
                self.records.get(f"{part} | {name} | seed {s}", lambda s=s: one(s)) for s in self.arguments.seeds
            ]
        return found

    def source(self, seed: int) -> Any:
        """A model of the digits 0 to 6, from records at random."""
        config = change(
            base("digits", self.arguments.steps), model={"num_classes": 7}, data={"classes": tuple(range(7))},
            train={"seed": seed},
        )  # fmt: skip
        file = self.arguments.models / f"grouped_0-6_{config.train.steps}_{seed}.safetensors"
        return as_bundle(config, pretrained(config, seed, file))

    def transferred(self) -> Config:
        config = base("digits", self.arguments.steps)
        config = change(
            config, model={"num_classes": 3}, data={"classes": (7, 8, 9)}, train={"steps": self.arguments.transfer},
            optimizer={"warmup": 5, "schedule": "constant"}, transfer={"method": "kind"},
        )  # fmt: skip
        return plan(config, change(base("digits", self.arguments.steps), model={"num_classes": 7}), "")

    def first(self, part: str, config: Config, seed: int) -> Any:
        if part == "transfer":
            return start(change(config, train={"seed": seed}), self.source(seed))
        return model.init(config.model, seed)


def main() -> None:
    arguments = tyro.cli(Arguments)
    study = Study(arguments)
    rows, results, pictures = [["set", "in a batch", "steps", "class accuracy", "Fréchet"]], {}, {}
    for part in arguments.parts:
        results[part] = study.run(part)
        for name, seeds in results[part].items():
            last = max(seeds[0], key=int)
            figures = {key: [each[last][key] for each in seeds] for key in ("accuracy", "frechet")}
            rows.append([part, name, last, spread(figures["accuracy"], 3), spread(figures["frechet"], 2)])
        lines = {
            name: [(int(k), [each[k]["frechet"] for each in seeds]) for k in seeds[0]]
            for name, seeds in results[part].items()
        }
        pictures[f"{part}.png"] = curves(lines, f"steps ({part})", "Fréchet, times train vs test")
    record = {"arguments": dataclasses.asdict(arguments), "results": results, "margins": margins(results)}
    report(arguments.out, record, markdown(rows), pictures)


def margins(results: dict[str, dict[str, list[dict[str, Any]]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Of every way, its mean figure less that of records at random, and the standard deviation of both together."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for part, by_name in results.items():
        for key in ("accuracy", "frechet"):
            values = {name: [each[max(each, key=int)][key] for each in seeds] for name, seeds in by_name.items()}
            plain = values.get("at random") or [
                each[max(each, key=int)][key] for each in results["digits"]["at random"]
            ]
            for name, own in values.items():
                deviation = (
                    float(np.sqrt(np.var(own, ddof=1) + np.var(plain, ddof=1))) if len(own) > 1 else float("nan")
                )
                margin = {"difference": float(np.mean(own) - np.mean(plain)), "deviation": deviation}
                found.setdefault(part, {}).setdefault(name, {})[key] = margin  # pyright: ignore[reportArgumentType]
    return found


if __name__ == "__main__":
    entry(main)
