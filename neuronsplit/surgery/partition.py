"""Labels that are merged as they are found to belong together."""

import torch
from torch import Tensor

NONE = -1  # the label of what belongs to nothing


class Partition:
    """Sets of labels (union-find): each set is named by its smallest label."""

    def __init__(self):
        self.parent = torch.full((1,), NONE)  # the last one stands for the label −1

    def __len__(self) -> int:
        return len(self.parent) - 1

    def add(self, n: int) -> None:
        """Add n labels, each a set of its own."""
        self.parent = torch.cat([self.parent[:-1], torch.arange(len(self), len(self) + n), self.parent[-1:]])

    def roots(self, labels: Tensor) -> Tensor:
        """The names of the sets of labels (their shape)."""
        return self.parent[labels]

    def merge(self, a: Tensor, b: Tensor) -> None:
        """Merge the sets of a and b (of one shape), element by element, where both have a label."""
        a, b = self.roots(a), self.roots(b)
        while (different := (a != b) & (a >= 0) & (b >= 0)).any():
            a, b = a[different], b[different]
            self.parent.scatter_reduce_(0, torch.maximum(a, b), torch.minimum(a, b), "amin")
            while not torch.equal(self.parent, above := self.parent[self.parent]):
                self.parent = above
            a, b = self.roots(a), self.roots(b)
