"""Our models in other programs' formats; what they have gated tailors for is composed away first."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy

from kind_jax.captioning.config import CaptionRun
from kind_jax.classifying.config import ClassifyRun
from kind_jax.config.check import check_choice, require
from kind_jax.config.networks import ResNetConfig
from kind_jax.deploy.bundle import Bundle, check_bundle
from kind_jax.deploy.manifest import MANIFEST
from kind_jax.errors import UserError
from kind_jax.files import atomic_directory, atomic_write_bytes
from kind_jax.interchange import coca_names, diffusers, marker, names, official, open_clip, programs
from kind_jax.interchange.dense import difference, multiplied_out
from kind_jax.interchange.names import StateDict
from kind_jax.interchange.state_dict import WEIGHTS
from kind_jax.partition import PARAMS
from kind_jax.untrusted import documents, tensors

_VERSION = "0.42.1"  # of diffusers, which reads what is written here; it asks for some version to be named
_OURS = {diffusers.CONFIG, diffusers.MARKER, diffusers.README, WEIGHTS}


def save_dit(bundle: Bundle, path: str | Path, *, replace: bool = False) -> float:
    """Write a model as a state dict with the official names, one ``.safetensors`` file.

    Returns:
      How far the official code's outputs with it are from the model's (:func:`kind_jax.interchange.dense.difference`):
      0 unless the model has diffusers' time frequencies or epsilon.

    Raises:
      UserError: the model has gated tailors, or the file exists (with ``replace``: and is no safetensors file).
    """
    path = Path(path)
    check_out("dit", path, replace=replace)
    bundle = multiplied_out(bundle)
    arrays = official.to_state_dict(bundle.config.model, bundle.collections[PARAMS])
    off = _off(bundle, {"time_frequencies": "dit", "mlp_norm_eps": 1e-6})
    atomic_write_bytes(path, _data(arrays, {marker.KEY: marker.to_text(bundle)}))
    return off


def save_diffusers(bundle: Bundle, folder: str | Path, *, replace: bool = False) -> float:
    """Write a model as a folder that diffusers' ``DiTTransformer2DModel.from_pretrained`` reads.

    The README.md in it has the line of Python that sets the official time frequencies, where the model has them.

    Returns:
      How far the outputs are from the model's without that line, 0 where none is needed.

    Raises:
      UserError: the model has gated tailors or an MLP that diffusers cannot have, or the folder exists (with
        ``replace``: and holds something else).
    """
    folder = Path(folder)
    check_out("diffusers", folder, replace=replace)
    bundle = multiplied_out(bundle)
    config = bundle.config.model
    text = diffusers.config_json(config, _VERSION)
    state = names.to_diffusers(official.to_state_dict(config, bundle.collections[PARAMS]), config.depth)
    off = _off(bundle, {"time_frequencies": "diffusers"})
    with atomic_directory(folder, replace=replace) as inside:
        (inside / diffusers.CONFIG).write_text(text)
        (inside / diffusers.MARKER).write_text(marker.to_text(bundle) + "\n")
        (inside / diffusers.README).write_text(diffusers.readme(bundle.config, off))
        (inside / WEIGHTS).write_bytes(_data(state, {"format": "pt"}))
    return off


def save_classifier(bundle: Bundle, path: str | Path, program: programs.Name, *, replace: bool = False) -> None:
    """Write an image classifier as a state dict with timm's or torchvision's names, one ``.safetensors`` file.

    Its metadata have what no array tells, for :func:`kind_jax.interchange.incoming_classifier.load_classifier`.

    Raises:
      UserError: the model is no classifier, or the program has no such network (see
        :func:`kind_jax.interchange.timm.write` and :func:`kind_jax.interchange.torchvision.write`); or the file exists
        (with ``replace``: and holds no network of the program).
    """
    path = Path(path)
    check_choice(program, programs.Name, "program")
    check_bundle(bundle, kind=ClassifyRun)
    check_out(program, path, replace=replace)
    config = bundle.config.model
    if isinstance(config, ResNetConfig) and config.imagenet:  # of which a reader sees the first stage's channels
        doubled = all(config.channels_of(stage) == config.channels_of(0) << stage for stage in range(4))
        require(doubled, "model.width", config.width, f"a multiple of 1/64 for {program}")
    arrays = programs.PROGRAMS[program].write(config, bundle.collections)
    atomic_write_bytes(path, _data(arrays, {marker.KEY: marker.classifier_text(bundle)}))


def save_coca(bundle: Bundle, path: str | Path, *, replace: bool = False) -> None:
    """Write a model of images and captions as the state dict of open_clip's CoCa, one ``.safetensors`` file.

    Raises:
      UserError: the model is of another kind, or open_clip has no such network (see
        :func:`kind_jax.interchange.open_clip.write`); or the file exists (with ``replace``: and holds no such network).
    """
    path = Path(path)
    check_bundle(bundle, kind=CaptionRun)
    check_out("open_clip", path, replace=replace)
    atomic_write_bytes(path, _data(open_clip.write(bundle.config.model, bundle.collections), {}))


def check_out(form: Literal["dit", "diffusers", "open_clip"] | programs.Name, path: Path, *, replace: bool) -> None:
    """Refuse a place that the result may not be written to, before any work is done.

    Raises:
      UserError: see :func:`save_dit`, :func:`save_diffusers`, :func:`save_classifier` and :func:`save_coca`.
    """
    for parent in path.absolute().parents:
        if (parent / MANIFEST).is_file():  # which must hold nothing that its manifest does not list
            raise UserError(f"{str(path)!r} lies inside the artifact {str(parent)!r}; choose another place.")
    if form != "diffusers" and path.suffix != ".safetensors":
        raise UserError(f"--out is {str(path)!r}, but it must end in .safetensors.")
    if not path.exists():
        return
    if not replace:
        raise UserError(f"{str(path)!r} exists already, but --out must be new (or --replace be given).")
    if form == "diffusers":
        if not _is_ours(path):
            raise UserError(f"{str(path)!r} is not a folder that was exported to diffusers, so it is not replaced.")
        return
    found = tensors.look(path).arrays
    if form == "dit":
        if names.TABLE not in found:
            raise UserError(f"{str(path)!r} holds no weights with the official names, so it is not replaced.")
    elif form == "open_clip":
        if coca_names.TABLE not in found:
            raise UserError(f"{str(path)!r} holds no CoCa with open_clip's names, so it is not replaced.")
    elif not programs.PROGRAMS[form].knows(found):
        raise UserError(f"{str(path)!r} holds no network with {form}'s names, so it is not replaced.")


def _is_ours(folder: Path) -> bool:
    if not folder.is_dir() or not {p.name for p in folder.iterdir()} <= _OURS:
        return False
    found = documents.read(folder / diffusers.CONFIG)
    return isinstance(found, dict) and found.get("_class_name") == diffusers.CLASS


def _off(bundle: Bundle, settings: dict[str, Any]) -> float:
    model = bundle.config.model
    same = all(getattr(model, name) == value for name, value in settings.items())
    return 0.0 if same else difference(bundle, **settings)


def _data(arrays: StateDict, metadata: dict[str, str]) -> bytes:
    return safetensors.numpy.save({name: np.asarray(a, order="C") for name, a in arrays.items()}, metadata)
