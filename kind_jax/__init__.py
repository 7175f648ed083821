"""Decomposable diffusion transformers: train once, take apart, ship only the parts each device or domain needs."""

__version__ = "0.1.0"
