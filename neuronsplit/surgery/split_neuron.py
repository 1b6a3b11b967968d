"""Split neurons in any network that runs, in place, together with the optimiser's state.

The channels of a layer are followed through one run of the network (trace.py, labels.py, rules.py). What has to be
copied with a channel is found from it (sets.py), and where it stands in the parameters (places.py). Every parameter is
then changed in the same way (edits.py), and so is the state of the optimiser (optimizer_state.py). A split is made only
if the output on the example inputs stays the same (search.py, exactness.py). The network draws the same numbers before
and after it. The output in training is compared too, unless numbers are drawn there. What the network does only with
other inputs, such as optional ones left out, is not followed.

Some neurons have no exact split alone, but in a set of channels, such as a head of attention or a group. The smallest
such set is split where together=True, and the neuron is refused otherwise. Channels that always meet one by one count
as one here, such as a gate and what it gates, or the terms of a sum.

Channels that a norm joins split in both ways: all of them where together=True, and otherwise one alone (scales.py). For
it, the twins have α² + β² = 1 through RMSNorm. Through LayerNorm there are no twins: the new channel is the mean of
all, and so the norm makes it 0. What reads it is that of the neuron, so that it learns.

The optimiser's state is scaled as the gradients are. Where γ and δ differ by output, it is scaled by the means of their
powers. "carry" gives the second twin the state of its parent, and "reset" sets it to 0.
"""

import operator
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from neuronsplit.checks import require_name
from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.surgery.apply import MERGE, SplitRecord, make_split
from neuronsplit.surgery.candidates import with_neurons, with_widths
from neuronsplit.surgery.exactness import named_tensors, set_tensors
from neuronsplit.surgery.noted_sizes import Number, set_numbers
from neuronsplit.surgery.optimizer_state import optimizers_of
from neuronsplit.surgery.runs import require_module
from neuronsplit.surgery.saved_config import follow_config
from neuronsplit.surgery.search import find_split

STATES = "carry", "reset"  # what a second twin has of its parent's state in an optimiser
Optimizers = torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None


def split_neuron(
    net: nn.Module,
    where: str,
    neuron: int | None = None,
    *,
    neurons: Sequence[int] | None = None,
    example_inputs: object,
    optimizer: Optimizers = None,
    rule: str = "scaled",
    rng: np.random.Generator | None = None,
    together: bool = False,
    unscaled: bool = False,
    state: str = "carry",
    state_exponents: dict[str, int] | None = None,
) -> SplitRecord:
    """Split one or several neurons (channels) of a layer in place, without a change of the network's output.

    net: a network that runs. It is run a few times, with hooks, and small examples are enough.
    where: a layer by its name in `named_modules`, or a parameter by its name in `named_parameters`.
    neuron, neurons: one neuron, or several at once. A neuron named again has its first twin split once more.
    example_inputs: what the network is called with: a tensor, a tuple or list of arguments, or a dict of keyword ones.
    optimizer: the optimiser, or several, whose state is split too. One that is not given trains the old parameters.
    rule: a name in SPLIT_RULES. Twins of "even" stay equal. In one hidden layer, those of "antisymmetric" part most.
        "net2net" is not exact by definition, so it is not refused for that.
    rng: draws the coefficients; by default, they differ at every call.
    together: split all channels that a head, a group or a norm joins to the neuron, the smallest such set that is
        exact. In nn.MultiheadAttention, these are all heads and the width, because it has one size for them.
    unscaled: use α = β = 1 where the rule scales but the network lets no scale through, instead of refusing the split.
    state: what the second twin has of the optimiser's state: that of its parent by "carry", or nothing by "reset".
    state_exponents: for optimisers not of torch: the power of the gradient, 1 or 2, that each of their states averages.

    Returns a record of the split, for `replay`.
    Raises ValueError where no exact split is known. Network and optimiser are then unchanged.
    """
    _require_options(rule, rng, state)
    _require(isinstance(where, Hashable), f"layer {where!r}: allowed is one by its name; ns.widen takes several")
    optimizers, candidates = optimizers_of(optimizer), partial(with_neurons, {where: _numbers(neuron, neurons)})
    found = find_split(net, [where], candidates, example_inputs, rule, rng, together, unscaled)
    return follow_config(net, make_split(net, found, optimizers, state, state_exponents or {}), example_inputs)


def widen(
    net: nn.Module,
    widths: Mapping[str, int],
    *,
    example_inputs: object,
    optimizer: Optimizers = None,
    rule: str = "outgoing",
    rng: np.random.Generator | None = None,
    state: str = "carry",
    state_exponents: dict[str, int] | None = None,
) -> SplitRecord:
    """Split neurons of several layers in place until these have given widths, without a change of the output.

    widths: the new number of channels of each layer, by its name. Its first neurons are split, with the smallest sets
        that split exactly; where more are needed than there are, again from the first one.
        Layers with the same channels, as a skip connection joins them, have one width.
    rule: by default `outgoing`, which is exact through any activation. Twins of `even` would stay equal.
    Other arguments as of `split_neuron`. The network is traced once, and all layers are checked together.

    Returns a record of the splits, for `replay`.
    Raises ValueError where no exact split is known that has these widths. Network and optimiser are then unchanged.
    """
    _require_options(rule, rng, state)
    given = isinstance(widths, Mapping) and bool(widths)
    _require(given, f"widths {widths!r}: allowed is a dict of one or more, such as {{'fc1': 20}}")
    optimizers, candidates = optimizers_of(optimizer), partial(with_widths, dict(widths))
    found = find_split(net, [*widths], candidates, example_inputs, rule, rng, together=True, unscaled=False)
    return follow_config(net, make_split(net, found, optimizers, state, state_exponents or {}), example_inputs)


def replay(records: Iterable[SplitRecord], net: nn.Module) -> None:
    """Repeat recorded splits and merges, in their order, on a network in the state before the first of them.

    records: what `split_neuron`, `widen` and `merge_neurons` returned. They can come from a JSON file that
        json.dump(records, file) wrote.
    Raises ValueError where one of them cannot be made on this network, which is then unchanged.
    """
    require_module(net)
    tensors, changed = named_tensors(net), []
    try:
        for record in [records] if isinstance(records, SplitRecord) else records:
            fits = isinstance(record, list | tuple) and len(record) == len(SplitRecord._fields)
            what = f"record {str(record)[:60]!r}"
            _require(fits, f"{what}: allowed are records of split_neuron, or what JSON made of them")
            record = SplitRecord(*record)
            _require_options("even" if record.rule == MERGE else record.rule)
            make_split(net, record, [], "carry", {})
            changed += [Number(*number) for number in record.numbers]
    except Exception:
        set_tensors(net, tensors, {})
        set_numbers(net, reversed(changed), old=True)
        raise


def _numbers(neuron: int | None, neurons: Sequence[int] | None) -> list[int]:
    """One neuron or several, as a list of whole numbers."""
    _require((neuron is None) != (neurons is None), "neuron or neurons: allowed is exactly one of them")
    try:
        return [operator.index(number) for number in ([neuron] if neurons is None else neurons)]
    except TypeError as error:
        given = neuron if neurons is None else neurons
        raise ValueError(f"neuron {given!r}: allowed are a whole number, or neurons=[...]") from error


def _require_options(rule: str, rng: object = None, state: str = "carry") -> None:
    require_name("rule", rule, SPLIT_RULES)
    require_name("state", state, STATES)
    generator = rng is None or isinstance(rng, np.random.Generator)
    _require(generator, f"rng {rng!r}: allowed are numpy.random.default_rng(seed) and its like")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
