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
# # Grow while training
#
# One network learns and grows: at the end of every epoch a random hidden neuron is split into two, and training goes on. We watch its losses,
# what it gets wrong, and its neurons' incoming weights. The claim: a split moves no loss at the moment it happens, so growth
# shows in the curves only as what the new neuron then learns. The limit: one run of one network shows how, not whether
# it helps; [04_comparison](04_comparison.ipynb) asks that.

# %% tags=["parameters"]
dataset: str = "digits"  # or fashion-mnist
width: int = 10  # hidden neurons at the start
epochs: int = 20  # each ends with a split
learning_rate: float = 0.05  # of plain SGD
batch_size: int = 32  # images a step
seed: int = 0  # decides everything random
figures: str = ""  # a folder for the pictures, from the project's folder; none are saved by default

# %%
import json
import platform

import pandas as pd
import torch
from IPython.display import Image, display

import neuronsplit as ns
from neuronsplit import compare, drawings, plots, study
from neuronsplit.optimizers import start
from neuronsplit.policies import choose
from neuronsplit.scores import look
from neuronsplit.seeds import stream
from neuronsplit.split import draw
from neuronsplit.training import evaluate, measures, train_epoch

torch.set_num_threads(1)
plots.use_style()
pictures = study.ROOT / (figures or "runs/pictures")
pictures.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Data and network
#
# Pixels run from −0.5 to 0.5 in all three sets. The validation images are what a policy may look at; the test images are for
# us.

# %%
data = ns.load_dataset(dataset)
mlp = ns.MLP((data.train.images.shape[1], width, len(data.classes)), seed=seed)
print(
    "train",
    tuple(data.train.images.shape),
    " validation",
    tuple(data.validation.images.shape),
    " test",
    tuple(data.test.images.shape),
)
print("sizes", mlp.sizes, " parameters", mlp.n_parameters())

# %% [markdown]
# ## Train, split, repeat
#
# The whole method in one loop. Everything random has a stream of its own, named after what it decides.

# %%
order, coefficients, draws = ([stream(seed, purpose)] for purpose in ("order", "coefficients", "draws"))
optimizer = start("sgd", mlp, learning_rate)
history, fan_in = [], [mlp.weights[0][0].clone()]  # (H, pixels) after each epoch
for epoch in range(1, epochs + 1):
    train = measures("train", *train_epoch(mlp, data.train, order, optimizer, batch_size))
    unsplit = measures("unsplit", *evaluate(look(mlp, data.test)))

    neuron = choose(["random"], mlp, list(look(mlp, data.validation)), draws)
    mlp.split(neuron, draw("scaled", coefficients, len(data.classes)))

    test = measures("test", *evaluate(look(mlp, data.test)))
    history.append({name: value.item() for name, value in (train | unsplit | test).items()})
    history[-1] |= {
        "policy": "random",
        "seed": seed,
        "epoch": epoch,
        "hidden": mlp.width,
        "split_neuron": str(neuron.item()),
    }
    fan_in.append(mlp.weights[0][0].clone())
history = pd.DataFrame(history)
print("sizes", mlp.sizes, " parameters", mlp.n_parameters())

# %% [markdown]
# ## Curves
#
# Training values are means over the epoch as it went, test values are taken after the split.

# %%
figure = plots.apart(history, ["train_loss", "test_loss", "test_accuracy"])

# %% [markdown]
# The test loss just before and just after each split differs by rounding alone.

# %%
jump = (history.test_loss - history.unsplit_loss).abs().max()
print("largest change of the test loss by a split is below 1e-5:", jump < 1e-5)

# %% [markdown]
# ## What it sees
#
# The first 32 test images, each with the true name and, where the network says another, its answer in red.

# %%
answers = mlp(data.test.images[:32])[0].argmax(1)
truth = data.test.labels[:32]
titles = [data.classes[t] if t == a else f"{data.classes[t]}\nsays {data.classes[a]}" for t, a in zip(truth, answers)]
figure = drawings.images(data.test.images[:32], data.shape, titles, (truth == answers).tolist())
figure.savefig(pictures / "growth-images.png", dpi=90)

# %% [markdown]
# ## What its neurons look for
#
# The incoming weights of every hidden neuron as an image: red where it wants ink, blue where it wants none. The first
# `width` neurons keep their place; each later one stands where it was appended.

# %%
figure = drawings.fan_in(
    [fan_in[0], fan_in[-1]],
    [f"before training, {width} neurons", f"after {epochs} epochs, {mlp.width} neurons"],
    data.shape,
)
figure.savefig(pictures / "growth-weights.png", dpi=90)

# %% [markdown]
# The same as it happens: a frame an epoch, a new tile a split.

# %% tags=["nbval-ignore-output"]
made_by = {"dataset": dataset, "width": width, "epochs": epochs, "learning_rate": learning_rate, "seed": seed}
(pictures / "growth.json").write_text(json.dumps(made_by | study.circumstances(), indent=1))
drawings.growth_gif(fan_in, data.shape, pictures / "growth.gif")
display(Image(filename=pictures / "growth.gif"))

# %% [markdown]
# Twins begin as scaled copies of one another. How far did they part? The cosine between the incoming weights of each neuron and those of its parent at
# the end of training: 1 is where they started.

# %% tags=["nbval-ignore-output"]
tree = compare.lineage(history)
w = torch.nn.functional.normalize(fan_in[-1], dim=1)
tree["cosine"] = [(w[neuron] @ w[parent]).item() for neuron, parent in tree.parent.items()]
tree[tree.born > 0].round(3)

# %% [markdown]
# ## What we see
#
# The network learned and grew by a neuron an epoch, and no split moved the test loss by more than rounding.

# %%
assert mlp.width == width + epochs
assert jump < 1e-5
assert history.test_loss.iloc[-1] < history.test_loss.iloc[0]
print("held")

# %% [markdown]
# Next: [03_experiment](03_experiment.ipynb) does this for many networks at once, with any policy.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
