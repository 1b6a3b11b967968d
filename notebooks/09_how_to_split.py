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
# # How to split it?
#
# A *growth* makes the new neuron: by a split, whose twins can differ in many ways, or from nothing. Here eight growths are compared with `scaled`, the rule of the 2021 study. All arms were tuned by the same budget, as
# [the design](studies/design.md) says, which was written before it was run. What decides is the test loss at the epoch that validation picks, paired by seed. The limits: one hidden layer, plain SGD, a random neuron per epoch. Fashion-MNIST
# has five of the growths.
#
# Before this: [08_which_neuron](08_which_neuron.ipynb) asks which neuron to split.

# %% tags=["parameters"]
tables: dict = {}  # data set: its table, from the project's folder; by default those in figures/data that are there
twins: str = "figures/data/twins.parquet"  # how far the twins of each growth part, as notebook 07 measures it
figures: str = ""  # where pictures go, and how their names begin: figures/; none are saved by default

# %%
import platform

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display

import neuronsplit as ns
from neuronsplit.analysis import design, family_sentences, stats
from neuronsplit.analysis.tables import at_best_validation, final_values
from neuronsplit.locations import ROOT
from neuronsplit.plots import curves, style, tested

style.use_style()
results = design.read_tables(tables)
LOSS, ACCURACY, BASE = "test_loss", "test_accuracy", "scaled"
tests = {name: design.tests(table, LOSS) for name, table in results.items()}
how = family_sentences.of_family(tests, "how")

# %% [markdown]
# ## The answer

# %%
said = family_sentences.headline(tests, "how", "growth", "`scaled`")
display(Markdown(f"{said}\n\n{family_sentences.established(tests, 'how')}"))

# %%
style.save_figure(tested.family(how, LOSS), figures, "how-to-split")
plt.show()

# %% [markdown]
# A row is a growth. Left of 0, its test loss is below that of the base arm, which splits by `scaled`. Hollow points are explained below. Notice that `even` and `net2net` are red on
# the two small data sets. On Fashion-MNIST `even` is not, and `zero-outgoing` is green.
#
# ## The growths
#
# A split gives a neuron $(w, v)$ the twins $(αw, γv)$ and $(βw, δv)$. Here $w$ are its incoming weights with the bias, and $v$ its outgoing ones. It is exact if $αγ + βδ = 1$ for every output, which
# [01_split_a_neuron](01_split_a_neuron.ipynb) proves. Growths without a parent add a neuron that is no copy of another.


# %%
def first_line(name):
    """What the docstring of a growth says first; that of a split stands at its rule."""
    function = ns.SPLIT_RULES[name].draw if name in ns.SPLIT_RULES else ns.GROWTHS[name].apply
    return function.__doc__.split("\n")[0]


names = dict.fromkeys([BASE, *(arm for found in how.values() for arm in found.index)])
rows = {name: {"exact": ns.GROWTHS[name].exact, "has a parent": ns.GROWTHS[name].needs_parent} for name in names}
rows = {name: row | {"what it does": first_line(name)} for name, row in rows.items()}
with pd.option_context("display.max_colwidth", None):
    display(pd.DataFrame(rows).T)

# %% [markdown]
# `net2net` follows [Chen, Goodfellow & Shlens 2016](https://arxiv.org/abs/1511.05641), `steepest-descent` [Wu, Wang & Liu 2019](https://arxiv.org/abs/1910.02366), and `gradmax`
# [Evci et al. 2022](https://arxiv.org/abs/2201.05125).
#
# ## The numbers
#
# *p (max-T)* is corrected for all growths of a data set. *Detectable* is the true difference that would be found 4 times in 5.

# %%
for name, found in how.items():
    display(Markdown(f"### {name}"), stats.style_tests(found, 3))

# %% [markdown]
# ## How much could have been missed?
#
# A growth that helps by less than this may well be among the rows without a verdict.

# %%
display(Markdown(family_sentences.visible(tests, "how")))

# %% [markdown]
# ## The luck of tuning
#
# Every arm tried the same 16 settings, with two seeds. Arms that got other settings than the base arm differ from it in the learning rate or in dropout too. Their points are hollow in the figure above.

# %%
display(Markdown(family_sentences.tuned(tests, "how")))

# %% [markdown]
# On the two small data sets, notice that some red points are full. There the growth itself does the harm. That of a hollow point can be due to its settings: [08_which_neuron](08_which_neuron.ipynb)
# shows how much these decide.
#
# ## Why: twins have to part
#
# Two equal twins receive equal gradients and stay equal. More generally, the directions of twins learn at speeds whose ratio is $κ = γβ / δα$ under plain SGD. Twins with $κ = 1$ never part, so that the network has one neuron
# more and computes no more than before. [07_do_twins_part](07_do_twins_part.ipynb) derives this, and measures the angle between twins on Fashion-MNIST, 20 epochs after a split.
# If that explains the growths, those with small angles end worse.

# %%
measured = ns.read_table(ROOT / twins).query("optimizer == 'sgd'")
last = measured[measured["epoch"] == measured["epoch"].max()]
angles = last[last["growth"].isin(ns.GROWTHS)].groupby("growth")["angle"].median()
against = {}
for name, found in how.items():
    base = pd.DataFrame({"mean": 0.0, "low": 0.0, "high": 0.0, "verdict": "", "tuned_alike": True}, index=[BASE])
    rows = pd.concat([found, base.assign(n=found["n"].max())])
    against[name] = rows.assign(angle=angles.reindex(rows.index))
figure = tested.against(against, "angle", "median angle between twins (degrees)", LOSS)
style.save_figure(figure, figures, "how-to-split-angles")
plt.show()

# %%
for name, rows in against.items():
    alike = rows[rows["tuned_alike"]].dropna(subset="angle")
    correlation = stats.signed(alike["angle"].corr(alike["mean"], method="spearman"), 2)
    text = (
        f"rank correlation {correlation} of angle and difference, over the {len(alike)} growths with the same settings"
    )
    display(Markdown(f"- **{name}**: {text}, `scaled` among them."))

# %% [markdown]
# On the two small data sets, notice the full points: from the left to `scaled`, the test loss falls as the angle grows. Beyond `scaled`, it falls no further. So twins have to part, but parting faster than by `scaled` buys nothing.
# The angles were measured on Fashion-MNIST, with other settings. There the explanation fails: `even` and `outgoing` end no higher than `scaled`. So it fits two of three data sets.
#
# ## As they train
#
# Each panel has a growth, and the dashed line is `scaled`. Dotted is the last split.

# %%
for name, table in results.items():
    named = design.with_arms(table)
    arms = [how[name]["baseline"].iloc[0], *how[name].index]
    named = named[named["policy"].isin(arms)].replace({"policy": {arms[0]: BASE}})
    figure = curves.curves_per_policy(named, [LOSS], BASE)
    figure.suptitle(f"{name}: {figure._suptitle.get_text()}", fontsize=10)
    style.save_figure(figure, figures, f"how-to-split-curves-{name}")
    plt.show()

# %% [markdown]
# On MNIST-1D, notice that the test loss of most growths rises again: they overfit, and validation picks an early epoch. That of `gradmax` does not rise. Its settings have dropout and decay, and so have those of `antisymmetric`.
#
# The table has the mean losses at the epoch that validation picks, and at the end.

# %%
means = {}
for name, table in results.items():
    named = design.with_arms(table)
    arms = [how[name]["baseline"].iloc[0], *how[name].index]
    for title, values_of in {"picked": at_best_validation, "at the end": final_values}.items():
        for metric in ("train_loss", LOSS):
            means[name, f"{style.TITLES[metric]}, {title}"] = values_of(named, metric)[arms].mean()
means = pd.DataFrame(means).rename({arms[0]: BASE})
means.round(3)

# %% [markdown]
# The tables do not have the loss right before and right after a split. The validation loss of an epoch is taken before its splits, and the test loss after them. [01_split_a_neuron](01_split_a_neuron.ipynb) measures what a
# split changes. Growths that are not exact start from a disturbed network in each epoch of growth, and their test loss there includes the disturbance.
#
# ## With a policy that was made for it
#
# Splitting steepest descent chooses the neuron by `min-eigenvalue` too. Here are arms that combine two choices, one of them the growth. Their baseline is the base arm.

# %%
combined = {}
for name, found in family_sentences.of_family(tests, "combined").items():
    differs = design.arms_of(results[name])["differs"]
    combined[name] = found[["growth" in differs[arm] for arm in found.index]]
combined = {name: rows for name, rows in combined.items() if len(rows)}
if combined:
    style.save_figure(tested.family(combined, LOSS), figures, "how-to-split-combined")
    plt.show()

# %% [markdown]
# Notice that no arm with `min-eigenvalue` is green. Neurons without a parent that all come at once are another matter: [10_when_to_split](10_when_to_split.ipynb).
#
# ## Test accuracy
#
# The secondary measure, at the same epoch. Right of 0 is better in the figure. After it comes the test loss at the end of training.

# %%
accuracy = {name: design.tests(table, ACCURACY) for name, table in results.items()}
display(Markdown(family_sentences.established(accuracy, "how")))
style.save_figure(
    tested.family(family_sentences.of_family(accuracy, "how"), ACCURACY), figures, "how-to-split-accuracy"
)
plt.show()

# %%
at_end = {name: design.tests(table, LOSS, final_values) for name, table in results.items()}
display(Markdown(family_sentences.established(at_end, "how")))

# %% [markdown]
# ## What we see
#
# - On Fashion-MNIST, `zero-outgoing` is better than `scaled` in test loss, by 0.006, with the same settings. No growth is on digits or MNIST-1D.
# - In accuracy `gradmax` is better, on MNIST-1D only, where it had other settings.
# - `even` and `net2net` are worse on digits and MNIST-1D, with the settings of the base arm. On MNIST-1D so is `outgoing`.
# - These three are the splits whose twins part less than those of `scaled`.
# - On Fashion-MNIST, `even` and `outgoing` end within 0.002 of `scaled`, with the same settings. There no growth is worse. Why, this study does not say.
# - On digits and MNIST-1D, `zero-outgoing`, whose neurons have no parent, is not established to differ from `scaled` by the loss that validation picks. On digits it is better at the end of training.
# - At the end of training on MNIST-1D, `even` has a lower loss than `scaled`, with the same settings. So the angle between twins does not explain everything.
#
# The next cells assert these sentences.

# %%
if not tables:
    red = {name: set(found.index[found["verdict"] == "worse"]) for name, found in how.items()}
    for name in ("digits", "mnist-1d"):
        found, of_accuracy = how[name], accuracy[name].loc["how"]
        assert not (found["verdict"] == "better").any()
        better = of_accuracy.index[of_accuracy["verdict"] == "better"].tolist()
        assert better == {"digits": [], "mnist-1d": ["gradmax"]}[name]
        assert {"even", "net2net"} <= red[name] and found["tuned_alike"][["even", "net2net", "outgoing"]].all()
        assert len(found) == 8 and found["verdict"]["zero-outgoing"] == "no difference found"
        assert not combined[name].filter(like="min-eigenvalue", axis=0)["verdict"].eq("better").any()
        settings = design.tuned_settings(results[name])
        full = against[name][against[name]["tuned_alike"]].dropna(subset="angle").sort_values("angle")["mean"]
        assert full[:BASE].is_monotonic_decreasing and (full.drop(BASE) > 0).all()
    assert (settings.loc[["gradmax", "antisymmetric"], ["dropout", "weight_decay"]] > 0).all(axis=None)
    print("held")

# %%
if not tables:
    found = how["fashion-mnist"]
    assert found.index[found["verdict"] == "better"].tolist() == ["zero-outgoing"] and len(found) == 5
    assert not red["fashion-mnist"] and found["tuned_alike"][["even", "outgoing", "zero-outgoing"]].all()
    assert round(found["mean"]["zero-outgoing"], 3) == -0.006
    assert found["mean"][["even", "outgoing"]].between(-0.002, 0).all()
    assert not accuracy["fashion-mnist"].loc["how", "verdict"].eq("better").any()
    rise = means["mnist-1d", "test loss, at the end"] / means["mnist-1d", "test loss, picked"]
    assert (rise > 1.1).sum() >= 5 and rise["gradmax"] < 1.01
    late = {name: found.loc["how"].query("verdict == 'better'") for name, found in at_end.items()}
    assert late["digits"]["tuned_alike"]["zero-outgoing"] and late["mnist-1d"]["tuned_alike"]["even"]
    assert "outgoing" in red["mnist-1d"] and not how["mnist-1d"]["tuned_alike"]["gradmax"]
    assert set(angles.index[angles < angles[BASE]]) == {"even", "net2net", "outgoing"}
    print("held")

# %% [markdown]
# Go deeper: [15_beyond_one_hidden_layer](15_beyond_one_hidden_layer.ipynb) asks the same in a CNN and a transformer, and [16_can_growth_win](16_can_growth_win.ipynb) searches all choices together.
#
# Next: [10_when_to_split](10_when_to_split.ipynb) asks when to split, and what growth costs.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, pandas {pd.__version__}, neuronsplit {ns.__version__}")
