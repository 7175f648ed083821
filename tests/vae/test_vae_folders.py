"""Autoencoders on disk: written and read back, of all ages, and not believed."""

import dataclasses
import json
import shutil
from pathlib import Path

import chex
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from kind_jax.errors import UserError
from kind_jax.vae import VaeConfig, init, load_vae, look_vae, save_vae

REFERENCE = Path(__file__).parents[1] / "fixtures" / "vae_reference"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL = VaeConfig(block_out_channels=(4, 8), norm_num_groups=2, latent_channels=3)


@pytest.fixture
def folder(tmp_path):
    """A small autoencoder, to be damaged."""
    save_vae(SMALL, init(SMALL, 0), tmp_path / "vae")
    return tmp_path / "vae"


def rewrite(folder, change):
    """Replace the weights by ``change`` of them."""
    arrays = safetensors.numpy.load_file(folder / WEIGHTS)
    changed = {name: np.ascontiguousarray(a) for name, a in change(arrays).items()}
    (folder / WEIGHTS).write_bytes(safetensors.numpy.save(changed))


def configure(folder, **settings):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        VaeConfig(block_out_channels=(6,), layers_per_block=2, norm_num_groups=3, in_channels=1, out_channels=1),
        dataclasses.replace(
            SMALL, use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False,
            scaling_factor=0.3611, shift_factor=0.1159,
        ),
    ],
    ids=["small", "one level", "as in newer models"],
)  # fmt: skip
def test_the_round_trip_is_the_identity(config, tmp_path):
    params = init(config, 3)
    save_vae(config, params, tmp_path / "vae")
    found = load_vae(tmp_path / "vae")
    assert found.config == config == look_vae(tmp_path / "vae")
    chex.assert_trees_all_equal(found.params, params)
    save_vae(found.config, found.params, tmp_path / "again")
    for name in ("config.json", WEIGHTS):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "vae" / name).read_bytes()


def test_a_folder_of_diffusers_is_written_back_as_it_was(tmp_path):
    vae = load_vae(REFERENCE)
    save_vae(vae.config, vae.params, tmp_path / "vae")
    mine, theirs = (safetensors.numpy.load_file(f / WEIGHTS) for f in (tmp_path / "vae", REFERENCE))
    chex.assert_trees_all_equal(mine, theirs)
    assert load_vae(tmp_path / "vae").fingerprint == vae.fingerprint


def test_nothing_of_the_users_is_replaced(folder):
    params = init(SMALL, 1)
    with pytest.raises(UserError, match="exists already"):
        save_vae(SMALL, params, folder)
    save_vae(SMALL, params, folder, replace=True)
    chex.assert_trees_all_equal(load_vae(folder).params, params)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds 'notes\.txt' beside its VAE"):
        save_vae(SMALL, params, folder, replace=True)
    with pytest.raises(UserError, match=r"the VAE to be saved lacks the array 'encoder/conv_in/bias'"):
        save_vae(SMALL, {**params, "encoder": {}}, folder.parent / "new")
    assert not (folder.parent / "new").exists()


def test_a_pipeline_has_it_in_vae(folder):
    assert load_vae(folder.parent).origin == folder
    assert load_vae(folder.parent).fingerprint == load_vae(folder).fingerprint


def test_files_from_before_attention_was_renamed(folder):
    """Old names, and products kept as 1x1 convolutions as in the files of Latent Diffusion."""
    wanted = load_vae(folder)
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def age(arrays):
        aged = {}
        for name, array in arrays.items():
            before = name
            for new, former in old.items():
                name = name.replace(new, former)
            aged[name] = array[:, :, None, None] if name != before and array.ndim == 2 else array
        assert sum(name not in arrays for name in aged) == 16
        return aged

    rewrite(folder, age)
    assert load_vae(folder).fingerprint == wanted.fingerprint
    name = "decoder.mid_block.attentions.0.to_q.bias"
    rewrite(folder, lambda arrays: arrays | {name: np.zeros(8, np.float32)})
    with pytest.raises(UserError, match=rf"holds '{name}' twice"):
        load_vae(folder)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(folder, dtype):
    wanted = load_vae(folder)
    rewrite(folder, lambda arrays: {name: a.astype(dtype) for name, a in arrays.items()})
    if dtype == np.float16:
        (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.fp16.safetensors")
    found = load_vae(folder)
    assert found.params["quant_conv"]["kernel"].dtype == np.float32
    chex.assert_trees_all_close(found.params, wanted.params, rtol=0.01, atol=1e-6)


def test_settings_without_effect_and_those_that_are_absent(folder):
    configure(folder, sample_size=[512, 512], force_upcast=False, act_fn="swish", latents_mean=None, _name_or_path="x")
    assert look_vae(folder) == SMALL
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"has shape \[.*\], but its config.json asks for \[64"):
        load_vae(folder)  # diffusers' defaults


CONFIGS = {
    "another class": ({"_class_name": "AutoencoderTiny"}, "_class_name 'AutoencoderTiny', but it must be 'Autoenc"),
    "unknown": ({"use_\x1btiling": True}, r"has the setting 'use_\\x1btiling', which no AutoencoderKL has"),
    "activation": ({"act_fn": "gelu"}, 'act_fn is gelu, but it must be "silu"'),
    "own means": ({"latents_mean": [0.0]}, r"latents_mean is \[0.0\], but it must be null"),
    "blocks": ({"down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]}, "down_block_types is "),
    "blocks missing": ({"up_block_types": ["UpDecoderBlock2D"]}, "for each of the 2 levels"),
    "many levels": ({"block_out_channels": [4] * 9}, "a list of 1 to 8 widths"),
    "no level": ({"block_out_channels": []}, "a list of 1 to 8 widths"),
    "wide": ({"block_out_channels": [4, 10**9]}, "at most 8192"),
    "groups": ({"norm_num_groups": 3}, "multiples of norm_num_groups, which is 3"),
    "no groups": ({"norm_num_groups": 0}, "norm_num_groups is 0, but it must be between 1 and 8192"),
    "deep": ({"layers_per_block": 10**6}, "layers_per_block is 1000000, but it must be between 1 and 16"),
    "many channels": ({"latent_channels": 2**40}, "latent_channels is 1099511627776"),
    "no scale": ({"scaling_factor": 0.0}, "scaling_factor is 0.0"),
    "negative scale": ({"scaling_factor": -1}, "scaling_factor is -1.0"),
    "great shift": ({"shift_factor": 1e30}, "shift_factor is 1e"),
    "text": ({"layers_per_block": "2"}, "layers_per_block: Input should be a valid integer"),
    "other weights": ({"layers_per_block": 2}, r"lacks the array 'decoder\.up_blocks\.0\.resnets\.2\.conv1\.bias'"),
    "another width": (
        {"block_out_channels": [4, 6]},
        r"'decoder\.conv_in\.bias' has shape \[8\], but its config\.json asks for \[6\]",
    ),
    "fewer weights": ({"use_quant_conv": False}, r"holds the array 'quant_conv\.(weight|bias)', which"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_that_are_refused(case, folder):
    settings, message = CONFIGS[case]
    configure(folder, **settings)
    with pytest.raises(UserError, match=message) as error:
        look_vae(folder)
    assert str(folder) in str(error.value)
    assert str(error.value).isprintable()
    with pytest.raises(UserError, match=message):
        load_vae(folder)


def change(name, function):
    return lambda arrays: arrays | {name: function(arrays[name])}


def without(name):
    return lambda arrays: {k: v for k, v in arrays.items() if k != name}


ARRAYS = {
    "missing": (without("decoder.conv_out.bias"), r"lacks the array 'decoder\.conv_out\.bias' of shape \[3\]"),
    "extra": (lambda arrays: arrays | {"\x1bx": np.zeros(1)}, r"holds the array '\\x1bx', which its config\.json"),
    "shape": (change("quant_conv.weight", lambda a: a[:, :, 0]), r"has shape \[6, 6, 1\], but .* \[6, 6, 1, 1\]"),
    "convolution": (change("post_quant_conv.bias", lambda a: a[:, None, None]), r"has shape \[3, 1, 1\]"),
    "dtype": (
        change("quant_conv.bias", lambda a: a.astype(np.int32)),
        "has dtype int32, but it must be one of",
    ),
    "not finite": (
        change("encoder.conv_in.weight", lambda a: np.where(np.arange(a.size).reshape(a.shape) == 7, np.nan, a)),
        r"'encoder\.conv_in\.weight' holds values that are not finite",
    ),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_weights_that_are_refused(case, folder):
    function, message = ARRAYS[case]
    rewrite(folder, function)
    with pytest.raises(UserError, match=message) as error:
        load_vae(folder)
    assert str(folder / WEIGHTS) in str(error.value)
    assert str(error.value).isprintable()


def test_files_that_are_none(folder):
    config, weights = folder / "config.json", folder / WEIGHTS
    kept = config.read_bytes(), weights.read_bytes()
    for content, message in (
        (b"{", "is not JSON"),
        (b"[]", "is no config of a VAE"),
        (b'{"in_channels": 3, "in_channels": 3}', "has the key 'in_channels' twice"),
        (b"\xff", "not UTF-8"),
        (b" " * (2 << 20), "bytes"),
    ):
        config.write_bytes(content)
        with pytest.raises(UserError, match=message):
            load_vae(folder)
    config.write_bytes(kept[0])
    for content in (b"", kept[1][:-1], kept[1] + b"x", b"\xff" * 100):
        weights.write_bytes(content)
        with pytest.raises(UserError, match="is not a safetensors file, or is damaged"):
            load_vae(folder)
    weights.unlink()
    with pytest.raises(UserError, match=rf"{WEIGHTS} is missing"):
        load_vae(folder)
    weights.with_suffix(".bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=r"is a pickle, which could run code, .*AutoencoderKL\.from_pretrained"):
        load_vae(folder)
    shutil.rmtree(folder)
    for gone in (folder, folder.parent / "nowhere"):
        with pytest.raises(UserError, match=r"is no folder of a VAE: neither it nor its vae/ holds a config\.json"):
            load_vae(gone)
