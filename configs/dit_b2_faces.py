"""Fresh tailors for one class of another domain, like CelebA-HQ's faces, on the frozen learngenes of a DiT-B/2.

kind-jax transfer runs/dit_b2_imagenet --config dit_b2_faces --data.path FACES --workdir runs/faces

FACES was written by kind-jax latents from a folder of images with one class; so are Hubble's pictures, MRI, Pokémon.
"""

from kind_jax.config import Config, change, imagenet, onto


def get_config() -> Config:
    base = imagenet("B/2", protocol=None, num_classes=1)
    return change(onto(base, steps=10_000), train={"batch": 64})
