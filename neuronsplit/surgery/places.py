"""Where the channels of a set stand in the parameters: from a trace's labels to places along axes."""

import torch
from torch import Tensor

from neuronsplit.surgery.edits import Place
from neuronsplit.surgery.labels import ALONG, MAKES, READS, Labels
from neuronsplit.surgery.sets import whole_slices


def layer_axis(labels: Labels, where: str) -> tuple[str, int, Tensor]:
    """The parameter of a layer and its axis along which channels stand, and their labels (n,).

    where: the name of a module or of a parameter.
    Raises ValueError where there is none.
    """
    recurrent = [f"{where}.{entry}" for entry in ("weight_hh_l0", "weight_hh")]
    for name in (n for n in (f"{where}.weight", *recurrent, where) if n in labels.tensors):
        # The units of a recurrent layer are what its recurrent weights read. A depthwise convolution makes no channels.
        for role in (READS,) if name in recurrent else (MAKES, ALONG):
            for (of, axes, has), owner in labels.owners.items():
                if (of, has) == (name, role):
                    grid = labels.channels.roots(owner).view([labels.tensors[name].shape[a] for a in axes])
                    axis = max(range(len(axes)), key=lambda a: bool((grid != grid.narrow(a, 0, 1)).any()))
                    return name, axes[axis], grid.movedim(axis, 0).reshape(grid.shape[axis], -1)[:, 0]
        why = labels.lost.get(name, "no operation of the run made channels with it")
        raise ValueError(f"layer {where!r}: {why}: allowed are layers that the example inputs reach")
    raise ValueError(f"layer {where!r}: allowed are the names of layers with a weight, or of parameters")


def places_of(labels: Labels, sets: list[Tensor], orders: list[Tensor]) -> tuple[list[Place], bool]:
    """Where sets (masks over labels) stand in the parameters, and whether their copies can come last.

    orders: of each layer, the labels of its channels (n,). Copies come last where every axis has all of them, in order.
    Raises ValueError where a parameter has entries of a set that are not whole slices along one axis.
    """
    scaled = _scaled(labels, sets)
    found: dict[tuple[str, int, str], tuple[Tensor, list[int]]] = {}
    last = True
    for (name, axes, role), owner in labels.owners.items():
        shape = labels.tensors[name].shape
        grid = labels.channels.roots(owner).view([shape[axis] for axis in axes] if shape else [1])
        for number, mask in enumerate(sets):
            if mask[grid].any():
                if (slices := whole_slices(mask[grid], grid)) is None:
                    raise ValueError(f"{name!r} has entries of other channels too: allowed are whole slices")
                axis, inside = slices
                line = grid.transpose(0, axis).flatten(1)[:, 0] if grid.dim() > 1 else grid
                last &= any(torch.equal(torch.unique_consecutive(line), order) for order in orders)
                taken = (
                    role if role != MAKES or bool(scaled[owner[mask[labels.channels.roots(owner)]]].all()) else "along"
                )
                _add(found, (name, axes[axis], taken), inside, number, labels.outputs.get((name, axes)) or ())
    for name, along, grid in labels.shared:
        grid = torch.unique(labels.channels.roots(grid), dim=1)  # (n, m)
        for number, mask in enumerate(sets):
            inside = mask[grid]
            if not inside.any() or grid.shape[1] > 1 and bool((inside == inside[:1]).all()):
                continue  # each entry serves the copies as it serves what they are copied from
            if not bool((inside == inside[:, :1]).all()) or len(along) != 1:
                raise ValueError(f"{name!r} serves other channels too: allowed are whole slices")
            ((axis, at),) = along.items()
            member = torch.zeros(labels.tensors[name].shape[axis], dtype=torch.bool)
            member[at[inside[:, 0]]] = True
            _add(found, (name, axis, "along"), member, number, ())
    return _merged(found, len(sets)), last


def _scaled(labels: Labels, sets: list[Tensor]) -> Tensor:
    """Which labels (a mask) take the gain: those that something reads."""
    mask = torch.zeros(len(labels.scales) + 1, dtype=torch.bool)
    for (_, _, role), owner in labels.owners.items():
        if role == READS:
            mask[labels.scales.roots(owner)] = True
    mask[-1] = False
    return mask[labels.scales.roots(torch.arange(len(mask)))]


def _add(found: dict, key: tuple, inside: Tensor, number: int, outputs: tuple) -> None:
    member, _ = found.setdefault(key, (torch.full((len(inside),), -1), list(outputs)))
    member[inside] = number


def _merged(found: dict, n_sets: int) -> list[Place]:
    """One place for each axis: what reads comes before what makes, and that before what goes along."""
    places: dict[tuple[str, int], Place] = {}
    for (name, axis, role), (member, outputs) in sorted(found.items(), key=lambda item: item[0][2] == "along"):
        before = places.get((name, axis))
        if before is not None and "reads" in (before.role, role) and "makes" in (before.role, role):
            raise ValueError(f"{name!r} makes the channels and reads them along one axis: allowed is one of them")
        runs = [_runs(member == number) for number in range(n_sets)]
        if before is None:
            places[name, axis] = Place(name, axis, role, outputs, runs)
        elif before.runs != runs:
            raise ValueError(f"{name!r} has other channels for another use: allowed are the same for all uses")
    return list(places.values())


def _runs(inside: Tensor) -> list[list[int]]:
    """The runs [first, last + 1] of a mask (n,)."""
    edges = torch.diff(torch.cat([torch.zeros(1), inside.float(), torch.zeros(1)]))
    return torch.stack([edges.eq(1).nonzero()[:, 0], edges.eq(-1).nonzero()[:, 0]], 1).tolist()


def why_unscaled(labels: Labels, sets: list[Tensor]) -> list[str]:
    """What does not let a scale of the sets' channels through, of those that something reads."""
    read = _scaled(labels, sets)
    chosen = torch.stack(sets).any(0)
    whys = []
    for why, pinned in labels.pinned:
        pinned = labels.scales.roots(pinned[pinned >= 0])
        if (read[pinned] & chosen[labels.channels.roots(pinned)]).any():
            whys.append(why)
    return whys
