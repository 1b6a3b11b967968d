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
# # Split your own network
#
# `split_neuron` splits neurons, or channels, of a network that was not made for it: any `nn.Module` that torch.fx can trace, in place, in
# the middle of training, with its optimiser. This notebook does so in a small convolutional network that learns with Adam,
# and then in a ResNet and a vision transformer. The claim: the output does not change, and with the optimiser's state carried
# along neither does the course of training. The limit: constructions through which no exact split is known are refused, with the reason.
#
# Before this: [04_comparison](04_comparison.ipynb) compares eight experiments. The split itself is in [01_split_a_neuron](01_split_a_neuron.ipynb).

# %% tags=["parameters"]
dataset: str = "digits"  # or fashion-mnist
steps: int = 300  # training steps before the split, and again after it
learning_rate: float = 0.003  # of Adam
batch_size: int = 64  # images per step
seed: int = 0  # of the weights, the batches and the coefficients

# %%
import copy
import platform

import numpy as np
import pandas as pd
import torch
from torch import nn

import neuronsplit as ns
from neuronsplit.data.download import import_torchvision_datasets
from neuronsplit.plots.curves import loss_around_split
from neuronsplit.plots.style import use_style

torch.set_num_threads(1)
use_style()

# %% [markdown]
# ## A network and its training
#
# Nothing here knows of splits.

# %%
data = ns.load_dataset(dataset)
height, width = data.shape
flat = 16 * (height // 2) * (width // 2)
torch.manual_seed(seed)
net = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
    nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
    nn.Linear(flat, 10),
)  # fmt: skip
optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)

# %%
batches = np.random.default_rng(seed).integers(len(data.train.labels), size=(2 * steps, batch_size))


def train(net, optimizer, batches):
    """The loss of each step."""
    losses = []
    for batch in torch.from_numpy(batches):
        images = data.train.images[batch].view(-1, 1, height, width)  # (B, 1, h, w)
        loss = nn.functional.cross_entropy(net(images), data.train.labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


first_half = train(net, optimizer, batches[:steps])

# %% [markdown]
# ## The split
#
# One call doubles the first convolution: each of its 8 channels is split into two. What follows it is found and changed with it: the BatchNorm,
# and the inputs of the second convolution.

# %%
x = data.test.images[:100].view(-1, 1, height, width)
unsplit = copy.deepcopy((net, optimizer))  # for comparison

record = ns.split_neuron(
    net, "0", neurons=list(range(8)), example_inputs=x, optimizer=optimizer, rng=np.random.default_rng(seed)
)
pd.DataFrame(record.shapes, index=["before", "after"]).T

# %%
print("largest change of an output below 1e-5 of the largest:", record.change < 1e-5)
print("the optimiser holds the new parameters:", optimizer.param_groups[0]["params"][0] is net[0].weight)
print("its momenta have the new shape:", tuple(optimizer.state[net[0].weight]["exp_avg"].shape))

# %% [markdown]
# ## Training goes on
#
# The same batches for four networks: the one that was not split, the split one with its optimiser, the split one with a new
# optimiser, as after a split that leaves the state behind, and one whose state was filled up with zeros.

# %%
carried, zeroed = copy.deepcopy((net, optimizer)), copy.deepcopy((net, optimizer))
split_net = copy.deepcopy(net)
restarted = split_net, torch.optim.Adam(split_net.parameters(), lr=learning_rate)
for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
    state = zeroed[1].state[zeroed[0].get_parameter(name)]
    for moment in (state["exp_avg"], state["exp_avg_sq"]):
        moment[8:] = 0  # the second twins
arms = {"not split": unsplit, "state carried": carried, "state filled with zeros": zeroed, "new optimiser": restarted}
second_half = {name: train(*arm, batches[steps:]) for name, arm in arms.items()}

# %%
losses = pd.DataFrame({name: first_half + after for name, after in second_half.items()})
figure = loss_around_split(losses, step=steps, window=60)

# %% [markdown]
# In numbers: the mean loss of the first 20 steps after the split.

# %%
after = losses.iloc[steps : steps + 20].mean()
(after / after["not split"]).round(1).rename("relative to the network that was not split")

# %% [markdown]
# ## A ResNet and a vision transformer
#
# In a residual network several layers add to the same channel: all of them are split. In a transformer's MLP the
# activation is GELU, which lets no scale through: the rule `outgoing` leaves the incoming weights alone.

# %%
import_torchvision_datasets()
import torchvision.models

image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
resnet = torchvision.models.resnet18(weights=None)
vit = torchvision.models.vit_b_16(weights=None, image_size=64)
nn.init.normal_(vit.heads.head.weight)  # made with zeros: any split would seem exact
cases = [
    (resnet, "layer1.0.conv1", "scaled"),
    (resnet, "layer2.1.conv2", "scaled"),
    (vit, "encoder.layers.encoder_layer_5.mlp.0", "outgoing"),
]
for model, layer, rule in cases:
    done = ns.split_neuron(model, layer, 7, example_inputs=image, rule=rule, rng=np.random.default_rng(seed))
    print(f"{type(model).__name__}, {layer}: {len(done.shapes)} tensors changed, exact to 1e-5: {done.change < 1e-5}")

# %% [markdown]
# ## What is refused
#
# A split that cannot be exact raises an error that says why, and changes nothing.

# %%
for model, layer, rule in [
    (vit, "encoder.layers.encoder_layer_5.mlp.0", "scaled"),
    (vit, "conv_proj", "outgoing"),
    (resnet, "fc", "scaled"),
]:
    try:
        ns.split_neuron(model, layer, 0, example_inputs=image, rule=rule)
    except ValueError as error:
        print(f"{layer}: {error}\n")

# %% [markdown]
# ## What we see
#
# The split changes the output by rounding alone. With the state carried along, the first losses after it are those of the network that
# was not split, and they drift apart only as the twins do. A new optimiser sets training back: here the loss is several times larger
# for dozens of steps (on Fashion-MNIST, whose loss is far from zero, by a tenth).
# Zeros in place of the twins' moments are milder: they make those twins' first steps about three times too large,
# (1 − β₁) / √(1 − β₂) = 3.2 for Adam's defaults.

# %%
assert record.change < 1e-5
assert abs(losses["state carried"].iloc[steps] / losses["not split"].iloc[steps] - 1) < 1e-3
assert abs(after["state carried"] / after["not split"] - 1) < 0.2
assert after["new optimiser"] / after["not split"] > (2 if dataset == "digits" else 1.05)
print("held")

# %% [markdown]
# Next: [06_the_2021_study](06_the_2021_study.ipynb) runs the original study again, with and without its faults.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
