"""Models from and for other programs: the official DiT's names, diffusers' folders, StableHLO; classifiers of timm and
torchvision; open_clip's CoCa.

``incoming``, ``incoming_classifier`` and ``incoming_coca`` read, ``outgoing`` writes; all speak of a
:class:`kind_jax.deploy.bundle.Bundle`. A foreign file is a state dict (``state_dict``, ``torch_file``): arrays by name
in PyTorch's layouts. ``official`` gives ours for the official names and back, ``names`` renames these to diffusers' and
back, ``diffusers`` reads and writes what its config.json says. ``programs`` lists those whose image classifiers are
known, ``timm`` and ``torchvision``: each gives a network and its arrays for a state dict and back, by way of
``resnet_state``, ``vit_state`` and what these share (``classifier``, ``layouts``, ``vit_names``, ``positions``).
``open_clip`` does the same for CoCa, with ``coca_names``. What
all those formats have no place for is in a ``marker`` beside the weights.
"""
