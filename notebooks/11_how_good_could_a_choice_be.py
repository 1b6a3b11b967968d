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
# and every branch is trained on with the same mini-batches. So the branches differ in the choice alone, and what each policy would have chosen can be compared
# with the best choice there was. First a few small networks, live; then the study `oracle`, on Fashion-MNIST: three widths, splits after 1 to 31 epochs, four growths, three optimisers.
#
# Before this: [10_when_to_split](10_when_to_split.ipynb) asks when to split. At one learning rate, [08_which_how_when](08_which_how_when.ipynb) asks which choices decide.

# %% tags=["parameters"]
dataset: str = "digits"  # what the live networks learn: digits, mnist-1d or fashion-mnist
learning_rate: float = 0.05  # of their optimiser, SGD
width: int = 10  # their hidden neurons, each of which is split
epochs_before: int = 5  # epochs before the split
n_seeds: int = 5  # live networks, of seeds 0, 1, ...
table: str = "figures/data/oracle.parquet"  # what is evaluated, from the project's folder
figures: str = ""  # where pictures go, and how their names begin: figures/; none are saved by default

# %%
import platform

import matplotlib.pyplot as plt
import pandas as pd
import torch

import neuronsplit as ns
from neuronsplit.analysis import oracle
from neuronsplit.analysis.stats import intervals, paired_tests
from neuronsplit.locations import ROOT
from neuronsplit.measuring.all_splits import HORIZONS, policy_choices
from neuronsplit.names import NEURON, SHUFFLE_LOSSES, UNSPLIT
from neuronsplit.plots.comparisons import draw_intervals, paired_differences
from neuronsplit.plots.style import save_figure, use_style
from neuronsplit.study.exhaustive_splits import ExhaustiveSplits, run_exhaustive_splits

torch.set_num_threads(1)
use_style()

# %% [markdown]
# ## Every split of every network
#
# The table has one row per branch and horizon, which is the number of epochs after the split. The branches go on under two shuffles of the mini-batches,
# with `loss_shuffle_0` and `loss_shuffle_1`: what is due to the choice shows under both, what is
# due to chance does not. Beside each branch stands what policies know of the neuron it split, before the split.

# %%
all_splits = ExhaustiveSplits(dataset, learning_rate=learning_rate, width=width, epochs_before=epochs_before)
rows = run_exhaustive_splits(all_splits, list(range(n_seeds)))
print(f"{len(rows[rows.horizon == max(HORIZONS)])} networks followed, each under two shuffles")

# %%
shown = ["neuron", "ablation_loss", "fire_rate", "smallest_eigenvalue", "max_correlation", "loss_before"]
neurons = rows[(rows.seed == 0) & (rows.horizon == max(HORIZONS)) & (rows.branch_type == NEURON)]
neurons[[*shown, *SHUFFLE_LOSSES]].round(4).reset_index(drop=True)

# %% [markdown]
# *Prior splits*: neurons that came by splits, of random neurons. *Coefficients*: the random shares by which a neuron is divided between its twins. *max_correlation*: the correlation of a neuron's activation with that of the one most like it. The split rules are drawn in
# [01](01_split_a_neuron.ipynb); the policies are named in [which.py](../neuronsplit/growing/which.py).
#
# ## At the size of the study
#
# `python -m neuronsplit run oracle` makes the table that all from here on is read off.

# %%
full = ns.read_table(ROOT / table)
full["setting"] = oracle.setting_labels(full)
gains, variances = oracle.gains(full, policy_choices(full)), oracle.variances(full)
last = max(HORIZONS)
keys = [*oracle.SETTING_KEYS, "seed"]
diverged = full[full[SHUFFLE_LOSSES].isna().any(axis=1)].drop_duplicates(keys)
branches = full[(full.horizon == last) & (full.branch_type != UNSPLIT)]
print(f"networks that diverged: {len(diverged)}")
print(f"{len(full.drop_duplicates(keys))} networks of {full.setting.nunique()} settings", end=", ")
print(f"{len(branches)} branches, each under two shuffles")

# %% [markdown]
# The first settings differ in width and in the epochs before the split alone; they are the plain case, the 2021 rule under SGD.

# %%
first = full.iloc[0]


def plain(t):
    """The rows of the plain case."""
    same = (t.growth == first.growth) & (t.optimizer == first.optimizer) & (t.learning_rate == first.learning_rate)
    return t[same & ((t.prior_splits > 0) == (first.prior_splits > 0))]


plain_gains, plain_variances = plain(gains), plain(variances)
print(f"the plain case: {first.dataset}, {first.optimizer} at {first.learning_rate:g}, {first.growth}")

# %% [markdown]
# ## What is there to win?
#
# Why two branches of a network differ in validation loss: because of the neuron that was split (*choice*), because of the coefficients that it was split with, because of the order of the mini-batches after
# it, alike for all branches (*shuffle*), or because of what the shuffle does to one branch and not to the other (*residual*). Standard deviations: roots of the variances' means over networks of all numbers of epochs before the split.

# %%
parts = ["choice", "coefficients", "shuffle", "residual"]


def sd(variance):
    """The root, 0 where an unbiased variance is negative."""
    return variance.clip(lower=0) ** 0.5


figure, axes = plt.subplots(1, len(HORIZONS), figsize=(12, 3.2), sharey=True, layout="constrained")
for axis, (horizon, found) in zip(axes, plain_variances.groupby("horizon")):
    sd(found.groupby("width")[parts].mean()).plot.bar(ax=axis, rot=0, legend=False, width=0.8)
    axis.set(
        title=f"{horizon} epoch{'s' * (horizon > 1)} after the split",
        xlabel="hidden neurons",
        ylabel="sd of the validation loss",
    )
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncol=4, frameon=False)
save_figure(figure, figures, "oracle-spreads")

# %%
by_epochs = plain_variances[plain_variances.horizon == last].groupby(["width", "epochs_before"])[parts].mean()
sd(by_epochs).map("{:.5f}".format)

# %% [markdown]
# ## How much of it do policies take?
#
# A policy's gain: how much lower its choice ends than the mean branch, which is what `random` gets. The oracle chooses the branch that ended best under one shuffle, and is
# measured under the other, for the best of many is lower than it deserves. Means over widths and epochs before the split, with 95 % intervals over the seeds (Student's t).

# %%
by_horizon = {
    horizon: found.pivot_table(index="seed", columns="policy", values="gain", sort=False)
    for horizon, found in plain_gains.groupby("horizon")
}
panels = {f"epochs after the split: {horizon}": 1000 * found for horizon, found in by_horizon.items()}
figure = paired_differences(
    panels, "thousandths of validation loss below the mean branch's (→ better; each panel its own scale)"
)
save_figure(figure, figures, "oracle-gains")

# %%
policy_gains = intervals(by_horizon[last])
texts = {
    "gain": [
        f"{m:+.5f} [{low:+.5f}, {high:+.5f}]"
        for m, low, high in policy_gains[["mean", "low", "high"]].itertuples(index=False)
    ]
}
texts["share of the oracle's"] = (policy_gains["mean"] / policy_gains["mean"]["oracle"]).map("{:.0%}".format)
correlations = plain_gains[plain_gains.horizon == last].groupby("policy").rank_correlation.mean()
texts["rank correlation"] = correlations.map("{:+.2f}".format)
pd.DataFrame(texts, index=policy_gains.index).replace("+nan", "")

# %% [markdown]
# The oracle's rank correlation is the one between the two shuffles: how far the order of the branches repeats itself at all.
#
# ## Where does it matter?
#
# The oracle's gain in every setting, ten epochs after the split, with 95 % intervals: width and epochs before the split, then networks of which half or three quarters of the neurons came by splits, other rates, growths and optimisers.

# %%
last_gains = gains[gains.horizon == last].assign(setting=oracle.setting_labels)
of_oracle = last_gains[last_gains.policy == "oracle"]
oracle_gains = of_oracle.pivot_table(index="seed", columns="setting", values="gain", sort=False)
by_setting = intervals(1000 * oracle_gains)
figure, axis = plt.subplots(figsize=(9, 0.3 * len(by_setting) + 1), layout="constrained")
draw_intervals(axis, by_setting)
axis.set_xlabel("the oracle's gain in thousandths of loss → better")
save_figure(figure, figures, "oracle-settings")

# %% [markdown]
# The same as a table, all in thousandths of validation loss. *split gain*: how much lower the mean branch ends than the network that was not split, which is what a split is worth whatever the neuron; *shuffle*: the standard deviation that the order of the mini-batches makes; *repeats itself*: the rank
# correlation of branches between the two shuffles; *best policy*: the highest mean gain of eleven, picked with hindsight on these ten networks, so too high.

# %%
of_policies = last_gains[~last_gains.policy.isin(["oracle", "random"])]
policies = of_policies.pivot_table(index="setting", columns="policy", values="gain", sort=False)
last_variances = variances[variances.horizon == last].assign(setting=oracle.setting_labels)
spread = sd(last_variances.groupby("setting")[parts].mean())
texts = [f"{r['mean']:.1f} [{r.low:.1f}, {r.high:.1f}]" for _, r in by_setting.iterrows()]
summary = pd.DataFrame({"oracle": texts}, index=by_setting.index)
summary["split gain"] = last_gains.groupby("setting").split_gain.mean().mul(1000).map("{:+.1f}".format)
summary["shuffle"] = spread["shuffle"].mul(1000).map("{:.1f}".format)
summary["repeats itself"] = of_oracle.groupby("setting").rank_correlation.mean().map("{:+.2f}".format)
summary["best policy"] = [f"{policies.loc[s].idxmax()} {1000 * policies.loc[s].max():+.1f}" for s in summary.index]
summary

# %% [markdown]
# Correlations of what policies prefer with the gain, by setting: the bluer, the better the policy sees what a split will bring; red, where it prefers what will bring less.

# %%
ranks = of_policies.pivot_table(index="setting", columns="policy", values="rank_correlation", sort=False)
figure, axis = plt.subplots(figsize=(9, 0.34 * len(ranks) + 1.6), layout="constrained")
drawn = axis.imshow(ranks, cmap="RdBu", vmin=-0.5, vmax=0.5, aspect="auto")
axis.set_xticks(range(ranks.shape[1]), ranks.columns, rotation=35, ha="right", rotation_mode="anchor")
axis.set_yticks(range(len(ranks)), ranks.index)
figure.colorbar(drawn, label="rank correlation with the gain")
save_figure(figure, figures, "oracle-ranks")

# %% [markdown]
# ## What we see
#
# A single split on Fashion-MNIST, judged ten epochs later. The plain case, the 2021 rule under SGD at 0.01:
#
# - **There is little to win.** The branch that one shuffle picks ends, under the other, 0.0010 [0.0008, 0.0013] below the mean branch in validation loss: at least that much is due to the choice. The order of the mini-batches, alike for all branches, has a standard deviation of 0.0043.
# - **The wider a network without splits, the less.** After 5 epochs the oracle wins 0.0010 at 10 neurons, 0.0007 at 20 and 0.0002 at 40, where its interval includes 0; and the order in which branches end repeats itself less under other mini-batches, from 0.65 to 0.11. Not where they grew: 0.0008 at 20 neurons, 10 of them by splits,
#   and 0.0007 at 40, 30 of them.
# - **One policy may see some of it.** `min-eigenvalue` takes 23 % of the oracle's gain, and alone has an interval above zero; corrected for eleven policies that is not told from chance. `max-loss`, `loss-probs`, `max-gradient` and `max-variance` have intervals below zero; corrected,
#   `max-gradient` alone does worse than chance.
#
# Where it matters:
#
# - **The growth**: where twins pull opposite ways (`antisymmetric`), the oracle wins 2.3 times as much at 20 neurons and 2.9 times at 10; where they are equal (`even`), next to nothing.
# - **The learning rate**: at 0.001 there is less to win (0.0006 and 0.0004), but the mini-batches make no more than that, and branches end in nearly the same order under others (0.93 and 0.88): there the choice is worth as much as the luck.
# - **The optimiser**: with Adam at 0.001 it wins 0.0022 and 0.0015. With momentum ten networks cannot tell its gain from none.
#
# The limits: a single split, not a course of them; one dataset and the same images throughout; ten seeds; splits after other than 5 epochs in the plain case alone, width 40 only under its growth and rate; 21 settings, none corrected for their number; policies score on the validation images that judge them.
#
# The cell asserts these sentences.

# %%
if table == "figures/data/oracle.parquet":
    best = policy_gains.loc["oracle"]
    assert best[["mean", "low", "high"]].round(4).tolist() == [0.0010, 0.0008, 0.0013]
    assert round(plain_variances[plain_variances.horizon == last]["shuffle"].mean() ** 0.5, 4) == 0.0043
    mean = oracle_gains.mean().round(4)
    label = "{} · {} · width {}, after 5 epochs".format
    assert [mean[label("sgd 0.01", "scaled", width)] for width in (10, 20, 40)] == [0.0010, 0.0007, 0.0002]
    lows = [by_setting.low[label("sgd 0.01", "scaled", width)] for width in (10, 20, 40)]
    assert lows[0] > 0 and lows[1] > 0 and lows[2] < 0
    repeats_itself = summary["repeats itself"].astype(float)
    assert [repeats_itself[label("sgd 0.01", "scaled", width)] for width in (10, 40)] == [0.65, 0.11]
    others = policy_gains.drop(["oracle", "random"])
    assert list(others.index[others.low > 0]) == ["min-eigenvalue"]
    assert round(others["mean"]["min-eigenvalue"] / best["mean"], 2) == 0.23
    assert list(others.index[others.high < 0]) == ["max-loss", "loss-probs", "max-gradient", "max-variance"]
    corrected = paired_tests(by_horizon[last][others.index], "val_accuracy")  # more is better
    assert list(corrected.index[corrected.p_adjusted < 0.05]) == ["max-gradient"]

# %%
if table == "figures/data/oracle.parquet":
    for width in (10, 20):
        usual, exact = oracle_gains[label("sgd 0.01", "scaled", width)].mean(), oracle_gains.mean()
        ratio = exact[label("sgd 0.01", "antisymmetric", width)] / usual
        assert round(ratio, 1) == (2.9 if width == 10 else 2.3)
        assert exact[label("sgd 0.01", "even", width)] < 0.15 * usual
        low = by_setting.low
        assert low[label("momentum 0.01", "scaled", width)] < 0 < low[label("adam 0.001", "scaled", width)]
    slow, adam = ([label(how, "scaled", width) for width in (10, 20)] for how in ("sgd 0.001", "adam 0.001"))
    assert mean[slow].tolist() == [0.0006, 0.0004] and repeats_itself[slow].tolist() == [0.93, 0.88]
    assert (spread["shuffle"][slow] < mean[slow] + 1e-4).all() and mean[adam].tolist() == [0.0022, 0.0015]
    grown = [f"sgd 0.01 · scaled · width {w}, after {n + 1} epochs, {n} prior splits" for w, n in ((20, 10), (40, 30))]
    assert mean[grown].tolist() == [0.0008, 0.0007]
    print("held")

# %% [markdown]
# Next: [12_a_network_that_decides](12_a_network_that_decides.ipynb) learns from these splits which neuron to split.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
