"""The bandit of module-wise distillation alone: who finds the best arm, notices that it has changed, and distils well?

    make study-optima-bandit

Hypotheses: (1) whoever never forgets gives the best arm nearly all rounds and does not notice for hundreds of rounds
that another one has become the best; (2) with a discount the share of the best arm is the smaller the more is
forgotten, and the same again soon after a change; (3) rewards as small as falls of a loss are drawn from at random
unless they are scaled; (4) in a distillation of three numbers, sampling beats taking turns.

Protocol. Three arms have Gaussian rewards of means 0.2, 0.5 and 0.8 and standard deviation 0.1 for 2000 rounds; in the
second world the best and the worst change places after 1000. Regret is the sum over rounds of what the best arm's mean
is above the chosen one's. In the third world means are 0.002, 0.005 and 0.008 and the deviation is 0.001. In the
fourth, three losses of 1 shrink to 0.97, 0.9 and 0.99 of themselves when they are chosen; the reward is the relative
fall of their sum, over its root mean square, and what counts is the sum after 120 rounds. Its reference is the choice
of what will fall most, which nobody can know. Each arm is pulled once before anything else ("cold": not).
"""

from __future__ import annotations

import dataclasses
import platform
import subprocess
from pathlib import Path
from typing import Any

import bandit_worlds as worlds
import jax
import numpy as np
import tyro
from bandit_picture import picture
from common import entry, markdown, report

MEANS, NOISE, ROUNDS, SWAP = (0.2, 0.5, 0.8), 0.1, 2000, 1000
SMALL, SMALL_NOISE = (0.002, 0.005, 0.008), 0.001
FACTORS, TOY_ROUNDS = (0.97, 0.9, 0.99), 120
BIN = 25  # rounds that a point of a curve is the mean of

Way = tuple[str, dict[str, Any]]
WAYS: dict[str, Way] = {
    "in turn": ("uniform", {}),
    "at random": ("random", {}),
    "greedy, gamma 0.98": ("greedy", {"gamma": 0.98}),
    **{f"Thompson, gamma {g:g}": ("gaussian", {"gamma": g}) for g in (1.0, 0.99, 0.98, 0.95, 0.9, 0.8)},
    **{
        f"DS-TS, gamma {g:g}, tau_max {tau:g}": ("dsts", {"gamma": g, "tau_max": tau})
        for g, tau in ((0.99, 0.2), (0.98, 0.2), (0.98, 0.5), (0.98, 1.0), (0.9, 0.2))
    },
    "DS-TS, gamma 0.98, tau_max 0.2, cold": ("dsts", {"gamma": 0.98, "tau_max": 0.2, "warmup": 0}),
    **{f"window of {rounds}": ("window", {"window": rounds}) for rounds in (100, 50, 10)},
}
SCALES: dict[str, Way] = {
    f"Thompson, gamma {g:g}, {name}": ("gaussian", {"gamma": g, **given})
    for g in (1.0, 0.98)
    for name, given in (("sigma 1", {}), ("sigma 0.002", {"sigma": 0.002}), ("scaled", {"reward_scale": "rms"}))
}
SIGMAS: dict[str, Way] = {
    f"Thompson, gamma {g:g}, sigma {sigma:g}": ("gaussian", {"gamma": g, "sigma": sigma})
    for g in (0.98, 0.9)
    for sigma in (1.0, 0.5, 0.25, 0.1)
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Play all ways in all worlds."""

    seeds: int = 100
    """How many, from 0."""
    out: Path = Path("runs/study-optima-bandit")


def best_arm(means: np.ndarray, arms: np.ndarray) -> np.ndarray:
    """Whether the arm of that round's greatest mean was chosen [S, T]."""
    return arms == means.argmax(axis=1)


def regret(means: np.ndarray, arms: np.ndarray) -> np.ndarray:
    """What each round lost [S, T]."""
    chosen = np.take_along_axis(np.broadcast_to(means, (*arms.shape[:1], *means.shape)), arms[:, :, None], axis=2)
    return means.max(axis=1) - chosen[:, :, 0]


def stated(values: np.ndarray) -> dict[str, float]:
    """Mean and standard deviation over seeds."""
    return {"mean": round(float(values.mean()), 5), "deviation": round(float(values.std(ddof=1)), 5)}


def played(way: Way, means: np.ndarray, seeds: int, noise: float) -> np.ndarray:
    policy, settings = way
    return np.asarray(worlds.play(policy, means, seeds=seeds, noise=noise, **settings)[0])


def in_steady_and_swapped(way: Way, seeds: int) -> dict[str, Any]:
    steady, swapped = worlds.steady(MEANS, ROUNDS), worlds.swapped(MEANS, ROUNDS, SWAP)
    arms = played(way, steady, seeds, NOISE)
    found = {
        "share in the last 500": stated(best_arm(steady, arms)[:, -500:].mean(axis=1)),
        "regret": stated(regret(steady, arms).sum(axis=1)),
    }
    arms = played(way, swapped, seeds, NOISE)
    hit = best_arm(swapped, arms)
    return found | {
        "share 200 to 500 after the swap": stated(hit[:, SWAP + 200 : SWAP + 500].mean(axis=1)),
        "regret after the swap": stated(regret(swapped, arms)[:, SWAP:].sum(axis=1)),
        "share by rounds": hit.mean(axis=0).reshape(-1, BIN).mean(axis=1).round(4).tolist(),
    }


def distilled(way: Way, seeds: int) -> dict[str, float]:
    """The sum of losses in the end."""
    policy, settings = way
    given = {"reward_scale": "rms", **settings}
    totals = np.asarray(worlds.distil(policy, factors=FACTORS, rounds=TOY_ROUNDS, seeds=seeds, **given)[1])[:, -1]
    in_turn = np.sum(np.asarray(FACTORS) ** (TOY_ROUNDS / len(FACTORS)))
    return stated(totals) | {"share of seeds below taking turns": float(np.mean(totals < in_turn - 1e-5))}


def known_best() -> float:
    """The sum of losses where what will fall most is always chosen."""
    losses, factors = np.ones(len(FACTORS)), np.asarray(FACTORS)
    for _ in range(TOY_ROUNDS):
        best = np.argmax(losses * (1 - factors))
        losses[best] *= factors[best]
    return float(losses.sum())


def tables(results: dict[str, Any]) -> str:
    def cell(found: dict[str, float], digits: int = 3) -> str:
        return f"{found['mean']:.{digits}f} ± {found['deviation']:.{digits}f}"

    names = (
        ("share in the last 500", 3), ("regret", 0), ("share 200 to 500 after the swap", 3),
        ("regret after the swap", 0),
    )  # fmt: skip
    rows = [["", *(name for name, _ in names), "sum of losses"]]
    for way, found in results["ways"].items():
        cells = [cell(found[name], digits) for name, digits in names]
        rows.append([way, *cells, cell(results["distillation"][way])])
    rows.append(["what will fall most", *[""] * len(names), f"{results['what will fall most']:.3f}"])
    small = [["small rewards", "share of the best arm"], *([n, cell(f)] for n, f in results["small"].items())]
    sigmas = [["", "sum of losses"], *([n, cell(f)] for n, f in results["sigmas"].items())]
    return "\n".join(map(markdown, (rows, small, sigmas)))


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    # Two thousand rounds of a hundred seeds take less time than to optimise the program.
    jax.config.update("jax_disable_most_optimizations", True)
    seeds, small = arguments.seeds, worlds.steady(SMALL, ROUNDS)
    results = {
        "ways": {name: in_steady_and_swapped(way, seeds) for name, way in WAYS.items()},
        "small": {
            name: stated(best_arm(small, played(way, small, seeds, SMALL_NOISE)).mean(axis=1))
            for name, way in SCALES.items()
        },
        "distillation": {name: distilled(way, seeds) for name, way in WAYS.items()},
        "sigmas": {name: distilled(way, seeds) for name, way in SIGMAS.items()},
        "what will fall most": known_best(),
    }
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    record = {
        "what": "the bandit of module-wise distillation in four simulated worlds; mean and deviation over seeds",
        "command": "make study-optima-bandit", "commit": commit.stdout.strip() or "unknown",
        "seeds": list(range(seeds)),
        "machine": f"a shared virtual CPU core, Python {platform.python_version()}, jax {jax.__version__}, float32",
        "settings": {
            "means": MEANS, "deviation_of_rewards": NOISE, "rounds": ROUNDS, "swap_before_round": SWAP,
            "small_means": SMALL, "small_deviation": SMALL_NOISE, "factors": FACTORS, "toy_rounds": TOY_ROUNDS,
            "rounds_of_a_point": BIN, "ways": WAYS, "scales": SCALES, "sigmas": SIGMAS,
        },
        "results": results,
    }  # fmt: skip
    report(arguments.out, record, tables(results), {"optima_bandit.png": picture(record)})


if __name__ == "__main__":
    entry(main)
