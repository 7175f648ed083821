"""Models from and for other programs: the official DiT's names, diffusers' folders, StableHLO.

``incoming`` reads, ``outgoing`` writes; both speak of a :class:`kind_jax.deploy.bundle.Bundle`. A foreign file is a
state dict (``state_dict``, ``torch_file``): arrays by name in PyTorch's layouts. ``official`` gives ours for the
official names and back, ``names`` renames these to diffusers' and back, ``diffusers`` reads and writes what its
config.json says. What those formats have no place for is in a ``marker`` beside the weights.
"""
