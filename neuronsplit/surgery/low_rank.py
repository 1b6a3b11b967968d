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


def terms(labels: Labels, tensor: Tensor) -> list[Tensor]:
    """What stands for a tensor in a sum of parameters: the rows of b and the columns of a, or itself."""
    if (product := labels.products.get(storage_of(tensor))) is None:
        return [tensor]
    b, a = product.b, product.a
    if tensor.shape[0] != len(b) or not tensor.is_contiguous():
        b, a = a.mT, b.mT
    if tensor.shape[0] != len(b):
        return [tensor]
    _, _, made = labels.record(line(a, 0), None, MAKES)
    name, axes, _ = labels.record(line(b, 1), made, READS)
    labels.outputs[name, axes] = (0,)
    rows, columns = b[:, :1].view(-1, *[1] * (tensor.dim() - 1)), a[:1].reshape(1, *tensor.shape[1:])
    return [rows.expand(tensor.shape), columns.expand(tensor.shape)]
