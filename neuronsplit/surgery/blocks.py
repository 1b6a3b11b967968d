"""Where copies stand on an axis: behind their own stretch of it, such as a head, or a block that a view cuts out."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from neuronsplit.surgery.sets import Sets, whole_slices


class Block(NamedTuple):
    """A part of an axis that the network's code cuts out, or puts together with others."""

    labels: Tensor  # (n,) of all blocks that are next to each other
    size: int


def blocks_of(sets: Sets, masks: list[Tensor]) -> list[Block]:
    """The blocks of grids, and the parts of concatenations, in which copies of sets (masks) may have to stay.

    The copies of slices along an axis stay in the block that has the axis. Where all are copied, it may be either of
    the first two axes: copies that stay in the rows serve both.
    """
    blocks = [Block(part, len(part)) for part in sets.parts if any(mask[part].any() for mask in masks)]
    for grid, mask in ((grid, mask) for mask in masks for grid in sets.grids if mask[grid].any()):
        slices = whole_slices(mask[grid], grid)
        axis = 1 if mask[grid[grid >= 0]].all() else slices and slices[0]
        blocks += [Block(grid.flatten(), grid.shape[axis:].numel())] if axis else []
    return blocks


def stretches_of(line: Tensor, units: Tensor, blocks: Iterable[Block]) -> Tensor:
    """Numbers (n,) of the stretches of an axis, by its labels.

    Copies stand behind their own stretch. It ends with its head, with its block, or where a label recurs.
    units: the head or group of each label, or −1.
    """
    numbers, seen, before, ends = [], set(), (None, None), _ends(line, blocks)
    for at, (label, unit) in enumerate(zip(line.tolist(), units[line].tolist())):
        recurs = unit < 0 and label in seen and label != before[0]  # several copies of the channels, concatenated
        begins = bool(numbers) and (unit != before[1] or recurs or at in ends)
        seen = set() if begins else seen
        seen.add(label)
        numbers.append(numbers[-1] + begins if numbers else 0)
        before = label, unit
    return torch.tensor(numbers)


def _ends(line: Tensor, blocks: Iterable[Block]) -> set[int]:
    """The positions on an axis, by its labels, where a block of a grid ends that stands on it."""
    ends: set[int] = set()
    for flat, size in blocks:
        for start in (line == flat[0]).nonzero()[:, 0].tolist():
            if torch.equal(line[start : start + len(flat)], flat):
                ends |= {*range(start, start + len(flat), size), start + len(flat)}
    return ends
