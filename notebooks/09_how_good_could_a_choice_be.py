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
# Every policy guesses which neuron to split. Here nothing is guessed: from one network of $H$ neurons all $H$ splits are made, with the same coefficients,
# and every branch is trained on with the same mini-batches. So the branches differ in the choice alone, and what each policy would have chosen can be held
# against the best choice there was. First a few small networks, live; then the study `oracle`, on Fashion-MNIST: three widths, three ages, four rules, three optimisers.

# %% tags=["parameters"]
dataset: str = "digits"  # what is learned: digits or fashion-mnist
rule: str = "scaled"  # how a neuron is split
optimizer: str = "sgd"  # how the network learns: sgd, momentum or adam
learning_rate: float = 0.05  # of the optimiser
width: int = 10  # hidden neurons, each of which is split
grown: int = 0  # of them by splits of random neurons, one an epoch from the first on
age: int = 5  # epochs before the split
repeats: int = 5  # networks, of seeds seed, seed + 1, ...
seed: int = 0  # of the first repeat
batch_size: int = 32  # images a step
folder: str = "runs/notebook"  # where the live table goes, from the project's folder
table: str = "figures/data/oracle.csv.gz"  # what is judged, from the project's folder; the live table where it is empty
figures: str = ""  # where pictures go, and how their names begin: figures/; none are saved by default

# %%
import platform

import matplotlib.pyplot as plt
import pandas as pd
import torch

import neuronsplit as ns
from neuronsplit import compare, oracle, plots, study
from neuronsplit.branches import HORIZONS, Branching

torch.set_num_threads(1)
plots.use_style()

# %% [markdown]
# ## Every split of every network
#
# The parameters are the fields of `Branching`. A row a branch and a horizon, epochs after the split. The branches go on under two orders of the mini-batches, `loss_a` and `loss_b`: what is due to the choice shows under both, what is
# due to chance does not. Beside each branch stands what policies know of the neuron it split, before the split.

# %%
branching = Branching(dataset, rule, optimizer, learning_rate, width, grown, age, repeats, seed, batch_size)
rows = study.obtain(branching, study.ROOT / folder)
print(f"{len(rows[rows.horizon == max(HORIZONS)])} networks followed, each under two orders")

# %%
shown = [
    "neuron",
    "loss_after_removal",
    "fire_rate",
    "smallest_eigenvalue",
    "nearest",
    "loss_before",
    "loss_a",
    "loss_b",
]
rows[(rows.seed == seed) & (rows.horizon == max(HORIZONS)) & (rows.kind == "neuron")][shown].round(4).reset_index(
    drop=True
)

# %% [markdown]
# *Age*: epochs before the split. *Grown*: neurons that came by splits, of random neurons. *Coefficients*: the random shares by which a neuron is divided between its twins. *nearest*: the correlation of a neuron's activation with that of the one most like it. The rules are drawn in
# [01](01_split_a_neuron.ipynb); the policies are named in [policies.py](../neuronsplit/policies.py).
#
# ## At the size of the study
#
# `python -m neuronsplit run oracle` makes the table that all from here on is read off.

# %%
full, about = study.read_table(study.ROOT / table) if table else (rows, {})
full["setting"] = oracle.settings(full)
gains, variances = oracle.gains(full), oracle.variances(full)
last = max(HORIZONS)
networks = full.drop_duplicates([*oracle.SETTING, "seed"])
diverged = full[full[oracle.LOSSES].isna().any(axis=1)].drop_duplicates([*oracle.SETTING, "seed"])
print(f"networks that diverged: {len(diverged)}")
print(
    f"{len(networks)} networks of {full.setting.nunique()} settings, {((full.horizon == last) & (full.kind != 'unsplit')).sum()} branches, each under two orders"
)

# %% [markdown]
# The first settings differ in width and age alone; they are the plain case, the 2021 rule under SGD.

# %%
first = full.iloc[0]


def plain(t):
    """The rows of the plain case."""
    same = (t.rule == first.rule) & (t.optimizer == first.optimizer) & (t.learning_rate == first.learning_rate)
    return t[same & ((t.grown > 0) == (first.grown > 0))]


plain_gains, plain_variances = plain(gains), plain(variances)
print(f"the plain case: {first.dataset}, {first.optimizer} at {first.learning_rate:g}, {first.rule}")

# %% [markdown]
# ## What is there to win?
#
# Why two branches of a network differ in validation loss: because of the neuron that was split (*choice*), because of the coefficients that it was split with, because of the order of the mini-batches after
# it, alike for all branches (*order*), or because of what the order does to one branch and not to the other (*rest*). Standard deviations: roots of the variances' means over networks of all ages.

# %%
parts = ["choice", "coefficients", "order", "rest"]


def sd(variance):
    """The root, 0 where an unbiased variance is negative."""
    return variance.clip(lower=0) ** 0.5


figure, axes = plt.subplots(1, len(HORIZONS), figsize=(12, 3.2), sharey=True, layout="constrained")
for axis, (horizon, at) in zip(axes, plain_variances.groupby("horizon")):
    sd(at.groupby("width")[parts].mean()).plot.bar(ax=axis, rot=0, legend=False, width=0.8)
    axis.set(
        title=f"{horizon} epoch{'s' * (horizon > 1)} after the split",
        xlabel="hidden neurons",
        ylabel="sd of the validation loss",
    )
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncol=4, frameon=False)
plots.keep(figure, figures, "oracle-spreads")

# %%
by_age = plain_variances[plain_variances.horizon == last].groupby(["width", "age"])[parts].mean()
sd(by_age).map("{:.5f}".format)

# %% [markdown]
# ## How much of it do policies take?
#
# A policy's gain: how much lower its choice ends than the mean branch, which is what `random` gets. The oracle chooses the branch that ended best under one order, and is
# measured under the other, for the best of many is lower than it deserves. Means over widths and ages, with 95 % intervals over the repeats (BCa).

# %%
by_horizon = {
    horizon: at.pivot_table(index="seed", columns="policy", values="gain", sort=False)
    for horizon, at in plain_gains.groupby("horizon")
}
taken = {f"epochs after the split: {horizon}": 1000 * frame for horizon, frame in by_horizon.items()}
figure = plots.differences(
    taken, "thousandths of validation loss below the mean branch's (→ better; each panel its own scale)"
)
plots.keep(figure, figures, "oracle-gains")

# %%
answer = compare.intervals(by_horizon[last])
texts = {
    "gain": [
        f"{m:+.5f} [{low:+.5f}, {high:+.5f}]"
        for m, low, high in answer[["mean", "low", "high"]].itertuples(index=False)
    ]
}
texts["share of the oracle's"] = (answer["mean"] / answer["mean"]["oracle"]).map("{:.0%}".format)
texts["rank correlation"] = (
    plain_gains[plain_gains.horizon == last].groupby("policy")["rank"].mean().map("{:+.2f}".format)
)
pd.DataFrame(texts, index=answer.index).replace("+nan", "")

# %% [markdown]
# The oracle's rank correlation is the one between the two orders: how far the order of the branches repeats itself at all.
#
# ## Where does it matter?
#
# The oracle's gain in every setting, ten epochs after the split, with 95 % intervals: width and age, then networks of which half or three quarters of the neurons came by splits, other rates, rules and optimisers.

# %%
at_last = gains[gains.horizon == last].assign(setting=oracle.settings)
of_oracle = at_last[at_last.policy == "oracle"].pivot_table(index="seed", columns="setting", values="gain", sort=False)
where = compare.intervals(1000 * of_oracle)
figure, axis = plt.subplots(figsize=(9, 0.3 * len(where) + 1), layout="constrained")
plots.draw_intervals(axis, where)
axis.set_xlabel("the oracle's gain in thousandths of loss → better")
plots.keep(figure, figures, "oracle-settings")

# %% [markdown]
# The same as a table, all in thousandths of validation loss. *split*: how much lower the mean branch ends than the network that was not split, which is what a split is worth whatever the neuron; *order*: the standard deviation that the order of the mini-batches makes; *repeats itself*: the rank
# correlation of branches between the two orders; *best policy*: the highest mean gain of eleven, picked with hindsight on these ten networks, so too high.

# %%
of_policies = at_last[~at_last.policy.isin(["oracle", "random"])].pivot_table(
    index="setting", columns="policy", values="gain", sort=False
)
spread = sd(variances[variances.horizon == last].assign(setting=oracle.settings).groupby("setting")[parts].mean())
ranges = [f"{r['mean']:.1f} [{r.low:.1f}, {r.high:.1f}]" for _, r in where.iterrows()]
summary = pd.DataFrame({"oracle": ranges}, index=where.index)
summary["split"] = at_last.groupby("setting").split.mean().mul(1000).map("{:+.1f}".format)
summary["order"] = spread.order.mul(1000).map("{:.1f}".format)
summary["repeats itself"] = at_last[at_last.policy == "oracle"].groupby("setting")["rank"].mean().map("{:+.2f}".format)
summary["best policy"] = [
    f"{of_policies.loc[s].idxmax()} {1000 * of_policies.loc[s].max():+.1f}" for s in summary.index
]
summary

# %% [markdown]
# Correlations of what policies prefer with the gain, by setting: the bluer, the better the policy sees what a split will bring; red, where it prefers what will bring less.

# %%
ranks = at_last[~at_last.policy.isin(["oracle", "random"])].pivot_table(
    index="setting", columns="policy", values="rank", sort=False
)
figure, axis = plt.subplots(figsize=(9, 0.34 * len(ranks) + 1.6), layout="constrained")
drawn = axis.imshow(ranks, cmap="RdBu", vmin=-0.5, vmax=0.5, aspect="auto")
axis.set_xticks(range(ranks.shape[1]), ranks.columns, rotation=35, ha="right", rotation_mode="anchor")
axis.set_yticks(range(len(ranks)), ranks.index)
figure.colorbar(drawn, label="rank correlation with the gain")
plots.keep(figure, figures, "oracle-ranks")

# %% [markdown]
# ## What we see
#
# A single split on Fashion-MNIST, judged ten epochs later. The plain case, the 2021 rule under SGD at 0.01:
#
# - **There is little to win.** The branch that one order picks ends, under the other, 0.0010 [0.0008, 0.0013] below the mean branch in validation loss: at least that much is due to the choice. The order of the mini-batches, alike for all branches, has a standard deviation of 0.0043.
# - **The wider a network without splits, the less.** At age 5 the oracle wins 0.0010 at 10 neurons, 0.0007 at 20 and 0.0002 at 40; and the order in which branches end repeats itself less under other mini-batches, from 0.65 to 0.11. Not where they grew: 0.0008 at 20 neurons, 10 of them by splits,
#   and 0.0007 at 40, 30 of them.
# - **One policy may see some of it.** `min-eigenvalue` takes 23 % of the oracle's gain, and alone has an interval above zero; corrected for eleven policies that is not told from chance. `max-loss`, `loss-probs`, `max-fire`, `max-gradient` and `max-variance` have intervals below zero; corrected,
#   `max-gradient` alone does worse than chance.
#
# Where it matters:
#
# - **The rule**: where twins pull opposite ways (`opposed`), the oracle wins 2.3 times as much at 20 neurons and 2.9 times at 10; where they are equal (`even`), next to nothing.
# - **The learning rate**: at 0.001 there is less to win (0.0006 and 0.0004), but the mini-batches make no more than that, and branches end in nearly the same order under others (0.93 and 0.88): there the choice is worth as much as the luck.
# - **The optimiser**: with Adam at 0.001 it wins 0.0022 and 0.0015. With momentum ten networks cannot tell its gain from none.
#
# The limits: a single split, not a course of them; one dataset and the same images throughout; ten seeds; ages but 5 in the plain case alone, width 40 only under its rule and rate; 21 settings, none corrected for their number; policies score on the validation images that judge them.
#
# The cell asserts these sentences.

# %%
if table == "figures/data/oracle.csv.gz":
    best = answer.loc["oracle"]
    assert best[["mean", "low", "high"]].round(4).tolist() == [0.0010, 0.0008, 0.0013]
    assert round(plain_variances[plain_variances.horizon == last].order.mean() ** 0.5, 4) == 0.0043
    mean = of_oracle.mean().round(4)
    name = "{} · {} · width {}, age 5".format
    assert [mean[name("sgd 0.01", "scaled", width)] for width in (10, 20, 40)] == [0.0010, 0.0007, 0.0002]
    repeats_itself = summary["repeats itself"].astype(float)
    assert [repeats_itself[name("sgd 0.01", "scaled", width)] for width in (10, 40)] == [0.65, 0.11]
    others = answer.drop(["oracle", "random"])
    assert list(others.index[others.low > 0]) == ["min-eigenvalue"]
    assert round(others["mean"]["min-eigenvalue"] / best["mean"], 2) == 0.23
    worse = ["max-loss", "loss-probs", "max-fire", "max-gradient", "max-variance"]
    assert list(others.index[others.high < 0]) == worse
    corrected = compare.verdicts(by_horizon[last][others.index], "val_accuracy")  # more is better
    assert list(corrected.index[corrected.holm < 0.05]) == ["max-gradient"]

# %%
if table == "figures/data/oracle.csv.gz":
    for width in (10, 20):
        usual, exact = of_oracle[name("sgd 0.01", "scaled", width)].mean(), of_oracle.mean()
        assert round(exact[name("sgd 0.01", "opposed", width)] / usual, 1) == (2.9 if width == 10 else 2.3)
        assert exact[name("sgd 0.01", "even", width)] < 0.15 * usual
        assert where.low[name("momentum 0.01", "scaled", width)] < 0 < where.low[name("adam 0.001", "scaled", width)]
    slow, adam = ([name(how, "scaled", width) for width in (10, 20)] for how in ("sgd 0.001", "adam 0.001"))
    assert mean[slow].tolist() == [0.0006, 0.0004] and repeats_itself[slow].tolist() == [0.93, 0.88]
    assert (spread.order[slow] < mean[slow] + 1e-4).all() and mean[adam].tolist() == [0.0022, 0.0015]
    grew = [mean[f"sgd 0.01 · scaled · width {w}, age {g + 1}, {g} grown"] for w, g in ((20, 10), (40, 30))]
    assert grew == [0.0008, 0.0007]
    print("held")

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
