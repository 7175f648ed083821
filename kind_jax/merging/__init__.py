"""ZipIt!: models of different tasks become one without training (Stoica et al. 2024, arXiv 2305.03053)."""

from kind_jax.merging.bundles import models_of, open_tasks, zip_bundles
from kind_jax.merging.match import Match, match
from kind_jax.merging.plan import Settings
from kind_jax.merging.table import Table, table_of
from kind_jax.merging.weights import zip_weights
from kind_jax.merging.zipping import Model, Zipped, zip_models

__all__ = [
    "Match", "Model", "Settings", "Table", "Zipped", "match", "models_of", "open_tasks", "table_of", "zip_bundles",
    "zip_models", "zip_weights",
]  # fmt: skip
