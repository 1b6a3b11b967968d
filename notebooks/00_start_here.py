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
# # Start here
#
# Without set-up, the public repository opens in [Colab](https://colab.research.google.com/github/YOUR_NAME/neuronsplit/blob/main/notebooks/00_start_here.ipynb)
# or in [Binder](https://mybinder.org/v2/gh/YOUR_NAME/neuronsplit/main?labpath=notebooks%2F00_start_here.ipynb).
#
# Can a network grow while it trains, and is that better than starting with all its neurons? It can grow without a jump, by splitting neurons,
# but a network that has its final width from the start ends with a lower loss.
#
# This notebook takes ten minutes. It splits a neuron in ten lines, shows the main result, explains the words and maps the other notebooks. What
# decides the main result is the test loss, compared between networks with the same seed. The limits: networks of one
# hidden layer, and three data sets.
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
seed: int = 0  # of the network and the inputs
neuron: int = 2  # the neuron that is split, 0 to 5
tables: dict = {}  # data set: the table of its design; by default those in figures/data that are there

# %%
import platform
import re

import pandas as pd
import torch

import neuronsplit as ns
from neuronsplit.analysis import design
from neuronsplit.plots import tested
from neuronsplit.plots.style import use_style

torch.set_num_threads(1)
use_style()
pd.set_option("display.max_colwidth", 80)

# %% [markdown]
# ## A split in ten lines
#
# A hidden neuron has incoming weights $w$, a bias $b$ and outgoing weights $v$. A split replaces it by two neurons, its twins: $(αw, αb, γv)$ and
# $(βw, βb, δv)$. If $αγ + βδ = 1$ and α and β are positive, the next layer receives exactly what it received before, because
# $\operatorname{relu}(αz) = α \operatorname{relu}(z)$.
#
# The next cell makes a network of 4 inputs, 6 hidden neurons and 3 outputs, and splits one neuron by hand.

# %%
rng = torch.Generator().manual_seed(seed)
x, w, b, v = (torch.randn(shape, generator=rng) for shape in ((100, 4), (6, 4), (6,), (3, 6)))
before = torch.relu(x @ w.T + b) @ v.T  # (100, 3)

source = [*range(6), neuron]  # where each neuron comes from: the second twin is the new last one
gain, share = torch.ones(2, 7)
gain[neuron], gain[6] = 0.8, 1.2  # α, β
share[neuron], share[6] = 0.5, 0.5  # γ, δ with αγ + βδ = 1
w, b, v = gain[:, None] * w[source], gain * b[source], share * v[:, source]

change = (torch.relu(x @ w.T + b) @ v.T - before).abs().max().item()
print(f"hidden neurons: {len(w)}, output unchanged: {change < 1e-5}")

# %% [markdown]
# Notice that the network has one more hidden neuron and still computes the same. Training can go on from here, and the twins can become
# different.
#
# ## A split in a network of your own
#
# `split_neuron` does the same in any network that runs. It changes every layer that the neuron reaches, and the state of the
# optimiser. If no exact split is known, it refuses with the reason and changes nothing.

# %%
net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 10))
optimizer = torch.optim.Adam(net.parameters())
images = torch.randn(5, 1, 8, 8, generator=rng)
record = ns.split_neuron(net, "0", neuron, example_inputs=images, optimizer=optimizer)
print(net[0])
print(net[3])
print("output unchanged:", record.change < 1e-5)

# %% [markdown]
# Notice that the convolution has a ninth channel, and that the linear layer behind it takes 36 more inputs.
#
# ## Three choices: which, how, when
#
# A network that grows needs three answers, and each has a registry. A *policy* chooses which neuron is split. A *growth* makes the new neuron. A
# *schedule* decides when. A fourth registry holds the data sets. The next cell lists their entries.

# %%
registries = {"which": ns.POLICIES, "how": ns.GROWTHS, "when": ns.SCHEDULES, "on what": ns.DATASETS}
for question, registry in registries.items():
    print(f"{question:8}", ", ".join(registry), "\n")

# %% [markdown]
# Notice three names that you will meet in every study. `random` is the policy without a preference. `scaled` is the split of the
# [2021 study](https://github.com/ilaiw/neuron-split). `every-epoch` splits one neuron per epoch.
# Policies whose names begin with `learned` or `ridge` were fitted to measured splits.
#
# ## Does growing pay?
#
# The study grows networks from 10 neurons to 60 on digits, MNIST-1D and Fashion-MNIST, in many ways. They were tuned by the same budget, but for the policies on Fashion-MNIST, which share settings. There are two
# kinds of controls, which do not grow: `no-split` has all 60 neurons from the start, and `stay-narrow` keeps its 10.
#
# The figure has the test loss at the epoch that validation picks, minus that of `no-split` with the same seed. The axis below is the cost of
# training. Notice that no way to grow lies below the line at 0.

# %%
results = design.read_tables(tables)
found = {name: design.against_control(table, "test_loss") for name, table in results.items()}
_ = tested.against_cost(found, "test_loss", ["random", "gradmax", "all-at-1"])

# %% [markdown]
# `random` splits one random neuron per epoch by the rule `scaled`. The others change one of these choices, and carry its name.
# `no-split · 79 epochs` and `no-split · 129 epochs` have the final width and fewer epochs. The next cell has the numbers.

# %%
shown = {
    "no-split, fewer epochs": "no growth: 60 neurons, for fewer epochs",
    "random": "one random neuron per epoch, by the split of 2021",
    "all-at-1": "the same, but all splits after epoch 1",
    "gradmax": "one neuron per epoch, by GradMax",
    "stay-narrow": "no growth: 10 neurons",
}
columns = ["cost", "mean", "low", "high"]


def short(arm):
    """The name of an arm, which for the control is the same on all data sets."""
    return re.sub(r"^no-split · \d+ epochs$", "no-split, fewer epochs", arm)


rows = {name: rows.rename(short).loc[list(shown), columns].rename(shown) for name, rows in found.items()}
pd.concat(rows).round(3)

# %% [markdown]
# Notice two things. The final width for fewer epochs is as cheap as growing gradually, and ends lower. And in the mean, these ways to grow end below staying narrow.
# [04_comparison](04_comparison.ipynb) says more: when to grow, how, which neuron, and what it costs.
#
# ## The notebooks
#
# **Learn it**
#
# - [01_split_a_neuron](01_split_a_neuron.ipynb) proves that a split is exact, and measures the error.
# - [02_grow_while_training](02_grow_while_training.ipynb) trains one network that splits a neuron in every epoch.
# - [03_experiment](03_experiment.ipynb) trains several networks at once, with any policy, and makes one table.
# - [04_comparison](04_comparison.ipynb) compares the experiments of a study: curves, differences, family trees.
#
# - [report](report.ipynb) is what every study ends with: its own answer, figures and numbers.
#
# **Use it**
#
# - [05_split_your_own_network](05_split_your_own_network.ipynb) splits a CNN, a ResNet and a vision transformer.
# - [13_grow_a_language_model](13_grow_a_language_model.ipynb) doubles a transformer in mid-training, with its optimiser.
# - [14_what_it_costs](14_what_it_costs.ipynb) says what a study, a split and a choice cost.
# - [15_beyond_one_hidden_layer](15_beyond_one_hidden_layer.ipynb) asks which, how and when in a CNN and a transformer.
# - [16_can_growth_win](16_can_growth_win.ipynb) searches which, how, when and all settings together.
#
# **The study**
#
# - [06_the_2021_study](06_the_2021_study.ipynb) repeats the original with its faults, then fixes them one by one.
# - [08_which_neuron](08_which_neuron.ipynb) compares policies, in arms that were tuned by the same budget.
# - [09_how_to_split](09_how_to_split.ipynb) compares growths, and explains them by how far twins part.
# - [10_when_to_split](10_when_to_split.ipynb) compares schedules, and says what growth costs.
# - [design](design.ipynb) has every comparison of these arms, as a design says that was written before.
#
# **Research**
#
# - [07_do_twins_part](07_do_twins_part.ipynb) explains why twins stay together, by theory and measurement.
# - [11_how_good_could_a_choice_be](11_how_good_could_a_choice_be.ipynb) makes every possible split and trains on: what could a choice win?
# - [all_splits](all_splits.ipynb) is the same in a study of yours: it trains, and it reports.
# - [12_a_network_that_decides](12_a_network_that_decides.ipynb) learns from those splits which neuron to split.
#
# ## Glossary
#
# | word | meaning |
# | --- | --- |
# | split | A split replaces one hidden neuron by two, so that the output of the network stays the same. |
# | twins | Twins are the two neurons of a split; Wu et al. call them offspring. |
# | coefficients | The factors α, β of the twins' incoming weights and γ, δ of their outgoing weights define a split. |
# | exact | A split is exact if the output changes by rounding error only, which needs αγ + βδ = 1. |
# | policy | A policy chooses *which* neuron is split, by scoring every neuron and picking one by the scores. |
# | growth | A growth is *how* a network gets a new neuron: by a split, or by a neuron that has no parent. |
# | schedule | A schedule decides *when* a network grows: how many neurons are split at the end of each epoch. |
# | control | A control is an experiment that does not grow: `no-split` or `stay-narrow`. |
# | seed | A seed decides everything random in one run, and experiments are compared at the same seed. |
# | replica | A replica is one of the R networks that train together as one tensor program. |
# | ablation loss | The ablation loss of a neuron is the loss after its removal, with the others scaled up as dropout does. |
# | fire rate | The fire rate of a neuron is the share of images for which its activation is above 0. |
# | importance | The importance of a neuron is the sum of \|w ∂L/∂w\| over its weights. |
# | splitting matrix | The splitting matrix says how the loss curves as twins move apart ([Wu et al. 2019](https://arxiv.org/abs/1910.02366)). |
# | kappa | κ = γβ / δα compares the speeds of two twins; those with κ = 1 never move apart under SGD. |
# | effective rank | The effective rank counts the different directions in a layer's activations. |
# | horizon | The horizon is the number of epochs from a split to the moment at which its effect is measured. |
# | oracle | The oracle tries every split in one run and chooses the best, and a second run measures that choice. |
# | cost | The cost is the number of multiply-adds of training, as a share of those of `no-split`. |
# | equal cost | A comparison at equal cost takes the control at the moment when it had the same cost. |
#
# ## What we see
#
# - A split by hand and a split by the package leave the output as it was.
# - On digits, MNIST-1D and Fashion-MNIST, none of the ways to grow ends below `no-split` in the mean.
# - Splitting one random neuron per epoch ends 0.023, 0.058 and 0.028 above it. Staying narrow ends 0.048, 0.217 and 0.077 above it.
# - The final width for fewer epochs, at the cost of growing, ends within 0.003 of it.
#
# The next cell asserts these sentences.

# %%
assert change < 1e-5 and record.change < 1e-5
if not tables:
    assert list(found) == ["digits", "mnist-1d", "fashion-mnist"]
    assert all(rows["n"].eq(20).all() for rows in found.values())
    assert all((rows["mean"][~rows.index.str.startswith("no-split")] > 0).all() for rows in found.values())
    assert [round(rows["mean"]["random"], 3) for rows in found.values()] == [0.023, 0.058, 0.028]
    assert [round(rows["mean"]["stay-narrow"], 3) for rows in found.values()] == [0.048, 0.217, 0.077]
    shown = ["random", "all-at-1", "gradmax"]
    assert all((rows["mean"][shown] < rows["mean"]["stay-narrow"]).all() for rows in found.values())
    fewer = [rows["mean"].filter(regex="^no-split . .* epochs$").item() for rows in found.values()]
    assert [round(mean, 3) for mean in fewer] == [0.001, 0.003, -0.002]
    print("held")

# %% [markdown]
# Next: [01_split_a_neuron](01_split_a_neuron.ipynb) draws a split, proves it and measures how exact it is.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
