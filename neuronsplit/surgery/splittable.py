"""Which layers of a network split, and what changes with them."""

from collections.abc import Callable
from functools import cache, partial

import pandas as pd
import torch
from torch import Tensor, nn

from neuronsplit.surgery import exactness
from neuronsplit.surgery.facts import MAKES
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.places import even_gain, layer_axis, places_of, tied_names
from neuronsplit.surgery.sets import Sets
from neuronsplit.surgery.trace import created_on, trace, trace_in_training


def splittable(net: nn.Module, example_inputs: object) -> pd.DataFrame:
    """Return a table of a network's layers, with a row per parameter that makes channels.

    net, example_inputs: as for `split_neuron`. The network runs in evaluation and in training. Nothing is tried:
    `split_neuron` does that.
    Columns:
        layer, channels: its name, and the number of its channels.
        splits_together: how many of them are in the smallest set with the first channel; 0 if there is no such set.
        changes: the parameters and buffers that change with it.
        reason: why there is no such set.
    Raises ValueError where the network does not run.
    """
    labels = Labels(net)
    device = torch.get_default_device()
    with exactness.in_evaluation(net), created_on(torch.device("cpu")):
        call = exactness.call_with(net, example_inputs, device, None, 0.0)
        trace_in_training(net, call, labels, trace(net, call, labels))
        makers = [name for name, _, role in labels.owners if role == MAKES and labels.tensors[name].dim() > 1]
        smallest_set = cache(partial(_smallest_set, labels, (Sets(labels), Sets(labels, even=True))))
        return pd.DataFrame([_row(labels, smallest_set, layer) for layer in dict.fromkeys(map(_layer_of, makers))])


def _layer_of(parameter: str) -> str:
    """The name of a layer: of its module if it has one weight or is recurrent, else of the parameter."""
    module, _, entry = parameter.rpartition(".")
    return module if entry == "weight" or entry.startswith(("weight_ih", "weight_hh")) else parameter


def _row(labels: Labels, smallest_set: Callable[[int], tuple], layer: str) -> dict[str, object]:
    try:
        channels = layer_axis(labels, layer)
    except ValueError as error:  # such as a cell whose recurrent weights are normalised
        return {"layer": layer, "channels": 0, "splits_together": 0, "changes": (), "reason": str(error)}
    mask, changes, reason = smallest_set(int(channels[0]))
    n_together = 0 if mask is None else int(mask[channels].sum())
    return {"layer": layer, "channels": len(channels), "splits_together": n_together, "changes": changes,
            "reason": reason}  # fmt: skip


def _smallest_set(labels: Labels, of_both: tuple[Sets, Sets], channel: int) -> tuple[Tensor | None, tuple, str]:
    """The smallest set (a mask) with a channel, and the tensors that change with it; or None, and why there is none."""
    reasons = []
    for sets, (mask, why) in ((one, c) for one in of_both for c in one.candidates(one.mask(torch.tensor([channel])))):
        try:
            places, _ = places_of(labels, [mask], sets.units, [], [sets.even])
        except ValueError:
            why = why or "no set of channels is whole slices"
        if not (even_gain(labels, mask) if sets.even else not tied_names(labels, mask)):
            why = why or "it makes channels and reads them"
        if why is None:
            return mask, tuple(place.name for place in places), ""
        reasons.append(why)
    return None, (), (reasons or ["no set of channels is whole"])[0]
