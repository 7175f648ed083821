"""Every setting of a run, as frozen dataclasses.

A file in ``configs/`` returns a :class:`Config`; the command line overrides fields by dotted name; a run saves its
config as JSON and reads it back through :func:`from_json`, which refuses unknown fields and wrong types.
"""

from kind_jax.config.diffusion import DiffusionConfig, SamplerConfig
from kind_jax.config.model import FactorConfig, ModelConfig, Projection, dit
from kind_jax.config.run import Config, from_json, load_file, to_json
from kind_jax.config.training import CollectionConfig, DataConfig, MeshConfig, OptimizerConfig, TrainConfig

__all__ = [
    "CollectionConfig",
    "Config",
    "DataConfig",
    "DiffusionConfig",
    "FactorConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Projection",
    "SamplerConfig",
    "TrainConfig",
    "dit",
    "from_json",
    "load_file",
    "to_json",
]
