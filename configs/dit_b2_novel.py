"""Fresh tailors for the 461 novel classes of the KIND protocol on the frozen learngenes of a DiT-B/2.

kind-jax transfer runs/dit_b2_imagenet --config dit_b2_novel --data.path LATENTS --workdir runs/novel

Some of them only: --data.classes 0 1 2 --model.num-classes 3. Other sizes need no config file: docs/imagenet.md.
"""

from kind_jax.config import Config, imagenet, onto


def get_config() -> Config:
    return onto(imagenet("B/2", protocol="kind-novel"), steps=50_000)
