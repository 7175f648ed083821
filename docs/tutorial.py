# %% [markdown]
# # Train once, take apart, move on
#
# A tutorial in cells: open it in VS Code, PyCharm or Jupyter (through jupytext), or run it as a script:
#
#     python docs/tutorial.py
#
# It takes about five minutes on two CPU cores. Pictures go to `runs/tutorial`; those of one
# run are in `docs/tutorial/`.

# %%
import os
from pathlib import Path

import numpy as np

import kind_jax as kj
from kind_jax.config import change
from kind_jax.data.dataset import open_dataset
from kind_jax.deploy.anatomy import sizes
from kind_jax.images import grid, save_png
from kind_jax.transferring.run import transfer

OUT = Path(os.environ.get("KIND_TUTORIAL_OUT", "runs/tutorial"))
STEPS = int(os.environ.get("KIND_TUTORIAL_STEPS", "1200"))  # the tests take a few, of a shallow model
DEPTH = int(os.environ.get("KIND_TUTORIAL_DEPTH", "4"))


def show(name: str, rows: list[np.ndarray]) -> None:
    """Save images as a grid, a row of the picture for each array, and display it in a notebook."""
    picture = grid(np.concatenate(rows), columns=len(rows[0]), scale=6)
    save_png(OUT / f"{name}.png", picture)
    print(f"{name}: {OUT / name}.png")
    try:
        from IPython.core.getipython import get_ipython
        from IPython.display import Image, display
    except ImportError:
        return
    if get_ipython() is not None:
        display(Image(OUT / f"{name}.png"))


# %% [markdown]
# ## 1. Train
#
# A diffusion transformer on the handwritten digits 0 to 6; 7, 8 and 9 are kept for later. In every projection 32
# rank-one components are *learngenes*, which all classes share, and each class has 8 *tailors* of its own, which a gate
# switches on for that class alone. The class enters in no other way: the model has no label embedding.

# %%
OUT.mkdir(parents=True, exist_ok=True)
digits = kj.load_file(Path(__file__).parent.parent / "configs" / "digits.py")
config = change(
    digits,
    model={"num_classes": 7, "depth": DEPTH},
    data={"classes": tuple(range(7))},
    train={"steps": STEPS, "checkpoint_every": STEPS, "sample_every": 0},
)
kj.fit(config, OUT / "base")  # the same call continues an interrupted run, and returns at once from a finished one

# %% [markdown]
# ## 2. Where the knowledge sits
#
# First row: real digits. Second: samples. Third: all tailors off; the learngenes alone draw strokes, of no class in
# particular. Fourth: the next class's tailors on; the image follows the tailors, whatever was asked for.

# %%
base = kj.open_bundle(OUT / "base")
labels = np.repeat(np.arange(7), 2)
data = open_dataset(config.data, "test").source
records = data.gather(np.arange(len(data)))
real = np.stack([records["image"][records["label"] == c][i] for c in range(7) for i in range(2)])
alone = kj.one_group(np.full(len(labels), -1))
swapped = kj.one_group((labels + 1) % 7)
show(
    "knowledge",
    [
        real,
        base.sample(labels, seed=0),
        base.sample(labels, seed=0, gate=alone),
        base.sample(labels, seed=0, gate=swapped),
    ],
)

# %% [markdown]
# ## 3. Take apart
#
# The model is three dictionaries of arrays. An artifact has a file for each, and one for each class's tailors: a device
# fetches the classes that it serves.

# %%
for part in sizes(base.collections, len(base.groups)):
    print(f"{part.name:<28} {part.parameters:>9,} parameters")
kj.export(base, OUT / "artifact", replace=(OUT / "artifact").exists())
three = kj.open_bundle(OUT / "artifact", classes=[3])  # opens no other class's file
print("files read for class 3: learngenes, params and", [f"tailors/{g}" for g in three.groups])

# %% [markdown]
# ## 4. Compose
#
# One run, many sizes; nothing is trained. Without a budget the class's tailors are folded into the weights, exactly.
# Rows: the whole model, folded, then two smaller ones.

# %%
asked = np.full(14, 3)
rows = [three.sample(asked, seed=1)]
for budget in (None, 150_000, 90_000):
    composed = kj.compose(three, classes=[3], max_params=budget)
    rows.append(composed.bundle.sample(asked, seed=1))
    print(f"budget {budget}: {composed.after.parameters:,} parameters, {composed.after.flops / 1e6:.2f} MFLOPs")
print("folding changes the samples by", float(np.max(np.abs(rows[1] - rows[0]))))
show("composed", rows)

# %% [markdown]
# ## 5. Transfer
#
# Learngenes stay frozen, and fresh tailors learn the digits 7, 8 and 9 in a few steps. First row: real
# ones; second: after these steps.

# %%
novel = change(
    config,
    model={"num_classes": 3},
    data={"classes": (7, 8, 9)},
    optimizer={"learning_rate": 1e-2, "warmup": 5, "schedule": "constant"},
    train={"steps": max(STEPS // 10, 2), "ema": 0.99, "checkpoint_every": 0},
    transfer={"method": "kind"},
)
transfer(base, novel, OUT / "novel")
moved = kj.open_bundle(OUT / "novel")
new = np.repeat(np.arange(3), 5)
data = open_dataset(novel.data, "test").source
records = data.gather(np.arange(len(data)))
show(
    "novel",
    [
        np.stack([records["image"][records["label"] == c][i] for c in range(3) for i in range(5)]),
        moved.sample(new, seed=2),
    ],
)

# %% [markdown]
# ## 6. One model again
#
# Both share their learngenes bit by bit, so the new classes simply join the old ones.

# %%
grown = kj.grow(base, moved)
kj.export(grown, OUT / "grown", replace=(OUT / "grown").exists())
show("grown", [grown.sample(np.arange(10), seed=seed) for seed in range(4)])
print("knows", ", ".join(grown.class_names))
