"""Run a network once on labels: which entries of which parameters belong to one channel?

A channel is what is copied as a whole when a neuron is split. Take a network of three operations:

    h = x @ A.T     # A has the shape (2, 3): two neurons
    r = relu(h)
    y = r @ B.T     # B has the shape (1, 2)

The forward pass runs as it is. Beside the storage of each tensor lies a second one with a label for each element:

    x: −1 −1 −1     inputs belong to no channel
    h:  0  1        each row of A makes a channel:      A, axis 0: made by  [0 1]
    r:  0  1        relu keeps every element in its place
    y:  2           each column of B reads a channel:   B, axis 1: read by  [0 1];  its row makes channel 2
                    y is the output, so that channel 2 cannot be split

To split neuron 1 is to copy what is labelled 1: row 1 of A, and column 1 of B, which the copies share.

Views of a tensor share its storage, and so their labels need no rule. Two labels that meet in a sum are tied: they are
copied and scaled together. Two that meet in a product of elements are linked: they are copied together.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

NONE = -1  # the label of an element that belongs to no channel; entries of parameters have labels below
MAKES, READS, ALONG = "makes", "reads", "along"  # what a parameter is to a channel


class Partition:
    """Sets of labels, merged as they are found to belong together (union-find)."""

    def __init__(self):
        self.parent = torch.full((1,), NONE)  # its last entry stays NONE, for the label −1

    def new(self, n: int) -> None:
        """Add n labels, each a set of its own."""
        first = len(self.parent) - 1
        self.parent = torch.cat([self.parent[:-1], torch.arange(first, first + n), self.parent[-1:]])

    def roots(self, labels: Tensor) -> Tensor:
        """The label that stands for the set of each."""
        return self.parent[labels]

    def merge(self, a: Tensor, b: Tensor) -> None:
        """Merge the sets of a and of b, element by element, where both have a label."""
        both = (a >= 0) & (b >= 0)
        a, b = a[both], b[both]
        while len(different := (self.parent[a] != self.parent[b]).nonzero().flatten()):
            a, b = self.parent[a[different]], self.parent[b[different]]
            self.parent.scatter_reduce_(0, torch.maximum(a, b), torch.minimum(a, b), "amin")
            while not torch.equal(self.parent, above := self.parent[self.parent]):
                self.parent = above


class Labels:
    """The labels of all tensors of a network's run, and what they say about its channels."""

    def __init__(self, net: nn.Module):
        self.tensors = {n: t for n, t in [*net.named_parameters(), *net.named_buffers()] if t.is_floating_point()}
        self.first, self.own, total = {}, {}, 0  # the first entry of each tensor; the tensors in a storage
        for name, tensor in self.tensors.items():
            self.first[name] = total
            self.own.setdefault(tensor.untyped_storage()._cdata, []).append(name)
            total += 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
        self.starts = torch.tensor([*self.first.values(), total])
        self.beside: dict[int, tuple[StorageWeakRef, Tensor]] = {}  # by storage: the labels of its elements
        self.channels, self.scales = Partition(), Partition()  # what is copied together, and also scaled alike
        self.owners: dict[tuple, Tensor] = {}  # of (name, axes, role): the label of each position along the axes
        self.outputs: dict[tuple, int | None] = {}  # of (name, axes) that read: the axis of what is computed
        self.shared: list[tuple] = []  # (name, axes, positions (n,), labels (n, m)) of entries that serve m channels
        self.rows: list[tuple[str, Tensor]] = []  # labels that are copied all or none, and why
        self.grids: dict[bytes, Tensor] = {}  # labels along several axes, of which slices are copied
        self.pairs: list[tuple[Tensor, Tensor]] = []  # attention: labels of its weights, and of values (n, D)
        self.barred: list[tuple[str, Tensor]] = []  # labels that cannot be copied, and why
        self.unscaled: list[tuple[str, Tensor]] = []  # labels that let no scale through, and why
        self.spoilt: dict[str, str] = {}  # parameters that no rule could follow, and why

    # What is known of a tensor

    def new(self, n: int) -> Tensor:
        """Return n labels of channels that are new."""
        first = len(self.scales.parent) - 1
        self.channels.new(n)
        self.scales.new(n)
        return torch.arange(first, first + n)

    def raw(self, tensor: Tensor) -> Tensor | None:
        """The labels of a tensor's elements, as a view that can be written to; None if nothing is known of it."""
        _, found = self.beside.get(tensor.untyped_storage()._cdata, (None, None))
        return None if found is None else found.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def entries(self, tensor: object) -> Tensor | None:
        """The entries of parameters that a tensor consists of, numbered through; None if it has others."""
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or not tensor.numel():
            return None
        for name in self.own.get(tensor.untyped_storage()._cdata, ()):
            own, offset = self.tensors[name], tensor.storage_offset() - self.tensors[name].storage_offset()
            last = sum((size - 1) * stride for size, stride in zip(own.shape, own.stride()))
            if tensor.itemsize == own.itemsize and 0 <= offset <= last:
                return self.first[name] + offset + _positions(tensor.shape, tensor.stride())
        labels = self.raw(tensor)
        return None if labels is None or bool((labels >= NONE).any()) else NONE - 1 - labels

    def of(self, tensor: object) -> Tensor | None:
        """The labels of an activation (its shape), or None."""
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            return None
        labels = self.raw(tensor)
        if labels is None or not bool((labels >= 0).any()):
            return None
        if bool((labels < NONE).any()):  # entries among others, from a concatenation
            entries = NONE - 1 - labels
            labels[labels < NONE] = self.as_channels(entries[labels < NONE])
        return self.scales.roots(labels)

    def is_weight(self, tensor: object) -> bool:
        """Whether a tensor consists of entries of parameters, as far as its first element tells."""
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided or not tensor.numel():
            return False
        storage = tensor.untyped_storage()._cdata
        if storage in self.own:
            return self.entries(tensor[(slice(0, 1),) * tensor.dim()]) is not None
        return storage in self.beside and bool(self.raw(tensor)[(0,) * tensor.dim()] < NONE)

    def codes(self, tensor: Tensor) -> Tensor:
        """The labels of any tensor: of a channel, NONE, or below that of an entry of a parameter."""
        if self.is_weight(tensor) and (entries := self.entries(tensor)) is not None:
            return NONE - 1 - entries
        labels = self.raw(tensor)
        return torch.full(tensor.shape, NONE) if labels is None else labels

    def spoil(self, weight: Tensor, why: str) -> None:
        """Note that no rule can follow a parameter, of which this consists."""
        entries = self.entries(weight)
        if entries is not None:
            self.spoilt.setdefault(self.positions(entries.flatten()[:1])[0], why)

    def put(self, tensor: Tensor, labels: Tensor) -> None:
        """Label a tensor, and with it all that share its storage."""
        storage = tensor.untyped_storage()
        if storage._cdata in self.own:
            return  # running statistics, in training
        if storage._cdata not in self.beside:
            for key in [key for key, (storage_of, _) in self.beside.items() if storage_of.expired()]:
                del self.beside[key]
            n = storage.nbytes() // tensor.itemsize
            self.beside[storage._cdata] = StorageWeakRef(storage), torch.full((n,), NONE)
        self.raw(tensor).copy_(labels.expand(tensor.shape))

    # What belongs together

    def tie(self, a: Tensor, b: Tensor) -> None:
        """Note that channels are copied and scaled together."""
        self.channels.merge(a, b)
        self.scales.merge(a, b)

    def all_or_none(self, rows: Tensor, why: str) -> None:
        """Note that the channels of each row (n, D) are copied together, or none of them."""
        self.rows += [(why, row[row >= 0]) for row in torch.unique(rows, dim=0)]

    def slices(self, labels: Tensor) -> None:
        """Note that what is copied of these channels must be slices along one axis, if they differ along several."""
        (labels,) = core(labels)
        if labels.dim() > 1:
            self.grids[str(tuple(labels.shape)).encode() + labels.numpy().tobytes()] = labels

    def bar(self, labels: Tensor | None, why: str) -> None:
        """Note that channels cannot be copied."""
        if labels is not None:
            self.barred.append((why, torch.unique(labels[labels >= 0])))

    def pin(self, labels: Tensor, why: str) -> None:
        """Note that channels cannot be scaled."""
        self.unscaled.append((why, torch.unique(labels[labels >= 0])))

    def settle(self, labels: Tensor, axis: int) -> Tensor:
        """Tie labels that stand at one place of an axis; return one for each place (n,)."""
        lines = labels.movedim(axis, -1).flatten(0, -2)  # (m, n)
        if bool((lines == lines[:1]).all()):
            return lines[0]
        lines = torch.unique(lines, dim=0)
        first = lines.max(0).values
        for line in lines:
            self.tie(first, line)
        return self.scales.roots(first)

    # What parameters are to channels

    def positions(self, entries: Tensor) -> tuple[str, dict[int, Tensor]]:
        """The parameter that entries (n,) are of, and their positions along each axis along which they differ.

        Raises ValueError for entries of several parameters.
        """
        number = torch.searchsorted(self.starts, entries, right=True) - 1
        if bool((number != number[0]).any()):
            raise ValueError("entries of several parameters")
        name = [*self.first][int(number[0])]
        own, within = self.tensors[name], entries - self.first[name]
        along = {a: within // stride % size for a, (size, stride) in enumerate(zip(own.shape, own.stride())) if size > 1}
        return name, {axis: at for axis, at in along.items() if bool((at != at[0]).any())}

    def record_line(self, weight: Tensor, labels: Tensor | None, role: str, taken: tuple[int, ...] = ()):
        """Note what the entries of a parameter along a line (n,) are to the channels (n,), as `record` does.

        taken: axes that are along another line, where the line has one entry only.
        """
        entries = self.entries(weight)
        shape, strides = (own := self.tensors[self.positions(entries)[0]]).shape, own.stride()
        single = [a for a in range(len(shape)) if shape[a] == 1 and a not in taken]
        single.sort(key=lambda axis: strides[axis] != weight.stride(0))
        return self.record(entries, labels, role, single[0] if single else 0)

    def record(self, entries: Tensor, labels: Tensor | None, role: str, single: int = 0):
        """Note what the entries (n,) of a parameter are to the channels (n,), or make new ones if None.

        single: the axis that one entry is along.
        Returns the parameter's name, the axes along which the entries differ, and the labels.
        """
        name, along = self.positions(entries)
        shape = self.tensors[name].shape
        axes = tuple(along) or (single,)
        sizes = [shape[a] for a in axes] if shape else [1]
        at = torch.zeros(len(entries), dtype=torch.long)
        for axis, size in zip(axes, sizes):
            at = at * size + along.get(axis, torch.zeros_like(at))
        owner = self.owners.setdefault((name, axes, role), torch.full((torch.Size(sizes).numel(),), NONE))
        if labels is None:
            missing = torch.unique(at[owner[at] < 0])
            owner[missing] = self.new(len(missing))
            labels = self.scales.roots(owner[at])
        else:
            self.tie(owner[at], labels)
            owner[at] = torch.where(labels >= 0, labels, owner[at])
        for other in (MAKES, READS, ALONG):
            if other != role and (name, axes, other) in self.owners:
                self.channels.merge(self.owners[name, axes, other], owner)
        if len(axes) > 1:
            self.slices(owner.view(sizes))
        return name, axes, labels

    def as_channels(self, entries: Tensor) -> Tensor:
        """Return labels for the entries of parameters that are used as an activation: each makes a channel."""
        flat, labels = entries.flatten(), torch.empty(entries.numel(), dtype=torch.long)
        number = torch.searchsorted(self.starts, flat, right=True) - 1
        for one in torch.unique(number):
            labels[number == one] = self.record(flat[number == one], None, MAKES)[2]
        return labels.view(entries.shape)


def core(labels: Tensor, *others: Tensor) -> list[Tensor]:
    """Drop the axes along which neither labels nor others, of the same shape, differ."""
    for axis in reversed(range(labels.dim())):
        if all(one.shape[axis] == 1 or bool((one == one.narrow(axis, 0, 1)).all()) for one in (labels, *others)):
            labels, *others = (one.select(axis, 0) for one in (labels, *others))
    return [labels, *others]


def line(tensor: Tensor, axis: int) -> Tensor:
    """The elements along one axis, at the first place of the others; a view."""
    return tensor.movedim(axis, -1)[(0,) * (tensor.dim() - 1)]


def _positions(shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    positions = torch.zeros((), dtype=torch.long)
    for size, stride in zip(shape, strides):
        positions = positions[..., None] + stride * torch.arange(size)
    return positions
