"""The entries of a network's parameters and buffers, numbered through, and which of them a tensor consists of."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from neuronsplit.surgery.shadow import as_real, has_memory, storage_of


class Entries:
    """Numbers for all entries of real and complex parameters and buffers, by their place in memory.

    A view of a parameter shares its storage, so that its strides say which entries it has.
    """

    def __init__(self, net: nn.Module):
        named = [(name, one) for name, one in chain(net.named_parameters(), net.named_buffers()) if has_memory(one)]
        first = {id(tensor): name for name, tensor in named}
        self.tied = {name: first[id(one)] for name, one in net.named_parameters(remove_duplicate=False)}  # first names
        self.tensors = {name: tensor for name, tensor in named if tensor.is_floating_point() or tensor.is_complex()}
        self.in_storage: dict[int, list[str]] = {}
        self.first, self.extent, total = {}, {}, 0
        for name, tensor in self.tensors.items():
            self.in_storage.setdefault(storage_of(tensor), []).append(name)
            self.first[name], self.extent[name] = total, extent(tensor)  # a module may resize it
            total += self.extent[name]
        self.names, self.starts = [*self.first], torch.tensor([*self.first.values(), total])

    def holder(self, tensor: Tensor) -> str | None:
        """The parameter or buffer of which a tensor is a view, if any."""
        for name in self.in_storage.get(storage_of(tensor), ()):
            own, offset = self.tensors[name], tensor.storage_offset() - self.tensors[name].storage_offset()
            if tensor.itemsize == own.itemsize and 0 <= offset < self.extent[name]:
                return name
        return self.holder(as_real(tensor)) if tensor.is_complex() else None

    def of(self, tensor: Tensor) -> Tensor | None:
        """The numbers of a tensor's entries (its shape), or None if it is no view of a parameter or buffer."""
        if (name := self.holder(tensor)) is None:
            return None
        if tensor.is_complex() and not self.tensors[name].is_complex():
            tensor = as_real(tensor)[..., 0]
        offset = tensor.storage_offset() - self.tensors[name].storage_offset()
        return self.first[name] + offset + _places(tensor.shape, tensor.stride())

    def name(self, entry: Tensor) -> str:
        """The parameter or buffer that has an entry."""
        return self.names[int(self.numbers(entry))]

    def numbers(self, entries: Tensor) -> Tensor:
        """The number of the parameter or buffer that has each entry."""
        return torch.searchsorted(self.starts, entries, right=True) - 1

    def counts(self, entries: Tensor) -> list[int]:
        """How many entries (n,) are of each parameter, if several are concatenated."""
        return torch.unique_consecutive(self.numbers(entries), return_counts=True)[1].tolist()

    def positions(self, entries: Tensor) -> tuple[str, dict[int, Tensor]]:
        """The parameter that entries (n,) are of, and their positions (n,) along each axis along which they differ."""
        name = self.name(entries[0])
        own, within = self.tensors[name], entries - self.first[name]
        axes = [axis for axis, size in enumerate(own.shape) if size > 1]
        along = {axis: within // own.stride(axis) % own.shape[axis] for axis in axes}
        return name, {axis: at for axis, at in along.items() if bool((at != at[0]).any())}


def line(tensor: Tensor, axis: int) -> Tensor:
    """The elements of a tensor along one axis, at the first place of the others: a view."""
    return tensor.movedim(axis, -1)[(0,) * (tensor.dim() - 1)]


def extent(tensor: Tensor) -> int:
    """How many places in memory a tensor's entries span."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))


def _places(shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    places = torch.zeros((), dtype=torch.long)
    for size, stride in zip(shape, strides):
        places = places[..., None] + stride * torch.arange(size)
    return places
