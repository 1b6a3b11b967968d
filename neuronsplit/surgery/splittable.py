"""Which layers of a network split, and what changes with them."""

from contextlib import suppress

import pandas as pd
import torch
from torch import nn

from neuronsplit.surgery import exactness
from neuronsplit.surgery.facts import MAKES
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.places import layer_axis, places_of
from neuronsplit.surgery.sets import Sets
from neuronsplit.surgery.trace import trace, trace_in_training


def splittable(net: nn.Module, example_inputs: object) -> pd.DataFrame:
    """Return a table of a network's layers, with a row per parameter that makes channels.

    net, example_inputs: as for `split_neuron`. The network runs twice, and nothing is tried: `split_neuron` does that.
    Columns:
        layer, channels: its name, and the number of its channels.
        splits_together: how many of them are in the smallest set with the first channel; 0 if there is no such set.
        changes: the parameters and buffers that change with it.
        reason: why there is no such set.
    Raises ValueError where the network does not run.
    """
    labels = Labels(net)
    device = torch.get_default_device()
    with exactness.in_evaluation(net), torch.device("cpu"):
        call = exactness.call_with(net, example_inputs, device, None, 0.0)
        trace(net, call, labels)
        trace_in_training(net, call, labels)
        sets = Sets(labels)
        makers = [name for name, _, role in labels.owners if role == MAKES and labels.tensors[name].dim() > 1]
        return pd.DataFrame([_row(labels, sets, layer) for layer in dict.fromkeys(map(_layer_of, makers))])


def _layer_of(parameter: str) -> str:
    """The name of a layer: of its module if it has one weight or is recurrent, else of the parameter."""
    module, _, entry = parameter.rpartition(".")
    return module if entry == "weight" or entry.startswith(("weight_ih", "weight_hh")) else parameter


def _row(labels: Labels, sets: Sets, layer: str) -> dict[str, object]:
    order = layer_axis(labels, layer)
    row = {"layer": layer, "channels": len(order), "splits_together": 0, "changes": (), "reason": ""}
    for mask, why in sets.candidates(sets.mask(order[:1])):
        with suppress(ValueError):
            places, _ = places_of(labels, [mask], sets.units, [order], sets.even)
            if why is None:
                found = {"splits_together": int(mask[order].sum()), "changes": tuple(place.name for place in places)}
                return row | found | {"reason": ""}
        row["reason"] = row["reason"] or why or "no set of channels is whole slices"
    return row
