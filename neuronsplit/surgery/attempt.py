"""Find a split that is exact: sets of channels are tried in double precision, the smallest first."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neuronsplit.core.split import SPLIT_RULES, Coefficients
from neuronsplit.surgery import exactness, sizes
from neuronsplit.surgery.apply import SplitRecord, recorded_edits
from neuronsplit.surgery.edits import apply_edits, n_outputs
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.places import layer_axis, places_of, tied_names, why_unscaled
from neuronsplit.surgery.products import ACROSS
from neuronsplit.surgery.sets import Sets, whole_slices
from neuronsplit.surgery.trace import trace, trace_in_training

NOISE = 0.1  # of parameters and inputs in the check, relative to their size


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


class Inexact(Exception):
    """A set does not split exactly; a larger one may."""


def find_split(
    net: nn.Module,
    neurons: dict[str, list[int]],
    example_inputs: object,
    rule: str,
    rng: np.random.Generator,
    together: bool,
    unscaled: bool,
) -> SplitRecord:
    """Find the smallest sets of channels with some neurons that split exactly; the network is as before at the end.

    neurons: of each layer. Other arguments as of `split_neuron`.
    Raises ValueError where there are none.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
            raise ValueError(f"{name!r} is a {type(module).__name__} that has not run: run the network once first")
    device = torch.get_default_device()  # for the network's own tensors; labels are on the CPU
    with exactness.in_evaluation(net), torch.device("cpu"):
        call_with = partial(exactness.call_with, net, example_inputs, device)
        noise = NOISE if SPLIT_RULES[rule].exact else 0.0  # an inexact split's change is that of the network itself
        double = _runs_in_double(net, call_with, noise)
        with exactness.in_double(net, noise) if double else nullcontext() as dtype:
            call = call_with(dtype, noise=0.0)
            labels, layers = _traced(net, call, neurons)
            for where, numbers in neurons.items():
                _require_neurons(where, numbers, len(layers[where]))
            tolerance = exactness.tolerance(labels.dtypes, double)
            draw = partial(_draw, rule, rng, rng.bit_generator.state)
            call = _checked(call, call_with(dtype, noise))
            return smallest(
                Search(net, call, labels, Sets(labels), layers, neurons, draw, rule, unscaled, tolerance), together
            )


def _runs_in_double(net: nn.Module, call_with: Callable, noise: float) -> bool:
    """Whether a network runs in float64, which one that fixes a precision does not."""
    with suppress(Exception), exactness.in_double(net, noise) as dtype:
        call_with(dtype, 0.0)()
        return True
    return False


def _checked(call: Callable[[], object], noisy: Callable[[], object]) -> Callable[[], list[Tensor]]:
    """A run for the check: on the examples, and on noise where the network gives finite numbers for it."""
    if not exactness.outputs_of(call()):
        raise ValueError("the network gives no numbers for the example inputs: allowed are inputs that it answers")
    with suppress(Exception):
        if all(bool(tensor.isfinite().all()) for tensor in exactness.outputs_of(noisy())):
            return lambda: exactness.outputs_of([call(), noisy()])
    return lambda: exactness.outputs_of([call()])


def _traced(net: nn.Module, call: Callable[[], object], neurons: dict[str, list[int]]) -> tuple[Labels, dict]:
    """The labels of a run, and those of some layers; of a second run where the first has labelled across them."""
    for mixing in (False, True):
        labels = Labels(net, mixing)
        trace(net, call, labels)
        trace_in_training(net, call, labels)
        layers = {where: layer_axis(labels, where) for where in neurons}
        barred = [label for why, label in labels.barred if ACROSS in why]
        if not barred or not any(
            torch.isin(of, labels.channels.roots(torch.cat(barred))).any() for of in layers.values()
        ):
            break
    return labels, layers


def _require_neurons(where: str, numbers: list[int], n: int) -> None:
    if not numbers:
        raise ValueError("neurons []: allowed are one or more")
    for number in numbers:
        if not 0 <= number < n:
            raise ValueError(f"neuron {number} of {where!r}: allowed are whole numbers from 0 to {n - 1}")


def _draw(rule: str, rng: np.random.Generator, state: dict, n_out: int, n: int) -> list[Coefficients]:
    """Draw the coefficients of n splits, the same each time that a set is tried."""
    rng.bit_generator.state = state
    return [SPLIT_RULES[rule].draw(rng, n_out) for _ in range(n)]


def smallest(search: Search, together: bool) -> SplitRecord:
    """The split of the smallest sets. Raises ValueError where there are none, or only larger ones than asked for."""
    whys: list[str] = []
    name = next(iter(search.neurons))
    for masks, why in _candidates(search):
        try:
            if why is not None:
                raise Inexact(why)
            record = attempt(search, masks)
        except Inexact as error:
            whys.append(str(error))
            continue
        covered = sum(int(torch.stack(masks).any(0)[order].sum()) for order in search.layers.values())
        asked = {int(search.layers[where][number]) for where, numbers in search.neurons.items() for number in numbers}
        if int(torch.stack(masks).any(0).sum()) > len(asked) and not together:
            whys += [*_joined_by(search, masks), "a shape in the network holds several channels"]
            raise ValueError(
                f"a neuron of {name!r} has no exact split alone ({whys[0]}): allowed is together=True, which splits "
                f"{covered} of its channels"
            )
        return record
    raise ValueError(
        f"{name!r} has no exact split known ({(whys or ['no set is whole'])[0]}): allowed are other layers"
    )


def _joined_by(search: Search, masks: list[Tensor]) -> list[str]:
    """What the channels of sets are joined by."""
    rows = search.sets.row_of[torch.stack(masks).any(0)[search.sets.in_row]]
    return [search.sets.why_row[row] for row in torch.unique(rows)[:1]]


def _candidates(search: Search) -> Iterator[tuple[list[Tensor], str | None]]:
    """The first set of each neuron, then the second, and so on; with them, why they cannot be copied, or None."""
    wanted = [int(search.layers[where][number]) for where, numbers in search.neurons.items() for number in numbers]
    of_label = {label: search.sets.candidates(search.sets.mask(torch.tensor([label]))) for label in wanted}
    found: dict[int, tuple[Tensor, str | None]] = {}
    while further := {label: one for label, of in of_label.items() if (one := next(of, None)) is not None}:
        found |= further
        chosen = [found[label] for label in wanted]
        yield [mask for mask, _ in chosen], next((why for _, why in chosen if why is not None), None)


def attempt(search: Search, masks: list[Tensor]) -> SplitRecord:
    """Try a split of the set of each neuron; the network is as before at the end.

    Raises Inexact where it is not exact. Raises ValueError for what no other set can mend.
    """
    tensors = exactness.named_tensors(search.net)
    distinct = list({mask.numpy().tobytes(): mask for mask in masks}.values())
    of_neurons = _splits(search, [next(n for n, one in enumerate(distinct) if torch.equal(one, m)) for m in masks])
    try:
        places, last = places_of(search.labels, distinct, search.sets.units, list(search.layers.values()))
    except ValueError as error:
        raise Inexact(str(error)) from error
    last = last and all(mask[grid].all() or not mask[grid].any() for mask in distinct for grid in search.sets.grids)
    drawn = _coefficients(search, distinct, n_outputs(places, tensors), len(of_neurons))
    as_lists = [[np.asarray(c).tolist() for c in each] for each in drawn]
    as_places = [list(place) for place in places]
    record = SplitRecord(search.neurons, search.rule, of_neurons, as_lists, as_places, last, [], {}, 0.0)
    edits = recorded_edits(record, tensors)
    new = {name: apply_edits(tensors[name], of) for name, of in edits.items()}
    shapes = {name: (list(tensors[name].shape), list(new[name].shape)) for name in edits}
    run, numbers = _run_with(
        search, tensors, new, _grown(search, distinct, shapes), bool(tied_names(search.labels, distinct))
    )
    if run.error is not None:
        raise Inexact(f"the network does not run with it, {run.error}")
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
    search: Search, tensors: dict[str, Tensor], new: dict[str, Tensor], grown: dict[int, set[int]], tied: bool
) -> tuple[sizes.Run, list[sizes.Number]]:
    """Run the network with new tensors, and the numbers that it needs; then put all back."""
    net, change = search.net, partial(exactness.max_relative_change, search.call())
    changed = {id(tensors[name]): exactness.like(tensors[name], tensor) for name, tensor in new.items()}
    numbers: list[sizes.Number] = []
    try:
        exactness.set_tensors(net, {n: changed[id(tensor)] for n, tensor in tensors.items() if id(tensor) in changed})
        numbers += sizes.update_noted(net, new) + (sizes.shared_eps(net, new) if tied else [])
        run, found = sizes.find_numbers(
            net, partial(sizes.Run, net, search.call, change), search.tolerance, grown, list(new)
        )
        numbers += found
        return run, numbers
    finally:
        exactness.set_tensors(net, tensors)
        for number in reversed(numbers):
            sizes.set_number(net, number, number.old)


def _coefficients(search: Search, masks: list[Tensor], n_out: int, n: int) -> list[Coefficients]:
    """The coefficients of n splits. Raises ValueError where they scale what lets no scale through."""
    drawn = search.draw(n_out, n)
    if names := tied_names(search.labels, masks):
        if n > len(masks) or not SPLIT_RULES[search.rule].exact:
            raise ValueError(f"{names[0]!r} makes channels and reads them: allowed is an exact rule, and each set once")
        return [Coefficients(*[0.5**0.5] * 4)] * n  # α, β, γ and δ are one, so that αγ + βδ = 1
    if not any(map(exactness.scales, drawn)) or not (whys := why_unscaled(search.labels, masks)):
        return drawn
    if not search.unscaled:
        allowed = ", ".join(exactness.rules_without_scale())
        raise ValueError(
            f"rule {search.rule!r} is not exact through {whys[0]}: allowed are {allowed}, or unscaled=True"
        )
    return [Coefficients(1.0, 1.0, g / (g + d), d / (g + d)) for _, _, g, d in drawn]


def _grown(search: Search, masks: list[Tensor], shapes: dict[str, tuple[list[int], list[int]]]) -> dict[int, set[int]]:
    """The sizes that have grown, and what they may be now: of axes, of channels along an axis, and of grids."""
    pairs = [pair for before, after in shapes.values() for pair in zip(before, after)]
    for owner in search.labels.owners.values():
        channels = torch.unique(search.sets.roots[owner])
        pairs.append((len(channels), len(channels) + sum(int(mask[channels].sum()) for mask in masks)))
    for grid in search.sets.grids:
        for mask in masks:
            if mask[grid].any() and (slices := whole_slices(mask[grid], grid)):
                axes = range(grid.dim()) if mask[grid].all() else [slices[0]]
                pairs += [
                    (grid.shape[axis], grid.shape[axis] + int(mask[grid].transpose(0, axis).flatten(1).any(1).sum()))
                    for axis in axes
                ]
    grown: dict[int, set[int]] = {}
    for before, after in pairs:
        if before != after:
            grown.setdefault(before, set()).add(after)
    return grown
