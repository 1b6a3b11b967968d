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
# # Can a network learn which neuron to split?
#
# For one split, partly. On seeds that it was not fitted to, a small network takes 57 % of what a perfect choice wins on Fashion-MNIST, 42 % on MNIST-1D, and 18 % on digits, where no gain is established.
# Over a whole training, no fitted policy is established as better than a random choice, on any of the three. On Fashion-MNIST the network comes closest: it ends 0.005 lower in test loss, with p = 0.06.
#
# The 2021 study ends with the wish that a network should decide which neuron is split, and when. The one here learned from [every possible split](11_how_good_could_a_choice_be.ipynb) of networks that grew. The limits: one hidden layer, plain SGD, the rule `scaled`, and few seeds.
#
# Before this: [11_how_good_could_a_choice_be](11_how_good_could_a_choice_be.ipynb) makes the splits that it learns from.

# %% tags=["parameters"]
grown: str = "figures/data/oracle-{}-grown.parquet"  # all splits of networks that grew, on the data set in braces
tables: dict = {}  # data set: the table of its design; by default those in figures/data that are there
seed: int = 0  # of the first weights of networks that are fitted
save: str = ""  # where fitted policies go, from the project's folder: neuronsplit/growing/learned.npz; else not saved
figures: str = ""  # where pictures go, and how their names begin: figures/; none are saved by default

# %%
import platform

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from scipy.stats import rankdata

import neuronsplit as ns
from neuronsplit.analysis import design, family_sentences, oracle
from neuronsplit.analysis.stats import intervals, style_tests
from neuronsplit.growing import learned
from neuronsplit.locations import ROOT
from neuronsplit.measuring import fit_policies
from neuronsplit.measuring.all_splits import HORIZONS, policy_choices
from neuronsplit.plots import comparisons, style, tested

torch.set_num_threads(1)
style.use_style()
NAMES = ["fashion-mnist", "digits", "mnist-1d"]
all_splits = {name: ns.read_table(ROOT / grown.format(name)) for name in NAMES}
results = design.read_tables(tables)


# %% [markdown]
# ## The answer
#
# A network of 16 hidden units predicts what each split gains. Each is tested on seeds that it was not fitted to. *Ridge* is a linear model of the same inputs, and *rank-sum* adds three ranks.


# %%
def fit_network(examples):
    """The weights of a learned policy, from the same first weights each time."""
    return fit_policies.fit_learned(examples, torch.Generator().manual_seed(seed))


fits = {"learned": fit_network, "ridge": fit_policies.fit_ridge, "rank-sum": fit_policies.fit_rank_sum}
examples = {name: fit_policies.training_examples(table, max(HORIZONS)) for name, table in all_splits.items()}
weights = {(kind, name): fit_policies.cross_fit(fit, examples[name]) for kind, fit in fits.items() for name in NAMES}
fitted = {
    (kind, source, name): fit_policies.evaluate(of_source, examples[name])
    for (kind, source), of_source in weights.items()
    for name in NAMES
}

# %%
last = {name: table[table["horizon"] == max(HORIZONS)] for name, table in all_splits.items()}
of_policies = {name: oracle.gains(rows, policy_choices(rows)) for name, rows in last.items()}
panels = {}
for name in NAMES:
    found = {kind: fitted[kind, name, name] for kind in fits}
    found |= {policy: of_policies[name].query("policy == @policy") for policy in ("min-eigenvalue", "oracle")}
    panels[name] = pd.DataFrame({policy: 1000 * rows.groupby("seed")["gain"].mean() for policy, rows in found.items()})
figure = comparisons.paired_differences(panels, "thousandths of validation loss below a random choice (→ better)")
style.save_figure(figure, figures, "learned-gains")
plt.show()

# %% [markdown]
# Each panel is a data set with its own scale, and 0 is what a random choice gets. Notice that `min-eigenvalue`, which is fitted to nothing, takes about as much as the network. The oracle chooses the branch that ended best under other mini-batches.
#
# Over a whole training, with a split per epoch, the design has these policies as arms. On Fashion-MNIST they share the settings of the random choice, and elsewhere each was tuned. Left of 0 is better than a random choice.

# %%
tests = {name: design.tests(table, "test_loss") for name, table in results.items()}
kinds = tuple(fits)
whole = {
    name: found[found.index.str.startswith(kinds)] for name, found in family_sentences.of_family(tests, "which").items()
}
style.save_figure(tested.family(whole, "test_loss"), figures, "learned-whole-training")
plt.show()

# %%
for name, found in whole.items():
    display(Markdown(f"### {name}"), style_tests(found, 3))

# %% [markdown]
# The p-values are corrected for all policies of the family *which*, those of [08_which_neuron](08_which_neuron.ipynb) included.
#
# ## What it learns from
#
# The networks grew from 10 neurons by one random split per epoch, under plain SGD. Then each possible split was made and trained on for ten epochs. The gain of a split is how far its validation loss ends below that of the network without it. No test image has a part in this.

# %%
sizes = {}
for name, own in examples.items():
    n_splits, widths = sum(e.gains.shape[1] for e in own), sorted({e.keys["width"] for e in own})
    sizes[name] = {"seeds": len(fit_policies.seeds_of(own)), "networks": len(own), "splits": n_splits, "widths": widths}
pd.DataFrame(sizes).T

# %% [markdown]
# Its inputs do not depend on scale. Eight are ranks within the network.

# %%
pd.Series(
    {name: "rank" if name in learned.RANK_FEATURES else "value" for name in learned.FEATURE_NAMES}, name="used as"
)

# %% [markdown]
# ## Does it transfer?
#
# A row is a policy with the data set that it was fitted to, and a column is the data set on which it chooses. The entries are shares of the oracle's gain, and rank correlations with the gains.

# %%
best = {name: of_policies[name].query("policy == 'oracle'")["gain"].mean() for name in NAMES}
entries = []
for (kind, source, name), rows in fitted.items():
    entry = {"policy": f"{kind}, fitted to {source}", "on": name, "share": rows["gain"].mean() / best[name]}
    low = intervals(rows.groupby("seed")[["gain"]].mean())["low"].item()
    entries.append(entry | {"low": low, "rank": rows["rank_correlation"].mean()})
entries = pd.DataFrame(entries).set_index(["policy", "on"])
texts = entries["share"].map("{:.0%}".format) + " · " + entries["rank"].map("{:+.2f}".format)
texts.unstack(sort=False)

# %% [markdown]
# - **On its own data set** it gains on Fashion-MNIST and MNIST-1D, by intervals that are not corrected for the number of pairs. On digits the interval includes 0.
# - **A linear model does as well.** Ridge takes 48 % on Fashion-MNIST, 44 % on MNIST-1D and 3 % on digits. No difference from the network is established.
# - **On another data set**, policies that were fitted to Fashion-MNIST have intervals above 0 on MNIST-1D, where the network takes 42 %. None that was fitted to digits has one.
#
# ## What does it go by?
#
# One input is shuffled among the neurons of a network, and the rank correlation with the gains falls. The bars have the mean loss over 20 shuffles of each input, on the own data set and on seeds that were left out.

# %%
N_SHUFFLES = 20


def rank_correlation(example, x):
    """The mean rank correlation of the gains of a network and what is predicted from inputs (shuffles, H, inputs)."""
    left_out = weights["learned", example.keys["dataset"]][example.keys["seed"] % fit_policies.N_FOLDS]
    ranks = rankdata(learned.predict(left_out, x), axis=1), rankdata(example.gains.mean(0))
    return np.corrcoef(*ranks)[-1, :-1].mean()


def shuffled(x, index, rng):
    """Inputs (1, H, inputs) N_SHUFFLES times, with one of them shuffled among the neurons."""
    order = torch.rand(N_SHUFFLES, x.shape[1], generator=rng).argsort(1)  # (shuffles, H)
    result = x.repeat(N_SHUFFLES, 1, 1)
    result[:, :, index] = x[0, order, index]
    return result


# %%
per_neuron = [name for name in learned.FEATURE_NAMES if name not in learned.NETWORK_FEATURES]
lost = {}
for name in NAMES:
    rng = torch.Generator().manual_seed(seed)
    with_all = fitted["learned", name, name]["rank_correlation"].mean()
    for index, feature in enumerate(per_neuron):
        without = [rank_correlation(e, shuffled(e.x, index, rng)) for e in examples[name]]
        lost[feature, name] = with_all - np.mean(without)
lost = pd.Series(lost).unstack(sort=False)
lost.round(3)

# %%
axis = lost.plot.barh(figsize=(8, 5), color=["0.75", "0.5", "0.15"], width=0.8)
axis.invert_yaxis()
axis.axvline(0, color="0.6", lw=1)
axis.set(
    xlabel="rank correlation that is lost by shuffling", yticklabels=[name.replace("_", " ") for name in lost.index]
)
style.save_figure(axis.figure, figures, "learned-inputs")
plt.show()

# %% [markdown]
# Notice that the data sets disagree. A bar at zero does not say that an input is useless, since others can stand in for it.
#
# ## Can it say when?
#
# It also predicts how far the chosen split ends below no split, so it could say *wait*. A point is a network of a seed that was left out.

# %%
figure, axes = style.row_of_panels(len(NAMES), 3.4, 3.6)
for axis, name in zip(axes, NAMES):
    rows = fitted["learned", name, name]
    axis.axline((0, 0), slope=1, color="0.6", lw=1)
    axis.axhline(0, color="0.8", lw=1)
    axis.scatter(1000 * rows["predicted"], 1000 * rows["actual"], s=16, c=rows["width"], cmap="Greys", edgecolors="0.4")
    axis.set(title=name, xlabel="predicted gain, thousandths", ylabel="actual gain, thousandths")
style.set_title(figure, "over no split; the darker, the wider; line: predicted as it is")
style.save_figure(figure, figures, "learned-when")
plt.show()

# %%
said = {}
for name in NAMES:
    rows = fitted["learned", name, name]
    pair = rows[["predicted", "actual"]]
    centred = pair - pair.groupby(rows["width"]).transform("mean")
    right = ((rows["predicted"] > 0) == (rows["actual"] > 0)).mean()
    said[name] = {"its split paid": (rows["actual"] > 0).mean(), "said split": (rows["predicted"] > 0).mean()}
    said[name] |= {"was right": right, "correlation at equal width": centred["predicted"].corr(centred["actual"])}
said = pd.DataFrame(said).T
said.round(2)

# %% [markdown]
# Notice that it always says *split*. At equal width, the predicted gain does not go with the actual one. So the network cannot say when to split.
#
# ## What we see
#
# - For one split, the network takes 57, 18 and 42 % of the oracle's gain on Fashion-MNIST, digits and MNIST-1D.
# - `min-eigenvalue` takes 47, 17 and 38 %, and no difference from the network is established.
# - Over a whole training, no fitted policy is established as better than a random choice. On digits, two that were fitted to MNIST-1D are worse, with other settings.
# - On Fashion-MNIST, the network that was fitted to it ends 0.005 [0.001, 0.008] below the random choice in test loss. Corrected for eight policies, p is 0.06.
# - It always says *split*. At equal width, the correlation of predicted and actual gains is at most 0.01.
#
# The next cell asserts these sentences, and those about transfer.

# %%
if grown == "figures/data/oracle-{}-grown.parquet":
    share = entries["share"].round(2).unstack()
    own = {kind: [share[name][f"{kind}, fitted to {name}"] for name in NAMES] for kind in fits}
    assert own["learned"] == [0.57, 0.18, 0.42] and own["ridge"] == [0.48, 0.03, 0.44]
    of_eigenvalue = {name: of_policies[name].query("policy == 'min-eigenvalue'")["gain"].mean() for name in NAMES}
    assert [round(of_eigenvalue[name] / best[name], 2) for name in NAMES] == [0.47, 0.17, 0.38]
    for name in NAMES:
        of_network = fitted["learned", name, name].groupby("seed")["gain"].mean()
        for other in (fitted["ridge", name, name], of_policies[name].query("policy == 'min-eigenvalue'")):
            difference = intervals((of_network - other.groupby("seed")["gain"].mean()).to_frame()).iloc[0]
            assert difference["low"] < 0 < difference["high"]
    above = entries[entries["low"] > 0].index
    assert not [policy for policy, on in above if on == "digits" or policy.endswith("to digits")]
    assert {("learned, fitted to fashion-mnist", on) for on in ("mnist-1d", "fashion-mnist")} <= set(above)
    assert share["mnist-1d"]["learned, fitted to fashion-mnist"] == 0.42
    assert (said["correlation at equal width"] < 0.015).all() and (said["said split"] == 1).all()
    assert lost.idxmax().nunique() > 1
    print("held")

# %%
if not tables:
    assert {name: len(found) for name, found in whole.items()} == {"digits": 7, "mnist-1d": 7, "fashion-mnist": 3}
    assert not any((found["verdict"] == "better").any() for found in whole.values())
    best = whole["fashion-mnist"].loc["learned-fashion-mnist"]
    assert best[["mean", "low", "high"]].astype(float).round(3).tolist() == [-0.005, -0.008, -0.001]
    assert round(best["p_adjusted"], 2) == 0.06
    worse = {name: set(found.index[found["verdict"] == "worse"]) for name, found in whole.items()}
    assert worse["digits"] == {"ridge-mnist-1d", "learned-mnist-1d"}
    print("held")

# %% [markdown]
# ## The policies of the package
#
# The weights in the package were fitted by the next cell. Their names end with the data set that they were fitted to, and those without one were fitted to all three.

# %%
weights = fit_policies.fit_policies(all_splits, torch.Generator().manual_seed(seed))
if save:
    fit_policies.save_weights(ROOT / save, weights)
    learned.weights.cache_clear()
together = [e.x for own in examples.values() for e in own]
for policy, own in weights.items():
    both = [torch.cat([learned.predict(w, x)[0] for x in together]) for w in (own, learned.weights()[policy])]
    print(f"{policy}: as in {learned.FILE.name}? {np.corrcoef(*both)[0, 1] > 0.99}")

# %% [markdown]
# Next: [13_grow_a_language_model](13_grow_a_language_model.ipynb) doubles a transformer in mid-training.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
