"""Sharing on the Hub: a model goes there in one commit, and a device fetches only what it serves."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import chex
import jax
import pytest
import tiny
from deploy import hub_server

import kind_jax as kj
from kind_jax import sealed
from kind_jax.deploy import card as cards
from kind_jax.deploy import hub as hubs
from kind_jax.deploy.bundle import Bundle
from kind_jax.partition import weights_sha256
from kind_jax.train.run import save_config
from kind_jax.untrusted import documents

installed = pytest.mark.skipif(
    importlib.util.find_spec("huggingface_hub") is None, reason="pip install 'kind-jax[hub]' installs huggingface_hub"
)


def _bundle(classes=10, names=None) -> Bundle:
    config = tiny.change(tiny.CONFIG, model={"num_classes": classes, "groups": None})
    names = tuple(map(str, range(classes))) if names is None else names
    return Bundle(
        config=config, collections=tiny.weights(config.model), groups=tuple(range(classes)), class_names=names,
        weights="ema", step=4, origin=Path("nowhere"),
    )  # fmt: skip


def _run(address, folder, *args):
    """In a process of its own, as huggingface_hub reads its settings once."""
    settings = {"HF_ENDPOINT": address, "HF_HOME": str(folder / "hf"), "HF_TOKEN": "hf_x", "HF_HUB_DISABLE_XET": "1"}
    settings |= {"JAX_PLATFORMS": "cpu", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "-m", "kind_jax", *args], capture_output=True, text=True, env={**os.environ, **settings},
        cwd=folder, timeout=240,
    )  # fmt: skip


@installed
def test_a_model_is_pushed_in_one_commit_and_fetched_in_parts(tmp_path, monkeypatch):
    hub, bundle = hub_server.Hub(), _bundle()
    kj.export(bundle, tmp_path / "art")
    hub.repositories["user/digits"] = {"tailors/77.safetensors": b"of a model before", "notes.txt": b"mine"}
    with hub_server.serving(hub) as address:
        done = _run(address, tmp_path, "push", "art", "user/digits", "--license", "apache-2.0", "--json")
        assert done.returncode == 0, done.stderr
        files = hub.repositories["user/digits"]
        assert hub.commits == ["Step 4, ema weights"]
        assert {n for n in files if n.startswith("tailors/")} == {f"tailors/{g}.safetensors" for g in range(10)}
        assert files["notes.txt"] == b"mine"
        assert files["kind.json"] == (tmp_path / "art" / "kind.json").read_bytes()
        card = files["README.md"].decode()
        assert "license: apache-2.0\n" in card
        assert 'kj.open_bundle("hf://user/digits"' in card
        assert "USER/NAME" not in card

        done = _run(address, tmp_path, "sample", "hf://user/digits", "--classes", "3", "--rows", "1", "--steps", "2")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "digits_samples_3.png").is_file()
        wanted = {"README.md", "kind.json", "learngenes.safetensors", "params.safetensors", "tailors/3.safetensors"}
        assert set(hub.fetched) == wanted
        assert len(hub.fetched) == len(wanted)  # each once
        again = _run(address, tmp_path, "inspect", "hf://user/digits@main", "--classes", "3", "5")
        assert again.returncode == 0, again.stderr
        assert set(hub.fetched) == wanted | {"tailors/5.safetensors"}

        part = _run(address, tmp_path, "export", "hf://user/digits", "--classes", "3", "--out", "part")
        assert part.returncode == 0, part.stderr
        assert "license: apache-2.0\n" in (tmp_path / "part" / "README.md").read_text()

        for args, sentence in (
            (("sample", "hf://user/nothing"), "hf://user/nothing does not exist, or may not be seen"),
            (("sample", "hf://user/digits@old"), "has no revision 'old'"),
            (("sample", "hf://digits"), "must be hf://user/name"),
            (("sample", "hf://user/digits", "--classes", "77"), "77"),
            (("push", "art", "digits"), "repository is 'digits', but it must be user/name"),
            (
                ("push", "art", "user/digits", "--license", "My Own"),
                "license is 'My Own', but it must be",
            ),
        ):
            refused = _run(address, tmp_path, *args)
            assert refused.returncode == 2, refused.stderr
            assert sentence in refused.stderr
            assert "Traceback" not in refused.stderr
        hub.repositories["user/other"] = {"config.json": b"{}"}
        assert (
            "hf://user/other is no artifact of kind_jax" in _run(address, tmp_path, "sample", "hf://user/other").stderr
        )
        hub.readonly, before = True, dict(files)
        refused = _run(address, tmp_path, "push", "art", "user/digits")
        assert refused.returncode == 2
        assert hub.repositories["user/digits"] == before
    # Out of reach, what is in the cache still opens, and nothing else does.
    one_image = ("--rows", "1", "--steps", "2", "--out", "cached.png")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cached = _run(address, tmp_path, "sample", "hf://user/digits", "--classes", "3", *one_image)
    assert cached.returncode == 0, cached.stderr
    absent = _run(address, tmp_path, "sample", "hf://user/digits", "--classes", "7", *one_image)
    assert absent.returncode == 2
    assert "the Hub is out of reach, and no copy is here" in absent.stderr


def test_addresses():
    assert hubs.parse("hf://user/name") == hubs.parse(Path("hf://user/name")) == ("user/name", None)
    assert hubs.parse("hf://a/b@v1.0") == ("a/b", "v1.0")
    assert hubs.is_address("hf://x")
    assert not hubs.is_address("runs/hf")
    assert hubs.check_repository("hf://user/name") == hubs.check_repository("user/name") == "user/name"
    for wrong in ("hf://", "hf://a", "hf://a/b/c", "hf://a/../b", "hf://a/b@", "hf://a b/c", "hf://a/b@../c"):
        with pytest.raises(kj.UserError, match="hf://user/name"):
            hubs.parse(wrong)


def _run_of(folder, bundle):
    """The folder of a run that ``bundle`` was opened from, as far as its card reads it."""
    (folder / "samples").mkdir(parents=True)
    (folder / "evaluation").mkdir()
    save_config(folder, bundle.config)
    for step, content in ((2, b"early"), (4, b"picture"), (9, b"of other weights")):
        (folder / "samples" / f"step_{step:07d}.png").write_bytes(content)
    record = {
        "metrics": {"class_accuracy": 0.9}, "intervals": {"class_accuracy": [0.8, 0.95]},
        "samples": {"count": 500, "weights": {"sha256": weights_sha256(bundle.collections)}},
        "extractor": {"name": "judge"},
    }  # fmt: skip
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps(record))


def test_a_card_of_a_run_has_its_samples_and_figures(tmp_path, monkeypatch):
    run, bundle = tmp_path / "run", _bundle(names=("<b>cat</b>", "a|b", "[x](http://y)", "`z`", *"456789"))
    _run_of(run, bundle)
    monkeypatch.setattr(cards, "read_meta", lambda *_: {"class_names": list(bundle.class_names)})
    of_run = dataclasses.replace(bundle, origin=run)
    kj.export(of_run, tmp_path / "art")
    card = (tmp_path / "art" / "README.md").read_text()
    assert (tmp_path / "art" / "samples.png").read_bytes() == b"picture"
    assert "| class\\_accuracy | 0.9 [0.8, 0.95] |" in card
    for markup in ("<b>", "a|b |", "[x](", "| `z`"):
        assert markup not in card
    assert "&lt;b&gt;cat&lt;/b&gt;" in card
    assert kj.open_bundle(tmp_path / "art").class_names == bundle.class_names

    # Of models that were made of it, and of other weights, nothing is said that was measured on these.
    other = jax.tree.map(lambda a: a + 1, bundle.collections)
    for made in (
        kj.drop(of_run, [1]), kj.grow_fresh(of_run, ["new"], seed=0), kj.compose(of_run, classes=[1]).bundle,
        dataclasses.replace(of_run, collections=other),
    ):  # fmt: skip
        assert "accuracy" not in cards.text_of(made)
    for made in (kj.drop(of_run, [1]), kj.grow_fresh(of_run, ["new"], seed=0), kj.compose(of_run, classes=[1]).bundle):
        assert set(cards.beside(made)) == {"README.md"}

    # A card that its owner wrote outlives the model, with the picture in it.
    (tmp_path / "art" / "README.md").write_text("# Mine\n")
    (tmp_path / "art" / "samples.png").write_bytes(b"mine")
    kj.export(of_run, tmp_path / "art", replace=True)
    assert (tmp_path / "art" / "README.md").read_text() == "# Mine\n"
    assert (tmp_path / "art" / "samples.png").read_bytes() == b"mine"
    (tmp_path / "art" / "README.md").unlink()
    kj.export(of_run, tmp_path / "art", replace=True)
    assert (tmp_path / "art" / "README.md").read_text() == card
    chex.assert_trees_all_equal(kj.open_bundle(tmp_path / "art").collections, bundle.collections)


def test_the_card_of_another_model_or_folder_is_not_pushed(tmp_path, monkeypatch):
    kj.export(_bundle(), tmp_path / "art")
    (tmp_path / "art" / "README.md").write_text("# Mine\n")
    opened = kj.open_bundle(tmp_path / "art")
    assert hubs._card_of(opened) == "# Mine\n"
    assert hubs._card_of(kj.compose(opened, classes=[1]).bundle) is None
    assert hubs._card_of(kj.grow_fresh(opened, ["new"], seed=0)) is None
    monkeypatch.chdir(tmp_path)  # of a model of one's own loop, whose origin is no folder
    (tmp_path / "README.md").write_text("# Of a project\n")
    assert hubs._card_of(dataclasses.replace(opened, origin=Path())) is None


def test_a_licence_stays_with_the_model(tmp_path):
    bundle, art = _bundle(), tmp_path / "art"
    for wrong in ("My Own", "mit\nx: y", ""):
        with pytest.raises(kj.UserError, match=r"license is .* but it must be one of the Hub's identifiers"):
            kj.export(bundle, art, license=wrong)
    assert not art.exists()
    with pytest.raises(kj.UserError, match="license is 'mit', but it must be None with another format"):
        kj.export(bundle, art, to="stablehlo", license="mit")
    kj.export(bundle, art, license="cc-by-4.0")
    assert (art / "README.md").read_text().startswith("---\nlicense: cc-by-4.0\n")
    part = kj.compose(kj.open_bundle(art), classes=[1]).bundle
    kj.export(part, tmp_path / "part")
    card = (tmp_path / "part" / "README.md").read_text()
    assert "license: cc-by-4.0\n" in card
    assert "`cc-by-4.0`." in card
    (art / "README.md").write_text("---\ntags:\n- mine\n---\nlicense: mit\n")
    assert "license: unknown\n" in cards.text_of(kj.open_bundle(art))
    with pytest.raises(kj.UserError, match=r"license is 'mit', but the model's README.md is your own"):
        kj.export(bundle, art, replace=True, license="mit")


@installed
def test_no_file_is_asked_for_that_an_artifact_cannot_have(tmp_path, monkeypatch):
    kj.export(_bundle(), tmp_path / "art")
    path = tmp_path / "art" / "kind.json"
    fields = documents.parse(sealed.opened(path.read_bytes(), path), path)
    fields["files"]["../../somewhere.safetensors"] = fields["files"]["learngenes.safetensors"]
    sealed.write(path, fields)
    asked = []

    def download(repository, name, revision=None):
        asked.append(name)
        return str(path)

    monkeypatch.setattr(hubs, "_library", lambda: types.SimpleNamespace(hf_hub_download=download))
    with pytest.raises(kj.UserError, match=r"lists '../../somewhere.safetensors', against its own config"):
        kj.open_bundle("hf://user/name")
    assert asked == ["kind.json"]
