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
# A neuron can be replaced by two without changing what the network computes. This notebook draws the split, proves it, does it
# by hand in a dozen lines and then by the package, and measures how exact it is in float32 and in float64. The claim:
# with four of the five rules here, the largest change of an output is rounding. The limit: scaling a neuron needs an activation
# like ReLU; for others, two rules remain, and they are just as exact.

# %% tags=["parameters"]
seed: int = 0  # of the network, the inputs and the coefficients
width: int = 6  # hidden neurons before the split
neuron: int = 2  # the one that is split

# %%
import platform

import ipywidgets
import numpy as np
import pandas as pd
import torch

import neuronsplit as ns
from neuronsplit import drawings, plots
from neuronsplit.split import draw, scaled

plots.use_style()
torch.set_num_threads(1)

# %% [markdown]
# ## The idea
#
# A hidden neuron has incoming weights $w$, a bias $b$ and outgoing weights $v$. Its twins take scaled copies of them.

# %%
_ = drawings.split()

# %% [markdown]
# ## The proof
#
# The neuron computes $z = w \cdot x + b$ and sends $v \operatorname{relu}(z)$ to the next layer. Its twins compute $\alpha z$ and
# $\beta z$, and send
#
# $$\gamma v \operatorname{relu}(\alpha z) + \delta v \operatorname{relu}(\beta z)
#   = (\alpha\gamma + \beta\delta)\, v \operatorname{relu}(z) = v \operatorname{relu}(z),$$
#
# because $\operatorname{relu}(\alpha z) = \alpha \operatorname{relu}(z)$ for $\alpha > 0$, and because the coefficients are chosen so that
# $\alpha\gamma + \beta\delta = 1$. Nothing after the layer can tell the difference. ∎
#
# The 2021 study draws all four from $U[\frac12, 1)$ and divides each by $\sqrt{\alpha\gamma + \beta\delta}$.

# %%
coefficients = scaled(np.random.default_rng(seed), n_out=3)
alpha, beta, gamma, delta = (float(c) for c in coefficients)
print(
    f"α = {alpha:.3f}  β = {beta:.3f}  γ = {gamma:.3f}  δ = {delta:.3f}   αγ + βδ = {alpha * gamma + beta * delta:.3f}"
)

# %% [markdown]
# ## By hand
#
# A network of 4 inputs, `width` hidden neurons and 3 outputs, and 1,000 inputs to it.

# %%
rng = torch.Generator().manual_seed(seed)
w, b, v, c = (torch.randn(shape, generator=rng) for shape in ((width, 4), (width,), (3, width), (3,)))
x = torch.randn(1000, 4, generator=rng)  # (N, n_in)


def output(w, b, v):
    return torch.relu(x @ w.T + b) @ v.T + c  # (N, 3)


before = output(w, b, v)
print("w", tuple(w.shape), " b", tuple(b.shape), " v", tuple(v.shape), " output", tuple(before.shape))

# %% [markdown]
# The split: the first twin takes the neuron's place, the second is appended.

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
# ## By the package
#
# `MLP` holds R networks at once, its replicas; a split takes one neuron of each. Here R = 1, and the layer holds the numbers from above.

# %%
mlp = ns.MLP((4, width, 3), replicas=1, seed=seed)
mlp.weights, mlp.biases = [w[None], v[None]], [b[None, :, None], c[None, :, None]]
print("as the network by hand:", torch.allclose(mlp(x)[0], before, atol=1e-5))

mlp.split(neuron, draw("scaled", [np.random.default_rng(seed)], n_out=3))
print("sizes after the split: ", mlp.sizes)
print("twins as by hand:      ", torch.allclose(mlp.weights[0][0], w2) and torch.allclose(mlp.weights[1][0], v2))

# %% [markdown]
# ## How exact
#
# The largest change of any output over 1,000 inputs, for 200 networks of the study's shape, in float32 and in float64. The 2021 study
# reports 1e-5 to 1e-7 and 1e-16 to 1e-17.


# %%
def largest_change(rule, dtype, n=200, sizes=(784, 10, 10)):
    """Per network: the largest change of an output by one split, relative to the largest output."""
    networks = ns.MLP(sizes, replicas=n, seed=seed).to(dtype)
    images = torch.rand(1000, sizes[0], generator=torch.Generator().manual_seed(seed)).to(dtype) - 0.5
    streams = [np.random.default_rng(seed + r) for r in range(n)]
    before = networks(images)  # (R, N, 10)
    networks.split(torch.arange(n) % sizes[1], draw(rule, streams, sizes[2]))
    return (networks(images) - before).abs().amax((1, 2)) / before.abs().amax((1, 2))


# %% tags=["nbval-ignore-output"]
changes = pd.DataFrame(
    {
        (rule, str(dtype)[6:]): largest_change(rule, dtype)
        for rule in ns.RULES
        for dtype in (torch.float32, torch.float64)
    }
)
changes.agg(["median", "max"]).T.map("{:.0e}".format)  # n = 200 networks

# %% [markdown]
# Five rules under one constraint. `scaled` is the study's. `even` copies the neuron and halves what it sends: a placebo, since under SGD such twins
# receive the same gradients and never part. `outgoing` copies it and divides every outgoing weight at random; `scaled-outgoing` does both. `opposed`
# gives shares such as −0.3 and 1.3, so that twins pull many outputs opposite ways. The sixth, `noisy`, copies it with a little noise, as Net2Net does, and breaks the constraint.

# %%
rules = {rule: ns.RULES[rule](np.random.default_rng(seed), n_out=3) for rule in ns.RULES}
rounded = {rule: [np.round(c, 2).tolist() for c in drawn] for rule, drawn in rules.items()}
pd.DataFrame(rounded, index=["α", "β", "γ", "δ"]).T

# %% [markdown]
# ## Other activations
#
# Rules with α = β = 1 do not use that ReLU lets a scale through: they are exact for any activation, because twins then compute the very
# same number. The others are not: here is tanh.

# %%
z = np.linspace(-2, 2, 101)[:, None]  # (N, 1)
errors = {}
for name, activation in {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}.items():
    for rule, (alpha, beta, gamma, delta) in rules.items():
        sent = gamma * activation(alpha * z) + delta * activation(beta * z)  # (N, 3)
        errors[name, rule] = np.abs(sent - activation(z)).max()
exact = pd.Series(errors).unstack(0)[["relu", "tanh"]].loc[list(rules)] < 1e-12
exact.replace({True: "exact", False: "not exact"})

# %% [markdown]
# ## Try it
#
# What a neuron of one input sends on (grey), what its twins send on, and their sum. Move α, β and γ: δ follows, and the sum stays. In a
# running notebook the sliders move the picture; below it stands one setting, for those who only read.

# %% tags=["nbval-ignore-output"]
settings = {"α": 0.7, "β": 1.3, "γ": 0.6}
sliders = [ipywidgets.FloatSlider(v, min=0.2, max=2, step=0.05, description=name) for name, v in settings.items()]
picture = ipywidgets.Image()


def redraw(change=None):
    picture.value = drawings.png(drawings.twins(*(slider.value for slider in sliders)))


for slider in sliders:
    slider.observe(redraw, "value")
redraw()
ipywidgets.VBox([*sliders, picture])

# %%
_ = drawings.twins(*settings.values())

# %% [markdown]
# ## What we see
#
# Every rule but `noisy` is exact to rounding under ReLU: at most 1e-5 of the largest output in float32, 1e-14 in float64. Under tanh, the
# three rules that leave the incoming weights alone stay exact, the two that scale them do not.

# %%
assert change < 1e-5
largest = changes.max().unstack()  # a row a rule, a column a precision
assert (largest.float32.drop("noisy") < 1e-5).all() and (largest.float64.drop("noisy") < 1e-14).all()
assert exact.index[exact.relu].tolist() == ["scaled", "even", "outgoing", "scaled-outgoing", "opposed"]
assert exact.index[exact.tanh].tolist() == ["even", "outgoing", "opposed"]
print("held")

# %% [markdown]
# Next: [02_grow_while_training](02_grow_while_training.ipynb) splits a neuron at the end of every epoch.

# %% tags=["nbval-ignore-output"]
print(f"Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")
