"""Along which axes the labels of a tensor differ, and along which a set of them is whole slices."""

import torch
from torch import Tensor

from neuronsplit.surgery.partition import NONE


def lines_along(labels: Tensor, *axes: int) -> Tensor:
    """The different lines (m, n) of labels along some axes, which are the last ones of each line."""
    axes = sorted(axis % labels.dim() for axis in axes)
    n = torch.Size([labels.shape[axis] for axis in axes]).numel()
    (small,) = narrowed(labels)
    small = small.expand([size if axis in axes else small.shape[axis] for axis, size in enumerate(labels.shape)])
    lines = small.movedim(axes, list(range(-len(axes), 0))).reshape(-1, n)
    return lines if len(lines) == 1 else torch.unique(lines, dim=0)


def core(labels: Tensor) -> Tensor:
    """Drop the axes along which labels do not differ."""
    for axis in reversed(range(labels.dim())):
        if not varies(labels, axis):
            labels = labels.select(axis, 0)
    return labels


def narrowed(*labels: Tensor) -> list[Tensor]:
    """Labels of one shape, with the size 1 along each axis along which none of them differs."""
    labels = list(labels)
    for axis in sorted(range(labels[0].dim()), key=lambda axis: -labels[0].shape[axis]):
        if labels[0].shape[axis] > 1 and not any(varies(of, axis) for of in labels):
            labels = [of.narrow(axis, 0, 1) for of in labels]
    return labels


def varies(labels: Tensor, axis: int) -> bool:
    """Whether labels differ along an axis."""
    expanded = labels.shape[axis] <= 1 or not labels.stride(axis)
    return not expanded and not torch.equal(labels, labels.narrow(axis, 0, 1).expand_as(labels))


def varies_where_labelled(labels: Tensor, axis: int) -> bool:
    """Whether labels differ along an axis, places without one aside: no example may have reached them."""
    lowest = labels.where(labels != NONE, labels.max()).amin(axis)
    return bool(((labels.amax(axis) != lowest) & (labels.amax(axis) != NONE)).any())


def whole_slices(mask: Tensor, labels: Tensor) -> tuple[int, Tensor] | None:
    """The axis along which a mask of labels is whole slices, and which; None if there is none.

    Places without a label are passed over. An axis along which the labels differ is preferred.
    """
    if mask.dim() == 1:
        return 0, mask
    found = None
    for axis in range(mask.dim()):
        inside, labelled = (of.movedim(axis, 0).reshape(of.shape[axis], -1) for of in (mask, labels >= 0))
        if bool((inside | ~labelled).eq(inside.any(1)[:, None] | ~labelled).all()):
            found = found or (axis, inside.any(1))
            if varies_where_labelled(labels, axis):
                return axis, inside.any(1)
    return found
