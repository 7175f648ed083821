"""Every setting of a run, as frozen dataclasses.

A file in ``configs/`` returns a :class:`Config` and is a preset (:mod:`kind_jax.config.presets`); the command line
overrides fields by dotted name; a run saves its config as JSON and reads it back through :func:`from_json`, which
refuses unknown fields and wrong types.
"""

from kind_jax.config.check import change
from kind_jax.config.diffusion import DiffusionConfig, SamplerConfig
from kind_jax.config.factored import Contraction, Energy, FactorConfig, Form, Projection
from kind_jax.config.faster import GuidanceConfig, RoutingConfig
from kind_jax.config.model import ModelConfig, TimeFrequencies, dit
from kind_jax.config.published import imagenet, onto, published
from kind_jax.config.run import Config, RunConfig, from_json, is_of, load_file, to_json
from kind_jax.config.training import CollectionConfig, DataConfig, MeshConfig, OptimizerConfig, TrainConfig
from kind_jax.config.transfer import TransferConfig

__all__ = [
    "CollectionConfig",
    "Config",
    "Contraction",
    "DataConfig",
    "DiffusionConfig",
    "Energy",
    "FactorConfig",
    "Form",
    "GuidanceConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Projection",
    "RoutingConfig",
    "RunConfig",
    "SamplerConfig",
    "TimeFrequencies",
    "TrainConfig",
    "TransferConfig",
    "change",
    "dit",
    "from_json",
    "imagenet",
    "is_of",
    "load_file",
    "onto",
    "published",
    "to_json",
]
