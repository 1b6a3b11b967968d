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
# # What it costs
#
# How long does a study take, and could it be faster? The full study (eight experiments, ten seeds each, 100 epochs) takes 5 minutes on two
# cores. One network at a time, with a DataLoader, takes 14 times as long.
#
# This notebook reads three tables of measured times and draws them. What decides is the ratio of a time to what it is compared with. The limit:
# all times are from one processor with two cores, and nothing was measured on a GPU.
#
# Nothing is timed here: `make bench` measures everything anew.
#
# Before this: [13_grow_a_language_model](13_grow_a_language_model.ipynb) doubles a transformer in mid-training.

# %% tags=["parameters"]
speed: str = "figures/data/speed.parquet"  # the parts and the full study, from the project's folder
growth: str = "figures/data/speed-growth.parquet"  # seconds per epoch as widths, seeds, policies and images grow
branches: str = "figures/data/speed-branches.parquet"  # all splits of a network, each trained on
figures: str = ""  # where the figure goes, and how its name begins; it is not saved by default

# %%
import platform
from pathlib import Path

import pandas as pd

import neuronsplit as ns
from neuronsplit.locations import ROOT
from neuronsplit.plots.style import add_legend, row_of_panels, save_figure, set_title, use_style

use_style()
pd.set_option("display.max_colwidth", 80)

# %% [markdown]
# ## What was measured, and where
#
# Each table says in its own file what produced it. The next cell prints the machine, the versions and the study.

# %%
parts, by_size, by_width = (ns.read_table(ROOT / file) for file in (speed, growth, branches))
made_by = {Path(file).stem: ns.provenance(ROOT / file) for file in (speed, growth, branches)}
for name, one in made_by.items():
    print(f"{name:15} {one['machine']}, torch {one['versions']['torch']}, {one['finished'][:10]}")
study = made_by[Path(speed).stem]["parameters"]
print("\nthe study:", ", ".join(study["policy"]))
print({name: value for name, value in study.items() if name != "policy"})

# %% [markdown]
# Notice that all three tables come from one kind of machine. The full study ran once, in two processes of one thread each. All other times
# are medians.
#
# ## The full study
#
# The study is compared with three loops that train one network at a time with autograd. The first one is what most people would write: a
# DataLoader, and all cores. The second one indexes the tensors, which is faster. The third one is the second on one thread, with its time
# divided by the number of cores. It stands for as many of these loops as there are cores.
#
# These loops were timed per epoch at five widths and added up. They use MKL for matrix products, as PyTorch does by default.

# %%
full_study = parts[parts.figure == "full study, from start to report"].set_index("compared_with")
pd.DataFrame(
    {
        "study (s)": full_study.measured.map("{:.0f}".format),
        "compared with it (s)": full_study.other.map("{:.0f}".format),
        "times as long": full_study.ratio.map("{:.1f}".format),
    }
)

# %% [markdown]
# Notice the last row: indexed loops that run side by side on all cores still take 5.5 times as long.
#
# ## Where the time goes
#
# Most of the time of a step goes into two products of the first layer, forward and update. No implementation can skip them. The table
# compares a step of 7 × 5 networks with these two products alone. Seven policies with five seeds each are what one process trains at a time.


# %%
def compare(rows):
    """Rows of the table as text: a time, what it is compared with, and their ratio."""
    return pd.DataFrame(
        {
            "seconds": rows.measured.map("{:.2g}".format),
            "compared with": rows.compared_with,
            "its seconds": rows.other.map("{:.2g}".format),
            "ratio": rows.ratio.map("{:.2g}".format),
        }
    ).set_axis(rows.figure)


steps = parts[parts.figure.str.startswith("training step")]
compare(steps)

# %% [markdown]
# Notice that the wider the networks are, the closer the step comes to its two products.
#
# Three things make the step fast:
#
# - Networks of one seed train on the same mini-batches, so their first layers form one wide matrix product.
# - With plain SGD, the product that forms a gradient also adds it to the weights.
# - Products run in oneDNN instead of MKL where that keeps every bit of float32. On this processor it is twice as fast
#   ([matmul.py](../neuronsplit/core/matmul.py)).
#
# ## Splits and scores
#
# A growing network also pays for its splits and for the scores of its neurons. Scores read the activations that the evaluation on the
# validation images has computed. The table compares them with the training that surrounds them.

# %%
extras = parts[parts.figure.str.startswith(("a split", "ablation loss", "choice by"))]
compare(extras)

# %% [markdown]
# Notice the last column. A split costs less than half a percent of an epoch. A choice costs at most 3.4 % of an epoch. The most expensive ones
# are the three policies by ablation loss.
#
# ## How it grows
#
# The figure shows the seconds for one epoch on one core. Unless they vary, there are 35 neurons, 10 seeds, 7 policies and
# 10,000 images. The dashed bound is the time of the first layer's two products at the speed of one large matrix product. Both axes are
# logarithmic.

# %%
AXES = {"width": "hidden neurons", "seeds": "seeds", "policies": "policies", "images": "training images"}
LINES = {  # column → label, colour, marker, dashes
    "eager": ("one network at a time", "#b2182b", "s", "-"),
    "measured": ("measured", "#08519c", "o", "-"),
    "bound": ("bound: the first layer's products", "#5b5b5b", "", "--"),
}
figure, axes = row_of_panels(len(AXES), 2.6, 3.4, sharey=True)
for axis, (name, label) in zip(axes, AXES.items()):
    rows = by_size[by_size.axis == name].set_index("size")
    for column, (line, color, marker, dashes) in LINES.items():
        axis.plot(rows[column], label=line, color=color, marker=marker, ls=dashes)
    axis.set(xscale="log", yscale="log", xlabel=label)
    axis.set_xticks(rows.index, [f"{size:,}" for size in rows.index], fontsize=9)
    axis.minorticks_off()
axes[0].set_ylabel("seconds per epoch")
add_legend(figure, *axes)
set_title(figure, "each point is the median of three rounds")
save_figure(figure, figures, "speed-growth")

# %% [markdown]
# Notice the red line in the first panel: 20 times as many neurons take only 2.3 times as long. One small network at a time spends its time on
# overhead, not on products. The blue line stays within a factor of three of the bound.
#
# ## All splits of a network
#
# The study `oracle` splits every neuron of a network and trains each of these branches for ten epochs. The table counts the branches that one
# core finishes per second, and those that a loop over single networks finishes.

# %%
by_width = by_width.rename(columns={"eager": "one network at a time, per second"}).set_index("width")
by_width[["branches per second", "one network at a time, per second", "ratio"]].round(2)

# %% [markdown]
# Notice that the ratio is above 5 at every width.
#
# ## What was tried and is not used
#
# Three ideas were measured and rejected, because they save too little:
#
# - Images kept as bytes are gathered faster, but that saves less than 1 % of a step.
# - Gathering 16 mini-batches at once is no faster than gathering one.
# - Buffers of the final width would save the copies that a split makes, which take half a percent of an epoch.

# %%
gathered = parts[parts.figure.str.startswith("gathering")]
compare(gathered)

# %% [markdown]
# ## The goals, and which are missed
#
# Each goal was set before the work. A goal limits the ratio of a row, or its value where nothing is compared.


# %%
def meets(row):
    """Whether a row meets its goal, such as "at most 1.2"."""
    words, limit = row.goal.rsplit(" ", 1)
    value = row.measured if pd.isna(row.ratio) else row.ratio
    return value >= float(limit) if words == "at least" else value <= float(limit)


goals = parts.dropna(subset="goal").set_index("figure")
value = goals.ratio.fillna(goals.measured)
met = goals.apply(meets, axis=1)
pd.DataFrame({"value": value.map("{:.2g}".format), "goal": goals.goal, "met": met.map({True: "yes", False: "missed"})})

# %% [markdown]
# Six rows miss their goals: two for the step, one for the ablation loss and three for the choices by it. These goals were set with MKL's
# products. Since then, oneDNN has halved what they are compared with.
#
# ## What we see
#
# - The full study takes 312 seconds, and one network at a time with a DataLoader takes 13.7 times as long.
# - Indexed loops on all cores take 5.5 times as long.
# - A step takes 1.2 to 1.7 times as long as the two products that cannot be avoided.
# - A split takes less than 0.5 % of an epoch's steps, and a choice takes at most 3.4 % of an epoch.
# - All splits of a network train 5.6 to 7.6 times as fast as one by one.
# - Six of the rows with a goal miss it.
#
# The next cell asserts these sentences.

# %%
ratio = parts.set_index("figure").ratio
assert full_study.measured.round().eq(312).all() and study["n_seeds"] == 10 and len(study["policy"]) == 8
assert full_study.ratio.round(1).tolist() == [13.7, 9.0, 5.5]
assert steps.ratio.round(1).tolist() == [1.7, 1.3, 1.2]
assert ratio["a split of 7 × 5 networks, H = 60"] < 0.005
choices = extras[extras.figure.str.startswith("choice by")]
assert round(choices.ratio.max(), 3) == 0.034
assert choices.nlargest(3, "ratio").figure.str.contains("loss").all()
assert by_width.ratio.round(1).tolist() == [5.6, 7.4, 7.6]
assert (by_size.measured / by_size.bound).max() < 3
alone = by_size[by_size.axis == "width"].set_index("size").eager
assert round(alone[200] / alone[10], 1) == 2.3
assert gathered.ratio.max() - gathered.ratio.min() < 0.01
missed = met.index[~met]
assert len(missed) == 6 and missed.str.contains("step|ablation|loss").all()
assert {one["machine"] for one in made_by.values()} == {"x86_64 AVX512, 2 cores"}
print("held")

# %% [markdown]
# Next: [15_beyond_one_hidden_layer](15_beyond_one_hidden_layer.ipynb) asks which, how and when in a CNN and a transformer.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, pandas {pd.__version__}, neuronsplit {ns.__version__}")
