"""timm and torchvision themselves read what is written, and what they write is read, with the same logits."""

import functools

import chex
import classifier_states
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
try:
    import torchvision as their_torchvision  # whose compiled half fails in several ways beside a torch of another build
except (ImportError, RuntimeError, AttributeError, OSError) as e:
    reason = "is not here" if isinstance(e, ModuleNotFoundError) else "does not import, perhaps built for another torch"
    pytest.skip(f"torchvision {reason} (extra `vision`; torch is {torch.__version__}): {e}", allow_module_level=True)
their_timm = pytest.importorskip("timm", reason="timm is not here (extra `vision`)")

from kind_jax import model, partition  # noqa: E402
from kind_jax.config.networks import resnet, vit  # noqa: E402
from kind_jax.interchange import timm, torchvision  # noqa: E402
from kind_jax.interchange.positions import resized  # noqa: E402
from kind_jax.interchange.state_dict import open_state_dict  # noqa: E402
from kind_jax.nn.gate import learngenes_only  # noqa: E402

POOLED = {"class_token": False, "global_pool": "avg", "fc_norm": False}
SMALL = {"image_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 3, "hidden_dim": 192, "mlp_dim": 300}
MODELS = {
    "timm tiny": (timm, 64, lambda: their_timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=7)),
    "timm small": (timm, 96, lambda: their_timm.create_model("vit_small_patch32_224", img_size=96)),
    "timm pooled": (timm, 64, lambda: their_timm.create_model("vit_tiny_patch16_224", img_size=64, **POOLED)),
    "timm without a bias": (timm, 32, lambda: their_timm.models.VisionTransformer(
        img_size=32, patch_size=8, in_chans=4, embed_dim=128, depth=2, num_heads=2, qkv_bias=False)),
    "timm resnet18": (timm, 64, lambda: their_timm.create_model("resnet18", num_classes=7)),
    "timm resnet50": (timm, 64, lambda: their_timm.create_model("resnet50")),
    "torchvision small": (torchvision, 32, lambda: their_torchvision.models.VisionTransformer(**SMALL)),
    "torchvision resnet18": (torchvision, 64, their_torchvision.models.resnet18),
    "torchvision resnet34": (torchvision, 64, lambda: their_torchvision.models.resnet34(num_classes=7)),
    "torchvision resnet50": (torchvision, 64, their_torchvision.models.resnet50),
}  # fmt: skip


@functools.cache
def made(name):
    """One of their networks with random weights and statistics."""
    _, _, make = MODELS[name]
    module = make().eval()
    shapes = {n: tuple(a.shape) for n, a in module.state_dict().items() if not n.endswith("num_batches_tracked")}
    missing, unexpected = module.load_state_dict(tensors(classifier_states.filled(shapes)), strict=False)
    assert (len(unexpected), [n for n in missing if not n.endswith("num_batches_tracked")]) == (0, [])
    return module


def tensors(state):
    return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in state.items()}


def arrays(module):
    return {name: a.numpy() for name, a in module.state_dict().items()}


def relative(a, b):
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def ours(config, collections, images):
    definition = model.definition(config)[0]
    call = jax.jit(lambda collections, images: partition.join(definition, collections)(images, learngenes_only()))
    return np.asarray(call(jax.tree.map(jnp.asarray, collections), jnp.asarray(images)))


@torch.no_grad()
def theirs(module, images):
    return module.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


@pytest.mark.parametrize("name", MODELS)
def test_their_networks_compute_the_same(optimised, name):
    program, size, _ = MODELS[name]
    config, collections = program.read(arrays(made(name)), size=size, origin=name)
    images = classifier_states.images(size, config.channels)
    wanted = theirs(made(name), images)
    assert np.ptp(wanted, axis=0).max() > 0.01 * np.abs(wanted).max()  # images matter
    error = relative(ours(config, collections, images), wanted)
    print(f"{name}: relative error {error:.1e}")
    assert error < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_they_compute_what_our_networks_do(optimised, name):
    program, size, make = MODELS[name]
    config, _ = program.read(arrays(made(name)), size=size, origin=name)
    rng = np.random.default_rng(0)
    fresh = partition.flatten(model.init(config, 0))
    leaves = {path: a + 0.02 * rng.standard_normal(a.shape, np.float32) for path, a in fresh.items()}
    leaves |= {
        path: rng.uniform(0.5, 1.5, a.shape).astype(np.float32) for path, a in fresh.items() if path[-4:] == "/var"
    }
    collections = {name: {} for name in partition.COLLECTIONS} | partition.unflatten(leaves)
    module = make()
    module.load_state_dict(tensors(program.write(config, collections)))  # strict
    images = classifier_states.images(size, config.channels)
    wanted = ours(config, collections, images)
    assert np.ptp(wanted, axis=0).max() > 0.01 * np.abs(wanted).max()  # images matter
    error = relative(theirs(module, images), wanted)
    print(f"{name}: relative error {error:.1e}")
    assert error < 1e-5


@pytest.mark.parametrize(("name", "ours"), [
    ("vit_tiny_patch16_224", vit("Ti/16")), ("vit_base_patch32_224", vit("B/32")),
    ("vit_large_patch16_224", vit("L/16")), ("vit_huge_patch14_224", vit("H/14", qkv_bias=True, norm_eps=1e-6)),
])  # fmt: skip
def test_published_sizes_of_timm(name, ours):
    """Heads above all, which no shape tells; one block stands for all."""
    with torch.device("meta"):
        whole, module = (their_timm.create_model(name, num_classes=7, **more) for more in ({}, {"depth": 1}))
    state = {n: np.broadcast_to(np.float32(0), a.shape) for n, a in module.state_dict().items()}
    config, _ = timm.read(state, origin=name)
    assert (config.heads, config.width, config.size) == (whole.blocks[0].attn.num_heads, ours.width, ours.size)
    assert (config.heads, config.patch, config.mlp_ratio) == (ours.heads, ours.patch, ours.mlp_ratio)
    assert (len(whole.blocks), whole.norm.eps) == (ours.depth, config.norm_eps)
    assert (config.mean, config.std) == (whole.default_cfg["mean"], whole.default_cfg["std"])


def test_settings_of_batchnorm():
    for depth in (18, 50):
        for make in (their_timm.create_model, their_torchvision.models.get_model):
            norm = make(f"resnet{depth}").bn1
            assert (norm.eps, norm.momentum) == (resnet(depth).norm_eps, resnet(depth).momentum)


@pytest.mark.parametrize(("old", "new"), [(4, 7), (7, 14), (14, 24)])
def test_positions_are_resized_as_timm_does(old, new):
    positions = np.random.default_rng(0).standard_normal((1 + old * old, 12), np.float32)
    resample = their_timm.layers.resample_abs_pos_embed
    wanted = resample(torch.from_numpy(positions[None]), [new, new], num_prefix_tokens=1).numpy()[0]
    error = relative(resized(positions, new, tokens=1), wanted)
    print(f"relative error {error:.1e}")
    assert error < 1e-5


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_their_files(tmp_path, suffix):
    module = made("torchvision resnet18")
    torch.save(module.state_dict(), tmp_path / f"a{suffix}")
    found = open_state_dict(tmp_path / f"a{suffix}")
    wanted = torchvision.read(arrays(module), origin="memory")
    chex.assert_trees_all_equal(torchvision.read(found, origin="file"), wanted)
