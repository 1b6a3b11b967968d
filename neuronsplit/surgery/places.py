"""Where the channels of a set stand in the parameters: from a trace's labels to places along axes."""

import re
from collections.abc import Callable, Iterable
from functools import cache, partial

import torch
from torch import Tensor

from neuronsplit.checks import nearest
from neuronsplit.surgery.axes import varies_where_labelled, whole_slices
from neuronsplit.surgery.blocks import stretches_of
from neuronsplit.surgery.edits import READING, Place
from neuronsplit.surgery.facts import ALONG, MAKES, READS
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.partition import NONE
from neuronsplit.surgery.scales import Sharing, averaged_channels, by_mean, scaled_labels
from neuronsplit.surgery.sets import Sets
from neuronsplit.surgery.shadow import storage_of

UNSCALED = "unscaled"  # the role of what makes channels that cannot be scaled: it goes along

ENTRIES = (  # of a module: the parameter that its channels are found by
    "weight", "weight_hh_l0", "weight_hh", "weight_v", "weight_orig",
    "parametrizations.weight.original1", "parametrizations.weight.original", "parametrizations.weight.original0",
)  # fmt: skip


def layer_axis(labels: Labels, where: str) -> Tensor:
    """The labels (n,) of a layer's channels.

    where: the name of a module or of a parameter.
    Raises ValueError where there is none.
    """
    names = [*(f"{where}.{entry}" for entry in ENTRIES), where] if isinstance(where, str) else []
    for name in [name for name in names if name in labels.tensors]:
        # The units of a recurrent layer are what its recurrent weights read. A depthwise convolution makes no channels.
        for role in (READS,) if "weight_hh" in name else (MAKES, ALONG):
            for (of, axes, has), owner in labels.owners.items():
                if (of, has) == (name, role):
                    grid = labels.channels.roots(owner).view([labels.tensors[name].shape[a] for a in axes])
                    axis = max(range(len(axes)), key=partial(varies_where_labelled, grid))
                    return _along(grid, axis).amax(1)
        why = labels.lost.get(name, "the example inputs do not reach it")
        raise ValueError(
            f"layer {where!r} ({why}): allowed are layers that make channels, here {_some_layers(_layers(labels))}"
        )
    prefix = f"{where}." if isinstance(where, str) and where else ""
    if isinstance(where, str) and (inner := [one for one in _layers(labels) if one.startswith(prefix)]):
        raise ValueError(f"layer {where!r} is a container: allowed are its layers, here {_some_layers(inner)}")
    tied = [f"{name!r} is {labels.entries.tied[name]!r}" for name in names if name in labels.entries.tied]
    near = nearest(where, [*_layers(labels), *labels.tensors])
    given = repr(where) + (f" ({tied[0]})" if tied else near)
    given = given if isinstance(where, str) else f"of type {type(where).__name__}"
    raise ValueError(f"layer {given}: allowed are {_some_layers(_layers(labels))}, or parameters by name")


def _along(values: Tensor, axis: int) -> Tensor:
    """Values along an axis (n, …), with all others in the second one."""
    return values.movedim(axis, 0).reshape(values.shape[axis], -1)


def _layers(labels: Labels) -> list[str]:
    names = [name.removesuffix(".weight") for name, _, role in labels.owners if role == MAKES and "bias" not in name]
    return list(dict.fromkeys(names))


def _some_layers(names: list[str]) -> str:
    names = names or ["none"]
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def places_of(
    labels: Labels,
    sets: Sets,
    masks: list[Tensor],
    orders: list[Tensor],
    shared: list[Sharing | None],
    blocks: Iterable[Tensor] = (),
) -> tuple[list[Place], bool]:
    """Where sets of channels (masks over labels) stand in the parameters, and whether their copies can come last.

    orders: of each layer, the labels of its channels (n,). Copies come last where every axis has all of them, in order.
    shared: how the twins of each set share. blocks: keep copies within them, as heads do.
    Raises ValueError where a parameter has entries of a set that are not whole slices along one axis.
    """
    scaled_of, of_norms = {even: scaled_labels(labels, even) for even in {*map(bool, shared)}}, _roles_of_norms(labels)
    found: dict[tuple[str, int, str], tuple[Tensor, tuple[list[int], list[int], Tensor]]] = {}
    stretches = cache(lambda line: stretches_of(line, sets.units, blocks))  # many axes have the same labels
    orders, last = [torch.unique_consecutive(order) for order in orders], True
    for (name, axes, role), owner in labels.owners.items():
        shape, why = labels.tensors[name].shape, labels.unscaled_weights.get(name)
        grid = labels.channels.roots(owner).view([shape[axis] for axis in axes] if shape else [1])
        for number, (mask, share) in enumerate(zip(masks, shared)):
            if not shape or not mask[grid].any():
                continue  # a number serves the copies too
            if (slices := whole_slices(mask[grid], grid)) is None:
                raise ValueError(f"{name!r} has entries of other channels too: allowed are whole slices")
            axis, inside = slices
            line = _along(grid, axis).amax(1)
            last &= any(torch.equal(torch.unique_consecutive(line), order) for order in orders)
            takes_gain = scaled_of[bool(share)][owner] | (owner == NONE) | (share is by_mean)
            takes_gain = _along(takes_gain.view(grid.shape), axis).all(1)
            taken = UNSCALED if role == MAKES and not takes_gain[inside].any() else role
            taken = of_norms(name, owner, taken, share) if share else taken
            if why and taken in (READS, "gain", "reads norm"):
                raise ValueError(f"{name!r} is read through {why}, which lets no share through")
            plain = (inside & ~takes_gain).nonzero()[:, 0].tolist() if taken == MAKES else []
            rest = [*labels.outputs.get((name, axes), ())], plain, stretches(tuple(line.tolist()))
            _add(found, (name, axes[axis], taken), inside, number, rest)
    _add_shared(found, labels, masks)
    return _reached(labels, _merged(found, len(masks))), last


def _reached(labels: Labels, places: list[Place]) -> list[Place]:
    """The places, if what is like them in other blocks is reached too, such as the layers of all experts."""

    def in_any_block(name: str) -> tuple[str, torch.Size]:
        return re.sub(r"\d+", "#", name), labels.tensors[name].shape

    like = {in_any_block(place.name): place.name for place in places}
    for name, tensor in labels.tensors.items():
        if (changed := like.get(in_any_block(name))) and storage_of(tensor) not in labels.reached:
            raise ValueError(f"the example inputs reach {changed!r} and not {name!r}: allowed are such as reach both")
    return places


def _roles_of_norms(labels: Labels) -> Callable[[str, Tensor, str, Sharing], str]:
    """The role of a parameter by its name, labels, role otherwise and how twins share, where norms give it another."""
    normalised = labels.scaled_as([of for _, _, of in labels.normalised])
    read, averaged = normalised & labels.scaled_as([labels.begun]), averaged_channels(labels)

    def role_of(name: str, owner: Tensor, role: str, share: Sharing) -> str:
        if role == READS:
            return "reads norm" if read[owner].all() else role
        if role == MAKES and name in labels.gains and normalised[owner].all():
            return "gain"
        return "mean" if role == MAKES and share is by_mean and averaged[owner].all() else role

    return role_of


def _add_shared(found: dict, labels: Labels, masks: list[Tensor]) -> None:
    """Add what serves several channels with each entry, and goes along with whole slices of them only."""
    for name, along, grid in labels.shared:
        grid = torch.unique(labels.channels.roots(grid), dim=1)  # (n, m)
        for number, mask in enumerate(masks):
            inside = mask[grid]
            if not inside.any() or grid.shape[1] > 1 and bool((inside == inside[:1]).all()):
                continue  # each entry serves the copies as it serves what they are copied from
            if not bool((inside == inside[:, :1]).all()) or len(along) != 1:
                raise ValueError(f"{name!r} serves other channels too: allowed are whole slices")
            ((axis, at),) = along.items()
            member = torch.zeros(labels.tensors[name].shape[axis], dtype=torch.bool)
            member[at[inside[:, 0]]] = True
            _add(found, (name, axis, "along"), member, number, ([], [], torch.zeros_like(member, dtype=torch.long)))


def _add(found: dict, key: tuple, inside: Tensor, number: int, rest: tuple[list[int], list[int], Tensor]) -> None:
    member, (_, plain, _) = found.setdefault(key, (torch.full((len(inside),), -1), rest))
    member[inside] = number
    plain += sorted({*rest[1]} - {*plain})


def _merged(found: dict, n_sets: int) -> list[Place]:
    """One place for each axis: what reads comes before what makes, and that before what goes along."""
    places: dict[tuple[str, int], Place] = {}
    along_last = sorted(found.items(), key=lambda item: item[0][2] in ("along", UNSCALED))
    for (name, axis, role), (member, (outputs, plain, stretches)) in along_last:
        before = places.get((name, axis))
        runs: list[list[list[int]]] = [[] for _ in range(n_sets)]
        pieces, lengths = torch.unique_consecutive(stretches * (n_sets + 1) + member + 1, return_counts=True)
        numbers = (pieces % (n_sets + 1) - 1).tolist()
        for number, stop, length in zip(numbers, lengths.cumsum(0).tolist(), lengths.tolist()):
            if number >= 0:
                runs[number].append([stop - length, stop])
        if before is None:
            places[name, axis] = Place(name, axis, "along" if role == UNSCALED else role, outputs, runs, plain)
        elif before.runs != runs:
            raise ValueError(f"{name!r} has other channels for another use: allowed are the same for all uses")
        elif (roles := {before.role, role}) in ({READS, MAKES}, {READS, "mean"}):
            places[name, axis] = before._replace(role="ties" if MAKES in roles else "mean", outputs=[])
        elif role == UNSCALED and before.role in READING:
            raise ValueError(f"{name!r} reads channels, and makes some that cannot be scaled")
        elif roles in ({"reads norm", MAKES}, {"reads norm", "mean"}):
            raise ValueError(f"{name!r} makes channels and reads those of a norm without a gain")
    return list(places.values())
