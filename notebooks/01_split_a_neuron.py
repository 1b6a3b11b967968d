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
# # Split a neuron
#
# Without set-up, the public repository opens in [Colab](https://colab.research.google.com/github/YOUR_NAME/neuronsplit/blob/main/notebooks/01_split_a_neuron.ipynb)
# or in [Binder](https://mybinder.org/v2/gh/YOUR_NAME/neuronsplit/main?labpath=notebooks%2F01_split_a_neuron.ipynb).
#
# Can a hidden neuron be replaced by two without a change of what the network computes? Yes: five of the six rules in this notebook do it
# exactly, up to rounding error. The sixth rule, `net2net`, adds noise on purpose. The limit is the activation. Two of the five rules scale a
# neuron, which needs an activation like ReLU. The other three are exact with any activation.
#
# The notebook draws a split, proves it, does it by hand and with the package, and measures the error. What decides is the largest change of
# any output.
#
# Before this: [00_start_here](00_start_here.ipynb) has the idea in ten lines and a glossary.
#
# The next cell installs the package where it is missing, and does nothing elsewhere.

# %%
import importlib.util
import os
import subprocess
import sys

if importlib.util.find_spec("neuronsplit") is None:  # as on Colab: fetch the project, with the tables that it reads
    subprocess.run("git clone --quiet --depth 1 https://github.com/YOUR_NAME/neuronsplit".split(), check=True)
    os.chdir("neuronsplit")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "."], check=True)

# %% tags=["parameters"]
seed: int = 0  # of the network, the inputs and the coefficients
width: int = 6  # hidden neurons before the split
neuron: int = 2  # the neuron that is split

# %%
import platform

import numpy as np
import pandas as pd
import torch

import neuronsplit as ns
from neuronsplit.core.split import draw_coefficients
from neuronsplit.plots.interactive import show, split_sliders
from neuronsplit.plots.neurons import draw_split, draw_twin_outputs
from neuronsplit.plots.style import use_style

use_style()
torch.set_num_threads(1)

# %% [markdown]
# ## The idea
#
# A hidden neuron has incoming weights $w$, a bias $b$ and outgoing weights $v$. A split replaces it by two neurons, its twins. Each twin gets
# a scaled copy of these weights.
#
# The figure shows both states. Notice that the inputs and the next layer stay as they are, and that a second neuron appears between them.

# %%
_ = draw_split()

# %% [markdown]
# Notice the four factors: α and β scale what comes in, γ and δ scale what goes out. The condition above the right panel, αγ + βδ = 1, is all
# that an exact split needs.
#
# ## The proof
#
# The neuron computes $z = w \cdot x + b$ and sends $v \operatorname{relu}(z)$ to the next layer. Its twins compute $\alpha z$ and
# $\beta z$. Together they send
#
# $$\gamma v \operatorname{relu}(\alpha z) + \delta v \operatorname{relu}(\beta z)
#   = (\alpha\gamma + \beta\delta)\, v \operatorname{relu}(z) = v \operatorname{relu}(z).$$
#
# The first step holds because $\operatorname{relu}(\alpha z) = \alpha \operatorname{relu}(z)$ for $\alpha > 0$. The second holds because
# the coefficients satisfy $\alpha\gamma + \beta\delta = 1$. So the twins and the neuron are the same for every later layer. ∎
#
# The rule `scaled` comes from the study of 2021. It draws four numbers from $U[\frac12, 1)$ and divides each by
# $\sqrt{\alpha\gamma + \beta\delta}$. The next cell draws one set.

# %%
coefficients = ns.SPLIT_RULES["scaled"].draw(np.random.default_rng(seed), n_out=3)
alpha, beta, gamma, delta = (float(c) for c in coefficients)
print(f"α = {alpha:.3f}  β = {beta:.3f}  γ = {gamma:.3f}  δ = {delta:.3f}")
print(f"αγ + βδ = {alpha * gamma + beta * delta:.3f}")

# %% [markdown]
# Notice that αγ + βδ is 1. This holds for any four numbers.
#
# ## By hand
#
# The next cell makes a small network with random weights. It has 4 inputs, `width` hidden neurons and 3 outputs, and we look at its outputs
# for 1,000 inputs.

# %%
rng = torch.Generator().manual_seed(seed)
w, b, v, c = (torch.randn(shape, generator=rng) for shape in ((width, 4), (width,), (3, width), (3,)))
x = torch.randn(1000, 4, generator=rng)  # (N, n_in)


def output(w, b, v):
    return torch.relu(x @ w.T + b) @ v.T + c  # (N, 3)


before = output(w, b, v)
print("w", tuple(w.shape), " b", tuple(b.shape), " v", tuple(v.shape), " output", tuple(before.shape))

# %% [markdown]
# Now we split one neuron. The first twin takes the neuron's place, and the second twin is appended.

# %%
w2 = torch.vstack([w, beta * w[neuron]])
b2 = torch.hstack([b, beta * b[neuron]])
v2 = torch.hstack([v, delta * v[:, [neuron]]])
w2[neuron] *= alpha
b2[neuron] *= alpha
v2[:, neuron] *= gamma

change = (output(w2, b2, v2) - before).abs().max().item()
print("w", tuple(w2.shape), " b", tuple(b2.shape), " v", tuple(v2.shape))
print("changed by less than 1e-5:", change < 1e-5)

# %% [markdown]
# Notice that `w` and `b` have one more row, that `v` has one more column, and that the output did not change.
#
# ## With the package
#
# An `MLP` holds R networks, its replicas, one for each seed. Its method `split` splits one neuron of each replica. Here R is 1, and the layers
# hold the numbers from above.

# %%
mlp = ns.MLP((4, width, 3), seeds=[seed])
mlp.weights, mlp.biases = [w[None], v[None]], [b[None, :, None], c[None, :, None]]
print("same outputs as by hand:  ", torch.allclose(mlp(x)[0], before, atol=1e-5))

mlp.split(neuron, draw_coefficients("scaled", [np.random.default_rng(seed)], n_out=3))
print("sizes after the split:    ", mlp.sizes)
print("same twins as by hand:    ", torch.allclose(mlp.weights[0][0], w2) and torch.allclose(mlp.weights[1][0], v2))

# %% [markdown]
# ## The six rules
#
# A rule says how the four coefficients are drawn. The table shows one draw of each rule; a list has one number for each of the 3 outputs.

# %%
drawn = {name: rule.draw(np.random.default_rng(seed), n_out=3) for name, rule in ns.SPLIT_RULES.items()}
rounded = {name: [np.round(c, 2).tolist() for c in coefficients] for name, coefficients in drawn.items()}
pd.DataFrame(rounded, index=["α", "β", "γ", "δ"]).T

# %% [markdown]
# - `scaled` is the rule of the 2021 study: it scales all four.
# - `even` copies the neuron and halves its outgoing weights. It is a placebo: under SGD both twins receive the same gradients and stay equal.
# - `outgoing` copies the neuron and divides each outgoing weight at random.
# - `scaled-outgoing` does both.
# - `antisymmetric` divides each outgoing weight into ½ + ξ and ½ − ξ. One of the shares is often negative, so the twins push that output in
#   opposite directions.
# - `net2net` copies the neuron and adds a little noise to its shares, as Net2Net does. The noise breaks the condition αγ + βδ = 1.
#
# ## How exact is a split?
#
# The next cells split a neuron in each of 200 networks of the study's shape. They measure the largest change of any output over 1,000 inputs,
# relative to the largest output, once in float32 and once in float64.


# %%
def largest_change(rule, dtype, n=200, sizes=(784, 10, 10)):
    """The largest change of an output by one split, relative to the largest output: one number per network."""
    networks = ns.MLP(sizes, seeds=range(seed, seed + n)).to(dtype)
    images = torch.rand(1000, sizes[0], generator=torch.Generator().manual_seed(seed)).to(dtype) - 0.5
    rngs = [np.random.default_rng(seed + r) for r in range(n)]
    before = networks(images)  # (R, N, 10)
    networks.split(torch.arange(n) % sizes[1], draw_coefficients(rule, rngs, sizes[2]))
    return (networks(images) - before).abs().amax((1, 2)) / before.abs().amax((1, 2))


# %% tags=["nbval-ignore-output"]
changes = pd.DataFrame(
    {
        (rule, str(dtype)[6:]): largest_change(rule, dtype)
        for rule in ns.SPLIT_RULES
        for dtype in (torch.float32, torch.float64)
    }
)
changes.agg(["median", "max"]).T.map("{:.0e}".format)  # n = 200 networks

# %% [markdown]
# Notice two things. With the first five rules the change is as small as the precision allows, and it shrinks when the precision grows. With
# `net2net` it is 2 % of the largest output in both precisions, so it is not rounding error.
#
# ## Other activations
#
# Rules with α = β = 1 do not need $\operatorname{relu}(αz) = α \operatorname{relu}(z)$. Their twins compute the very same number as the neuron, so these rules are
# exact for any activation. The next cell compares ReLU with tanh.

# %%
z = np.linspace(-2, 2, 101)[:, None]  # (N, 1)
errors = {}
for name, activation in {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}.items():
    for rule, (alpha, beta, gamma, delta) in drawn.items():
        sent = gamma * activation(alpha * z) + delta * activation(beta * z)  # (N, 3)
        errors[name, rule] = np.abs(sent - activation(z)).max()
exact = pd.Series(errors).unstack(0)[["relu", "tanh"]].loc[list(drawn)] < 1e-12
exact.replace({True: "exact", False: "not exact"})

# %% [markdown]
# Notice that `scaled` and `scaled-outgoing` lose their exactness under tanh, and that the other three exact rules keep it.
#
# ## Try it
#
# The figure shows what a neuron of one input sends to the next layer (grey). It also shows what each twin sends, and their sum (dashed). In a
# running notebook, move α, β and γ: δ follows from them, and the output does not change. Then untick the box and move δ: the
# dashed line leaves the grey one.

# %% tags=["nbval-ignore-output"]
start = {"alpha": 0.7, "beta": 1.3, "gamma": 0.6}
show(
    split_sliders(**start),
    otherwise="Sliders appear here where the notebook runs. The figure below shows where they begin.",
)

# %%
_ = draw_twin_outputs(**start)

# %% [markdown]
# Notice the title: as long as αγ + βδ is 1, the output changes by 0.
#
# ## What we see
#
# Every rule except `net2net` is exact up to rounding under ReLU. No output changes by more than 1e-5 of the largest output in float32, or by
# more than 1e-14 in float64. Under tanh, the three rules that leave the incoming weights alone stay exact. The two rules that scale them do
# not.
#
# The next cell asserts these sentences.

# %%
assert change < 1e-5
largest = changes.max().unstack()  # one row per rule, one column per precision
assert (largest.float32.drop("net2net") < 1e-5).all() and (largest.float64.drop("net2net") < 1e-14).all()
assert (changes.median().unstack().loc["net2net"].round(2) == 0.02).all()
assert exact.index[exact.relu].tolist() == ["scaled", "even", "outgoing", "scaled-outgoing", "antisymmetric"]
assert exact.index[exact.tanh].tolist() == ["even", "outgoing", "antisymmetric"]
print("held")

# %% [markdown]
# Next: [02_grow_while_training](02_grow_while_training.ipynb) splits a neuron at the end of every epoch.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
