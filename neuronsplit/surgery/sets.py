"""Which channels split together: the smallest sets that can be copied whole.

Three kinds of facts of a trace say so. Rows are copied all or none. On a grid, whole slices along one axis are copied.
A head of attention is copied with its weights and with its values. Channels that are summed can also be copied one by
one, if twins are even. A set of channels is a mask over all labels.
"""

import heapq
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count

import torch
from torch import Tensor

from neuronsplit.surgery.axes import core, whole_slices
from neuronsplit.surgery.facts import MAKES, READS
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.partition import Partition

MAX_TRIED = 30  # sets that are tried before the search gives up


def ways(labels: Labels) -> list[Callable[[], "Sets"]]:
    """The ways in which channels may be copied, in the order in which they are tried: each is found when called."""
    alone = [partial(Sets, labels, even=True, joined=False)] if labels.means else []
    return [cache(way) for way in (partial(Sets, labels), partial(Sets, labels, even=True), *alone)]


class Sets:
    """The facts of a trace about channels that are copied together, by the labels that stand for them.

    even: whether twins are even, so that sums over channels stay; without it, what is summed is copied whole or not.
    joined: whether a norm joins the channels of which it takes a mean; without it, norms are scaled for one more.
    """

    def __init__(self, labels: Labels, even: bool = False, joined: bool = True):
        self.even, self.joined, self.roots = even, joined, labels.channels.roots(torch.arange(len(labels.channels) + 1))
        sums = [] if even else labels.sums
        whole = [(one.why, torch.cat([one.made, *one.factors])) for one in sums if one.made is not None]
        barred = [(one.why, torch.cat(one.factors)) for one in sums if one.made is None]
        if even:  # a share has to come through one factor at least
            fixed = labels.cannot_be_scaled()
            barred = [(one.why, one.factors[0][fixed[torch.stack(one.factors)].all(0)]) for one in labels.sums]
        means = [(one.why, one.channels) for one in labels.means if joined]
        rows = {tuple(torch.unique(self.roots[r[r >= 0]]).tolist()): why for why, r in [*labels.rows, *means, *whole]}
        self.why_row = list(rows.values())
        self.row_of = torch.tensor([n for n, row in enumerate(rows) for _ in row], dtype=torch.long)
        self.in_row = torch.tensor([label for row in rows for label in row], dtype=torch.long)
        self.grids = [grid for grid in map(core, self._distinct(labels.grids)) if grid.dim() > 1]
        self.parts, self.heads = self._distinct(labels.parts), self._distinct(labels.heads)
        self.units = self._units(labels, [*labels.units, *(row[None] for _, row in whole)])
        by_role = {(name, role): owner for (name, _, role), owner in labels.owners.items()}
        self.readers = [
            (self.roots[reads], self.roots[by_role[name, MAKES]])
            for (name, role), reads in by_role.items()
            if role == READS and (name, MAKES) in by_role
        ]
        alike: dict[tuple, list[Tensor]] = {}  # blocks that repeat have the same names but for numbers
        for (name, axes, role), owner in labels.owners.items():
            alike.setdefault((re.sub(r"\d+", "#", name), axes, role, len(owner)), []).append(self.roots[owner])
        self.alike = [torch.stack(owners) for owners in alike.values() if len(owners) > 1]  # (blocks, n)
        self.barred = {
            int(label): why for why, of in reversed([*labels.barred, *barred]) for label in self.roots[of[of >= 0]]
        }

    def _distinct(self, found: list[Tensor]) -> list[Tensor]:
        """The names of the sets of some labels, each once."""
        roots = [self.roots[labels] for labels in found]
        return list({(of.shape, of.numpy().tobytes()): of for of in roots}.values())

    def _units(self, labels: Labels, units: list[Tensor]) -> Tensor:
        """The head, group or piece of an axis that each label belongs to, or −1: copies stand behind the run of it."""
        partition = Partition()
        partition.add(len(labels.channels))
        for rows in [*units, *labels.heads]:  # (n, D)
            if len(rows) == 1 or len(torch.unique(self.roots[rows], dim=0)) > 1:  # not tied since
                partition.merge(self.roots[rows[:, :1]].expand_as(rows), self.roots[rows])
        units = partition.roots(self.roots)
        sizes = torch.bincount(partition.roots(torch.unique(self.roots[:-1])), minlength=len(units))
        units = torch.where(sizes[units] > 1, units, -1)
        for piece in (self.roots[piece[piece >= 0]] for piece in labels.pieces):
            if len(piece) and bool((units[piece] < 0).all()):
                units[piece] = piece[0]
        return units

    def mask(self, labels: Tensor) -> Tensor:
        """The set of some labels."""
        mask = torch.zeros(len(self.roots), dtype=torch.bool)
        mask[self.roots[labels[labels >= 0]]] = True
        return mask

    def closed(self, mask: Tensor) -> Tensor:
        """A set with all that rows and heads bring along."""
        mask, size = mask.clone(), -1
        while size != (size := int(mask.sum())):
            touched = torch.zeros(len(self.why_row), dtype=torch.bool)
            touched[self.row_of[mask[self.in_row]]] = True
            mask[self.in_row[touched[self.row_of]]] = True
            for weights, values in ((head[:, 0], head[:, 1:]) for head in self.heads):
                mask[values[mask[weights]]] = True
                mask[-1] = False
                whole = mask[values] | (values < 0)
                if len(weights) > 1 and not whole.all():
                    mask[weights[whole.all(1) & (values >= 0).any(1)]] = True
                mask[-1] = False
        return mask

    def candidates(self, mask: Tensor) -> Iterator[tuple[Tensor, str | None]]:
        """Sets that contain one and may split exactly, the smallest first; with each, why it cannot be, or None."""
        number, seen, tried = count(), set(), []
        heap = [(0, next(number), self.closed(mask))]
        while heap and len(seen) < MAX_TRIED:
            _, _, mask = heapq.heappop(heap)
            if (key := mask.numpy().tobytes()) in seen:
                continue
            seen.add(key)
            why, broken = self._why_barred(mask), self._broken_grids(mask)
            if why is not None or not broken:
                yield mask, why
            if why is None:
                tried += [] if broken else [mask]
                for one in map(self.closed, self._larger(mask, broken)):
                    heapq.heappush(heap, (int(one.sum()), next(number), one))
        for mask in tried:  # a network may have one size for the heads of all its blocks
            mask = self.closed(mask | self._in_all_blocks(mask))
            if mask.numpy().tobytes() not in seen and not self._broken_grids(mask):
                seen.add(mask.numpy().tobytes())
                yield mask, self._why_barred(mask)

    def _why_barred(self, mask: Tensor) -> str | None:
        return next((self.barred[label] for label in mask.nonzero()[:, 0].tolist() if label in self.barred), None)

    def _broken_grids(self, mask: Tensor) -> list[Tensor]:
        return [grid for grid in self.grids if mask[grid].any() and whole_slices(mask[grid], grid) is None]

    def _larger(self, mask: Tensor, broken: list[Tensor]) -> Iterator[Tensor]:
        """Sets that contain one: with whole slices of a grid, with whole heads, or with what is read or made."""
        for grid in broken[:1] or [grid for grid in self.grids if mask[grid].any() and not mask[grid].all()]:
            for axis in range(grid.dim()):  # a size that is written in may need a larger set
                yield mask | self.mask(grid.transpose(0, axis)[mask[grid].transpose(0, axis).flatten(1).any(1)])
        if not broken:
            yield mask | self._with_units(mask)
            for more in (self._with_heads(mask), self._with_same_size(mask)):  # a network may have one size for both
                if more.any():
                    yield mask | more
            if not self._with_heads(mask).any() and (self.units[:-1][mask[:-1]] >= 0).any():
                yield mask | self._with_read(mask)

    def are_whole_units(self, mask: Tensor) -> bool:
        """Whether a set has no head, group or piece of an axis in part."""
        return not bool((self._with_units(mask) & ~mask).any())

    def _with_units(self, mask: Tensor) -> Tensor:
        """The heads or groups that a set has a part of."""
        units = torch.unique(self.units[:-1][mask[:-1]])
        return torch.isin(self.units, units[units >= 0])

    def _with_heads(self, mask: Tensor) -> Tensor:
        """The heads that are made by parameters that read a set."""
        made = [makes[self.units[makes] >= 0] for reads, makes in self.readers if mask[reads].any()]
        return self.mask(torch.cat(made)) if made else torch.zeros_like(mask)

    def _with_same_size(self, mask: Tensor) -> Tensor:
        """What parameters make of a set, and read for it, if they have as many channels of both; and their heads."""
        square = [pair for pair in self.readers if len(pair[0]) == len(pair[1])]
        of = [to[to >= 0] for pair in square for at, to in (pair, pair[::-1]) if mask[at].any()]
        found = self.mask(torch.cat(of)) if of else torch.zeros_like(mask)
        return found | self._with_heads(mask | found) if found.any() else found

    def _in_all_blocks(self, mask: Tensor) -> Tensor:
        """What a set is in one block of a network, in all that repeat it."""
        same = [owners[:, mask[owners].any(0)].flatten() for owners in self.alike]
        return self.mask(torch.cat(same)) if same else torch.zeros_like(mask)

    def _with_read(self, mask: Tensor) -> Tensor:
        """What is read by the parameters that make a set."""
        read = [reads for reads, makes in self.readers if mask[makes].any()]
        return self.mask(torch.cat(read)) if read else torch.zeros_like(mask)
