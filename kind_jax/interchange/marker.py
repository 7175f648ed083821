"""What other formats have no place for, kept beside the weights, so that reading them back gives the same model."""

from __future__ import annotations

import dataclasses
import functools
from typing import Annotated, TypeVar

import pydantic

from kind_jax.config import DiffusionConfig, TimeFrequencies
from kind_jax.config.check import STRICT, problem
from kind_jax.config.networks import ResNetConfig, ViTConfig
from kind_jax.deploy.bundle import Bundle
from kind_jax.errors import UserError
from kind_jax.untrusted import documents

KEY = "kind_jax"
"""Its name in the metadata of a safetensors file; ``kind_jax.json`` in a folder."""

LIMIT = 16 << 20  # bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Marker:
    """Settings of a model that shapes do not tell; see :class:`kind_jax.config.ModelConfig`."""

    __pydantic_config__ = STRICT

    heads: int
    time_frequencies: TimeFrequencies
    mlp_norm_eps: float
    diffusion: DiffusionConfig
    guidance_channels: int | None
    class_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierMarker:
    """The network of a classifier, of whose settings some are in no array, and the names of its classes."""

    __pydantic_config__ = STRICT

    model: Annotated[ViTConfig | ResNetConfig, pydantic.Field(discriminator="network")]
    class_names: tuple[str, ...]


M = TypeVar("M", Marker, ClassifierMarker)


@functools.lru_cache
def _adapter(kind: type) -> pydantic.TypeAdapter:
    return pydantic.TypeAdapter(kind)


def to_text(bundle: Bundle) -> str:
    """The marker of a model, as JSON."""
    model = bundle.config.model
    marker = Marker(
        heads=model.heads, time_frequencies=model.time_frequencies, mlp_norm_eps=model.mlp_norm_eps,
        diffusion=bundle.config.diffusion, guidance_channels=bundle.config.sampler.guidance_channels,
        class_names=bundle.class_names,
    )  # fmt: skip
    return _adapter(Marker).dump_json(marker, indent=2).decode()


def from_text(text: str | bytes, origin: object) -> Marker:
    """Read it back.

    Raises:
      UserError: not JSON, or not a marker; ``origin`` is named.
    """
    return _read(Marker, text, origin)


def classifier_text(bundle: Bundle) -> str:
    """The marker of a classifier, as JSON in one line."""
    marker = ClassifierMarker(model=bundle.config.model, class_names=bundle.class_names)
    return _adapter(ClassifierMarker).dump_json(marker).decode()


def classifier_from_text(text: str, origin: object) -> ClassifierMarker:
    """Read it back.

    Raises:
      UserError: as :func:`from_text`, or a setting has an impossible value.
    """
    return _read(ClassifierMarker, text, origin)


def _read(kind: type[M], text: str | bytes, origin: object) -> M:
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if len(data) > LIMIT:
        raise UserError(f"{origin} has {len(data)} bytes, but it must have at most {LIMIT}.")
    documents.parse(data, origin)  # refuses a key that is there twice
    try:
        return _adapter(kind).validate_json(data)
    except pydantic.ValidationError as e:
        raise UserError(f"{origin} is damaged: {problem(e)}.") from e
