"""Networks that are divided, and the meta models around their modules, small enough for tests."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import tiny as tiny_diffusion
from classifying import tiny_classifier

from kind_jax import model
from kind_jax.assembling import cuts
from kind_jax.assembling.config import ModuleConfig, module_run
from kind_jax.config import change
from kind_jax.deploy import artifact

VIT = cuts.resized(tiny_classifier.VIT, (2, 1, 2))
KIND = cuts.resized(tiny_classifier.KIND, (1, 2))
RESNET = cuts.resized(tiny_classifier.RESNET, (1, 2, 1))
DIT = cuts.resized(tiny_diffusion.CONFIG.model, (2, 1))

NETWORKS = {"vit": (VIT, (2, 1, 2)), "kind": (KIND, (1, 2)), "resnet": (RESNET, (1, 2, 1)), "dit": (DIT, (2, 1))}


def whole(name, **train):
    """The run of the whole network."""
    if name == "dit":
        config = change(tiny_diffusion.CONFIG, train={"steps": 4, "batch": 8, "checkpoint_every": 2, **train})
        return change(config, model={"depth": sum(NETWORKS[name][1])})
    return tiny_classifier.run(NETWORKS[name][0], **{"steps": 4, "checkpoint_every": 2, "sample_every": 2, **train})


def meta_of(name, config):
    """The run of the meta model: one block in place of each module."""
    depths = NETWORKS[name][1]
    return dataclasses.replace(config, model=cuts.resized(config.model, (1,) * len(depths)))


def module_of(name, config, index, **settings):
    """The run of a module."""
    return module_run(config, ModuleConfig(depths=NETWORKS[name][1], index=index, **settings))


def untrained(path, config, seed=0):
    """The model of a run as an artifact, with its first weights: where a meta model only has to be there."""
    artifact.write(
        path, config=config, collections=model.init(config.model, seed), class_names=tuple("0123456789"),
        weights="raw", step=1, groups=range(config.model.num_groups),
    )  # fmt: skip
    return path


def weights(network, seed=0):
    """Initial weights and noise, so that nothing is zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda a: jnp.asarray(np.asarray(a) + 0.05 * np.abs(rng.standard_normal(a.shape)).astype(np.float32)),
        model.init(network, seed),
    )
