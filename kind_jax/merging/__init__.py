"""ZipIt!: models of different tasks become one without training (Stoica et al. 2024, arXiv 2305.03053)."""

from kind_jax.merging.match import Match, match

__all__ = ["Match", "match"]
