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
# # Eight ways to choose the neuron, compared
#
# Eight experiments on the same seeds: a control that has the final width from the start, and seven policies that grow to it, one
# split an epoch. Every policy starts a repeat from the same network and meets the same images in the same order, so
# policies are compared within a repeat. What decides is the difference in final test accuracy to the control, with its
# 95 % interval. The limit: one data set, one small network, one learning rate; a policy that looks best here need not be best elsewhere.

# %% tags=["parameters"]
table: str = "figures/data/fashion-mnist.csv"  # what to compare, from the project's folder
figures: str = ""  # a folder for the pictures; none are saved by default

# %%
import json
import platform

import pandas as pd

import neuronsplit as ns
from neuronsplit import compare, plots, study

plots.use_style()
CONTROL = study.CONTROL


def keep(figure, name):
    """Save a picture where the parameters ask for it."""
    if figures:
        figure.savefig(study.ROOT / figures / f"{name}.png", dpi=110)


# %% [markdown]
# ## The table
#
# A row a policy, repeat and epoch; and what produced it.

# %%
results, about = study.read_table(study.ROOT / table)
print(f"{len(results):,} rows: {results.policy.nunique()} policies × {results.seed.nunique()} repeats", end=" ")
print(f"× {results.epoch.nunique()} epochs")
print(json.dumps({name: about[name] for name in ("parameters", "versions", "machine")}, indent=1))

# %%
results.groupby("policy", sort=False).nth(-1)[["policy", "seed", "epoch", "hidden", "parameters", "test_accuracy"]]

# %% [markdown]
# Repeats whose loss ended as no finite number are counted here and left out of every mean below.

# %%
diverged = compare.diverged(results)
print(f"repeats that diverged: {diverged.sum()} of {results.groupby(['policy', 'seed']).ngroups}")

# %% [markdown]
# ## Everything at once
#
# The mean of each policy. Growing networks start with fewer neurons than the control and follow it from below.

# %%
figure = plots.together(results, ["train_loss", "test_loss", "test_accuracy"])
keep(figure, "curves")

# %% [markdown]
# The policies lie within a line's width of one another. Their differences to `random`, repeat by repeat, show when they part:

# %%
figure = plots.gaps(results[results.policy != CONTROL], ["test_loss", "test_accuracy"], "random")
keep(figure, "gaps")

# %% [markdown]
# ## One at a time
#
# The same curves with every repeat, first what the network has not seen, then what it trains on. The means hide how
# far repeats of one policy differ; these panels do not.

# %%
figure = plots.apart(results, ["test_loss"])
keep(figure, "test-loss")

# %%
figure = plots.apart(results, ["test_accuracy"])
keep(figure, "test-accuracy")

# %%
figure = plots.apart(results, ["train_loss"])
keep(figure, "train-loss")

# %% [markdown]
# Parameters per epoch: all policies grow alike, by one neuron an epoch, and end where the control begins.

# %%
figure = plots.apart(results, ["parameters"])
keep(figure, "parameters")

# %% [markdown]
# ## Where they end
#
# A point a repeat, as the original study drew it.

# %%
figure = plots.final_points(results, ["test_loss", "test_accuracy"])
keep(figure, "final")

# %%
accuracy = compare.summary(results, "test_accuracy")
accuracy.round(4)  # final test accuracy

# %%
loss = compare.summary(results, "test_loss")
loss.round(4)  # final test loss

# %% [markdown]
# ## Against the control, repeat by repeat
#
# Differences within a repeat take out what its seed decides for all policies alike. An interval that holds zero is no
# evidence of a difference.

# %%
figure = plots.differences(results, ["test_loss", "test_accuracy"], CONTROL)
keep(figure, "differences")

# %%
to_control = compare.intervals(compare.paired(results, "test_accuracy", CONTROL))
to_control.round(4)  # test accuracy − that of the control

# %% [markdown]
# And against `random`: does it matter *which* neuron is split?

# %%
to_random = compare.intervals(compare.paired(results, "test_accuracy", "random")).drop(index=CONTROL)
to_random.round(4)  # test accuracy − that of random

# %% [markdown]
# ## Family trees
#
# Which neuron each policy split, for the first repeat. A line is a neuron, from the epoch of its birth; it
# hangs from the neuron it was split off, and keeps the colour of the original neuron it descends from.

# %%
figure = plots.family_trees(results, seed=results.seed.min())
keep(figure, "family-trees")

# %% [markdown]
# How unequal the families are, over all repeats: the share of the final neurons that descend from the most split founder.

# %%
grown = results[results.policy != CONTROL]
families = {
    (policy, seed): compare.lineage(rows).founder.value_counts(normalize=True).iloc[0]
    for (policy, seed), rows in grown.groupby(["policy", "seed"], sort=False)
}
pd.Series(families).groupby(level=0, sort=False).agg(["mean", "min", "max"]).round(2)

# %% [markdown]
# ## Is it trained to the end?
#
# The original's learning rate is small. Runs of larger ones, where their tables lie beside this one, show what such networks reach
# when training converges; dashed, what scikit-learn's converged networks reach in the data set's own benchmark.

# %%
file = study.ROOT / table
controls, rows = {}, []
for near in [file, *sorted(file.parent.glob(f"{file.stem}-converged*.csv"))]:
    run, made = study.read_table(near)
    control = run[run.policy == CONTROL]
    last = compare.final(control)
    rate, hidden = made["parameters"]["learning_rate"], last.hidden.iloc[0]
    controls[f"width {hidden}, learning rate {rate}"] = control
    rows.append({"width": hidden, "learning rate": rate, "n": len(last), "test accuracy": last.test_accuracy.mean()})
benchmark = compare.BENCHMARK.get(results.dataset.iloc[0], {})
figure = plots.runs(controls, "test_accuracy", benchmark)
keep(figure, "converged")

# %%
reached = pd.DataFrame(rows)
reached.round(3)

# %% [markdown]
# Where training converges, do the same policies come out ahead? Final test accuracy minus that of the control, with the
# larger learning rate.

# %%
other = file.with_name(f"{file.stem}-converged.csv")
converged = None
if other.exists():
    paired = compare.paired(study.read_table(other)[0], "test_accuracy", CONTROL)
    converged = compare.intervals(paired).round(4)
converged

# %% [markdown]
# ## What we see
#
# WHAT WE SEE

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, pandas {pd.__version__}, neuronsplit {ns.__version__}")
