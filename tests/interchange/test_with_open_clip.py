"""open_clip itself computes the same with the same weights, and reads what is written."""

import dataclasses

import cocas
import jax
import jax.numpy as jnp
import numpy as np
import open_clip_states as states
import pytest

torch = pytest.importorskip("torch")
try:
    import open_clip.coca_model as theirs
except (ImportError, RuntimeError, AttributeError, OSError) as e:  # torchvision beside a torch of another build, too
    pytest.skip(f"open_clip is not here or does not import (extra `clip`): {e}", allow_module_level=True)

from fixtures import record_open_clip as record  # noqa: E402

from kind_jax import model, partition  # noqa: E402
from kind_jax.captioning.decode import greedy  # noqa: E402
from kind_jax.interchange import incoming_coca, open_clip  # noqa: E402

MARKS = {"bos": states.BOS, "eos": states.EOS}
IMAGES = states.images(12)
MODULES = {}


def made(case):
    """Their network with the weights of the case, and ours with its state dict."""
    if case not in MODULES:
        settings = states.CASES[case]
        module = record.make(**settings)
        how = {name: value for name, value in settings.items() if name != "shapes"}
        MODULES[case] = module, *open_clip.read(arrays(module), origin=case, **states.HEADS, **how)
    return MODULES[case]


def arrays(module):
    return {name: a.numpy() for name, a in module.state_dict().items()}


def ours(config, collections, images, texts):
    @jax.jit
    def call(collections, images, texts):
        net = cocas.network(config, collections)
        image, text = net.encode_image(images), net.encode_text(texts)
        return {"image": image.embedding, "text": text.embedding, "logits": net.caption(text.words, image.tokens)[0]}

    return jax.tree.map(np.asarray, call(collections, jnp.asarray(images), jnp.asarray(texts, jnp.int32)))


def compare(found, wanted, most=1e-4):
    for name, a in found.items():
        error = float(np.max(np.abs(a - wanted[name])))
        print(f"{name}: largest difference {error:.1e}")
        assert error <= most


@pytest.mark.parametrize("case", states.CASES)
def test_embeddings_and_logits(case):
    """Of texts with padding and without, in batches of one length."""
    module, config, collections = made(case)
    compare(ours(config, collections, IMAGES[:4], states.texts()), record.outputs(module, IMAGES[:4], states.texts()))


@pytest.mark.parametrize("case", states.CASES)
def test_captions(case):
    module, config, collections = made(case)
    plain = dataclasses.replace(config, mean=None, std=None)  # of images as they are
    found = np.asarray(greedy(plain, collections, jnp.asarray(IMAGES), **MARKS).tokens)
    np.testing.assert_array_equal(found, argmax_loop(module))
    if not theirs._has_transformers:
        pytest.skip("transformers is not here, or has no beam search any more (4.55 has), which generate imports")
    # Theirs counts the tokens in front of the end, and has an end at the last place whatever comes.
    np.testing.assert_array_equal(found[:, :-1], record.greedy(module, IMAGES)[:, :-1])
    longer = greedy(plain, collections, jnp.asarray(IMAGES), min_length=8, **MARKS).tokens
    np.testing.assert_array_equal(longer[:, :-1], record.greedy(module, IMAGES, least=7)[:, :-1])


@torch.no_grad()
def argmax_loop(module):
    """The most probable word each time, but for padding and what begins a text."""
    images = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())
    texts = torch.full((len(IMAGES), 1), states.BOS)
    for _ in range(states.LENGTH - 1):
        logits = module(images, texts, output_labels=False)["logits"][:, -1]
        logits[:, [0, states.BOS]] = -torch.inf
        ended = (texts == states.EOS).any(1)
        texts = torch.cat([texts, torch.where(ended, 0, logits.argmax(-1))[:, None]], 1)
    return texts.numpy()


@pytest.mark.parametrize("case", states.CASES)
def test_it_reads_what_is_written(case):
    """Our own fresh weights, moved, compute the same there."""
    _, config, _ = made(case)
    rng = np.random.default_rng(0)
    collections = jax.tree.map(
        lambda a: a + 0.1 * rng.standard_normal(a.shape).astype(np.float32), model.init(config, 0)
    )
    module = record.make(**states.CASES[case])
    state = {name: torch.from_numpy(a) for name, a in open_clip.write(config, collections).items()}
    module.load_state_dict(state)  # strict
    compare(ours(config, collections, IMAGES[:4], states.texts()), record.outputs(module, IMAGES[:4], states.texts()))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_their_files(tmp_path, checkpoint):
    """Also a checkpoint of training on several devices, and with CLIP's vocabulary."""
    shapes = states.coca(width=16, image_width=16, layers=(1, 1, 1), vocabulary=49_408)
    state = {name: torch.from_numpy(a) for name, a in states.filled(shapes).items()}
    path = tmp_path / f"open_clip.{'pt' if checkpoint else 'bin'}"
    named = {f"module.{name}": a for name, a in state.items()}
    torch.save({"epoch": 3, "name": "x", "state_dict": named, "optimizer": {}} if checkpoint else state, path)
    found = incoming_coca.load_coca(path, heads=2, text_heads=2, pooler_heads=2)
    assert found.config.text.tokenizer == "clip"
    table = partition.flatten(found.collections)["params/text/table"]
    np.testing.assert_array_equal(table, state["text.token_embedding.weight"].numpy())
