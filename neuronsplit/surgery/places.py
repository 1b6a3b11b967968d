"""Where the channels of a set stand in the parameters: from a trace's labels to places along axes."""

from functools import partial

import torch
from torch import Tensor

from neuronsplit.surgery.edits import Place
from neuronsplit.surgery.facts import ALONG, MAKES, READS, varies_where_labelled
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.partition import NONE
from neuronsplit.surgery.sets import whole_slices

ENTRIES = (  # of a module: the parameter that its channels are found by
    "weight", "weight_hh_l0", "weight_hh", "weight_v", "weight_orig",
    "parametrizations.weight.original1", "parametrizations.weight.original", "parametrizations.weight.original0",
)  # fmt: skip


def layer_axis(labels: Labels, where: str) -> Tensor:
    """The labels (n,) of a layer's channels.

    where: the name of a module or of a parameter.
    Raises ValueError where there is none.
    """
    for name in (n for n in (*(f"{where}.{entry}" for entry in ENTRIES), where) if n in labels.tensors):
        # The units of a recurrent layer are what its recurrent weights read. A depthwise convolution makes no channels.
        for role in (READS,) if "weight_hh" in name else (MAKES, ALONG):
            for (of, axes, has), owner in labels.owners.items():
                if (of, has) == (name, role):
                    grid = labels.channels.roots(owner).view([labels.tensors[name].shape[a] for a in axes])
                    axis = max(range(len(axes)), key=partial(varies_where_labelled, grid))
                    return grid.movedim(axis, 0).reshape(grid.shape[axis], -1).amax(1)
        why = labels.lost.get(name, "the example inputs do not reach it")
        raise ValueError(f"layer {where!r} ({why}): allowed are layers that make channels, here {_some_layers(labels)}")
    raise ValueError(f"layer {where!r}: allowed are {_some_layers(labels)}, or parameters by name")


def _some_layers(labels: Labels) -> str:
    names = [name.removesuffix(".weight") for name, _, role in labels.owners if role == MAKES and "bias" not in name]
    names = list(dict.fromkeys(names)) or ["none"]
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def places_of(
    labels: Labels, sets: list[Tensor], units: Tensor, orders: list[Tensor], even: list[bool]
) -> tuple[list[Place], bool]:
    """Where sets (masks over labels) stand in the parameters, and whether their copies can come last.

    units: the head or group of each label, or −1. orders: of each layer, the labels of its channels (n,). Copies come
    last where every axis has all of them, in order. even: of each set, whether its twins are.
    Raises ValueError where a parameter has entries of a set that are not whole slices along one axis.
    """
    scaled_of = {one: _scaled(labels, one) for one in set(even)}
    found: dict[tuple[str, int, str], tuple[Tensor, tuple[list[int], list[int], Tensor]]] = {}
    orders, last = [torch.unique_consecutive(order) for order in orders], True
    for (name, axes, role), owner in labels.owners.items():
        shape, why = labels.tensors[name].shape, labels.unscaled_weights.get(name)
        grid = labels.channels.roots(owner).view([shape[axis] for axis in axes] if shape else [1])
        for number, mask in enumerate(sets):
            if not mask[grid].any():
                continue
            if role == READS and why:
                raise ValueError(f"{name!r} is read through {why}, which lets no share through")
            if (slices := whole_slices(mask[grid], grid)) is None:
                raise ValueError(f"{name!r} has entries of other channels too: allowed are whole slices")
            axis, inside = slices
            line = grid.movedim(axis, 0).reshape(len(inside), -1).amax(1)
            last &= any(torch.equal(torch.unique_consecutive(line), order) for order in orders)
            takes_gain = (scaled_of[even[number]][owner] | (owner == NONE)).view(grid.shape)
            takes_gain = takes_gain.movedim(axis, 0).reshape(len(inside), -1).all(1)
            taken = "along" if role == MAKES and not takes_gain[inside].any() else role
            plain = (inside & ~takes_gain).nonzero()[:, 0].tolist() if taken == MAKES else []
            outputs = labels.outputs.get((name, axes)) or ()
            _add(found, (name, axes[axis], taken), inside, number, (list(outputs), plain, _stretches(line, units)))
    _add_shared(found, labels, sets)
    return _merged(found, len(sets)), last


def _add_shared(found: dict, labels: Labels, sets: list[Tensor]) -> None:
    """Add what serves several channels with each entry, and goes along with whole slices of them only."""
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
            _add(found, (name, axis, "along"), member, number, ([], [], torch.zeros_like(member, dtype=torch.long)))


def tied_names(labels: Labels, chosen: Tensor) -> list[str]:
    """The parameters that make channels of a set, and read them along the same axis, such as tied embeddings."""
    both = [key[:2] for key in labels.owners if key[2] == READS and (*key[:2], MAKES) in labels.owners]
    return [name for name, axes in both if chosen[labels.channels.roots(labels.owners[name, axes, READS])].any()]


def even_gain(labels: Labels, chosen: Tensor) -> float | None:
    """The gain of twins that are even, in each factor that is scaled; None where no channel of a set meets itself.

    In a tied parameter and in sums of products, two factors are scaled: each by √½. In other sums, one is: by ½.
    """
    pinned = _mask(labels, [pinned for _, pinned in labels.pinned])
    sums = [one for one in labels.sums if chosen[labels.channels.roots(one.channels)].any()]
    both = [one for one in sums if one.others is not None and not pinned[torch.cat([one.channels, one.others])].any()]
    return 0.5**0.5 if both or tied_names(labels, chosen) else 0.5 if sums else None


def scaled_norms(labels: Labels, chosen: Tensor) -> list[str]:
    """The modules of norms whose channels are all in a set, and take the gain."""
    scaled = _scaled(labels, even=True)
    norms = [(module, of) for module, of in labels.normalised if chosen[labels.channels.roots(of)].all()]
    return list(dict.fromkeys(module for module, of in norms if scaled[of].all()))


def _scaled(labels: Labels, even: bool) -> Tensor:
    """Which labels (a mask) take the gain: those that something reads; even twins: all that can be scaled."""
    found = [owner for (_, _, role), owner in labels.owners.items() if role == READS]
    if not even:
        return _mask(labels, found)
    found += [of for _, of in labels.normalised]
    found += [of for one in labels.sums for of in (one.channels, one.others) if of is not None]
    return _mask(labels, found) & ~_mask(labels, [pinned for _, pinned in labels.pinned])


def _mask(labels: Labels, found: list[Tensor]) -> Tensor:
    """The set of scale labels that some have."""
    mask = torch.zeros(len(labels.scales) + 1, dtype=torch.bool)
    for of in found:
        mask[labels.scales.roots(of)] = True
    mask[-1] = False
    return mask[labels.scales.roots(torch.arange(len(mask)))]


def _add(found: dict, key: tuple, inside: Tensor, number: int, rest: tuple[list[int], list[int], Tensor]) -> None:
    member, (_, plain, _) = found.setdefault(key, (torch.full((len(inside),), -1), rest))
    member[inside] = number
    plain += [position for position in rest[1] if position not in plain]


def _stretches(line: Tensor, units: Tensor) -> Tensor:
    """Numbers (n,) of the stretches of an axis, by its labels: one ends with its head, or where a label recurs."""
    numbers, seen, before = [], set(), (None, None)
    for label, unit in zip(line.tolist(), units[line].tolist()):
        recurs = unit < 0 and label in seen and label != before[0]  # several copies of the channels, concatenated
        begins = bool(numbers) and (unit != before[1] or recurs)
        seen = set() if begins else seen
        seen.add(label)
        numbers.append(numbers[-1] + begins if numbers else 0)
        before = label, unit
    return torch.tensor(numbers)


def _merged(found: dict, n_sets: int) -> list[Place]:
    """One place for each axis: what reads comes before what makes, and that before what goes along."""
    places: dict[tuple[str, int], Place] = {}
    along_last = sorted(found.items(), key=lambda item: item[0][2] == "along")
    for (name, axis, role), (member, (outputs, plain, stretches)) in along_last:
        before = places.get((name, axis))
        runs: list[list[list[int]]] = [[] for _ in range(n_sets)]
        pieces, lengths = torch.unique_consecutive(torch.stack([member, stretches]), dim=1, return_counts=True)
        for number, stop, length in zip(pieces[0].tolist(), lengths.cumsum(0).tolist(), lengths.tolist()):
            if number >= 0:
                runs[number].append([stop - length, stop])
        if before is None:
            places[name, axis] = Place(name, axis, role, outputs, runs, plain)
        elif before.runs != runs:
            raise ValueError(f"{name!r} has other channels for another use: allowed are the same for all uses")
        elif {before.role, role} == {READS, MAKES}:
            places[name, axis] = before._replace(role="ties", outputs=[])
    return list(places.values())


def why_unscaled(labels: Labels, sets: list[Tensor]) -> list[str]:
    """What does not let a scale of the sets' channels through, of those that something reads."""
    read, chosen, whys = _scaled(labels, even=False), torch.stack(sets).any(0), []
    for (name, _, role), owner in labels.owners.items():
        made = owner[chosen[labels.channels.roots(owner)]]
        if role == MAKES and bool(read[made].any()):
            whys += [labels.unscaled_weights[name]] if name in labels.unscaled_weights else []
    for why, pinned in [*labels.pinned, *labels.pinned_if_drawn]:
        pinned = labels.scales.roots(pinned[pinned >= 0])
        if (read[pinned] & chosen[labels.channels.roots(pinned)]).any():
            whys.append(why)
    return whys
