"""Where the class knowledge sits: tailors swapped, knocked out, and trained under a meaningless map.

    make study-diversion

Hypotheses: (1) with the tailors of class j on, the judge sees class j, whatever label the embedding got; (2) learngenes
alone draw no class in particular; (3) silencing the tailors of a part of the network lowers the accuracy, so that the
class knowledge can be located. Negative control: a model whose tailors were chosen by shuffled labels during training,
everything else equal. Its tailors can carry no class, so its accuracy must be at chance; if it were not, the judge or
the set-up would leak.

Every result is kept under --out, and an interrupted study continues.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro
from common import COUNT, Records, Referee, entry, markdown, plain, pretrained, report, spread

from kind_jax import partition
from kind_jax.config import Config, change, load_file
from kind_jax.data.dataset import Dataset, MemorySource, open_dataset
from kind_jax.nn.gate import Gate, learngenes_only, one_group
from kind_jax.plots import matrix
from kind_jax.sampling import draw

CONFIG = Path(__file__).parents[1] / "configs" / "digits.py"
EACH = 20  # samples of each pair of the swap matrix


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train the three models and take them apart."""

    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 1200
    out: Path = Path("runs/study-diversion")
    models: Path = Path("runs/study-models")
    """Trained models, shared by the studies."""


def shuffled(dataset: Dataset, seed: int) -> Dataset:
    """The same images under labels that say nothing about them, each label as frequent as before."""
    records = dataset.source.gather(np.arange(len(dataset.source)))
    labels = np.random.default_rng(seed).permutation(records["label"])
    return dataclasses.replace(dataset, source=MemorySource(images=records["image"], labels=labels))


def without(tailors: dict[str, Any], *, projection: str | None = None, block: int | None = None) -> dict[str, Any]:
    """The bank with the tailors of one projection, or of one block, silenced."""
    leaves = partition.flatten(tailors)
    for path, leaf in leaves.items():
        if path.endswith("/s_t") and (projection is None or f"/{projection}/" in path):
            leaf = np.array(leaf)
            leaf[:, slice(None) if block is None else block] = 0
            leaves[path] = leaf
    return partition.unflatten(leaves)


class Study:
    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        base = change(load_file(CONFIG), train={"steps": arguments.steps})
        self.configs = {"kind": base, "kind_embedding": change(base, model={"label_embedding": True}), "control": base}
        arguments.out.mkdir(parents=True, exist_ok=True)
        self.referee = Referee.of(base.data, arguments.out / "judge.safetensors")
        self.records = Records(arguments.out / "records.json", {"steps": arguments.steps})
        self.data = open_dataset(base.data, "train")

    def weights(self, name: str, seed: int) -> partition.Collections:
        config = self.configs[name]
        data = shuffled(self.data, seed) if name == "control" else None
        file = self.arguments.models / f"{name}_{config.train.steps}_{seed}.safetensors"
        return pretrained(config, seed, file, data)

    def samples(self, config: Config, weights: partition.Collections, labels: np.ndarray, gate: Gate) -> np.ndarray:
        return draw(plain(config), weights, labels, gate, null_gate=learngenes_only(), seed=1, batch=COUNT)

    def seen(self, config: Config, weights: partition.Collections, labels: np.ndarray, gate: Gate) -> np.ndarray:
        return self.referee.judge.predict(self.samples(config, weights, labels, gate))

    def accuracy(self, name: str, seed: int) -> dict[str, float]:
        """With the right tailors, with none, and with those of the next class."""
        config, weights = self.configs[name], self.weights(name, seed)
        labels = np.arange(COUNT, dtype=np.int32) % 10
        own, other = one_group(jnp.asarray(labels)), one_group(jnp.asarray((labels + 1) % 10))
        swapped = self.seen(config, weights, labels, other)
        return {
            "right": float(np.mean(self.seen(config, weights, labels, own) == labels)),
            "none": float(np.mean(self.seen(config, weights, labels, learngenes_only()) == labels)),
            "permuted": float(np.mean(swapped == labels)),
            "permuted, follows the tailors": float(np.mean(swapped == (labels + 1) % 10)),
        }

    def swap(self, seed: int) -> dict[str, list[list[float]]]:
        """Embedding label i, tailors j: how often the judge sees i, and j."""
        config, weights = self.configs["kind_embedding"], self.weights("kind_embedding", seed)
        label, tailor = (a.reshape(-1).astype(np.int32) for a in np.mgrid[:10, :10])
        label, tailor = np.repeat(label, EACH), np.repeat(tailor, EACH)
        seen = self.seen(config, weights, label, one_group(jnp.asarray(tailor)))
        return {
            name: (seen == wanted).reshape(10, 10, EACH).mean(-1).tolist()
            for name, wanted in (("label", label), ("tailors", tailor))
        }

    def knock_out(self, seed: int) -> dict[str, float]:
        """Accuracy with the tailors of one projection or one block silenced."""
        config, weights = self.configs["kind"], self.weights("kind", seed)
        labels = np.arange(COUNT, dtype=np.int32) % 10
        parts: dict[str, dict[str, Any]] = {n: {"projection": n} for n in config.model.factor.projections}
        parts |= {f"block {i}": {"block": i} for i in range(config.model.depth)}
        found = {}
        for name, part in parts.items():
            silenced = {**weights, "tailors": without(weights["tailors"], **part)}
            seen = self.seen(config, silenced, labels, one_group(jnp.asarray(labels)))
            found[name] = float(np.mean(seen == labels))
        return found


def main() -> None:
    arguments = tyro.cli(Arguments)
    study = Study(arguments)
    get, seeds = study.records.get, arguments.seeds
    names = {"kind": "KIND", "kind_embedding": "KIND with a label embedding", "control": "control: shuffled labels"}
    accuracy = {n: [get(f"{n} | seed {s}", lambda n=n, s=s: study.accuracy(n, s)) for s in seeds] for n in names}
    swaps = [get(f"swap | seed {s}", lambda s=s: study.swap(s)) for s in seeds]
    knocked = [get(f"knock-out | seed {s}", lambda s=s: study.knock_out(s)) for s in seeds]
    head = ["right", "none", "permuted", "permuted, follows the tailors"]
    rows = [["model", *(f"tailors: {h}" for h in head)]]
    rows += [[names[n], *(spread([run[h] for run in runs], 3) for h in head)] for n, runs in accuracy.items()]
    parts = [["silenced tailors", "class accuracy"]]
    parts += [[name, spread([run[name] for run in knocked], 3)] for name in knocked[0]]
    means = {key: np.mean([s[key] for s in swaps], axis=0) for key in ("label", "tailors")}
    off = ~np.eye(10, dtype=bool)
    text = (
        f"{markdown(rows)}\n{markdown(parts)}\nSwap matrix off the diagonal, label embedding i and tailors j: the "
        f"judge sees j in {means['tailors'][off].mean():.3f} and i in {means['label'][off].mean():.3f} of them.\n"
    )
    record = {"arguments": dataclasses.asdict(arguments), "accuracy": accuracy, "swap": swaps, "knock_out": knocked}
    panels = {"sees the tailors' class": means["tailors"], "sees the label's class": means["label"]}
    picture = matrix(panels, "tailors of class", "label in the embedding")
    report(arguments.out, record, text, {"swap.png": picture})


if __name__ == "__main__":
    entry(main)
