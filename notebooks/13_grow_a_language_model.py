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
# # Grow a language model
#
# Without set-up, the public repository opens in [Colab](https://colab.research.google.com/github/YOUR_NAME/neuronsplit/blob/main/notebooks/13_grow_a_language_model.ipynb)
# or in [Binder](https://mybinder.org/v2/gh/YOUR_NAME/neuronsplit/main?labpath=notebooks%2F13_grow_a_language_model.ipynb).
#
# Can a transformer grow in mid-training, and is that worth it? It can: its hidden layers, its heads and its residual stream double without a
# change of its output, and the optimiser goes on. At equal multiply-adds, growing
# ends below staying small, and above starting large.
#
# The networks are small GPTs that read Python's standard library as bytes. What decides is the validation loss at equal multiply-adds. The
# limits: one small size, one text, learning rates that change at a growth at most, and no growth of depth.
#
# Before this: [12_a_network_that_decides](12_a_network_that_decides.ipynb) learns which neuron to split.
# [05_split_your_own_network](05_split_your_own_network.ipynb) introduces the call that is used here.
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
seed: int = 0  # of the weights, the batches and the coefficients
steps: int = 40  # of the large network: their multiply-adds are the budget of every arm that is trained here
warm_up: int = 10  # steps in which the learning rate rises, at the start and where an arm asks for it after its growth
arms: list = ["small", "large", "grown at 50 %"]  # what is trained; [] takes all that have no rate yet, or else all
learning_rates: list = [0.008]  # each of these arms is trained at each of them; [] takes the best one in `tuning`
tuning: str = ""  # folder of the files of tuning seeds, from the project's folder
save: str = ""  # where the rows of this run go; they are not saved by default
join: str = ""  # folder of such files, which then become the table; by default, the table stays as it is
table: str = "figures/data/language-model.parquet"  # the long run, read
figures: str = ""  # where pictures go, and how their names begin; none are saved by default

# %% tags=["gpt"]
import copy
import hashlib
import os
import platform
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import neuronsplit as ns
from neuronsplit.analysis import arms as analysis
from neuronsplit.analysis.circumstances import circumstances
from neuronsplit.analysis.files import write_table
from neuronsplit.locations import ROOT
from neuronsplit.plots import curves, growth_in_training
from neuronsplit.plots.style import save_figure, use_style

torch.set_num_threads(1)
use_style()

# %% [markdown]
# ## The answer
#
# Five arms get the same number of multiply-adds. One is small from the start to the end, and one is large. Three are small at first, and
# double in every direction after 25, 50 or 75 % of the budget. AdamW trains them, and three of them are trained by Muon too. The next cell
# draws the long run, and computes four sentences from its table.

# %%
MAIN = {"small": 1, "large": 0, "grown at 25 %": 0.25, "grown at 50 %": 0.5, "grown at 75 %": 0.75}  # when they grow
long_run = ns.read_table(ROOT / table)
measured = long_run[~long_run.tuning]
ends = analysis.final_losses(measured)
best = ends[[*MAIN][2:]].mean().idxmin()
with_muon = {f"{arm}, Muon": arm for arm in ("small", "large", "grown at 50 %")}
panels = {"AdamW": measured, "Muon for matrices, AdamW for the rest": measured.assign(arm=measured.arm.map(with_muon))}
figure = growth_in_training.loss_against_cost(panels, MAIN)
save_figure(figure, figures, "language-model-cost")
answer = [
    f"At equal multiply-adds, the loss of `{best}`, the best of the three, ends {analysis.compare(ends, best, 'large')}.",
    f"The loss of `large` ends {analysis.compare(ends, 'large', 'small')}.",
    f"With Muon, the loss of `grown at 50 %, Muon` ends {analysis.compare(ends, 'grown at 50 %, Muon', 'large, Muon')}.",
    f"A new learning rate is a part of it: the loss of `grown at 50 %` ends {analysis.compare(ends, 'grown at 50 %', 'rate only')}, "
    "which stays small but gets a new rate.",
]
Markdown("\n".join(f"- {sentence}" for sentence in answer))

# %% [markdown]
# Notice the dots: a growth itself leaves the loss as it is. Where a curve rises after its dot, the first steps are too large for the grown
# network, as a later section explains. Brackets hold 95 % intervals of differences at the same seed, by Student's t.
#
# ## A network that knows nothing of splits
#
# A block has attention and a hidden layer, each behind an RMSNorm. Positions are learned. Rotary positions would do too: a head is copied
# as a whole.
# One matrix embeds the bytes and reads them out. Every matrix begins with normal weights of variance 1 / columns.


# %% tags=["gpt"]
HEAD, CONTEXT, N_BLOCKS = 8, 64, 2  # channels of a head, bytes that a prediction can see, and blocks
SMALL, LARGE = {"width": 16, "n_heads": 2, "hidden": 64}, {"width": 32, "n_heads": 4, "hidden": 128}


class Block(nn.Module):
    def __init__(self, width, n_heads, hidden):
        super().__init__()
        self.n_heads = n_heads
        self.norm_1, self.norm_2 = nn.RMSNorm(width, eps=1e-5), nn.RMSNorm(width, eps=1e-5)
        self.q, self.k, self.v = (nn.Linear(width, n_heads * HEAD, bias=False) for _ in range(3))
        self.out = nn.Linear(n_heads * HEAD, width, bias=False)
        self.up, self.down = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x):  # (B, T, width)
        h = self.norm_1(x)
        q, k, v = (f(h).unflatten(-1, (self.n_heads, HEAD)).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, heads, T, HEAD)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


# %% tags=["gpt"]
class GPT(nn.Module):
    def __init__(self, width, n_heads, hidden, rng):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(256, width), nn.Embedding(CONTEXT, width)
        self.blocks = nn.ModuleList(Block(width, n_heads, hidden) for _ in range(N_BLOCKS))
        self.norm, self.head = nn.RMSNorm(width, eps=1e-5), nn.Linear(width, 256, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=rng)

    def forward(self, ids):  # (B, T) bytes → (B, T, 256) logits
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


# %% [markdown]
# `LARGE` is twice as wide as `SMALL` in three directions.
#
# ## The text
#
# The text is the source of the standard library of the Python that runs this. Every tenth file is for validation. The text differs by
# version of Python, so tables record its hash.


# %% tags=["gpt"]
def standard_library():  # bytes to train on and to validate on, the number of files, and what tells versions apart
    sources = [path.read_bytes() for path in sorted(Path(os.__file__).parent.glob("*.py"))]
    training, validation = (
        torch.frombuffer(bytearray(b"".join(part)), dtype=torch.uint8)
        for part in ([one for n, one in enumerate(sources) if n % 10], sources[::10])
    )
    version = {"sha256": hashlib.sha256(b"".join(sources)).hexdigest(), "python": platform.python_version()}
    return training, validation, len(sources), version


def windows(data, starts):  # sequences (B, CONTEXT + 1) that begin at some places (B,), with their last targets
    return data[starts[:, None] + torch.arange(CONTEXT + 1)].long()


def evenly_spaced(data, count):  # so many sequences, spread over the whole text
    return windows(data, torch.linspace(0, len(data) - CONTEXT - 1, count).long())


def loss_of(net, sequences):  # the mean loss per byte, in nats, of sequences (B, CONTEXT + 1)
    return F.cross_entropy(net(sequences[:, :-1]).flatten(0, 1), sequences[:, 1:].flatten())


# %% tags=["nbval-ignore-output"]
training, validation, n_files, text = standard_library()
BATCH = 16  # sequences per step
held_out = evenly_spaced(validation, 128)


def rng_of(seed):
    return torch.Generator().manual_seed(seed)


def batches_of(seed, n_steps):  # the same for every arm of a seed: where the sequences of each step begin
    return torch.randint(len(training) - CONTEXT, (n_steps, BATCH), generator=rng_of(seed))


for name, size in (("small", SMALL), ("large", LARGE)):
    print(name, size, f"{sum(p.numel() for p in GPT(**size, rng=rng_of(0)).parameters()):,} parameters")
print("files:", n_files, " a byte of text is predicted from at most", CONTEXT, "before it")

# %% [markdown]
# ## Train with two kinds of optimisers
#
# The first is AdamW for all parameters. The second is Muon for the matrices of the blocks, and AdamW for the rest, at the same learning rate.
# The next cells train a small network with each.


# %%
def adamw(net):
    return [torch.optim.AdamW(net.parameters(), lr=0.008)]


def muon_and_adamw(net):
    matrices = [p for p in net.blocks.parameters() if p.dim() == 2]
    others = [p for p in net.parameters() if all(p is not matrix for matrix in matrices)]
    return [torch.optim.Muon(matrices, lr=0.016), torch.optim.AdamW(others, lr=0.016)]


def train(net, optimizers, starts):  # the loss of each step; starts (steps, BATCH)
    losses = []
    for start in starts:
        loss = loss_of(net, windows(training, start))
        net.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    return losses


# %%
OPTIMIZERS = {"AdamW": adamw, "Muon and AdamW": muon_and_adamw}
BEFORE, AFTER = 150, 40  # steps
starts = batches_of(seed, BEFORE + AFTER)
trained, first_losses = {}, {}
for name, make in OPTIMIZERS.items():
    net = GPT(**SMALL, rng=rng_of(seed))
    optimizers = make(net)
    first_losses[name] = train(net, optimizers, starts[:BEFORE])
    trained[name] = net, optimizers
    lower = np.mean(first_losses[name][-20:]) < 0.6 * first_losses[name][0]
    print(f"{name}: the loss has fallen by more than 40 %: {lower}")

# %% [markdown]
# ## Grow in mid-training
#
# `grow` doubles what it is told. One call splits all hidden neurons of a block, and another all its heads. A split of one channel of
# `tokens` with `together=True` takes the whole residual stream along. An embedding that is tied to the output lets it split only evenly.
#
# The next cells grow copies of both networks, each part alone and all together. They compare logits on other text than the example. The
# column `float64` repeats the recorded splits on a copy in double precision.


# %%
PARTS = ("MLP", "heads", "width")
EXAMPLE = held_out[:1, :8]


def grow(net, optimizers, parts=PARTS, rule="even", state="carry", rng=None):
    options = {"example_inputs": EXAMPLE, "optimizer": optimizers, "rule": rule, "state": state, "together": True}
    options["rng"] = rng or np.random.default_rng(seed)
    records = []
    for n, block in enumerate(net.blocks):
        if "MLP" in parts:
            neurons = range(block.up.out_features)
            records.append(ns.split_neuron(net, f"blocks.{n}.up", neurons=neurons, **options))
        if "heads" in parts:
            neurons = range(0, block.q.out_features, HEAD)  # the first channel of each head
            records.append(ns.split_neuron(net, f"blocks.{n}.q", neurons=neurons, **options))
    if "width" in parts:
        records.append(ns.split_neuron(net, "tokens", 0, **options))
    return records


# %% tags=["nbval-ignore-output"]
WAYS = {"MLP × 2": PARTS[:1], "heads × 2": PARTS[1:2], "width × 2": PARTS[2:], "all × 2": PARTS}


def change_of(before, after):  # of the logits, relative to the largest
    with torch.no_grad():
        old, new = (net(held_out[:32, :-1]) for net in (before, after))
    return ((new - old).abs().max() / old.abs().max()).item()


rows, grown = [], {}
for name, (net, optimizers) in trained.items():
    for way, parts in WAYS.items():
        larger, its_optimizers = grown[name, way] = copy.deepcopy((net, optimizers))
        records = grow(larger, its_optimizers, parts)
        double, larger_double = copy.deepcopy(net).double(), copy.deepcopy(net).double()
        ns.replay(records, larger_double)
        row = {"optimizer": name, "growth": way, "parameters": sum(p.numel() for p in larger.parameters())}
        rows.append(row | {"float32": change_of(net, larger), "float64": change_of(double, larger_double)})
exactness = pd.DataFrame(rows).set_index(["optimizer", "growth"])
assert (exactness.float32 < 3e-6).all() and (exactness.float64 < 1e-12).all()
exactness.style.format({"parameters": "{:,}", "float32": "{:.0e}", "float64": "{:.0e}"})

# %% [markdown]
# Notice that all changes are rounding errors.
#
# ## The loss goes on
#
# Three networks take the same batches. One has not grown. One has grown with its optimisers, and one has got new ones.

# %%
first_ratios, next_ten = {}, {}
for name, make in OPTIMIZERS.items():
    restarted = copy.deepcopy(grown[name, "all × 2"][0])
    continued = {
        "not grown": copy.deepcopy(trained[name]),
        "grown, same optimisers": copy.deepcopy(grown[name, "all × 2"]),
        "grown, new optimisers": (restarted, make(restarted)),
    }
    losses = pd.DataFrame({arm: first_losses[name] + train(*of, starts[BEFORE:]) for arm, of in continued.items()})
    figure = curves.loss_around_split(losses, step=BEFORE, window=AFTER)
    figure.axes[0].set(title=f"{name}: all × 2, one run", yscale="linear")
    first_ratios[name] = losses["grown, same optimisers"][BEFORE] / losses["not grown"][BEFORE]
    next_ten[name] = losses.iloc[BEFORE + 1 : BEFORE + 11].mean()
same_first = np.allclose(list(first_ratios.values()), 1, atol=1e-5)
print("the first loss is that of the network that has not grown:", same_first)

# %% [markdown]
# Notice that the blue line crosses the dotted one on the grey band. It then leaves the band by a little: the next section says why. A new
# AdamW stands out in the first steps.
#
# ## What theory says of the first steps
#
# An even growth makes $n$ copies of each entry and scales them by $c$. The gradient of each copy is then $1/(nc)$ of the old one. So the large
# network trains as the small one would with another learning rate for each matrix:
#
# | optimiser | its step | rate, relative |
# | --- | --- | --- |
# | SGD | goes with the gradient | $1/(nc^2)$ |
# | AdamW | does not depend on the gradient's size | $1/c$ |
# | Muon | is an orthogonal matrix, times a factor of its shape, $a$ | $a'/(a c\sqrt{n})$ |
#
# The next cells find these rates. The small network then takes five steps at them, and the grown one takes five at its own. Both are in
# float64, with an ε of almost 0 in AdamW. They begin with the state of the trained optimisers, apart from SGD, which starts anew. The last
# cell measures the gradients too.


# %%
def copies_and_scale(old, new):  # n and c
    return new.numel() / old.numel(), (new.square().mean() / old.square().mean()).sqrt().item()


def relative_rate(old, new, kind):  # of a parameter, by the kind of its optimiser
    (n, c), a = copies_and_scale(old, new), [max(1, p.shape[0] / p.shape[-1]) ** 0.5 for p in (old, new)]
    return {"SGD": 1 / (n * c**2), "AdamW": 1 / c, "Muon": a[1] / (a[0] * c * n**0.5)}[kind]


def at_relative_rates(optimizers, net, grown):  # optimisers with a rate for each parameter, and these rates
    names, after = {p: name for name, p in net.named_parameters()}, dict(grown.named_parameters())
    result, rates = [], {}
    for one in optimizers:
        groups, (group,) = [], one.param_groups
        for p in group["params"]:
            rate = rates[names[p]] = relative_rate(p, after[names[p]], type(one).__name__)
            decay = group["weight_decay"] / rate  # so that it stays what it was
            groups.append(group | {"params": [p], "lr": group["lr"] * rate, "weight_decay": decay})
        result.append(type(one)(groups))
        result[-1].state.update(one.state)
    return result, rates


# %%
def five_steps(kind, way):  # the relative rates, and how far the networks are apart after the steps
    net, optimizers = copy.deepcopy(trained["AdamW" if kind == "SGD" else kind])
    net.double()
    if kind == "SGD":
        optimizers = [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)]
    for one in optimizers:
        for state in one.state.values():
            state.update({key: value.double() for key, value in state.items() if key != "step"})
        one.param_groups[0] |= {"eps": 1e-40} if isinstance(one, torch.optim.AdamW) else {}
    small, its_optimizers = copy.deepcopy((net, optimizers))
    grow(net, optimizers, WAYS[way])
    its_optimizers, rates = at_relative_rates(its_optimizers, small, net)
    with torch.no_grad():
        before = small(EXAMPLE)
        with torch.enable_grad():
            train(net, optimizers, starts[BEFORE : BEFORE + 5])
            train(small, its_optimizers, starts[BEFORE : BEFORE + 5])
        after = small(EXAMPLE)
        return rates, ((net(EXAMPLE) - after).abs().max() / (after - before).abs().max()).item()


# %%
KINDS = ["SGD", *OPTIMIZERS]
steps_of = {way: {kind: five_steps(kind, way) for kind in KINDS} for way in WAYS}
theory = pd.DataFrame({way: {kind: apart for kind, (_, apart) in of.items()} for way, of in steps_of.items()}).T
print("apart after five steps, relative to how far the logits have moved:")
print(theory.map(lambda value: "< 1e-9" if value < 1e-9 else "< 0.05" if value < 0.05 else "more"))
rates_of = pd.DataFrame({kind: rates for kind, (rates, _) in steps_of["all × 2"].items()})
small = copy.deepcopy(trained["AdamW"][0]).double()
large = copy.deepcopy(small)
grow(large, None)
for net in (small, large):
    net.zero_grad()
    loss_of(net, held_out).backward()
for (name, old), new in zip(small.named_parameters(), large.parameters()):
    n, c = copies_and_scale(old.detach(), new.detach())
    measured_gradient = (new.grad.square().mean() / old.grad.square().mean()).sqrt().item()
    rates_of.loc[name, ["1 / (nc)", "gradient, relative"]] = 1 / (n * c), measured_gradient
first_block = [f"blocks.0.{layer}.weight" for layer in ("q", "out", "up", "down")]
rates_of.loc[["tokens.weight", *first_block, "norm.weight"]].round(2)

# %% [markdown]
# Notice the last table: the gradients are what theory says. With AdamW, an even growth makes `down` and `out` learn 2.83 times as fast. So
# the best learning rate of a grown network may be another. Muon computes in bfloat16, so it agrees to a few percent only.
#
# The theory has another side: after an even growth, the large network is a small one for ever. Something has to part the twins. Copies that
# carry their state stay alike for long, which is called *symmetry lock* ([SPARKLING](https://arxiv.org/abs/2602.02472)).
#
# ## What it is worth
#
# Arms are compared at equal multiply-adds. A matrix takes one per entry and token, attention takes two per channel and position, and the
# backward pass doubles that of the forward pass. Muon adds its own in each step: five times three products for each of its matrices.
# PyTorch's own counter checks this.


# %%
def multiply_adds(net):  # of a token, forward and backward
    matrices = sum(layer.weight.numel() for layer in net.modules() if isinstance(layer, nn.Linear))
    attention = sum(2 * CONTEXT * block.v.out_features for block in net.blocks)
    return 3 * (matrices + attention)


def cost_of_step(net, optimizers):
    groups = [group for one in optimizers if isinstance(one, torch.optim.Muon) for group in one.param_groups]
    shapes = [sorted(p.shape) for group in groups for p in group["params"]]
    return BATCH * CONTEXT * multiply_adds(net) + sum(5 * (2 * m * m * n + m**3) for m, n in shapes)


costs = {}
for name, size in (("small", SMALL), ("large", LARGE)):
    net = GPT(**size, rng=rng_of(seed))
    optimizers = muon_and_adamw(net)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # it counts no fused attention
        train(net, optimizers, starts[:1])
    costs[name], cost = (cost_of_step(net, of) for of in ([], optimizers))
    print(f"{name}: {multiply_adds(net):,} a token; Muon adds {cost / costs[name] - 1:.1%}")
    print(f"PyTorch counts the same: {cost == counter.get_total_flops() / 2}")
print(f"a step of the large one costs {costs['large'] / costs['small']:.2f} times as much")

# %% [markdown]
# ## What parts twins
#
# Uneven shares part hidden neurons and heads: the rules `outgoing` and `antisymmetric`. All channels of the residual stream at once have
# no uneven shares here. *Noise in cancelling pairs* parts all three: what reads two twins gets +e for one and −e for the other. The output
# stays the same, because twins are equal.


# %%
READS = {"down": "MLP", "out": "heads", "q": "width", "k": "width", "v": "width", "up": "width"}  # by layer


def twins(x, part):  # first twins, and second ones, along the last axis
    size = HEAD if part == "heads" else x.shape[-1] // 2
    pairs = x.unflatten(-1, (-1, 2, size))
    return pairs[..., 0, :], pairs[..., 1, :]  # (..., runs, size)


@torch.no_grad()
def add_noise(net, size, rng, parts):  # relative to the entries of each matrix
    for name, matrix in net.named_parameters():
        if READS.get(layer := name.split(".")[-2]) in parts:
            first, second = twins(matrix, READS[layer])
            e = size * matrix.square().mean().sqrt() * torch.randn(first.shape, generator=rng)
            first += e
            second -= e


def distance(a, b):  # relative: 0 for equal ones, √2 for those that have nothing in common
    return ((a - b).square().sum() / (a.square() + b.square()).sum() * 2).sqrt().item()


# %% [markdown]
# ## The arms
#
# The grown arms of the first figure double in every direction. They split evenly, with noise, and carry the optimiser's state. The others
# grow after half of the budget, and differ in one or two of these choices. `reset` sets the state of second twins to 0. `warm-up` lets the
# learning rate rise anew. An arm with `only` doubles one part; `rate only` doubles none, and gets a new rate.
#
# `Run` trains one network until it has spent a share of the budget. It evaluates at 40 points of the budget, the same for every arm. Arms that
# grow are copies of the small one at that moment, so they share its batches and its rate until then. After it, each has a rate of its own.
#
# The last of the next cells train the arms of the parameters, and save their rows. By default, these are three arms for a few seconds, which
# is far too short to compare them.

# %%
NOISE, POINTS = 1.0, 40  # the size of the noise, and evaluations per arm
ARMS = {
    **{name: {"at": share} for name, share in MAIN.items()},
    "even": {"noise": 0}, "outgoing": {"rule": "outgoing", "noise": 0}, "antisymmetric": {"rule": "antisymmetric", "noise": 0},
    "even, reset": {"noise": 0, "state": "reset"}, "even, reset, warm-up": {"noise": 0, "state": "reset", "warm_up": True},
    "noise, warm-up": {"warm_up": True}, "noise, reset": {"state": "reset"},
    "noise, reset, warm-up": {"state": "reset", "warm_up": True},
    "rate only": {"parts": []}, **{f"{part} only": {"parts": [part]} for part in PARTS},
    **{name: {"at": MAIN[arm], "optimizer": "Muon and AdamW"} for name, arm in with_muon.items()},
}  # fmt: skip
DEFAULT = {"at": 0.5, "parts": [*PARTS], "rule": "even", "noise": NOISE, "state": "carry", "warm_up": False}
ARMS = {name: DEFAULT | {"optimizer": "AdamW"} | arm for name, arm in ARMS.items()}


@torch.no_grad()
def evaluate(net):  # the validation loss, and the distances of twins: of what some layers of the last block read
    layers, read = {"MLP": net.blocks[-1].down, "heads": net.blocks[-1].out, "width": net.head}, {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, part=part: read.update({part: inputs[0]}))
        for part, layer in layers.items()
    ]
    loss = loss_of(net, held_out).item()
    for hook in hooks:
        hook.remove()
    return {"val_loss": loss} | {f"distance_{part}": distance(*twins(x, part)) for part, x in read.items()}


# %%
class Run:
    def __init__(self, size, optimizer):
        self.net = GPT(**size, rng=rng_of(1000 + seed))
        self.optimizers = OPTIMIZERS[optimizer](self.net)
        self.step, self.spent, self.warm, self.grown = 0, 0, 0, []  # warm: steps of the warm-up that are done
        self.rows, self.losses = [], [np.nan]

    def train(self, until, rate):
        cost = cost_of_step(self.net, self.optimizers)
        while self.spent < until * budget:
            self.note()
            self.warm = min(self.warm + 1, warm_up)
            for one in self.optimizers:
                one.param_groups[0]["lr"] = rate * self.warm / warm_up
            self.losses += train(self.net, self.optimizers, starts[self.step : self.step + 1])
            self.step, self.spent = self.step + 1, self.spent + cost

    def note(self):  # a row, if the next point is reached
        if self.spent >= len(self.rows) / POINTS * budget:
            row = {"point": len(self.rows), "step": self.step, "tokens": self.step * BATCH * CONTEXT}
            row |= {"multiply_adds": self.spent, "train_loss": np.mean(self.losses)} | evaluate(self.net)
            apart = {f"distance_{part}": np.nan for part in PARTS if part not in self.grown}
            self.rows.append(row | apart)
            self.losses = []


# %%
budget = steps * costs["large"]
starts = batches_of(1000 + seed, int(steps * costs["large"] / costs["small"]) + 2)


def begin(small, arm):  # a run at the moment of its growth
    run = copy.deepcopy(small)
    if 0 < arm["at"] < 1:
        grow(run.net, run.optimizers, arm["parts"], arm["rule"], arm["state"])
        add_noise(run.net, arm["noise"], torch.Generator().manual_seed(seed), arm["parts"])
        run.grown, run.warm = arm["parts"], 0 if arm["warm_up"] else run.warm
    return run


def trained_arms(
    optimizer, rates, rate_of_small
):  # yields the rows of each arm of this optimiser, at each of its rates
    small = Run(SMALL, optimizer)
    for name in sorted(rates, key=lambda name: ARMS[name]["at"]):
        small.train(at := ARMS[name]["at"], rate_of_small)
        first = Run(LARGE, optimizer) if at == 0 else begin(small, ARMS[name])
        for rate in rates[name]:
            run = Run(SMALL, optimizer) if at == 1 and rate != rate_of_small else copy.deepcopy(first)
            run.train(1, rate)
            run.note()
            yield pd.DataFrame(run.rows).assign(arm=name, seed=seed, learning_rate=rate)


# %%
best_of = analysis.best_rates(analysis.read_tables(ROOT / tuning)) if tuning else {}
arms = arms or [arm for arm in ARMS if not (learning_rates and arm in best_of)]
wanted = {arm: learning_rates or [best_of[arm]] for arm in arms}
smalls = {"AdamW": "small", "Muon and AdamW": "small, Muon"}
before_growth = {optimizer: best_of.get(arm) or (learning_rates or [0.008])[0] for optimizer, arm in smalls.items()}
of_arms = {arm: ARMS[arm] | {"rate before growth": before_growth[ARMS[arm]["optimizer"]]} for arm in arms}
parameters = {"seed": seed, "steps": steps, "warm_up": warm_up, "learning_rates": wanted, "arms": of_arms}
parameters |= {"small": SMALL, "large": LARGE, "context": CONTEXT, "batch": BATCH, "blocks": N_BLOCKS}
made_by = {"study": "language-model", "notebook": "13_grow_a_language_model", "parameters": parameters, "text": text}
runs = analysis.kept_runs(ROOT / save, made_by)
for optimizer, rate in before_growth.items():
    missing = {arm: [rate for rate in wanted[arm] if (arm, rate) not in runs] for arm in arms}
    missing = {arm: rates for arm, rates in missing.items() if rates and ARMS[arm]["optimizer"] == optimizer}
    for rows in trained_arms(optimizer, missing, rate):
        runs[rows.arm[0], rows.learning_rate[0]] = rows
live = pd.concat(runs.values(), ignore_index=True)
spent = live[live.point == POINTS].groupby("arm").multiply_adds.mean() / budget
print("points:", set(live.groupby(["arm", "learning_rate"]).size()), " spent, of the budget:", spent.round(2).to_dict())


# %% [markdown]
# Notice that every arm has spent the budget once.
#
# ## The long run
#
# `make reproduce TABLE=language-model` runs this notebook again and again, in two processes. Two seeds come first, for tuning: they try five or seven
# learning rates for every arm. Then follow five seeds that are measured. Each run writes one file. A run that finds its file trains only what is
# missing there.
#
# The next cell shows what made the table, and the tuning. Grown arms train at the best rate of the small network until they grow; the columns
# say the rate after it. A rate at the edge of the grid could be too small or too large.

# %%
singles = dict.fromkeys(["train_loss", "val_loss", *(f"distance_{part}" for part in PARTS)], "float32")
if save:
    (ROOT / save).parent.mkdir(parents=True, exist_ok=True)
    made_by |= circumstances()
    write_table(live.assign(tuning=bool(learning_rates)).astype(singles), ROOT / save, made_by)
if join:
    joined, files = analysis.read_tables(ROOT / join), sorted((ROOT / join).rglob("*.parquet"))
    assert {ns.provenance(file)["text"]["sha256"] for file in files} == {ns.provenance(files[0])["text"]["sha256"]}
    write_table(joined.astype(singles), ROOT / table, ns.provenance(files[-1]))
about = ns.provenance(ROOT / table)
settings, grid = about["parameters"], analysis.tuning_losses(long_run)
chosen = pd.Series(analysis.best_rates(long_run))
of_arm = measured.groupby("arm").learning_rate.agg(["min", "max"])
assert (of_arm.eq(chosen, axis=0)).all(axis=None)
tried = grid.notna().apply(lambda row: list(grid.columns[row]), axis=1)  # learning rates, by arm
at_edge = [arm for arm, of in tried.items() if chosen[arm] in (min(of), max(of))]
n_seeds, n_tuning = measured.seed.nunique(), long_run[long_run.tuning].seed.nunique()
print(f"{settings['steps']} steps of the large network, {about['machine']}")
print(f"text: Python {about['text']['python']}, SHA-256 {about['text']['sha256'][:16]}…")
print(f"{n_tuning} tuning seeds, {n_seeds} measured; rates at the edge of their grid: {len(at_edge)} of {len(chosen)}")
grid.sort_index(axis=1).round(3).assign(chosen=chosen)

# %% [markdown]
# ## At equal multiply-adds, and at equal tokens
#
# An arm that begins small sees more tokens for the same multiply-adds. The next cell compares every arm with the large one both ways. Equal
# tokens are those that the large one has seen at its end, where others may not have grown yet.

# %%
tokens, comparisons = measured.groupby("arm").tokens.max(), []
for large, others in {"large": [arm for arm in MAIN if arm != "large"], "large, Muon": [*with_muon][::2]}.items():
    rows = pd.DataFrame({"compared with": large, "tokens (millions)": (tokens / 1e6).round(1)[others]})
    rows["at equal multiply-adds"] = analysis.differences(ends, large, others)
    equal_tokens = analysis.losses_at(measured, "tokens", tokens[large])
    rows["at equal tokens"] = analysis.differences(equal_tokens, large, others)
    comparisons.append(rows)
pd.concat(comparisons)

# %% [markdown]
# Notice the signs of the two columns. They are losses minus that of the large one: means over the seeds, with 95 % intervals.
#
# ## Each part alone
#
# Three arms double only the hidden layers, the heads or the width, at half of the budget. Their steps cost less than those of an arm that
# doubles all, so they take more of them. A lower learning rate helps too, and every arm that grows gets a new one. So `rate only` gets it at
# the same time, and stays small.

# %%
alone = ["small", "rate only", *(f"{part} only" for part in PARTS), "grown at 50 %", "large"]
last_steps = measured[measured.point >= POINTS - 1].groupby(["arm", "seed"])[["multiply_adds", "step"]]
of_step = last_steps.agg(lambda column: column.max() - column.min()).groupby("arm").sum()
of_step, whole = of_step.multiply_adds / of_step.step, measured.groupby("arm")[["multiply_adds", "step"]].max()
parts_alone = pd.DataFrame({"a step at the end (million multiply-adds)": (of_step / 1e6).round(1)[alone]})
parts_alone["all steps (billion)"] = (whole.multiply_adds / 1e9).round(1)
parts_alone["steps"], parts_alone["loss"] = whole.step, ends.mean().round(3)
for other in ("rate only", "grown at 50 %"):
    parts_alone[f"loss − that of {other}"] = analysis.differences(ends, other, alone)
parts_alone

# %% [markdown]
# Notice the second column: all arms have spent the same.
#
# ## Do twins part?
#
# The next figure follows twins of the last block after a growth at half of the budget. The distance is that of their activations, relative
# to their size. It begins at rounding errors, because every growth is exact. The table adds what a recipe is worth. Differences are to `noise`,
# which is the arm `grown at 50 %` of the first figure.

# %%
RECIPES = {arm: arm for arm in ARMS if arm not in [*MAIN, *with_muon] and "only" not in arm} | {
    "grown at 50 %": "noise"
}
names = ["even", "outgoing", "antisymmetric", "noise", *(arm for arm in RECIPES if "," in arm)]
recipes = measured[measured.arm.isin(list(RECIPES))].assign(arm=lambda rows: rows.arm.map(RECIPES))
panels = {"distance_MLP": "hidden neurons", "distance_heads": "heads", "distance_width": "residual stream"}
figure = growth_in_training.twin_distances(recipes, names, panels)
save_figure(figure, figures, "language-model-twins")
final, last = analysis.final_losses(recipes), recipes[recipes.point == POINTS]
distance_of = last.groupby("arm")[list(panels)].mean().rename(columns=panels)
outcome = pd.DataFrame({"rate": of_arm["min"].rename(RECIPES)[names], "loss": final[names].mean().round(3)})
outcome["loss − that of noise"] = analysis.differences(final, "noise", names)
outcome.loc["noise", "loss − that of noise"] = ""
outcome.join(distance_of.round(3).add_prefix("distance: "))

# %% [markdown]
# Notice the residual stream: the rules for uneven shares leave its twins alike, and only noise or a reset parts them.
#
# ## What we see
#
# The next cell computes these sentences from the table, and asserts what does not depend on it.

# %%
least, most_apart = distance_of.min(axis=1)[names], distance_of.max(axis=1)[names]
parted, alike = [arm for arm in names if least[arm] > 0.01], [arm for arm in names if most_apart[arm] < 0.01]
some = [arm for arm in names if arm not in parted + alike]
lists = {"part in all three directions": parted, "part in some": some, "stay alike": alike}
lowest = final.mean().idxmin()
equal_tokens = analysis.losses_at(measured, "tokens", tokens["large"])
said = [*answer, f"At equal tokens, the loss of `{best}` is {analysis.compare(equal_tokens, best, 'large')}."]
pairs = [(best, "small"), ("grown at 50 %", "large"), ("large, Muon", "large"), ("grown at 50 %, Muon", "small, Muon")]
pairs += [("rate only", "small")] + [
    (f"{part} only", other) for part in PARTS for other in ("rate only", "grown at 50 %")
]
said += [
    f"At equal multiply-adds, the loss of `{arm}` ends {analysis.compare(ends, arm, other)}." for arm, other in pairs
]
said += [f"Arms whose learning rate is at the edge of its grid: {', '.join(f'`{arm}`' for arm in at_edge) or 'none'}."]
said += [f"Twins {how}: {', '.join(f'`{arm}`' for arm in found) or 'none'}." for how, found in lists.items()]
said += [f"The recipe with the lowest mean loss is `{lowest}`."]
said += [
    f"The loss of `{arm}` ends {analysis.compare(final, arm, 'noise')}."
    for arm in ("even", "antisymmetric", *names[-3:])
]
Markdown("\n".join(f"- {sentence}" for sentence in said))

# %% tags=["nbval-ignore-output"]
assert same_first and (theory[["SGD", "AdamW"]] < 1e-9).all(axis=None) and (theory["Muon and AdamW"] < 0.05).all()
assert round(rates_of.loc["blocks.0.down.weight", "AdamW"], 2) == 2.83
assert np.allclose(rates_of["1 / (nc)"], rates_of["gradient, relative"], rtol=1e-9)
assert next_ten["AdamW"].idxmax() == "grown, new optimisers"
assert set(live.arm) == set(arms) and (abs(spent - 1) < 0.05).all()
at_growth = recipes.dropna(subset="distance_MLP").groupby(["arm", "seed"])[list(panels)].first()
assert (at_growth < 1e-5).all(axis=None)
assert ends.notna().all(axis=None) and len(ends) == n_seeds and set(ends) == set(ARMS)
most = measured.groupby("arm").multiply_adds.max()
assert most.max() / most.min() < 1.05
only = [f"{part} only" for part in PARTS]
assert (of_step[only] < of_step["grown at 50 %"]).all() and (whole.step[only] > whole.step["grown at 50 %"]).all()
if table == "figures/data/language-model.parquet" and settings["steps"] >= 1000:
    assert n_seeds == 5 and n_tuning == 2 and at_edge == [] and most.max() / most.min() < 1.01
    assert alike == ["even"] and set(some) == {"outgoing", "antisymmetric"} and "noise" in parted
print(f"held: Python {platform.python_version()}, torch {torch.__version__}, neuronsplit {ns.__version__}")

# %% [markdown]
# Next: [14_what_it_costs](14_what_it_costs.ipynb) measures what a study, a split and a policy cost.
