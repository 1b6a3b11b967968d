"""Find a split that is exact: sets of channels are tried, the smallest first."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from neuronsplit.core.split import SPLIT_RULES, Coefficients
from neuronsplit.surgery import exactness
from neuronsplit.surgery.apply import SplitRecord
from neuronsplit.surgery.attempt import Inexact, Search, attempt
from neuronsplit.surgery.facts import ACROSS
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.places import layer_axis
from neuronsplit.surgery.sets import Sets
from neuronsplit.surgery.trace import trace, trace_in_training

NOISE = 0.1  # of parameters and inputs in the check, relative to their size


Candidates = Iterator[tuple[dict[str, list[int]], list[Tensor], str | None]]  # neurons, a set for each, or why not


def find_split(
    net: nn.Module,
    layers: Iterable[str],
    candidates: Callable[[Search], Candidates],
    example_inputs: object,
    rule: str,
    rng: np.random.Generator,
    together: bool,
    unscaled: bool,
) -> SplitRecord:
    """Find the first of some candidates that splits exactly; the network is as before at the end.

    layers: the names of layers. candidates: yields what may be split in them, the smallest sets first.
    Other arguments as of `split_neuron`.
    Raises ValueError where there are none.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
            raise ValueError(f"{name!r} is a {type(module).__name__} that has not run: run the network once first")
        if type(module).__name__ in ("DistributedDataParallel", "FullyShardedDataParallel"):
            raise ValueError(
                f"{type(module).__name__} keeps parameters of its own: allowed is the network inside, before"
            )
    device = torch.get_default_device()  # for the network's own tensors; labels are on the CPU
    with exactness.in_evaluation(net), torch.device("cpu"):
        call_with = partial(exactness.call_with, net, example_inputs, device)
        noise = NOISE if SPLIT_RULES[rule].exact else 0.0  # an inexact split's change is that of the network itself
        double = _runs_in_double(net, call_with, noise)
        with exactness.in_double(net, noise) if double else nullcontext() as dtype:
            call = call_with(dtype, noise=0.0)
            labels, orders, trains = _traced(net, call, layers)
            tolerance = exactness.tolerance(labels.dtypes, double)
            draw = partial(_draw, rule, rng, rng.bit_generator.state)
            call = _checked(call, call_with(dtype, noise))
            for even in (False, True):
                sets = Sets(labels, even)
                search = Search(net, call, labels, sets, orders, {}, draw, rule, unscaled, tolerance, trains)
                try:
                    return _first_exact(search, candidates(search), together)
                except ValueError as error:
                    if "no exact split known" not in str(error):
                        raise
                    first = error if not even else first
            raise first


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


def _traced(net: nn.Module, call: Callable[[], object], names: Iterable[str]) -> tuple[Labels, dict[str, Tensor], bool]:
    """The labels of a run, and those of some layers; of a second run where the first has labelled across them."""
    for mixing in (False, True):
        labels = Labels(net, mixing)
        trace(net, call, labels)
        trains = trace_in_training(net, call, labels)
        layers = {where: layer_axis(labels, where) for where in names}
        barred = [label for why, label in labels.barred if ACROSS in why]
        if not barred or not any(
            torch.isin(of, labels.channels.roots(torch.cat(barred))).any() for of in layers.values()
        ):
            break
    return labels, layers, trains


def _draw(rule: str, rng: np.random.Generator, state: dict, n_out: int, n: int) -> list[Coefficients]:
    """Draw the coefficients of n splits, the same each time that a set is tried."""
    rng.bit_generator.state = state
    return [SPLIT_RULES[rule].draw(rng, n_out) for _ in range(n)]


def _first_exact(search: Search, candidates: Candidates, together: bool) -> SplitRecord:
    """The first candidate that is exact. Raises ValueError where there is none, or only larger sets."""
    whys: list[str] = []
    name = next(iter(search.layers))
    for neurons, masks, why in candidates:
        try:
            if why is not None:
                raise Inexact(why)
            record = attempt(search._replace(neurons=neurons), masks)
        except Inexact as error:
            whys.append(str(error))
            continue
        covered = sum(int(torch.stack(masks).any(0)[order].sum()) for order in search.layers.values())
        asked = {int(search.layers[where][number]) for where, numbers in neurons.items() for number in numbers}
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


def with_neurons(neurons: dict[str, list[int]], search: Search) -> Candidates:
    """The first set of each neuron, then the second, and so on; with them, why they cannot be copied, or None.

    Raises ValueError for numbers that are not those of neurons.
    """
    for where, numbers in neurons.items():
        if not numbers:
            raise ValueError("neurons []: allowed are one or more")
        if wrong := [number for number in numbers if not 0 <= number < len(search.layers[where])]:
            most = len(search.layers[where]) - 1
            raise ValueError(f"neuron {wrong[0]} of {where!r}: allowed are whole numbers from 0 to {most}")
    wanted = [int(search.layers[where][number]) for where, numbers in neurons.items() for number in numbers]
    of_label = {label: search.sets.candidates(search.sets.mask(torch.tensor([label]))) for label in wanted}
    found: dict[int, tuple[Tensor, str | None]] = {}
    while further := {label: one for label, of in of_label.items() if (one := next(of, None)) is not None}:
        found |= further
        chosen = [found[label] for label in wanted]
        yield neurons, [mask for mask, _ in chosen], next((why for _, why in chosen if why is not None), None)


def with_widths(widths: dict[str, int], search: Search) -> Candidates:
    """Sets of the first neurons of each layer, as many as its new width takes: the smallest sets, then larger ones.

    Raises ValueError for a width that is not above the present one.
    """
    for where, width in widths.items():
        if type(width) is not int or width <= len(search.layers[where]):
            raise ValueError(
                f"width {width!r} of {where!r}: allowed are whole numbers above {len(search.layers[where])}"
            )
    found: dict[int, tuple[Tensor, str | None]] = {}
    wanted = {label for order in search.layers.values() for label in order.tolist()}
    of_label = {label: search.sets.candidates(search.sets.mask(torch.tensor([label]))) for label in wanted}
    while further := {label: one for label, of in of_label.items() if (one := next(of, None)) is not None}:
        found |= further
        neurons, masks, whys = {}, [], []
        for where, width in widths.items():
            picked, why = _picked(search.layers[where], width, found)
            neurons[where] = picked
            masks += [found[int(search.layers[where][number])][0] for number in picked]
            whys += [why] if why else []
        yield neurons, masks, (whys or [None])[0]


def _picked(order: Tensor, width: int, found: dict[int, tuple[Tensor, str | None]]) -> tuple[list[int], str | None]:
    """The first neurons whose sets make a layer as wide as asked, again and again; or why they do not."""
    picked, left = [], width - len(order)
    while left:
        seen, before = torch.zeros(len(order), dtype=torch.bool), left
        for number, label in enumerate(order.tolist()):
            mask, why = found.get(label, (None, "it has no set"))
            if why is not None:
                return picked, why
            if not seen[number] and int(mask[order].sum()) <= left:
                picked.append(number)
                seen |= mask[order]
                left -= int(mask[order].sum())
        if left == before:
            return picked, f"width {width} leaves {left} channels, fewer than split together"
    return picked, None
