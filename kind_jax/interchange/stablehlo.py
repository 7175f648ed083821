"""A model as a StableHLO program that needs neither kind_jax nor flax to run.

    denoiser.stablehlo     one evaluation of the model, serialised by jax.export, for any number of images
    weights.safetensors    its first argument: constants inside a program may take 2 GB at most, and be shared by none
    signature.json         arguments, classes, and the diffusion process that the model was trained with
    run.py                 loads, evaluates and samples

JAX promises to read a program for at least six months after the release that wrote it. XLA compiles it when it is first
called, for the platform that is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax import export as jax_export
from jaxtyping import Array, Float, Int

from kind_jax import __version__, model, partition
from kind_jax.config import Config, Contraction, ModelConfig
from kind_jax.deploy import artifact, cost
from kind_jax.deploy.bundle import Bundle
from kind_jax.diffusion.gaussian import make_gaussian
from kind_jax.errors import UserError
from kind_jax.files import atomic_directory
from kind_jax.interchange import standalone
from kind_jax.nn import contraction
from kind_jax.nn.gate import Gate
from kind_jax.partition import TAILORS
from kind_jax.untrusted import documents

PLATFORMS = ("cpu", "cuda", "tpu")
PROGRAM, WEIGHTS, SIGNATURE, SCRIPT = "denoiser.stablehlo", "weights.safetensors", "signature.json", "run.py"
FORMAT = "kind_jax stablehlo 1"

_IMAGES = 8  # a batch for which the order of thin products should be the cheaper one

Weights = dict[str, Float[np.ndarray, "..."]]


def export(bundle: Bundle, folder: str | Path, *, replace: bool = False) -> dict[str, Any]:
    """Write a model as a program with its weights.

    The program computes in float32, whatever ``model.dtype`` is. It takes the weights, images [b, H, W, C], times [b]
    as the diffusion process presents them to the model, and labels [b], for any b, and finds the tailors of each label
    itself.

    Args:
      bundle: a run or an artifact, with any number of its groups.
      folder: to write.
      replace: whether a folder that this function wrote is replaced.

    Returns:
      What signature.json says.

    Raises:
      UserError: the folder exists and is not to be replaced, is something else, or cannot be written.
    """
    folder = Path(folder)
    _check_folder(folder, replace)
    with atomic_directory(folder, replace=replace) as inside:
        weights = {path: np.ascontiguousarray(a) for path, a in partition.flatten(bundle.collections).items()}
        program = _program(bundle, weights)
        safetensors.numpy.save_file(weights, inside / WEIGHTS)
        (inside / PROGRAM).write_bytes(program.serialize())
        with (inside / WEIGHTS).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        signature = _signature(bundle, weights, program, digest)
        (inside / SIGNATURE).write_text(json.dumps(signature, indent=1) + "\n")
        (inside / SCRIPT).write_text(Path(standalone.__file__).read_text())
    return signature


def _check_folder(folder: Path, replace: bool) -> None:
    for parent in folder.absolute().parents:
        if (parent / artifact.MANIFEST).is_file():
            raise UserError(f"{str(folder)!r} lies inside the artifact {str(parent)!r}; choose another folder.")
    if not (replace and folder.is_dir()):
        return
    named = (folder / SIGNATURE).is_file() and documents.read(folder / SIGNATURE, 64 << 20)
    ours = isinstance(named, dict) and named.get("format") == FORMAT
    if not ours or {p.name for p in folder.iterdir()} - {PROGRAM, WEIGHTS, SIGNATURE, SCRIPT}:
        raise UserError(f"{str(folder)!r} is not an exported program and nothing else, so it is not replaced.")


def _program(bundle: Bundle, weights: Weights) -> jax_export.Exported:
    config = bundle.config.model
    (batch,) = jax_export.symbolic_shape("b")
    images = (batch, config.size, config.size, config.channels)
    with _no_places():
        return jax_export.export(jax.jit(_denoiser(bundle)), platforms=PLATFORMS)(
            {path: jax.ShapeDtypeStruct(a.shape, a.dtype) for path, a in weights.items()},
            jax.ShapeDtypeStruct(images, jnp.float32),
            jax.ShapeDtypeStruct((batch,), jnp.float32),
            jax.ShapeDtypeStruct((batch,), jnp.int32),
        )


@contextlib.contextmanager
def _no_places() -> Iterator[None]:
    """Without the lines of source code that operations come from, which name folders of this machine."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def _denoiser(bundle: Bundle) -> Callable[..., Float[Array, "B H W out"]]:
    config, gates = bundle.config.model, bundle.gates
    # What depends on the batch cannot be chosen for one of unknown size, nor a kernel for an unknown platform.
    settings = dataclasses.replace(config, dtype="float32", contraction=_order(config), remat=False)
    answered = (*_served(bundle), *((config.num_classes,) if _has_null(bundle) else ()))

    def denoise(
        weights: dict[str, Float[Array, ...]],
        images: Float[Array, "B H W C"],
        t: Float[Array, " B"],
        labels: Int[Array, " B"],
    ) -> Float[Array, "B H W out"]:
        collections = {name: {} for name in partition.COLLECTIONS} | partition.unflatten(weights)
        gate = gates(labels, labels == config.num_classes)
        if collections[TAILORS] and gate.index.shape[1] == 1:  # the model would compare the batch with the bank
            rows = gate.index[:, 0]
            collections[TAILORS] = jax.tree.map(lambda a: a[rows], collections[TAILORS])
            gate = Gate(jnp.arange(labels.shape[0])[:, None], gate.weight)
        out = model.apply(settings, collections, images, t, labels, gate)
        # A lookup beyond a table gives some row of it: a class that is not served must not look like one that is.
        known = jnp.any(labels[:, None] == jnp.asarray(answered, jnp.int32)[None, :], axis=1)
        return jnp.where(known[:, None, None, None], out, jnp.nan)

    return denoise


def _served(bundle: Bundle) -> list[int]:
    return [c for c, row in enumerate(bundle.gates.row_of_class) if row >= 0]


def _has_null(bundle: Bundle) -> bool:
    """Whether a label alone can say the null class: with null_gate "keep" it has the tailors of another class."""
    model = bundle.config.model
    return model.null_gate != "keep" if bundle.collections[TAILORS] else model.label_embedding


def _order(config: ModelConfig) -> Contraction:
    """The order of products that is the cheaper one for a few images, over all weights."""

    def flops(order: contraction.Order) -> int:
        sizes = config.projection_sizes
        return sum(
            contraction.flops(order, d_in, form.shared, d_out, _IMAGES * cost.rows_of(config, name))
            for name, form in config.forms.items()
            for d_in, d_out in [sizes[name.partition("/")[2]]]
            if form.shared
        )

    return "folded" if flops("folded") < flops("factored") else "factored"


def _signature(bundle: Bundle, weights: Weights, program: jax_export.Exported, digest: str) -> dict[str, Any]:
    config = bundle.config.model
    image, served = [config.size, config.size], _served(bundle)
    return {
        "format": FORMAT,
        "kind_jax": __version__,
        "jax": jax.__version__,
        "calling_convention": program.calling_convention_version,
        "platforms": list(program.platforms),
        "weights": {
            "sha256": digest,
            "arrays": {path: {"shape": list(a.shape), "dtype": a.dtype.name} for path, a in weights.items()},
        },
        "inputs": {
            "weights": "a dictionary of the arrays of weights.safetensors",
            "images": {"shape": ["b", *image, config.channels], "dtype": "float32"},
            "t": {"shape": ["b"], "dtype": "float32", "range": [0, 1000]},
            "labels": {"shape": ["b"], "dtype": "int32"},
        },
        "output": {"shape": ["b", *image, config.out_channels], "dtype": "float32"},
        "classes": {
            "served": served,
            "names": [bundle.class_names[c] for c in served],
            "null": config.num_classes if _has_null(bundle) else None,
            "others": "NaN",
        },
        "diffusion": _diffusion(bundle.config),
    }


def _diffusion(config: Config) -> dict[str, Any]:
    """What the output means: the first channels, as many as the images have, are the prediction."""
    if config.diffusion.process == "flow":
        clean = config.diffusion.prediction == "clean"
        what = "clean image, of a line" if clean else "velocity"
        return {"process": "flow", "prediction": f"{what} from data (t = 0) to noise (t = 1000)"}
    process = make_gaussian(config.diffusion, config.model.learn_sigma)
    return {
        "process": "gaussian",
        "prediction": process.prediction,
        "variance": "between log beta (1) and the posterior's (-1)" if process.learn_sigma else None,
        "betas": process.betas.tolist(),
        "times": process.times.tolist(),
    }
