"""Decomposable diffusion transformers: train once, take apart, ship only the parts each device or domain needs.

Configure
    Config           all settings of a run
    ModelConfig      sizes of the network
    FactorConfig     which weights are factored, and into how many components
    dit              a published size by name, like "XL/2"
    ClassifyRun      all settings of a run that trains an image classifier
    DistilRun        all settings of a run that trains one beside a teacher
    DistilConfig     who teaches it, and what is learned
    vit              a vision transformer of a published size, like "B/16"
    resnet           a residual network of a published depth, like 50
    change           settings with some of them changed: change(config, train={"steps": 100})
    load_file        the Config of a Python file with get_config()
    preset           the Config of this name, like "digits", or "images" with {"data.path": ...}
    presets          the names that there are, and a line about each

Train
    fit              train a config in a folder, or continue there
    records          a data set of one's own, for fit
    transfer         move a model to new classes or a new domain
    transfer_config  the settings of a transfer, from its source's

Train with a loop of your own, see docs/python.md
    task_of          what a config trains: its draws, losses and metrics
    first_state      the state before the first step
    make_step        the step, to be jitted: step(state, batch) gives the next state and metrics
    open_dataset     the data set of a config
    batches          its endless batches
    trained          what a state has learnt, as a bundle

Use a model
    open_bundle      open a run or an artifact; of an artifact, only what the chosen classes need is read
    Bundle           a model in hand: sample(labels), gate(classes), config, collections
    show             images as one picture, which a notebook displays
    evaluate         draw many images and measure them against real ones
    classify         probabilities of the classes of images
    synthesize       draw a training set from a bundle: a folder of images with its recipe
    export           write a bundle as an artifact, or for diffusers, timm, open_clip, StableHLO
    push             share a bundle on the Hugging Face Hub; open_bundle("hf://user/name") fetches it
    convert          read a model of DiT, diffusers, timm, torchvision or open_clip
    decompose        factor a dense model into learngenes and tailors
    compose          choose classes and a budget, get a smaller model
    grow             add the classes of another model with the same learngenes
    grow_fresh       add classes with untrained tailors
    drop             remove classes

Models as plain dictionaries of arrays
    init             fresh collections: learngenes, tailors, params
    apply            evaluate the network
    split            a module's definition and its collections
    join             the inverse
    select           some rows of a tailor bank
    concatenate      several banks as one
    transplant       a collection of one model put into another

Gates over rows of the tailor bank (over classes, see Bundle.gate)
    Gate             rows that are on for a sample, and their weights
    class_gate       the rows of each class
    one_group        one row for each sample
    mixture          a weight for every row
    all_groups       every row with the same weight
    learngenes_only  every row off

Errors
    UserError        a setting, file or argument is wrong; the message names it
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kind_jax.classifying.config import ClassifyRun
    from kind_jax.classifying.predict import classify
    from kind_jax.config import Config, FactorConfig, ModelConfig, change, dit, load_file
    from kind_jax.config.networks import resnet, vit
    from kind_jax.config.presets import preset, presets
    from kind_jax.data.dataset import open_dataset
    from kind_jax.data.own import records
    from kind_jax.data.pipeline import batches
    from kind_jax.deploy.bundle import Bundle, open_bundle
    from kind_jax.deploy.compose import compose
    from kind_jax.deploy.decompose import decompose
    from kind_jax.deploy.groups import drop, grow, grow_fresh
    from kind_jax.deploy.hub import push
    from kind_jax.deploy.trained import trained
    from kind_jax.distillation.config import DistilConfig, DistilRun
    from kind_jax.errors import UserError
    from kind_jax.evaluating.evaluate import evaluate
    from kind_jax.images import show
    from kind_jax.interchange.formats import convert, export
    from kind_jax.model import apply, class_gate, init
    from kind_jax.nn.gate import Gate, all_groups, learngenes_only, mixture, one_group
    from kind_jax.partition import concatenate, join, select, split, transplant
    from kind_jax.synthesis.make import synthesize
    from kind_jax.tasks import task_of
    from kind_jax.train.fit import fit
    from kind_jax.train.state import start as first_state
    from kind_jax.train.step import make_step
    from kind_jax.transferring.run import transfer
    from kind_jax.transferring.settings import transfer_config

# Loaded on first use, so that `import kind_jax` and `kind-jax --help` do not wait for JAX.
_HOMES = {
    "kind_jax.classifying.config": ("ClassifyRun",),
    "kind_jax.classifying.predict": ("classify",),
    "kind_jax.config.networks": ("resnet", "vit"),
    "kind_jax.config": ("Config", "FactorConfig", "ModelConfig", "change", "dit", "load_file"),
    "kind_jax.config.presets": ("preset", "presets"),
    "kind_jax.data.dataset": ("open_dataset",),
    "kind_jax.data.own": ("records",),
    "kind_jax.data.pipeline": ("batches",),
    "kind_jax.deploy.bundle": ("Bundle", "open_bundle"),
    "kind_jax.deploy.compose": ("compose",),
    "kind_jax.deploy.decompose": ("decompose",),
    "kind_jax.deploy.groups": ("drop", "grow", "grow_fresh"),
    "kind_jax.deploy.hub": ("push",),
    "kind_jax.distillation.config": ("DistilConfig", "DistilRun"),
    "kind_jax.deploy.trained": ("trained",),
    "kind_jax.errors": ("UserError",),
    "kind_jax.evaluating.evaluate": ("evaluate",),
    "kind_jax.images": ("show",),
    "kind_jax.interchange.formats": ("convert", "export"),
    "kind_jax.model": ("apply", "class_gate", "init"),
    "kind_jax.nn.gate": ("Gate", "all_groups", "learngenes_only", "mixture", "one_group"),
    "kind_jax.synthesis.make": ("synthesize",),
    "kind_jax.tasks": ("task_of",),
    "kind_jax.train.fit": ("fit",),
    "kind_jax.train.step": ("make_step",),
    "kind_jax.transferring.run": ("transfer",),
    "kind_jax.transferring.settings": ("transfer_config",),
    "kind_jax.partition": ("concatenate", "join", "select", "split", "transplant"),
}
# A start is that of a state only where one knows it.
_RENAMED = {"first_state": ("kind_jax.train.state", "start")}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Bundle",
    "ClassifyRun",
    "Config",
    "DistilConfig",
    "DistilRun",
    "FactorConfig",
    "Gate",
    "ModelConfig",
    "UserError",
    "all_groups",
    "apply",
    "batches",
    "change",
    "class_gate",
    "classify",
    "compose",
    "concatenate",
    "convert",
    "decompose",
    "dit",
    "drop",
    "evaluate",
    "export",
    "first_state",
    "fit",
    "grow",
    "grow_fresh",
    "init",
    "join",
    "learngenes_only",
    "load_file",
    "make_step",
    "mixture",
    "one_group",
    "open_bundle",
    "open_dataset",
    "preset",
    "presets",
    "push",
    "records",
    "resnet",
    "select",
    "show",
    "split",
    "synthesize",
    "task_of",
    "trained",
    "transfer",
    "transfer_config",
    "transplant",
    "vit",
]


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        home, own = _RENAMED[name]
        return getattr(importlib.import_module(home), own)
    if name not in _HOME_OF:
        raise AttributeError(f"module 'kind_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
