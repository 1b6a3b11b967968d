"""Rules for products: a parameter reads the channels along one axis, and makes new ones along another."""

import torch
from torch import Tensor, nn

from neuronsplit.surgery.axes import lines_along, varies, varies_where_labelled
from neuronsplit.surgery.entries import line
from neuronsplit.surgery.facts import ACROSS, ALONG, MAKES, READS
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.low_rank import postpone
from neuronsplit.surgery.partition import NONE
from neuronsplit.surgery.pointwise import pointwise, unknown
from neuronsplit.surgery.runs import tensors_in
from neuronsplit.surgery.shadow import has_memory


def product(labels: Labels, name: str, given: dict, out: Tensor, why: str) -> None:
    """Multiply matrices or vectors; what is added to the product, such as a bias, comes first among the arguments."""
    *added, a, b = tensors_in(given.values())
    a, b = (one if has_memory(one) else torch.empty(()).expand(one.shape) for one in (a, b))  # numbers, as of a graph
    b, out = (b[:, None], out[..., None]) if b.dim() == 1 else (b, out)
    a, out = (a[None], out[None]) if a.dim() == 1 else (a, out)
    a, b, out = (tensor if tensor.dim() == 3 else tensor[None] for tensor in (a, b, out))
    shared = [of for of in (a, b) if labels.is_weight(of) and (len(of) == 1 or not of.stride(0))]
    if a.shape[2] == 1 and not shared:  # nothing is added up
        pointwise(labels, "mul", {"self": a, "other": b}, out, why)
    elif not added and _are_parameters(labels, a, b):
        postpone(labels, a[0], b[0], out, lambda: labels.put(out, _multiply(labels, a, b, why)))
    elif (found := _multiply(labels, a, b, why)) is not None:
        labels.put(out, found)
    if added and (labels.knows(added[0]) or added[0].any()):
        pointwise(labels, "add", {"self": out, "other": added[0]}, out, why)


def _are_parameters(labels: Labels, *factors: Tensor) -> bool:
    """Whether matrices are two different parameters."""
    names = {labels.name_of(one) for one in factors if labels.is_weight(one) and len(one) == 1 and labels.learns(one)}
    return len(names) == len(factors)


def _multiply(labels: Labels, a: Tensor, b: Tensor, why: str) -> Tensor | None:
    """Labels that broadcast to (B, I, J), of the product of a (B, I, K) and b (B, K, J); None if there are none."""
    if labels.is_weight(b):
        found = labels.as_channels(a) if labels.is_weight(a) else labels.of(a)  # a weight such as learned queries
        return read(labels, found, b, 1, 2, why)
    if labels.is_weight(a):
        return _multiply(labels, b.mT, a.mT, why).mT
    of_a, of_b = labels.of(a), labels.of(b)
    along_a = of_a is not None and varies_where_labelled(of_a, 2)
    along_b = of_b is not None and varies_where_labelled(of_b, 1)
    if along_a != along_b and of_a is not None and of_b is not None and (varies(of_a, 1) or varies(of_b, 2)):
        kept, other = (of_b, of_a) if along_a else (of_a, of_b)
        labels.bar(other, f"{why}, {ACROSS}")
        return kept.narrow(1 if along_a else 2, 0, 1)
    if along_a or along_b:
        return _contract(labels, of_a, of_b, why)
    if of_a is None or of_b is None:
        return of_b[:, :1] if of_a is None and of_b is not None else None if of_a is None else of_a[:, :, :1]
    if varies(of_a, 1) and varies(of_b, 2):
        return _made_of_rows(labels, of_a[:, :, 0], of_b[:, 0], why)
    if varies(of_a, 1):
        labels.head(of_b[:, 0, 0], of_a[:, :, 0])
        return of_a[:, :, :1]
    labels.head(of_a[:, 0, 0], of_b[:, 0])
    return of_b[:, :1]


def _contract(labels: Labels, of_a: Tensor | None, of_b: Tensor | None, why: str) -> Tensor | None:
    """Labels (B, 1, 1) of two activations that are contracted along channels, as queries and keys are.

    The channels of a row are copied all or none. Each different row makes a channel, which is a head of attention.
    """
    if of_a is None or of_b is None:
        return labels.bar(of_b if of_a is None else of_a, f"{why}, with numbers that no parameter makes")
    for found, axis in ((of_a, 1), (of_b, 2)):
        labels.tie(found.narrow(axis, 0, 1).expand_as(found), found)
    a, b = labels.scales.roots(of_a[:, 0]), labels.scales.roots(of_b[:, :, 0])  # (B, K)
    return _made_of_rows(labels, a, b, why, contracted=True)


def _made_of_rows(labels: Labels, a: Tensor, b: Tensor, why: str, contracted: bool = False) -> Tensor:
    """Labels (B, 1, 1) of products of vectors a (B, I) and b (B, J): each different row makes a channel."""
    rows, number = torch.unique(torch.cat([a, b], 1), dim=0, return_inverse=True)
    if contracted and len(rows) == 1:
        labels.add_up(why, a[0], b[0], made=(made := labels.new(1)))
    else:
        made = labels.made_of(rows, why)
    labels.cut(a)
    labels.cut(b)
    return made[number][:, None, None]


def read(labels: Labels, found: Tensor | None, weight: Tensor, inner: int, outer: int, why: str) -> Tensor:
    """Labels (1, 1, J) of a product with a parameter, which reads found (B, I, K) along its inner axis."""
    pieces = labels.entries.counts(NONE - 1 - labels.raw(line(weight, outer)))
    if len(pieces) > 1:  # parameters that are concatenated
        made = [read(labels, found, piece, inner, outer, why) for piece in weight.split(pieces, outer)]
        return torch.cat([of.expand(-1, -1, n) for of, n in zip(made, pieces)], 2)
    own = labels.tensors[labels.name_of(weight)]
    if isinstance(own, nn.Parameter) and own.dim() == 1 and weight.shape[outer] == 1:  # a vector makes one number
        axes, made = (), labels.new(1)
    else:
        _, axes, made = labels.record(line(weight, outer), None, MAKES)
    if found is None:
        name, along = labels.entries.positions(NONE - 1 - labels.raw(line(weight, inner)))
        labels.reads_numbers.add((name, tuple(along)))
        return made[None, None]
    if not varies(found, 2) and (varies(found, 1) or varies(found, 0)):  # it mixes what stands across the channels
        labels.bar(found if labels.mixing else made, f"{why}, {ACROSS}")
        return made[None, None] if labels.mixing else found[:, :, :1]
    rows = lines_along(found, 2)
    if len(rows) > 1 and labels.on_one_axis(rows[:, 0]):  # heads, which share the parameter
        labels.bar(made, f"{why}, {ACROSS}")
        return _per_row(labels, found, rows, why)
    name, read_axes, _ = labels.record(line(weight, inner), labels.settle(found, 2), READS, axes)
    labels.outputs |= {(term, read_axes): axes for term in labels.terms(name)}
    return made[None, None]


def _per_row(labels: Labels, found: Tensor, rows: Tensor, why: str) -> Tensor:
    """Labels (B, I, 1) of what is computed from each row (n, K) of found (B, I, K), which is copied all or none."""
    made = labels.made_of(rows, why)
    labels.cut(rows)
    number = (found.flatten(0, 1)[:, None] == rows).all(2).float().argmax(1)  # (B · I,)
    return made[number].view(*found.shape[:2], 1)


def convolution(labels: Labels, name: str, given: dict, out: Tensor, why: str) -> None:
    """A product along the channels, axis 1; in a grouped one, whole groups are copied."""
    x, weight, bias, groups = given["input"], given["weight"], given["bias"], given["groups"]
    found, (inner, outer) = labels.of(x), ((0, 1) if given["transposed"] else (1, 0))
    if not labels.is_weight(weight):
        return labels.bar(found, f"{why}, whose weight is computed")
    if found is not None:
        along = next((axis for axis in range(2, x.dim()) if _reads_whole(found, weight, out, axis)), 1)
        inner, found = along if along > 1 else inner, lines_along(found, along)[None]  # (1, I, C)
        found = labels.settle(found, 2).expand_as(found) if varies(found, 2) else found
    if groups == 1:
        across = found is not None and not varies(found, 2) and varies(found, 1)
        if across and torch.Size(weight.shape[2:]).numel() > 1:  # a kernel over what stands across the channels
            found = labels.bar(found, f"{why}, {ACROSS}")
        made = read(labels, found, weight, inner, outer, why)
        made = None if across and found is not None else made.flatten()
    elif groups == x.shape[1] and found is not None:  # depthwise: a channel for each that comes in, or several
        found = labels.settle(found, 2)
        made = found.repeat_interleave(out.shape[1] // groups)
        labels.record(line(weight, 0), found if given["transposed"] else made, ALONG)
    else:
        made = _grouped(labels, found, weight, groups, given["transposed"], why)
    if made is None:
        return labels.bar(found, f"{why}, {ACROSS}")
    made = made.view(1, -1, *[1] * (out.dim() - 2))
    labels.put(out, made)
    if bias is not None:
        pointwise(labels, "add", {"self": out, "other": bias.view(made.shape)}, out, why)


def _reads_whole(found: Tensor, weight: Tensor, out: Tensor, axis: int) -> bool:
    """Whether a kernel covers an axis that has the channels, as that of a convolution over words in sentences."""
    differs = varies(found, axis) and varies_where_labelled(found, axis)  # and not by padding
    return differs and found.shape[axis] == weight.shape[axis] and out.shape[axis] == 1


def bilinear(labels: Labels, name: str, given: dict, out: Tensor, why: str) -> None:
    """Products of the channels of two activations: a parameter, between them, reads both."""
    weight = given["i2"]
    if not labels.is_weight(weight) or given["sumdim"] != [2, 3]:
        return unknown(labels, name, given, out, why)
    for x, inner in ((given["i1"], 1), (given["i3"], 2)):
        found = labels.of(x)
        made = read(labels, None if found is None else lines_along(found, -1)[None], weight, inner, 0, why)
    labels.put(out, made.flatten())


def _grouped(labels: Labels, found: Tensor | None, weight: Tensor, groups: int, transposed: bool, why: str):
    """Labels (C,) of what a grouped convolution makes: a group is copied with what it takes in."""
    if transposed:
        return labels.bar(found, f"{why}, grouped and transposed")
    made = labels.record(line(weight, 0), None, MAKES)[2]
    rows = made.view(groups, -1)
    labels.cut(rows)
    if found is not None:
        taken = labels.settle(found, 2).view(groups, -1)
        labels.cut(taken)
        labels.all_or_none(torch.cat([rows, taken], 1), why, unit=True)
    return made


def embedding(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """Rows of a parameter are looked up: each of its columns makes a channel."""
    if labels.is_weight(given["weight"]):
        labels.put(tensors_in([out])[0], labels.record(line(given["weight"], 1), None, MAKES)[2])
