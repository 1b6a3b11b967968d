"""Which layers of a network split, and what changes with them."""

from collections.abc import Callable
from functools import cache, partial

import pandas as pd
import torch
from torch import Tensor, nn

from neuronsplit.surgery import exactness
from neuronsplit.surgery.facts import ACROSS, MAKES
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.modes import in_evaluation
from neuronsplit.surgery.places import layer_axis, places_of
from neuronsplit.surgery.runs import require_module, require_numbers
from neuronsplit.surgery.scales import exact_rules, shares_of, why_unscaled
from neuronsplit.surgery.sets import ways
from neuronsplit.surgery.trace import created_on, trace, trace_in_training

COLUMNS = "layer channels splits_together together rule changes reason".split()


def splittable(net: nn.Module, example_inputs: object) -> pd.DataFrame:
    """Return a table of a network's layers, with a row per parameter that makes channels.

    Its rows are candidates, found by a run in evaluation and one in training. Nothing is tried: only `split_neuron`
    does that, and may refuse one. It does so where a size is written into the network's forward, as in view(-1, 288).

    net, example_inputs: as for `split_neuron`.
    Columns:
        layer, channels: its name, and the number of its channels.
        splits_together: how many of them are in the smallest set with the first channel; 0 if there is no such set.
        together: whether `split_neuron` needs together=True for it. Channels that always meet one by one go along
            without it, such as a gate and what it gates.
        rule: the first rule of SPLIT_RULES that is exact for this set, such as `outgoing` through GELU.
        changes: the parameters and buffers that change with it.
        reason: why there is no such set.
    Raises ValueError where the network does not run.
    """
    require_module(net)
    require_numbers(net)
    device, rows = torch.get_default_device(), {}
    with in_evaluation(net), created_on(torch.device("cpu")):
        call = exactness.call_with(net, example_inputs, device, None, 0.0)
        for mixing in (False, True):
            labels = Labels(net, mixing)
            trace_in_training(net, call, labels, trace(net, call, labels))
            found = {row[0]: row for row in _rows(labels)}
            rows = found | {layer: row for layer, row in rows.items() if ACROSS not in row[-1]}
            if not any(ACROSS in why for why, _ in labels.barred):
                break
        return pd.DataFrame(rows.values(), columns=COLUMNS)


def _rows(labels: Labels) -> list[tuple]:
    makers = [name for name, _, role in labels.owners if role == MAKES and labels.tensors[name].dim() > 1]
    smallest_set = cache(partial(_smallest_set, labels, ways(labels)))
    return [_row(labels, smallest_set, layer) for layer in dict.fromkeys(map(_layer_of, makers))]


def _layer_of(parameter: str) -> str:
    """The name of a layer: of its module if it has one weight or is recurrent, else of the parameter."""
    module, _, entry = parameter.rpartition(".")
    whole = module and (entry == "weight" or entry.startswith(("weight_ih", "weight_hh")))
    return module if whole else parameter


def _row(labels: Labels, smallest_set: Callable[[int], tuple], layer: str) -> tuple:
    try:
        channels = layer_axis(labels, layer)
    except ValueError as error:  # such as a cell whose recurrent weights are normalised
        return layer, 0, 0, False, "", (), str(error)
    mask, *rest = smallest_set(int(channels[0]))
    if mask is None:
        return layer, len(channels), 0, False, *rest
    return layer, len(channels), int(mask[channels].sum()), int(mask.sum()) > 1, *rest


def _smallest_set(labels: Labels, ways_to_copy: list[Callable], channel: int) -> tuple[Tensor | None, str, tuple, str]:
    """The smallest set (a mask) with a channel, its rule, and the tensors that change; or None, and the reason."""
    found, reasons = [], []
    for sets in (way() for way in ways_to_copy):
        for mask, why in sets.candidates(sets.mask(torch.tensor([channel]))):
            try:
                if why is not None:
                    raise ValueError(why)
                (share,) = shared = shares_of(labels, sets, [mask])
                places, _ = places_of(labels, sets, [mask], [], shared)
            except ValueError as error:
                reasons.append(str(error))
                continue
            whys = why_unscaled(labels, [mask]) if share is None else []
            found.append((mask, exact_rules(whys)[0], tuple(place.name for place in places), ""))
            break
    refused = None, "", (), (reasons or ["no set of channels is whole"])[0]
    return min(found, key=lambda one: int(one[0].sum()), default=refused)
