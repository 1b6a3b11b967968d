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
# rate that converges, on Fashion-MNIST at the size of the 2021 study: from 10 neurons to 60, 100 epochs, ten repeats. What decides are the final test
# loss and accuracy, paired by repeat, against the network that had all its neurons from the start and that spent as many multiply-adds.
# The limit: one data set, one hidden layer.

# %% tags=["parameters"]
table: str = "figures/data/which-how-when.csv.gz"  # the study which-how-when, from the project's folder
eight: str = "figures/data/fashion-mnist-converged.csv.gz"  # the policies of 2021 at the same setting
others: str = "which-how-2021 sketch adam"  # figures/data of the same ways to grow in other settings
tuning: str = "figures/data/tuning.csv.gz"  # the study that chose the learning rates
cheap: str = "figures/data/cheap-scores.csv.gz"  # the study cheap-scores, at the setting of the first
figures: str = ""  # where pictures go, and how their names begin; none are saved by default

# %%
import platform

import pandas as pd

import neuronsplit as ns
from neuronsplit import compare, plots, study

plots.use_style()
CONTROL = study.CONTROL
LOSS, ACCURACY = "test_loss", "test_accuracy"


def read(file):
    """A table, with what made it printed in a line."""
    rows, about = study.read_table(study.ROOT / file)
    made = {name: about["parameters"].get(name) for name in ("dataset", "optimizer", "learning_rate", "repeats")}
    print(f"{file}: {len(rows):,} rows, {made}, commit {about['commit']}")
    return rows


# %% [markdown]
# ## The tables

# %%
results = read(table)
policies_2021 = read(eight)
comparable = all(set(policies_2021[name]) == set(results[name]) for name in ("dataset", "seed", "epoch"))
if not comparable:  # the table is of another setting
    policies_2021 = policies_2021.head(0)
elsewhere = [read(f"figures/data/{name}.csv.gz") for name in others.split()]

# %% [markdown]
# The learning rates are about those at which the control's validation loss ends lowest, on seeds of their own: tuned for the control, then used for all.

# %%
rates = compare.final(read(tuning)).groupby(["optimizer", "learning_rate"], sort=False).val_loss.agg(["mean", "std"])
chosen = rates["mean"].unstack("optimizer").idxmin()
print("lowest final validation loss at", chosen.to_dict())
rates.round(4)

# %% [markdown]
# ## Which
#
# The seven policies of 2021 and five more: the sum of |w ∂L/∂w| over a neuron's weights (`max-importance`, and as a lottery), the gradient of its outgoing weights,
# the variance of its activation, and the smallest eigenvalue of its splitting matrix, which says how steeply the loss falls when its twins part
# ([Wu, Wang & Liu 2019](https://arxiv.org/abs/1910.02366)). All split by the 2021 rule, one an epoch. Differences are to `random`.

# %%
scaled = results[(results.rule == "scaled") & (results.schedule == "every-epoch")]
repeated = scaled.policy.unique()
which = pd.concat([policies_2021[~policies_2021.policy.isin(repeated)], scaled], ignore_index=True)
grown = which[~which.policy.isin(study.CONTROLS)]
names = ["random", *(p for p in ns.POLICIES if p in set(grown.policy) - {"random"})]
grown = grown.set_index("policy").loc[names].reset_index()
panels = {f"final {plots.TITLES[m]} − that of random": compare.paired(grown, m, "random") for m in (LOSS, ACCURACY)}
figure = plots.differences(panels)
plots.keep(figure, figures, "which")

# %%
which_loss, which_accuracy = (compare.verdicts(compare.paired(grown, m, "random"), m) for m in (LOSS, ACCURACY))
compare.readable(which_loss)

# %% [markdown]
# ## How
#
# A random neuron an epoch, but grown in nine ways: five exact splits, two inexact ones (a noisy copy, and twins a step apart along the steepest direction),
# and two neurons that are nobody's twin: a `fresh` random one with outgoing weights 0, and GradMax's ([Evci et al. 2022](https://arxiv.org/abs/2201.05125)).
# Differences are to the control, which had all neurons from the start.

# %%
ways = results[(results.policy == "random") & (results.schedule == "every-epoch")]
how = compare.named(pd.concat([results[results.policy.isin(study.CONTROLS)], ways]))
panels = {f"final {plots.TITLES[m]} − that of {CONTROL}": compare.paired(how, m, CONTROL) for m in (LOSS, ACCURACY)}
figure = plots.differences(panels)
plots.keep(figure, figures, "how")

# %%
to_control = compare.verdicts(compare.paired(how, LOSS, CONTROL), LOSS)
compare.readable(to_control)

# %% [markdown]
# The same against the 2021 rule: which ways are better splits?

# %%
only_ways = how[~how.policy.isin(study.CONTROLS)]
to_scaled = compare.verdicts(compare.paired(only_ways, LOSS, "scaled"), LOSS)
compare.readable(to_scaled)

# %% [markdown]
# ## When
#
# One an epoch, five every fifth epoch, all at once half-way (which costs as much as one an epoch), all after the first epoch, or one whenever the validation loss has
# fallen by less than 1 %. Schedules differ in what they cost, so the control is taken when it had spent as much.

# %%
schedules = results[(results.policy == "random") & results.rule.isin(["scaled", "fresh"])]
when = compare.named(pd.concat([results[results.policy == CONTROL], schedules]))
panels = {
    f"{plots.TITLES[m]} − that of {CONTROL} at equal cost": compare.paired_at_equal_cost(when, m, CONTROL)
    for m in (LOSS, ACCURACY)
}
figure = plots.differences(panels)
plots.keep(figure, figures, "when")

# %%
at_cost = compare.verdicts(compare.paired_at_equal_cost(when, LOSS, CONTROL), LOSS)
compare.readable(at_cost)

# %% [markdown]
# The schedules against one another: final test loss to that of one split an epoch, by the same rule.

# %%
by_rule = {rule: compare.named(rows) for rule, rows in schedules.groupby("rule", sort=False)}
to_every = {r: compare.verdicts(compare.paired(rows, LOSS, "every-epoch"), LOSS) for r, rows in by_rule.items()}
pd.concat({r: f["mean"].map("{:+.3f} ".format) + f.verdict for r, f in to_every.items()}, axis=1)

# %% [markdown]
# ## Is there a combination that beats the final width from the start?
#
# All combinations together, against the control that spent as much. Cost counts what training takes. What a policy spends
# on its scores comes on top: nothing for `random`, a fifth of an epoch a split for gradients, and for `min-eigenvalue`, which ran 24 products with all
# images for each neuron here, more than the training itself (below, with a cheaper way). The ten best, without verdicts: ten repeats, which can show no p below 0.002, say nothing that
# survives a correction for so many comparisons.

# %%
everything = compare.named(results)
by_loss, by_accuracy = (
    compare.verdicts(compare.paired_at_equal_cost(everything, m, CONTROL), m) for m in (LOSS, ACCURACY)
)
best = by_loss.sort_values("mean")
compare.readable(best.head(10)).hide(["p, Holm", "verdict"], axis="columns")

# %%
randomly = results[results.policy.isin(["random", CONTROL])]
figure = plots.against_cost(randomly, LOSS, CONTROL)
plots.keep(figure, figures, "cost")

# %% [markdown]
# ## On the way
#
# The end is not all: a growing network is cheap while it is small. Its lead over a control that has spent as much, after every epoch, here and in the
# other settings: the learning rate of 2021, far from converged after 100 epochs; a large one, 10 neurons to 30 in 30 epochs; and Adam. Below zero it has the
# lower test loss for the same multiply-adds.


# %%
def named_ways(rows):
    """The controls and the ways to grow a random neuron an epoch, named by the way."""
    one_an_epoch = rows[(rows.policy == "random") & (rows.schedule == "every-epoch")]
    return compare.named(pd.concat([rows[rows.policy.isin(study.CONTROLS)], one_an_epoch]))


settings = {}
for rows in (results, *elsewhere):
    settings.setdefault(f"{rows.optimizer.iloc[0]}, rate {rows.learning_rate.iloc[0]:g}", rows)
ways_there = {name: named_ways(rows) for name, rows in settings.items()}
shown = [CONTROL, study.NARROW, "scaled", "opposed", "fresh", "gradmax"]
figure = plots.leads({name: w[w.policy.isin(shown)] for name, w in ways_there.items()}, LOSS, CONTROL)
plots.keep(figure, figures, "leads")

# %% [markdown]
# How long the lead lasts: the cost, as a share of the control's, up to which the whole interval of the difference has been below zero from the start.


# %%
def lead_until(rows, policy):
    """Share of the control's cost up to which the policy was ahead with its whole interval, or 0."""
    found = compare.leads(rows[rows.policy.isin([CONTROL, policy])], LOSS, CONTROL).dropna(subset="lead")
    ahead = compare.intervals(found.pivot(index="seed", columns="epoch", values="lead")).high < 0
    unbroken = ahead.cummin()
    return found.groupby("epoch").spent.mean()[unbroken].max() if unbroken.any() else 0.0


until = {name: {p: lead_until(w, p) for p in shown[1:] if p in set(w.policy)} for name, w in ways_there.items()}
until = pd.DataFrame(until)
until.round(3)

# %% [markdown]
# ## Does it survive?
#
# The same ways to grow in all settings: final test loss to the control's, in the same repeat, after as many epochs.

# %%
gaps = {name: compare.paired(ways, LOSS, CONTROL) for name, ways in ways_there.items()}
figure = plots.differences(gaps, f"final test loss − that of {CONTROL}")
plots.keep(figure, figures, "settings")


# %%
def told(found):
    """Mean differences with their verdicts, a column a setting."""
    texts = {name: f["mean"].map("{:+.3f} ".format) + f.verdict for name, f in found.items()}
    return pd.concat(texts, axis=1).fillna("")


as_many_epochs = {name: compare.verdicts(gap, LOSS) for name, gap in gaps.items()}
told(as_many_epochs)

# %% [markdown]
# And against a control that spent as much:

# %%
equal_cost = {n: compare.verdicts(compare.paired_at_equal_cost(w, LOSS, CONTROL), LOSS) for n, w in ways_there.items()}
told(equal_cost)

# %% [markdown]
# The rate of 2021 in full, with early growth and the choice by eigenvalue: against a control that spent as much.

# %%
of_2021 = compare.named(elsewhere[0])
early = compare.verdicts(compare.paired_at_equal_cost(of_2021, LOSS, CONTROL), LOSS)
compare.readable(early)

# %% [markdown]
# ## What to use
#
# Lower loss and higher accuracy are better; *area* is the mean over the multiply-adds spent, up to what the cheapest
# of the growing runs spent: how good the network is on the way. *Spread* is the standard deviation of the final accuracy. Brackets: 95 % intervals.

# %%
answer = compare.overview(everything, CONTROL)


def quoted(measure, digits):
    """Mean and interval as a text."""
    form = f"{{:.{digits}f}}".format
    return [f"{form(m)} [{form(low)}, {form(high)}]" for m, low, high in answer[measure].itertuples(index=False)]


digits = {"test loss": 3, "test accuracy": 3, "area, test loss": 3, "area, test accuracy": 3, "spread": 4}
texts = {"cost": answer["cost", "mean"].map("{:.0%}".format), **{name: quoted(name, n) for name, n in digits.items()}}
pd.DataFrame(texts, index=answer.index).sort_values("test loss")

# %% [markdown]
# The price of `min-eigenvalue`'s scores, which *cost* above leaves out: 24 times two products with all validation images for every neuron, at every split,
# as these tables were made. Since then the package looks for the eigenvalue only along the directions in which images vary most, for 2 % of an epoch a split,
# and takes the gradients of `max-importance` from 4,000 images. The table has the same setting with these scores, against the same `random`.

# %%
pixels, images = 28 * 28, {"train": 50_000, "validation": 10_000}
of_scores = 24 * 2 * images["validation"] * (pixels + 1) * sum(range(10, 60))
of_training = (2 * pixels + 3 * 10) * images["train"] * 60 * 100
print(f"multiply-adds for the scores of 50 splits: {of_scores / of_training:.1f} times the control's whole training")
now = study.read_table(study.ROOT / cheap)[0]
cheaper = compare.verdicts(compare.paired(now, LOSS, "random").drop(columns="no-split"), LOSS)
cheaper[["mean", "low", "high", "holm", "verdict"]].round(4)

# %% [markdown]
# ## What we see
#
# On Fashion-MNIST, from 10 neurons to 60 in 100 epochs. Where training converges (plain SGD at 0.01):
#
# - **Nothing that grows beats the final width from the start**, neither after as many epochs nor at equal multiply-adds. The closest comes to within 0.002 of its
#   test loss (`min-eigenvalue · steepest · at-first`: +0.002, interval −0.000 to +0.005), if its scores cost nothing; without scores it is `fresh · at-first`, 0.003 behind.
# - **When decides most.** All splits after the first epoch instead of one an epoch: 0.010 less test loss by the 2021 rule, 0.015 with fresh neurons. Waiting for a plateau is worst.
# - **Which: one choice helps, four harm.** `min-eigenvalue` ends 0.010 below `random`; `min-loss` and the three fire policies end 0.020 to 0.026 above it. For the other six no
#   difference was found.
# - **How: two ways harm.** `even` and `gradmax` end 0.012 and 0.015 above the 2021 rule. For the other six no difference was found, a fresh neuron among them: a split
#   by the 2021 rule is no better than a neuron that is nobody's twin.
#
# Where training is short of that (plain SGD at 0.001, the rate of 2021):
#
# - **Growth can win, and how decides.** GradMax's neurons end 0.023 below a control that spent as much (interval 0.020 to 0.028), and 0.011 below one trained for as many
#   epochs. `opposed`, an exact split, ends 0.011 below the control at equal cost and level with it after as many epochs. The 2021 rule ends 0.025 above. What wins here is speed: both end
#   with a lower training loss than the control. At the rate that converges the same two are among the worst.
#
# With Adam, at its tuned rate of 0.00005, at which the control still improves to the end:
#
# - **Fresh neurons win at equal cost, splits do not.** One fresh neuron an epoch ends level with the control after as many epochs, and 0.006 below one that spent as much (interval 0.002
#   to 0.009). Splits by the 2021 rule and by `opposed` end 0.028 and 0.029 above it. That a split is as good as a fresh neuron does not survive Adam.
#
# With plain SGD at any rate:
#
# - **Growth leads early.** By the 2021 rule it is ahead of a control that spent as much until 25 % of the control's multiply-adds at 0.001, 7 % at 0.01, 5 % at 0.05; so is,
#   about as long, a network that stays narrow. For a small budget the small network is the thing, grown or not.
#
# So whether growing pays, and how to grow, depend on the optimiser and on how far training goes more than on which neuron is split.
#
# The cells assert these sentences.

# %%
after_as_many = compare.intervals(compare.paired(everything, LOSS, CONTROL))["mean"]
final = compare.ends(everything, LOSS).mean()
if table == "figures/data/which-how-when.csv.gz":
    assert (after_as_many > 0).all() and (by_loss["mean"] > 0).all() and (by_accuracy["mean"] < 0).all()
    closest = compare.intervals(compare.paired(everything, LOSS, CONTROL)[[after_as_many.idxmin()]]).round(3)
    assert closest.index[0] == "min-eigenvalue · steepest · at-first"
    assert closest[["mean", "low", "high"]].iloc[0].tolist() == [0.002, -0.0, 0.005]
    assert after_as_many.drop(closest.index[0]).idxmin() == "random · fresh · at-first"
    assert round(after_as_many["random · fresh · at-first"], 3) == 0.003
    assert 1.3 < of_scores / of_training < 1.45
    assert all(to_every[rule].verdict["at-first"] == "better" for rule in ("scaled", "fresh"))
    gains = {
        rule: final[f"random · {rule} · every-epoch"] - final[f"random · {rule} · at-first"]
        for rule in ("scaled", "fresh")
    }
    assert {rule: round(gain, 3) for rule, gain in gains.items()} == {"scaled": 0.010, "fresh": 0.015}
    assert set(at_cost["mean"].nlargest(2).index) == {"scaled · plateau", "fresh · plateau"}
    print("held")

# %%
if table == "figures/data/which-how-when.csv.gz":
    harmful = ["min-loss", "max-fire", "min-fire", "half-fire"]
    assert which_loss.index[which_loss.verdict == "better"].tolist() == ["min-eigenvalue"]
    assert round(which_loss["mean"]["min-eigenvalue"], 3) == -0.010
    assert round(cheaper["mean"]["min-eigenvalue"], 3) == -0.008 and (cheaper.verdict == "better").all()
    assert which_loss.index[which_loss.verdict == "worse"].tolist() == harmful
    assert which_loss["mean"][harmful].between(0.0195, 0.0265).all()
    assert to_scaled.index[to_scaled.verdict != "no difference found"].tolist() == ["even", "gradmax"]
    assert to_scaled["mean"][["even", "gradmax"]].round(3).tolist() == [0.012, 0.015]
    print("held")

# %%
slow, converged, fast = (f"sgd, rate {rate}" for rate in (0.001, 0.01, 0.05))
if table == "figures/data/which-how-when.csv.gz":
    won = equal_cost[slow]
    assert won.verdict[["gradmax", "opposed"]].tolist() == ["better"] * 2 and won.verdict["scaled"] == "worse"
    assert won["mean"][["gradmax", "opposed", "scaled"]].round(3).tolist() == [-0.023, -0.011, 0.025]
    assert won.loc["gradmax", ["low", "high"]].astype(float).round(3).tolist() == [-0.028, -0.020]
    assert (
        as_many_epochs[slow].verdict["gradmax"] == "better"
        and round(as_many_epochs[slow]["mean"]["gradmax"], 3) == -0.011
    )
    assert as_many_epochs[slow].verdict["opposed"] == "no difference found"
    trained_to = compare.ends(ways_there[slow], "train_loss").mean()
    assert (trained_to[["gradmax", "opposed"]] < trained_to[CONTROL]).all()
    assert set(equal_cost[converged]["mean"].nlargest(3).index) == {"gradmax", "opposed", "even"}
    assert until.loc["scaled", [slow, converged, fast]].round(2).tolist() == [0.25, 0.07, 0.05]
    assert until.loc["stay-narrow", [slow, converged, fast]].round(2).tolist() == [0.17, 0.08, 0.04]  # 0.17: to its end
    print("held")

# %%
if table == "figures/data/which-how-when.csv.gz":
    with_adam = equal_cost["adam, rate 5e-05"]
    assert with_adam.verdict[["fresh", "scaled", "opposed"]].tolist() == ["better", "worse", "worse"]
    assert with_adam["mean"][["fresh", "scaled", "opposed"]].round(3).tolist() == [-0.006, 0.028, 0.029]
    assert with_adam.loc["fresh", ["low", "high"]].astype(float).round(3).tolist() == [-0.009, -0.002]
    assert abs(as_many_epochs["adam, rate 5e-05"]["mean"]["fresh"]) < 0.0005
    print("held")

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, pandas {pd.__version__}, neuronsplit {ns.__version__}")
