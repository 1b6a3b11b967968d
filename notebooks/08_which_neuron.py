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
# # Which neuron to split?
#
# A network grows by splits, and a *policy* chooses the neuron. Here 18 policies are compared with a random choice. Arms were tuned by the same budget, as [the design](studies/design.md) says, which was written
# before it was run. What decides is the test loss at the epoch that validation picks, paired by seed. The limits: one hidden layer, plain SGD, one split per epoch by the rule `scaled`. Digits and MNIST-1D have all
# 18 policies, and Fashion-MNIST has eight of them.
#
# Before this: [07_do_twins_part](07_do_twins_part.ipynb) asks whether the two neurons of a split become different.

# %% tags=["parameters"]
tables: dict = {}  # data set: its table, from the project's folder; by default those in figures/data that are there
figures: str = ""  # where pictures go, and how their names begin: figures/; none are saved by default
seed: int = 100  # of the family trees that are drawn

# %%
import platform

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display

import neuronsplit as ns
from neuronsplit.analysis import design, family_sentences, stats, variance, wording
from neuronsplit.analysis.tables import at_best_validation, final_values, largest_family
from neuronsplit.plots import families, style, tested

style.use_style()
results = design.read_tables(tables)
LOSS, ACCURACY = "test_loss", "test_accuracy"
tests = {name: design.tests(table, LOSS) for name, table in results.items()}
which = family_sentences.of_family(tests, "which")

# %% [markdown]
# ## The answer

# %%
said = family_sentences.headline(tests, "which", "policy", "a random choice")
display(Markdown(f"{said}\n\n{family_sentences.established(tests, 'which')}"))

# %%
style.save_figure(tested.family(which, LOSS), figures, "which-neuron")
plt.show()

# %% [markdown]
# A row is a policy. Left of 0, its test loss is below that of the base arm, which splits random neurons. Hollow points are explained below. Notice that no policy is green, and that most means lie within the grey
# band. True differences of that size would often be missed. On Fashion-MNIST, all eight means lie left of 0. They share the
# runs of the base arm, so these are not eight independent signs.
#
# ## The policies
#
# A policy scores every neuron on the validation images, and picks one by its scores. The next cell reads scores and picks from the registry `POLICIES`.


# %%
def first_line(function):
    """What the docstring of a function says first; a policy that was fitted is a function with its name filled in."""
    return getattr(function, "func", function).__doc__.split("\n")[0]


policies = {name: ns.POLICIES[name] for name in dict.fromkeys(arm for found in which.values() for arm in found.index)}
rows = {name: {"pick": p.pick.__name__, "score": first_line(p.score)} for name, p in policies.items()}
with pd.option_context("display.max_colwidth", None):
    display(pd.DataFrame(rows).T)

# %% [markdown]
# - `max-loss`, `min-loss`, `loss-probs` and the three fire policies are those of the [2021 study](https://github.com/ilaiw/neuron-split).
# - The importance is $\sum |w \, \partial L / \partial w|$ over a neuron's weights.
# - `min-eigenvalue` takes the smallest eigenvalue of the splitting matrix, by which the loss falls most steeply as twins part ([Wu, Wang & Liu 2019](https://arxiv.org/abs/1910.02366)).
# - `ridge-…` and `learned-…` were fitted to measured splits of the data set in their name: [12_a_network_that_decides](12_a_network_that_decides.ipynb). `rank-sum` adds three ranks.
#
# ## The numbers
#
# *p (max-T)* is corrected for all policies of a data set. *Detectable* is the true difference that would be found 4 times in 5.

# %%
for name, found in which.items():
    display(Markdown(f"### {name}"), stats.style_tests(found, 3))

# %% [markdown]
# ## How much could have been missed?
#
# A policy that helps by less than this may well be among the rows without a verdict.

# %%
display(Markdown(family_sentences.visible(tests, "which")))

# %% [markdown]
# ## The luck of tuning
#
# This and all that follows, but for the other measures, was added after the results of digits and MNIST-1D, as were the hollow points. No verdict rests on it. On digits and MNIST-1D, every arm tried the same 16 settings, with two seeds. Two arms that are alike can get different settings by chance. Then they differ in the learning rate or in dropout, not only in the policy.
# Their points are hollow in the figure above. On Fashion-MNIST, all policies share the settings of the base arm, as an [addition to the design](studies/design.md) says.

# %%
display(Markdown(family_sentences.tuned(tests, "which")))

# %% [markdown]
# On the two small data sets, notice that all coloured points of the first figure are hollow. Is it the policy then, or the settings? The next figure has all arms of the families *which*, *how*, *when*
# and *combined*, a row per setting.


# %%
def in_words(row):
    """The tuned settings of an arm."""
    rate = f"rate {row['learning_rate']:g} {row['rate_schedule']}, then ×{row['rate_after_split']:g}"
    return f"{rate}\ndecay {row['weight_decay']:g}, dropout {row['dropout']:g}"


growing = {}
for name, found in tests.items():
    settings = design.tuned_settings(results[name]).apply(in_words, axis=1)
    rows = found[found.index.get_level_values("family").isin(["which", "how", "when", "combined"])]
    growing[name] = rows.assign(settings=rows.index.get_level_values("arm").map(settings))
style.save_figure(tested.by_group(growing, "settings", LOSS), figures, "which-neuron-settings")
plt.show()

# %% [markdown]
# On the two small data sets, notice whole rows to the right of 0, whatever their arms choose. Their settings are worse than those of the base arm, it seems, and two seeds of tuning could not see it.
# The longest row has the settings of the base arm.
#
# ## Which neurons do the policies choose?
#
# All neurons descend from the first ten. A policy that goes on splitting one family ends with many neurons that began as copies of one. Here are the family trees of one seed of the first
# data set. They are of the random choice, and of the policies with the smallest and the largest families.

# %%
first = next(iter(results))
named = {name: design.with_arms(table) for name, table in results.items()}
shares = {}
for name, found in which.items():
    base = found["baseline"].iloc[0]
    shares[name] = largest_family(named[name][named[name]["policy"].isin([base, *found.index])])
means = shares[first].mean()
chosen = [which[first]["baseline"].iloc[0], means.idxmin(), means.idxmax()]
trees = named[first][named[first]["policy"].isin(chosen)]
style.save_figure(families.family_trees(trees, seed), figures, "which-neuron-trees")
plt.show()

# %%
panels = {name: found.assign(share=shares[name].mean()) for name, found in which.items()}
figure = tested.against(panels, "share", "share of neurons in the largest family", LOSS)
style.save_figure(figure, figures, "which-neuron-families")
plt.show()

# %%
for name, found in panels.items():
    base, alike = shares[name][found["baseline"].iloc[0]].mean(), found[found["tuned_alike"]]
    span = wording.span(found["share"], "{:.0%}")
    of_all, of_alike = (rows["share"].corr(rows["mean"], method="spearman") for rows in (found, alike))
    text = f"the largest family holds {base:.0%} of the neurons after random splits, and {span} with the policies."
    text += f" Its rank correlation with the difference in loss is {stats.signed(of_all, 2)} over all policies,"
    text += f" and {stats.signed(of_alike, 2)} over those with the settings of the base arm."
    display(Markdown(f"- **{name}**: {text}"))

# %% [markdown]
# Notice how far apart the policies stand in what they choose. On digits, those that are worse stand at the right: they keep to one family, and they also got other settings. Which of the two does the harm? `max-fire` stands there
# too, with the settings of the base arm, and it does no harm.
#
# ## The seed decides more than the policy
#
# Why does the choice matter so little? A seed draws the first weights, the split of the data and the order of the mini-batches. The table has ω², the share of the variance of the
# test loss that lies between policies, or between seeds. It does not grow with their number.

# %%
shares_of_variance = {}
for name, found in which.items():
    values = at_best_validation(named[name], LOSS)
    for title, arms in {"all policies": found.index, "same settings": found.index[found["tuned_alike"]]}.items():
        long = values[[found["baseline"].iloc[0], *arms]].stack().rename("loss").reset_index()
        between = {
            f"between {by}": variance.omega_squared(long["loss"], long[of])
            for by, of in {"policies": "policy", "seeds": "seed"}.items()
        }
        shares_of_variance[name, title] = between
shares_of_variance = pd.DataFrame(shares_of_variance).T
shares_of_variance.map("{:.0%}".format)

# %% [markdown]
# On digits and MNIST-1D, notice that even the small shares of the policies shrink where the settings are the same. [11_how_good_could_a_choice_be](11_how_good_could_a_choice_be.ipynb) makes every split
# of a network, and measures how much a perfect choice would win. One more reason is that twins of the rule `scaled` part slowly, whichever neuron they come from ([07_do_twins_part](07_do_twins_part.ipynb)).
#
# ## The other measures
#
# The secondary measure is the test accuracy, at the same epoch. Right of 0 is better in the figure. After it comes the test loss at the end of training.

# %%
accuracy = {name: design.tests(table, ACCURACY) for name, table in results.items()}
display(Markdown(family_sentences.established(accuracy, "which")))
style.save_figure(
    tested.family(family_sentences.of_family(accuracy, "which"), ACCURACY), figures, "which-neuron-accuracy"
)
plt.show()

# %%
at_end = {name: design.tests(table, LOSS, final_values) for name, table in results.items()}
display(Markdown(family_sentences.established(at_end, "which")))

# %% [markdown]
# ## What we see
#
# - In test loss, no policy is established as better than a random choice, on any of the three data sets.
# - In test accuracy at the epoch that validation picks, one is: `max-gradient` on Fashion-MNIST, by 0.2 points. On MNIST-1D it is worse, with other settings.
# - At the end of training on Fashion-MNIST, `max-loss` and `max-importance` are the ones that are better in accuracy, and `max-gradient` is not.
# - [04_comparison](04_comparison.ipynb) finds four policies worse on Fashion-MNIST, without tuning. Those four were not run here.
# - On Fashion-MNIST all eight policies end below the random choice in the mean, by 0.001 to 0.005. The lowest is `learned-fashion-mnist`: p (max-T) is 0.06.
# - At the end of training, eight policies have a lower test loss on MNIST-1D. All but one of them had other settings.
# - All policies with an established higher test loss had other settings than the base arm. With its settings, none is established to differ in test loss at the epoch that validation picks. In accuracy one is worse: `half-fire`, on MNIST-1D.
# - On digits, four policies put more than 60 % of the neurons into one family. The three with other settings are worse, and `max-fire`, with the settings of the base arm, is not.
# - On digits, all arms at learning rate 0.14 end above the base arm, whichever choice they make. On MNIST-1D, so do all arms at 0.05.
# - Policies account for less than a tenth of the variance of the test loss, and seeds for more than policies.
#
# So a random neuron is a good choice here: it costs nothing, and gains below the detectable ones would be missed. The next cells assert these sentences.

# %%
if not tables:
    for name in ("digits", "mnist-1d"):
        found, by_rate = which[name], growing[name].assign(rate=growing[name]["settings"].str.split().str[1])
        assert not (found["verdict"] == "better").any()
        assert not (accuracy[name].loc["which", "verdict"] == "better").any()
        assert not found["tuned_alike"][found["verdict"] == "worse"].any()
        assert (found["verdict"][found["tuned_alike"]] == "no difference found").all()
        at_rate = by_rate[by_rate["rate"] == {"digits": "0.14", "mnist-1d": "0.05"}[name]]
        assert len(at_rate) >= 5 and (at_rate["mean"] > 0).all()
        assert (found["mean"].abs() < found["minimum_detectable_effect"].median()).mean() > 0.5
        base = design.tuned_settings(results[name]).apply(in_words, axis=1)[found["baseline"].iloc[0]]
        assert growing[name]["settings"].mode().tolist() == [base]
        between = shares_of_variance.loc[name]
        assert (between["between policies"] < 0.1).all() and between.eval("`between seeds` > `between policies`").all()
    print("held")

# %%
if not tables:
    on_fashion, of_accuracy = which["fashion-mnist"], {name: rows.loc["which"] for name, rows in accuracy.items()}
    assert len(on_fashion) == 8 and on_fashion["tuned_alike"].all()
    assert (on_fashion["verdict"] == "no difference found").all() and on_fashion["mean"].between(-0.005, -0.001).all()
    best = on_fashion.loc["learned-fashion-mnist"]
    assert best["mean"] == on_fashion["mean"].min() and round(best["p_adjusted"], 2) == 0.06
    found = of_accuracy["fashion-mnist"].query("verdict != 'no difference found'")
    assert found["verdict"].to_dict() == {"max-gradient": "better"} and found["mean"].round(3).item() == 0.002
    of_mnist_1d = accuracy["mnist-1d"].loc[("which", "max-gradient")]
    assert of_mnist_1d["verdict"] == "worse" and not of_mnist_1d["tuned_alike"]
    late = design.tests(results["fashion-mnist"], ACCURACY, final_values).loc["which"]
    assert late.index[late["verdict"] == "better"].tolist() == ["max-loss", "max-importance"]
    assert on_fashion.index.intersection(["min-loss", "max-fire", "min-fire", "half-fire"]).empty
    worse = {
        (n, arm) for n, rows in of_accuracy.items() for arm in rows.query("verdict == 'worse' and tuned_alike").index
    }
    assert worse == {("mnist-1d", "half-fire")}
    late = at_end["mnist-1d"].loc["which"].query("verdict == 'better'")
    assert len(late) == 8 and late["tuned_alike"].sum() == 1
    concentrated = panels["digits"][panels["digits"]["share"] > 0.6]
    assert len(concentrated) == 4 and concentrated.index[concentrated["tuned_alike"]].tolist() == ["max-fire"]
    assert concentrated.index[concentrated["verdict"] != "worse"].tolist() == ["max-fire"]
    assert len(which["digits"]) == len(which["mnist-1d"]) == 18
    print("held")

# %% [markdown]
# Go deeper: [15_beyond_one_hidden_layer](15_beyond_one_hidden_layer.ipynb) asks the same in a CNN and a transformer, and [16_can_growth_win](16_can_growth_win.ipynb) searches all choices together.
#
# Next: [09_how_to_split](09_how_to_split.ipynb) asks how to split the neuron.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, pandas {pd.__version__}, neuronsplit {ns.__version__}")
