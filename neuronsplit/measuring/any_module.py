"""Which neuron, how and when, in any network: a plain training loop that grows the layers of a torch.nn.Module.

The study of one hidden layer trains many networks as one tensor program. This file trains one network at a time. Layers
are named; they grow by `split_neuron` and `widen`, and `neuron_scores` says which neuron.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from neuronsplit.checks import require_name
from neuronsplit.core.seeds import stream
from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.surgery.apply import make_split
from neuronsplit.surgery.neuron_scores import SCORES, neuron_scores
from neuronsplit.surgery.runs import tensors_of
from neuronsplit.surgery.split_neuron import split_neuron, widen

RANDOM, ALL, FRESH = "random", "all", "fresh"
Measure = Callable[[nn.Module, object], Tensor]  # a mean over a batch


class Task(NamedTuple):
    """What all arms share.

    make: a function (width, generator) that returns a new network, whose layers that grow have this width.
    layers: the names in `named_modules` of the layers that grow. Scores are those of their outputs.
    batches: a function (epoch) that returns the training batches of an epoch, counted from 1. It gives the same at
        every call. A batch weighs as much as its first tensor is long.
    parts: name → the batches of a part of the data, on which every measure is taken.
    measures: name → a function (net, batch). The one called "loss" is trained on.
    scored: the batches that scores are computed from.
    example_inputs: what the network is called with, for `split_neuron`.
    optimizer: a function (net, learning rate) that returns an optimiser.
    """

    make: Callable[[int, torch.Generator], nn.Module]
    layers: Sequence[str]
    batches: Callable[[int], Iterable]
    parts: Mapping[str, Sequence]
    measures: Mapping[str, Measure]
    scored: Sequence
    example_inputs: object
    optimizer: Callable[[nn.Module, float], Optimizer]


class Arm(NamedTuple):
    """One way to grow.

    width: the first one. growths: epoch → the width after it.
    which: "random", or the name of a score in SCORES, of which the largest are split. "all" splits one after the other.
    how: a name in SPLIT_RULES, or "fresh": the new neurons have the incoming weights of new networks. Their outgoing
        weights are 0, and they have no parent, so `which` is "all".
    """

    width: int
    growths: Mapping[int, int] = {}
    which: str = ALL
    how: str = "even"


class Streams(NamedTuple):
    """The random streams of growth: of the neurons that are chosen, of coefficients, and of fresh weights."""

    neurons: np.random.Generator
    coefficients: np.random.Generator
    weights: torch.Generator

    @classmethod
    def of(cls, seed: int) -> "Streams":
        return cls(stream(seed, "draws"), stream(seed, "coefficients"), _generator(seed, "weights", 1))


def train_arm(task: Task, arm: Arm, learning_rate: float, n_epochs: int, seed: int) -> pd.DataFrame:
    """Train a network and grow it; returns a row per epoch, and one before the first.

    The columns are epoch, hidden (the width), parameters, multiply_adds (spent until then, without those of scores)
    and {part}_{measure}. An epoch is measured before the network grows.
    Raises ValueError for an arm that is not allowed.
    """
    _require_arm(arm)
    net = task.make(arm.width, _generator(seed, "weights"))
    optimizer, rngs = task.optimizer(net, learning_rate), Streams.of(seed)
    width, spent, rows = arm.width, 0, [_row(task, net, 0, arm.width, 0)]
    for epoch in range(1, n_epochs + 1):
        costs: dict[int, int] = {}
        net.train()
        with torch.random.fork_rng(devices=[]):  # dropout of modules draws from torch's own generator
            torch.manual_seed(int(stream(seed, "dropout", epoch).integers(2**62)))
            for batch in task.batches(epoch):
                if (size := _size(batch)) not in costs:
                    costs[size] = multiply_adds(net, task.measures["loss"], batch)
                optimizer.zero_grad()
                task.measures["loss"](net, batch).backward()
                optimizer.step()
                spent += costs[size]
        rows.append(_row(task, net, epoch, width, spent))
        if (wider := arm.growths.get(epoch, width)) != width:
            grow(task, net, optimizer, arm, width, wider, rngs)
            width = wider
    return pd.DataFrame(rows)


def multiply_adds(net: nn.Module, loss: Measure, batch: object) -> int:
    """Return the multiply-adds of one training step, forward and backward, by torch's counter; net stays as it is."""
    net = copy.deepcopy(net)
    with torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss(net, batch).backward()  # fused attention is not counted
    return counter.get_total_flops() // 2


@torch.no_grad()
def evaluate(net: nn.Module, measures: Mapping[str, Measure], batches: Iterable) -> dict[str, float]:
    """Return the mean of each measure over all examples, in evaluation mode."""
    training = net.training
    net.eval()
    sizes, found = zip(*((_size(batch), [float(f(net, batch)) for f in measures.values()]) for batch in batches))
    net.train(training)
    return dict(zip(measures, np.average(found, axis=0, weights=sizes).tolist()))


def grow(task: Task, net: nn.Module, optimizer: Optimizer, arm: Arm, width: int, wider: int, rngs: Streams) -> None:
    """Let every layer of the task grow from a width to a larger one, in place, together with the optimiser's state.

    Raises ValueError where a growth is not possible.
    """
    if arm.how == FRESH:
        return _add_fresh(task, net, optimizer, width, wider, rngs.weights)
    options = {"example_inputs": task.example_inputs, "optimizer": optimizer, "rule": arm.how, "rng": rngs.coefficients}
    if arm.which == ALL:
        widen(net, dict.fromkeys(task.layers, wider), **options)
        return
    for where in task.layers:
        neurons = _choose(task, net, where, arm.which, width, wider - width, rngs.neurons)
        split_neuron(net, where, neurons=neurons, **options)


def _choose(
    task: Task, net: nn.Module, where: str, which: str, width: int, count: int, rng: np.random.Generator
) -> list[int]:
    """Choose different neurons of a layer to split."""
    if count > width:
        raise ValueError(f"growth from {width} to {width + count}: allowed are up to {2 * width}, unless which is all")
    if which == RANDOM:
        return rng.choice(width, count, replace=False).tolist()
    table = neuron_scores(net, where, task.measures["loss"], task.scored, scores=[which])
    return table[which].nlargest(count).index.tolist()


def _add_fresh(task: Task, net: nn.Module, optimizer: Optimizer, width: int, wider: int, rng: torch.Generator) -> None:
    """Add neurons: twins that get nothing of the outgoing weights, and then the incoming weights of a new network."""
    first = widen(copy.deepcopy(net), dict.fromkeys(task.layers, wider), example_inputs=task.example_inputs)
    if not first.last:
        raise ValueError(f"fresh neurons of {', '.join(task.layers)}: allowed are layers whose copies come last")
    make_split(net, first._replace(coefficients=[[1.0, 1.0, 1.0, 0.0]] * len(first.sets)), [optimizer], "reset", {})
    new = task.make(wider, rng)
    with torch.no_grad():
        for where in task.layers:
            for ours, fresh in zip(net.get_submodule(where).parameters(), new.get_submodule(where).parameters()):
                ours[width:] = fresh[width:]


def _require_arm(arm: Arm) -> None:
    require_name("which", arm.which, (RANDOM, ALL, *SCORES))
    require_name("how", arm.how, (*SPLIT_RULES, FRESH))
    if arm.how == FRESH and arm.which != ALL:
        raise ValueError(f"which {arm.which!r} with fresh neurons, which have no parent: allowed is all")
    widths = [arm.width, *(arm.growths[epoch] for epoch in sorted(arm.growths))]
    if widths != sorted(set(widths)):
        raise ValueError(f"widths {widths}: allowed are ones that rise from growth to growth")


def _generator(seed: int, purpose: str, *place: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(stream(seed, purpose, *place).integers(2**62)))


def _size(batch: object) -> int:
    """The number of examples: that of the first tensor."""
    return next(len(tensor) for tensor in tensors_of(batch) if tensor.dim())


def _row(task: Task, net: nn.Module, epoch: int, width: int, spent: int) -> dict:
    row = {"epoch": epoch, "hidden": width, "parameters": sum(p.numel() for p in net.parameters())}
    row["multiply_adds"] = spent
    for part, batches in task.parts.items():
        row |= {f"{part}_{name}": value for name, value in evaluate(net, task.measures, batches).items()}
    return row
