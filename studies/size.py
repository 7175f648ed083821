"""Quality against size: composed KIND, a truncated dense model, and small models trained from scratch.

    make study-size

Hypotheses: a model composed of learngenes and one class's tailors (1) is better, at every size, than a dense DiT
trained for as many steps and truncated to the same ranks by SVD afterwards, both without retraining; (2) may lose to a
small dense DiT that was trained at that size: those are trained for as many steps, one training a size, where KIND has
one training for all sizes.

Composed models serve one class each; the samples of ten of them are judged together. Sizes count one such model.
Every result is kept under --out, and an interrupted study continues.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from common import COUNT, Records, Referee, as_bundle, entry, markdown, plain, pretrained, report, spread

from kind_jax import partition
from kind_jax.config import Config, change, load_file
from kind_jax.deploy.bundle import Bundle
from kind_jax.deploy.compose import compose
from kind_jax.deploy.cost import total
from kind_jax.nn.gate import learngenes_only
from kind_jax.plots import curves
from kind_jax.sampling import draw

CONFIG = Path(__file__).parents[1] / "configs" / "digits.py"
DENSE = {"factor": {"projections": ()}, "label_embedding": True}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train once, cut to many sizes, and compare."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 1200
    sizes: tuple[int, ...] = (90_000, 120_000, 150_000, 180_000, 220_000, 260_000, 300_000)
    """Most parameters of each composed and of each truncated model."""
    criteria: tuple[Literal["svd", "energy"], ...] = ("svd",)
    """How components are ranked."""
    widths: tuple[int, ...] = (24, 40, 52)
    """Widths of the dense models trained from scratch."""
    out: Path = Path("runs/study-size")
    models: Path = Path("runs/study-models")
    """Trained models, shared by the studies."""


class Study:
    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        base = change(load_file(CONFIG), train={"steps": arguments.steps})
        self.kind, self.dense = base, change(base, model=DENSE)
        arguments.out.mkdir(parents=True, exist_ok=True)
        self.referee = Referee.of(base.data, arguments.out / "judge.safetensors")
        self.records = Records(arguments.out / "records.json", {"steps": arguments.steps})

    @functools.lru_cache(maxsize=8)  # noqa: B019 (one study a process)
    def weights(self, name: str, config: Config, seed: int) -> partition.Collections:
        return pretrained(config, seed, self.arguments.models / f"{name}_{config.train.steps}_{seed}.safetensors")

    def composed(self, seed: int, size: int, criterion: Literal["svd", "energy"]) -> dict[str, float]:
        """Ten one-class models of at most this size, and their samples judged together."""
        bundle = as_bundle(self.kind, self.weights("kind", self.kind, seed))
        parts = [self.samples_at(bundle, (c,), size, criterion) for c in range(10)]
        return self.judged(parts)

    def cut(self, seed: int, size: int) -> dict[str, float]:
        """The dense model, its weights truncated by the same routine."""
        bundle = as_bundle(self.dense, self.weights("dense", self.dense, seed))
        return self.judged([self.samples_at(bundle, tuple(range(10)), size, "svd")])

    def samples_at(
        self, bundle: Bundle, classes: tuple[int, ...], size: int, criterion: Literal["svd", "energy"]
    ) -> tuple[int, np.ndarray, np.ndarray]:
        """Parameters of the model that is left within ``size``, and its samples."""
        made = compose(bundle, classes=classes, max_params=size, criterion=criterion)
        # Multiplied out, every composed model is the same program as the dense one: the same samples, one compilation.
        whole = compose(made.bundle, classes=classes, form="dense").bundle
        labels = np.resize(np.array(classes, np.int32), COUNT * len(classes) // 10)
        gate = learngenes_only()
        images = draw(plain(whole.config), whole.collections, labels, gate, null_gate=gate, seed=1 + classes[0])
        return made.after.parameters, images, labels

    def judged(self, parts: list[tuple[int, np.ndarray, np.ndarray]]) -> dict[str, float]:
        sizes, images, labels = zip(*parts, strict=True)
        score = self.referee.score_images(np.concatenate(images), np.concatenate(labels))
        return {"parameters": max(sizes), **score}

    def small(self, seed: int, width: int) -> dict[str, float]:
        """A dense model of this width, trained from scratch."""
        config = change(self.dense, model={"width": width})
        weights = self.weights(f"dense_w{width}", config, seed)
        return {"parameters": total(config.model, 10).parameters, **self.referee.score(config, weights, seed=1)}

    def over_seeds(self, name: str, compute: Callable[[int], Any]) -> list[dict[str, float]]:
        return [self.records.get(f"{name} | seed {s}", lambda s=s: compute(s)) for s in self.arguments.seeds]


def main() -> None:
    arguments = tyro.cli(Arguments)
    study = Study(arguments)
    results: dict[str, dict[int, list[dict[str, float]]]] = {}
    for criterion in arguments.criteria:
        name = f"composed KIND, one class, {criterion}"
        results[name] = {
            n: study.over_seeds(f"{name} | {n}", lambda s, n=n, c=criterion: study.composed(s, n, c))
            for n in arguments.sizes
        }
    results["dense, truncated by SVD"] = {
        n: study.over_seeds(f"dense, truncated | {n}", lambda s, n=n: study.cut(s, n)) for n in arguments.sizes
    }
    results["dense, trained at its size"] = {
        w: study.over_seeds(f"dense, trained | width {w}", lambda s, w=w: study.small(s, w))
        for w in (*arguments.widths, study.dense.model.width)
    }
    rows = [["model", "bound or width", "parameters", "class accuracy", "Fréchet, times train vs test"]]
    for name, found in results.items():
        for at, runs in found.items():
            accuracy, frechet = ([run[key] for run in runs] for key in ("accuracy", "frechet"))
            rows.append([name, str(at), f"{runs[0]['parameters']:,}", spread(accuracy, 3), spread(frechet, 2)])
    record = {"arguments": dataclasses.asdict(arguments), "real": study.referee.real, "results": results}
    lines = {
        name: sorted((runs[0]["parameters"], [run["frechet"] for run in runs]) for runs in found.values())
        for name, found in results.items()
    }
    picture = curves(lines, "parameters", "Fréchet, times train vs test", level=1.0)
    report(arguments.out, record, markdown(rows), {"frechet.png": picture})


if __name__ == "__main__":
    entry(main)
