# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Grow while training
#
# Without set-up, the public repository opens in [Colab](https://colab.research.google.com/github/YOUR_NAME/neuronsplit/blob/main/notebooks/02_grow_while_training.ipynb)
# or in [Binder](https://mybinder.org/v2/gh/YOUR_NAME/neuronsplit/main?labpath=notebooks%2F02_grow_while_training.ipynb).
#
# What happens to a network that grows while it learns? Nothing jumps: a split does not change the loss when it happens. It matters only
# through what the new neurons learn later, and in this network most twins stay close to each other.
#
# One network learns here. At the end of every epoch one random hidden neuron is split, and training goes on. We look at its losses, at its
# mistakes and at the incoming weights of its neurons. What decides is the largest change of the test loss by a split. The limit: one run of
# one network cannot say whether growth helps. [04_comparison](04_comparison.ipynb) asks that.
#
# Before this: [01_split_a_neuron](01_split_a_neuron.ipynb) explains the split.
#
# The next cell installs the package where it is missing, and does nothing elsewhere.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("neuronsplit") is None:  # as on Colab: fetch the project, with the tables that it reads
    subprocess.run("git clone --quiet --depth 1 https://github.com/YOUR_NAME/neuronsplit".split(), check=True)
    os.chdir("neuronsplit")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "."], check=True)

# %% tags=["parameters"]
dataset: str = "digits"  # what is learned: digits, mnist-1d or fashion-mnist
width: int = 10  # hidden neurons at the start
epochs: int = 20  # epochs, each of which ends with a split
learning_rate: float = 0.05  # of plain SGD
batch_size: int = 32  # images per step
seed: int = 0  # of everything random
figures: str = ""  # a folder where the pictures are saved, from the project's folder; none are saved by default

# %%
import json
import platform
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from IPython.display import Image

import neuronsplit as ns
from neuronsplit.analysis.circumstances import circumstances
from neuronsplit.analysis.tables import lineage
from neuronsplit.growing.metrics import mean_metrics
from neuronsplit.growing.scores import forward_blocks
from neuronsplit.growing.train import Run
from neuronsplit.growing.which import choose
from neuronsplit.locations import ROOT
from neuronsplit.plots.curves import curves_per_policy
from neuronsplit.plots.interactive import player, show
from neuronsplit.plots.neurons import image_grid, weight_animation, weight_images
from neuronsplit.plots.style import save_figure, use_style
from neuronsplit.plots.twins import draw_epoch

torch.set_num_threads(1)
use_style()

# %% [markdown]
# ## Data and network
#
# The pixels of images run from −0.5 to 0.5 in all three sets. A policy may look at the validation images. The test images only show us the result.

# %%
data = ns.load_dataset(dataset)
for name in ("train", "validation", "test"):
    print(f"{name:10}", tuple(getattr(data, name).images.shape))  # (N, pixels)

mlp = ns.MLP.for_dataset(data, width, seeds=[seed])
print("sizes     ", mlp.sizes, " parameters", mlp.n_parameters())

# %% [markdown]
# ## Train, split, repeat
#
# A `Run` holds networks, their optimiser and their random streams. With it the whole method takes six lines.

# %%
run = Run.start(mlp, [seed], "sgd", learning_rate, batch_size)
for _ in range(epochs):
    run.epoch(data.train)
    neuron = choose(["random"], run.mlp, forward_blocks(run.mlp, data.validation), run.draws)
    run.grow("scaled", neuron, data.train)
    losses, correct = run.evaluate(data.test)

print("sizes     ", run.mlp.sizes, " parameters", run.mlp.n_parameters())
print(f"test accuracy after {epochs} epochs: {correct.float().mean():.2f}")

# %% [markdown]
# Notice that the hidden layer has gained one neuron per epoch.
#
# Now the same loop runs again and keeps a record: losses before and after each split, the neuron that was split, and all incoming weights.
# Everything random has a stream of its own, so the second run repeats the first.


# %%
def record(epoch, neuron, **results):
    """One row of a table: mean metrics, each with the name of its evaluation in front."""
    row = {"policy": "random", "seed": seed, "epoch": epoch, "hidden": run.mlp.width}
    row["split_neuron"] = str(neuron.item())
    for name, (losses, correct) in results.items():
        row |= {metric: value.item() for metric, value in mean_metrics(name, losses, correct).items()}
    return row


mlp = ns.MLP.for_dataset(data, width, seeds=[seed])
run = Run.start(mlp, [seed], "sgd", learning_rate, batch_size)
rows, w_in = [], [mlp.weights[0][0].clone()]  # (H, pixels) after each epoch
for epoch in range(1, epochs + 1):
    train = run.epoch(data.train)
    before_split = run.evaluate(data.test)
    neuron = choose(["random"], run.mlp, forward_blocks(run.mlp, data.validation), run.draws)
    run.grow("scaled", neuron, data.train)
    rows.append(record(epoch, neuron, train=train, before_split=before_split, test=run.evaluate(data.test)))
    w_in.append(run.mlp.weights[0][0].clone())
history = pd.DataFrame(rows)
print("the same final test loss as in the first run:", abs(history.test_loss.iloc[-1] - losses.mean().item()) < 1e-6)

# %% [markdown]
# ## Curves
#
# The figure shows the losses and the test accuracy of this one network. Training values are means over an epoch, and test values are taken
# after the split. Notice that the curves have no steps, although a neuron is split at the end of every epoch.

# %%
figure = curves_per_policy(history, ["train_loss", "test_loss", "test_accuracy"])

# %% [markdown]
# The curves could hide a small step. So the next cell compares the test loss just before and just after each split.

# %%
jump = (history.test_loss - history.before_split_loss).abs().max()
print("largest change of the test loss by a split is below 1e-5:", jump < 1e-5)

# %% [markdown]
# The difference is rounding error. So every later change is what the twins learned.
#
# ## What the network gets wrong
#
# The grid shows the first 32 test images with their true names. Notice the red titles: there the network gives another answer.

# %%
answers = run.mlp(data.test.images[:32])[0].argmax(1)
truth = data.test.labels[:32]
titles = [data.classes[t] if t == a else f"{data.classes[t]}\nsays {data.classes[a]}" for t, a in zip(truth, answers)]
prefix = figures and f"{figures}/growth-"
save_figure(image_grid(data.test.images[:32], data.shape, titles, (truth == answers).tolist()), prefix, "images")
print(f"right: {(truth == answers).sum()} of {len(truth)}")

# %% [markdown]
# ## What its neurons look for
#
# Each tile shows the incoming weights of one hidden neuron as an image. Ink increases a neuron's activation where its tile is red,
# and decreases it where the tile is blue. The first `width` neurons keep their position, and each later one is appended.
#
# Notice how many of the later tiles look like an earlier one: they are its twins.

# %%
titles = [f"before training, {width} neurons", f"after {epochs} epochs, {run.mlp.width} neurons"]
save_figure(weight_images([w_in[0], w_in[-1]], titles, data.shape), prefix, "weights")

# %% [markdown]
# The animation shows how this happens, with one frame per epoch. Notice that every epoch adds one tile, and that the tile resembles the
# one it was split from.

# %% tags=["nbval-ignore-output"]
zoom = max(2, 540 // (10 * (data.shape[1] + 1)))  # 10 tiles side by side, about 540 pixels wide
with TemporaryDirectory() as folder:
    folder = ROOT / figures if figures else Path(folder)
    weight_animation(w_in, data.shape, folder / "growth.gif", zoom=zoom)
    animation = (folder / "growth.gif").read_bytes()
if figures:
    made_by = {"dataset": dataset, "width": width, "epochs": epochs, "learning_rate": learning_rate, "seed": seed}
    (folder / "growth.json").write_text(json.dumps(made_by | circumstances(), indent=1), encoding="utf-8")
# pages that show notebooks know no GIF, and browsers look at the bytes, whatever the name of the format is
Image(
    data=animation, format="png", alt=f"incoming weights, epoch by epoch, of a network that grows by {epochs} neurons"
)

# %% [markdown]
# ## Do twins become different?
#
# Twins begin as scaled copies of each other, so at the split the cosine between their incoming weights is 1. The table shows the cosine between
# each new neuron and its parent at the end of training. Notice how close to 1 it still is, even for neurons that were born early.

# %% tags=["nbval-ignore-output"]
tree = lineage(history)
directions = torch.nn.functional.normalize(w_in[-1], dim=1)
tree["cosine"] = [(directions[neuron] @ directions[parent]).item() for neuron, parent in tree.parent.items()]
born_later = tree[tree.born > 0]
born_later.round(3)

# %% [markdown]
# These cosines are the finding of this notebook. Most twins still point in the same direction, so the network has more neurons but few new
# features. [07_do_twins_part](07_do_twins_part.ipynb) measures this and explains it.
#
# ## Epoch by epoch
#
# Now all of this together. In a running notebook, press play or move the slider. Notice that the framed tiles, the newest twins, look alike.
# At the end both are pale, because their weights are small. The loss goes on without a step. Most angles stay below 10 degrees. Grey lines show what comes later.

# %% tags=["nbval-ignore-output"]
show(
    player(lambda epoch: draw_epoch(epoch, history, w_in, data.shape), last=epochs, name="epoch"),
    otherwise="A play button appears here where the notebook runs. The animation above shows the weights.",
)

# %% [markdown]
# The next figure is the last epoch, for readers without a kernel.

# %%
_ = draw_epoch(epochs, history, w_in, data.shape)

# %% [markdown]
# Notice that one pair of twins has come apart, and that the others have not.
#
# ## What we see
#
# - The network learned, and it grew by one neuron per epoch.
# - No split moved the test loss by more than rounding error.
# - On digits, nine in ten twins keep a cosine above 0.99: they hardly diverged.
#
# What the text says of cosines and angles is about the default parameters. The next cell asserts these sentences.

# %%
assert run.mlp.width == width + epochs
assert jump < 1e-5
assert history.test_loss.iloc[-1] < history.test_loss.iloc[0]
if (dataset, width, epochs, learning_rate, batch_size, seed) == ("digits", 10, 20, 0.05, 32, 0):  # the defaults
    assert (born_later.cosine > 0.99).mean() >= 0.9
    assert (born_later.cosine < 0.98).sum() == 1  # 0.98 is 11 degrees
    print("held")
else:
    print(f"these are not the defaults: {(born_later.cosine > 0.99).mean():.0%} of the twins keep a cosine above 0.99")

# %% [markdown]
# Next: [03_experiment](03_experiment.ipynb) does this for several networks at once, with any policy.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
