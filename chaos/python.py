"""Calls of the public Python functions with odd arguments: each is right, or a UserError of one sentence."""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import kind_jax as kj
from chaos.outcome import Outcome

# Given by position or by name in place of any argument.
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 3, 10**30, 0.5, float("nan"), float("inf"), "", "x", "none", "hf://", "hf://a/../b", b"x", "\0",
    "\x1b[2J", "x" * 5000, (), [], {}, {"x": 1}, {"a": float("nan")}, [None], ["x"], [0, 0], [99], [-1], [[0]], [0.5],
    [True],    np.zeros(0), np.zeros((2, 2)), np.zeros(3, np.int64), np.array([0, 77]), np.array("x"),
    np.full((1, 8, 8, 1), np.nan),
    Path(), Path("/no/such/folder"), Path("/dev/null"), object(), lambda: 0, int, Exception("x"), range(2), 1j,
)  # fmt: skip


def calls(place: Path, run: Path, artifact: Path) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Valid arguments of every public function whose arguments are a user's, by the function's name."""
    bundle = kj.open_bundle(run)
    config = kj.change(bundle.config, train={"steps": 1})
    images = np.zeros((2, 8, 8, 1), np.uint8)
    pairs = [(image, i) for i, image in enumerate(images)]
    dense = kj.change(config, model={"factor": {"projections": ()}, "label_embedding": True})
    plain = kj.Bundle(
        config=dense, collections=kj.init(dense.model, 0), groups=(), class_names=bundle.class_names, weights="ema",
        step=1, origin=place,
    )  # fmt: skip
    return {
        "open_bundle": (kj.open_bundle, {"path": artifact, "classes": [1], "weights": "ema"}),
        "sample": (bundle.sample, {"labels": [1, 2], "seed": 0}),
        "gate": (bundle.gate, {"classes": [1, {2: 0.5}, None]}),
        "export": (kj.export, {"bundle": bundle, "out": place / "out", "to": "artifact"}),
        "convert": (kj.convert, {"source": place / "nothing.safetensors", "origin": "dit"}),
        "compose": (kj.compose, {"bundle": bundle, "classes": [1], "rank": 2, "form": "auto", "criterion": "svd"}),
        "decompose": (kj.decompose, {"bundle": plain, "learngenes": 4, "tailors": 2}),
        "grow": (kj.grow, {"bundle": bundle, "other": bundle}),
        "grow_fresh": (kj.grow_fresh, {"bundle": bundle, "class_names": ["new"], "seed": 0}),
        "drop": (kj.drop, {"bundle": bundle, "classes": [1]}),
        "push": (kj.push, {"bundle": bundle, "repository": "nobody", "license": None}),
        "records": (kj.records, {"train": pairs, "class_names": ["a", "b"]}),
        "transfer_config": (kj.transfer_config, {"source": run, "method": "kind", "steps": 3}),
        "preset": (kj.preset, {"name": "digits"}),
        "load_file": (kj.load_file, {"path": place / "nothing.py"}),
        "dit": (kj.dit, {"name": "S/2"}),
        "vit": (kj.vit, {"name": "S/16"}),
        "resnet": (kj.resnet, {"depth": 18}),
        "show": (kj.show, {"images": np.zeros((2, 8, 8, 1), np.float32), "columns": 2}),
        "synthesize": (kj.synthesize, {"bundle": bundle, "directory": place / "drawn", "per_class": 1}),
        "fit": (kj.fit, {"config": config, "directory": run, "stop_after": 1, "resume": "never"}),
        "transfer": (kj.transfer, {"source": run, "config": config, "directory": run, "resume": "never"}),
        "change": (kj.change, {"config": config}),
        "change a part": (lambda part: kj.change(config, train=part), {"part": {"steps": 2}}),
        "change steps": (lambda value: kj.change(config, train={"steps": value}), {"value": 8}),
        "change classes": (lambda value: kj.change(config, data={"classes": value}), {"value": (1, 2)}),
        "preset of": (lambda value: kj.preset("images", {"data.path": value}), {"value": place}),
        "init": (kj.init, {"config": config.model, "seed": 0}),
        "task_of": (kj.task_of, {"config": config}),
        "make_step": (kj.make_step, {"task": kj.task_of(config)}),
        "first_state": (kj.first_state, {"task": kj.task_of(config), "collections": bundle.collections}),
        "open_dataset": (kj.open_dataset, {"config": config.data, "split": "test"}),
        "batches": (kj.batches, {"dataset": kj.open_dataset(config.data, "test"), "batch": 4, "seed": 0}),
        "select": (kj.select, {"tailors": bundle.collections["tailors"], "rows": [1]}),
        "concatenate": (kj.concatenate, {"banks": [bundle.collections["tailors"]]}),
        "transplant": (
            kj.transplant, {"target": bundle.collections, "source": bundle.collections, "names": ["learngenes"]},
        ),
        "one_group": (kj.one_group, {"rows": np.zeros(3, np.int32)}),
        "all_groups": (kj.all_groups, {"groups": 3, "weight": 1.0}),
        "mixture": (kj.mixture, {"weights": np.zeros((2, 3), np.float32)}),
        "class_gate": (kj.class_gate, {"config": config.model, "groups": (1, 2)}),
        "classify": (kj.classify, {"bundle": bundle, "images": np.zeros((1, 8, 8, 1), np.float32)}),
        "evaluate": (kj.evaluate, {"source": run, "count": 3, "extractor": "judge"}),
    }  # fmt: skip


def fuzz_python(place: Path, run: Path, artifact: Path, cases: int, seed: int) -> Outcome:
    """Call functions with one or two arguments replaced by odd ones.

    Args:
      place: an empty folder, which the calls may write to.
      run, artifact: of a generator; neither may change.
    """
    rng, failures, refused, right = np.random.default_rng(seed), [], 0, 0
    valid = calls(place, run, artifact)
    with contextlib.chdir(place):  # a name without a folder is a place, too
        for case in range(cases):
            name = list(valid)[case % len(valid)]
            function, arguments = valid[name]
            arguments = dict(arguments)
            known = [p for p in inspect.signature(function).parameters if p in arguments]
            for argument in rng.choice(known, size=min(len(known), 1 + (rng.random() < 0.2)), replace=False):
                arguments[str(argument)] = ODD[rng.integers(len(ODD))]
            said = ", ".join(f"{key}={repr(value)[:60]}" for key, value in arguments.items())
            try:
                function(**arguments)
                right += 1
            except kj.UserError as e:
                refused += 1
                if not str(e).strip() or "\n" in str(e) or len(str(e)) > 2000:
                    failures.append(f"seed {seed}, case {case}: {name}({said}): not a sentence: {str(e)[:300]!r}")
            except Exception:
                end = traceback.format_exc().strip().splitlines()
                failures.append(f"seed {seed}, case {case}: {name}({said}): {end[-1][:200]} [{end[-3].strip()}]")
    return Outcome(cases=cases, figures={"refused": refused, "valid": right}, failures=tuple(failures))
