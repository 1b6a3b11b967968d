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
# # Which, how, when: what really decides
#
# Growing a network by splits takes three choices: *which* neuron is split, *how*, and *when*. Here each is varied with the others held, at a learning
# rate that converges, on Fashion-MNIST at the size of the 2021 study: from 10 neurons to 60, 100 epochs, ten seeds. What decides are the final test
# loss and accuracy, paired by seed, against the network that had all its neurons from the start and that spent as many multiply-adds.
# The limit: one data set, one hidden layer. A difference is called one where a permutation test, corrected for all comparisons made with it (max-T), says so.
#
# Before this: [07_do_twins_part](07_do_twins_part.ipynb) asks whether the two neurons of a split become different.

# %% tags=["parameters"]
table: str = "figures/data/which-how-when.parquet"  # the study which-how-when, from the project's folder
eight: str = "figures/data/fashion-mnist-converged.parquet"  # the policies of 2021 at the same setting
others: str = "which-how-2021 sketch adam"  # figures/data of the same ways to grow in other settings
tuning: str = "figures/data/tuning.parquet"  # the study that chose the learning rates
cheap: str = "figures/data/cheap-scores.parquet"  # the study cheap-scores, at the setting of the first
figures: str = ""  # where pictures go, and how their names begin; none are saved by default

# %%
import platform

import pandas as pd

import neuronsplit as ns
from neuronsplit.analysis.cost import difference_at_equal_cost, final_difference_at_equal_cost, multiply_adds, overview
from neuronsplit.analysis.stats import intervals, paired_tests, style_tests
from neuronsplit.analysis.tables import final_values, last_epoch, paired_differences, with_labels
from neuronsplit.locations import ROOT
from neuronsplit.names import CONTROLS, NO_SPLIT, STAY_NARROW
from neuronsplit.plots import comparisons
from neuronsplit.plots.style import TITLES, save_figure, use_style

use_style()
LOSS, ACCURACY = "test_loss", "test_accuracy"


def read(file):
    """A table; prints in one line what made it."""
    rows, made_by = ns.read_table(ROOT / file), ns.provenance(ROOT / file)
    shared = {name: made_by["parameters"].get(name) for name in ("dataset", "optimizer", "learning_rate", "n_seeds")}
    print(f"{file}: {len(rows):,} rows, {shared}, commit {made_by['commit']}")
    return rows


# %% [markdown]
# ## The tables

# %%
results = read(table)
policies_2021 = read(eight)
comparable = all(set(policies_2021[name]) == set(results[name]) for name in ("dataset", "seed", "epoch"))
if not comparable:  # the table is of another setting
    policies_2021 = policies_2021.head(0)
elsewhere = [read(f"figures/data/{name}.parquet") for name in others.split()]

# %% [markdown]
# The learning rates are about those at which the control's validation loss ends lowest, on seeds of their own: tuned for the control, then used for all.

# %%
rates = last_epoch(read(tuning)).groupby(["optimizer", "learning_rate"], sort=False).val_loss.agg(["mean", "std"])
best_rates = rates["mean"].unstack("optimizer").idxmin()
print("lowest final validation loss at", best_rates.to_dict())
rates.round(4)

# %% [markdown]
# ## Which
#
# The seven policies of 2021 and five more: the sum of |w ∂L/∂w| over a neuron's weights (`max-importance`, and drawn by softmax), the gradient of its outgoing weights,
# the variance of its activation, and the smallest eigenvalue of its splitting matrix, which says how steeply the loss falls when its twins part
# ([Wu, Wang & Liu 2019](https://arxiv.org/abs/1910.02366)). All split by the 2021 rule, one per epoch. Differences are to `random`.

# %%
scaled = results[(results.growth == "scaled") & (results.schedule == "every-epoch")]
repeated = scaled.policy.unique()
which = pd.concat([policies_2021[~policies_2021.policy.isin(repeated)], scaled], ignore_index=True)
grown = which[~which.policy.isin(CONTROLS)]
names = ["random", *(p for p in ns.POLICIES if p in set(grown.policy) - {"random"})]
grown = grown.set_index("policy").loc[names].reset_index()
panels = {f"final {TITLES[m]} − that of random": paired_differences(grown, m, "random") for m in (LOSS, ACCURACY)}
save_figure(comparisons.paired_differences(panels), figures, "which")

# %%
which_loss = paired_tests(paired_differences(grown, LOSS, "random"), LOSS)
style_tests(which_loss)

# %% [markdown]
# ## How
#
# A random neuron per epoch, but grown in nine ways: five exact splits, two inexact ones (`net2net`, a noisy copy, and `steepest-descent`, twins a step apart along the steepest direction),
# and two neurons without a parent: a random one with outgoing weights 0 (`zero-outgoing`), and GradMax's ([Evci et al. 2022](https://arxiv.org/abs/2201.05125)).
# Differences are to the control, which had all neurons from the start.


# %%
def label_growths(rows):
    """The controls, and the growths of one random neuron per epoch, labelled by the growth."""
    one_per_epoch = rows[(rows.policy == "random") & (rows.schedule == "every-epoch")]
    return with_labels(pd.concat([rows[rows.policy.isin(CONTROLS)], one_per_epoch]))


how = label_growths(results)
panels = {f"final {TITLES[m]} − that of {NO_SPLIT}": paired_differences(how, m, NO_SPLIT) for m in (LOSS, ACCURACY)}
save_figure(comparisons.paired_differences(panels), figures, "how")

# %%
to_control = paired_tests(paired_differences(how, LOSS, NO_SPLIT), LOSS)
style_tests(to_control)

# %% [markdown]
# The same against the 2021 rule: which growths are better?

# %%
to_scaled = paired_tests(paired_differences(how[~how.policy.isin(CONTROLS)], LOSS, "scaled"), LOSS)
style_tests(to_scaled)

# %% [markdown]
# ## When
#
# One per epoch, five every fifth epoch, all at once half-way (which costs as much as one per epoch), all after the first epoch, or one whenever the validation loss has
# fallen by less than 1 %. Schedules differ in what they cost, so the control is taken when it had spent as much.

# %%
schedules = results[(results.policy == "random") & results.growth.isin(["scaled", "zero-outgoing"])]
when = with_labels(pd.concat([results[results.policy == NO_SPLIT], schedules]))
panels = {
    f"{TITLES[m]} − that of {NO_SPLIT} at equal cost": final_difference_at_equal_cost(when, m, NO_SPLIT)
    for m in (LOSS, ACCURACY)
}
save_figure(comparisons.paired_differences(panels), figures, "when")

# %%
when_at_equal_cost = paired_tests(final_difference_at_equal_cost(when, LOSS, NO_SPLIT), LOSS)
style_tests(when_at_equal_cost)

# %% [markdown]
# The schedules against one another: final test loss to that of one split per epoch, by the same growth.


# %%
def verdict_table(tests):
    """Mean differences with their verdicts, a column per setting."""
    texts = {name: found["mean"].map("{:+.3f} ".format) + found.verdict for name, found in tests.items()}
    return pd.concat(texts, axis=1).fillna("")


by_growth = {growth: with_labels(rows) for growth, rows in schedules.groupby("growth", sort=False)}
to_every_epoch = {
    growth: paired_tests(paired_differences(rows, LOSS, "every-epoch"), LOSS) for growth, rows in by_growth.items()
}
verdict_table(to_every_epoch)

# %% [markdown]
# ## Is there a combination that beats the final width from the start?
#
# All combinations together, against the control that spent as much. Cost counts what training takes. What a policy spends
# on its scores comes on top: nothing for `random`, a fifth of an epoch per split for gradients, and for `min-eigenvalue`, which ran 24 products with all
# images for each neuron here, more than the training itself (below, with a cheaper way). The ten best, with verdicts that are corrected for all 29 comparisons.

# %%
everything = with_labels(results)
by_loss, by_accuracy = (
    paired_tests(final_difference_at_equal_cost(everything, m, NO_SPLIT), m) for m in (LOSS, ACCURACY)
)
best = by_loss.sort_values("mean")
style_tests(best.head(10))

# %%
random_choices = results[results.policy.isin(["random", NO_SPLIT])]
save_figure(comparisons.final_vs_cost(random_choices, LOSS, NO_SPLIT), figures, "cost")

# %% [markdown]
# ## On the way
#
# The end is not all: a growing network is cheap while it is small. Its lead over a control that has spent as much, after every epoch, here and in the
# other settings: the learning rate of 2021, far from converged after 100 epochs; a large one, 10 neurons to 30 in 30 epochs; and Adam. Below zero it has the
# lower test loss for the same multiply-adds.

# %%
tables = {}
for rows in (results, *elsewhere):
    tables.setdefault(f"{rows.optimizer.iloc[0]}, rate {rows.learning_rate.iloc[0]:g}", rows)
growths_by_setting = {name: label_growths(rows) for name, rows in tables.items()}
shown = [NO_SPLIT, STAY_NARROW, "scaled", "antisymmetric", "zero-outgoing", "gradmax"]
panels = {name: rows[rows.policy.isin(shown)] for name, rows in growths_by_setting.items()}
save_figure(comparisons.difference_at_equal_cost(panels, LOSS, NO_SPLIT), figures, "leads")

# %% [markdown]
# How long the lead lasts: the cost, as a share of the control's, up to which the whole interval of the difference has been below zero from the start.


# %%
def lead_until(rows, policy):
    """Share of the control's cost up to which the policy was ahead with its whole interval, or 0."""
    found = difference_at_equal_cost(rows[rows.policy.isin([NO_SPLIT, policy])], LOSS, NO_SPLIT)
    found = found.dropna(subset="difference")
    ahead = intervals(found.pivot(index="seed", columns="epoch", values="difference")).high < 0
    unbroken = ahead.cummin()
    return found.groupby("epoch").cost.mean()[unbroken].max() if unbroken.any() else 0.0


until = {
    name: {policy: lead_until(rows, policy) for policy in shown[1:] if policy in set(rows.policy)}
    for name, rows in growths_by_setting.items()
}
until = pd.DataFrame(until)
until.round(3)

# %% [markdown]
# ## Does it survive?
#
# The same growths in all settings: final test loss to the control's, at the same seed, after as many epochs.

# %%
differences = {name: paired_differences(rows, LOSS, NO_SPLIT) for name, rows in growths_by_setting.items()}
figure = comparisons.paired_differences(differences, f"final test loss − that of {NO_SPLIT}")
save_figure(figure, figures, "settings")

# %%
equal_epochs = {name: paired_tests(found, LOSS) for name, found in differences.items()}
verdict_table(equal_epochs)

# %% [markdown]
# And against a control that spent as much:

# %%
equal_cost = {
    name: paired_tests(final_difference_at_equal_cost(rows, LOSS, NO_SPLIT), LOSS)
    for name, rows in growths_by_setting.items()
}
verdict_table(equal_cost)

# %% [markdown]
# The rate of 2021 in full, with early growth and the choice by eigenvalue: against a control that spent as much.

# %%
early = final_difference_at_equal_cost(with_labels(elsewhere[0]), LOSS, NO_SPLIT)
style_tests(paired_tests(early, LOSS))

# %% [markdown]
# ## What to use
#
# Lower loss and higher accuracy are better. *Loss − control* is the difference in test loss to the control at the same seed, after as many epochs. The *mean over cost* is taken over the multiply-adds spent, up to what the cheapest
# of the growing runs spent: how good the network is on the way. Brackets: 95 % intervals (Student's t; for the standard deviation chi-square).

# %%
measures = overview(everything, NO_SPLIT)
after_equal_epochs = intervals(paired_differences(everything, LOSS, NO_SPLIT))


def format_interval(rows, number):
    """Means and intervals as texts, each number in the given format."""
    return [f"{m:{number}} [{low:{number}}, {high:{number}}]" for m, low, high in rows.itertuples(index=False)]


shares = measures["cost", "mean"].map("{:.0%}".format)
titles = ["test loss", "test accuracy", "test loss, mean over cost", "test accuracy, mean over cost"]
texts = {title: format_interval(measures[title], ".3f") for title in titles}
texts["sd of test accuracy"] = format_interval(measures["sd of test accuracy"], ".4f")
texts = pd.DataFrame({"cost": shares} | texts, index=measures.index)
to_no_split = format_interval(after_equal_epochs[["mean", "low", "high"]], "+.3f")
texts.insert(2, "loss − control", pd.Series(to_no_split, after_equal_epochs.index))
texts.fillna("").replace("nan [nan, nan]", "").sort_values("test loss")

# %% [markdown]
# The price of `min-eigenvalue`'s scores, which *cost* above leaves out: 24 times two products with all validation images for every neuron, at every split,
# as these tables were made. Since then the package looks for the eigenvalue only along the directions in which images vary most, for 3 % of an epoch per split,
# and takes the gradients of `max-importance` from 4,000 images. The table has the same setting with these scores, against the same `random`.

# %%
pixels, images = 28 * 28, {"train": 50_000, "validation": 10_000}
of_scores = 24 * 2 * images["validation"] * (pixels + 1) * sum(range(10, 60))
of_training = 100 * multiply_adds(60, pixels, 10, images["train"])
print(f"multiply-adds for the scores of 50 splits: {of_scores / of_training:.1f} times the control's whole training")
cheap_scores = ns.read_table(ROOT / cheap)
cheap_to_random = paired_tests(paired_differences(cheap_scores, LOSS, "random").drop(columns=NO_SPLIT), LOSS)
style_tests(cheap_to_random)

# %% [markdown]
# ## What we see
#
# On Fashion-MNIST, from 10 neurons to 60 in 100 epochs. Where training converges (plain SGD at 0.01):
#
# - **Nothing that grows beats the final width from the start**, neither after as many epochs nor at equal multiply-adds. The closest comes to within 0.002 of its
#   test loss (`min-eigenvalue · steepest-descent · all-at-1`: +0.002, interval −0.001 to +0.005), if its scores cost nothing; without scores it is `zero-outgoing · all-at-1`, 0.003 behind.
#   At equal multiply-adds no difference in test loss was found for these two; the other 26 are worse.
# - **When decides most.** All splits after the first epoch instead of one per epoch: 0.010 less test loss by the 2021 rule, 0.015 with `zero-outgoing`. Waiting for a plateau is worst.
# - **Which: one choice helps, four harm.** `min-eigenvalue` ends 0.010 below `random`; `min-loss` and the three fire policies end 0.020 to 0.026 above it, for they keep splitting one
#   family. For the other six no difference was found.
# - **Which, with the scores of today**: `min-eigenvalue` ends 0.008 below `random`, for a hundredth of the work, `max-importance` 0.006 and `importance-probs` 0.004. The interval of the last just
#   includes 0, though the corrected test finds a difference. On ten other seeds, [12](12_a_network_that_decides.ipynb) finds it for `max-importance` alone.
# - **How: four growths harm.** `even` and `gradmax` end 0.012 and 0.015 above the 2021 rule, `outgoing` and `net2net` 0.005 and 0.007. For the other four no difference was found, `zero-outgoing` among them: a split
#   by the 2021 rule is no better than a neuron without a parent. Equal twins (`even`) stay equal until one of them is split again; [07](07_do_twins_part.ipynb) measures it.
#
# Where training is short of that (plain SGD at 0.001, the rate of 2021):
#
# - **Growth can win, and how decides.** GradMax's neurons end 0.023 below a control that spent as much (interval 0.018 to 0.028), and 0.011 below one trained for as many
#   epochs. `antisymmetric`, an exact split, ends 0.011 below the control at equal cost and level with it after as many epochs. The 2021 rule ends 0.025 above. What wins here is speed: both end
#   with a lower training loss than the control. At the rate that converges the same two are among the worst.
#
# With Adam, at its tuned rate of 0.00005, at which the control still improves to the end:
#
# - **`zero-outgoing` wins at equal cost, splits do not.** One such neuron per epoch ends level with the control after as many epochs, and 0.006 below one that spent as much (interval 0.002
#   to 0.010). Splits by the 2021 rule and by `antisymmetric` end 0.028 and 0.029 above it. That a split is as good as a neuron without a parent does not survive Adam.
#
# With plain SGD at any rate:
#
# - **Growth leads early.** By the 2021 rule it is ahead of a control that spent as much until 24 % of the control's multiply-adds at 0.001, 7 % at 0.01, 5 % at 0.05; so is,
#   about as long, a network that stays narrow. For a small budget the small network is the thing, grown or not.
#
# So whether growing pays, and how to grow, depend on the optimiser and on how far training goes more than on which neuron is split.
#
# The cells assert these sentences.

# %%
means = after_equal_epochs["mean"]
final = final_values(everything, LOSS).mean()
if table == "figures/data/which-how-when.parquet":
    assert (means > 0).all() and (by_loss["mean"] > 0).all() and (by_accuracy["mean"] < 0).all()
    closest = means.idxmin()
    assert closest == "min-eigenvalue · steepest-descent · all-at-1"
    assert after_equal_epochs.loc[closest, ["mean", "low", "high"]].round(3).tolist() == [0.002, -0.001, 0.005]
    assert means.drop(closest).idxmin() == "random · zero-outgoing · all-at-1"
    assert round(means["random · zero-outgoing · all-at-1"], 3) == 0.003
    assert len(by_loss) == 29 and (by_loss.verdict.drop("stay-narrow") == "worse").sum() == 26
    not_told = by_loss.index[by_loss.verdict == "no difference found"]
    assert set(not_told) == {closest, "random · zero-outgoing · all-at-1"}
    assert 1.3 < of_scores / of_training < 1.45
    for growth, gain in {"scaled": 0.010, "zero-outgoing": 0.015}.items():
        assert to_every_epoch[growth].verdict["all-at-1"] == "better"
        found = final[f"random · {growth} · every-epoch"] - final[f"random · {growth} · all-at-1"]
        assert round(found, 3) == gain
    worst = set(when_at_equal_cost["mean"].nlargest(2).index)
    assert worst == {"scaled · plateau", "zero-outgoing · plateau"}
    print("held")

# %%
if table == "figures/data/which-how-when.parquet":
    harmful = ["min-loss", "max-fire", "min-fire", "half-fire"]
    assert which_loss.index[which_loss.verdict == "better"].tolist() == ["min-eigenvalue"]
    assert round(which_loss["mean"]["min-eigenvalue"], 3) == -0.010
    today = cheap_to_random.loc[["min-eigenvalue", "max-importance", "importance-probs"]]
    assert today["mean"].round(3).tolist() == [-0.008, -0.006, -0.004] and (today.verdict == "better").all()
    assert (today.high < 0).tolist() == [True, True, False]
    assert which_loss.index[which_loss.verdict == "worse"].tolist() == harmful
    assert which_loss["mean"][harmful].between(0.0195, 0.0265).all()
    worse = ["even", "outgoing", "net2net", "gradmax"]
    assert to_scaled.index[to_scaled.verdict == "worse"].tolist() == worse
    assert to_scaled["mean"][worse].round(3).tolist() == [0.012, 0.005, 0.007, 0.015]
    assert (to_scaled.verdict == "no difference found").sum() == 4
    print("held")

# %%
slow, converged, fast = (f"sgd, rate {rate}" for rate in (0.001, 0.01, 0.05))
if table == "figures/data/which-how-when.parquet":
    won = equal_cost[slow]
    assert won.verdict[["gradmax", "antisymmetric", "scaled"]].tolist() == ["better", "better", "worse"]
    assert won["mean"][["gradmax", "antisymmetric", "scaled"]].round(3).tolist() == [-0.023, -0.011, 0.025]
    assert won.loc["gradmax", ["low", "high"]].astype(float).round(3).tolist() == [-0.028, -0.018]
    in_epochs = equal_epochs[slow]
    assert in_epochs.verdict["gradmax"] == "better" and round(in_epochs["mean"]["gradmax"], 3) == -0.011
    assert in_epochs.verdict["antisymmetric"] == "no difference found"
    train_loss = final_values(growths_by_setting[slow], "train_loss").mean()
    assert (train_loss[["gradmax", "antisymmetric"]] < train_loss[NO_SPLIT]).all()
    assert set(equal_cost[converged]["mean"].nlargest(3).index) == {"gradmax", "antisymmetric", "even"}
    assert until.loc["scaled", [slow, converged, fast]].round(2).tolist() == [0.24, 0.07, 0.05]
    assert until.loc["stay-narrow", [slow, converged, fast]].round(2).tolist() == [0.17, 0.07, 0.04]  # 0.17: to its end
    print("held")

# %%
if table == "figures/data/which-how-when.parquet":
    with_adam = equal_cost["adam, rate 5e-05"]
    assert with_adam.verdict[["zero-outgoing", "scaled", "antisymmetric"]].tolist() == ["better", "worse", "worse"]
    assert with_adam["mean"][["zero-outgoing", "scaled", "antisymmetric"]].round(3).tolist() == [-0.006, 0.028, 0.029]
    assert with_adam.loc["zero-outgoing", ["low", "high"]].astype(float).round(3).tolist() == [-0.010, -0.002]
    assert abs(equal_epochs["adam, rate 5e-05"]["mean"]["zero-outgoing"]) < 0.0005
    print("held")

# %% [markdown]
# Next: [11_how_good_could_a_choice_be](11_how_good_could_a_choice_be.ipynb) makes every split of a network and trains each of them on.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, pandas {pd.__version__}, neuronsplit {ns.__version__}")
