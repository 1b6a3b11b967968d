"""Find a split that is exact: sets of channels are tried on a copy in double precision, the smallest first."""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from neuronsplit.core.split import SPLIT_RULES, Coefficients
from neuronsplit.surgery import exactness, sizes
from neuronsplit.surgery.apply import SplitRecord, recorded_edits
from neuronsplit.surgery.edits import apply_edits, n_outputs
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.places import layer_axis, places_of, why_unscaled
from neuronsplit.surgery.sets import Sets, whole_slices
from neuronsplit.surgery.trace import trace, trace_in_training


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
    with exactness.in_evaluation(net):
        double = exactness.runs_in_double(net, example_inputs)
        with exactness.in_double(net) if double else nullcontext() as dtype:
            call = exactness.call_with(net, example_inputs, dtype)
            labels = trace(net, call)
            trace_in_training(net, call, labels)
            layers = {where: layer_axis(labels, where) for where in neurons}
            for where, numbers in neurons.items():
                _check(where, numbers, layers[where])
            search = _Search(net, call, labels, neurons, layers, rule, rng, unscaled)
            return search.smallest(together)


def _check(where: str, numbers: list[int], layer: tuple[str, int, Tensor]) -> None:
    order = torch.unique_consecutive(layer[2])
    for number in numbers:
        if not 0 <= number < len(order):
            raise ValueError(f"neuron {number} of {where!r}: allowed are whole numbers from 0 to {len(order) - 1}")


class _Search:
    """The search for sets that split exactly."""

    def __init__(self, net, call, labels: Labels, neurons, layers, rule, rng, unscaled):
        self.net, self.call, self.labels, self.rule, self.unscaled = net, call, labels, rule, unscaled
        self.neurons, self.rng, self.draws = neurons, rng, rng.bit_generator.state
        self.sets = Sets(labels)
        self.orders = [torch.unique_consecutive(of) for _, _, of in layers.values()]
        self.masks = [
            self.sets.mask(order[number : number + 1])
            for order, numbers in zip(self.orders, neurons.values())
            for number in numbers
        ]
        self.seen: dict[int, list[Tensor]] = {}  # outputs before, by the watched modules

    def smallest(self, together: bool) -> SplitRecord:
        """The split of the smallest sets."""
        name = next(iter(self.neurons))
        whys, alone = [], len(set(map(tuple, [m.nonzero()[:, 0].tolist() for m in self.masks])))
        for masks, why in self._candidates():
            if why is not None:
                whys.append(why)
                continue
            distinct = {mask.numpy().tobytes(): mask for mask in masks}
            numbers = {key: number for number, key in enumerate(distinct)}
            of_neurons = [numbers[mask.numpy().tobytes()] for mask in masks]
            try:
                record = self._try(list(distinct.values()), of_neurons)
            except _Inexact as error:
                whys.append(str(error))
                continue
            size = sum(int(mask.sum()) for mask in distinct.values())
            if size > alone and not together:
                raise ValueError(
                    f"a neuron of {name!r} has no exact split alone ({self._why_not_alone(whys)}): allowed is together=True, "
                    f"which splits {size} channels"
                )
            return record
        raise ValueError(f"{name!r} has no exact split known: {whys[0] if whys else 'no set of channels is whole'}")

    def _why_not_alone(self, whys: list[str]) -> str:
        rows = {int(row) for mask in self.masks for row in self.sets.row_of[mask[self.sets.in_row]]}
        return (
            whys[0]
            if whys
            else ", ".join(sorted({self.sets.why_row[row] for row in rows})[:2]) or "it is part of a set"
        )

    def _candidates(self) -> Iterator[tuple[list[Tensor], str | None]]:
        """The first set of each neuron, then the second, and so on; with them, why they cannot be copied, or None."""
        distinct: dict[bytes, Iterator] = {}
        for mask in self.masks:
            distinct.setdefault(mask.numpy().tobytes(), self.sets.candidates(mask))
        last: dict[bytes, tuple[Tensor, str | None]] = {}
        while True:
            ended = True
            for key, candidates in distinct.items():
                if (following := next(candidates, None)) is not None:
                    last[key], ended = following, False
            if ended:
                return
            chosen = [last[mask.numpy().tobytes()] for mask in self.masks]
            yield [mask for mask, _ in chosen], next((why for _, why in chosen if why is not None), None)

    def _try(self, masks: list[Tensor], of_neurons: list[int]) -> SplitRecord:
        """The record of a split of sets. Raises _Inexact where it is not exact; refuses what no larger set can mend."""
        net, tensors = self.net, exactness.named_tensors(self.net)
        try:
            places, last = places_of(self.labels, masks, self.orders)
        except ValueError as error:
            raise _Inexact(str(error)) from error
        drawn = self._draw(masks, n_outputs(places, tensors), len(of_neurons))
        as_lists = [[np.asarray(c).tolist() for c in each] for each in drawn]
        record = SplitRecord(
            self.neurons, self.rule, of_neurons, as_lists, [list(p) for p in places], last, [], {}, 0.0
        )
        edits = recorded_edits(record, tensors)
        new = {name: apply_edits(tensors[name], edits[name]) for name in edits}
        shapes = {name: (list(tensors[name].shape), list(new[name].shape)) for name in edits}
        watched = {p.name.rpartition(".")[0] for p in places if p.role == "reads"}
        watched -= {p.name.rpartition(".")[0] for p in places if p.role != "reads"}
        before = exactness.outputs_of(net, self.call, watched)
        numbers: list[sizes.Number] = []
        try:
            as_parameters = {
                n: nn.Parameter(t, False) if isinstance(tensors[n], nn.Parameter) else t for n, t in new.items()
            }
            aliases = {id(tensors[name]): new for name, new in as_parameters.items()}
            exactness.set_tensors(net, {n: aliases[id(t)] for n, t in tensors.items() if id(t) in aliases})
            numbers += sizes.update_noted(net, edits)
            run = partial(sizes.Run, net, partial(exactness.outputs_of, net, self.call, watched))
            done, found = sizes.find_numbers(net, run, self._grown(masks, places, shapes), list(edits))
            numbers += found
            if done.error is not None:
                raise _Inexact(f"the network does not run with it ({done.error})") from done.error
            change = exactness.max_relative_change(before, done.out)
            if SPLIT_RULES[self.rule].exact and not change <= self._tolerance(tensors):
                raise _Inexact(f"it would change the output by {change:.1e}")
        finally:
            exactness.set_tensors(net, tensors)
            for number in reversed(numbers):
                sizes.set_number(net, number, number.old)
        return record._replace(numbers=[list(number) for number in numbers], shapes=shapes, change=change)

    def _draw(self, masks: list[Tensor], n_out: int, n: int) -> list[Coefficients]:
        self.rng.bit_generator.state = self.draws
        drawn = [SPLIT_RULES[self.rule].draw(self.rng, n_out) for _ in range(n)]
        if any(map(exactness.scales, drawn)) and (whys := why_unscaled(self.labels, masks)):
            if not self.unscaled:
                allowed = ", ".join(exactness.rules_without_scale())
                raise ValueError(
                    f"rule {self.rule!r} is not exact through {whys[0]}: allowed are {allowed}, or unscaled=True"
                )
            drawn = [Coefficients(1.0, 1.0, g / (g + d), d / (g + d)) for _, _, g, d in drawn]
        return drawn

    def _grown(self, masks, places, shapes) -> dict[int, set[int]]:
        """The sizes that have grown, and what they are now."""
        grown: dict[int, set[int]] = {}
        pairs = [(b, a) for before, after in shapes.values() for b, a in zip(before, after)]
        n_copies = len(masks)
        for (name, axes, _), owner in self.labels.owners.items():
            roots = torch.unique(self.labels.channels.roots(owner))
            inside = sum(int(mask[roots].sum()) for mask in masks)
            pairs.append((len(roots), len(roots) + inside))
        for grid in self.sets.grids:
            for mask in masks:
                if mask[grid].any() and (slices := whole_slices(mask[grid], grid)):
                    size = grid.shape[slices[0]]
                    pairs.append((size, size + int(slices[1].sum())))
        for before, after in pairs:
            if before != after:
                grown.setdefault(before, set()).add(after)
        return grown

    def _tolerance(self, tensors: dict[str, Tensor]) -> float:
        return max(exactness.TOLERANCES.get(t.dtype, 0.0) for t in tensors.values())


class _Inexact(Exception):
    """A set that does not split exactly; a larger one may."""
