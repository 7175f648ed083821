"""ZipIt! on small classifiers: two networks of different classes become one without training.

    make study-merging

Question: how well does one network recognise ten classes when it was merged from two that were trained apart, each on
five of them? Hypotheses, from the publication (Stoica et al. 2024, arXiv 2305.03053): (1) joint accuracy rises in the
order average, permute, zip, partial zip, ensemble; (2) zipping gains the more over permuting the wider the networks
are, 20 points and more where they are widest; (3) the networks may go on apart from any stage on, and the earlier they
do, the better and the dearer the whole. For transformers of different tasks no success has been published; ours (4) is
that zipping with the residual stream rotated beats averaging and permuting by more than the spread.

Protocol. A pair of networks of one architecture and two seeds, trained on disjoint halves of the classes, which the
pair's seed draws, with cross-entropy and a head of its own each (the publication's networks were trained against text
embeddings of CLIP). Joint accuracy is that among all ten classes, by the greatest log-probability within any head;
accuracy per task is that among an image's own five. Sets: digits (8 x 8), animals scaled to 8 x 8, and as two tasks of
different sets a pair's first model of animals and its second one of digits. Networks: ResNet-20 of one, two and four
times the channels (SGD with momentum 0.9, decay of kernels 5e-4, warm-up, cosine, weights averaged with 0.95) and a ViT
of width 64 and four blocks (AdamW). A fifth of the digits and a tenth of the animals are held out for validation. The
rate is chosen there at width 1 with half of the steps and a seed that is not reported, alpha and beta of zipping once
for each setting and kind of network, with the pair of seed 0, by joint accuracy, for ResNets at the width that is
named; permuting and averaging have nothing to choose. The test split is looked at once for each merged model.

ResNets have 240 steps of 32 images; with 120, which were planned, a first one of width 1 stayed at 91 % of its
validation images. The widest have 120 nevertheless, for want of time, and a third of the rate (see WIDE_RATE). The
published alpha and beta, and how features correlate within a model, were added when validation had chosen the largest
beta. The negative control first dealt out the features of the second network alone, and 10 images were too few to
match on.

All methods match features on the same 512 training images, half of each task, and all ResNets have BatchNorm's
statistics found anew on these. "Zip" shares everything but the heads; "zip to stage 2" leaves the third stage to each
network of its own (13 of 20 layers are shared), "to stage 1" the second too (7 of 20). The ensemble is both networks
side by side. Negative control: zip where the features of each network were dealt out to each other's numbers before
matching, so that as much is merged but has nothing in common.

Results and weights are kept under --out, and an interrupted study continues.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import tyro
from common import Records, entry, report
from merging_methods import (
    BATCH,
    GRID,
    IMAGES,
    Method,
    Pair,
    best,
    methods_of,
    relative_costs,
    tune,
)
from merging_tables import picture, tables
from merging_training import FEWER, RATES, STEPS, TUNING_SEED, VIT, WIDE_RATE, Net, halves, trained

from kind_jax.host import keep_memory

NETS = {
    "digits": (Net("resnet", 1), Net("resnet", 2), VIT, Net("resnet", 4)),
    "animals": (Net("resnet", 1), VIT),
    "animals + digits": (Net("resnet", 1), VIT),
}
TUNED_WIDTH = 1
ABLATED = "digits", Net("resnet", 2)
COUNTS = 32, 100, 320, None
SHARES = (0.25,)
PUBLISHED = 0.3, 0.125


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Train all pairs, choose alpha and beta, merge in all ways, and measure on the test split."""

    seeds: tuple[int, ...] = (0, 1, 2)
    out: Path = Path("runs/study-merging")


class Study:
    def __init__(self, arguments: Arguments, records: Records) -> None:
        self.records, self.out, self.seeds = records, arguments.out, arguments.seeds
        self._pairs: dict[Any, Pair] = {}

    def pair(self, what: str, net: Net, seed: int, share: float = 1.0) -> Pair:
        key = what, net, seed, share
        if key not in self._pairs:
            self._pairs = {key: Pair(what, net, seed, lambda base: trained(base, self.records, self.out), share)}
        return self._pairs[key]

    def chosen(self, what: str, net: Net) -> tuple[float, float]:
        """Alpha and beta of a setting and kind of network."""
        small = net._replace(width=TUNED_WIDTH)
        how = methods_of(small)["zip"]
        name = f"alpha and beta, {what}, {small}"
        return best(self.records.get(name, lambda: tune(self.pair(what, small, self.seeds[0]), how)))

    def measured(self, what: str, net: Net, seed: int) -> None:
        """All methods on the test split."""
        chosen, name = self.chosen(what, net), f"{what}, {net}, seed {seed}"

        def get(run: str, compute: Callable[[Pair], Any]) -> None:
            self.records.get(f"{name}: {run}", lambda: compute(self.pair(what, net, seed)))

        get("one model", lambda pair: pair.alone("test"))
        get("ensemble", lambda pair: pair.ensemble("test"))
        for run, how in methods_of(net).items():
            get(run, lambda pair, how=how: pair.score(pair.merged(how, chosen), "test"))
        get("correlations", lambda pair: pair.correlations())
        get("nearest within a model", lambda pair: pair.nearest())

    def ablated(self, seed: int) -> None:
        """What the result depends on, in one setting."""
        what, net = ABLATED
        chosen, name = self.chosen(what, net), f"{what}, {net}, seed {seed}"
        average, permute, zip_ = Method("identity"), Method("permute"), Method("zip")

        def get(run: str, how: Method, share: float = 1.0, pairs: tuple[float, float] = chosen, **given: Any) -> None:
            def compute() -> dict[str, Any]:
                pair = self.pair(what, net, seed, share)
                return pair.score(pair.merged(how, pairs, **given), "test")

            self.records.get(f"{name}: {run}", compute)

        for label, (alpha, beta) in {"": chosen, " by default": PUBLISHED}.items():
            compute = functools.partial(Pair.within, how=zip_, chosen=(alpha, beta))
            self.records.get(f"{name}: merges within a model{label}", lambda c=compute: c(self.pair(what, net, seed)))
        get(f"zip, alpha {PUBLISHED[0]:g}, beta {PUBLISHED[1]:g}", zip_, pairs=PUBLISHED)
        get("zip, scrambled", zip_, scrambled=True)
        get("optimal", Method("optimal"))
        for run, how in (("average", average), ("permute", permute), ("zip", zip_)):
            get(f"{run}, without reset", how, reset=False)
        for count in COUNTS:
            label = "all" if count is None else count
            for run, how in (("permute", permute), ("zip", zip_)):
                get(f"{run}, {label} images", how, images=count)
        for share in SHARES:
            pair = functools.partial(self.pair, what, net, seed, share)
            part = f"{share:g} of the steps"
            self.records.get(f"{name}: ensemble, {part}", lambda pair=pair: pair().ensemble("test"))
            for run, how in (("average", average), ("permute", permute), ("zip", zip_)):
                get(f"{run}, {part}", how, share)


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    keep_memory()
    arguments.out.mkdir(parents=True, exist_ok=True)
    # Each merge traces programs anew; what they compile to is the same.
    jax.config.update("jax_compilation_cache_dir", str(arguments.out / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    steps = {f"{source}, {kind}": count for (source, kind), count in STEPS.items()}
    records = Records(arguments.out / "results.json", {"steps": steps, "images": IMAGES})
    records.get("commit", _commit)  # the one that the study began with
    study = Study(arguments, records)
    for what, nets in NETS.items():
        for net in nets:
            for seed in arguments.seeds:
                study.measured(what, net, seed)
            if (what, net) == ABLATED:
                for seed in arguments.seeds:
                    study.ablated(seed)
    for net in {net for nets in NETS.values() for net in nets}:
        records.get(f"costs, {net}", functools.partial(relative_costs, net))
    record = {
        "what": "pairs of networks of disjoint halves of the classes, merged without training; joint accuracy and "
        "accuracy per task on the test split; alpha and beta chosen on the validation split with the pair of seed 0",
        "command": "make study-merging", "commit": records.found["commit"], "seeds": list(arguments.seeds),
        "machine": f"a shared virtual CPU core, Python {platform.python_version()}, jax {jax.__version__}, float32",
        "settings": {
            "nets": {what: [str(net) for net in nets] for what, nets in NETS.items()},
            "halves": {seed: halves(seed) for seed in arguments.seeds}, "steps": steps,
            "share_of_steps_by_width": FEWER, "images": IMAGES,
            "batch": BATCH, "rates": RATES, "tuning_seed": TUNING_SEED, "grid": GRID, "tuned_width": TUNED_WIDTH,
            "ablated": f"{ABLATED[0]}, {ABLATED[1]}", "published": PUBLISHED, "rate_of_the_widest": WIDE_RATE,
        },
        "results": records.found,
    }  # fmt: skip
    report(arguments.out, record, tables(record), {"merging.png": picture(record)})


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    entry(main)
