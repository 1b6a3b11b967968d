"""Run a network once on labels: which entries of which parameters belong to one channel?

A channel is what is copied as a whole when a neuron is split. Take a network of three operations:

    h = x @ A.T     # A has the shape (2, 3): two neurons
    r = relu(h)
    y = r @ B.T     # B has the shape (1, 2)

The forward pass runs as it is. Each storage has a shadow, with a label for each element:

    x: −1 −1 −1     inputs belong to no channel
    h:  0  1        each row of A makes a channel:     A, axis 0, makes 0 1
    r:  0  1        relu keeps every element in its place
    y:  2           each column of B reads a channel:  B, axis 1, reads 0 1;  its row makes channel 2
                    y is the output, so that channel 2 cannot be split

To split neuron 1 is to copy what is labelled 1: row 1 of A, and column 1 of B, which the copies share.

Views of a tensor share its storage, and so their labels need no rule. Labels that meet one by one in a sum are tied:
these channels are copied and scaled alike. Those that meet so in a product of elements are copied together. A label
that meets several others, as a gate of one unit does, stays by itself.
"""

import torch
from torch import Tensor, nn

from neuronsplit.surgery.axes import narrowed
from neuronsplit.surgery.entries import Entries
from neuronsplit.surgery.facts import ALONG, MAKES, READS, Facts
from neuronsplit.surgery.noted_sizes import weight_norms
from neuronsplit.surgery.partition import NONE
from neuronsplit.surgery.shadow import Shadow, as_real, has_memory, storage_of, view_of


class Labels(Facts):
    """The labels of all tensors in a network's run, and what is found about its channels.

    An element has one label. Where a parameter mixes tokens, say, its product keeps the labels of the channels; if
    mixing, it has those that the parameter makes.
    """

    def __init__(self, net: nn.Module, mixing: bool = False):
        super().__init__()
        self.entries, self.mixing, self.norms = Entries(net), mixing, weight_norms(net)
        self.tensors = self.entries.tensors  # parameters and buffers, by name
        self.shadows: dict[int, Shadow] = {}  # of each storage: the labels of its elements
        self.products: dict[int, tuple] = {}  # of parameters, by their storage, that have no labels yet

    def knows(self, tensor: object) -> bool:
        """Whether a tensor has labels, or is a parameter or buffer."""
        if not isinstance(tensor, Tensor) or not has_memory(tensor) or not tensor.numel():
            return False
        storage = storage_of(tensor)
        return storage in self.shadows or storage in self.entries.in_storage or storage in self.products

    def settle_product(self, tensor: Tensor) -> None:
        """Label a product of parameters that is used as an activation."""
        if (product := self.products.pop(storage_of(tensor), None)) is not None:
            product.label()

    def raw(self, tensor: Tensor) -> Tensor:
        """The labels of a tensor's elements: of a channel, NONE, or below that of an entry of a parameter."""
        (small,) = narrowed(self._elements(tensor))
        return small.long().expand(tensor.shape)

    def _elements(self, tensor: Tensor) -> Tensor:
        """The part of a shadow that belongs to a tensor (its shape)."""
        self.settle_product(tensor)
        if tensor.is_complex() and self.entries.holder(tensor) is None:
            return self._elements(as_real(tensor))[..., 0]
        storage = tensor.untyped_storage()
        if (shadow := self.shadows.get(storage._cdata)) is not None:
            if shadow.itemsize != tensor.itemsize:
                return torch.full(tensor.shape, NONE)  # seen as another type, such as complex numbers
            return shadow.of(view_of(tensor))
        entries = self.entries.of(tensor) if self.knows(tensor) else None
        return torch.full(tensor.shape, NONE) if entries is None else NONE - 1 - entries

    def is_weight(self, tensor: object) -> bool:
        """Whether a tensor consists of entries of parameters."""
        return self.knows(tensor) and self.name_of(tensor) is not None

    def name_of(self, tensor: Tensor) -> str | None:
        """The name of the parameter that a tensor's first element is of, if any."""
        if storage_of(tensor) not in self.shadows:
            return self.entries.holder(tensor)
        first = self._elements(tensor)[(0,) * tensor.dim()]
        return self.entries.name(NONE - 1 - first) if int(first) < NONE else None

    def of(self, tensor: object) -> Tensor | None:
        """The labels of the channels in an activation (its shape), or None if there are none."""
        if not self.knows(tensor) or self.is_weight(tensor):
            return None
        (small,) = narrowed(self._elements(tensor))
        return self.scales.roots(small.long()).expand(tensor.shape) if bool((small >= 0).any()) else None

    def of_activation(self, tensor: Tensor) -> Tensor:
        """As `of`. Raises LookupError where there are none: no rule can follow it."""
        if (found := self.of(tensor)) is None:
            raise LookupError("no channels")
        return found

    def put(self, tensor: Tensor, labels: Tensor) -> None:
        """Label a tensor, and with it all that share its storage. Entries among other labels make channels."""
        if (of_entries := labels < NONE).any() and not of_entries.all():
            made = self._record_each(NONE - 1 - labels[of_entries], None, MAKES, 0)[2]
            labels = labels.masked_scatter(of_entries, made)
        labels, storage = labels.expand(tensor.shape), tensor.untyped_storage()
        if tensor.is_complex():
            tensor, labels = as_real(tensor), labels[..., None].expand(*labels.shape, 2)
        if storage._cdata in self.entries.in_storage:
            return  # running statistics, in training
        if storage._cdata not in self.shadows:
            for key in [key for key, shadow in self.shadows.items() if shadow.storage.expired()]:
                del self.shadows[key]
            small = torch.int32 if int(self.entries.starts[-1]) < 2**30 else torch.int64  # half as much memory
            self.shadows[storage._cdata] = Shadow(storage, tensor.itemsize, small)
        self.shadows[storage._cdata].put(view_of(tensor), labels)

    # What parameters are to channels

    def learns(self, weight: Tensor) -> bool:
        """Whether a weight consists of entries of a parameter, and not of a buffer."""
        return isinstance(self.tensors[self.name_of(weight)], nn.Parameter)

    def accompany(self, weight: Tensor, other: Tensor, why: str, alike: bool) -> None:
        """Note that the entries of another parameter go along with those of one, element by element (one shape).

        alike: whether they are to channels what those are, as the terms of a sum.
        """
        name = self.name_of(weight)
        if self.tensors[name].shape == other.shape:
            self.companions.setdefault(name, []).append((other, alike))
        else:
            self.lose(other, why)

    def terms(self, name: str) -> list[str]:
        """The names of a parameter and of those that are added to it."""
        added = [self.name_of(other) for other, alike in self.companions.get(name, ()) if alike]
        return [name, *(term for one in added for term in self.terms(one))]

    def lose(self, weight: Tensor, why: str) -> None:
        """Note that a parameter, of which this consists, is followed no further."""
        self.lost.setdefault(self.name_of(weight), why)

    def record(self, weight: Tensor, labels: Tensor | None, role: str, taken: tuple[int, ...] = ()):
        """Note what the entries of a parameter (n,) are to channels (n,), or to new ones if labels is None.

        taken: axes of the parameter that are not meant where there is one entry only.
        Returns the parameter's name, the axes along which the entries differ, and the labels.
        """
        entries = NONE - 1 - self.raw(weight).flatten()
        own = self.tensors[self.entries.name(entries[0])]
        single = [axis for axis in range(own.dim()) if own.shape[axis] == 1 and axis not in taken]
        # A view keeps the stride of such an axis.
        single.sort(key=lambda axis: own.stride()[axis : axis + 1] != weight.stride()[-1:])
        return self._record_each(entries, labels, role, (*single, 0)[0])

    def as_channels(self, weight: Tensor) -> Tensor:
        """Labels of a weight that is used as an activation (its shape): each of its entries makes a channel."""
        return self._record_each(NONE - 1 - self.raw(weight).flatten(), None, MAKES, 0)[2].view(weight.shape)

    def _record_each(self, entries: Tensor, labels: Tensor | None, role: str, single: int):
        """Record entries (n,) of one parameter, or of several that are concatenated."""
        number = self.entries.numbers(entries)
        if bool((number == number[0]).all()):
            return self._record(entries, labels, role, single)
        recorded = torch.empty_like(entries)
        for one in torch.unique(number):
            own = number == one
            of_own = None if labels is None else labels[own]
            name, axes, recorded[own] = self._record(entries[own], of_own, role, single)
        return name, axes, self.scales.roots(recorded)

    def _record(self, entries: Tensor, labels: Tensor | None, role: str, single: int):
        name, along = self.entries.positions(entries)
        shape, axes = self.tensors[name].shape or (1,), tuple(along) or (single,)
        at = torch.zeros_like(entries)
        for axis in along:
            at = at * shape[axis] + along[axis]
        sizes = [shape[axis] for axis in axes]
        owner = self.owners.setdefault((name, axes, role), torch.full((torch.Size(sizes).numel(),), NONE))
        if labels is None:
            missing = torch.unique(at[owner[at] == NONE])
            owner[missing] = self.new(len(missing))
        else:
            self.tie(owner[at], labels)
            owner[at] = torch.where(labels == NONE, owner[at], labels)
        for other in {MAKES, READS, ALONG} - {role}:
            if (name, axes, other) in self.owners:
                self.channels.merge(self.owners[name, axes, other], owner)
        if len(axes) > 1:
            self.cut(owner.view(sizes))
        for other, alike in self.companions.get(name, ()):
            places = tuple(along.get(axis, 0) for axis in range(other.dim()))
            of_other = NONE - 1 - self.raw(other)[places] if along else None  # (n,)
            if of_other is not None and bool((of_other != of_other[0]).any()):
                self._record(of_other, owner[at], role if alike else ALONG, 0)
        return name, axes, self.scales.roots(owner[at])
