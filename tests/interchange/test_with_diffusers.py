"""PyTorch and diffusers themselves read what is written, and what they write is read."""

import argparse
import dataclasses
import os
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import official_dit
import pytest

torch = pytest.importorskip("torch")

from kind_jax import model  # noqa: E402
from kind_jax.config import FactorConfig, ModelConfig  # noqa: E402
from kind_jax.deploy.bundle import Bundle  # noqa: E402
from kind_jax.errors import UserError  # noqa: E402
from kind_jax.interchange import official  # noqa: E402
from kind_jax.interchange.dense import difference  # noqa: E402
from kind_jax.interchange.incoming import load_diffusers, load_dit  # noqa: E402
from kind_jax.interchange.outgoing import save_diffusers  # noqa: E402
from kind_jax.nn.gate import learngenes_only  # noqa: E402

CONFIG = ModelConfig(
    size=8, channels=4, patch=2, width=64, depth=3, heads=4, num_classes=7, factor=FactorConfig(projections=())
)
X = np.random.default_rng(1).standard_normal((4, 8, 8, 4), np.float32)
T, Y = np.array([0, 1, 500, 999]), np.array([0, 3, 6, 7])  # 7: the null class


def bundle_of(config):
    """Random weights, none of them zero."""
    rng = np.random.default_rng(0)
    empty = official.to_collections(config, official.empty_state_dict(config))
    collections = jax.tree.map(lambda a: 0.1 * rng.standard_normal(a.shape, np.float32), empty)
    return Bundle(
        config=dataclasses.replace(load_config(), model=config), collections=collections,
        groups=tuple(range(7)), class_names=tuple("abcdefg"), weights="ema", step=0, origin=Path("random"),
    )  # fmt: skip


def load_config():
    return load_diffusers(Path(__file__).parents[1] / "fixtures/diffusers_reference").config


def ours(bundle, x=X, t=T, y=Y):
    weights = jax.tree.map(jnp.asarray, bundle.collections)
    x, t, y = jnp.asarray(x), jnp.asarray(t, jnp.float32), jnp.asarray(y, jnp.int32)
    return np.asarray(jax.jit(model.apply, static_argnums=0)(bundle.config.model, weights, x, t, y, learngenes_only()))


@torch.no_grad()
def theirs(module):
    x = torch.from_numpy(X.transpose(0, 3, 1, 2).copy())
    out = module.eval()(x, timestep=torch.from_numpy(T), class_labels=torch.from_numpy(Y)).sample
    return out.numpy().transpose(0, 2, 3, 1)


def relative(a, b):
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


@pytest.fixture(scope="module")
def diffusers():
    return pytest.importorskip("diffusers")


@pytest.mark.parametrize("settings", [
    {"time_frequencies": "diffusers", "mlp_norm_eps": 1e-2}, {"time_frequencies": "diffusers"}, {"learn_sigma": False},
    {},
], ids=["theirs", "frequencies", "no_variance", "official"])  # fmt: skip
def test_diffusers_computes_the_same(diffusers, tmp_path, settings):
    bundle = bundle_of(dataclasses.replace(CONFIG, **settings))
    off = save_diffusers(bundle, tmp_path / "out")
    loaded, info = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    if bundle.config.model.time_frequencies == "dit":
        wrong = relative(theirs(loaded), ours(bundle))
        assert wrong > 1e-3  # as the README says
        assert off == pytest.approx(wrong, rel=10)
        line = next(x for x in (tmp_path / "out/README.md").read_text().splitlines() if x.startswith("for b in"))
        exec(line, {"model": loaded})
    error = relative(theirs(loaded), ours(bundle))
    print(f"relative error {error:.1e}")
    assert error < 3e-5  # angles of the time features are only known to t times 6e-8


def test_a_model_of_diffusers_computes_the_same(diffusers, tmp_path):
    torch.manual_seed(0)
    made = diffusers.DiTTransformer2DModel(
        num_attention_heads=4, attention_head_dim=16, num_layers=2, sample_size=8, out_channels=8, num_embeds_ada_norm=7
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    made.save_pretrained(tmp_path / "unlike")
    with pytest.raises(UserError, match="all blocks share the time and label embedders"):
        load_diffusers(tmp_path / "unlike")
    made.transformer_blocks[1].norm1.emb.load_state_dict(made.transformer_blocks[0].norm1.emb.state_dict())
    made.save_pretrained(tmp_path / "one")
    made.save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    for folder in ("one", "shards"):
        error = relative(ours(load_diffusers(tmp_path / folder)), theirs(made))
        print(f"relative error {error:.1e}")
        assert error < 1e-5
    assert difference(load_diffusers(tmp_path / "one"), time_frequencies="dit") > 1e-3
    made.save_pretrained(tmp_path / "bin", safe_serialization=False)
    with pytest.raises(UserError, match="a pickle, which is not read"):
        load_diffusers(tmp_path / "bin")


def state(dtype=torch.float32, **changes):
    tensors = {name: torch.from_numpy(a.copy()).to(dtype) for name, a in official_dit.recorded().items()}
    return tensors | changes


def test_a_checkpoint_of_the_official_code():
    bundle = load_dit(Path(__file__).parents[1] / "fixtures/dit_reference.pt", heads=4)
    assert bundle.config.model == official_dit.CONFIG
    reference = official_dit.REFERENCE
    x, t, y = (reference[f"forward/{n}"] for n in ("x_nchw", "t", "y_last_is_null_class"))
    out = ours(bundle, official_dit.to_nhwc(x), t, y)
    error = relative(out, official_dit.to_nhwc(reference["forward/out_nchw"]))
    print(f"relative error {error:.1e}")
    assert error < 1e-5


@pytest.mark.parametrize("new", [True, False])
def test_pt_files(tmp_path, new):
    def load(content, **settings):
        torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
        return load_dit(tmp_path / "a.pt", heads=4, **settings)

    wanted = jax.tree.map(np.asarray, official_dit.collections())
    chex.assert_trees_all_equal(load(state()).collections, wanted)
    # What the official train.py saves.
    double = {name: 2 * a if name != "pos_embed" else a for name, a in state().items()}
    arguments = argparse.Namespace(model="DiT-S/2", global_seed=0)
    checkpoint = {
        "model": double,
        "ema": state(),
        "opt": {"state": {0: {"step": torch.tensor(1.0)}}},
        "args": arguments,
    }
    chex.assert_trees_all_equal(load(checkpoint).collections, wanted)
    raw = load(checkpoint, weights="raw")
    assert raw.weights == "raw"
    chex.assert_trees_all_equal(raw.collections, jax.tree.map(lambda a: 2 * a, wanted))
    chex.assert_trees_all_close(load(state(torch.bfloat16)).collections, wanted, rtol=1e-2)


class Code:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Code(), r"asks for the Python object '(posix|nt).system', but it must hold tensors alone"),
        (state(pos_embed=Code()), r"asks for the Python object '(posix|nt).system'"),
        (state(pos_embed=3), "'pos_embed' is a int, but it must be a tensor"),
        (state(pos_embed=torch.zeros(1).expand(1, 2**40, 32)), r"has shape \(1, 1099511627776, 32\), but too few"),
        (state(pos_embed=torch.zeros(1, 16, 32).to_sparse()), "is not an ordinary dense tensor"),
        (state(pos_embed=torch.zeros(1, 16, 32).double()), "has dtype torch.float64, but it must be float32"),
        (state(pos_embed=torch.zeros(1, 16, 32, device="meta")), "not an ordinary dense tensor"),
        ([torch.zeros(1)], "holds a list, but it must hold a state dict"),
        ({"model": state()}, "is a training checkpoint without 'ema'"),
        ({"ema": 1, "model": state(), "args": Code()}, "asks for the Python object"),
    ],
)  # fmt: skip
def test_hostile_pt_files(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match=message):
        load_dit(tmp_path / "a.pt", heads=4)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("spoil", [lambda d: d[: len(d) // 2], lambda d: b"not a pickle", lambda d: b"PK\x03\x04" + d])
def test_damaged_pt_files(tmp_path, spoil):
    torch.save(state(), tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(spoil((tmp_path / "a.pt").read_bytes()))
    with pytest.raises(UserError, match=r"is no file of tensors that .* reads, or is damaged"):
        load_dit(tmp_path / "a.pt", heads=4)
