"""Where copies stand on an axis: behind their own stretch of it, such as a head, or a block that a view cuts out."""

from collections.abc import Iterable

import torch
from torch import Tensor

from neuronsplit.surgery.axes import whole_slices
from neuronsplit.surgery.sets import Sets


def blocks_of(sets: Sets, masks: list[Tensor]) -> list[Tensor]:
    """Labels (n, D) of blocks that are next to each other on an axis, in which copies of sets (masks) may have to stay.

    They are the parts of concatenations, and of grids: copies of slices along an axis stay in the block that has it.
    Where all of a grid are copied, it may be either of the first two axes: copies that stay in the rows serve both.
    """
    blocks = [part[None] for part in sets.parts if any(mask[part].any() for mask in masks)]
    for grid, mask in ((grid, mask) for mask in masks for grid in sets.grids if mask[grid].any()):
        slices = whole_slices(mask[grid], grid)
        axis = 1 if mask[grid[grid >= 0]].all() else slices and slices[0]
        blocks += [grid.flatten(axis).flatten(0, -2)] if axis else []
    return blocks


def stretches_of(line: tuple[int, ...], units: Tensor, blocks: Iterable[Tensor]) -> Tensor:
    """Numbers (n,) of the stretches of an axis, by its labels.

    Copies stand behind their own stretch. It ends with its head, with its block, or where a label recurs.
    units: the head or group of each label, or −1.
    """
    labels = torch.tensor(line)
    of_units, begins = units[labels], torch.zeros(len(line), dtype=torch.bool)
    begins[1:] = of_units[1:] != of_units[:-1]
    begins[[at for at in _ends(labels, blocks) if at < len(line)]] = True
    begins[:1] = False
    seen: set[int] = set()
    for at in (of_units < 0).nonzero()[:, 0].tolist() if len(set(line)) < len(line) else []:
        recurs = line[at] in seen and line[at] != line[at - 1]  # several copies of the channels, concatenated
        begins[at] |= recurs
        seen = set() if begins[at] else seen
        seen.add(line[at])
    return begins.cumsum(0)


def _ends(line: Tensor, blocks: Iterable[Tensor]) -> set[int]:
    """The positions on an axis, by its labels, where a block ends that stands on it."""
    ends: set[int] = set()
    for rows in blocks:
        for start in (line == rows[0, 0]).nonzero()[:, 0].tolist():
            stop = start + rows.numel()
            if torch.equal(line[start:stop], rows.flatten()):
                ends |= {*range(start, stop, rows.shape[1]), stop}
    return ends
