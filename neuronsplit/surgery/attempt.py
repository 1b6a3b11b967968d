"""Try a split of sets of channels: change the network, run it, and put all back."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neuronsplit.core.split import SPLIT_RULES, Coefficients
from neuronsplit.surgery import exactness, noted_sizes, trial_runs
from neuronsplit.surgery.apply import SplitRecord, recorded_edits
from neuronsplit.surgery.edits import apply_edits, n_outputs
from neuronsplit.surgery.facts import varies
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.places import even_gain, places_of, scaled_norms, tied_names, why_unscaled
from neuronsplit.surgery.sets import Sets, whole_slices


class Search(NamedTuple):
    """What is split, and in which network."""

    net: nn.Module
    call: Callable[[], list[Tensor]]  # runs the network on its examples, for the check
    labels: Labels
    sets: Sets
    layers: dict[str, Tensor]  # of each layer: the labels of its channels (n,)
    neurons: dict[str, list[int]]  # of each layer: what is split
    draw: Callable[[int, int], list[Coefficients]]  # from numbers of outputs and of splits
    rule: str
    unscaled: bool
    tolerance: float
    trains: bool  # whether the network runs on its examples in training mode too


class Inexact(Exception):
    """A set does not split exactly; a larger one may."""


def attempt(search: Search, masks: list[Tensor]) -> SplitRecord:
    """Try a split of the set of each neuron; the network is as before at the end.

    Raises Inexact where it is not exact. Raises ValueError for what no other set can mend.
    """
    tensors = exactness.named_tensors(search.net)
    distinct = list({mask.numpy().tobytes(): mask for mask in masks}.values())
    of_neurons = _splits(search, [next(n for n, one in enumerate(distinct) if torch.equal(one, m)) for m in masks])
    try:
        orders = list(search.layers.values())
        places, last = places_of(search.labels, distinct, search.sets.units, orders, search.sets.even)
    except ValueError as error:
        raise Inexact(str(error)) from error
    if not places:
        raise Inexact("nothing makes or reads these channels")
    last = last and all(mask[grid].all() or not mask[grid].any() for mask in distinct for grid in search.sets.grids)
    drawn = _coefficients(search, distinct, n_outputs(places, tensors), len(of_neurons))
    as_lists = [[np.asarray(c).tolist() for c in each] for each in drawn]
    as_places = [list(place) for place in places]
    record = SplitRecord(search.neurons, search.rule, of_neurons, as_lists, as_places, last, [], {}, 0.0)
    edits = recorded_edits(record, search.net, tensors)
    new = {name: apply_edits(tensors[name], of) for name, of in edits.items()}
    shapes = {name: (list(tensors[name].shape), list(new[name].shape)) for name in edits}
    run, numbers = _run_with(search, tensors, new, _grown(search, distinct, shapes), distinct)
    if run.error is not None:
        both = [p.name for p in places if (p.name, (p.axis,)) in search.labels.reads_numbers]
        also = f"; {both[0]!r} also reads numbers that no parameter makes" if both else ""
        raise Inexact(f"the network does not run with it, {run.error}{also}")
    if SPLIT_RULES[search.rule].exact and run.change > search.tolerance:
        raise Inexact(f"it would change the output by {run.change:.1e}")
    return record._replace(numbers=[list(number) for number in numbers], shapes=shapes, change=run.change)


def _splits(search: Search, sets: list[int]) -> list[int]:
    """The sets that are split, in turn, from that of each neuron: neurons of one set split it once."""
    asked = [(where, number) for where, numbers in search.neurons.items() for number in numbers]
    splits: list[int] = []
    for at, (neuron, of) in enumerate(zip(asked, sets)):
        if asked[: at + 1].count(neuron) > splits.count(of):
            splits.append(of)
    return splits


def _run_with(
    search: Search,
    tensors: dict[str, Tensor],
    new: dict[str, Tensor],
    grown: list[trial_runs.Grown],
    masks: list[Tensor],
) -> tuple[trial_runs.Run, list[noted_sizes.Number]]:
    """Run the network with new tensors, and the numbers that it needs; then put all back."""
    net, change = search.net, partial(exactness.max_relative_change, search.call())
    changed = {id(tensors[name]): exactness.like(tensors[name], tensor) for name, tensor in new.items()}
    numbers: list[noted_sizes.Number] = []
    try:
        exactness.set_tensors(net, {n: changed[id(tensor)] for n, tensor in tensors.items() if id(tensor) in changed})
        numbers += noted_sizes.update_noted(net, new)
        if search.sets.even:
            gain = even_gain(search.labels, masks)
            numbers += noted_sizes.scale_eps(net, scaled_norms(search.labels, masks), gain**2)
        replaced = {tensors[name].untyped_storage()._cdata: name for name in new}
        run = partial(trial_runs.Run, net, search.call, change, replaced)
        run = trial_runs.find_numbers(net, run, search.tolerance, grown, list(new), numbers)
        if search.trains and run.error is None and run.change <= search.tolerance:
            net.train()  # what runs in training alone may have sizes of its own
            in_training = partial(trial_runs.Run, net, search.call, lambda out: 0.0, replaced)
            in_training = trial_runs.find_numbers(net, in_training, 0.0, grown, list(new), numbers)
            net.eval()
            run.error = in_training.error and f"in training, {in_training.error}"
        return run, numbers
    finally:
        exactness.set_tensors(net, tensors)
        for number in reversed(numbers):
            noted_sizes.set_number(net, number, number.old)


def _coefficients(search: Search, masks: list[Tensor], n_out: int, n: int) -> list[Coefficients]:
    """The coefficients of n splits. Raises ValueError where they scale what lets no scale through."""
    drawn = search.draw(n_out, n)
    names = tied_names(search.labels, masks)
    if search.sets.even:
        gain = even_gain(search.labels, masks)
        if gain is None or n > len(masks) or not SPLIT_RULES[search.rule].exact:
            raise Inexact("twins would not be even" if gain else "nothing is summed")
        return [Coefficients(gain, gain, 0.5 / gain, 0.5 / gain)] * n
    if names:
        raise Inexact(f"{names[0]!r} makes channels and reads them")
    if not any(map(exactness.scales, drawn)) or not (whys := why_unscaled(search.labels, masks)):
        return drawn
    if not search.unscaled:
        allowed = ", ".join(exactness.rules_without_scale())
        raise ValueError(
            f"rule {search.rule!r} is not exact through {whys[0]}: allowed are {allowed}, or unscaled=True"
        )
    return [Coefficients(1.0, 1.0, g / (g + d), d / (g + d)) for _, _, g, d in drawn]


def _grown(
    search: Search, masks: list[Tensor], shapes: dict[str, tuple[list[int], list[int]]]
) -> list[trial_runs.Grown]:
    """The sizes that have grown, and what they may be now: numbers of heads and groups, and then all others."""
    pairs = [pair for before, after in shapes.values() for pair in zip(before, after)]
    for owner in search.labels.owners.values():
        channels = torch.unique(search.sets.roots[owner])
        pairs.append((len(channels), len(channels) + sum(int(mask[channels].sum()) for mask in masks)))
    of_heads = []
    for grid in search.sets.grids:
        units = search.sets.units[grid]
        for mask in masks:
            if mask[grid].any() and (slices := whole_slices(mask[grid], grid)):
                for axis in range(grid.dim()) if mask[grid].all() else [slices[0]]:
                    distinct = torch.unique(grid.movedim(axis, 0).flatten(1), dim=0)  # (n, …), of any batch once
                    pair = len(distinct), len(distinct) + int(mask[distinct].any(1).sum())
                    (of_heads if varies(units, axis) else pairs).append(pair)
    grown: list[trial_runs.Grown] = [{}, {}]
    for sizes_of, found in zip((of_heads, pairs), grown):
        for before, after in sizes_of:
            if before != after:
                found.setdefault(before, set()).add(after)
    return grown
