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
# # What a study shows
#
# This report is about one study: every sentence and every figure is computed from its table. Experiments are compared with their control at the
# same seeds, within a setting and never across. The limit: it says what was measured, and not why.

# %% tags=["parameters"]
table: str = "figures/data/fashion-mnist.parquet"  # or the folder of a study, or a .zip; from the project's folder
figures: str = ""  # where pictures go, and how their names begin: figures/fashion-mnist-; none are saved by default
title: str = ""  # of the study; the name of the file by default

# %%
import itertools
import platform
import re

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display

import neuronsplit as ns
from neuronsplit.analysis import comparison, sentences, stats, study_sentences, tables
from neuronsplit.analysis.wording import code, join
from neuronsplit.locations import ROOT
from neuronsplit.plots import comparisons, curves, families, style

style.use_style()


# %%
def heading(setting):
    """Show the name of a setting, where there are several."""
    if setting:
        display(Markdown(f"### {code(setting)}"))


def show(figure, name, setting):
    """Draw a figure here, and save it if that is asked for."""
    style.save_figure(figure, figures, re.sub(r"[^\w.]+", "-", f"{name} {setting}").strip("-"))
    plt.show()


# %%
path = ROOT / table
results = ns.read_table(path)
settings = comparison.settings_of(results)
failed = study_sentences.unfinished(path)
display(Markdown(f"## {code(title or path.name)}\n\n{study_sentences.overview(results)}"))
for setting, rows in settings.items():
    heading(setting)
    display(Markdown(f"{sentences.answer(rows)}\n{sentences.still_learning(rows)}"))
    display(Markdown(sentences.definition(rows)))
if failed:
    display(Markdown("**Not all experiments have finished.** [What ran](#What-ran) names those that have not."))

# %% [markdown]
# These sentences are about the final test accuracy. [All numbers](#All-numbers) also have the test loss, final and at the lowest validation loss. Figures follow, then [all numbers](#All-numbers), [what ran and what failed](#What-ran), and [what made the table](#Provenance).

# %%
METRICS = ["test_accuracy", "test_loss"]
BETTER = {"test_accuracy": "→ better", "test_loss": "← better"}
MOST = 40  # experiments in a figure with the baselines; of more the lines cannot be told apart
in_figures = dict(settings)
for setting, rows in settings.items():
    if rows.policy.nunique() > MOST + 1:
        best = tables.summary(rows, METRICS[0])["mean"].nlargest(MOST).index
        baselines = [name for name in map(comparison.baseline_of, comparison.families_of(rows)) if name]
        in_figures[setting] = rows[rows.policy.isin([*best, *baselines])]
        heading(setting)
        also = f", and {join(map(code, baselines))}" if baselines else ""
        display(Markdown(f"Figures show the {MOST} experiments of the highest final test accuracy{also}."))

# %%
paired = {setting: comparison.families_of(style.printable(rows)) for setting, rows in in_figures.items()}
for setting, compared in paired.items():
    paired[setting] = [part for part in compared if comparison.paired_differences(part, METRICS[0]).size]
if any(paired.values()):
    of_seeds = "A difference takes out what the seed decides for all experiments alike."
    of_growing = "Where there is a control, those that grow are also compared with `random`, or else with one of them."
    display(Markdown(f"## At the same seed\n\n{of_seeds} {of_growing}"))
for setting, compared in paired.items():
    heading(setting if compared else "")
    for part, metric in itertools.product(compared, METRICS):
        baseline = comparison.baseline_of(part)
        label = f"final {style.TITLES[metric]} − that of {baseline} ({BETTER[metric]})"
        figure = comparisons.paired_differences({label: comparison.paired_differences(part, metric)})
        show(figure, f"differences-{metric}-to-{baseline}", setting)

# %%
drawn = {setting: style.printable(comparison.without_diverged(rows)) for setting, rows in in_figures.items()}
drawn = {setting: rows for setting, rows in drawn.items() if len(rows)}
baselines = {setting: comparison.baseline_of(style.printable(in_figures[setting])) for setting in drawn}
baselines = {setting: name for setting, name in baselines.items() if name in set(drawn[setting].policy)}
if drawn:
    display(Markdown("## While training\n\nWhere lines lie on each other, see the differences above."))
for setting, rows in drawn.items():
    heading(setting)
    for metric in METRICS:
        show(curves.mean_curves(rows, [metric]), f"curves-{metric}", setting)
    if rows.policy.nunique() <= 16:
        figure = curves.curves_per_policy(rows, METRICS[:1], baselines.get(setting))
        show(figure, "seeds", setting)

# %%
if drawn:
    display(Markdown("## At the end"))
for setting, rows in drawn.items():
    heading(setting)
    for metric in METRICS:
        show(comparisons.final_values(rows, [metric]), f"final-{metric}", setting)

# %%
with_cost = [name for name, rows in drawn.items() if name in baselines and {"hidden", "split_neuron"} <= set(rows)]
if with_cost:
    display(Markdown("## What it costs\n\nThe cost is that of training; what choosing neurons takes is not counted."))
for setting in with_cost:
    heading(setting)
    show(comparisons.final_vs_cost(drawn[setting], METRICS[0], baselines[setting]), "cost", setting)

# %%
grown = {setting: rows for setting, rows in drawn.items() if "split_neuron" in rows and rows.split_neuron.notna().any()}
if grown:
    display(Markdown("## Family trees\n\nA line is a neuron, from the epoch of its birth. It hangs from its parent."))
for setting, rows in grown.items():
    heading(setting)
    growing = rows[rows.policy.isin(rows.policy[rows.split_neuron.notna()].unique()[:12])]  # not more than twelve
    seed = growing.drop_duplicates(["policy", "seed"]).seed.mode().min()
    show(families.family_trees(growing, seed), "family-trees", setting)

# %% [markdown]
# ## All numbers
#
# The first table has the experiments next to their control. In the page of a study, a click on the name of a column sorts.

# %%
for setting, rows in settings.items():
    heading(setting)
    display(comparison.style_comparison(comparison.compare(rows)))

# %% [markdown]
# The next table has final values over the seeds that did not diverge.

# %%
for setting, rows in settings.items():
    heading(setting)
    final = {style.TITLES[metric]: tables.summary(rows, metric).drop(columns="diverged") for metric in METRICS}
    display(pd.concat(final, axis=1).rename_axis(None).round(4))

# %% [markdown]
# Then come the differences to the control. Those that grow follow next to `random`, or else to the first of them. How to read these tables:
#
# - The difference is a mean over seeds, with its 95 % interval, not corrected for the number of experiments.
# - The interquartile mean is that of the middle half.
# - *Better in* is the share of seeds at which the experiment is better. A tie counts half.
# - p is that of a permutation test, which flips the signs of differences. p (max-T) gives the verdict. It is corrected for all experiments of the table: each flip counts with the clearest of them.
# - *Detectable* is the smallest true difference that so many seeds would find 4 times in 5. An experiment without a verdict may differ by less.

# %%
measured = {style.TITLES[metric]: (metric, tables.final_values) for metric in METRICS}
if "val_loss" in results:
    at_best = "test loss, each network at the epoch of its lowest validation loss"
    measured[at_best] = "test_loss", tables.at_best_validation
for setting, rows in settings.items():
    heading(setting)
    for family in comparison.families_of(rows):
        for what, (metric, values_of) in measured.items():
            found = comparison.paired_differences(family, metric, values_of)
            if found.size:
                label = f"Differences to {code(comparison.baseline_of(family))} in {what}:"
                display(Markdown(label), stats.style_tests(stats.paired_tests(found, metric)))

# %% [markdown]
# ## What ran
#
# First comes what the experiments share, then what has not finished, with its error.

# %%
ran = [
    study_sentences.overview(results),
    study_sentences.same_in_all(results),
    failed or "Nothing is known to be missing.",
]
display(Markdown("\n\n".join(ran)))

# %% [markdown]
# ## Provenance

# %%
display(Markdown(study_sentences.origin(path)))

# %% tags=["nbval-ignore-output"]
print(f"Reported with Python {platform.python_version()}, pandas {pd.__version__}, neuronsplit {ns.__version__}")
