"""A folder of images, and configs for it."""

import hostile_images

from kind_jax.config import DataConfig

CLASSES = ("Zebra", "ant", "bee")  # in the order of code points


def fill(root, count=8):
    """A small data set: each image has its own pixels."""
    for split, some in (("train", CLASSES), ("val", CLASSES[:2])):
        for label, name in enumerate(some):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                image = hostile_images.photo(20 + i, 24, seed=100 * label + i)
                image.save(root / split / name / f"{i}.{('png', 'JPEG', 'bmp', 'tif')[i % 4]}")
    return root


def config(root, **settings):
    return DataConfig(**{"source": "folder", "path": str(root), "size": 12, "skip_bad": 0.5, **settings})


def files_of(source):
    return [str(source.path(i).relative_to(source.folder)) for i in range(len(source))]
