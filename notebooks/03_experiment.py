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
# # One experiment, or many
#
# Dense ReLU networks start narrow, train, and at the end of an epoch split the neuron that a policy names. An experiment is one policy and one
# setting, with several seeds. This notebook trains the networks of all its seeds as one tensor program, and saves their table. The table
# has one row per seed and epoch. The defaults are small enough to run while you watch.
#
# A study is this notebook, run once for each part of it. Then `experiments` lists what differs. Those that differ only in their policies, learning
# rates, weight decay and dropout train together, on the same mini-batches. The report of a study decides between policies by the final test accuracy.
# [The design](studies/design.md) decides by the test loss at the epoch that validation picks. From one experiment alone both mean nothing: [04_comparison](04_comparison.ipynb) compares.
#
# Before this: [02_grow_while_training](02_grow_while_training.ipynb) shows one network.

# %% tags=["parameters"]
policy: str = "random"  # which neuron is split, or a control: no-split, stay-narrow
dataset: str = "digits"  # what is learned: digits, mnist-1d or fashion-mnist
growth: str = "scaled"  # how a neuron is split, or another way to grow by one
schedule: str = "every-epoch"  # when
optimizer: str = "sgd"  # how the network learns: sgd, momentum or adam
width: int = 10  # hidden neurons at the start
splits: int = 10  # neurons split
epochs: int = 20  # epochs in all
learning_rate: float = 0.05  # of the optimiser
batch_size: int = 32  # images per step
weight_decay: float = 0.0  # times the learning rate: the share of each weight that a step takes away
dropout: float = 0.0  # the probability with which an activation is dropped in training
rate_schedule: str = "constant"  # how the learning rate falls: constant, or cosine to the last epoch
rate_after_split: float = 1.0  # the learning rate from the first split on, relative to the one before
state: str = "carry"  # what a second twin has of its parent's optimiser state: carry, reset or warm-up
seeds: list = [0, 1, 2, 3, 4]  # a network each; a study file says n_seeds instead
experiments: list = []  # a dict per experiment, with the fields that differ from the above; empty: the one above
folder: str = "runs/notebook"  # where the results go; here paths count from the project's folder, and for the command from the current one
extensions: str = ""  # a Python file that adds to the registries, from the project's folder; none by default

# %% [markdown]
# The first fifteen parameters are the fields of `Experiment`, one to one. To run the notebook without looking:
#
# ```
# papermill notebooks/03_experiment.ipynb out.ipynb -p policy max-loss -p dataset fashion-mnist
# papermill notebooks/03_experiment.ipynb out.ipynb -y '{experiments: [{policy: no-split}, {policy: random}], seeds: [0, 1]}'
# ```

# %%
import platform

import torch

import neuronsplit as ns
from neuronsplit.analysis import tables
from neuronsplit.analysis.wording import count
from neuronsplit.extensions import load_extensions
from neuronsplit.locations import ROOT
from neuronsplit.names import STAY_NARROW
from neuronsplit.plots import curves
from neuronsplit.plots.style import printable, use_style
from neuronsplit.study import store

torch.set_num_threads(1)  # notebooks run at the same time, one per core
use_style()
load_extensions(extensions and ROOT / extensions)

# %%
fields = {"policy": policy, "dataset": dataset, "growth": growth, "schedule": schedule, "optimizer": optimizer}
fields |= {"width": width, "splits": splits, "epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
fields |= {"weight_decay": weight_decay, "dropout": dropout, "rate_schedule": rate_schedule}
fields |= {"rate_after_split": rate_after_split, "state": state}
unknown = set().union(*experiments) - set(fields)
if unknown:
    raise ValueError(f"experiments with {', '.join(map(repr, sorted(unknown)))}: allowed are {', '.join(fields)}")
planned = [ns.Experiment(**(fields | one)) for one in experiments or [{}]]
planned[0]

# %% [markdown]
# ## Data
#
# Images are rows of pixels. Those of the built-in images run from −0.5 to 0.5. Each seed divides the training and validation images
# anew, in the sizes that the cell prints. All seeds share the test images.

# %%
data = ns.load_dataset(planned[0].dataset)
for name in ("train", "validation", "test"):
    images = getattr(data, name).images
    print(f"{name:10} {tuple(images.shape)}, pixels {images.min():+.1f} to {images.max():+.1f}")

# %% [markdown]
# ## Run
#
# `load_or_run` trains what the files in the folder lack, and saves it as one more file. If one experiment fails, the others are saved before the error
# is raised.

# %%
table = store.load_or_run(planned, seeds, ROOT / folder)
print(len(table), "rows:", count([len(planned)], "experiment"), "×", count([len(seeds)], "seed"), "× epochs")

# %% [markdown]
# The final test accuracy, with a row per experiment: the mean and spread over the seeds that did not diverge.

# %%
labelled = tables.with_labels(table).drop_duplicates(["policy", "seed", "epoch"])  # a control has no growth
last = tables.last_epoch(labelled)
summary = tables.summary(labelled, "test_accuracy")
summary.insert(0, "hidden", last.groupby("policy", sort=False).hidden.max())
summary.round(2)

# %% [markdown]
# ## What happened
#
# Of one experiment thin lines are the seeds, and the bold line is their mean. Of several, lines are the means of the first twelve. The dotted line
# marks the last split.

# %%
METRICS = ["train_loss", "test_loss", "test_accuracy"]
shown = printable(labelled[labelled.policy.isin(summary.index[:12])])
draw = curves.curves_per_policy if len(planned) == 1 else curves.mean_curves
_ = draw(shown, METRICS)

# %% [markdown]
# Which neurons were split, in the order of the splits: each line has those of one seed, in the first experiment that grows. Neuron *i* keeps its
# number, and its second twin becomes the new last neuron.

# %%
growing = labelled.policy[labelled.split_neuron.notna()]
for seed, rows in labelled[labelled.policy == (growing.iloc[0] if len(growing) else None)].groupby("seed"):
    print(f"seed {seed}: {' '.join(rows.split_neuron.dropna()) or 'none'}")

# %% [markdown]
# ## What we see
#
# The cell says whether the training of any seed diverged, and checks that the table is what the experiments asked for.

# %%
print("seeds that diverged:", summary.diverged.sum(), "of", len(last))

different = {experiment.canonical for experiment in planned}  # of those that train the same, the first is kept
assert len(table) == len(seeds) * sum(experiment.epochs for experiment in different)
ends = table[table.epoch == table.epochs]
final_width = ends.width + ends.splits.where(ends.policy != STAY_NARROW, 0)
# A schedule that looks at losses may not have made all splits.
by_losses = [name for name, schedule in ns.SCHEDULES.items() if schedule.data_dependent]
assert ((ends.hidden == final_width) | ends.schedule.isin(by_losses)).all()

# %% [markdown]
# Next: [04_comparison](04_comparison.ipynb) compares eight experiments.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
