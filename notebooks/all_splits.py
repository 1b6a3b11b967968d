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
# # Every split of a network
#
# Does it matter which neuron is split? Here nothing is guessed: every neuron of a network is split, each in a branch of its own, and every branch
# is trained on. Branches share their coefficients and their mini-batches, so they differ in the choice alone. What decides is the validation loss
# of the best branch against that of a random one. A branch counts as best under one shuffle of the mini-batches, and is measured under another.
# The limit: a single split, not a course of them.
#
# Studies of `type: all-splits` train with this notebook, and report with it. Its defaults are small enough to run while you watch.
# Before this: [11_how_good_could_a_choice_be](11_how_good_could_a_choice_be.ipynb) shows such a study at full size.

# %% tags=["parameters"]
dataset: str = "digits"  # what is learned: digits, mnist-1d or fashion-mnist
growth: str = "scaled"  # how a neuron is split
optimizer: str = "sgd"  # how the network learns: sgd, momentum or adam
learning_rate: float = 0.05  # of the optimiser
width: int = 10  # hidden neurons, each of which is split
prior_splits: int = 0  # of them by splits of random neurons, one per epoch from the first on
epochs_before: int = 5  # epochs before the split
batch_size: int = 32  # images per step
seeds: list = [0, 1, 2, 3, 4]  # a network each
experiments: list = []  # a dict per experiment, with the fields that differ from the above; empty: the one above
folder: str = "runs/notebook"  # where the results go; here paths count from the project's folder, and for the command from the current one
table: str = ""  # a finished table to show instead of training, from the project's folder
extensions: str = ""  # a Python file that adds to the registries, from the project's folder; none by default
figures: str = ""  # where pictures go, and how their names begin; none are saved by default
title: str = ""  # of the study

# %%
import platform

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display

import neuronsplit as ns
from neuronsplit.analysis import oracle, split_sentences, study_sentences, wording
from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits
from neuronsplit.extensions import load_extensions
from neuronsplit.locations import ROOT
from neuronsplit.measuring.all_splits import policy_choices
from neuronsplit.names import NEURON, SHUFFLE_LOSSES, UNSPLIT
from neuronsplit.plots import comparisons
from neuronsplit.plots.style import save_figure, use_style
from neuronsplit.study import store

torch.set_num_threads(1)  # notebooks run at the same time, one per core
use_style()
load_extensions(extensions and ROOT / extensions)

# %% [markdown]
# ## The networks
#
# The first parameters are the fields of `ExhaustiveSplits`. What the folder's files hold is not trained again.

# %%
fields = {"dataset": dataset, "growth": growth, "optimizer": optimizer, "learning_rate": learning_rate}
fields |= {"width": width, "prior_splits": prior_splits, "epochs_before": epochs_before, "batch_size": batch_size}
unknown = set().union(*experiments) - set(fields)
if unknown:
    raise ValueError(f"experiments with {', '.join(map(repr, sorted(unknown)))}: allowed are {', '.join(fields)}")
all_splits = [ExhaustiveSplits(**(fields | one)) for one in experiments or [{}]]
rows = ns.read_table(ROOT / table) if table else store.load_or_run(all_splits, seeds, ROOT / folder)
rows = rows.assign(setting=oracle.setting_labels(rows))
print(wording.count([rows.setting.nunique()], "setting"), wording.count([rows.seed.nunique()], "seed"), sep=", ")

# %% [markdown]
# ## The answer
#
# A gain is established if the p-value of a permutation test over the networks, corrected for all settings (max-T), is below 0.05.
# Intervals are 95 % intervals (Student's t). The noise is what another order of the mini-batches makes, alike for all branches.

# %%
last = rows.horizon.max()
finite = oracle.without_diverged(rows)
gains, variances = oracle.gains(finite, policy_choices(finite)), oracle.variances(finite)
gains["setting"], variances["setting"] = oracle.setting_labels(gains), oracle.setting_labels(variances)
summary = split_sentences.summary(gains, variances)
heading = [f"### {wording.code(title)}" * bool(title), study_sentences.unfinished(ROOT / table) if table else ""]
display(Markdown("\n\n".join([*heading, split_sentences.overall(summary), split_sentences.left_out(rows)])))
if len(summary) <= 4:
    for setting, row in summary.iterrows():
        display(Markdown(f"{wording.code(setting)}\n\n{split_sentences.answer(row)}"))

# %%
if len(summary) > 1:
    figure, axis = plt.subplots(figsize=(9, 0.3 * len(summary) + 1), layout="constrained")
    comparisons.draw_intervals(axis, 1000 * summary[["mean", "low", "high"]])
    axis.set_xlabel("gain of the best split in thousandths of validation loss, with its 95 % interval → better")
    save_figure(figure, figures, "settings")

# %% [markdown]
# ## What each split gains
#
# What is due to the choice shows under both shuffles, near the diagonal. What is due to chance does not: it scatters the points.

# %%
of_neurons = oracle.neuron_gains(finite[finite.horizon == last])
save_figure(comparisons.neuron_gains(of_neurons), figures, "neuron-gains")

# %% [markdown]
# One network at the last horizon, as an example. Beside the validation losses of its branches stands what policies know of the neurons before the split.

# %%
shown = ["neuron", "ablation_loss", "fire_rate", "smallest_eigenvalue", "max_correlation", "loss_before"]
first = rows[(rows.setting == rows.setting.iloc[0]) & (rows.seed == rows.seed.iloc[0]) & (rows.horizon == last)]
first[first.branch_type == NEURON][[*shown, *SHUFFLE_LOSSES]].round(4).reset_index(drop=True)

# %% [markdown]
# ## How much of it do policies take?
#
# A policy's gain is how much lower its choice ends than the mean branch, which is what `random` gets. `oracle` is the best branch, as above.

# %%
for number, (setting, found) in enumerate(gains[gains.horizon == last].groupby("setting", sort=False)):
    by_policy = 1000 * found.pivot_table(index="seed", columns="policy", values="gain", sort=False)
    figure = comparisons.paired_differences(
        {"thousandths of validation loss below the mean branch": by_policy}, setting
    )
    save_figure(figure, figures, f"policy-gains-{number}")
    plt.show()

# %% [markdown]
# ## All numbers
#
# All are in thousandths of validation loss, apart from p and the rank correlation between the two shuffles (*repeats itself*). *Random split* is
# how much lower a random branch ends than the network that was not split.

# %%
split_sentences.texts_of(summary)

# %%
if table:
    display(Markdown(study_sentences.origin(ROOT / table)))

# %% [markdown]
# ## What we see
#
# The cell checks that the table is complete: a branch for each neuron, and the network that was not split.

# %%
branches = rows[rows.horizon == last].groupby(["setting", "seed"])
n_neurons = branches.branch_type.agg(lambda kinds: (kinds == NEURON).sum())
assert (n_neurons == branches.width.first()).all()
assert (branches.branch_type.agg(lambda kinds: (kinds == UNSPLIT).sum()) == 1).all()
print(wording.count([n_neurons.sum()], "split"), "of", wording.count([len(n_neurons)], "network"), "under two shuffles")

# %% [markdown]
# Next: [12_a_network_that_decides](12_a_network_that_decides.ipynb) learns from such splits which neuron to split.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
