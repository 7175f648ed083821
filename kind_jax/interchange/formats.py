"""Models of other programs in, and out: one function each for Python, as `kind-jax convert` and `export` are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from kind_jax.config import Config, RunConfig
from kind_jax.config.check import check_choice, check_path, require
from kind_jax.deploy import bundle as bundles
from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError

Origin = Literal["dit", "diffusers", "timm", "torchvision", "efficientnet-lite0", "open_clip"]
Target = Literal["artifact", "dit", "diffusers", "stablehlo", "timm", "torchvision", "open_clip"]


def convert(source: str | Path, origin: Origin, **told: Any) -> Bundle:
    """The model in a file or folder of another program; to decompose it see :func:`kind_jax.decompose`.

    Example::

        bundle = kj.convert("DiT-XL-2-256x256.pt", "dit")
        net = kj.convert("vit_b16.safetensors", "timm", heads=12)

    Args:
      source: a state dict, or the folder of diffusers.
      origin: whose it is.
      told: what the arrays do not tell, like ``heads``, ``size``, ``mean`` or ``class_names``: the arguments of
        :func:`kind_jax.interchange.incoming.load_dit`, ``load_diffusers``, and ``load_classifier``,
        ``load_efficientnet_lite0`` and ``load_coca`` of the modules beside it.

    Raises:
      UserError: ``origin`` is unknown, the source is missing, damaged or of another kind, or an argument does not
        belong to it.
    """
    from kind_jax.interchange import incoming, incoming_classifier, incoming_coca

    check_choice(origin, Origin, "origin")
    source = check_path(source, "source", "the path of a state dict, or of a folder of diffusers")
    readers = {
        "dit": incoming.load_dit,
        "diffusers": incoming.load_diffusers,
        "efficientnet-lite0": incoming_classifier.load_efficientnet_lite0,
        "open_clip": incoming_coca.load_coca,
    }
    try:
        if origin in ("timm", "torchvision"):
            return incoming_classifier.load_classifier(source, origin, **told)
        return readers[origin](source, **told)
    except TypeError as e:
        if strange := next((name for name in told if f"'{name}'" in str(e)), None):
            raise UserError(f"{strange} is given, but a model of {origin!r} has no such argument.") from e
        raise


def export(
    bundle: Bundle, out: str | Path, *, to: Target = "artifact", replace: bool = False, license: str | None = None
) -> dict[str, Any]:
    """Write a model: as an artifact, whose classes are files of their own, or for other programs.

    Example::

        kj.export(kj.open_bundle("runs/digits"), "art")
        kj.export(kj.compose(bundle, classes=[3]).bundle, "for_diffusers", to="diffusers")

    Args:
      out: folder to write, or the ``.safetensors`` file of ``dit``, ``timm``, ``torchvision`` and ``open_clip``.
      to: the format. ``dit`` and ``diffusers`` take models without gated tailors.
      replace: whether what exists there, and is of the same kind, is replaced.
      license: of an artifact, what its model card says, as the Hub identifies licences (``apache-2.0``); None is that
        of the artifact that the model was opened from.

    Returns:
      Of an artifact its manifest, of a ``stablehlo`` program its signature. Of ``dit`` and ``diffusers``
      {"difference": by how much outputs differ where the other program has no setting for ours, 0 if they do not}.
      Else nothing.

    Raises:
      UserError: ``to`` is unknown, the model has no such form, or ``out`` exists or cannot be written.
    """
    from kind_jax.interchange import outgoing, stablehlo

    check_choice(to, Target, "to")
    if to == "artifact":
        return bundles.export(bundle, out, replace=replace, license=license)
    require(license is None, "license", license, "None with another format than artifact, which has no card")
    bundles.check_bundle(bundle, kind=kind_of(to))
    if to == "stablehlo":
        return stablehlo.export(bundle, out, replace=replace)
    if to == "dit":
        return {"difference": outgoing.save_dit(bundle, out, replace=replace)}
    if to == "diffusers":
        return {"difference": outgoing.save_diffusers(bundle, out, replace=replace)}
    if to == "open_clip":
        outgoing.save_coca(bundle, out, replace=replace)
    else:
        outgoing.save_classifier(bundle, out, to, replace=replace)
    return {}


def kind_of(to: Target) -> type[RunConfig]:
    """The runs whose models have a form."""
    if to == "artifact":
        return RunConfig
    if to in ("timm", "torchvision"):
        from kind_jax.classifying.config import ClassifyRun

        return ClassifyRun
    if to == "open_clip":
        from kind_jax.captioning.config import CaptionRun

        return CaptionRun
    return Config
