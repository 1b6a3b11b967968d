"""Products of two parameters that are added to a third one: W + B A, as in LoRA (Hu et al. 2021, arXiv 2106.09685).

The rows of B are to channels what those of W are, and so are the columns of A. The channels of the product are its
ranks. A product that is used in another way is an activation, and is labelled when that is known.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from neuronsplit.surgery.entries import line
from neuronsplit.surgery.facts import MAKES, READS
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.shadow import storage_of


class Product(NamedTuple):
    """A product of parameters that has no labels yet."""

    b: Tensor  # (n_out, rank)
    a: Tensor  # (rank, n_in)
    out: Tensor  # as long as it is held, no other tensor has its memory
    label: Callable[[], None]  # labels it as an activation


def postpone(labels: Labels, b: Tensor, a: Tensor, out: Tensor, label: Callable[[], None]) -> None:
    """Label a product b @ a of parameters later."""
    labels.products[storage_of(out)] = Product(b, a, out, label)


def is_product(labels: Labels, tensor: Tensor) -> bool:
    """Whether a tensor is a product of parameters, or a multiple of one, that has no labels yet."""
    return storage_of(tensor) in labels.products


def multiply(labels: Labels, tensor: Tensor, out: Tensor, label: Callable[[], None]) -> None:
    """Postpone the labels of a multiple of a product too."""
    product = labels.products[storage_of(tensor)]

    def label_both() -> None:
        labels.settle_product(tensor)
        label()

    postpone(labels, product.b, product.a, out, label_both)


def terms(labels: Labels, tensors: list[Tensor]) -> list[Tensor]:
    """The terms of a sum; rows of b and columns of a stand for each product that is added to a parameter."""
    others = [tensor for tensor in tensors if not is_product(labels, tensor)]
    if not any(map(labels.is_weight, others)):
        return tensors
    products = [tensor for tensor in tensors if is_product(labels, tensor)]
    return [*others, *(term for product in products for term in _rows_and_columns(labels, product))]


def _rows_and_columns(labels: Labels, tensor: Tensor) -> list[Tensor]:
    """What stands for a product in its shape (n_out, …); the tensor itself if it has another layout."""
    b, a, *_ = labels.products[storage_of(tensor)]
    if len(tensor) != len(b) or not tensor.is_contiguous():
        b, a = a.mT, b.mT
    if len(tensor) != len(b) or not (tensor.is_contiguous() or tensor.mT.is_contiguous()):
        return [tensor]
    _, _, made = labels.record(line(a, 0), None, MAKES)
    name, axes, _ = labels.record(line(b, 1), made, READS)
    labels.outputs[name, axes] = (0,)
    single = [1] * (tensor.dim() - 2)
    columns = a[:1].reshape(1, tensor.shape[1], -1).unbind(2)  # several for each channel, where it is a kernel
    found = [b[:, :1].view(-1, 1, *single), *(one.view(1, -1, *single) for one in columns)]
    return [one.expand(tensor.shape) for one in found]
