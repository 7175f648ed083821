"""Deep Model Assembling: train a large model as independent modules (Ni et al. 2022, arXiv 2212.04129).

:func:`divide` cuts a network into :class:`Module` objects, :func:`replace` puts one into a meta model, :func:`assemble`
chains all of them; :mod:`kind_jax.assembling.reference` reads state dicts of the published code.
"""

from kind_jax.assembling.modules import Module, Whole, assemble, divide, replace

__all__ = ["Module", "Whole", "assemble", "divide", "replace"]
