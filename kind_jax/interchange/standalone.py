"""Evaluate or sample the exported model; needs jax, numpy, safetensors and flatbuffers, nothing else.

python run.py --labels 3,7 --steps 50 --out samples.npy
"""

import argparse
import itertools
import json
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy
from jax import export


def load(folder):
    """denoise(images [b, H, W, C], t [b], labels [b]) -> [b, H, W, out], for any b, and what signature.json says."""
    folder = Path(folder)
    signature = json.loads((folder / "signature.json").read_text())
    call = jax.jit(export.deserialize(bytearray((folder / "denoiser.stablehlo").read_bytes())).call)
    weights = jax.device_put(safetensors.numpy.load_file(folder / "weights.safetensors"))

    def denoise(images, t, labels):
        known = {*signature["classes"]["served"], signature["classes"]["null"]}
        wrong = set(np.asarray(labels).tolist()) - known
        if wrong:
            raise ValueError(f"labels {sorted(wrong)} are not served; signature.json lists those that are")
        return np.asarray(call(weights, np.float32(images), np.float32(t), np.int32(labels)))

    return denoise, signature


def sample(denoise, signature, labels, *, steps=50, guidance=1.0, seed=0, start=None):
    """Images [b, H, W, C], nominally in [-1, 1]: DDIM for a Gaussian process, Euler for a flow."""
    process, shape = signature["diffusion"], signature["inputs"]["images"]["shape"][1:]
    noise = np.random.default_rng(seed).standard_normal((len(labels), *shape), np.float32)
    x = noise if start is None else np.asarray(start)

    def predict(x, t):
        output = denoise(x, np.full(len(labels), t), labels)[..., : shape[-1]]  # a variance is not used
        if guidance == 1:
            return output
        if signature["classes"]["null"] is None:
            raise ValueError("the model has no unconditional branch, so guidance must be 1")
        null = denoise(x, np.full(len(labels), t), np.full(len(labels), signature["classes"]["null"]))
        return null[..., : shape[-1]] + guidance * (output - null[..., : shape[-1]])

    if process["process"] == "flow":
        grid = np.linspace(1, 0, steps + 1)
        for now, then in itertools.pairwise(grid):
            output = predict(x, 1000 * now)
            velocity = (x - output) / np.float32(now) if process["prediction"].startswith("clean") else output
            x = x + np.float32(then - now) * velocity
        return x
    kept = np.round(np.linspace(0, len(process["betas"]) - 1, steps)).astype(int) if steps > 1 else np.array([-1])
    alpha_bar = np.cumprod(1 - np.array(process["betas"]))[kept]
    signals = np.sqrt(np.append(1.0, alpha_bar)).astype(np.float32)  # of the data, noisier and noisier
    sigmas = np.sqrt(1 - np.append(1.0, alpha_bar)).astype(np.float32)
    for i in range(len(kept), 0, -1):
        output = predict(x, process["times"][kept[i - 1]])
        if process["prediction"] == "v":
            clean, noise = signals[i] * x - sigmas[i] * output, sigmas[i] * x + signals[i] * output
        else:
            clean, noise = (x - sigmas[i] * output) / signals[i], output
        x = signals[i - 1] * clean + sigmas[i - 1] * noise
    return x


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", required=True, help="classes like 3,7, one image each")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="samples.npy")
    given = parser.parse_args()
    asked = np.array([int(c) for c in given.labels.split(",")])
    images = sample(*load(Path(__file__).parent), asked, steps=given.steps, guidance=given.guidance, seed=given.seed)
    np.save(given.out, images)
    print(f"{given.out}: {images.dtype} {images.shape}")
