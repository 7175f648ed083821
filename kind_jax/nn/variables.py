"""The two marker types that decide which collection a weight belongs to."""

from flax import nnx


class Learngene(nnx.Param):
    """Components shared by every class: class-agnostic knowledge."""


class Tailor(nnx.Param):
    """Components owned by one group of classes, the group on the leading axis: class-specific knowledge."""
