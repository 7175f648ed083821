"""Decoding with kept keys and values says what the whole network says, and each way of choosing chooses rightly."""

import dataclasses
import functools
import itertools

import chex
import cocas
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kind_jax.captioning import network
from kind_jax.captioning.decode import beam, greedy, sample
from kind_jax.captioning.decode.beams import _searched
from kind_jax.captioning.decode.single import _written
from kind_jax.config.coca import TowerConfig
from kind_jax.errors import UserError

MARKS = {"bos": cocas.BOS, "eos": cocas.EOS}
CONFIG = cocas.config()
WEIGHTS = cocas.weights(CONFIG, 37)  # by which greedy captions end early, each in its own place
N = 5


@functools.partial(jax.jit, static_argnums=0)
def encoded(config, weights, images):
    return network.encode_image(config, weights, images)[1]


TOKENS = encoded(CONFIG, WEIGHTS, cocas.images(CONFIG, N))


@functools.partial(jax.jit, static_argnums=0)
def whole(config, weights, image, texts):
    """Log-probabilities of the word behind each of the texts, by the network that sees all of them at once."""
    net = cocas.network(config, weights)
    return jax.nn.log_softmax(net.caption(net.encode_text(texts).words, image)[0])


def words(config, weights, image, texts, *, least=0):
    """The same for words that may stand there, NumPy [N, T, V]."""
    found = np.array(whole(config, weights, image, jnp.asarray(texts, jnp.int32)))
    found[:, :, [0, cocas.BOS]] = -np.inf
    found[:, : max(least - 2, 0), cocas.EOS] = -np.inf
    return found


def argmax_loop(config, weights, image, length, *, least=0, begun=()):
    texts = np.zeros((len(image), length), np.int32)
    texts[:, : 1 + len(begun)] = [cocas.BOS, *begun]
    total, ended = np.zeros(len(image)), np.zeros(len(image), bool)
    for at in range(1 + len(begun), length):
        p = words(config, weights, image, texts, least=least)[:, at - 1]
        texts[:, at] = np.where(ended, 0, p.argmax(-1))
        total += np.where(ended, 0, p.max(-1))
        ended |= texts[:, at] == cocas.EOS
    return texts, total


@pytest.mark.parametrize(("cross", "mask"), [("paper", "valid"), ("open_clip", "shifted")])
def test_kept_keys_and_values(cross, mask):
    """At all positions; several captions of an image share what is kept of it."""
    tower = TowerConfig(width=16, depth=2, heads=2)
    config = cocas.config(cross=cross, cls_mask=mask, text=tower, multimodal=tower, pooler="first")
    weights, captions = cocas.weights(config, scale=0.3), 2
    image = encoded(config, weights, cocas.images(config, 3))
    texts = jnp.asarray(np.random.default_rng(0).integers(3, 11, (6, config.context)))

    @jax.jit
    def by_steps(weights, image, texts):
        net = cocas.network(config, weights)

        def step(writing, each):
            logits, writing = net.step(*each, writing)
            return writing, jax.nn.log_softmax(logits)

        writing = net.begin(image, config.context, captions)
        return jax.lax.scan(step, writing, (texts.T, jnp.arange(config.context)))[1].swapaxes(0, 1)

    wanted = whole(config, weights, image.repeat(captions, 0), texts)
    chex.assert_trees_all_close(by_steps(weights, image, texts), wanted, atol=1e-5)


def test_greedy_is_the_argmax_of_the_whole_network():
    found = greedy(CONFIG, WEIGHTS, cocas.images(CONFIG, N), **MARKS)
    texts, total = argmax_loop(CONFIG, WEIGHTS, TOKENS, CONFIG.context)
    np.testing.assert_array_equal(found.tokens, texts)
    np.testing.assert_allclose(found.log_probabilities, total, atol=1e-4)
    assert (texts == cocas.EOS).any()  # some end
    assert len({tuple(row) for row in texts.tolist()}) >= 3  # different images, different captions
    chex.assert_trees_all_equal(greedy(CONFIG, WEIGHTS, TOKENS, **MARKS), found)  # of what captions see


@pytest.mark.parametrize("least", [6, 10])
def test_captions_of_a_least_length(least):
    found = greedy(CONFIG, WEIGHTS, TOKENS, min_length=least, **MARKS)
    np.testing.assert_array_equal(found.tokens, argmax_loop(CONFIG, WEIGHTS, TOKENS, 10, least=least)[0])
    lengths = np.sum(np.asarray(found.tokens) != 0, axis=1)
    assert lengths.min() >= least
    assert (np.asarray(found.tokens)[:, : least - 1] != cocas.EOS).all()


def test_a_prompt_is_kept_and_not_counted():
    prompt = (5, 9, 7)
    found = greedy(CONFIG, WEIGHTS, TOKENS, prompt=prompt, length=8, **MARKS)
    texts, total = argmax_loop(CONFIG, WEIGHTS, TOKENS, 8, begun=prompt)
    np.testing.assert_array_equal(found.tokens, texts)
    np.testing.assert_allclose(found.log_probabilities, total, atol=1e-4)
    rows = np.random.default_rng(0).integers(3, 11, (N, 2))
    key = jax.random.key(0)
    for captions in (sample(CONFIG, WEIGHTS, TOKENS, key, prompt=rows, **MARKS).tokens,
                     beam(CONFIG, WEIGHTS, TOKENS, beams=3, prompt=rows, **MARKS).tokens[:, 0]):  # fmt: skip
        np.testing.assert_array_equal(captions[:, 1:3], rows)


def test_one_beam_is_greedy():
    found, wanted = beam(CONFIG, WEIGHTS, TOKENS, beams=1, **MARKS), greedy(CONFIG, WEIGHTS, TOKENS, **MARKS)
    np.testing.assert_array_equal(found.tokens[:, 0], wanted.tokens)
    np.testing.assert_allclose(found.log_probabilities[:, 0], wanted.log_probabilities, atol=1e-4)


@pytest.mark.parametrize(("length", "beams", "penalty"), [(3, 7, 0.0), (5, 150, 2.0)])
def test_many_beams_search_exhaustively(length, beams, penalty):
    """Of a vocabulary of seven, four of them words."""
    config = dataclasses.replace(CONFIG, vocabulary=7)
    weights = cocas.weights(config)
    image = encoded(config, weights, cocas.images(config, 2))
    best = min(beams, 5)
    found = beam(config, weights, image, beams=beams, best=best, length=length, length_penalty=penalty, **MARKS)
    every = [row for row in itertools.product(range(2, 7), repeat=length - 1) if cocas.EOS not in row[:-1]]
    every += [(*row, cocas.EOS) for n in range(length - 2) for row in itertools.product(range(3, 7), repeat=n)]
    texts = np.zeros((len(every), length), np.int32)
    for text, row in zip(texts, every, strict=True):
        text[: 1 + len(row)] = (cocas.BOS, *row)
    for i in range(2):
        p = words(config, weights, image[i : i + 1].repeat(len(texts), 0), texts)
        each = np.take_along_axis(p[:, :-1], texts[:, 1:, None], axis=2)[..., 0]
        total = np.where(texts[:, 1:] != 0, each, 0).sum(1)
        score = total / ((5 + (texts[:, 1:] != 0).sum(1)) / 6) ** penalty
        order = np.argsort(-score)[:best]
        np.testing.assert_array_equal(found.tokens[i], texts[order])
        np.testing.assert_allclose(found.log_probabilities[i], total[order], atol=1e-4)
        np.testing.assert_allclose(found.scores[i], score[order], atol=1e-4)


def test_more_beams_find_no_less_and_a_penalty_favours_longer_captions():
    totals, counts = [], []
    for beams in (1, 4):
        found = beam(CONFIG, WEIGHTS, TOKENS, beams=beams, best=beams, **MARKS)
        totals.append(np.asarray(found.log_probabilities)[:, 0].mean())
        assert (np.diff(found.scores, axis=1) <= 0).all()
        texts = np.asarray(found.tokens)
        assert all(len({tuple(row) for row in rows.tolist()}) == beams for rows in texts)
    assert totals == sorted(totals)
    for penalty in (0.0, 1.0, 4.0):
        counts.append(
            np.sum(np.asarray(beam(CONFIG, WEIGHTS, TOKENS, best=4, length_penalty=penalty, **MARKS).tokens[:, 0]) != 0)
        )
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_where_there_are_fewer_captions_than_beams():
    config = dataclasses.replace(CONFIG, vocabulary=4)  # a single word: the word or the end, and then the length is out
    weights = cocas.weights(config)
    found = beam(config, weights, encoded(config, weights, cocas.images(config, 2)), best=4, length=2, **MARKS)
    assert [sorted(row) for row in np.asarray(found.tokens[:, :2, 1]).tolist()] == [[2, 3]] * 2
    assert not np.asarray(found.tokens[:, 2:]).any()
    assert np.isneginf(found.log_probabilities[:, 2:]).all()


def test_drawing_among_one_word_is_greedy():
    key = jax.random.key(1)
    wanted = greedy(CONFIG, WEIGHTS, TOKENS, **MARKS)
    for how in ({"top_k": 1, "temperature": 3.0}, {"top_p": 1e-6}, {"temperature": 1e-4}):
        found = sample(CONFIG, WEIGHTS, TOKENS, key, **how, **MARKS)
        np.testing.assert_array_equal(found.tokens, wanted.tokens)
        np.testing.assert_allclose(found.log_probabilities, wanted.log_probabilities, atol=1e-4)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, 1.0), (2.5, None, 1.0), (2.0, 4, 1.0), (2.0, None, 0.6), (2.0, 5, 0.8)],
)
def test_words_are_drawn_by_their_probabilities(temperature, top_k, top_p):
    draws = 6000
    key = jax.random.key(0)
    image = TOKENS[:1].repeat(draws, 0)
    found = sample(CONFIG, WEIGHTS, image, key, temperature=temperature, top_k=top_k, top_p=top_p, length=2, **MARKS)
    model = words(CONFIG, WEIGHTS, TOKENS[:1], [[cocas.BOS]])[0, 0]
    p = np.exp(model / temperature)
    order = np.argsort(-p)
    p[order[top_k:] if top_k else []] = 0
    p /= p.sum()
    before = np.cumsum(p[order]) - p[order]
    p[order[before >= top_p]] = 0
    p /= p.sum()
    drawn = np.asarray(found.tokens)[:, 1]
    seen = np.bincount(drawn, minlength=len(p)) / draws
    assert (seen[p == 0] == 0).all()
    assert np.abs(seen - p).max() < 4 * np.sqrt(0.25 / draws)
    np.testing.assert_allclose(found.log_probabilities, model[drawn], atol=1e-4)  # the model's own


def test_draws_follow_from_the_key():
    first, again, other = (sample(CONFIG, WEIGHTS, TOKENS, jax.random.key(i), **MARKS) for i in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert (np.asarray(first.tokens) != np.asarray(other.tokens)).any()


def test_nothing_is_compiled_twice():
    key = jax.random.key(0)

    def all_ways(images, **how):
        greedy(CONFIG, WEIGHTS, images, **how, **MARKS)
        sample(CONFIG, WEIGHTS, images, key, temperature=0.5 + len(how), top_k=3, top_p=0.9, **how, **MARKS)
        beam(CONFIG, WEIGHTS, images, beams=3, length_penalty=float(len(how)), **how, **MARKS)

    all_ways(TOKENS)
    sizes = _written._cache_size(), _searched._cache_size()
    all_ways(TOKENS + 1, min_length=5)
    all_ways(TOKENS, prompt=(3, 4))
    assert (_written._cache_size(), _searched._cache_size()) == sizes


BAD = {
    "length is 11, but it must be a whole number from 2 to 10, which is model.context.": {"length": 11},
    "length is 1, but": {"length": 1},
    "min_length is 9, but it must be a whole number from 0 to 8, the length.": {"length": 8, "min_length": 9},
    "eos is 11, but it must be a token": {"eos": 11},
    "another token than bos, 1, and pad, 1, which differ": {"pad": 1},
    "prompt is '9 tokens', but it must be 8 at most": {"prompt": [3] * 9},
    r"prompt is \[2\], but it must be made of words": {"prompt": [3, 2]},
    r"prompt is \(2, 3\), but it must be whole numbers, a row of them or one for each of 5": {"prompt": [[3] * 3] * 2},
    r"images is \(5, 4, 4, 3\), but it must be an array of images, \[N, \*\(8, 8, 3\)\]": {
        "images": np.zeros((5, 4, 4, 3), np.float32)
    },
    "images is dtype.'int32'., but it must be float": {"images": np.zeros((5, 8, 8, 3), np.int32)},
    "images is 'str', but": {"images": "a.png"},
}
BAD_DRAWS = {
    "temperature is 0.0, but it must be a number above 0": {"temperature": 0.0},
    "temperature is nan, but": {"temperature": float("nan")},
    "top_p is 0.0, but it must be above 0 and at most 1, or None.": {"top_p": 0.0},
    "top_p is 1.5, but": {"top_p": 1.5},
    "top_k is 0, but it must be a whole number from 1 to 11, or None.": {"top_k": 0},
}
BAD_BEAMS = {
    "beams is 0, but it must be a whole number from 1": {"beams": 0},
    "best is 5, but it must be a whole number from 1 to 4, the beams.": {"best": 5},
    "length_penalty is -1.0, but it must be a number, 0 or more.": {"length_penalty": -1.0},
}


@pytest.mark.parametrize("sentence", [*BAD, *BAD_DRAWS, *BAD_BEAMS])
def test_what_is_refused(sentence):
    how = {"images": TOKENS} | MARKS | (BAD | BAD_DRAWS | BAD_BEAMS)[sentence]
    draw = functools.partial(sample, key=jax.random.key(0))
    call = draw if sentence in BAD_DRAWS else beam if sentence in BAD_BEAMS else greedy
    with pytest.raises(UserError, match=sentence):
        call(CONFIG, WEIGHTS, **how)
