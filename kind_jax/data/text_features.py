"""Which of TFDS's features hold captions."""

from __future__ import annotations

from typing import Any

FEATURES = ("captions", "caption", "text")  # the first name that is there counts
FAMILY = "family"  # of the feature with the number of a record's family


def place_of(features: Any) -> tuple[str, ...]:
    """The keys that lead to a record's captions, by its ``FeaturesDict``; none where a data set has no captions.

    They are in a feature of a name in :data:`FEATURES`: a Text, a Sequence of Text, or a Sequence whose entries have
    ``text`` beside other things, as in coco_captions.
    """
    import tensorflow_datasets as tfds

    for name in FEATURES:
        kind: Any = dict(features).get(name)
        if isinstance(kind, tfds.features.Sequence):
            kind = kind.feature
        if isinstance(kind, tfds.features.Text):
            return (name,)
        if isinstance(kind, tfds.features.FeaturesDict) and isinstance(dict(kind).get("text"), tfds.features.Text):
            return (name, "text")
    return ()
