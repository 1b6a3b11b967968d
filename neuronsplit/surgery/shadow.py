"""The labels of a storage: each of its elements has one."""

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from neuronsplit.surgery.axes import narrowed
from neuronsplit.surgery.partition import NONE

View = tuple[tuple[int, ...], tuple[int, ...], int]  # shape, strides and offset in the storage


def storage_of(tensor: Tensor) -> int:
    """A number for the memory of a tensor, which its views share."""
    return tensor.untyped_storage()._cdata


def has_memory(tensor: Tensor) -> bool:
    """Whether a tensor has a memory of its entries, as a sparse one has not."""
    return tensor.layout == torch.strided


def as_real(tensor: Tensor) -> Tensor:
    """The memory of complex numbers (…) as that of pairs of real ones (…, 2)."""
    return torch.view_as_real(tensor.conj() if tensor.is_conj() else tensor)


def view_of(tensor: Tensor) -> View:
    """The view of its storage that a tensor is."""
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset()


class Shadow:
    """The labels of a storage's elements, which take little memory as long as one view of it is used."""

    def __init__(self, storage: torch.UntypedStorage, itemsize: int, dtype: torch.dtype):
        self.storage, self.itemsize, self.dtype = StorageWeakRef(storage), itemsize, dtype
        self.size = storage.nbytes() // itemsize
        self.view, self.labels = None, None  # elements that the view does not have have no label

    def of(self, view: View) -> Tensor:
        """The labels of a view of the storage (its shape)."""
        if view != self.view:
            flat = torch.full((self.size,), NONE, dtype=self.dtype)
            flat.as_strided(*self.view).copy_(self.labels)
            self.view, self.labels = ((self.size,), (1,), 0), flat
        return self.labels if view == self.view else self.labels.as_strided(*view)

    def put(self, view: View, labels: Tensor) -> None:
        """Label a view of the storage."""
        if self.view in (None, view):
            (small,) = narrowed(labels)
            self.view, self.labels = view, small.to(self.dtype, copy=True).expand(labels.shape)
        else:
            self.of(view).copy_(labels)
