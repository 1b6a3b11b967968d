"""What may be split: sets of given neurons, or of as many as given widths take; the smallest sets come first."""

from collections.abc import Iterable, Iterator
from itertools import combinations
from numbers import Integral

import torch
from torch import Tensor

from neuronsplit.surgery.sets import Sets

Set = tuple[Tensor, str | None]  # of channels (a mask), and why it cannot be copied
Candidates = Iterator[tuple[dict[str, list[int]], list[Tensor], str | None]]  # neurons, a set for each, or why not


def with_neurons(neurons: dict[str, list[int]], layers: dict[str, Tensor], sets: Sets) -> Candidates:
    """Sets of given neurons.

    layers: of each layer, the labels of its channels (n,).
    Raises ValueError for numbers that are not those of neurons.
    """
    for where, numbers in neurons.items():
        if not numbers:
            raise ValueError("neurons []: allowed are one or more")
        if wrong := [number for number in numbers if not 0 <= number < len(layers[where])]:
            most = len(layers[where]) - 1
            raise ValueError(f"neuron {wrong[0]} of {where!r}: allowed are whole numbers from 0 to {most}")
    labels = [int(layers[where][number]) for where, numbers in neurons.items() for number in numbers]
    for found in _growing_sets(sets, labels):
        masks, whys = zip(*(found[label] for label in labels))
        yield neurons, list(masks), next((why for why in whys if why is not None), None)


def with_widths(widths: dict[str, int], layers: dict[str, Tensor], sets: Sets) -> Candidates:
    """Sets of the first neurons of each layer, as many as its new width takes beside those of other layers.

    layers: of each layer, the labels of its channels (n,).
    Raises ValueError for a width that is not above the present one, and for two widths of the same channels.
    """
    for where, width in widths.items():
        if not isinstance(width, Integral) or isinstance(width, bool) or width <= len(layers[where]):
            raise ValueError(f"width {width!r} of {where!r}: allowed are whole numbers above {len(layers[where])}")
    for (one, width), (other, its_width) in combinations(widths.items(), 2):
        if width != its_width and torch.equal(layers[one].sort().values, layers[other].sort().values):
            given = f"widths {width} of {one!r} and {its_width} of {other!r}, which have the same channels"
            raise ValueError(f"{given}: allowed is one width for both")
    for found in _growing_sets(sets, [label for order in layers.values() for label in order.tolist()]):
        neurons, why = _picked(widths, layers, found)
        masks = [found[int(layers[where][number])][0] for where in neurons for number in neurons[where]]
        yield neurons, masks, why


def _growing_sets(sets: Sets, labels: Iterable[int]) -> Iterator[dict[int, Set]]:
    """The smallest set of each label, then the next one where there is one, and so on."""
    of_label = {label: sets.candidates(sets.mask(torch.tensor([label]))) for label in labels}
    found: dict[int, Set] = {}
    while further := {label: one for label, of in of_label.items() if (one := next(of, None)) is not None}:
        found |= further
        yield found


def _picked(
    widths: dict[str, int], layers: dict[str, Tensor], found: dict[int, Set]
) -> tuple[dict[str, list[int]], str | None]:
    """The first neurons of each layer whose sets make all layers as wide as asked, again and again; or why they do not.

    The smallest layer comes first: others may consist of it. No set has a part of a layer that is as wide as asked.
    """
    picked: dict[str, list[int]] = {}
    n_labels = max((len(mask) for mask, _ in found.values()), default=0)
    counts = torch.stack([torch.bincount(order[order >= 0], minlength=n_labels) for order in layers.values()])
    left = torch.tensor([width - len(layers[where]) for where, width in widths.items()])
    for at, where in sorted(enumerate(widths), key=lambda one: len(layers[one[1]])):
        order = layers[where]
        while before := int(left[at]):
            seen = torch.zeros(len(order), dtype=torch.bool)
            for number, label in enumerate(order.tolist()):
                mask, why = found.get(label, (None, "it has no set"))
                if why is not None:
                    return picked, why
                if not seen[number] and bool(((grown := counts[:, mask].sum(1)) <= left).all()):
                    picked.setdefault(where, []).append(number)
                    seen |= mask[order]
                    left -= grown
            if left[at] == before:
                why = f"width {widths[where]} of {where!r} leaves {before} channels, fewer than split together"
                return picked, why + (" beside the other widths" if len(widths) > 1 else "")
    return picked, None
