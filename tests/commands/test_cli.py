"""The command line, as a user meets it."""

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from kind_jax.cli import VERBS, main
from kind_jax.config.run import load_file
from kind_jax.data.dataset import open_dataset

ROOT = Path(__file__).parents[2]
SMALL = [
    "--model.width", "16", "--model.depth", "2", "--model.heads", "2", "--model.patch", "4",
    "--model.factor.projections", "qkv", "mlp_out", "--model.factor.learngenes", "6", "--model.factor.tailors", "2",
    "--train.steps", "6", "--train.batch", "8", "--train.log-every", "2", "--train.checkpoint-every", "3",
    "--train.sample-every", "0", "--optimizer.schedule", "constant", "--sampler.steps", "3",
]  # fmt: skip


# Compiled as for users, but no program twice.
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "jax-tests"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"
}  # fmt: skip


def command(*args: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *args], cwd=ROOT, capture_output=True, text=True, timeout=280,
        env=os.environ | CACHE | environment,
    )  # fmt: skip


def kind(*args: object) -> subprocess.CompletedProcess:
    return command("-W", "error", "-m", "kind_jax", *map(str, args))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was stopped, and continued through train.py."""
    directory = tmp_path_factory.mktemp("cli") / "run"
    arguments = ["--config", "configs/digits.py", "--workdir", str(directory), *SMALL]
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.chdir(ROOT):
        assert main(["train", *arguments, "--stop-after", "3"]) == 0
    assert "stopped at step 3 of 6" in said.getvalue()
    second = command("train.py", *arguments, JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    assert second.returncode == 0, second.stderr
    assert f"resuming {directory} at step 3" in second.stdout
    assert "finished at step 6 of 6" in second.stdout
    assert second.stderr == ""
    return directory


def test_train_export_sample_inspect(run, tmp_path, capsys):
    art = tmp_path / "art"
    assert main(["export", str(run), "--out", str(art)]) == 0
    for other in (art / "tailors").iterdir():  # a device that serves only class 3
        if other.name != "3.safetensors":
            other.unlink()
    done = kind("sample", art, "--classes", "3", "--rows", "2", "--out", tmp_path / "three.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "columns: 3" in done.stdout
    assert np.asarray(Image.open(tmp_path / "three.png")).std() > 0
    assert main(["sample", str(art), "--classes", "3,4", "--out", str(tmp_path / "four.png")]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"error: \S+tailors/4.safetensors is missing; kind.json lists it .*\n", err)
    assert not (tmp_path / "four.png").exists()
    assert main(["inspect", str(run)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "blocks.1.mlp_out" in printed.out
    assert (run / "energy.png").stat().st_size > 1000


@pytest.mark.usefixtures("optimised_judge")
def test_report(run, capsys):
    assert main(["report", str(run), "--count", "100", "--judge-steps", "30", "--judge-bound", "0.5"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert re.search(r"class accuracy of samples: \d+\.\d% \[\d+\.\d%, \d+\.\d%\]\n", printed.out)
    assert re.search(r"the judge itself: right on .* of 500 held-out images \(the test split\)\n", printed.out)
    page = (run / "report.html").read_text()
    for heading in (
        "Training",
        "Real and generated",
        "Taken apart",
        "Where the class knowledge sits",
        "Sizes",
        "Energy",
    ):
        assert heading in page
    assert page.count("data:image/png;base64,") == 6
    assert not re.search(r"(src|href)=.https?:", page)


def test_inspect_on_an_ascii_terminal_and_where_no_plot_can_be_written(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("energy.png"))
    (copy / "energy.png").mkdir()  # not even root can write a file there
    done = subprocess.run(
        [sys.executable, "-m", "kind_jax", "inspect", copy], cwd=ROOT, capture_output=True, check=False,
        env=os.environ | CACHE | {"LC_ALL": "C", "PYTHONUTF8": "0"},
    )  # fmt: skip
    out = done.stdout.decode("ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert "blocks.1.mlp_out" in out
    assert f"there is no plot, since '{copy}/energy.png' could not be written: Is a directory; --out can name" in out
    assert main(["inspect", str(copy), "--out", str(tmp_path / "other.png")]) == 0
    assert (tmp_path / "other.png").stat().st_size > 1000
    # What was asked for is not dropped.
    assert main(["inspect", str(copy), "--out", str(copy / "energy.png")]) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("optimised_judge")
def test_report_without_a_test_split(tmp_path, capsys):
    """Of one folder of images a share is held out of the judge's training, and the report says so."""
    copy, data = tmp_path / "run", load_digits()
    for i, (image, label) in enumerate(zip(data.images[:400], data.target, strict=False)):
        (tmp_path / "images" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(tmp_path / "images" / str(label) / f"{i}.png")
    folder = ["--data.source", "folder", "--data.path", str(tmp_path / "images"), "--data.size", "8"]
    assert main([*CONFIG, "--workdir", str(copy), *SMALL, *folder, "--data.channels", "1", "--stop-after", "1"]) == 0
    line = ["report", str(copy), "--count", "100", "--judge-steps", "30"]
    assert main([*line, "--judge-bound", "1"]) == 2
    assert "but it must be right on 100% or its figures mean little" in capsys.readouterr().err
    assert not (copy / "report.html").exists()
    assert main([*line, "--judge-bound", "0.5"]) == 0
    printed, page = capsys.readouterr(), (copy / "report.html").read_text()
    assert "(15% of the training images, of every class, which the judge was not trained on)" in printed.out
    assert "real images that the judge was not trained on" in page
    assert "There is no test split" in page
    assert "--judge-bound was lowered from 80% to 50%" in page


CONFIG = ["train", "--config", str(ROOT / "configs/digits.py")]
MISTAKES = {
    "no verb": ([], ""),
    "unknown verb": (["fly"], "the verb is 'fly', but it must be one of new, train, transfer, latents, sample"),
    "no config": (["train"], "--config"),
    "absent config": (["train", "--config", "nowhere.py"], "'nowhere.py', but no such file exists"),
    "unknown field": ([*CONFIG, "--model.dpeth", "3"], "--model.depth"),
    "wrong type": ([*CONFIG, "--train.steps", "many"], "--train.steps"),
    "unknown choice": ([*CONFIG, "--model.dtype", "fp8"], "--model.dtype"),
    "impossible value": ([*CONFIG, "--train.steps", "0"], "train.steps is 0, but it must be between 1 and 2147483647"),
    "several values": (
        [*CONFIG, "--model.patch", "3", "--optimizer.b1", "2", "--model.heads", "5", "--sampler.method", "ddpm"],
        "model.patch is 3, but it must be a divisor of model.size, which is 8; model.heads is 5, but it must be a "
        "divisor of model.width, which is 64; optimizer.b1 is 2.0, but it must be at least 0 and below 1; "
        "sampler.method is 'ddpm', but it must be 'euler' or 'heun' for the flow process.",
    ),
    "learngenes beyond the rank": (
        [*CONFIG, "--model.factor.rank", "16"],
        "model.factor.learngenes is 32, but it must be at most model.factor.rank, which is 16",
    ),
    "tailors that do not fit": (
        [*CONFIG, "--model.factor.rank", "64"],
        "they need 112, so at most 3 tailors a group fit",
    ),
    "both fused and separate": ([*CONFIG, "--model.factor.projections", "qkv", "q"], "not both"),
    "groups with gaps": ([*CONFIG, "--model.groups", *"0022222222"], "numbered 0, 1, 2, ... without gaps"),
    "unknown class of the data": ([*CONFIG, "--data.classes", "3", "12"], "data.classes"),
    "sampler of another process": ([*CONFIG, "--sampler.method", "ddpm"], "'euler' or 'heun' for the flow process"),
    "nothing to train": (
        [*CONFIG, "--optimizer.learngenes.freeze", "--optimizer.tailors.freeze", "--optimizer.params.freeze"],
        "leaves nothing to train",
    ),
    "not a model": (["sample", str(ROOT / "docs")], "is neither a run"),
    "not a run": (["report", str(ROOT / "docs")], "is not a run"),
}


def plain(text: str) -> str:
    """Without the boxes that tyro draws around its messages."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake, tmp_path, monkeypatch, capsys):
    args, message = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    try:
        code = main(args)
    except SystemExit as e:
        code = e.code
    out, err = capsys.readouterr()
    assert code == 2
    assert plain(message) in plain(out + err)
    assert "Traceback" not in out + err
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--classes", "11"], "a class of --classes is 11, but it must be between 0 and 9."),
        (["--classes", "3,x"], "a class of --classes is 'x', but no class has this name: the classes are 0, 1, 2,"),
        (["--seed", "1", "--seed=2"], "--seed is given twice, as '1' and '2', but it must be given once."),
        (["--classes", "3,3"], "it must name each class once."),
        (["--rows", "0"], "--rows is 0, but it must be 1 or more."),
        (["--method", "ddim"], "sampler.method is 'ddim', but it must be 'euler' or 'heun' for the flow process."),
    ],
)
def test_mistakes_of_sample(run, args, message, tmp_path, capsys):
    assert main(["sample", str(run), "--out", str(tmp_path / "x.png"), *args]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_a_corrupt_data_set_is_refused(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    config = load_file(ROOT / "configs/digits.py")
    open_dataset(dataclasses.replace(config.data, path=str(tmp_path / "data")), "train")
    [record, *_] = (tmp_path / "data").rglob("*train*.array_record*")
    record.write_bytes(record.read_bytes()[:1000])
    assert main([*CONFIG, *SMALL, "--data.path", str(tmp_path / "data"), "--workdir", str(tmp_path / "two")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert str(tmp_path / "data") in err
    assert not (tmp_path / "two").exists()


def test_the_saved_config_is_data(run, tmp_path, capsys):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    config = json.loads((copy / "config.json").read_text())
    config["model"]["wings"] = 2
    (copy / "config.json").write_text(json.dumps(config))
    assert main(["inspect", str(copy)]) == 2
    assert "config.json: model.wings: Unexpected keyword argument" in capsys.readouterr().err


def test_help_of_every_verb(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0
        assert "--" in capsys.readouterr().out
