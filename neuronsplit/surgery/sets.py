"""Which channels split together: the smallest sets that can be copied whole.

Three kinds of facts of a trace say so. Rows are copied all or none. On a grid, whole slices along one axis are copied.
A head of attention is copied with its weights and with its values. A set of channels is a mask over all labels.
"""

import heapq
from collections.abc import Iterator
from itertools import count

import torch
from torch import Tensor

from neuronsplit.surgery.labels import Labels, core

MAX_TRIED = 60  # sets that are tried before the search gives up


class Sets:
    """The facts of a trace about channels that are copied together, by the labels that stand for them."""

    def __init__(self, labels: Labels):
        self.roots = labels.channels.roots(torch.arange(len(labels.channels) + 1))
        rows = {tuple(torch.unique(self.roots[row[row >= 0]]).tolist()): why for why, row in labels.rows}
        self.why_row = list(rows.values())
        self.row_of = torch.tensor([n for n, row in enumerate(rows) for _ in row], dtype=torch.long)
        self.in_row = torch.tensor([label for row in rows for label in row], dtype=torch.long)
        grids = [core(self.roots[grid]) for grid in labels.grids]
        self.grids = list({(g.shape, g.numpy().tobytes()): g for g in grids if g.dim() > 1}.values())
        heads = {(w.numpy().tobytes(), v.numpy().tobytes()): (self.roots[w], self.roots[v]) for w, v in labels.heads}
        self.heads = list(heads.values())
        self.barred = {
            int(label): why for why, barred in reversed(labels.barred) for label in self.roots[barred[barred >= 0]]
        }

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
            for weights, values in self.heads:  # (B,), (B, D)
                mask[values[mask[weights]]] = True
                mask[-1] = False
                whole = mask[values] | (values < 0)
                if not whole.all():
                    mask[weights[whole.all(1) & (values >= 0).any(1)]] = True
                mask[-1] = False
        return mask

    def candidates(self, mask: Tensor) -> Iterator[tuple[Tensor, str | None]]:
        """Sets that contain one and may split exactly, the smallest first; with each, why it cannot be copied, or None."""
        mask, number, seen = self.closed(mask), count(), set()
        heap = [(int(mask.sum()), next(number), mask)]
        while heap and len(seen) < MAX_TRIED:
            _, _, mask = heapq.heappop(heap)
            key = mask.numpy().tobytes()
            if key in seen:
                continue
            seen.add(key)
            barred = [self.barred[label] for label in mask.nonzero().flatten().tolist() if label in self.barred]
            broken = [grid for grid in self.grids if whole_slices(mask[grid]) is None]
            if barred or not broken:
                yield mask, (barred or [None])[0]
            if not barred:  # a size that is written in may need a larger set
                for grid in broken[:1] or [g for g in self.grids if mask[g].any() and not mask[g].all()]:
                    for axis in range(grid.dim()):
                        touched = mask[grid].transpose(0, axis).flatten(1).any(1)
                        larger = mask.clone()
                        larger[grid.transpose(0, axis)[touched]] = True
                        larger[-1] = False
                        larger = self.closed(larger)
                        heapq.heappush(heap, (int(larger.sum()), next(number), larger))


def whole_slices(mask: Tensor, labels: Tensor | None = None) -> tuple[int, Tensor] | None:
    """The axis along which a mask is whole slices, and which; None if there is none.

    labels: if given, an axis along which they differ is preferred.
    """
    found = None
    for axis in range(mask.dim()):
        slices = mask.transpose(0, axis).flatten(1) if mask.dim() > 1 else mask[:, None]
        if bool((slices == slices[:, :1]).all()):
            found = found or (axis, slices[:, 0])
            if labels is None or bool((labels != labels.narrow(axis, 0, 1)).any()):
                return axis, slices[:, 0]
    return found
