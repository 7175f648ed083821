"""Whether the accelerator computes what the CPU does: losses, gradients and samples of small models.

The reference is float32 on the CPU, computed by this file as a script, in a process of its own: which attention runs is
decided by JAX's default backend, and that is the accelerator here.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_cases import batch_of, grouped
from accelerator_log import Log, Settings, WrongError
from cases import dense, kind

from kind_jax import model, sampling
from kind_jax.config import Config, change
from kind_jax.errors import UserError
from kind_jax.tasks import task_of
from kind_jax.train import state as states
from kind_jax.train.step import make_step

STEPS = 3
Found = dict[str, np.ndarray]


class Tolerance(NamedTuple):
    """The largest errors allowed, each as a share of what the reference has.

    Attributes:
      loss: of the losses of the first steps.
      gradient: norm of the difference, over all leaves.
      leaf: the same of the leaf where it is largest; of leaves with little gradient, as a share of a typical leaf's.
      samples: norm of the difference of images.
    """

    loss: float
    gradient: float
    leaf: float
    samples: float


# float32 is float32 only at the highest precision: by default NVIDIA's products may be TF32, and a TPU's are bfloat16.
_EXACT = Tolerance(1e-5, 1e-4, 1e-3, 1e-4)
_ROUGH = Tolerance(2e-3, 2e-2, 1e-1, 1e-2)
MODES: dict[str, tuple[str, str | None, Tolerance]] = {
    "float32, highest": ("float32", "highest", _EXACT),
    "float32, default": ("float32", None, _ROUGH),
    "bfloat16": ("bfloat16", None, _ROUGH),
}


def models(*, tiny: bool) -> dict[str, Callable[[], Config]]:
    """The models that are compared, in float32."""
    size: dict[str, Any] = {"width": 128, "depth": 2, "tokens": 64, "batch": 16, "classes": 40}
    if tiny:
        size |= {"width": 32, "depth": 1, "tokens": 16}
    few, many = kind(**size, tailors=4, scan_unroll=1), kind(**size, tailors=10, scan_unroll=1)
    made = {"dense": lambda: dense(few), "KIND, N_T 4": lambda: few}
    if not tiny:  # beyond 8 tailors, a batched product instead of a sum of outer products
        made["KIND, N_T 10"] = lambda: many
    return made | {"KIND, N_T 10, grouped": lambda: grouped(many)}


def compute(config: Config) -> Found:
    """Losses of the first steps, the first gradient, and samples.

    The gradient is read out of the optimizer's first moments after one step, so that everything a training step does
    with rows of the bank is behind it.
    """
    task, batch = task_of(config), batch_of(config)
    rng = np.random.default_rng(1)
    # Off the initialisation, at which a DiT's output is 0 whatever its blocks do.
    weights = jax.tree.map(
        lambda a: a + np.float32(0.05) * rng.standard_normal(a.shape, np.float32), model.init(config.model, 0)
    )
    labels = np.asarray(batch["label"])
    gate = model.class_gate(config.model)
    gates = [gate(jnp.asarray(labels), jnp.full(len(labels), null)) for null in (False, True)]
    images = sampling.draw(
        config, jax.device_put(weights), labels, gates[0], null_gate=gates[1], seed=0,
        sampler=dataclasses.replace(config.sampler, steps=4),
    )  # fmt: skip
    found: Found = {"samples": images}
    state = jax.jit(lambda w: states.start(task, w))(weights)
    step, losses = jax.jit(make_step(task), donate_argnums=0), []
    for i in range(STEPS):
        state, metrics = step(state, batch)
        losses.append(np.asarray(metrics["loss"], np.float32))
        if i == 0:
            found |= {f"gradient{path}": np.asarray(leaf) for path, leaf in _moments(state.opt)}
    return found | {"losses": np.stack(losses)}


def _moments(opt: Any) -> list[tuple[str, Any]]:
    """First moments with their paths: after one step, the gradient times 1 - b1."""
    leaves = jax.tree_util.tree_leaves_with_path(opt)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves if ".mu" in jax.tree_util.keystr(path)]


def errors(found: Found, reference: Found) -> Tolerance:
    """How far ``found`` is from the reference, in the terms of :class:`Tolerance`; NaN where something is not finite.

    Raises:
      UserError: they are not of the same model.
    """
    if {name: a.shape for name, a in found.items()} != {name: a.shape for name, a in reference.items()}:
        raise UserError(
            "the arrays of the accelerator and of the CPU have other names or shapes, so none was compared."
        )
    names = [name for name in reference if name.startswith("gradient")]
    wrong = np.array([_norm(found[name] - reference[name]) for name in names])
    right = np.array([_norm(reference[name]) for name in names])
    typical = np.sqrt(np.mean(right**2))
    return Tolerance(
        loss=float(np.max(np.abs(found["losses"] - reference["losses"]) / np.abs(reference["losses"]))),
        gradient=_norm(wrong) / _norm(right),
        leaf=float(np.max(wrong / np.maximum(right, 0.1 * typical))),
        samples=_norm(found["samples"] - reference["samples"]) / _norm(reference["samples"]),
    )


def _norm(a: np.ndarray) -> float:
    return float(np.linalg.norm(a.astype(np.float64).ravel()))


def judge(found: Found, reference: Found, allowed: Tolerance) -> dict[str, Any]:
    """The errors and what was allowed.

    Raises:
      WrongError: one is larger, or not a number.
    """
    made = errors(found, reference)._asdict()
    figures = {"errors": made, "allowed": allowed._asdict(), "losses": found["losses"].tolist()}
    bad = [name for name, error in made.items() if not error <= getattr(allowed, name)]
    if bad:
        said = ", ".join(f"{name} {made[name]:.2g} (at most {getattr(allowed, name):.0e})" for name in bad)
        raise WrongError(f"further from float32 on the CPU than allowed: {said}", figures)
    return figures


def measure(log: Log, settings: Settings) -> None:
    """Every model in every mode against the reference."""
    tiny = settings.sizes == ("tiny",)
    modes = [mode for mode in MODES if not tiny or mode != "float32, default"]
    wanted = [(name, mode) for name in models(tiny=tiny) for mode in modes if settings.wants(f"{name}; {mode}")]
    names = list(dict.fromkeys(name for name, _ in wanted))
    references: dict[str, Found] = {}

    def refer() -> dict[str, Any]:
        references.update(_references(names, tiny=tiny))
        return {"models": names, "steps": STEPS}

    if not names or log.case("numerics", "reference on the CPU", refer).status != "ok":
        return
    for name, mode in wanted:
        log.case("numerics", f"{name}; {mode}", lambda name=name, mode=mode: _compare(name, mode, references, tiny))


def _compare(name: str, mode: str, references: dict[str, Found], tiny: bool) -> dict[str, Any]:
    dtype, precision, allowed = MODES[mode]
    config = change(models(tiny=tiny)[name](), model={"dtype": dtype})
    if precision is None:
        return judge(compute(config), references[name], allowed)
    with jax.default_matmul_precision(precision):
        return judge(compute(config), references[name], allowed)


def _references(names: list[str], *, tiny: bool) -> dict[str, Found]:
    """What this file writes as a script.

    Raises:
      UserError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, folder, "tiny" if tiny else "small", *names]
        done = subprocess.run(command, env=on_cpu(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f"the reference on the CPU failed: {' '.join(done.stderr.strip().splitlines()[-1:])}")
        made = {}
        for i, name in enumerate(names):
            with np.load(Path(folder) / f"{i}.npz") as arrays:
                made[name] = dict(arrays)
    return made


def on_cpu() -> dict[str, str]:
    """The environment of a child that computes on the CPU."""
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(paths)}


if __name__ == "__main__":
    # Compiling is most of the time; a reference need not be fast.
    jax.config.update("jax_disable_most_optimizations", True)
    known = models(tiny=sys.argv[2] == "tiny")
    for number, name in enumerate(sys.argv[3:]):
        with jax.default_matmul_precision("highest"):
            arrays: Any = compute(known[name]())
        np.savez(Path(sys.argv[1]) / f"{number}.npz", **arrays)
