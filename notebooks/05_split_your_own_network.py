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
# Without set-up, the public repository opens in [Colab](https://colab.research.google.com/github/YOUR_NAME/neuronsplit/blob/main/notebooks/05_split_your_own_network.ipynb)
# or in [Binder](https://mybinder.org/v2/gh/YOUR_NAME/neuronsplit/main?labpath=notebooks%2F05_split_your_own_network.ipynb).
#
# Can a neuron of any PyTorch network be split while it trains? Yes, if an exact split is known: one call splits a channel, a head of
# attention or an LSTM unit, and the optimiser's state. The loss then goes on as it would have without the split. The limit: some layers
# have no exact split, and a call for one is refused. The last section counts them. The loss curves here are one run of one small network.
#
# Before this: [04_comparison](04_comparison.ipynb) compares several experiments. [01_split_a_neuron](01_split_a_neuron.ipynb) proves the
# split itself.
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
dataset: str = "digits"  # or fashion-mnist
steps: int = 300  # training steps before the splits, and again after them
learning_rate: float = 0.005  # of Adam
batch_size: int = 64  # images per step
seed: int = 0  # of the weights, the batches and the coefficients
coverage: str = "figures/data/coverage.parquet"  # the table of the last section, from the project's folder

# %%
import copy
import json
import platform

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

import neuronsplit as ns
from neuronsplit.data.download import import_torchvision_datasets
from neuronsplit.locations import ROOT
from neuronsplit.plots.curves import loss_around_split
from neuronsplit.plots.labels import draw_labels
from neuronsplit.plots.style import use_style

torch.set_num_threads(1)
use_style()

# %% [markdown]
# ## Which layers split?
#
# `ns.splittable` answers for a whole network at once. It needs the network and an input to run it on. It tries no split: `split_neuron` does
# that, and checks it. The next cell asks for ResNet-18.

# %%
import_torchvision_datasets()  # makes torchvision work with a torch without CUDA
import torchvision

resnet = torchvision.models.resnet18(weights=None)
images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
table = ns.splittable(resnet, images).set_index("layer")
table["n_changes"] = table.changes.map(len)
print("with a channel of layer1.0.conv1 change:", *table.changes["layer1.0.conv1"], sep="\n")
rows = ["conv1", "layer1.0.conv1", "layer1.0.conv2", "layer4.1.conv2", "fc"]
table.loc[rows, ["channels", "splits_together", "rule", "n_changes", "reason"]]

# %% [markdown]
# `splits_together` says how many channels of the layer must split at once, and 0 means that none can. Notice `fc`: its channels are the
# network's output. `rule` is a rule that is exact for them. `n_changes` counts the parameters and buffers that change.
#
# Inside a block, a split changes six of them, which the list names. Between blocks there are more, because several layers add to one
# residual channel.
#
# ## How it finds them
#
# The network runs once, and every element carries a label that says which channel it belongs to. The figure shows this for a network of
# three operations: `h = x @ A.T`, `r = relu(h)` and `y = r @ B.T`. The cell also splits neuron 1 of such a network. Read the left side of
# the figure from top to bottom. The label −1, on the input, stands for no channel.

# %%
three = nn.Sequential(nn.Linear(3, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
of_three = ns.splittable(three, x)
record = ns.split_neuron(three, "0", 1, example_inputs=x, rng=np.random.default_rng(seed))
for name, layer in (("A", "0.weight"), ("B", "2.weight")):
    print(name, "{} → {}".format(*record.shapes[layer]))
_ = draw_labels()

# %% [markdown]
# Each row of `A` makes a channel, so `h` has the labels 0 and 1. ReLU leaves every element in its place. Each column of `B` reads a
# channel.
#
# To split neuron 1 is to copy what has the label 1: a row of `A` and a column of `B`. Notice that the output keeps its size, and that the
# printed shapes are those of the figure. Channel 2 is the output itself, so it cannot be split.
#
# ## A network of your own
#
# Nothing in the next cell knows of splits. The network reads an image row by row. A convolution sees the image, two heads of attention mix
# its rows, and an LSTM reads them from top to bottom.


# %%
class Attention(nn.Module):
    def __init__(self, width, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):  # (B, T, width)
        q, k, v = (f(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)  # (B, heads, T, width / heads)
        return self.out(mixed.transpose(1, 2).flatten(2))


class RowReader(nn.Module):
    def __init__(self, columns):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU()
        self.embed, self.norm = nn.Linear(8 * columns, 32), nn.LayerNorm(32)
        self.attention, self.lstm = Attention(32, n_heads=2), nn.LSTM(32, 16, batch_first=True)
        self.classes = nn.Linear(16, 10)

    def forward(self, images):  # (B, 1, rows, columns)
        features = self.relu(self.conv(images))  # (B, 8, rows, columns)
        rows = self.embed(features.transpose(1, 2).flatten(2))  # (B, rows, 32)
        rows = rows + self.attention(self.norm(rows))
        return self.classes(self.lstm(rows)[0][:, -1])  # (B, 10)


# %% [markdown]
# It trains with Adam. The next cell makes the first half of the steps.

# %%
data = ns.load_dataset(dataset)
batches = np.random.default_rng(seed).integers(len(data.train.labels), size=(2 * steps, batch_size))


def loss_of(net, batch):  # the mean loss over images (B, pixels) with their labels (B,)
    images, labels = batch
    return F.cross_entropy(net(images.view(-1, 1, *data.shape)), labels)


def train(net, optimizer, batches):  # the loss of each step
    losses = []
    for batch in torch.from_numpy(batches):
        loss = loss_of(net, (data.train.images[batch], data.train.labels[batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


torch.manual_seed(seed)
net = RowReader(data.shape[1])
optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
first_half = train(net, optimizer, batches[:steps])
print("the loss has fallen to less than half:", np.mean(first_half[-20:]) < np.mean(first_half[:20]) / 2)

# %% [markdown]
# ## Choose by a score
#
# `ns.neuron_scores` scores the neurons of any layer. We take `activation_importance`, a first-order estimate of how much the loss would
# change without a neuron. In each layer, we split the neuron that has most of it.
#
# A convolution is scored after its ReLU. A head is scored by the sum over its 16 channels in `attention.v`. The scores see validation
# images only.

# %% tags=["nbval-ignore-output"]
validation = [(data.validation.images[:300], data.validation.labels[:300])]
channels, values, units = (
    ns.neuron_scores(net, layer, loss_of, validation, scores=["activation_importance"], axis=axis).squeeze()
    for layer, axis in (("relu", 1), ("attention.v", -1), ("lstm", -1))
)
heads = values.groupby(values.index // 16).sum()
channel, head, unit = (int(scores.idxmax()) for scores in (channels, heads, units))
scored = pd.DataFrame({"channels of conv": channels, "heads of attention": heads, "units of lstm": units})
scored.agg(["count", "median", "max", "idxmax"]).T.round(2)

# %% [markdown]
# The last column is what we split. [08_which_neuron](08_which_neuron.ipynb) asks whether such a choice matters.
#
# ## Split three neurons
#
# Each call changes the network and its optimiser in place. The rule `outgoing` copies a neuron and shares its outgoing weights at random.
# The default rule, `scaled`, would be refused for the LSTM unit: its sigmoid lets no scale through.
#
# A channel of `attention.q` has no exact split alone. With `together=True`, the call splits the smallest set that has one: its head. At the
# end, the next cell compares outputs and looks at Adam's state.

# %%
inputs = data.validation.images[:32].view(-1, 1, *data.shape)
unsplit = copy.deepcopy((net, optimizer))  # for comparison
options = {"example_inputs": inputs, "optimizer": optimizer, "rule": "outgoing", "rng": np.random.default_rng(seed)}
records = [
    ns.split_neuron(net, "conv", channel, **options),
    ns.split_neuron(net, "attention.q", 16 * head, **options, together=True),
    ns.split_neuron(net, "lstm", unit, **options),
]
for record in records:
    print({name: f"{before} → {after}" for name, (before, after) in record.shapes.items() if "bias" not in name})
print(f"{net.conv}\n{net.lstm}\nheads: {net.attention.n_heads}")

with torch.no_grad():
    before, after = unsplit[0](inputs), net(inputs)
change = ((after - before).abs().max() / before.abs().max()).item()
print("the output changed by less than 1e-5 of its largest number:", change < 1e-5)
held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
state_kept = all(
    a is b and optimizer.state[a]["exp_avg"].shape == b.shape for a, b in zip(held, net.parameters(), strict=True)
)
print("the optimiser holds the new parameters, with moments of their shapes:", state_kept)

# %% [markdown]
# Notice `Conv2d`, `LSTM` and `heads`. What modules note about their sizes has changed too. The output has not.
#
# ## Training goes on
#
# Three networks now take the same batches. One was not split, one was split and kept its optimiser, and one was split and has a new
# optimiser. A new optimiser is what you get if a split leaves Adam's state behind.

# %% tags=["nbval-ignore-output"]
restarted = copy.deepcopy(net)
arms = {
    "not split": unsplit,
    "split, same optimiser": copy.deepcopy((net, optimizer)),
    "split, new optimiser": (restarted, torch.optim.Adam(restarted.parameters(), lr=learning_rate)),
}
losses = pd.DataFrame({name: first_half + train(*arm, batches[steps:]) for name, arm in arms.items()})
figure = loss_around_split(losses, step=steps, window=min(40, steps))
figure.axes[0].set(title="one run: a channel, a head and an LSTM unit are split", yscale="linear", ylim=(0, None))
first_ten = losses.iloc[steps : steps + 10].mean()
relative = first_ten / first_ten["not split"]
relative.round(2).rename("mean loss, relative to no split").to_frame()

# %% [markdown]
# Notice that the blue line crosses the dotted one on the grey band, and leaves the band only slowly. A new optimiser sets training back. The
# table has the mean loss of the first 10 steps after the splits. What follows later differs by chance too: this is one run.
#
# ## Merge two neurons
#
# `ns.merge_neurons` is the reverse of a split. It is exact for twins. The next cell merges the twins of `conv` at once, and again after the
# training above, in which they parted.

# %% tags=["nbval-ignore-output"]
merges = {}
for moment, pair in {"at once": (net, optimizer), "after training": arms["split, same optimiser"]}.items():
    merged, its_optimizer = copy.deepcopy(pair)
    options = {"example_inputs": inputs, "optimizer": its_optimizer}
    merges[moment] = ns.merge_neurons(merged, "conv", channel, 8, **options)  # the second twin is channel 8, the last
    print(f"{moment}: {merged.conv.out_channels} channels, the output changed by {merges[moment].change:.0e}")

# %% [markdown]
# Notice the change after training: `merge_neurons` says what a merge costs when the two are no longer twins.
#
# ## A refusal, and what it suggests
#
# A split that cannot be exact is refused, and nothing is changed. The channels of `embed` pass a LayerNorm, which mixes all of them, and the
# LSTM reads them too. The next cell tries to split one, and then does what the message suggests.

# %%
try:
    ns.split_neuron(net, "embed", 0, example_inputs=inputs, rule="outgoing")
except ValueError as error:
    refusal = str(error)
print(refusal)
wider = copy.deepcopy(net)
record = ns.split_neuron(
    wider, "embed", 0, example_inputs=inputs, rule="outgoing", together=True, rng=np.random.default_rng(seed)
)
print("width:", net.embed.out_features, "→", wider.embed.out_features)
print("tensors that changed:", len(record.shapes), " exact to 1e-5:", record.change < 1e-5)

# %% [markdown]
# Notice that the split doubles the width of the whole residual stream, and that ten tensors change for it.
#
# ## Load a network that has grown
#
# A checkpoint of a grown network fits only a network of its shape. `ns.replay` makes one from the records, which JSON can store.

# %%
stored = json.dumps(records)
loaded = RowReader(data.shape[1])
ns.replay(json.loads(stored), loaded)
loaded.load_state_dict(net.state_dict())
same = torch.equal(loaded(inputs), net(inputs))
print("the loaded network computes the same:", same)

# %% [markdown]
# ## How far does it reach?
#
# A benchmark, `tests/benchmarks/bench_coverage.py`, tries every layer of networks from public packages, and of small ones as people write
# them. Their weights are random. It checks each split in float64, on inputs that the split has not seen.
#
# Two kinds of layers are counted apart: those whose channels are the network's output, and idle ones, on which no output depends. All
# others have channels of their own.

# %%
tried = ns.read_table(ROOT / coverage)
own = ["split", "none", "refused", "raised", "wrong"]  # outcomes of layers with channels of their own
counts = pd.crosstab(tried.origin, tried.outcome, margins=True, margins_name="all").drop(columns="all")
assert set(counts) <= {*own, "output", "idle"}
counts = counts.reindex(columns=[*own, "output", "idle"], fill_value=0)
networks = tried.groupby("origin").network.nunique()
counts.insert(0, "networks", networks.reindex(counts.index, fill_value=networks.sum()))
share = counts.split / counts[own].sum(axis=1)
counts.assign(share=share.map("{:.1%}".format))

# %% [markdown]
# `share` is `split` out of the first five outcomes. Notice `wrong`: such a split would have changed the network without a word. `none` has
# no exact split at all, for a reason that somebody read and wrote down. `refused` may have one that is not found. `raised` is an error of
# another kind.
#
# The next cell lists the most frequent reasons of layers that count as not split.

# %%
missing = tried[tried.outcome.isin(own[1:])]
why = missing.reason.str.extract(r"known \((.+?)(?:[,:)]| by | in ')")[0].fillna(missing.reason)
why = why.str.replace(r"'[^']+'", "a parameter", regex=True)  # without names
reasons = missing.assign(reason=why).groupby(["outcome", "reason"])
pd.set_option("display.max_colwidth", 100)
reasons.agg(layers=("layer", "size"), example=("network", "first")).nlargest(15, "layers").reset_index()

# %% [markdown]
# ## What we see
#
# - `ns.splittable` finds what to split in every layer of ResNet-18 but the last.
# - Splits of a channel, a head and an LSTM unit change the output by rounding alone.
# - The first loss after them is that of the network that was not split, to one in a thousand. Over 10 steps, the mean stays within a tenth.
# - A new optimiser sets training back. On digits, after 300 steps, the mean loss of these 10 is more than a quarter higher.
# - A merge of twins changes the output by rounding alone. After they have parted, it changes the output by more than 1e-5.
# - A single channel that LayerNorm mixes with others is refused where a layer reads it without the norm. All of them together split exactly.
# - No split of the benchmark was wrong.
#
# The next cell asserts these sentences.

# %%
assert (table.splits_together > 0).drop("fc").all() and table.splits_together["fc"] == 0
assert of_three.splits_together.tolist() == [1, 0] and set(of_three.changes[0]) == {"0.weight", "2.weight"}
assert change < 1e-5 and state_kept and same
assert (net.conv.out_channels, net.attention.n_heads, net.lstm.hidden_size) == (9, 3, 17)
assert merged.conv.out_channels == 8 and merges["at once"].change < 1e-5 < merges["after training"].change
at_once = losses.iloc[steps]
assert abs(at_once["split, same optimiser"] / at_once["not split"] - 1) < 1e-3
assert abs(relative["split, same optimiser"] - 1) < 0.1
if dataset == "digits" and steps >= 300:
    assert relative["split, new optimiser"] > 1.25
assert "together=True, which splits 32 of its channels" in refusal and record.change < 1e-5
assert (counts.wrong == 0).all()
print("held")

# %% [markdown]
# Next: [06_the_2021_study](06_the_2021_study.ipynb) runs the original study again, with and without its faults.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
