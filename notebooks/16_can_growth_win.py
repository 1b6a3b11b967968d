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
# # Can growth win?
#
# This search found no way. On digits and on MNIST-1D, the best way to grow that it found ends 0.012 above the final width from the start, at equal multiply-adds. Growth
# was to win on two of three data sets, so Fashion-MNIST cannot change the answer, and has not been searched.
#
# [The design](studies/design.md) changes one choice at a time. Here a search draws which, how, when, the learning rate
# and the regularisation together, and keeps the best by successive halving. The control is searched in the same way. What the search finds is then compared on fresh seeds.
#
# This was added after the first results of the design. The limits: one hidden layer, plain SGD, and a number of draws that is small against the number of combinations.

# %% tags=["parameters"]
dataset: str = "digits"  # what is searched on here; digits needs no download
rungs: list = [[12, 1], [3, 2], [1, 3]]  # of the search: how many candidates are left, and how many seeds each has
n_seeds: int = 5  # fresh seeds of the comparison at the end
changes: dict = {"splits": 10, "epochs": 20}  # in the setting of the design, here to make it small
folder: str = ""  # where runs are kept, from the project's folder; what is there is not run again; none by default
save: str = ""  # file for what is found, from the project's folder; not saved by default
tables: str = "figures/data/search-{}.parquet"  # the long searches, by data set
figures: str = ""  # where pictures go, and how their names begin: figures/; none are saved by default

# %%
import platform
import tempfile
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display

import neuronsplit as ns
from neuronsplit.analysis import cost, stats, variance
from neuronsplit.analysis.circumstances import circumstances
from neuronsplit.analysis.files import write_table
from neuronsplit.experiments import random_search
from neuronsplit.locations import ROOT
from neuronsplit.names import ID_COLUMNS, NO_SPLIT
from neuronsplit.plots import search, style
from neuronsplit.study import grid, store

torch.set_num_threads(1)
style.use_style()
NAMES = ["digits", "mnist-1d", "fashion-mnist"]
WAY = ["policy", "growth", "schedule"]  # which, how, when
found = {name: ns.read_table(ROOT / tables.format(name)) for name in NAMES if (ROOT / tables.format(name)).exists()}

# %% [markdown]
# ## The answer


# %%
def compared(runs):
    """The test losses of the comparison on fresh seeds: a row per seed, a column per arm."""
    return runs[runs.stage == "compared"].pivot(index="seed", columns="role", values="test_loss")


def difference(runs):
    """Test whether the best way to grow ends above or below the control, seed by seed."""
    losses = compared(runs)
    return stats.paired_tests(losses[["growth"]].sub(losses["control"], axis=0), "test_loss").loc["growth"]


answer = pd.DataFrame({name: difference(runs) for name, runs in found.items()}).T
stats.style_tests(answer) if found else "the long searches have not been run"

# %%
said = {"better": "**below**", "worse": "**above**"}
for name, row in answer.iterrows():
    best = found[name].query("stage == 'compared' and role == 'growth'").iloc[0]
    way = " · ".join(f"`{best[choice]}`" for choice in WAY)
    verdict = said.get(row["verdict"], "at no established distance from")
    text = f"- On {name}, the best way to grow that the search found ends {verdict} the control:"
    text += f" {stats.signed(row['mean'])} {stats.interval(row['low'], row['high'])} in test loss. It is {way}."
    display(Markdown(text))

# %% [markdown]
# ## The search
#
# A candidate is a way to grow with all of its settings. It splits neurons by any policy but `greedy`, in any growth and on any schedule. The settings are drawn as `neuronsplit tune` draws them.


# %%
def candidates(base, n, grows):
    """Draw n experiments. Those of the control have the same settings, but neither policy, growth nor schedule."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(n):
        way = dict(zip(WAY, (str(rng.choice([*names])) for names in (ns.POLICIES, ns.GROWTHS, ns.SCHEDULES))))
        settings = {name: draw(rng, base) for name, draw in random_search.SPACE.items()}
        drawn.append(replace(base, **settings, **(way if grows else {"policy": NO_SPLIT})))
    return list({one.canonical: one for one in drawn}.values())


# %% [markdown]
# Successive halving trains all candidates on one seed, the best of them on more, and so on ([Jamieson and Talwalkar 2016](https://arxiv.org/abs/1502.07943)). What decides is the lowest validation loss, as a mean over
# seeds. The seeds are used for nothing else.


# %%
def picked(runs):
    """The rows at the epoch that validation picks, one per candidate and seed; candidates are numbered."""
    runs = runs.assign(val_loss=runs.val_loss.fillna(np.inf))
    runs = runs.loc[runs.groupby([*ID_COLUMNS, "seed"], sort=False).val_loss.idxmin()]
    return runs.assign(candidate=runs.groupby(ID_COLUMNS, sort=False).ngroup())


def halved(left, rungs, folder, first_seed=2_000_000):
    """Search by successive halving. Returns the candidates of the last rung, the best first, and rows of all rungs."""
    rows = []
    for n_left, n in rungs:
        left = left[:n_left]
        runs = picked(store.load_or_run(left, range(first_seed, first_seed + n), folder))
        rows.append(runs.assign(stage=f"{n_left} left"))
        means = runs.groupby(ID_COLUMNS).val_loss.mean()
        left = sorted(left, key=lambda one: means[tuple(asdict(one)[name] for name in ID_COLUMNS)])
        print(f"{n_left} candidates, {n} seeds: the lowest validation loss is {means.min():.4f}")
    return left, pd.concat(rows)


# %% [markdown]
# The best way to grow decides for how many epochs the control trains: as many as cost the same multiply-adds. Then the control is searched, with as many draws and seeds.

# %%
place = ROOT / folder if folder else tempfile.mkdtemp()
arms = grid.read_study(f"design-{dataset}").plan
base = replace(next(arm for arm in arms if arm.policy == "random"), **changes)
ways, rows_of_growth = halved(candidates(base, rungs[0][0], grows=True), rungs, place)

# %%
runs = store.load_or_run(ways[:1], range(2_000_000, 2_000_001), place)
share = cost.neuron_epochs(runs).max() / ((base.width + base.splits) * base.epochs)
same_cost = replace(base, epochs=round(share * base.epochs))
print(f"{ways[0].policy} · {ways[0].growth} · {ways[0].schedule}: {share:.0%} of the multiply-adds of the final width")
controls, rows_of_control = halved(candidates(same_cost, rungs[0][0], grows=False), rungs, place)

# %%
roles = {"growth": ways[0], "control": controls[0]}
seeds = range(3_000_000, 3_000_000 + n_seeds)
fresh = {role: picked(store.load_or_run([one], seeds, place)).assign(stage="compared") for role, one in roles.items()}
searched = {"growth": [rows_of_growth], "control": [rows_of_control]}
result = [part.assign(role=role) for role in roles for part in (*searched[role], fresh[role])]
result = pd.concat(result, ignore_index=True)
if save:
    parameters = {"dataset": dataset, "rungs": rungs, "n_seeds": n_seeds, "changes": changes}
    write_table(result, ROOT / save, {"study": "search", "parameters": parameters} | circumstances())
compared(result).agg(["mean", "std"]).round(4)

# %% [markdown]
# ## The long search
#
# Each point is a candidate, and each row a rung. Notice how far the control's candidates reach to the left.

# %%
figure = search.rungs(found or {dataset: result}, "val_loss")
style.save_figure(figure, figures, "search-rungs")

# %% [markdown]
# The best ten candidates of each data set, by their validation loss on the most seeds that they had.

# %%
for name, runs in found.items():
    grown = runs[(runs.role == "growth") & (runs.stage != "compared")]
    last = grown[grown.groupby([*ID_COLUMNS, "seed"]).cumcount(ascending=False) == 0]
    by_candidate = last.groupby([*WAY, *random_search.SPACE], as_index=False).agg(
        n=("seed", "size"), val_loss=("val_loss", "mean"), test_loss=("test_loss", "mean")
    )
    display(Markdown(f"### {name}"))
    display(by_candidate.sort_values(["n", "val_loss"], ascending=[False, True]).head(10).drop(columns="width"))

# %% [markdown]
# ## What decides
#
# All candidates of the first rung were drawn at random, and each has one seed. So they show how much of the differences in test loss each choice accounts for, whatever the others are. The measure is ω² of the ranks of
# test loss ([Olejnik and Algina 2003](https://doi.org/10.1037/1082-989X.8.4.434)), the share of the variance between the levels of a choice. The learning rate and the weight decay are cut into five levels of equal size.

# %%
CHOICES = {"policy": "which", "growth": "how", "schedule": "when", "learning_rate": "learning rate",
           "rate_schedule": "rate schedule", "rate_after_split": "rate after a split", "weight_decay": "weight decay",
           "dropout": "dropout"}  # fmt: skip


def shares(runs):
    """The share of variance that each choice accounts for, with its 95 % interval."""
    first = runs[(runs.role == "growth") & (runs.stage == runs.stage.iloc[0])].reset_index()
    levels = {name: first[name] for name in CHOICES}
    levels |= {name: pd.qcut(first[name], 5, duplicates="drop") for name in ("learning_rate", "weight_decay")}
    return variance.variance_shares(first.test_loss.rank(), pd.DataFrame(levels).rename(columns=CHOICES))


decides = {name: shares(runs) for name, runs in (found or {dataset: result}).items()}
style.save_figure(search.shares(decides), figures, "what-decides")

# %%
pd.concat(decides, axis=1).round(3)

# %% [markdown]
# ## What we see on digits and MNIST-1D
#
# - On both, the best way to grow that the search found ends above the control, which was searched with as many draws. So it found none that wins on two of three data sets.
# - On MNIST-1D no difference in accuracy is established.
# - On MNIST-1D the best four candidates have dropout and weight decay, which most arms of [the design](design.ipynb) on MNIST-1D lack. The best ends 0.012 above its control, and the base arm of the design ends 0.058 above.
# - The best growth there is `even`, which is worse than `scaled` in the design on MNIST-1D. So that verdict holds at its settings only.
# - On both, weight decay accounts for more than half of the variance of the test loss. It is drawn up to 1, which keeps a network from learning at all.
# - In this range of draws, the shares of which, how and when sum to less than a twentieth. Two of the nine growths add neurons without a parent, so that the policy has no part in them.
# - On MNIST-1D only 64 candidates were drawn, so the intervals of these shares are wide.
# - The small search that runs here has 12 candidates and 20 epochs, which are too few for a verdict.
#
# Two things may explain that growth does not win. Twins stay alike for long ([07_do_twins_part](07_do_twins_part.ipynb)). And growth may act as a regulariser, which weight decay and dropout do as well: in
# [the trial before the design](studies/design.md), it led only without them.
#
# The next cell asserts these sentences.

# %%
if {"digits", "mnist-1d"} <= set(found):
    for name in ("digits", "mnist-1d"):
        assert answer.loc[name, "verdict"] == "worse" and round(answer.loc[name, "mean"], 3) == 0.012
        assert decides[name].share["weight decay"] > 0.5
        assert decides[name].share[["which", "how", "when"]].sum() < 0.05
    runs = found["mnist-1d"]
    accuracy = runs[runs.stage == "compared"].pivot(index="seed", columns="role", values="test_accuracy")
    accuracy = stats.paired_tests(accuracy[["growth"]].sub(accuracy["control"], axis=0), "test_accuracy").iloc[0]
    assert accuracy["verdict"] == "no difference found"
    last = runs[(runs.role == "growth") & (runs.stage == "4 left")].drop_duplicates("candidate")
    assert len(last) == 4 and (last[["weight_decay", "dropout"]] > 0).all(axis=None)
    assert runs[runs.stage == "compared"].query("role == 'growth'")["growth"].eq("even").all()
    assert runs[runs.stage == "64 left"].groupby("role").candidate.nunique().eq(64).all()
    print("held")

# %% [markdown]
# Next: [design](design.ipynb) has every registered comparison.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, neuronsplit {ns.__version__}")
