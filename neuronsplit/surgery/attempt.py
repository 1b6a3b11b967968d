"""Split some sets of channels on trial; the network is as before at the end."""

from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neuronsplit.core.split import SPLIT_RULES, Coefficients
from neuronsplit.surgery.apply import SplitRecord
from neuronsplit.surgery.axes import varies, whole_slices
from neuronsplit.surgery.blocks import blocks_of
from neuronsplit.surgery.edits import Place, n_outputs
from neuronsplit.surgery.exactness import DOUBLE
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.noted_sizes import scaled_eps
from neuronsplit.surgery.places import places_of
from neuronsplit.surgery.scales import (
    NO_GAIN,
    Sharing,
    eps_factors,
    exact_rules,
    scales,
    shares_of,
    why_unscaled,
)
from neuronsplit.surgery.sets import Sets
from neuronsplit.surgery.trial_runs import Check


class Search(NamedTuple):
    """What is known of the network in which a split is sought, and what the split is to be like."""

    net: nn.Module
    labels: Labels
    layers: dict[str, Tensor]  # of each layer: the labels of its channels (n,)
    check: Check
    rule: str
    rng: np.random.Generator  # draws the coefficients
    unscaled: bool
    trial: Callable  # try_split, or what tries another change of these sets


class Inexact(Exception):
    """A set does not split exactly; a larger one may."""


class OtherRule(Inexact):
    """The same, and by another rule it does."""


def attempt(search: Search, sets: Sets, neurons: dict[str, list[int]], masks: list[Tensor]) -> SplitRecord:
    """Try a split of neurons of some layers, with the set (a mask) of each in turn.

    Raises Inexact where it is not exact. Raises ValueError for what no other set can mend.
    """
    labels = search.labels
    keys = [mask.numpy().tobytes() for mask in masks]
    by_key = dict(zip(keys, masks))
    distinct = [*by_key.values()]
    try:
        shared = shares_of(labels, sets, distinct)
        layouts, last = _layouts(search, sets, distinct, shared)
    except ValueError as error:
        raise Inexact(str(error)) from error
    of_neurons = _splits(neurons, [[*by_key].index(key) for key in keys])
    splits = [(distinct[of], shared[of]) for of in of_neurons]
    coefficients = _coefficients(search, layouts[0], splits)
    eps = eps_factors(labels, splits, coefficients)
    grown = _grown_sizes(labels, sets, [distinct[of] for of in of_neurons])
    whys = []
    for places in layouts:
        of_places = [list(place) for place in places]
        record = SplitRecord(neurons, search.rule, of_neurons, coefficients, of_places, last, [], {}, 0.0)
        try:
            return _found_exact(search, record, eps, grown)
        except Inexact as error:
            whys.append(error)
    raise whys[0]


def _layouts(
    search: Search, sets: Sets, masks: list[Tensor], shared: list[Sharing | None]
) -> tuple[list[list[Place]], bool]:
    """Where copies of sets (masks) may stand, and whether they come last: with their heads, or in blocks of views too.

    Raises ValueError where they cannot be copied.
    """
    labels = search.labels
    orders, distinct = [*search.layers.values()], {tuple(of.unique().tolist()) for of in search.layers.values()}
    if len({*chain(*distinct)}) < sum(map(len, distinct)):  # a copy that comes last in a part does not in the whole
        orders = []
    places, last = places_of(labels, sets, masks, orders, shared)
    if not places:
        raise ValueError("nothing makes or reads these channels")
    last = last and all(mask[grid].all() or not mask[grid].any() for mask in masks for grid in sets.grids)
    last = last and all(map(sets.are_whole_units, masks))
    blocks = [] if last else blocks_of(sets, masks)
    in_blocks = places_of(labels, sets, masks, [], shared, blocks)[0] if blocks else places
    return [places] if in_blocks == places else [places, in_blocks], last


def _found_exact(search: Search, record: SplitRecord, eps: dict[str, float], grown: tuple[list, list]) -> SplitRecord:
    """The record of a trial. Raises Inexact where it is not exact."""
    hidden = [norm for norm in eps if not scaled_eps(search.net, {norm: 1.0})]
    if hidden and search.check.tolerance > DOUBLE:  # too loose to notice it
        raise Inexact(f"the eps of {hidden[0]!r} is written into it")
    record, error = search.trial(search.net, record, search.check, eps, *grown)
    if error is not None:
        both = [name for name, axis, *_ in record.places if (name, (axis,)) in search.labels.reads_numbers]
        also = f"; {both[0]!r} also reads numbers that no parameter makes" if both else ""
        if "is invalid for input of size" in error:  # of view and reshape
            also += "; in its forward, flatten(1) helps, or -1 in place of the size"
        raise Inexact(f"the network does not run with it, {error}{also}")
    if record.change > search.check.tolerance:
        also = f", with the eps of {hidden[0]!r} as it is" if hidden else ""
        raise Inexact(f"it would change the output by {record.change:.1e}{also}")
    return record


def _splits(neurons: dict[str, list[int]], sets: list[int]) -> list[int]:
    """The sets that are split, in turn, from that of each neuron: neurons of one set split it once."""
    asked = [(where, number) for where, numbers in neurons.items() for number in numbers]
    splits: list[int] = []
    for at, (neuron, of) in enumerate(zip(asked, sets)):
        if asked[: at + 1].count(neuron) > splits.count(of):
            splits.append(of)
    return splits


def _coefficients(search: Search, places: list[Place], splits: list[tuple[Tensor, Sharing | None]]) -> list[list]:
    """The coefficients of splits of sets. Raises ValueError where they scale what lets no scale through.

    splits: the set that each splits, and how its twins share.
    """
    masks = [mask for mask, share in splits if share is None]
    if len(masks) < len(splits) and not SPLIT_RULES[search.rule].exact:
        raise Inexact("what is summed splits by exact rules")
    n_out = n_outputs(places, search.labels.tensors)
    drawn = [SPLIT_RULES[search.rule].draw(search.rng, n_out) for _ in splits]
    if masks and any(map(scales, drawn)) and (whys := why_unscaled(search.labels, masks)):
        if not search.unscaled:
            allowed = ", ".join([*exact_rules(whys), "or unscaled=True"])
            kind = OtherRule if whys[0] == NO_GAIN else ValueError
            raise kind(f"rule {search.rule!r} is not exact through {whys[0]}: allowed are {allowed}")
        drawn = [Coefficients(1.0, 1.0, g / (g + d), d / (g + d)) for _, _, g, d in drawn]
    found = [each if share is None else share(each) for each, (_, share) in zip(drawn, splits)]
    return [[np.asarray(c).tolist() for c in each] for each in found]


def _grown_sizes(labels: Labels, sets: Sets, masks: list[Tensor]) -> tuple[list[tuple[int, int]], ...]:
    """Sizes before and after splits of sets: numbers of heads and groups, and all others."""
    of_heads, others = [], []
    for channels in (torch.unique(sets.roots[of]) for of in [*labels.owners.values(), *labels.pieces]):
        others.append((len(channels), len(channels) + sum(int(mask[channels].sum()) for mask in masks)))
    for grid in sets.grids:
        axes = [(mask, axis) for mask in masks for axis in _axes(mask[grid], grid)]
        for axis in dict.fromkeys(axis for _, axis in axes):
            slices = torch.unique(grid.movedim(axis, 0).flatten(1), dim=0)  # (n, …), without a batch
            n_copied = sum(int(mask[slices].any(1).sum()) for mask, of in axes if of == axis)
            (of_heads if varies(sets.units[grid], axis) else others).append((len(slices), len(slices) + n_copied))
    for head in [head for head in sets.heads if len(torch.unique(head[:, 0])) == 1]:
        others.append((1, 1 + sum(bool(mask[head].all()) for mask in masks)))
    return of_heads, others


def _axes(mask: Tensor, grid: Tensor) -> list[int]:
    """The axes of a grid along which a mask may be copied."""
    if mask.all():
        return [*range(grid.dim())]
    slices = whole_slices(mask, grid) if mask.any() else None
    return [slices[0]] if slices else []
