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
# # Beyond one hidden layer
#
# Which neuron, how and when: does the answer of one hidden layer hold in a convolutional network and in a transformer? The next figure compares
# ten arms in each, and two sentences below it say what differs and what cannot be told apart.
#
# The networks are a small CNN on 10,000 images of Fashion-MNIST, and the small GPT of notebook 13. What decides is the test loss at the epoch
# that validation picks, at equal epochs. The limits: small networks, one optimiser, constant rates, and no dropout.
#
# Before this: [14_what_it_costs](14_what_it_costs.ipynb) measures what a study, a split and a policy cost.

# %% tags=["parameters"]
network: str = "gpt"  # what is trained here: "gpt", or "cnn", which loads Fashion-MNIST
seeds: list = [0]  # that are measured: of the weights, the batches, and for the CNN the images
tuning_seeds: list = []  # on which every arm is tried at every rate; without any, arms take the middle one
arms: list = ["final width", "base"]  # what is trained; [] takes all
steps: int = 2  # an epoch; 0 takes 200 for the CNN and 50 for the GPT
save: str = ""  # folder of what is trained, from the project's folder; what is there stays; not saved by default
join: str = ""  # folder of such files, which then become the table; by default, the table stays as it is
table: str = "figures/data/beyond-one-layer.parquet"  # the long run, read
figures: str = ""  # where pictures go, and how their names begin; none are saved by default

# %%
import json
import platform
from types import SimpleNamespace

import pandas as pd
import torch
from IPython.display import Markdown
from torch import nn
from torch.nn import functional as F

import neuronsplit as ns
from neuronsplit.analysis import arms as analysis
from neuronsplit.analysis import stats, wording
from neuronsplit.analysis.circumstances import circumstances
from neuronsplit.analysis.files import write_table
from neuronsplit.core.seeds import stream
from neuronsplit.data.datasets import fingerprint
from neuronsplit.locations import NOTEBOOKS, ROOT
from neuronsplit.measuring.any_module import Arm, Task, train_arm
from neuronsplit.plots import comparisons
from neuronsplit.plots.style import save_figure, use_style

torch.set_num_threads(1)
use_style()

# %% [markdown]
# ## The answer
#
# The arm `base` splits random neurons one after the other, and shares their outgoing weights at random. Every other arm that grows differs in
# *which*, *how* or *when*; `fresh, early` differs in two. The next cell reads the long run, and draws and says how far each ends from `base`.

# %%
TITLES = {"cnn": "CNN", "gpt": "GPT"}
long_run = ns.read_table(ROOT / table)
picked, ends = {}, {}  # by network: the rows at the epoch that validation picks, and their test losses
for of in TITLES:
    measured = long_run[(long_run.network == of) & ~long_run.tuning]
    picked[of] = analysis.at_lowest_validation(measured)
    ends[of] = picked[of].pivot(index="seed", columns="arm", values="test_loss")[measured.arm.unique()]
apart = {of: values.drop(columns="base").sub(values["base"], axis=0) for of, values in ends.items()}
tests = {of: stats.paired_tests(differences, "test_loss") for of, differences in apart.items()}
ASKS = {"final width": "control", "small": "control", "importance": "which", "ablation loss": "which", "halves": "how"}
ASKS |= {"fresh": "how", "early": "when", "late": "when", "fresh, early": "how and when"}
drawn = {of: apart[of].rename(columns=lambda arm: f"{ASKS[arm]} · {arm}") for of in apart}
panels = {f"{TITLES[of]}: test loss − that of base": drawn[of] for of in drawn}
figure = comparisons.paired_differences(panels, "left of the line is better")
save_figure(figure, figures, "beyond-one-layer")


# %%
def say(of):  # which arms end clearly below or above base
    rows = tests[of]
    below, above = rows.high < 0, rows.low > 0
    lists = {"below `base`": rows.index[below], "above it": rows.index[above]}
    lists |= {"with an interval of the difference that includes 0": rows.index[~(below | above)]}
    found = [
        f"{wording.join(map(wording.code, names))} end{'s' * (len(names) == 1)} {where}"
        for where, names in lists.items()
        if len(names)
    ]
    holds = rows.index[rows.verdict.isin(["better", "worse"])]
    remain = wording.join(map(wording.code, holds)) if len(holds) else "none"
    return f"In the {TITLES[of]}, {'; '.join(found)}. What holds for all {len(rows)} comparisons together (max-T): {remain}."


Markdown("\n".join(f"- {say(of)}" for of in TITLES))

# %% [markdown]
# Notice that intervals are Student's t of differences at the same seed, each for itself. With so few seeds, only large differences pass the
# test of all comparisons together.
#
# ## Two networks
#
# Both are written as anyone would write them, and know nothing of splits. In the CNN, the second convolution grows from 4 to 16 channels. In
# the GPT, both hidden layers grow from 16 to 64 neurons. The next cells make the CNN and its batches, which are the same for all arms of a
# seed.


# %%
def make_cnn(width, rng):
    net = nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(8, width, 3, stride=2, padding=1), nn.ReLU(),  # (N, width, 7, 7)
        nn.Flatten(), nn.Linear(49 * width, 10),
    )  # fmt: skip
    for parameter in net.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_uniform_(parameter, a=5**0.5, generator=rng)
        else:
            nn.init.zeros_(parameter)
    return net


def cnn_loss(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1])


def cnn_accuracy(net, batch):
    return (net(batch[0]).argmax(1) == batch[1]).float().mean()


# %%
def adamw(net, rate):
    return torch.optim.AdamW(net.parameters(), lr=rate)  # with its weight decay, 0.01


def cnn_task(seed):
    data = ns.load_dataset("fashion-mnist", seeds=[seed])  # each seed has a split of its own
    train, validation = (next(part.of_seeds()).head(10_000) for part in data[:2])
    images, labels = train.images.view(-1, 1, 28, 28), train.labels

    def batches(epoch):
        order = torch.from_numpy(stream(seed, "order", epoch).permutation(len(labels)))
        return [(images[rows], labels[rows]) for rows in order.split(50)[:n_steps]]

    def part(subset):
        return [(block.images.view(-1, 1, 28, 28), block.labels) for block in subset.split(1000)]

    parts = {"train": part(train.head(2000)), "val": part(validation.head(2000)), "test": part(data.test)}
    measures, scored = {"loss": cnn_loss, "accuracy": cnn_accuracy}, parts["val"][:1]
    return Task(make_cnn, ["2"], batches, parts, measures, scored, images[:8], adamw)


# %% [markdown]
# The next cell does the same for the GPT. Cells of notebook [13](13_grow_a_language_model.ipynb) define it, and are executed here. It reads
# Python's standard library. Validation and test are sequences of the same files, which it does not train on.


# %%
def tagged_cells(notebook, tag):  # what the cells of a notebook with a tag define
    cells, names = json.loads((NOTEBOOKS / notebook).read_text(encoding="utf-8"))["cells"], {}
    exec("\n\n".join("".join(cell["source"]) for cell in cells if tag in cell["metadata"].get("tags", ())), names)
    return SimpleNamespace(**names)


# %%
small_gpt = tagged_cells("13_grow_a_language_model.ipynb", "gpt")


def make_gpt(width, rng):
    return small_gpt.GPT(width=32, n_heads=4, hidden=width, rng=rng)


def gpt_accuracy(net, sequences):
    return (net(sequences[:, :-1]).argmax(-1) == sequences[:, 1:]).float().mean()


def gpt_task(seed):
    training, validation, _, _ = small_gpt.standard_library()

    def batches(epoch):
        order = stream(seed, "order", epoch).integers(len(training) - small_gpt.CONTEXT, size=(n_steps, 16))
        return [small_gpt.windows(training, starts) for starts in torch.from_numpy(order)]

    held_out = small_gpt.evenly_spaced(validation, 256)
    parts = {"train": [small_gpt.evenly_spaced(training, 64)], "val": [held_out[::2]], "test": [held_out[1::2]]}
    measures, scored = {"loss": small_gpt.loss_of, "accuracy": gpt_accuracy}, [held_out[:32:2]]
    layers, example = ["blocks.0.up", "blocks.1.up"], held_out[:1, :8]
    return Task(make_gpt, layers, batches, parts, measures, scored, example, adamw)


# %% [markdown]
# ## Ten arms
#
# The arm `base` splits random neurons and shares their outgoing weights at random. It takes twelve steps of growth, one after each of the
# first twelve epochs: one channel of the CNN, or four neurons in each hidden layer of the GPT. Others differ from it in one thing. `early` and
# `late` grow at once, so all neurons are split and nothing is chosen. `fresh` neurons have no parent. Scores are taken from validation
# examples, as in the study, at what a layer gives before its activation: to set that to 0 sets the neuron to 0.

# %%
WIDTHS, N_EPOCHS = {"cnn": (4, 16), "gpt": (16, 64)}, 16
RATES = {"cnn": [0.001, 0.002, 0.004, 0.008, 0.016], "gpt": [0.004, 0.008, 0.016]}
IN_FULL = {"cnn": 200, "gpt": 50}  # steps of an epoch
ARMS = {  # which, how and when
    "final width": ("", "", "never"), "small": ("", "", "never"),
    "base": ("random", "outgoing", "one at a time"),
    "importance": ("activation_importance", "outgoing", "one at a time"),
    "ablation loss": ("ablation_loss_increase", "outgoing", "one at a time"),
    "halves": ("random", "even", "one at a time"), "fresh": ("all", "fresh", "one at a time"),
    "early": ("all", "outgoing", "early"), "late": ("all", "outgoing", "late"), "fresh, early": ("all", "fresh", "early"),
}  # fmt: skip


def arm_of(name, first, last):
    which, how, when = ARMS[name]
    if when == "never":
        return Arm(last if name == "final width" else first)
    one_at_a_time = {n: first + n * (last - first) // 12 for n in range(1, 13)}
    growths = {"one at a time": one_at_a_time, "early": {1: last}, "late": {N_EPOCHS // 2: last}}
    return Arm(first, growths[when], which, how)


# %% [markdown]
# ## Train, at the best of several rates
#
# On each tuning seed, every arm is trained at each of several learning rates, and keeps the one with the lowest validation loss. The seeds that
# are measured are others. The loop is one file, [any_module.py](../neuronsplit/measuring/any_module.py). By default, the next cells train two
# arms for a few steps, which is far too short to compare them.

# %%
TASKS = {"cnn": cnn_task, "gpt": gpt_task}
n_steps, (first, last) = steps or IN_FULL[network], WIDTHS[network]
of_arms = {name: arm_of(name, first, last)._asdict() for name in arms or ARMS}
parameters = {"network": network, "steps": n_steps, "epochs": N_EPOCHS, "optimizer": "AdamW", "weight_decay": 0.01}
data = fingerprint(ns.load_dataset("fashion-mnist")) if network == "cnn" else small_gpt.standard_library()[3]
parameters |= {"data": data, "arms": of_arms}


def in_single_precision(rows):  # the losses, in tables that are saved
    return rows.astype({name: "float32" for name in rows if name.endswith("_loss")})


# %%
def trained(seed, rates, tuning):  # the rows of a seed; rates: arm → learning rates
    file = ROOT / save / f"{network}-{'tuning-' if tuning else ''}{seed}.parquet"
    made_by = {"study": "beyond-one-layer", "parameters": parameters | {"learning_rates": rates}}
    runs, task = analysis.kept_runs(file, made_by) if save else {}, TASKS[network](seed)
    missing = [(arm, rate) for arm in rates for rate in rates[arm] if (arm, rate) not in runs]
    for name, rate in missing:
        rows = train_arm(task, arm_of(name, first, last), rate, N_EPOCHS, seed)
        which, how, when = ARMS[name]
        rows = rows.assign(network=network, arm=name, which=which, how=how, when=when, seed=seed)
        runs[name, rate] = rows.assign(learning_rate=rate, tuning=tuning)
        if save:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_table(in_single_precision(pd.concat(runs.values())), file, made_by | circumstances())
    return pd.concat(runs.values(), ignore_index=True)


# %%
def chosen_rates(table):  # by the mean over tuning seeds of the lowest validation loss
    lowest = analysis.at_lowest_validation(table).pivot_table(index="arm", columns="learning_rate", values="val_loss")
    return lowest.idxmin(axis=1).to_dict()


rates = {arm: RATES[network][len(RATES[network]) // 2] for arm in of_arms}
if tuning_seeds:
    tried = [trained(seed, dict.fromkeys(of_arms, RATES[network]), True) for seed in tuning_seeds]
    rates = chosen_rates(pd.concat(tried, ignore_index=True))
live = pd.concat([trained(seed, {arm: [rates[arm]] for arm in of_arms}, False) for seed in seeds], ignore_index=True)
if join:
    made_by = {of: ns.provenance(sorted((ROOT / join).glob(f"{of}-[0-9]*.parquet"))[-1]) for of in WIDTHS}
    of_all = {of: made_by[of]["parameters"] for of in WIDTHS}
    joined = analysis.read_tables(ROOT / join)
    write_table(in_single_precision(joined), ROOT / table, made_by["gpt"] | {"parameters": of_all})
live[live.epoch.isin([0, 1, 12, 13, N_EPOCHS])][["arm", "epoch", "hidden", "parameters", "multiply_adds"]]

# %% [markdown]
# Notice the width, which rises by a step of growth after each of twelve epochs.

# ## The long run
#
# The next cell shows what made the table, and the tuning: the mean over tuning seeds of the lowest validation loss.

# %%
about, grids, edges = ns.provenance(ROOT / table), {}, {}
for of in TITLES:
    lowest = analysis.at_lowest_validation(long_run[(long_run.network == of) & long_run.tuning])
    grids[of] = lowest.pivot_table(index="arm", columns="learning_rate", values="val_loss", sort=False)
    chosen = picked[of].groupby("arm").learning_rate.first()
    assert (chosen == grids[of].idxmin(axis=1)).all()
    edges[of] = [arm for arm, rate in chosen.items() if rate in (min(grids[of]), max(grids[of]))]
    print(f"{TITLES[of]}: at the smallest or the largest rate: {', '.join(edges[of]) or 'none'}")
print(f"{about['machine']}, torch {about['versions']['torch']}")
pd.concat(grids, axis=1).round(3)

# %% [markdown]
# Notice which arms are at the edge of the grid: a rate beyond it could be better for them.
#
# ## Which, how and when
#
# The next cell tests all arms of a network as one family, against `base`. The column `detectable` is the smallest true difference that a
# t-test would find four times in five.

# %%
stats.style_tests(tests["cnn"], digits=3).set_caption("CNN")

# %%
stats.style_tests(tests["gpt"], digits=3).set_caption("GPT")

# %% [markdown]
# Notice the column `detectable` next to the differences: a smaller difference may exist unseen.
#
# ## Does growing pay?
#
# The next cell compares every arm with the final width from the start. `cost` is multiply-adds of all epochs, without those of scores, as a
# share. `epoch` is the mean of the epochs that validation picks.

# %%
against = {}
for of in TITLES:
    costs = long_run[(long_run.network == of) & ~long_run.tuning].groupby("arm").multiply_adds.max()
    rows = pd.DataFrame({"cost": (costs / costs["final width"]).map("{:.0%}".format)}).loc[list(ends[of])]
    rows["epoch"] = picked[of].groupby("arm").epoch.mean().round(1)
    rows["accuracy"] = picked[of].groupby("arm").test_accuracy.mean().round(3)
    rows["test loss"] = ends[of].mean().round(3)
    rows["loss − that of final width"] = analysis.differences(ends[of], "final width", list(rows.index))
    rows.loc["final width", "loss − that of final width"] = ""
    against[of] = rows.rename_axis(None)
pd.concat(against, names=["network"])

# %% [markdown]
# Notice two things. In both networks the layers that grow are a part of the whole only, so growing saves less than in a network of one layer.
# And the GPT is best at its last epochs: it has not been trained to the end, and longer training could change the order.
#
# ## What we see
#
# The next cell computes these sentences from the table, and asserts what does not depend on it.

# %%
pairs = [("importance", "base"), ("ablation loss", "base"), ("halves", "base"), ("fresh", "base"), ("early", "base")]
pairs += [("late", "base"), ("fresh, early", "base"), ("base", "small"), ("base", "final width")]
pairs += [("fresh, early", "final width")]
Markdown("\n".join(
    f"- {TITLES[of]}: the test loss of `{arm}` is {analysis.compare(ends[of], arm, other)}."
    for of in TITLES for arm, other in pairs
))  # fmt: skip

# %% tags=["nbval-ignore-output"]
for of in TITLES:
    assert set(ends[of]) == set(ARMS) and ends[of].notna().all(axis=None)
    measured = long_run[(long_run.network == of) & ~long_run.tuning]
    assert not set(measured.seed) & set(long_run[long_run.tuning].seed)
    same = measured[measured.arm.isin(["base", "importance", "ablation loss", "halves"])]
    assert same.pivot(index=["seed", "epoch"], columns="arm", values="multiply_adds").nunique(axis=1).eq(1).all()
assert set(live.arm) == set(arms or ARMS)
assert live[live.arm != "small"].groupby("arm").hidden.max().eq(WIDTHS[network][1]).all()
if table == "figures/data/beyond-one-layer.parquet":
    for of in TITLES:
        grown = [arm for arm in ARMS if ARMS[arm][2] != "never"]
        assert (tests[of].high[["early", "fresh, early", "final width"]] < 0).all()  # early is better than base
        assert not (
            stats.paired_tests(ends[of][grown].sub(ends[of]["final width"], axis=0), "test_loss").high < 0
        ).any()
        assert not (tests[of].high[["importance", "ablation loss"]] < 0).any()  # no score is better than chance
    assert tests["gpt"].high["fresh"] < 0 and picked["gpt"].groupby("arm").epoch.mean().min() > 15
    assert edges == {"cnn": ["fresh, early"], "gpt": []}
print(f"held: Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")

# %% [markdown]
# Back to the beginning: [00_start_here](00_start_here.ipynb) has the map of all notebooks.
