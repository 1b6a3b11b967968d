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
# # One experiment
#
# One policy, several repeats: dense ReLU networks start narrow, train, and at the end of an epoch split the
# neuron that the policy names. This notebook trains all repeats as one tensor program and saves their table, a row
# a repeat and epoch; its defaults are small enough to run while you watch. A study is this notebook once for each experiment:
# it trains those that differ in their policies alone together, on the same mini-batches, and each one's notebook finds its table.
# The number that will decide between policies, the final test accuracy, means nothing from one
# experiment alone: [04_comparison](04_comparison.ipynb) compares.

# %% tags=["parameters"]
policy: str = "random"  # which neuron is split, or a control: no-split, stay-narrow
dataset: str = "digits"  # what is learned: digits or fashion-mnist
rule: str = "scaled"  # how a neuron is split, or another way to grow by one
schedule: str = "every-epoch"  # when
optimizer: str = "sgd"  # how the network learns: sgd, momentum or adam
width: int = 10  # hidden neurons at the start
splits: int = 10  # neurons split, and as many epochs
still: int = 10  # epochs after those
repeats: int = 5  # networks, of seeds seed, seed + 1, ...
seed: int = 0  # of the first repeat
learning_rate: float = 0.05  # of the optimiser
batch_size: int = 32  # images a step
folder: str = "runs/notebook"  # where the table goes, from the project's folder

# %% [markdown]
# The parameters above are the fields of `Experiment`, one to one. To run the notebook as a batch:
#
# ```
# papermill notebooks/03_experiment.ipynb out.ipynb -f notebooks/studies/full.yaml -p policy max-loss
# ```

# %%
import platform

import torch

import neuronsplit as ns
from neuronsplit import compare, plots, study, training

torch.set_num_threads(1)  # experiments run beside one another, one a core
plots.use_style()

# %%
experiment = ns.Experiment(
    policy, dataset, rule, schedule, optimizer, width, splits, still, repeats, seed, learning_rate, batch_size
)
experiment

# %% [markdown]
# ## Data
#
# Images as rows of pixels, all three sets on the same scale from −0.5 to 0.5.

# %%
data = ns.load_dataset(experiment.dataset)
for name, part in zip(("train", "validation", "test"), data):
    print(f"{name:10} {tuple(part.images.shape)}, pixels {part.images.min():+.1f} to {part.images.max():+.1f}")

# %% [markdown]
# ## Run
#
# `obtain` trains, or reads the table where this very experiment has run before.

# %%
table = study.obtain(experiment, study.ROOT / folder)
print(f"{len(table)} rows: {table.seed.nunique()} repeats of {table.epoch.nunique()} epochs")

# %%
last = compare.final(table)
last[["seed", "epoch", "hidden", "parameters", "test_loss", "test_accuracy"]].round(2)

# %% [markdown]
# ## What happened
#
# Every repeat as a thin line, their mean bold; the dotted line marks the last split.

# %%
_ = plots.apart(table, ["train_loss", "test_loss", "test_accuracy"])

# %% [markdown]
# Which neurons were split: a row of numbers a repeat, in the order of the splits. Neuron *i* keeps its number; its second
# twin becomes the new last neuron.

# %%
for seed_, rows in table.groupby("seed"):
    print(f"seed {seed_}: {' '.join(map(str, rows.split_neuron.dropna())) or 'none'}")

# %% [markdown]
# ## What we see
#
# The cell says whether any repeat diverged, and holds the table to what the experiment asked for.

# %%
print("repeats that diverged:", compare.diverged(table)[experiment.policy])

assert len(table) == experiment.repeats * experiment.epochs
if schedule not in training.BY_LOSS:  # which may not have come to split all
    final_width = experiment.width + (0 if policy == study.NARROW else experiment.splits)
    assert (last.hidden == final_width).all()

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
