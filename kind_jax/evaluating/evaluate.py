"""An evaluation as one call: what is drawn, what it is compared with, who looks, and where everything goes."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast, get_args

from kind_jax.classes import ClassList, numbers_of
from kind_jax.config import Config, DataConfig
from kind_jax.config.check import check_choice, check_path, is_whole, require
from kind_jax.config.training import PackagedSource
from kind_jax.deploy.bundle import Bundle, open_bundle, with_data
from kind_jax.deploy.hub import result_of
from kind_jax.errors import UserError
from kind_jax.evaluating import efficientnet, evaluation, inception_net
from kind_jax.evaluating.evaluation import Data
from kind_jax.evaluating.extractor import Extractor, JudgeExtractor
from kind_jax.evaluating.generate import Plan, open_shards
from kind_jax.evaluating.inception import load_inception
from kind_jax.evaluating.judge import BOUND
from kind_jax.evaluating.judged import judge_data
from kind_jax.evaluating.metrics import check_count
from kind_jax.evaluating.record import check_record
from kind_jax.evaluating.reference import ReferenceFile, open_reference_file
from kind_jax.evaluating.shards import JUDGE, check_folder
from kind_jax.evaluating.user_extractor import load_extractor
from kind_jax.files import sweep
from kind_jax.interchange.efficientnet import installed
from kind_jax.nn import cnn
from kind_jax.train.lock import run_lock
from kind_jax.vae import pictures

Method = Literal["ddpm", "ddim", "euler", "heun"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What an evaluation depends on beside the model; each is explained in ``kind-jax evaluate --help``."""

    count: int = 500
    extractor: str = "judge"
    inception_weights: Path | None = None
    efficientnet_weights: Path | None = None
    reference: Path | None = None
    data: str | None = None
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    method: Method | None = None
    batch: int = 256
    judge_steps: int | None = None
    judge_bound: float | None = None
    vae: Path | None = None

    def __post_init__(self) -> None:
        if self.extractor == "inception" and self.inception_weights is None:
            raise UserError("--extractor is inception, but --inception-weights is not given; it must name their file.")
        if self.extractor != "inception" and self.inception_weights is not None:
            raise UserError(f"--inception-weights is given, but --extractor is {self.extractor} and must be inception.")
        if self.extractor != "efficientnet-lite0" and self.efficientnet_weights is not None:
            raise UserError(
                f"--efficientnet-weights is given, but --extractor is {self.extractor} and must be efficientnet-lite0."
            )
        if self.judge_steps is not None and (self.judge_steps < 1 or self.extractor != "judge"):
            raise UserError(f"--judge-steps is {self.judge_steps}, but it must be 1 or more, for the judge alone.")
        if self.judge_bound is not None and (not 0 <= self.judge_bound <= 1 or self.extractor != "judge"):
            raise UserError(
                f"--judge-bound is {self.judge_bound}, but it must be between 0 and 1, for the judge alone."
            )


def evaluate(
    source: str | Path,
    *,
    out: str | Path | None = None,
    classes: ClassList | None = None,
    weights: Literal["ema", "raw"] | None = None,
    data: str | Path | None = None,
    data_path: str | Path | None = None,
    count: int = 500,
    seed: int = 0,
    batch: int = 256,
    steps: int | None = None,
    guidance: float | None = None,
    method: Method | None = None,
    extractor: str = "judge",
    inception_weights: str | Path | None = None,
    efficientnet_weights: str | Path | None = None,
    reference: str | Path | None = None,
    judge_steps: int | None = None,
    judge_bound: float | None = None,
    vae: str | Path | None = None,
) -> dict[str, Any]:
    """Draw many images of a generator and measure them against real ones, as ``kind-jax evaluate`` does.

    Args:
      source: a run or an artifact.
      out: folder of samples and figures; None is ``evaluation`` in the run, or beside the artifact. Where an
        evaluation of the same settings was interrupted, it goes on there.
      classes: by number or name; None is all that the model serves.
      weights: None is the moving average of a run, where it keeps one.
      data: real images in place of the run's: a folder with a folder of images a class, or a packaged data set by its
        name, like ``digits``.
      data_path: where the run's own data set is; None is where its config says. An artifact does not tell.
      count: images to draw.
      seed: of the noise.
      batch: images at a time; the noise depends on it.
      steps, guidance, method: of the sampler; None is as configured.
      extractor: who looks at the images: ``judge``, ``inception``, ``efficientnet-lite0``, a Python file or
        ``module:function`` (the latter two run that code).
      inception_weights: file of Inception's weights, for ``inception``.
      efficientnet_weights: of EfficientNet-Lite0; None are those of the package that the extra ``teachers`` installs.
      reference: an .npz file of images or statistics as ADM's, in place of real images.
      judge_steps: of the judge's training; None is by the number of images.
      judge_bound: share of held-out images that the judge must be right on; None is 0.8.
      vae: folder of the autoencoder that decodes a latent model's samples; None is that of the config, if it exists.

    Returns:
      The record, as evaluation.json has it: ``metrics``, their 95 % ``intervals``, the ``baseline`` of held-out images.

    Raises:
      UserError: an argument that does not fit, no real images to compare with, or a judge that is too often wrong.
    """
    source = check_path(source, "source", "the path of a run or an artifact")
    out = None if out is None else check_path(out, "out")
    for name, value in (("count", count), ("seed", seed), ("batch", batch)):
        require(is_whole(value), name, value, "a whole number")
    for name, value in (("steps", steps), ("judge_steps", judge_steps)):
        require(value is None or is_whole(value), name, value, "a whole number or None")
    for name, value in (("guidance", guidance), ("judge_bound", judge_bound)):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(value is None or number, name, value, "a number or None")
    require(isinstance(extractor, str), "extractor", extractor, "a name or a path, as text")
    if method is not None:
        check_choice(method, Method, "method")
    paths = {
        "inception_weights": inception_weights, "efficientnet_weights": efficientnet_weights, "reference": reference,
        "vae": vae, "data_path": data_path,
    }  # fmt: skip
    found = {name: None if path is None else check_path(path, name, "a path or None") for name, path in paths.items()}
    where = found.pop("data_path")
    with _arguments():
        settings = Settings(
            count=count, seed=seed, batch=batch, steps=steps, guidance=guidance, method=method, extractor=extractor,
            data=None if data is None else str(check_path(data, "data", "a path, the name of a data set, or None")),
            judge_steps=judge_steps, judge_bound=judge_bound, **found,
        )  # fmt: skip
        bundle = with_data(open_bundle(source, classes=classes, weights=weights, kind=Config), where)
        chosen = None if classes is None else numbers_of(classes, bundle.class_names)
        return measured(source, bundle, settings, chosen, out)[0]


@contextlib.contextmanager
def _arguments() -> Iterator[None]:
    """Refusals that name an option, like ``--judge-steps``, name the argument of this function instead."""
    try:
        yield
    except UserError as e:
        raise UserError(re.sub(r"--([a-z][a-z-]*[a-z])", lambda m: m[1].replace("-", "_"), str(e))) from e


def measured(
    source: Path, bundle: Bundle, settings: Settings, classes: tuple[int, ...] | None, out: Path | None
) -> tuple[dict[str, Any], Path]:
    """Evaluate ``bundle``, which was opened from ``source``; returns the record and the folder of all results.

    Args:
      classes: None is all that the model serves.
      out: None is the customary folder.

    Raises:
      UserError: as :func:`evaluate`, naming the option of ``kind-jax evaluate``.
    """
    changes = {n: getattr(settings, n) for n in ("steps", "guidance", "method") if getattr(settings, n) is not None}
    plan = Plan(
        bundle=bundle,
        sampler=dataclasses.replace(bundle.config.sampler, **changes),
        classes=classes or bundle.served,
        count=settings.count,
        seed=settings.seed,
        batch=settings.batch,
        vae=pictures.choose(settings.vae, bundle.config),
    )
    if plan.shape[-1] not in (1, 3):
        raise UserError(
            f"the model draws {plan.shape[-1]} channels, but metrics need images in grey or RGB; of latents, --vae DIR "
            "makes images."
        )
    data = _data(settings, bundle.config.data, plan.shape)
    if settings.extractor == "judge" and data.config.source == "latents":
        raise UserError(
            "--extractor is judge, which learns from real images, but the data set of the run holds latents, so it "
            "must be inception or your own, or --data must name images."
        )
    extractor, details, dims = _given(settings, plan.shape)
    check_count(plan.count, dims, "--count")
    if settings.reference is None:
        reference = evaluation.real_images(plan, data, plan.classes, "train")
    else:
        reference = open_reference_file(settings.reference, plan.shape)
    if reference.most is not None:
        check_count(reference.most, dims, "the number of reference images")

    if isinstance(reference, ReferenceFile):
        reference.check(extractor)

    out = out or result_of(source, "evaluation")
    compared = details.pop("name"), str(settings.reference) if settings.reference else settings.data
    check_record(out, *compared)
    check_folder(out, plan.settings)  # before the lock, which creates the folder
    with run_lock(out):
        sweep(out)
        sweep(out / "shards")
        check_record(out, *compared)
        if extractor is None:
            extractor = _judge(source, settings, plan, data, out, details)
        if isinstance(reference, ReferenceFile):
            reference.check(extractor)
        shards = open_shards(plan, out)
        record = evaluation.measure(plan, shards, extractor, reference, source=source, details=details, data=data)
    return record, out


def _data(settings: Settings, config: DataConfig, shape: tuple[int, int, int]) -> Data:
    """Where the real images are."""
    if settings.data is None:
        return Data(config=config)
    if settings.data in get_args(PackagedSource):
        return Data(config=DataConfig(source=cast(PackagedSource, settings.data), flip=config.flip), path=settings.data)
    if shape[0] != shape[1]:
        raise UserError(f"--data is {settings.data!r}, but a folder is for models of square images, not {shape}.")
    given = DataConfig(source="folder", path=settings.data, size=shape[0], channels=shape[2], flip=config.flip)  # pyright: ignore[reportArgumentType]
    return Data(config=given, path=settings.data)


def _given(settings: Settings, shape: tuple[int, int, int]) -> tuple[Extractor | None, dict[str, Any], int]:
    """The extractor (None: the judge, trained later), what the record says of it, and its number of features."""
    if settings.extractor == "judge":
        return None, {"name": "judge", "seed": 0}, cnn.FEATURES
    if settings.extractor == "inception":
        assert settings.inception_weights is not None
        check_count(settings.count, inception_net.POOL, "--count")  # before 90 MB are read
        found = load_inception(settings.inception_weights)
        details = {"weights": str(settings.inception_weights), "resize": inception_net.RESIZE, "logits": "without bias"}
    elif settings.extractor == "efficientnet-lite0":
        check_count(settings.count, efficientnet.FEATURES, "--count")
        path = settings.efficientnet_weights or installed()
        found = efficientnet.load_extractor(path)
        details = {"weights": path.name, "resize": f"bilinear, antialiased, to {efficientnet.SIDE}"}
    else:
        found, details = load_extractor(settings.extractor, shape), {"code": settings.extractor}
    return found, {"name": found.name, **details}, found.dims


def _judge(source: Path, settings: Settings, plan: Plan, data: Data, out: Path, details: dict[str, Any]) -> Extractor:
    """The judge, trained or read back; adds what the record says of it to ``details``."""
    # The report of a run keeps its judge there too.
    shared = (source / "config.json").is_file() and settings.judge_steps is None and settings.data is None
    bound = BOUND if settings.judge_bound is None else settings.judge_bound
    judge = judge_data(
        data.config,
        plan.bundle.class_names,
        plan.shape,
        cache=(source if shared else out) / JUDGE,
        steps=settings.judge_steps,
        bound=bound,
        path=data.path,
    ).judge
    tried = judge.held_out
    assert tried is not None  # or it was refused
    details["steps"], details["bound"] = judge.steps, bound
    details["held_out"] = {
        "accuracy": tried.accuracy, "interval": list(tried.interval), "images": tried.images, "from": tried.origin
    }  # fmt: skip
    print(f"the judge itself is {tried}", flush=True)
    return JudgeExtractor(judge=judge)
