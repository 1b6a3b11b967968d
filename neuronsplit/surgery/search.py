"""Find a split that is exact: sets of channels are tried, the smallest first."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from neuronsplit.core.split import SPLIT_RULES, Coefficients
from neuronsplit.surgery import exactness
from neuronsplit.surgery.apply import SplitRecord
from neuronsplit.surgery.attempt import Inexact, Search, attempt
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.places import layer_axis
from neuronsplit.surgery.products import ACROSS
from neuronsplit.surgery.sets import Sets
from neuronsplit.surgery.trace import trace, trace_in_training

NOISE = 0.1  # of parameters and inputs in the check, relative to their size


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
