"""Rules for norms, reductions and the like: they work on each channel by itself, or on several together."""

import re
from collections.abc import Iterable
from itertools import cycle

import torch
from torch import Tensor

from neuronsplit.surgery.axes import core, lines_along, varies, varies_where_labelled
from neuronsplit.surgery.facts import ALONG, MAKES, Mean
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.partition import NONE
from neuronsplit.surgery.pointwise import meets, unknown
from neuronsplit.surgery.runs import tensors_in


def batch_norm(labels: Labels, name: str, given: dict, out: tuple, why: str) -> None:
    """Each channel is normalised by itself."""
    found = labels.settle(labels.of_activation(given["input"]), 1)
    for key in ("running_mean", "running_var"):
        if labels.is_weight(given.get(key)):
            labels.record(given[key], found, ALONG)
    _begin_scale(labels, found, given, out[0], why, invariant=False)


def group_norm(labels: Labels, name: str, given: dict, out: tuple, why: str) -> None:
    """The channels of a group are normalised together."""
    found = labels.settle(labels.of_activation(given["input"]), 1)
    groups = found.view(given["group"], -1)
    labels.all_or_none(groups, why, unit=True)
    labels.cut(groups)
    _begin_scale(labels, found, given, out[0], why, invariant=True)


def _begin_scale(labels: Labels, found: Tensor, given: dict, out: Tensor, why: str, invariant: bool) -> None:
    """Label what is normalised: its scale is that of weight and bias."""
    made = labels.begin_scale(found, why, invariant).view(1, -1, *[1] * (out.dim() - 2))
    for key in ("weight", "bias"):
        if labels.is_weight(given.get(key)):
            meets(labels, given[key].view(made.shape), made.expand(out.shape), MAKES)
    labels.put(out, made)


def layer_norm(labels: Labels, name: str, given: dict, out: tuple, why: str) -> None:
    """The channels of the last axes are normalised together."""
    x = given["input"]
    found = labels.as_channels(x) if labels.is_weight(x) else labels.of_activation(x)
    axes, squares = range(-len(given["normalized_shape"]), 0), "rms" in name
    rows = lines_along(found, *axes)
    if len(rows) == 1 and (squares or _are_single(found, axes)):
        labels.means.append(Mean(why, rows[0], squares))
    else:
        labels.all_or_none(rows, why, unit=True)
    made = labels.begin_scale(found, why)
    for key in ("weight", "bias"):
        if labels.is_weight(given.get(key)):
            meets(labels, given[key], made, MAKES)
            labels.gains |= {labels.name_of(given[key])} if key == "weight" else set()
    labels.put(out[0], labels.scales.roots(made))


def _are_single(found: Tensor, axes: Iterable[int]) -> bool:
    """Whether channels have one number each along some axes, and not one for each place of an image, say.

    Only then can a channel more be the mean of all.
    """
    return all(found.shape[axis] == 1 or varies(found, axis) for axis in axes)


def reduction(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """One number from several: channels that meet in it are copied all or none, if that leaves it unchanged."""
    found = labels.of(given["self"])
    if labels.is_weight(given["self"]) and (weight := labels.name_of(given["self"])) not in labels.norms:
        labels.unscaled_weights.setdefault(weight, why)
    if found is None:
        return
    axes = given.get("dim")
    axes = [axes] if isinstance(axes, int) else list(axes or range(found.dim()))
    axes = sorted({axis % found.dim() for axis in axes})
    if any(varies(found, axis) for axis in axes):
        return _over_channels(labels, name, given, out, found, axes, why)
    if name not in ("mean", "sum", "nansum", "amax", "amin", "max", "min"):
        labels.pin(found, why)
    for axis in axes:
        found = found.narrow(axis, 0, 1)
    for one in tensors_in([out]):
        labels.put(one, found if one.dim() == found.dim() else found.squeeze(axes))


def _over_channels(
    labels: Labels, name: str, given: dict, out: object, found: Tensor, axes: list[int], why: str
) -> None:
    """One number from several channels."""
    rest = [size for axis, size in enumerate(found.shape) if axis not in axes]
    lines = found.movedim(axes, list(range(-len(axes), 0))).flatten(-len(axes)).reshape(torch.Size(rest).numel(), -1)
    rows, number = torch.unique(lines, dim=0, return_inverse=True)
    order = given.get("ord", given.get("p", 2))
    if len(rows) > 1:
        return _of_each_row(labels, rows, number, found, out, axes, why)
    if name == "mean" or (name in ("var", "std", "var_mean", "std_mean") and given.get("correction") == 0):
        labels.pin(found, why, if_drawn=True)
        squares = name == "mean" and all(label in labels.factors for label in rows[0].tolist())
        if squares or _are_single(found, axes):
            labels.means.append(Mean(why, rows[0], squares))
        else:
            labels.all_or_none(rows, why)
        statistic = labels.new(1)
        labels.statistics.add(int(statistic))
        for one in tensors_in([out]):
            labels.put(one, statistic.view([1] * one.dim()))
    elif name == "sum":
        others = [labels.factors.get(label) for label in rows[0].tolist()]
        if NONE in others:
            return labels.bar(found, f"{why}, over products of more than two channels")
        labels.add_up(f"{why}, over channels", rows[0], *([torch.tensor(others)] if None not in others else []))
    elif name in ("norm", "linalg_vector_norm") and order in (2, None):
        labels.add_up(f"{why}, over channels", rows[0], rows[0])
    elif name in ("amax", "amin", "max", "min"):  # copies do not change it, but the place at which it stands
        for places in [tensor for tensor in tensors_in([out]) if not tensor.is_floating_point()]:
            labels.put(places, (label := labels.new(1)).view([1] * places.dim()))
            labels.places_of[int(label)] = core(found).clone(), f"{why}, whose place among the channels is used"
        labels.pin(found, why)
    else:
        labels.bar(found, f"{why}, over channels")


def _of_each_row(
    labels: Labels, rows: Tensor, number: Tensor, found: Tensor, out: object, axes: list[int], why: str
) -> None:
    """One number from each of several rows of channels (n, D), which are copied all or none.

    number: of each place in the output, its row.
    """
    of_heads = labels.on_one_axis(rows[0])
    kept = max(axis for axis in range(found.dim()) if axis not in axes and varies(found, axis))
    if of_heads and kept > max(axes):  # over heads, which are copied as a whole: as many numbers as before
        labels.all_or_none(rows, why, unit=True)
        return labels.pin(rows, why)
    made = labels.made_of(rows, why, unit=of_heads)  # else of layers that are stacked: what they make is added up
    labels.pin(made, why)
    for one in tensors_in([out]):
        labels.put(one, made[number].view(one.shape))


def distance(labels: Labels, name: str, given: dict, out: Tensor, why: str) -> None:
    """The distances of vectors, of two each."""
    if given.get("p", 2) != 2:
        return unknown(labels, name, given, out, why)
    a, b = (labels.settle(of, -1) for of in [labels.of_activation(given[key]) for key in ("x1", "x2")])
    labels.tie(a, b)
    labels.add_up(f"{why}, over channels", labels.scales.roots(a), labels.scales.roots(a))


def along(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """Places are kept, or exchanged along one axis, which must not be that of the channels, or not the only one."""
    found = labels.of_activation(given["self"])
    axis = given.get("dim", -1)
    if varies(found, axis):
        lines = lines_along(found, axis)  # if several, such as those of branches of which softmax chooses one
        if "softmax" not in name or len(lines) == 1:
            return labels.bar(found, f"{why}, over channels")
        labels.channels.merge(lines[:, :1].expand_as(lines), lines)
    if name not in ("cumsum", "sort", "topk"):
        labels.pin(found, why)
    for one in tensors_in([out]):
        labels.put(one, found.narrow(axis, 0, 1) if one.shape != found.shape else found)


def spatial(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """Each channel by itself, over the last axes, as in pooling."""
    found = labels.of_activation(given["input"] if "input" in given else given["self"])
    n_axes = int(re.search(r"(\d)d", name).group(1))
    if found.dim() <= n_axes:
        return unknown(labels, name, given, out, why)
    kernel = given.get("kernel_size", [])
    windows = zip(range(-n_axes, 0), cycle(kernel), cycle(given.get("stride") or kernel))
    overlap = any(size > stride and varies_where_labelled(found, axis) for axis, size, stride in windows)
    if overlap and not varies(found, -n_axes - 1):
        return labels.bar(found, f"{why}, over channels in windows that overlap")
    channels = found.shape[: found.dim() - n_axes]
    found = labels.settle(found.reshape(channels.numel(), -1).mT, 1)
    for one in tensors_in([out]):
        labels.put(one, found.view(*channels, *[1] * n_axes))
