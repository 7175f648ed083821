"""``kind-jax latents``: encode a data set with an autoencoder, for training on latents."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from kind_jax.commands.console import say_paths, table
from kind_jax.commands.given import base_config
from kind_jax.config import Config, DataConfig
from kind_jax.config.check import together
from kind_jax.errors import UserError

if TYPE_CHECKING:
    from kind_jax.data.encode import Encoder
    from kind_jax.data.latent_files import Index, SplitName
    from kind_jax.data.sets import Dataset
    from kind_jax.vae import Vae

PICTURE, _IMAGES = "reconstructions.png", 8
# Variables by which launchers tell a process its number and how many there are.
_LAUNCHERS = (
    ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Encode the images of a data set as latents: mean and log-variance, plain and mirrored.

    The same command continues after an interruption. On several hosts that share --out, each runs the same command with
    its --part; one that was lost is made up for by running its part again, anywhere.
    """

    config: Path | None = None
    """A preset or a Python file with get_config(), of which data counts; default: the settings below alone."""
    vae: Path | None = None
    """Folder of the autoencoder (diffusers' AutoencoderKL); default: data.vae."""
    out: Path | None = None
    """Folder to write to, needed; data.path of a run on latents."""
    split: str | None = None
    """What to encode: train, test, or train,test; default: train, and test if there is one."""
    batch: int = 8
    """Images that one device encodes at a time."""
    shard_records: int = 4096
    """Images in one file."""
    dtype: Literal["float16", "float32"] = "float16"
    """In which latents are stored."""
    limit: int | None = None
    """Only so many images of each split, the first ones; for trials."""
    part: str | None = None
    """Which part of the files this process writes, like 0/4; default: as JAX_PROCESS_ID and JAX_NUM_PROCESSES, SLURM or
    Open MPI say, else all."""
    data: DataConfig


def run(args: list[str]) -> int:
    """Parse ``args``, encode what is missing, and say what there is; returns the exit code."""
    base = base_config(Arguments, args, Config()).data
    with together():
        parsed = tyro.cli(Arguments, args=args, default=Arguments(data=base), prog="kind-jax latents")
    part = _part(parsed.part)
    folder, out = _check(parsed)

    from kind_jax.data import latent_shards
    from kind_jax.data.encode import Encoder, encode_shards, latent_shape
    from kind_jax.data.latent_files import INDEX
    from kind_jax.evaluating.progress import counting
    from kind_jax.train.lock import run_lock
    from kind_jax.vae import load_vae, look_vae

    print("opening the data set ...", flush=True)
    datasets = _open(parsed)
    if any(dataset.captions is not None for dataset in datasets.values()):
        print("captions are left out: latents are of classes alone")
    shape = next(iter(datasets.values())).image_shape
    latent_shape(look_vae(folder), shape)  # refuses before weights are read
    print("reading the autoencoder ...", flush=True)
    vae = load_vae(folder)
    encoder = Encoder(vae, shape, batch=parsed.batch, dtype=parsed.dtype)
    settings = _settings(parsed, datasets, vae, encoder)
    latent_shards.check(out, settings)
    with run_lock(out if part == (0, 1) else out / ".parts" / "{}-of-{}".format(*part)):
        parts = latent_shards.begin(out, settings)
        for name, dataset in datasets.items():
            shards = parts[name]
            mine = range(part[0], shards.count, part[1])
            missing = [number for number in mine if not shards.whole(number)]
            if len(missing) < len(mine):
                print(f"{name}: {len(mine) - len(missing)} of {len(mine)} shards are there already")
            if missing:
                total = sum(len(shards.rows(number)) for number in missing)
                with counting(f"encoding {name}", total) as progress:
                    encode_shards(dataset, shards, missing, encoder, limit=parsed.data.skip_bad, progress=progress)
        found = latent_shards.finish(out)
        if found is None:
            left = ", ".join(f"{count} of {name}" for name, count in latent_shards.missing(out).items() if count)
            print(f"done here; whoever finishes last writes {INDEX}, and shards are missing: {left or 'none any more'}")
            return 0
        _picture(datasets, encoder, vae, out / PICTURE)
    _say(*found, out, [line for dataset in datasets.values() for line in dataset.bad])
    return 0


def _check(parsed: Arguments) -> tuple[Path, Path]:
    """What can be refused without opening anything; the folders of the autoencoder and of the result."""
    given = parsed.vae or parsed.data.vae
    if given is None:
        raise UserError("--vae is missing, but it must name the folder of an autoencoder (diffusers' AutoencoderKL).")
    if parsed.out is None:
        raise UserError("--out is missing, but it must name the folder to write latents to.")
    if parsed.data.source == "latents":
        raise UserError("data.source is 'latents', but it must be a data set of images.")
    if parsed.split not in (None, "train", "test", "train,test"):
        raise UserError(f"--split is {parsed.split!r:.60}, but it must be train, test, or train,test.")
    for name in ("batch", "shard_records", "limit"):
        value = getattr(parsed, name)
        if value is not None and not 1 <= value < 2**31:
            raise UserError(f"--{name.replace('_', '-')} is {value}, but it must be between 1 and {2**31 - 1}.")
    return Path(given), parsed.out


def _part(text: str | None) -> tuple[int, int]:
    """Number and count of the parts, of which this process makes one."""
    if text is None:
        found = [(os.environ.get(a), os.environ.get(b)) for a, b in _LAUNCHERS]
        alone = os.environ.get("KIND_JAX_SINGLE_HOST") == "1"
        text = next((f"{index}/{count}" for index, count in found if index and count and not alone), "0/1")
    parsed = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if parsed is None or not int(parsed[1]) < int(parsed[2]):
        raise UserError(f"--part is {text!r:.60}, but it must be a number, counted from 0, of a number of parts: 0/4.")
    return int(parsed[1]), int(parsed[2])


def _open(parsed: Arguments) -> dict[SplitName, Dataset]:
    from kind_jax.data.dataset import open_dataset
    from kind_jax.errors import NoSplitError

    if parsed.split is not None:
        return {name: open_dataset(parsed.data, name) for name in ("train", "test") if name in parsed.split.split(",")}
    datasets: dict[SplitName, Any] = {"train": open_dataset(parsed.data, "train")}
    try:
        datasets["test"] = open_dataset(parsed.data, "test")
    except NoSplitError:  # many sets have none
        print("there is no test split: encoding train alone")
    return datasets


def _settings(parsed: Arguments, datasets: dict[SplitName, Dataset], vae: Vae, encoder: Encoder) -> dict[str, Any]:
    """What decides the content of all files, as JSON values."""
    first = next(iter(datasets.values()))
    return {
        "vae": {
            "fingerprint": vae.fingerprint,
            "scaling_factor": vae.config.scaling_factor,
            "shift_factor": vae.config.shift_factor or 0.0,
            "factor": vae.config.factor,
        },
        "image_shape": list(first.image_shape),
        "shape": list(encoder.shape),
        "dtype": parsed.dtype,
        "shard_records": parsed.shard_records,
        "class_names": list(first.class_names),
        "splits": {
            name: {
                "records": min(len(dataset.source), parsed.limit or len(dataset.source)),
                "source": dataset.fingerprint,
            }
            for name, dataset in datasets.items()
        },
    }


def _picture(datasets: dict[SplitName, Dataset], encoder: Encoder, vae: Vae, path: Path) -> None:
    """Images in the upper row, and below each what the autoencoder makes of it."""
    import numpy as np

    from kind_jax.images import grid, save_png
    from kind_jax.vae import decode_in_batches

    source = next(iter(datasets.values())).source
    images = source.gather(np.arange(min(_IMAGES, len(source))))["image"]
    parts = [encoder(images[i : i + encoder.rows]) for i in range(0, len(images), encoder.rows)]
    means = np.concatenate(parts)[:, 0, 0].astype(np.float32)
    latents = (means - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor
    again = decode_in_batches(vae, latents.astype(np.float32))
    both = np.concatenate([np.broadcast_to(images, (*images.shape[:3], again.shape[-1])), again])
    save_png(path, grid(both, len(images), scale=-(-48 // images.shape[1])))


def _say(index: Index, skipped: list[str], out: Path, left_out: list[str]) -> None:
    from kind_jax.data.bad import LINES
    from kind_jax.data.latent_files import INDEX
    from kind_jax.untrusted.text import printable

    rows = [
        (
            name, str(split.records), str(len(split.shards)), f"{sum(s.bytes for s in split.shards) / 1e6:.1f}",
            str(split.skipped), f"{split.mean:.3f}", f"{split.std:.3f}",
        )
        for name, split in index.splits.items()
    ]  # fmt: skip
    header = ("split", "images", "files", "MB", "skipped", "mean", "std")
    shape = " x ".join(map(str, index.shape))
    table(f"latents of {shape}, {index.dtype}; mean and std as a model sees them", header, rows)
    lines = [*left_out, *skipped]
    for line in lines[:LINES]:
        print(f"skipped: {printable(line, 500)}")
    if len(lines) > LINES:
        print(f"skipped {len(lines)} images in all")
    say_paths(f"{len(index.class_names)} classes", {"latents": out / INDEX, "reconstructions": out / PICTURE})
