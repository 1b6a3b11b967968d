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
# # A network that decides
#
# The 2021 study ends with a wish: that which neuron to split, and when, be decided by a network of its own. Here is one. It sees every neuron's loss after removal, fire rate, gradients, weights, variance,
# nearest neighbour, age and curvature, free of scale, and says how much lower the network will end if that neuron is split. It learned that from [every split there was](09_how_good_could_a_choice_be.ipynb).
# First how well it foretells networks that it never saw, then what it goes by, then the study at full size: there it beats every policy that was there before.

# %% tags=["parameters"]
fashion: str = "figures/data/oracle.csv.gz"  # branches on Fashion-MNIST, from the project's folder
digits: str = "figures/data/oracle-digits.csv.gz"  # and on digits
study_table: str = "figures/data/learned.csv.gz"  # the study learned, with the network as a policy
seed: int = 0  # of what is random in training the network
save: str = ""  # where its weights go, from the project's folder: neuronsplit/learned.npz; not saved by default
figures: str = ""  # where pictures go, and how their names begin: figures/; none are saved by default

# %%
import platform

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

import neuronsplit as ns
from neuronsplit import compare, learned, oracle, plots, study
from neuronsplit.branches import HORIZONS

torch.set_num_threads(1)
plots.use_style()

# %% [markdown]
# ## What it learns from
#
# Networks under plain SGD, split by the 2021 rule in every way, and what each branch was worth ten epochs later: its validation loss below that of the network unsplit. No test image has a part in it.
# The network has 16 hidden units and learns for 100 steps: size and steps were chosen by the first of the tests below, on 60 of these networks, all of width 10. The study at the end has other seeds.

# %%
horizon = max(HORIZONS)
tables = {
    name: study.read_table(study.ROOT / file)[0] for name, file in (("fashion-mnist", fashion), ("digits", digits))
}
for name, table in tables.items():
    usual = (table.rule == "scaled") & (table.optimizer == "sgd") & (table.learning_rate == table.learning_rate.iloc[0])
    tables[name] = table[usual]
examples = {name: oracle.examples(table, horizon) for name, table in tables.items()}
for name, known in examples.items():
    print(
        f"{name}: {len(known)} networks, {sum(e.gains.shape[1] for e in known)} splits, {len({e.of['seed'] for e in known})} seeds"
    )

# %%
print("seen of every neuron:", ", ".join(learned.INPUTS))

# %% [markdown]
# ## Does it know networks that it never saw?
#
# Three tests, each harder. *Other seeds*: the ten seeds in five parts, each foretold by a network that learned from the other four. *Another width*: also no network of that width. *Another dataset*: from digits to Fashion-MNIST and back,
# again on other seeds. The cell asserts that no network is foretold from its own seed.

# %%
PARTS = 5  # of the seeds


def masked(x, without=()):
    """What is seen of neurons, with 0 for what is left out."""
    return x * torch.tensor([name not in without for name in learned.INPUTS])


def train(known, without=(), first=seed):
    """A network that learned from some examples, without some of the inputs; first: the seed of its first weights."""
    pairs = [(masked(e.x, without), e.gains.mean(0, keepdim=True)) for e in known]
    return learned.fit(pairs, torch.Generator().manual_seed(first))


def taught(networks, others, without=(), first=seed):
    """Each network, with the weights that were learned from others with other seeds."""
    found = []
    for part in range(PARTS):
        mine = [e for e in networks if e.of["seed"] % PARTS == part]
        known = [e for e in others if e.of["seed"] % PARTS != part]
        assert not {e.of["seed"] for e in mine} & {e.of["seed"] for e in known}
        weights = train(known, without, first)
        found += [(e, weights) for e in mine]
    return found


# %%
def judged(pairs, see=masked):
    """How well networks were foretold by the weights beside them, a row each: as oracle.gains judges policies."""
    rows = []
    for e, weights in pairs:
        gain, said = e.gains.mean(0), learned.predict(weights, see(e.x))[0]  # (H,) each
        best = said.argmax()
        rows.append(e.of | {"rank": spearmanr(said, gain).statistic, "gain": (gain[best] - gain.mean()).item()})
        rows[-1] |= {"foretold": said[best].item(), "was": gain[best].item()}
    return pd.DataFrame(rows)


on_fashion, on_digits = examples.values()
widths = sorted({e.of["width"] for e in on_fashion})
another = [
    taught([e for e in on_fashion if e.of["width"] == w], [e for e in on_fashion if e.of["width"] != w]) for w in widths
]
tests = {"other seeds": taught(on_fashion, on_fashion), "another width": sum(another, [])}
tests |= {
    "learned from digits": taught(on_fashion, on_digits),
    "from Fashion to digits": taught(on_digits, on_fashion),
}
found = {name: judged(pairs) for name, pairs in tests.items()}

# %%
policies = {name: oracle.gains(table[table.horizon == horizon]) for name, table in tables.items()}


def line(name, rows, of_oracle):
    """Mean and interval over the seeds of the gain, its share of the oracle's, and the rank correlation."""
    by_seed = rows.groupby("seed")[["gain", "rank"]].mean()
    (_, mean, low, high), (_, r, r_low, r_high) = compare.intervals(by_seed).itertuples(index=False)
    return {
        "": name, "gain": f"{mean:+.5f} [{low:+.5f}, {high:+.5f}]", "share of the oracle's": f"{mean / of_oracle:.0%}",
        "rank correlation": f"{r:+.2f} [{r_low:+.2f}, {r_high:+.2f}]",
    }  # fmt: skip


lines = []
for where, names in (("fashion-mnist", list(found)[:3]), ("digits", list(found)[3:])):
    there = policies[where]
    of_oracle = there.loc[there.policy == "oracle", "gain"].mean()
    lines += [line(f"{where}: learned, {name}", found[name], of_oracle) for name in names]
    plain = there[~there.policy.isin(["oracle", "random"])]
    best = plain.groupby("policy").gain.mean().idxmax()
    lines.append(line(f"{where}: {best}, the best policy", plain[plain.policy == best], of_oracle))
    lines.append(line(f"{where}: oracle", there[there.policy == "oracle"], of_oracle))
pd.DataFrame(lines).set_index("")

# %% [markdown]
# The best policy is picked with hindsight, on these very networks; the network is not. Its gain by width, splits before and age, on other seeds, and its share of the oracle's:

# %%
cells = ["width", "grown", "age"]
shares = found["other seeds"].groupby(cells).gain.mean()
there = policies["fashion-mnist"].pivot_table(index=cells, columns="policy", values="gain")
by_cell = pd.DataFrame(
    {"learned": shares, **{name: there[name] for name in ("min-eigenvalue", "max-importance", "oracle")}}
)
by_cell.map("{:+.5f}".format).assign(share=(shares / there["oracle"]).map("{:.0%}".format))

# %% [markdown]
# Ten networks a row are few. How much of this is due to the first weights of the network that learns? The share of the oracle's gain that it takes on seeds that it never saw, from ten of them; *plain*: networks without earlier splits.

# %%
FIRSTS = range(10)
again = {first: judged(taught(on_fashion, on_fashion, first=first)).groupby(cells).gain.mean() for first in FIRSTS}
grown_ones = there.index.get_level_values("grown") > 0
which = {"all": there["oracle"] == there["oracle"], "plain": ~grown_ones, "grown": grown_ones}
of_firsts = pd.DataFrame(
    {
        name: {first: gain[rows].mean() / there["oracle"][rows].mean() for first, gain in again.items()}
        for name, rows in which.items()
    }
)
of_firsts.map("{:.0%}".format).T

# %% [markdown]
# ## When?
#
# The network also says what the split that it chooses is worth against none, so it can say *split* or *wait*: wait where it foretells that the network ends higher. Each point is a network that it never saw.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.6, 4), layout="constrained")
titles = {"other seeds": "Fashion-MNIST, other seeds", "from Fashion to digits": "digits, learned from Fashion-MNIST"}
for axis, (name, title) in zip(axes, titles.items()):
    rows = found[name]
    axis.axline((0, 0), slope=1, color="0.6", lw=1)
    axis.axhline(0, color="0.8", lw=1)
    for width, of_width in rows.groupby("width"):
        axis.scatter(1000 * of_width.foretold, 1000 * of_width.was, s=16, label=f"width {width}")
    axis.set(title=title, xlabel="gain over no split: foretold, thousandths of loss", ylabel="what it was")
axes[0].legend(frameon=False)
plots.keep(figure, figures, "learned-when")

# %% [markdown]
# Right whether: how often it told rightly whether its split would pay. Within settings: the correlation of what was foretold with what was, less the means of each width and age, which it knows.

# %%
when = {}
for name, rows in found.items():
    about = rows[["foretold", "was"]] - rows.groupby(["width", "age", "grown"])[["foretold", "was"]].transform("mean")
    when[name] = {"networks": len(rows), "its split paid": f"{(rows.was > 0).mean():.0%}"}
    when[name] |= {"told split": f"{(rows.foretold > 0).mean():.0%}"}
    when[name] |= {"right whether": f"{((rows.foretold > 0) == (rows.was > 0)).mean():.0%}"}
    when[name] |= {
        "correlation": f"{rows.foretold.corr(rows.was):+.2f}",
        "within settings": f"{about.foretold.corr(about.was):+.2f}",
    }
pd.DataFrame(when).T

# %% [markdown]
# ## What does it go by?
#
# Left: how much worse its ranking gets, on seeds that it never saw, when one input is shuffled among the neurons of a network. Right: how much worse networks rank that learned without a group of inputs, in the mean over three first weights.


# %%
def shuffled(place, rng):
    """A way to see neurons with one input shuffled among those of a network."""

    def see(x):
        x = x.clone()
        x[0, :, place] = x[0, torch.randperm(x.shape[1], generator=rng), place]
        return x

    return see


GROUPS = {
    "losses": ["loss_after_removal", "importance"], "gradients": ["incoming_gradient", "outgoing_gradient"],
    "weights": ["fan_in", "fan_out"], "activity": ["fire_rate", "activation_variance", "nearest"],
    "curvature": ["smallest_eigenvalue"], "history": ["since_split"], "network": ["width", "age"],
}  # fmt: skip

# %%
whole = found["other seeds"]["rank"].mean()
of_neurons = [name for name in learned.INPUTS if name not in GROUPS["network"]]
rng = torch.Generator().manual_seed(seed)
lost = pd.Series(
    {
        name: whole - judged(tests["other seeds"], shuffled(learned.INPUTS.index(name), rng))["rank"].mean()
        for name in of_neurons
    }
)


def ranks(without):
    """The rank correlation by seed, in the mean over three first weights, without some of the inputs."""
    rows = [judged(taught(on_fashion, on_fashion, without, first), lambda x: masked(x, without)) for first in range(3)]
    return pd.concat(rows).groupby("seed")["rank"].mean()


whole_by_seed = ranks(())
gaps = pd.DataFrame({name: ranks(group) - whole_by_seed for name, group in GROUPS.items()})

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
lost.sort_values().plot.barh(ax=left, color="#08519c")
left.set(xlabel=f"rank correlation lost, of {whole:.2f}, by shuffling")
of_groups = compare.intervals(gaps)
plots.draw_intervals(right, of_groups.rename("without {}".format), "#08519c")
right.set_xlabel("change of the rank correlation, 95 % interval")
plots.keep(figure, figures, "learned-inputs")

# %% [markdown]
# What it makes of each input: the foretold gain of a neuron over the mean neuron of its network, when that input alone is changed, in the mean over all neurons.


# %%
def effect(weights, e, place, value):
    """The foretold gain of a neuron over its network's mean one where its input has such a value, in the mean over neurons."""
    each = torch.arange(e.x.shape[1])
    x = e.x.repeat(len(each), 1, 1)  # (H, H, inputs): in the i-th, neuron i is changed
    x[each, each, place] = value
    said = learned.predict(weights, x)  # (H, H)
    return (said.diagonal() - said.mean(1)).mean().item()


weights, some = train(on_fashion), on_fashion[::4]
shown = lost.sort_values(ascending=False).index[:6]
figure, axes = plt.subplots(1, len(shown), figsize=(2.3 * len(shown), 2.8), sharey=True, layout="constrained")
for axis, name in zip(axes, shown):
    place = learned.INPUTS.index(name)
    seen = torch.cat([e.x[0, :, place] for e in on_fashion])
    grid = torch.linspace(seen.quantile(0.02), seen.quantile(0.98), 9)
    axis.plot(
        grid, [1000 * np.mean([effect(weights, e, place, value) for e in some]) for value in grid], color="#08519c"
    )
    axis.axhline(0, color="0.8", lw=1)
    axis.set_xlabel(name.replace("_", " ") + (" (rank)" if name in learned.RANKED else ""), fontsize=9)
axes[0].set_ylabel("foretold gain, thousandths")
plots.keep(figure, figures, "learned-effects")

# %% [markdown]
# A rule of thumb is what one input alone can do: the neuron that has the highest, or the lowest, of each, and its gain.

# %%
thumbs = []
for name in of_neurons:
    for most, sign in (("highest", 1), ("lowest", -1)):
        place = learned.INPUTS.index(name)
        gained = pd.DataFrame(
            {
                "seed": e.of["seed"],
                "gain": (e.gains.mean(0)[(sign * e.x[0, :, place]).argmax()] - e.gains.mean()).item(),
            }
            for e in on_fashion
        )
        thumbs.append(
            {"rule": f"{most} {name.replace('_', ' ')}"}
            | dict(zip(("mean", "low", "high"), compare.intervals(gained.groupby("seed")[["gain"]].mean()).iloc[0, 1:]))
        )
thumbs = pd.DataFrame(thumbs).set_index("rule").sort_values("mean", ascending=False)
thumbs.map("{:+.5f}".format).head(6)

# %% [markdown]
# ## The whole way
#
# The network that learned from all ten seeds of Fashion-MNIST is the policy `learned` of the package. Here it splits 50 times in a row, 10 neurons to 60, next to every other policy, the controls, and
# `greedy`, the oracle's choice: of all splits the one that is best an epoch later. On ten seeds that it never saw.

# %%
results, _ = study.read_table(study.ROOT / study_table)
assert not set(results.seed) & {e.of["seed"] for known in examples.values() for e in known}
print(
    f"{results.policy.nunique()} experiments, seeds {results.seed.min()} to {results.seed.max()}, learning rate {results.learning_rate.iloc[0]}"
)

# %%
measures = {"final test loss − that of random": "test_loss", "final test accuracy − that of random": "test_accuracy"}
shown_there = results[results.policy != "stay-narrow"]
figure = plots.differences(
    {title: compare.paired(shown_there, measure, "random") for title, measure in measures.items()}
)
plots.keep(figure, figures, "learned-study")

# %%
against_chance = compare.verdicts(compare.paired(results, "test_loss", "random"), "test_loss")
compare.readable(against_chance)

# %%
against_learned = compare.verdicts(compare.paired(results, "test_loss", "learned"), "test_loss")
compare.readable(against_learned)

# %% [markdown]
# ## What we see
#
# A network of 16 hidden units that learned from 1,900 splits. For a single split:
#
# - **On seeds that it never saw it takes 28 % of the oracle's gain**, 0.00027 [0.00007, 0.00046] of validation loss below the mean split; on a width that it never saw, 31 %. `min-eigenvalue`, the best policy with hindsight, takes 25 %: no difference that ten seeds
#   can tell. (Its size and steps were chosen by this test, on part of these networks.)
# - **It is good where neurons came by splits**: of the gain in networks with half or three quarters of such neurons it takes 55 to 85 %, by its own first weights, and of that in plain ones 7 to 25 %. `min-eigenvalue` takes 35 % of the former, `max-importance` 53 %.
# - **It does not cross datasets.** What it learned from digits ranks splits of Fashion-MNIST no better than chance (−0.01 [−0.07, +0.06]), and its choice ends 0.00010 above the mean one; the other way round +0.03 [−0.12, +0.14]. Two datasets, of which the learning rate differs as well.
# - **It cannot say when.** It foretells a gain for every network of Fashion-MNIST, so it always says *split*. A split paid in 80 % of them, and within settings what it foretold does not go with what was (−0.07).
# - **It goes by the smallest eigenvalue**, as far as can be told: without it, it ranks worse, without any other group of inputs not. Shuffled, the fire rate costs as much, but learned anew without it other inputs stand in.
# - **A rule of thumb**: split the neuron of the smallest eigenvalue, which alone takes 25 % (the best of 22 rules, on the same networks). The network also prefers neurons that fire on some 60 % of the images and that no other neuron is like; that was not tried as a rule, and `half-fire` alone
#   ends worse than chance over fifty splits.
#
# Over fifty splits, on ten seeds that nothing was learned from:
#
# - **It ends with the lowest test loss of all that grow**: 0.0097 [0.0068, 0.0129] below a random choice, 0.0028 [0.0015, 0.0037] below the next best, `max-importance`, and 0.0050 [0.0025, 0.0075] below `greedy`, which saw an epoch ahead. In accuracy it is 0.4 points above a random choice, and not told from
#   `max-importance` and `min-eigenvalue`.
# - **The final width from the start stays ahead**, by 0.0105 [0.0059, 0.0138] of test loss after as many epochs: the network's choice makes up for half of what growing by random splits costs.
#
# The limits: one rule, one schedule, one learning rate, one dataset and the same images, all of them those that it learned from; other seeds are other first weights, orders and coefficients. What it sees was not timed; the scores of the other policies add up to some 10 % of an epoch at 60 neurons.
#
# The cells below assert the numbers.

# %%
if fashion == "figures/data/oracle.csv.gz" and digits == "figures/data/oracle-digits.csv.gz":
    seeds = {name: compare.intervals(rows.groupby("seed")[["gain", "rank"]].mean()) for name, rows in found.items()}
    assert seeds["other seeds"].loc["gain"][["mean", "low", "high"]].round(5).tolist() == [0.00027, 0.00007, 0.00046]
    oracle_there = there["oracle"].mean()  # as many networks in every cell
    of = {name: rows.gain.mean() / oracle_there for name, rows in found.items()}
    assert [round(of[name], 2) for name in ("other seeds", "another width")] == [0.28, 0.31]
    assert round(there["min-eigenvalue"].mean() / oracle_there, 2) == 0.25
    ends = of_firsts.agg(["min", "max"]).round(2)
    assert ends["grown"].tolist() == [0.55, 0.85] and ends["plain"].tolist() == [0.07, 0.25]
    of_grown = there[grown_ones].mean() / there["oracle"][grown_ones].mean()
    assert of_grown[["min-eigenvalue", "max-importance"]].round(2).tolist() == [0.35, 0.53]
    assert round(seeds["learned from digits"].loc["gain", "mean"], 5) == -0.0001
    assert seeds["learned from digits"].loc["rank"][["mean", "low", "high"]].round(2).tolist() == [-0.01, -0.07, 0.06]
    assert seeds["from Fashion to digits"].loc["rank"][["mean", "low", "high"]].round(2).tolist() == [0.03, -0.12, 0.14]
    assert when["other seeds"]["told split"] == "100%" and when["other seeds"]["its split paid"] == "80%"
    assert when["other seeds"]["within settings"] == "-0.07"
    assert set(lost.nlargest(2).index) == {"smallest_eigenvalue", "fire_rate"}
    assert list(of_groups.index[of_groups.high < 0]) == ["curvature"]
    assert thumbs.index[0] == "lowest smallest eigenvalue"

# %%
if study_table == "figures/data/learned.csv.gz":
    numbers = against_chance.loc["learned", ["mean", "low", "high"]]
    assert numbers.round(4).tolist() == [-0.0097, -0.0129, -0.0068] and against_chance.verdict["learned"] == "better"
    accuracy = compare.paired(results, "test_accuracy", "random")["learned"].mean()
    assert round(accuracy, 3) == 0.004
    grow = against_learned.drop(["no-split", "stay-narrow"])
    assert (grow.verdict == "worse").all() and grow["mean"].idxmin() == "max-importance"
    assert grow.loc["max-importance", ["mean", "low", "high"]].round(4).tolist() == [0.0028, 0.0015, 0.0037]
    in_accuracy = compare.verdicts(compare.paired(results, "test_accuracy", "learned"), "test_accuracy")
    level = list(in_accuracy.index[in_accuracy.verdict == "no difference found"])
    assert level == ["max-importance", "min-eigenvalue"]
    assert against_learned.loc["greedy", ["mean", "low", "high"]].round(4).tolist() == [0.0050, 0.0025, 0.0075]
    assert against_learned.loc["no-split", ["mean", "low", "high"]].round(4).tolist() == [-0.0105, -0.0138, -0.0059]
    costs = -against_chance.loc["no-split", "mean"]
    assert round(-numbers["mean"] / costs, 1) == 0.5
    for policy, said in {
        "min-eigenvalue": [-0.0056, -0.0092, -0.0015],
        "max-importance": [-0.0069, -0.0097, -0.0040],
    }.items():
        assert against_chance.loc[policy, ["mean", "low", "high"]].round(4).tolist() == said  # in the README
    assert list(against_chance.index[against_chance.verdict == "better"]) == ["no-split", "max-importance", "learned"]
    print("held")

# %% [markdown]
# The weights of the package are those that were trained here. The file holds numbers alone.

# %%
if save:
    np.savez(study.ROOT / save, **weights)
    learned.weights.cache_clear()
both = [torch.cat([learned.predict(w, e.x)[0] for e in on_fashion]) for w in (weights, learned.weights())]
same = np.corrcoef(*both)[0, 1]
print(f"{learned.FILE.name}, {learned.FILE.stat().st_size} bytes, says the same: {same > 0.99}")

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
