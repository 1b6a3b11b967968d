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
# # When to split?
#
# A *schedule* says when a network grows: a neuron per epoch, or all at once, early or late. Here five schedules are compared with one split per epoch. Then growth is compared with the final width from the start: after
# as many epochs, for as many multiply-adds, and on the way. All arms were tuned by the same budget, as [the design](studies/design.md) says, which was written before it was run. What decides is the test loss at the epoch
# that validation picks, paired by seed. The limits: one hidden layer, and plain SGD unless it is said otherwise. Fashion-MNIST has two of the schedules.
#
# Before this: [09_how_to_split](09_how_to_split.ipynb) asks how to split a neuron.

# %% tags=["parameters"]
tables: dict = {}  # data set: its table, from the project's folder; by default those in figures/data that are there
step_times: str = "figures/data/step-times.parquet"  # the time of a step at each width, one network on one core
figures: str = ""  # where pictures go, and how their names begin: figures/; none are saved by default

# %%
import platform

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display

import neuronsplit as ns
from neuronsplit.analysis import cost, design, family_sentences, stats, wording
from neuronsplit.analysis.tables import at_best_validation, best_so_far, final_values
from neuronsplit.locations import ROOT
from neuronsplit.names import NO_SPLIT, STAY_NARROW
from neuronsplit.plots import comparisons, curves, style, tested

style.use_style()
results = design.read_tables(tables)
LOSS, ACCURACY, BASE = "test_loss", "test_accuracy", "every-epoch"
tests = {name: design.tests(table, LOSS) for name, table in results.items()}
when = family_sentences.of_family(tests, "when")

# %% [markdown]
# ## The answer

# %%
said = family_sentences.headline(tests, "when", "schedule", "one split per epoch")
paired = family_sentences.of_family(tests, "equal multiply-adds")
won = {name: int((found["verdict"] == "better").sum()) for name, found in paired.items()}
counts = wording.join(f"{n} of {len(paired[name])} on {name}" for name, n in won.items())
said += f"\n\nOf the arms that grow, **{counts}** end below the final width from the start at equal multiply-adds."
display(Markdown(said))

# %%
style.save_figure(tested.family(when, LOSS), figures, "when-to-split")
plt.show()

# %% [markdown]
# A row is a schedule. Left of 0, its test loss is below that of the base arm, which makes one split per epoch. Notice that the data sets disagree. On digits, growth at once after epoch 10 is better, and on
# MNIST-1D all schedules are worse. On Fashion-MNIST both schedules are better.
#
# ## The schedules
#
# All arms of this figure split random neurons by `scaled`, from 10 to 60. `all-at-half` makes all $S$ splits after epoch $S / 2$, which costs as much as one per epoch. `plateau` splits when an epoch lowered the validation
# loss by less than 1 %. The others say it in their names. The figure has the width over the epochs.

# %%
named = {}
for name, table in results.items():
    base = when[name]["baseline"].iloc[0]
    named[name] = design.with_arms(table).replace({"policy": {base: BASE}})
first = next(iter(results))
rows = named[first][named[first]["policy"].isin([BASE, *when[first].index])].drop(columns="split_neuron")
style.save_figure(curves.curves_per_policy(rows, ["hidden"], BASE), figures, "when-to-split-widths")
plt.show()

# %% [markdown]
# This is the first data set, and the dashed line is one split per epoch. Notice that `plateau` alone grows at other epochs with other seeds. On digits it has not reached 60 neurons when training ends.
#
# ## The numbers
#
# *p (max-T)* is corrected for all schedules of a data set. *Detectable* is the true difference that would be found 4 times in 5.

# %%
for name, found in when.items():
    display(Markdown(f"### {name}"), stats.style_tests(found, 3))

# %% [markdown]
# ## How much could have been missed?

# %%
display(Markdown(family_sentences.visible(tests, "when")))

# %% [markdown]
# ## The luck of tuning
#
# Every arm tried the same 16 settings, with two seeds. Arms with other settings than the base arm differ from it in more than the schedule: [08_which_neuron](08_which_neuron.ipynb) shows how much settings decide.

# %%
display(Markdown(family_sentences.tuned(tests, "when")))

# %% [markdown]
# ## Why: time at the full width
#
# A schedule that grows early trains more neurons for longer, so that it costs more. Does it end lower where it costs more? The next figure has the differences against the multiply-adds, as a share of those of the final width
# from the start.

# %%
against, costs = {}, {}
for name, found in when.items():
    costs[name] = cost.relative_cost(named[name], NO_SPLIT)
    base = pd.DataFrame({"mean": 0.0, "low": 0.0, "high": 0.0, "verdict": "", "tuned_alike": True}, index=[BASE])
    rows = pd.concat([found, base.assign(n=found["n"].max())])
    against[name] = rows.assign(cost=costs[name].reindex(rows.index))
style.save_figure(
    tested.against(against, "cost", f"multiply-adds, as a share of those of {NO_SPLIT}", LOSS),
    figures,
    "when-to-split-cost",
)
plt.show()

# %%
for name, rows in against.items():
    correlation = stats.signed(rows["cost"].corr(rows["mean"], method="spearman"), 2)
    others = rows["mean"].drop(BASE)
    text = f"rank correlation {correlation} of cost and difference. Without `{BASE}`, the schedules lie within"
    text += f" {others.max() - others.min():.3f} of one another."
    display(Markdown(f"- **{name}**: {text}"))

# %% [markdown]
# On digits, notice that the loss falls as the cost rises. That is no cause: `all-at-1` has all neurons earliest, and does not end lowest. On MNIST-1D there is no such order. The five other schedules end close together, and the base arm alone stands apart, even from
# `5-per-5-epochs`, which grows almost alike. Other measures tell whether that holds.

# %%
measures = {"loss, at the end": (LOSS, final_values), "accuracy, at the end": (ACCURACY, final_values)}
others = {"accuracy, picked": {name: design.tests(table, ACCURACY) for name, table in results.items()}}
for title, (metric, values_of) in measures.items():
    others[title] = {name: design.tests(table, metric, values_of) for name, table in results.items()}
for title, found in others.items():
    display(Markdown(f"### {title}\n\n{family_sentences.established(found, 'when')}"))
figure = tested.family(family_sentences.of_family(others["accuracy, picked"], "when"), ACCURACY)
style.save_figure(figure, figures, "when-to-split-accuracy")
plt.show()

# %% [markdown]
# The figure has the secondary measure, where right of 0 is better. On MNIST-1D, notice that only one schedule is worse by it. So both measures support `all-at-10` on digits, but not the order on MNIST-1D. On Fashion-MNIST both schedules had other settings, so tuning may explain what they gain.
#
# ## What growth costs
#
# A network that is small at first takes fewer multiply-adds in as many epochs. It does not save as much time, for a step of a small network takes nearly as long. The shares are of those of the final width from the start.

# %%
times, shares = ns.read_table(ROOT / step_times), {}
for name, table in named.items():
    shown = [NO_SPLIT, BASE, *when[name].index, STAY_NARROW]
    rows = table[table["policy"].isin(shown)]
    shares[name, style.TITLES["neuron_epochs"]] = cost.relative_cost(rows, NO_SPLIT).reindex(shown)
    shares[name, style.TITLES["seconds"]] = cost.relative_seconds(rows, NO_SPLIT, times).reindex(shown)
shares = pd.DataFrame(shares)
shares.map("{:.0%}".format).replace("nan%", "–")

# %% [markdown]
# ## Equal epochs
#
# All arms against the final width from the start, with the same optimiser. The figure has the arms of other schedules, the base arm and `stay-narrow`, which keeps 10 neurons. Their p-values are corrected for the whole family.


# %%
def with_other_schedules(family):
    """The tests of the base arm, of arms with another schedule and of stay-narrow, from those of a whole family."""
    shown = {}
    for name, found in family_sentences.of_family(tests, family).items():
        differs, base = design.arms_of(results[name])["differs"], when[name]["baseline"].iloc[0]
        arms = [arm for arm in found.index if arm in (base, STAY_NARROW) or "schedule" in differs[arm]]
        shown[name] = found.loc[arms].rename({base: BASE})
    return shown


display(Markdown(family_sentences.established(tests, "equal epochs")))
style.save_figure(tested.family(with_other_schedules("equal epochs"), LOSS), figures, "when-to-split-equal-epochs")
plt.show()

# %% [markdown]
# Notice that all growing arms lie to the right of 0, and that `stay-narrow` lies furthest to the right.
#
# ## Equal multiply-adds
#
# A growing arm is compared with the final width for fewer epochs, so that both take as many multiply-adds. Schedules whose costs no control matches within 5 % are left out.

# %%
display(Markdown(family_sentences.established(tests, "equal multiply-adds")))
figure = tested.family(with_other_schedules("equal multiply-adds"), LOSS)
style.save_figure(figure, figures, "when-to-split-equal-multiply-adds")
plt.show()

# %% [markdown]
# Notice that this is almost the figure above. What does the control lose when it is trained for fewer epochs?

# %%
for name, table in named.items():
    values = at_best_validation(table, LOSS)
    shorter = values[[control for control in values if control.startswith(f"{NO_SPLIT} · ") and "epochs" in control]]
    for control, row in stats.intervals(shorter.sub(values[NO_SPLIT], axis=0)).iterrows():
        text = f"{stats.signed(row['mean'])} {stats.interval(row['low'], row['high'])}"
        display(Markdown(f"- **{name}**: {wording.code(control)}, for {costs[name][control]:.0%} of the cost: {text}"))

# %% [markdown]
# The numbers are differences in test loss to the control for all epochs, with 95 % intervals (Student's t). Where they are small, fewer epochs are the simpler way to save multiply-adds.
#
# ## On the way
#
# If training stops early, is a growing network ahead? The lines are the difference to the final width from the start when both have spent as much. Each takes the epoch that validation picks from those until then.
# The settings were tuned for the end of training, not for the way. The horizontal axis is logarithmic.

# %%
on_the_way = {}
for name, table in named.items():
    rows = table.assign(test_loss=best_so_far(table, LOSS))
    on_the_way[name] = rows[rows["policy"].isin([NO_SPLIT, BASE, "all-at-half", "all-at-1", STAY_NARROW])]
figure = comparisons.difference_at_equal_cost(on_the_way, LOSS, NO_SPLIT)
for axis in figure.axes:
    axis.set_xscale("log")
style.save_figure(figure, figures, "when-to-split-on-the-way")
plt.show()

# %%
until = pd.DataFrame({name: cost.lead_until(rows, LOSS, NO_SPLIT) for name, rows in on_the_way.items()})
until.map("{:.1%}".format)

# %% [markdown]
# The table says until which share of the control's multiply-adds an arm leads, with its whole interval below 0. On the two small data sets, notice in the figure that the lines soon cross 0. One split per
# epoch leads while the network is small, and so does a network that stays narrow. On digits `all-at-1` leads only later. These intervals are pointwise, and were added after the results.
#
# ## What we see
#
# - On digits, all splits after epoch 10 are better than one per epoch, in test loss and in accuracy.
# - On MNIST-1D all schedules are worse than one per epoch in test loss. In accuracy only `5-per-5-epochs` is.
# - On these two, the five schedules have the settings of the base arm, so tuning has no part in this.
# - On Fashion-MNIST, `all-at-half` and `all-at-1` are better than one per epoch, in test loss and in accuracy. Both had other settings. At the end of training, their test loss is higher, by 0.12 and 0.19.
# - In test loss, no arm that grows by plain SGD ends below the final width from the start, neither at equal epochs nor at equal multiply-adds. On MNIST-1D and Fashion-MNIST all end above it.
# - On these two, no growing arm has the settings of its control at equal multiply-adds. So that gap can be due to tuning.
# - In accuracy on MNIST-1D, `gradmax` ends above the control at equal multiply-adds, by 1 point. So does `zero-outgoing · all-at-1`, by half a point.
# - From the start, growing networks lead for less than a tenth of the control's multiply-adds. On digits `all-at-1` leads only later, up to 14 %. On Fashion-MNIST one split per epoch never leads.
#
# The next cells assert these sentences.

# %%
if not tables:

    def arms(name, verdict, found=tests, family="when"):
        rows = found[name].loc[family]
        return set(rows.index[rows["verdict"] == verdict])

    picked = others["accuracy, picked"]
    assert arms("digits", "better") == arms("digits", "better", picked) == {"all-at-10"}
    assert against["digits"]["mean"].idxmin() == "all-at-10" and against["digits"]["cost"].idxmax() == "all-at-1"
    won = others["accuracy, picked"]["mnist-1d"].loc["equal multiply-adds"].query("verdict == 'better'")["mean"]
    assert won.round(3).to_dict() == {"gradmax": 0.011, "zero-outgoing · all-at-1": 0.005}
    again = cost.difference_at_equal_cost(
        on_the_way["digits"].query("policy in [@NO_SPLIT, 'all-at-1']"), LOSS, NO_SPLIT
    )
    again = again.dropna(subset="difference")
    ahead = stats.intervals(again.pivot(index="seed", columns="epoch", values="difference"))["high"] < 0
    assert round(again.groupby("epoch")["cost"].mean()[ahead].max(), 2) == 0.14
    assert arms("mnist-1d", "worse") == set(ns.SCHEDULES) - {BASE}
    assert arms("mnist-1d", "worse", picked) == {"5-per-5-epochs"} and not arms("mnist-1d", "better", picked)
    assert final_values(named["digits"], "hidden")["plateau"].mean() < 60
    print("held")

# %%
if not tables:
    for name in results:
        of_sgd = design.arms_of(results[name]).query("optimizer == 'sgd' and policy != 'no-split'").index
        assert not arms(name, "better", family="equal multiply-adds")
        assert not arms(name, "better", family="equal epochs") & set(of_sgd)
        assert (tests[name].loc["equal epochs", "mean"][of_sgd] > 0).all()
        assert tests[name].loc["equal epochs", "mean"].idxmax() == STAY_NARROW
        assert (until[name].drop(STAY_NARROW) < 0.1).all() and (until[name][BASE] == 0) == (name == "fashion-mnist")
        of_both = shares[name].dropna()
        assert (of_both["seconds"] >= of_both["multiply-adds"]).all()
        if name != "digits":
            assert set(of_sgd) <= arms(name, "worse", family="equal epochs")
            assert (tests[name].loc["equal multiply-adds", "verdict"] == "worse").all()
            assert not tests[name].loc["equal multiply-adds", "tuned_alike"].any()
    for name in ("digits", "mnist-1d"):
        assert until[name]["all-at-1"] < 0.02 < until[name][STAY_NARROW]
        assert when[name]["tuned_alike"].all()
    schedules, found = {"all-at-half", "all-at-1"}, when["fashion-mnist"]
    assert arms("fashion-mnist", "better") == arms("fashion-mnist", "better", picked) == schedules == set(found.index)
    assert not found["tuned_alike"].any()
    assert arms("fashion-mnist", "worse", others["loss, at the end"]) == schedules
    higher = others["loss, at the end"]["fashion-mnist"].loc["when", "mean"].round(2)
    assert higher.to_dict() == {"all-at-half": 0.12, "all-at-1": 0.19}
    print("held")

# %% [markdown]
# Go deeper: [16_can_growth_win](16_can_growth_win.ipynb) searches all choices together. [15_beyond_one_hidden_layer](15_beyond_one_hidden_layer.ipynb) asks the same in a CNN and a transformer.
# [13_grow_a_language_model](13_grow_a_language_model.ipynb) doubles one in mid-training. [design](design.ipynb) has every registered comparison.
#
# Next: [11_how_good_could_a_choice_be](11_how_good_could_a_choice_be.ipynb) makes every split of a network and trains each of them on.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, pandas {pd.__version__}, neuronsplit {ns.__version__}")
