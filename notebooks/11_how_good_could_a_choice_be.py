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
# # How good could a choice be?
#
# Not very. Ten epochs after a split, the best neuron ends 0.0007 to 0.0020 below a random one in validation loss, averaged over widths, on three data sets. The order of the mini-batches alone has a standard deviation of 0.003 to 0.004.
#
# Nothing is guessed here. All splits of a network are made, and each branch is trained on with the same mini-batches, so branches differ in the choice alone. The limits: one split at a time, one hidden layer, plain SGD, and the rule `scaled`.
#
# Before this: [10_when_to_split](10_when_to_split.ipynb) asks when to split.

# %% tags=["parameters"]
dataset: str = "digits"  # what the live networks learn: digits, mnist-1d or fashion-mnist
learning_rate: float = 0.05  # of their optimiser, SGD
width: int = 10  # their hidden neurons, each of which is split
epochs_before: int = 5  # epochs before the split
n_seeds: int = 5  # live networks, of seeds 0, 1, ...
grown: str = "figures/data/oracle-{}-grown.parquet"  # all splits of networks that grew, on the data set in braces
figures: str = ""  # where pictures go, and how their names begin: figures/; none are saved by default

# %%
import platform

import matplotlib.pyplot as plt
import pandas as pd
import torch

import neuronsplit as ns
from neuronsplit.analysis import design, oracle
from neuronsplit.analysis.stats import intervals, paired_tests
from neuronsplit.experiments.exhaustive_splits import ExhaustiveSplits, run_exhaustive_splits
from neuronsplit.locations import ROOT
from neuronsplit.measuring.all_splits import HORIZONS, policy_choices
from neuronsplit.names import NEURON, SHUFFLE_LOSSES
from neuronsplit.plots import comparisons, style

torch.set_num_threads(1)
style.use_style()
NAMES = list(design.COMMITTED)
tables = {name: ns.read_table(ROOT / grown.format(name)) for name in NAMES}

# %% [markdown]
# ## The answer
#
# The oracle knows the best branch under one shuffle of the mini-batches, and is measured under another one. The figure has its gain over a random choice, by the width at the split.

# %%
last = max(HORIZONS)
gains = {name: oracle.gains(table, policy_choices(table)) for name, table in tables.items()}
of_oracle = {name: rows[(rows["policy"] == "oracle") & (rows["horizon"] == last)] for name, rows in gains.items()}
variances = {name: oracle.variances(table) for name, table in tables.items()}
PARTS = ["choice", "coefficients", "shuffle", "residual"]


def sd(variance):
    """The root, 0 where an unbiased variance is negative."""
    return variance.clip(lower=0) ** 0.5


spreads = {
    name: sd(rows[rows["horizon"] == last].groupby("width")[PARTS].mean()) * 1000 for name, rows in variances.items()
}

# %%
figure, axes = style.row_of_panels(len(NAMES), 3.4, 3.2)
for axis, name in zip(axes, NAMES):
    by_width = intervals(of_oracle[name].pivot_table(index="seed", columns="width", values="gain") * 1000)
    axis.fill_between(spreads[name].index, spreads[name]["shuffle"], color="0.9", lw=0)
    bars = [by_width["mean"] - by_width["low"], by_width["high"] - by_width["mean"]]
    axis.errorbar(by_width.index, by_width["mean"], bars, fmt="o-", color=style.color_of("learned"), capsize=2)
    axis.axhline(0, color="0.6", lw=1)
    axis.set(title=name, xlabel="hidden neurons")
axes[0].set_ylabel("thousandths of validation loss")
seeds = style.count_seeds([n for rows in of_oracle.values() for n in rows.groupby("width")["seed"].nunique()])
text = f"line: gain of the best neuron over a random one, {seeds}, 95 % interval (Student's t)"
style.set_title(figure, f"{text}; grey: one standard deviation of the order of mini-batches")
style.save_figure(figure, figures, "oracle-gains-by-width")
plt.show()

# %% [markdown]
# Notice that only the networks of 10 neurons on digits and MNIST-1D gain more than the luck of the mini-batches. On digits and Fashion-MNIST, wider networks gain less.
#
# ## How much of it do policies take?
#
# A policy's gain is how much lower its choice ends than the mean branch, which is what a random choice gets. The means are over all widths.

# %%
by_seed = {
    name: rows[rows["horizon"] == last].pivot_table(index="seed", columns="policy", values="gain", sort=False)
    for name, rows in gains.items()
}
panels = {name: 1000 * found.drop(columns="random") for name, found in by_seed.items()}
figure = comparisons.paired_differences(panels, "thousandths of validation loss below a random choice (→ better)")
style.save_figure(figure, figures, "oracle-gains")
plt.show()

# %% [markdown]
# Each panel has its own scale. Notice how far all policies stay behind the oracle, and that only `min-eigenvalue` comes near half of it. The tests are corrected for the eleven policies of a data set.

# %%
found = {
    name: paired_tests(values.drop(columns=["oracle", "random"]), "val_accuracy")  # more is better
    for name, values in by_seed.items()
}
at_last = {name: rows[rows["horizon"] == last].groupby("policy")["gain"].mean() for name, rows in gains.items()}
share = pd.DataFrame({name: rows / rows["oracle"] for name, rows in at_last.items()}).loc[list(panels[NAMES[0]])]
verdicts = pd.DataFrame({name: rows["verdict"] for name, rows in found.items()})
(share.map("{:.0%} ".format) + verdicts.reindex(share.index).fillna(""))

# %% [markdown]
# ## Does the order of the neurons repeat itself?
#
# Two branches of a network can differ by luck. The table has the rank correlation of the branches' losses under two shuffles, by the width at the split.

# %%
repeats = {name: rows.groupby("width")["rank_correlation"].mean() for name, rows in of_oracle.items()}
pd.DataFrame(repeats).round(2).T

# %% [markdown]
# On digits the order mostly repeats itself, and still there is little to win in wide networks. On the two others, which neuron is best is mostly luck in wide networks.
#
# ## Where the differences come from
#
# The branches of a network differ in validation loss by the neuron that is split (*choice*) and by the random shares of the split (*coefficients*). The order of the mini-batches changes all branches alike (*shuffle*), or one of them (*residual*).

# %%
figure, axes = style.row_of_panels(len(NAMES), 3.4, 3.2)
for axis, name in zip(axes, NAMES):
    spreads[name].plot.bar(ax=axis, rot=0, legend=False, width=0.8, color=["0.1", "0.4", "0.65", "0.85"])
    axis.set(title=name, xlabel="hidden neurons")
axes[0].set_ylabel("standard deviation, thousandths of loss")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=4, frameon=False)
style.save_figure(figure, figures, "oracle-spreads")
plt.show()

# %% [markdown]
# Notice the light bars of the shuffle: they stay, as those of the choice shrink. On digits the coefficients count for more than the choice, so *how* a neuron is split matters as much as *which* one.
#
# ## What a split is worth
#
# How much lower the mean branch ends than the network without a split, and how much more the best choice adds, in thousandths of loss.

# %%
worth = {}
for name, rows in of_oracle.items():
    by_width = rows.groupby("width")[["split_gain", "gain"]].mean() * 1000
    worth |= {(name, title): by_width[key] for title, key in {"any split": "split_gain", "the best": "gain"}.items()}
pd.DataFrame(worth).round(2).rename_axis(index="hidden neurons")

# %% [markdown]
# ## Every split of a network, live
#
# The same on a few small networks, which are trained here. A row is a branch, with what policies know of the neuron that it splits.

# %%
all_splits = ExhaustiveSplits(dataset, learning_rate=learning_rate, width=width, epochs_before=epochs_before)
rows = run_exhaustive_splits(all_splits, list(range(n_seeds)))
shown = ["neuron", "ablation_loss", "fire_rate", "smallest_eigenvalue", "max_correlation", "loss_before"]
neurons = rows[(rows["seed"] == 0) & (rows["horizon"] == last) & (rows["branch_type"] == NEURON)]
neurons[[*shown, *SHUFFLE_LOSSES]].round(4).reset_index(drop=True)

# %% [markdown]
# Compare the last two columns: they are the validation losses under the two shuffles.
#
# `neuronsplit run oracle-digits-grown` makes one of the three tables. A study of your own with `type: all-splits` is drawn by [all_splits](all_splits.ipynb).
#
# ## What we see
#
# - Averaged over widths, the best neuron ends 0.0014 [0.0009, 0.0018] below a random one on digits. On MNIST-1D it is 0.0020 [0.0012, 0.0028], and 0.0007 [0.0005, 0.0010] on Fashion-MNIST, where n is 8.
# - At 10 neurons, where growth starts, it is 0.0059 [0.0033, 0.0085] on digits.
# - The order of the mini-batches has a standard deviation of 0.003 to 0.005 at every width.
# - Of eleven policies on three data sets, one is established as better than a random choice: `min-eigenvalue` on MNIST-1D. It takes 38 % of the oracle's gain there.
# - No policy is established as worse.
# - On digits and Fashion-MNIST, the gain of the best neuron is smaller in the widest networks than in those of 10 neurons.
#
# So there is little to win by a single choice. Whether fifty choices add up is asked in [08_which_neuron](08_which_neuron.ipynb). The next cell asserts these sentences.

# %%
if grown == "figures/data/oracle-{}-grown.parquet":
    best = {name: intervals(values[["oracle"]]).iloc[0][["mean", "low", "high"]] for name, values in by_seed.items()}
    assert best["digits"].round(4).tolist() == [0.0014, 0.0009, 0.0018]
    narrow = of_oracle["digits"].query("width == 10").groupby("seed")[["gain"]].mean()
    assert intervals(narrow).iloc[0][["mean", "low", "high"]].round(4).tolist() == [0.0059, 0.0033, 0.0085]
    assert best["mnist-1d"].round(4).tolist() == [0.0020, 0.0012, 0.0028]
    assert best["fashion-mnist"].round(4).tolist() == [0.0007, 0.0005, 0.0010]
    for name in NAMES:
        assert spreads[name]["shuffle"].between(2.5, 5).all()
        assert round(spreads[name]["shuffle"].mean()) in (3, 4)
    better = {(name, policy) for name, rows in found.items() for policy in rows.index[rows["verdict"] == "better"]}
    assert better == {("mnist-1d", "min-eigenvalue")} and (verdicts != "worse").all(axis=None)
    assert round(share["mnist-1d"]["min-eigenvalue"], 2) == 0.38 and len(verdicts) == 11
    by_width = {name: rows.groupby("width")["gain"].mean() for name, rows in of_oracle.items()}
    assert all(by_width[name].iloc[-1] < by_width[name][10] for name in ("digits", "fashion-mnist"))
    above = {(n, w) for n in NAMES for w, gain in by_width[n].items() if 1000 * gain > spreads[n]["shuffle"][w]}
    assert above == {("digits", 10), ("mnist-1d", 10)}
    assert (spreads["digits"]["coefficients"] > spreads["digits"]["choice"]).all()
    print("held")

# %% [markdown]
# Next: [12_a_network_that_decides](12_a_network_that_decides.ipynb) learns from these splits which neuron to split.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
