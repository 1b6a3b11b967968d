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
# # The registered comparisons
#
# Which neuron should be split, how, and when? Here is every comparison that [the design](studies/design.md) names, in its order. The design was written down before it was run, and the arms were tuned by the same
# budget. One rule was added before Fashion-MNIST was tuned: its policies share the settings of the base arm. All sentences and figures are computed from the tables. The limit: networks of one hidden layer.

# %% tags=["parameters"]
tables: dict = {}  # data set: its table, from the project's folder; by default those in figures/data that are there
figures: str = ""  # where pictures go, and how their names begin: figures/; none are saved by default

# %%
import platform

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display

import neuronsplit as ns
from neuronsplit.analysis import cost, design, family_sentences, stats, wording
from neuronsplit.analysis.tables import at_best_validation, final_values, last_epoch
from neuronsplit.locations import ROOT
from neuronsplit.plots import style, tested

style.use_style()
results = design.read_tables(tables)
LOSS = "test_loss"  # the primary measure, at the epoch that validation picks
tests = {name: design.tests(table, LOSS) for name, table in results.items()}

# %% [markdown]
# ## The answer

# %%
wins = {name: set(found.query("verdict == 'better'").index) for name, found in tests.items()}
wins = pd.Series(
    [arm for found in wins.values() for family, arm in found if family == "equal multiply-adds"], dtype=str
)
often = wins.value_counts()
winners = [wording.code(arm) for arm in often.index[often >= 2]]
said = f"Yes: {wording.join(winners)}" if winners else "No arm does"
display(
    Markdown(
        f"Does a way to grow end below the final width from the start, at equal multiply-adds, on two data sets? **{said}.**"
    )
)
display(Markdown(family_sentences.established(tests, "equal multiply-adds")))

# %% [markdown]
# ## Every family
#
# A row is an arm. Left of 0, its test loss is below that of its baseline. A hollow point had other tuned settings than its baseline, so that its difference is due to these too. This mark was added after the results of
# digits and MNIST-1D.

# %%
BASELINES = {
    "which": "the base arm, which splits random neurons", "how": "the base arm, which splits by the rule `scaled`",
    "when": "the base arm, which makes a split per epoch", "combined": "the base arm",
    "state": "the arm of the same optimiser that carries its state", "equal epochs": "the final width from the start",
    "equal multiply-adds": "the final width from the start, trained for as many multiply-adds",
    "any width": "the control whose width was tuned too",
}  # fmt: skip
for family, baseline in BASELINES.items():
    panels = family_sentences.of_family(tests, family)
    if panels:
        said = family_sentences.established(tests, family)
        display(Markdown(f"### {family}: compared with {baseline}\n\n{said}"))
        figure = tested.family(panels, LOSS)
        style.save_figure(figure, figures, f"design-{family.replace(' ', '-')}")
        plt.show()

# %% [markdown]
# ## The same in numbers

# %%
for name, found in tests.items():
    interval = [stats.interval(*row) for row in found[["low", "high"]].itertuples(index=False)]
    columns = {"difference": found["mean"].map(stats.signed), "95 % interval": interval}
    columns |= {"p (max-T)": found["p_adjusted"].round(4), "verdict": found["verdict"]}
    for family, rows in pd.DataFrame(columns, found.index).groupby(level="family", sort=False):
        print(f"{name}, {family}", rows.droplevel("family").to_string(), sep="\n", end="\n\n")

# %% [markdown]
# ## Secondary measures, and costs
#
# The columns say how many arms of a family are established as better, or worse, than their baseline in the test accuracy at the epoch that validation picks, and at the end of training in both measures. The costs are
# shares of those of the final width for all epochs: multiply-adds, and the time of one network alone on one core.

# %%
measures = {
    "accuracy, picked": ("test_accuracy", at_best_validation), "loss, at the end": (LOSS, final_values),
    "accuracy, at the end": ("test_accuracy", final_values),
}  # fmt: skip
counts = {}
for name, table in results.items():
    for title, (metric, values_of) in measures.items():
        verdicts = design.tests(table, metric, values_of)["verdict"].groupby(level="family", sort=False)
        counts[name, title] = verdicts.agg(lambda v: f"{(v == 'better').sum()} better, {(v == 'worse').sum()} worse")
pd.DataFrame(counts)

# %%
step_times, shares = ns.read_table(ROOT / "figures/data/step-times.parquet"), {}  # of one network alone, on one core
for name, table in results.items():
    named = design.with_arms(table)
    shares[name, style.TITLES["neuron_epochs"]] = cost.relative_cost(named, "no-split").map("{:.0%}".format)
    seconds = cost.relative_seconds(named, "no-split", step_times)
    shares[name, style.TITLES["seconds"]] = seconds.map("{:.0%}".format)
pd.DataFrame(shares).fillna("–")

# %% [markdown]
# ## What was tuned
#
# The settings of every arm, by the lowest validation loss on two seeds that no other run uses.

# %%
for name, table in results.items():
    named = last_epoch(design.with_arms(table)).drop_duplicates("policy").set_index("policy")
    columns = ["learning_rate", "rate_schedule", "rate_after_split", "weight_decay", "dropout", "width", "splits"]
    display(Markdown(f"### {name}"))
    display(named[columns])

# %% [markdown]
# ## What we see
#
# - **Which**: on no data set is a policy established as better than random splits. On digits, `min-fire` and both policies that were fitted to MNIST-1D are worse. On MNIST-1D, `max-importance` and `max-variance` are.
# - **How**: on Fashion-MNIST, `zero-outgoing` is better than `scaled`. No growth is on digits or MNIST-1D, where `even` and `net2net` are worse. On digits so is `gradmax`, and on MNIST-1D `outgoing` and `steepest-descent` are.
# - **When**: on digits, all splits at once after epoch 10 are better than one per epoch. On Fashion-MNIST, `all-at-1` and `all-at-half` are, both with other settings. On MNIST-1D, all other schedules are worse than one per epoch.
# - **State**, on digits and MNIST-1D: what becomes of the optimiser's state makes no difference that is established.
# - **Combined**: on digits, `zero-outgoing · all-at-half` is better than the base arm. At equal multiply-adds it is not established to differ from the control.
# - **Growth**: in test loss, no way to grow ends below the final width from the start, neither at equal epochs nor at equal multiply-adds. On Fashion-MNIST all end above it, and on MNIST-1D all but those with Adam.
# - **Width**: on MNIST-1D and Fashion-MNIST, the control whose width was tuned too ends below `no-split`. It costs 3 and 1.5 times as much.
# - **Growth, in accuracy**: on MNIST-1D, `gradmax` and `zero-outgoing · all-at-1` end above the control at equal multiply-adds, and `gradmax` at equal epochs too.
# - No other growing arm is established above a control in accuracy.
#
# So much for the five hypotheses, in test loss at the epoch that validation picks:
#
# - *Which*, *state* and *growth* are supported on no data set. Fashion-MNIST has no arms of *state*.
# - *How* is supported on Fashion-MNIST, by `zero-outgoing`.
# - *When* is supported on digits, by `all-at-10`, and on Fashion-MNIST, by `all-at-1` with other settings.
#
# The next cells assert all this.

# %%
if not tables:
    verdicts = {
        (name, verdict, family): set(rows.droplevel("family").query("verdict == @verdict").index)
        for name, found in tests.items() for verdict in ("better", "worse")
        for family, rows in found.groupby(level="family")
    }  # fmt: skip
    assert verdicts["fashion-mnist", "better", "how"] == {"zero-outgoing"}
    assert not verdicts["fashion-mnist", "worse", "how"]
    assert verdicts["fashion-mnist", "better", "when"] == {"all-at-half", "all-at-1"}
    assert not verdicts["fashion-mnist", "worse", "which"]
    for name in results:
        assert not verdicts[name, "better", "which"] | verdicts[name, "better", "equal multiply-adds"]
        assert not any(" · " in arm or arm in ns.POLICIES for arm in verdicts[name, "better", "equal epochs"])
    for name in ("digits", "mnist-1d"):
        assert (
            not verdicts[name, "better", "how"] | verdicts[name, "better", "state"] | verdicts[name, "worse", "state"]
        )
    assert verdicts["digits", "worse", "which"] == {"min-fire", "ridge-mnist-1d", "learned-mnist-1d"}
    assert verdicts["mnist-1d", "worse", "which"] == {"max-importance", "max-variance"}
    assert verdicts["digits", "worse", "how"] == {"even", "net2net", "gradmax"}
    assert verdicts["mnist-1d", "worse", "how"] == {"even", "net2net", "outgoing", "steepest-descent"}
    print("held")

# %%
if not tables:
    assert verdicts["digits", "better", "combined"] == {"zero-outgoing · all-at-half"}
    assert (
        tests["digits"].loc[("equal multiply-adds", "zero-outgoing · all-at-half"), "verdict"] == "no difference found"
    )
    won = {}
    for name in results:
        found = design.tests(results[name], "test_accuracy").query("verdict == 'better'")
        for family in ("equal multiply-adds", "equal epochs"):
            rows = found[found.index.get_level_values("family") == family]
            won[name, family] = {arm for arm in rows.index.get_level_values("arm") if not arm.startswith("no-split")}
    assert won["mnist-1d", "equal multiply-adds"] == {"gradmax", "zero-outgoing · all-at-1"}
    assert won["mnist-1d", "equal epochs"] == {"gradmax"}
    for name in ("digits", "fashion-mnist"):
        assert not won[name, "equal multiply-adds"] | won[name, "equal epochs"]
    assert verdicts["digits", "better", "when"] == {"all-at-10"} and not verdicts["digits", "worse", "when"]
    assert verdicts["mnist-1d", "worse", "when"] == set(ns.SCHEDULES) - {"every-epoch"}
    found = tests["mnist-1d"]
    above = found.loc[["equal epochs", "equal multiply-adds"]].query("verdict != 'worse'").droplevel("family").index
    assert set(above) == {"no-split of any width", "adam", "state reset · adam", "state warm-up · adam"}
    print("held")

# %%
if not tables:
    above = tests["fashion-mnist"].loc[["equal epochs", "equal multiply-adds", "any width"]].query("verdict != 'worse'")
    assert above.index.tolist() == [("equal epochs", "no-split of any width")]
    for name in ("mnist-1d", "fashion-mnist"):
        assert "no-split of any width" in verdicts[name, "better", "equal epochs"]
    for name, times in {"mnist-1d": 3.0, "fashion-mnist": 1.5}.items():
        assert round(design.against_control(results[name], LOSS)["cost"][design.ANY_WIDTH], 1) == times
    assert "no-split of any width" not in verdicts["digits", "better", "equal epochs"]
    print("held")

# %% [markdown]
# [08_which_neuron](08_which_neuron.ipynb), [09_how_to_split](09_how_to_split.ipynb) and [10_when_to_split](10_when_to_split.ipynb) explain these results.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, neuronsplit {ns.__version__}")
