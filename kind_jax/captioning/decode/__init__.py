"""Captions of images, word by word: the most probable word each time, drawn words, or a search over whole captions.

Pure functions of settings, collections and images. Each is compiled once for its shapes and keeps the keys and values
of the words so far (:meth:`kind_jax.nn.coca.CoCa.step`), so that a word costs one token's work; it ends as soon as all
captions have.
"""

from kind_jax.captioning.decode.beams import Beams, beam
from kind_jax.captioning.decode.single import Captions, greedy, sample

__all__ = ["Beams", "Captions", "beam", "greedy", "sample"]
