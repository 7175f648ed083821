"""``python -m kind_jax`` is ``kind-jax``."""

from kind_jax.cli import entry

entry()
