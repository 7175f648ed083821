"""kind-jax evaluate, as a user meets it."""

import json
import shutil

import numpy as np
import pytest
import tiny
from PIL import Image

import kind_jax as kj
from kind_jax import sampling
from kind_jax.cli import main
from kind_jax.deploy import artifact
from kind_jax.evaluating import judge_train
from kind_jax.train.lock import run_lock

pytestmark = pytest.mark.usefixtures("optimised_judge")

# Short, so that it may be right on fewer images than a judge must be by default.
JUDGE = ["--judge-steps", "40", "--judge-bound", "0.5"]
CONFIG = tiny.change(tiny.CONFIG, sampler={"steps": 2})


@pytest.fixture(scope="module")
def art(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "art"
    artifact.write(
        directory, config=CONFIG, collections=tiny.weights(CONFIG.model), groups=range(10),
        class_names=[str(c) for c in range(10)], weights="ema", step=4,
    )  # fmt: skip
    return directory


@pytest.fixture(scope="module")
def out(art, optimised_judge):
    """An evaluation with every default but its size."""
    assert main(["evaluate", str(art), "--count", "50", *JUDGE, "--batch", "32"]) == 0
    return art.parent / "art_evaluation"


def read(folder):
    return json.loads((folder / "evaluation.json").read_text())


def test_the_function_measures_what_the_command_does(art, out, tmp_path):
    record = kj.evaluate(str(art), out=tmp_path / "e", count=50, batch=32, judge_steps=40, judge_bound=0.5)
    assert record["metrics"] == read(out)["metrics"]
    assert json.loads(json.dumps(record)) == read(tmp_path / "e")
    with pytest.raises(kj.UserError, match=r"^judge_steps is 0, but it must be 1 or more, for the judge alone"):
        kj.evaluate(art, judge_steps=0)
    with pytest.raises(kj.UserError, match=r"^extractor is inception, but inception_weights is not given"):
        kj.evaluate(art, extractor="inception")


def test_the_record_names_everything_that_moves_the_figures(out):
    record = read(out)
    samples = record["samples"]
    assert samples["weights"] | {"sha256": ""} == {"which": "ema", "ema_rate": 0.9999, "step": 4, "sha256": ""}
    assert samples["sampler"] == {
        "method": "euler", "steps": 2, "guidance": 1.0, "guidance_channels": None, "eta": 0.0
    }  # fmt: skip
    assert (samples["seed"], samples["count"], samples["batch"], samples["classes"]) == (0, 50, 32, list(range(10)))
    assert samples["diffusion"]["process"] == "flow"
    assert record["extractor"]["name"] == "judge"
    assert record["extractor"]["steps"] == 40
    assert record["extractor"]["bound"] == 0.5
    tried = record["extractor"]["held_out"]
    assert (tried["images"], tried["from"]) == (500, "the test split")
    assert 0.5 < tried["interval"][0] < tried["accuracy"] < tried["interval"][1] <= 1
    assert "Wilson" in record["interval_method"]
    for measured in (record, record["baseline"]):
        assert list(measured["intervals"]) == list(measured["metrics"])
        assert all(low <= measured["metrics"][name] <= high for name, (low, high) in measured["intervals"].items())
    assert tried["accuracy"] == pytest.approx(record["baseline"]["metrics"]["class_accuracy"], abs=0.2)
    assert len(record["extractor"]["fingerprint"]) == len(samples["weights"]["sha256"]) == 64
    assert record["reference"]["count"] == 1297
    assert record["reference"]["fingerprint"]["split"] == "train"
    assert "floor" in record["images"]
    assert {"python", "kind-jax", "jax", "jaxlib", "flax", "numpy"} <= set(record["versions"])
    assert record["devices"]["platform"] == "cpu"
    names = {"class_accuracy", "judge_frechet", "judge_score", "precision", "recall"}
    assert set(record["metrics"]) == set(record["baseline"]["metrics"]) == names
    assert record["baseline"]["fingerprint"]["split"] == "test"
    assert record["baseline"]["count"] == 50
    # Noise is further from digits than other digits are.
    assert record["metrics"]["judge_frechet"] > 3 * record["baseline"]["metrics"]["judge_frechet"]
    assert record["baseline"]["metrics"]["recall"] > 0.5


def test_files(out):
    with np.load(out / "samples.npz") as file:
        assert file["arr_0"].shape == (50, 8, 8, 3)
        np.testing.assert_array_equal(file["arr_1"], np.arange(50) % 10)
    assert np.asarray(Image.open(out / "samples.png")).std() > 0


def test_the_same_command_again_draws_nothing_and_says_the_same(art, out, monkeypatch, capsys):
    before = read(out)
    monkeypatch.setattr(sampling, "draw", None)
    monkeypatch.setattr(judge_train, "fit", None)
    assert main(["evaluate", str(art), "--count", "50", *JUDGE, "--batch", "32"]) == 0
    assert read(out) == before
    printed = capsys.readouterr().out
    tried = before["extractor"]["held_out"]["accuracy"]
    assert f"the judge sees, which itself is right on {tried:.1%} [" in printed
    assert "of 500 held-out images (the test split)" in printed
    assert "--judge-bound was lowered from 80% to 50%" in printed
    for text in ("50 samples", "50 held-out images", "judge_frechet", "extractor judge", "samples.npz"):
        assert text in printed


def test_other_extractors_and_references(art, out, tmp_path, monkeypatch, capsys):
    """The samples of a finished evaluation are measured again by code of the user's, against real or own images."""
    code = tmp_path / "corner.py"
    code.write_text("def get_extractor():\n    return lambda x: x[:, 2:4, 2:6, 0].reshape(len(x), -1)\n")
    monkeypatch.setattr(sampling, "draw", None)
    # A copy without the record: its samples serve again.
    again = tmp_path / "again"
    (again / "shards").mkdir(parents=True)
    for name in ("settings.json", "shards/00000.npz"):
        (again / name).write_bytes((out / name).read_bytes())
    args = ["evaluate", str(art), "--count", "50", "--batch", "32", "--out", str(again), "--extractor", str(code)]
    assert main(args) == 0
    record = read(again)
    assert set(record["metrics"]) == {"corner_frechet", "precision", "recall"}
    assert main([*args, "--reference", str(out / "samples.npz")]) == 2
    assert "was measured by corner against the data set" in capsys.readouterr().err

    (again / "evaluation.json").unlink()
    assert main([*args, "--reference", str(out / "samples.npz")]) == 0
    record = read(again)
    assert record["reference"]["count"] == 50
    assert record["metrics"]["corner_frechet"] == pytest.approx(0, abs=1e-9)  # the samples against themselves
    assert (record["metrics"]["precision"], record["metrics"]["recall"]) == (1, 1)

    statistics = {"mu": np.zeros(8), "sigma": np.eye(8)}
    (again / "evaluation.json").unlink()
    np.savez(tmp_path / "stats.npz", **statistics)
    assert main([*args, "--reference", str(tmp_path / "stats.npz")]) == 2
    assert "with statistics of Inception, but the extractor is corner" in capsys.readouterr().err
    np.savez(tmp_path / "stats.npz", **statistics, extractor=record["extractor"]["fingerprint"])
    assert main([*args, "--reference", str(tmp_path / "stats.npz")]) == 0
    record = read(again)
    assert set(record["metrics"]) == {"corner_frechet"}
    assert record["metrics"]["corner_frechet"] > 0


def test_some_classes(art, out, tmp_path):
    args = ["evaluate", str(art), "--count", "40", "--classes", "3,8", "--out", str(tmp_path / "two")]
    code = tmp_path / "mean.py"
    code.write_text("def get_extractor():\n    return lambda x: x.mean(axis=(1, 3))\n")
    assert main([*args, "--extractor", str(code), "--batch", "32"]) == 0
    record = read(tmp_path / "two")
    with np.load(tmp_path / "two" / "samples.npz") as file:
        assert set(file["arr_1"]) == {3, 8}
    assert record["reference"]["classes"] == [3, 8]
    assert 200 < record["reference"]["count"] < 300
    assert record["baseline"]["count"] == 40


def test_a_judge_that_is_wrong_judges_nothing(art, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sampling, "draw", None)
    folder = tmp_path / "out"
    assert main(["evaluate", str(art), "--judge-steps", "1", "--count", "50", "--out", str(folder)]) == 2
    said = capsys.readouterr()
    assert "The judge is right on " in said.err
    assert "of 500 held-out images (the test split), but it must be right on 80%" in said.err
    assert "training the judge" in said.out
    assert not (folder / "evaluation.json").exists()


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """As after `grow`: an eleventh class, which the data set of its config lacks."""
    config = tiny.change(CONFIG, model={"num_classes": 11})
    directory = tmp_path_factory.mktemp("models") / "grown"
    artifact.write(
        directory, config=config, collections=tiny.weights(config.model), groups=range(11),
        class_names=[*(str(c) for c in range(10)), "cat"], weights="ema", step=4,
    )  # fmt: skip
    return directory


@pytest.mark.slow
def test_a_grown_model_is_judged_on_what_the_data_has(grown, tmp_path, capsys):
    folder = tmp_path / "out"
    args = ["evaluate", str(grown), "--count", "50", "--batch", "32", *JUDGE, "--out", str(folder)]
    assert main(args) == 2
    assert (
        "but the data set of its config has 0, 1, 2, 3, 4, ... (10) and so lacks cat (1); measure those that it has "
        "(--classes 0-9), name one that has all of them (--data), or give --reference" in capsys.readouterr().err
    )
    assert not folder.exists()
    assert main([*args, "--classes", "0-9"]) == 0
    record = read(folder)
    assert record["reference"]["count"] == 1297
    assert record["extractor"]["held_out"]["accuracy"] > 0.5
    assert record["metrics"]["class_accuracy"] < 0.6


def test_a_grown_model_is_judged_on_other_data(grown, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for number in range(11):
        name = "cat" if number == 10 else str(number)
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(8):  # each class has a grey of its own
            noise = rng.integers(0, 20, (8, 8))
            Image.fromarray((23 * number + noise).astype(np.uint8)).save(tmp_path / "mine" / name / f"{i}.png")
    args = ["evaluate", str(grown), "--count", "55", "--batch", "32", "--out", str(tmp_path / "out")]
    args += ["--data", str(tmp_path / "mine"), "--judge-steps", "2", "--judge-bound", "0"]
    assert main(args) == 0
    record = read(tmp_path / "out")
    assert record["reference"]["count"] == 88
    assert record["reference"]["path"] == str(tmp_path / "mine")
    assert record["reference"]["classes"] == list(range(11))
    assert "15% of the training images" in record["extractor"]["held_out"]["from"]
    assert "neither test/ nor val/" in record["baseline"]["none"] or "no train/" in record["baseline"]["none"]
    assert main([*args[:-6], "--data", "glyphs"]) == 2
    assert "but --data glyphs has" in capsys.readouterr().err
    assert main([*args[:-6], "--data", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


MISTAKES = {
    "too few samples": (["--count", "32"], "--count is 32, but 32 features need at least 33 images."),
    "too few for Inception": (
        ["--extractor", "inception", "--inception-weights", "w.npz"],
        "--count is 500, but 2048 features need at least 2049 images.",
    ),
    "no weights": (["--extractor", "inception", "--count", "3000"], "--inception-weights is not given"),
    "absent weights": (
        ["--extractor", "inception", "--count", "3000", "--inception-weights", "w.npz"],
        "--inception-weights is 'w.npz', but no such file exists",
    ),
    "weights of nothing": (["--inception-weights", "w.npz"], "--extractor is judge and must be inception"),
    "unknown extractor": (["--extractor", "dino"], "it must be judge, inception, efficientnet-lite0, a Python file"),
    "absent reference": (["--reference", "x.npz"], "--reference is 'x.npz', but no such file exists"),
    "unknown class": (["--classes", "12"], "a class of --classes is 12, but it must be between 0 and 9"),
    "wrong sampler": (["--method", "ddpm"], "'euler' or 'heun' for the flow process"),
    "bound beyond one": (["--judge-bound", "90"], "--judge-bound is 90.0, but it must be between 0 and 1"),
    "steps of no judge": (["--judge-steps", "0"], "--judge-steps is 0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_refused_before_anything_is_done(mistake, art, tmp_path, monkeypatch, capsys):
    args, message = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sampling, "draw", None)
    monkeypatch.setattr(judge_train, "fit", None)
    assert main(["evaluate", str(art), "--out", "new", *args]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_reference_begins_nothing(art, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sampling, "draw", None)
    monkeypatch.setattr(judge_train, "fit", None)
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(8), sigma=np.eye(8))
    np.savez(tmp_path / "colour.npz", arr_0=np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3))
    np.savez(tmp_path / "large.npz", arr_0=np.zeros((2, 16, 16, 3), np.uint8))
    (tmp_path / "bomb.npz").write_bytes(b"PK\x05\x06" + bytes(18))
    for name, message in (
        ("statistics", "with statistics of Inception, but the extractor is judge"),
        ("colour", "with images in colour, but the model draws grey ones"),
        ("large", "with images of 16 x 16 pixels, but the model draws 8 x 8"),
        ("bomb", "neither images (arr_0) nor statistics"),
    ):
        args = ["--count", "50", "--out", str(tmp_path / "out"), "--reference", str(tmp_path / f"{name}.npz")]
        assert main(["evaluate", str(art), *args]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_two_evaluations_do_not_share_a_folder(art, out, tmp_path, monkeypatch, capsys):
    """A killed one leaves a lock, unfinished files, perhaps a judge: they do not stop the next, and are swept away."""
    folder, args = tmp_path / "out", ["evaluate", str(art), "--count", "50", *JUDGE, "--batch", "32"]
    folder.mkdir()
    (folder / ".settings.json.0123456789ab.tmp").write_text("{")
    (folder / "judge.safetensors").write_bytes((out / "judge.safetensors").read_bytes())
    monkeypatch.setattr(judge_train, "fit", None)
    with run_lock(folder):
        assert main([*args, "--out", str(folder)]) == 2
    assert "is in use by" in capsys.readouterr().err
    assert (folder / ".settings.json.0123456789ab.tmp").exists()  # it is the other's
    (folder / "shards").mkdir()
    shutil.copy(out / "settings.json", folder)
    shutil.copy(out / "shards" / "00000.npz", folder / "shards")
    (folder / "shards" / ".00000.npz.0123456789ab.tmp").write_text("PK")
    monkeypatch.setattr(sampling, "draw", None)
    assert main([*args, "--out", str(folder)]) == 0
    assert read(folder)["metrics"] == read(out)["metrics"]
    assert not list(folder.rglob("*.tmp"))


def test_a_finished_evaluation_is_not_mixed_with_another(art, out, monkeypatch, capsys):
    monkeypatch.setattr(sampling, "draw", None)
    args = ["evaluate", str(art), "--count", "50", *JUDGE, "--batch", "32"]
    assert main([*args, "--seed", "1"]) == 2
    assert "was begun with seed 0, but it is 1 now; use another --out" in capsys.readouterr().err


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--help"])
    assert stop.value.code == 0
    assert "--inception-weights" in capsys.readouterr().out
