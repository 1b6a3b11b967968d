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
# One policy, several seeds: dense ReLU networks start narrow, train, and at the end of an epoch split the neuron that the policy names. This
# notebook trains the networks of all seeds as one tensor program and saves their table, which has one row per seed and epoch. Its defaults are
# small enough to run while you watch. A study is this notebook once for each experiment: it trains those that differ only in their policies
# together, on the same mini-batches, and each notebook finds its table. The number that will decide between policies, the final test
# accuracy, means nothing from one experiment alone: [04_comparison](04_comparison.ipynb) compares.
#
# Before this: [02_grow_while_training](02_grow_while_training.ipynb) shows one network.

# %% tags=["parameters"]
policy: str = "random"  # which neuron is split, or a control: no-split, stay-narrow
dataset: str = "digits"  # what is learned: digits or fashion-mnist
growth: str = "scaled"  # how a neuron is split, or another way to grow by one
schedule: str = "every-epoch"  # when
optimizer: str = "sgd"  # how the network learns: sgd, momentum or adam
width: int = 10  # hidden neurons at the start
splits: int = 10  # neurons split
epochs: int = 20  # epochs in all
n_seeds: int = 5  # networks, of seeds seed, seed + 1, ...
seed: int = 0  # of the first network
learning_rate: float = 0.05  # of the optimiser
batch_size: int = 32  # images per step
folder: str = "runs/notebook"  # where the table goes, from the project's folder
extensions: str = ""  # a Python file that adds to the registries, from the project's folder; none by default

# %% [markdown]
# The parameters above are the fields of `Experiment`, one to one, but for the last two. To run the notebook as a batch:
#
# ```
# papermill notebooks/03_experiment.ipynb out.ipynb -f notebooks/studies/full.yaml -p policy max-loss
# ```

# %%
import platform

import torch

import neuronsplit as ns
from neuronsplit.analysis.tables import last_epoch, n_diverged
from neuronsplit.names import STAY_NARROW
from neuronsplit.plots.curves import curves_per_policy
from neuronsplit.plots.style import use_style
from neuronsplit.study import store
from neuronsplit.study.extensions import load_extensions

torch.set_num_threads(1)  # experiments run beside one another, one per core
use_style()
load_extensions(extensions and store.ROOT / extensions)

# %%
experiment = ns.Experiment(
    policy, dataset, growth, schedule, optimizer, width, splits, epochs, n_seeds, seed, learning_rate, batch_size
)
experiment

# %% [markdown]
# ## Data
#
# Images are rows of pixels. The built-in data run from −0.5 to 0.5.

# %%
data = ns.load_dataset(experiment.dataset)
for name in ("train", "validation", "test"):
    images = getattr(data, name).images
    print(f"{name:10} {tuple(images.shape)}, pixels {images.min():+.1f} to {images.max():+.1f}")

# %% [markdown]
# ## Run
#
# `obtain` trains, or reads the table if this very experiment has run before.

# %%
table = store.obtain(experiment, store.ROOT / folder)
print(f"{len(table)} rows: {table.seed.nunique()} seeds × {table.epoch.nunique()} epochs")

# %%
last = last_epoch(table)
last[["seed", "epoch", "hidden", "parameters", "test_loss", "test_accuracy"]].round(2)

# %% [markdown]
# ## What happened
#
# Thin lines are the seeds, the bold line is their mean, and the dotted line marks the last split.

# %%
_ = curves_per_policy(table, ["train_loss", "test_loss", "test_accuracy"])

# %% [markdown]
# Which neurons were split: each line has the neurons of one seed, in the order of the splits. Neuron *i* keeps its number; its second twin
# becomes the new last neuron.

# %%
for seed_, rows in table.groupby("seed"):
    print(f"seed {seed_}: {' '.join(map(str, rows.split_neuron.dropna())) or 'none'}")

# %% [markdown]
# ## What we see
#
# The cell says whether the training of any seed diverged, and checks that the table is what the experiment asked for.

# %%
print("seeds that diverged:", n_diverged(table)[experiment.policy])

assert len(table) == experiment.n_seeds * experiment.epochs
if not ns.SCHEDULES[schedule].data_dependent:  # such a schedule may not have made all splits
    final_width = experiment.width + (0 if policy == STAY_NARROW else experiment.splits)
    assert (last.hidden == final_width).all()

# %% [markdown]
# Next: [04_comparison](04_comparison.ipynb) compares eight experiments.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
