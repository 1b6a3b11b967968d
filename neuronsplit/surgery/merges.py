"""What a merge does to each parameter and buffer: of two sets of channels, the second one goes.

    what makes the channel       the first one's
    what reads it                the first one's + ratio × the second one's
    what only goes along         the first one's

The ratio is that of what makes the second one to what makes the first one. Gradients are added the other way round, by
the chain rule: those of what makes the channels and of what goes along. So is the state of an optimiser.
"""

from collections import defaultdict
from functools import partial

import torch
from torch import Tensor

from neuronsplit.surgery.edits import Place, TensorEdit, add_norms


def merge_edits(
    places: list[Place], tensors: dict[str, Tensor], ratio: float, norms: dict[str, str]
) -> dict[str, list[TensorEdit]]:
    """The edits of each parameter and buffer in a merge of two sets.

    tensors, norms: as of `edits_of`. ratio: as of `ratio_of`.
    """
    edits: dict[str, list[TensorEdit]] = defaultdict(list)
    for place in places:
        own, (first, second) = torch.arange(tensors[place.name].shape[place.axis]), place.positions()
        kept, merged, reads = own[~torch.isin(own, second)], own.index_copy(0, first, second), place.role == "reads"
        factor = torch.zeros(len(own), dtype=torch.float64).index_copy(0, first, ratios(place, ratio, norms))
        factor = factor[kept].view([-1 if axis == place.axis else 1 for axis in range(tensors[place.name].dim())])
        gradient = partial(lambda factor, _: factor, factor * (not reads))
        edits[place.name].append(TensorEdit(place.axis, kept, factor * reads, gradient, kept[:0], merged=merged[kept]))
    add_norms(edits, tensors, norms)
    return edits


def ratios(place: Place, ratio: float, norms: dict[str, str]) -> Tensor:
    """The ratio (n,) of the second set's entries at a place to the first set's, if they were twins."""
    same = place.role == "along" and place.name not in norms.values()  # a norm is scaled as the weight that has it
    found = [1.0 if same or at in place.plain else ratio for at in place.positions()[0].tolist()]
    return torch.tensor(found, dtype=torch.float64)


def ratio_of(places: list[Place], tensors: dict[str, Tensor]) -> float:
    """The norm of all that makes the second of two sets, relative to the first one; 1 if one of them is 0."""
    made = [(p, tensors[p.name].detach().cpu().double().movedim(p.axis, -1)) for p in places if p.role == "makes"]
    scaled = [[t[..., [at for at in p.positions()[n].tolist() if at not in p.plain]] for p, t in made] for n in (0, 1)]
    squares = [sum(tensor.square().sum() for tensor in of_set) for of_set in scaled]
    return float((squares[1] / squares[0]) ** 0.5) if all(squares) else 1.0
