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
# # When to grow, how, which neuron, and what it costs
#
# Start with the final width, and grow only if you do not know it. In test loss on digits, MNIST-1D and Fashion-MNIST, no way to grow ends below the final width at equal multiply-adds.
# To save compute, train the final width for fewer epochs, which ends at most 0.003 above. If you grow, split random neurons. When is unclear: one per epoch is best on MNIST-1D. On the other two, a schedule that makes all splits in one epoch is better, but not the same one. Avoid the growths `even` and `net2net`, which are worse on digits and MNIST-1D.
# None of the other growths or schedules is better on two of the three. One random split per epoch saves 14 to 21 % of the multiply-adds and 1 to 4 % of the time, and ends 0.02 to 0.06 above in test loss.
#
# The answer comes first, from [the registered design](studies/design.md), whose arms were tuned by the same budget. On Fashion-MNIST, policies share the settings of the base arm. Then one study is taken apart as an example of a comparison: eight experiments on
# Fashion-MNIST, at the size of the 2021 study. The limits: networks of one hidden layer, and plain SGD. Intervals cover seeds, and not the test images.
#
# Before this: [03_experiment](03_experiment.ipynb) runs one experiment. For any other study, [report](report.ipynb) says what its table shows.

# %% tags=["parameters"]
design_tables: dict = {}  # data set: the table of its design; by default those in figures/data that are there
table: str = "figures/data/fashion-mnist.parquet"  # the eight experiments; for a table of your own, use report.ipynb
figures: str = ""  # where pictures go, and how their names begin: figures/; none are saved by default

# %%
import platform

import pandas as pd
from IPython.display import Markdown, display

import neuronsplit as ns
from neuronsplit.analysis import cost, design, family_sentences, stats, tables, wording
from neuronsplit.locations import ROOT
from neuronsplit.names import CONTROLS, NO_SPLIT
from neuronsplit.plots import comparisons, curves, families, tested
from neuronsplit.plots.style import save_figure, use_style

use_style()

# %% [markdown]
# ## The answer
#
# Below the line, a way to grow would end lower than the control, which has the final width from the start. Notice that none does, and that the control for fewer epochs stays within 0.003 of the line. On
# Fashion-MNIST the two controls have different learning rates, so its difference is due to these too.

# %%
of_design = design.read_tables(design_tables)
against = {name: design.against_control(rows, "test_loss") for name, rows in of_design.items()}
NAMED = ["random", "gradmax", "all-at-1"]
save_figure(tested.against_cost(against, "test_loss", NAMED), figures, "answer")

# %% [markdown]
# The base arm splits one random neuron per epoch, by the rule `scaled` of 2021. What is better or worse than that, after a correction for all arms of the family? Where nothing is established, the arm with the smallest
# p-value is named.


# %%
def nearest(rows):
    """Say which arm has the smallest p-value, with its paired difference to the base arm."""
    if rows.empty:
        return "no arm is on this side"
    row = rows.loc[arm := rows["p_adjusted"].idxmin()]
    difference = f"{stats.signed(row['mean'])} {stats.interval(row['low'], row['high'])}"
    return f"the smallest p-value has {wording.code(arm)}: {difference}, p (max-T) {row['p_adjusted']:.3f}"


QUESTIONS = {"which": "Which neuron", "how": "How", "when": "When", "combined": "Several choices at once"}
found = {name: design.tests(rows, "test_loss") for name, rows in of_design.items()}
for family, question in QUESTIONS.items():
    for name, rows in family_sentences.of_family(found, family).items():
        for verdict, side in {"better": rows["mean"] < 0, "worse": rows["mean"] > 0}.items():
            arms = [wording.code(arm) for arm in rows.index[rows.verdict == verdict]]
            said = wording.join(arms) if arms else f"nothing is established; {nearest(rows[side])}"
            display(Markdown(f"- **{question}**, {name}, {verdict} than the base arm: {said}."))

# %% [markdown]
# Notice `gradmax` on MNIST-1D. In the table of the README its interval and that of `random` do not overlap, and both are against `no-split`, uncorrected. Here the arms are compared with each other, seed by seed, and
# the p-value is corrected for eight growths.
#
# None of the other growths or schedules is better on two data sets. On Fashion-MNIST, `zero-outgoing`, `all-at-half` and `all-at-1` are better than the base arm. The two schedules had other settings. `net2net` and `all-at-10` were not run there. At equal multiply-adds, arms are compared with the final width for fewer epochs. Which end below its loss, or above its accuracy?

# %%
in_accuracy = {name: design.tests(rows, "test_accuracy") for name, rows in of_design.items()}
for measure, tested_arms in {"test loss": found, "test accuracy": in_accuracy}.items():
    for name, verdicts in tested_arms.items():
        rows = verdicts.loc["equal multiply-adds"]
        won = [
            f"{wording.code(arm)} ({stats.signed(mean)})"
            for arm, mean in rows["mean"][rows.verdict == "better"].items()
        ]
        display(
            Markdown(f"- **{measure}**, {name}, better, of {len(rows)} arms: {wording.join(won) if won else 'none'}.")
        )

# %% [markdown]
# There is an exception: in test accuracy on MNIST-1D, two ways to grow end above the control, though their test loss is higher. Eight of the 45 growing arms on each of the small data sets have no control of equal cost. Among them are `all-at-10` and all arms with momentum or Adam.
#
# Tuning has a part in this. On MNIST-1D the control got weight decay and dropout, and most growing arms got neither. On Fashion-MNIST it got a falling rate and no dropout, and most growing arms got the opposite. The next cell counts the arms that have the settings of the control that they are compared with.

# %%
alike = {name: verdicts.loc["equal multiply-adds", "tuned_alike"] for name, verdicts in found.items()}
for name, same in alike.items():
    print(f"{name}: {same.sum()} of {len(same)} arms have the settings of their control")

# %% [markdown]
# So on MNIST-1D and Fashion-MNIST the gap between growing arms and the control can be due to tuning. On digits most arms have the same settings. [16_can_growth_win](16_can_growth_win.ipynb) searches choices and settings together,
# and the control's settings in the same way. On digits and MNIST-1D, the best way to grow ends 0.012 above the control there.
#
# What the base arm gains and costs, as differences to the final width from the start. [design](design.ipynb) has every comparison, with its interval and p-value.

# %%
times = ns.read_table(ROOT / "figures/data/step-times.parquet")  # of one network alone, on one core
base = pd.DataFrame({name: arms.loc["random", ["mean", "low", "high", "cost"]] for name, arms in against.items()}).T
assert not any((verdicts.loc["equal multiply-adds"].verdict == "better").any() for verdicts in found.values())
for name, rows in of_design.items():
    base.loc[name, "time"] = cost.relative_seconds(design.with_arms(rows), NO_SPLIT, times)["random"]
assert base["mean"].round(2).tolist() == [0.02, 0.06, 0.03] and base.cost.round(2).tolist() == [0.79, 0.86, 0.79]
assert base.time.round(2).tolist() == [0.98, 0.99, 0.96]
fewer = {name: arms["mean"].filter(regex="^no-split . .* epochs$").item() for name, arms in against.items()}
assert [round(mean, 3) for mean in fewer.values()] == [0.001, 0.003, -0.002]
won = {
    n: rows.loc["equal multiply-adds"].query("verdict == 'better'").index.tolist() for n, rows in in_accuracy.items()
}
assert won == {"digits": [], "mnist-1d": ["gradmax", "zero-outgoing · all-at-1"], "fashion-mnist": []}
assert [(same.sum(), len(same)) for same in alike.values()] == [(29, 37), (0, 37), (0, 16)]
gradmax, of_random = against["mnist-1d"].loc["gradmax"], against["mnist-1d"].loc["random"]
assert gradmax.high < of_random.low and found["mnist-1d"].loc[("how", "gradmax"), "verdict"] == "no difference found"
base.round(3)

# %% [markdown]
# The next cell asserts what is said above of growths, schedules and settings.

# %%
verdicts = {}
for name, rows in found.items():
    rows = rows.query("family in ['how', 'when']")
    verdicts[name] = {verdict: set(rows.index[rows["verdict"] == verdict]) for verdict in ("better", "worse")}
assert {("how", "even"), ("how", "net2net")} <= verdicts["digits"]["worse"] & verdicts["mnist-1d"]["worse"]
assert verdicts["fashion-mnist"]["better"] == {("how", "zero-outgoing"), ("when", "all-at-half"), ("when", "all-at-1")}
better = [arm for sets in verdicts.values() for arm in sets["better"]]
assert len(better) == len(set(better)) and not verdicts["fashion-mnist"]["worse"]
settings = design.tuned_settings(of_design["fashion-mnist"])
of_control, growing = settings.loc[NO_SPLIT], settings[~settings.index.str.startswith((NO_SPLIT, "stay-narrow"))]
assert (of_control["rate_schedule"], of_control["dropout"]) == ("cosine", 0)
assert ((growing["rate_schedule"] == "constant") & (growing["dropout"] > 0)).mean() > 0.5
assert of_control["learning_rate"] != settings["learning_rate"].filter(regex="^no-split . .* epochs$").item()
settings, arms = design.tuned_settings(of_design["mnist-1d"]), design.arms_of(of_design["mnist-1d"])
regularised = (settings[["weight_decay", "dropout"]] > 0).all(axis=1)
assert regularised[NO_SPLIT] and (settings.loc[~arms["policy"].isin(CONTROLS), "dropout"] == 0).mean() > 0.8
print("held")

# %% [markdown]
# ## An example: eight ways to choose the neuron
#
# On Fashion-MNIST, at the size of the 2021 study, all seven policies that grow end 1.2 to 1.4 points of accuracy below a control that has the final width from the start. All of them end within 0.2 points of a random choice.
#
# The same ten seeds train the control and seven policies that grow to its width, one split per epoch. With one seed, every policy starts from the same network and meets the same images in the same order. So policies
# are compared at the same seed. What decides is the difference in final test accuracy to the control, with its 95 % interval (Student's t on the paired differences). Here nothing was tuned: the rate is that of 2021.
#
# The table has a row per policy, seed and epoch. Its file says what produced it. A seed whose loss does not end as a finite number would be
# left out of every mean below; there is none.

# %%
file = ROOT / table
results, made_by = ns.read_table(file), ns.provenance(file)
growing = results[results.policy != NO_SPLIT]
print(f"{len(results):,} rows: {results.policy.nunique()} policies", end=" × ")
print(f"{results.seed.nunique()} seeds × {results.epoch.nunique()} epochs")
print(f"seeds that diverged: {tables.n_diverged(results).sum()} of {len(tables.last_epoch(results))}")
for name in ("parameters", "commit", "finished", "machine"):
    print(f"{name}: {made_by[name]}")

# %% [markdown]
# ## Against the control, seed by seed
#
# A difference at the same seed takes out what the seed decides for all policies alike.

# %%
measures = {
    "test_accuracy": f"final test accuracy − that of {NO_SPLIT}",
    "test_loss": f"final test loss − that of {NO_SPLIT}",
}
to_baseline = {title: tables.paired_differences(results, name, NO_SPLIT) for name, title in measures.items()}
save_figure(comparisons.paired_differences(to_baseline), figures, "fashion-mnist-differences")

# %% [markdown]
# Notice that no interval comes near zero. The same in numbers:
#
# - The difference in test accuracy is a mean over seeds, with its 95 % interval, not corrected for the number of policies.
# - The interquartile mean is that of the middle half.
# - *Better in* is the share of seeds at which the policy is better.
# - p is that of a permutation test, which flips the signs of differences. p (max-T) gives the verdict. It is corrected for all
#   policies: each flip counts with the clearest of them.
# - *Detectable* is the smallest true difference that so many seeds would find 4 times in 5. A policy without a verdict may differ by less.

# %%
to_control = stats.paired_tests(tables.paired_differences(results, "test_accuracy", NO_SPLIT), "test_accuracy")
stats.style_tests(to_control)

# %% [markdown]
# And against `random`, among those that grow: does it matter *which* neuron is split?

# %%
to_random = stats.paired_tests(tables.paired_differences(growing, "test_accuracy", "random"), "test_accuracy")
stats.style_tests(to_random)

# %% [markdown]
# ## Everything at once
#
# The mean of each policy. Growing networks start with fewer neurons than the control, which has all of them from the start.

# %%
figure = curves.mean_curves(results, ["train_loss", "test_loss", "test_accuracy"])
save_figure(figure, figures, "fashion-mnist-curves")

# %% [markdown]
# Policies may lie within a line's width of one another. Their differences to `random`, seed by seed, show when they separate.

# %%
figure = curves.difference_curves(growing, ["test_loss", "test_accuracy"], "random")
save_figure(figure, figures, "fashion-mnist-gaps")

# %% [markdown]
# ## One at a time
#
# These are the same curves with every seed, because the means above hide how far the seeds of one policy differ. Parameters come last: all
# policies grow alike, and end where the control begins.

# %%
for measure in ("test_loss", "test_accuracy", "train_loss", "parameters"):
    save_figure(
        curves.curves_per_policy(results, [measure], NO_SPLIT), figures, f"fashion-mnist-{measure}".replace("_", "-")
    )

# %% [markdown]
# ## Where they end
#
# There is a point per seed, as in the original study.

# %%
figure = comparisons.final_values(results, ["test_loss", "test_accuracy"])
save_figure(figure, figures, "fashion-mnist-final")

# %%
measures = {"test accuracy": "test_accuracy", "test loss": "test_loss"}
final = {name: tables.summary(results, measure).drop(columns=["n", "diverged"]) for name, measure in measures.items()}
pd.concat(final, axis=1).round(4)

# %% [markdown]
# ## Family trees
#
# These trees show which neuron each policy split, with the first seed. A line is a neuron, from the epoch of its birth. It hangs from the
# neuron it was split off, and keeps the shade of the original neuron it descends from.

# %%
figure = families.family_trees(results, seed=results.seed.min())
save_figure(figure, figures, "fashion-mnist-family-trees")

# %% [markdown]
# How unequal the families are: the share of the final neurons that descend from the most split founder, over all seeds.

# %%
runs = growing.groupby(["policy", "seed"], sort=False)
largest = {key: tables.lineage(rows).founder.value_counts(normalize=True).iloc[0] for key, rows in runs}
family_sizes = pd.Series(largest).groupby(level=0, sort=False).agg(["mean", "min", "max"])
family_sizes.round(2)

# %% [markdown]
# ## What we see in the eight experiments
#
# - **Growing does not pay here.** All seven policies end 1.2 to 1.4 points of accuracy below the control, and no interval comes near zero.
#   The control did spend more: the growing networks trained with 79 % of its multiply-adds.
# - **Which neuron is split matters little.** `random`, `max-loss` and `loss-probs` end within a tenth of a point of one another. The other
#   four end 0.1 to 0.2 points below `random`. They keep splitting one family, which comes to hold most of the network.
#   Three of the four intervals lie below zero, and that of `min-fire` reaches it. Corrected for six comparisons, the
#   difference in accuracy is established for `max-fire` alone. In test loss it is established for all four.
# - **The original's learning rate leaves it short.** After 100 epochs the control has an accuracy of 0.851, and it is still rising. In the design above, rates were tuned.
#
# The cell asserts each of these sentences.

# %%
one_family, as_random = ["min-loss", "max-fire", "min-fire", "half-fire"], ["max-loss", "loss-probs"]
assert len(to_control) == 7, "this is about the eight experiments: report.ipynb says what another table shows"
assert to_control["mean"].between(-0.0145, -0.0115).all() and (to_control.high < -0.009).all()
assert (to_control.verdict == "worse").all()
assert cost.relative_cost(results, NO_SPLIT).drop(NO_SPLIT).round(2).eq(0.79).all()
assert (to_random["mean"].abs() < 0.002).all() and (to_random["mean"][as_random].abs() < 0.001).all()
assert to_random["mean"][one_family].between(-0.002, -0.001).all()
assert to_random.index[to_random.high < 0].tolist() == ["min-loss", "max-fire", "half-fire"]
assert to_random.index[to_random.verdict == "worse"].tolist() == ["max-fire"]
loss_to_random = stats.paired_tests(tables.paired_differences(growing, "test_loss", "random"), "test_loss")
assert loss_to_random.index[loss_to_random.verdict == "worse"].tolist() == one_family
assert (family_sizes["mean"][one_family] > 0.7).all() and (family_sizes["mean"].drop(one_family) < 0.3).all()
of_control = results[results.policy == NO_SPLIT].groupby("epoch").test_accuracy.mean()
assert round(of_control[100], 3) == 0.851 and of_control[100] - of_control[80] > 0.003
assert tables.n_diverged(results).sum() == 0
print("held")

# %% [markdown]
# A table of your own, Parquet or CSV, or the folder of a study, is compared by [report](report.ipynb). Relative paths count from the project's folder:
#
# ```
# papermill notebooks/report.ipynb out.ipynb -p table mine.csv
# ```
#
# Next: [05_split_your_own_network](05_split_your_own_network.ipynb) splits neurons in a network that was not made for it.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, pandas {pd.__version__}, neuronsplit {ns.__version__}")
