"""Learngenes with fresh tailors against every other way of using a pre-trained model, on the same trainer.

    make study-novel       # digits 0-6, then the digits 7, 8, 9
    make study-shift       # digits 0-9, then letters of other alphabets (ARGS='--target textures': photographs)

Hypothesis: frozen learngenes with fresh tailors reach good samples of new classes in fewer steps than training from
scratch, fine-tuning everything, or adapters of a dense model, adapters with as many trained parameters included.

KIND and a dense DiT of the same width and depth are pre-trained for the same steps. Every method then gets the same
steps and batches. Its learning rate is chosen from the same grid, by the Fréchet distance after `--tune-at` steps on
seed 0 (beyond the grid's end while the best rate is the highest); then all seeds run at that rate. Every result is kept
under --out, and an interrupted study continues.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tyro
from common import Records, Referee, Trainer, as_bundle, entry, markdown, pretrained, report, spread, trained_parameters

from kind_jax import model, partition
from kind_jax.config import Config, DataConfig, change, load_file
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy.bundle import Bundle
from kind_jax.plots import curves
from kind_jax.transferring.plan import plan
from kind_jax.transferring.start import start

CONFIG = Path(__file__).parents[1] / "configs" / "digits.py"
DENSE = {"factor": {"projections": ()}, "label_embedding": True}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Pre-train, transfer with every method, and summarise."""

    target: Literal["novel", "glyphs", "textures"] = "novel"
    seeds: tuple[int, ...] = (0, 1, 2)
    pretrain: int = 800
    """Steps of pre-training."""
    at: tuple[int, ...] = (20, 60, 200)
    """Steps of transfer after which samples are judged."""
    tune_at: int = 60
    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    methods: tuple[str, ...] | None = None
    """Names of methods; default: all."""
    out: Path = Path("runs/study-transfer")
    models: Path = Path("runs/study-models")
    """Pre-trained models, shared by the studies."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """One competitor: which pre-trained model it starts from, and how it is trained."""

    base: Literal["kind", "dense"]
    transfer: dict[str, Any] = dataclasses.field(default_factory=dict)
    model: dict[str, Any] = dataclasses.field(default_factory=dict)


def methods(classes: int) -> dict[str, Method]:
    """The competitors; ``=`` marks a rank at which adapters train as many parameters as KIND's tailors."""
    equal = min(8 * classes, 48)  # KIND trains 8 components a class and weight; beyond 48 of 64, adapters are full
    return {
        "KIND": Method(base="kind", transfer={"method": "kind"}),
        "KIND, 2 tailors": Method(base="kind", transfer={"method": "kind"}, model={"factor": {"tailors": 2}}),
        "KIND, adaLN and final layer too": Method(
            base="kind", transfer={"method": "kind", "thaw": ("blocks/adaln", "final")}
        ),
        "KIND, nearest tailors": Method(base="kind", transfer={"method": "kind", "tailors": "nearest"}),
        "KIND, silent tailors": Method(base="kind", transfer={"method": "kind", "tailors": "silent"}),
        "KIND, all trained": Method(base="kind", transfer={"method": "full"}),
        "KIND, scratch": Method(base="kind"),
        "dense, all trained": Method(base="dense", transfer={"method": "full"}),
        "dense, scratch": Method(base="dense"),
        "dense, blocks 2 and 3 inherited": Method(base="dense", transfer={"method": "layers", "layers": (2, 3)}),
        "LoRA, rank 4": Method(base="dense", transfer={"method": "lora"}),
        "LoRA, =": Method(base="dense", transfer={"method": "lora", "rank": equal}),
        "PiSSA, =": Method(base="dense", transfer={"method": "pissa", "rank": equal}),
        "DoRA, =": Method(base="dense", transfer={"method": "dora", "rank": equal}),
        "OFT, blocks of 32": Method(base="dense", transfer={"method": "oft", "block": 32}),
        "SVDiff": Method(base="dense", transfer={"method": "svdiff"}),
    }


class Study:
    """One target data set."""

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        base = load_file(CONFIG)
        old = DataConfig(classes=tuple(range(7))) if arguments.target == "novel" else DataConfig()
        source = DataConfig(classes=(7, 8, 9)) if arguments.target == "novel" else DataConfig(source=arguments.target)
        self.target = source
        self.classes = len(open_dataset(source, "train").class_names)
        known = len(old.classes) if old.classes else 10
        kind = change(
            base, model={"num_classes": known}, data=dataclasses.asdict(old), train={"steps": arguments.pretrain}
        )
        self.bases = {"kind": kind, "dense": change(kind, model=DENSE)}
        folder = arguments.out / arguments.target
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.referee = Referee.of(source, folder / "judge.safetensors")
        self.records = Records(
            folder / "records.json", {n: getattr(arguments, n) for n in ("target", "pretrain", "at", "tune_at")}
        )
        self.sources: dict[tuple[str, int], Bundle] = {}

    def source(self, base: str, seed: int) -> Bundle:
        """A pre-trained model, trained on first use."""
        if (base, seed) not in self.sources:
            config = change(self.bases[base], train={"seed": seed})
            name = "0-6" if self.arguments.target == "novel" else "0-9"
            file = self.arguments.models / f"{base}_{name}_{config.train.steps}_{seed}.safetensors"
            self.sources[base, seed] = as_bundle(config, pretrained(config, seed, file))
        return self.sources[base, seed]

    def config(self, method: Method) -> Config:
        """The target's config, freeze switches included."""
        config = change(
            self.bases[method.base],
            model={"num_classes": self.classes, **method.model},
            data=dataclasses.asdict(self.target),
            train={"steps": max(self.arguments.at), "ema": 0.99},
            optimizer={"warmup": 5, "schedule": "constant"},
            transfer=method.transfer,
        )
        return plan(config, self.bases[method.base], "") if method.transfer else config

    def begin(self, method: Method, config: Config, seed: int) -> partition.Collections:
        config = change(config, train={"seed": seed})
        return start(config, self.source(method.base, seed)) if method.transfer else model.init(config.model, seed)

    def run(self, name: str, method: Method) -> dict[str, Any]:
        """Tune the rate on one seed, then run all seeds at it."""
        config, at = self.config(method), self.arguments.at
        merged = change(config, transfer={"method": "none"})
        initial = self.begin(method, config, self.arguments.seeds[0])
        trainer = Trainer(config)

        def tune(rate: float) -> dict[str, float]:
            weights = trainer.run(initial, rate=rate, seed=self.arguments.seeds[0], at=[self.arguments.tune_at])
            return self.referee.score(merged, weights[self.arguments.tune_at], seed=1)

        tuned: dict[float, dict[str, float]] = {}
        for rate in self.arguments.rates:
            tuned[rate] = self.records.get(f"{name} | rate {rate:g}", lambda rate=rate: tune(rate))
        # The best rate must not be the end of the grid, or the method would be sold short.
        while (best := min(tuned, key=lambda r: tuned[r]["frechet"])) == max(tuned) and best < 10:
            tuned[3 * best] = self.records.get(f"{name} | rate {3 * best:g}", lambda rate=3 * best: tune(rate))

        def evaluate(seed: int) -> dict[str, Any]:
            found = trainer.run(self.begin(method, config, seed), rate=best, seed=seed, at=at)
            return {str(k): self.referee.score(merged, weights, seed=1) for k, weights in found.items()}

        seeds = [
            self.records.get(f"{name} | seed {s} at {best:g}", lambda s=s: evaluate(s)) for s in self.arguments.seeds
        ]
        return {"rate": best, "tuning": tuned, "trained": trained_parameters(config, initial), "seeds": seeds}


def main() -> None:
    arguments = tyro.cli(Arguments)
    study = Study(arguments)
    chosen = {n: m for n, m in methods(study.classes).items() if arguments.methods is None or n in arguments.methods}
    results = {name: study.run(name, method) for name, method in chosen.items()}
    rows = [["method", "trained parameters", "rate", *(f"{k} steps: accuracy, Fréchet" for k in arguments.at)]]
    for name, found in results.items():
        cells = []
        for k in arguments.at:
            accuracy, frechet = ([run[str(k)][key] for run in found["seeds"]] for key in ("accuracy", "frechet"))
            cells.append(f"{spread(accuracy, 3)}, {spread(frechet, 2)}")
        rows.append([name, f"{found['trained']:,}", f"{found['rate']:g}", *cells])
    record = {"arguments": dataclasses.asdict(arguments), "real": study.referee.real, "results": results}
    lines = {
        name: [(k, [run[str(k)]["frechet"] for run in found["seeds"]]) for k in arguments.at]
        for name, found in results.items()
    }
    pictures = {"frechet.png": curves(lines, "steps of transfer", "Fréchet, times train vs test")}
    k = arguments.tune_at
    points = {name: [(f["trained"], [run[str(k)]["frechet"] for run in f["seeds"]])] for name, f in results.items()}
    y_label = f"Fréchet after {k} steps, times train vs test"
    pictures["parameters.png"] = curves(points, "trained parameters", y_label)
    report(study.folder, record, markdown(rows), pictures)


if __name__ == "__main__":
    entry(main)
