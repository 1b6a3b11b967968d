"""What each kind of operation does to labels: one table, RULES, with one place to add an operation.

    moves       puts elements elsewhere: it is run on the labels themselves
    pointwise   keeps the places of elements, and ties or links what meets there
    product     contracts an axis: a parameter reads channels along it and makes new ones along its other axis
    reduction   computes one number from several: if they are of different channels, these are copied all or none
    along       like softmax: keeps places, and looks along one axis
    spatial     like pooling: keeps channels, and looks along the last axes

Views need no rule, because they share the storage and so the labels. An operation without a rule bars the channels that
it meets.
"""

import re

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from neuronsplit.surgery.labels import ALONG, MAKES, NONE, READS, Labels, core, line

POINTWISE_UNTAGGED = {
    "hardswish", "gelu", "mish", "threshold", "prelu", "_prelu_kernel", "log_sigmoid_forward", "masked_fill", "rsub",
    "copy", "_to_copy", "native_dropout", "where", "fill", "zero", "rrelu_with_noise", "bernoulli", "celu", "selu", "glu_jvp",
}  # fmt: skip
# Of pointwise operations: a scale of all channels that meet comes through.
SUMS = {"add", "sub", "rsub", "maximum", "minimum", "where", "copy", "lerp"}
PRODUCTS = {"mul", "div"}
HOMOGENEOUS = {
    "relu", "leaky_relu", "abs", "neg", "clone", "_to_copy", "native_dropout", "_prelu_kernel", "prelu", "masked_fill",
    "fill", "zero", "bernoulli", "positive", "alias", "detach", "rrelu_with_noise", "empty_like", "zeros_like",
}  # fmt: skip
MOVES = {
    "cat", "stack", "index_select", "index", "gather", "take", "roll", "flip", "repeat", "repeat_interleave", "tril",
    "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "triu",
    "replication_pad2d", "replication_pad3d", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col",
    "native_channel_shuffle", "masked_select", "diagonal_copy", "slice_scatter", "select_scatter", "rot90",
    "unfold_copy", "index_put", "scatter", "index_copy", "masked_scatter", "view_copy", "take_along_dim", "col2im",
    "_reshape_copy", "_unsafe_index", "unsafe_split", "split_copy", "unbind_copy", "expand_copy", "permute_copy",
}  # fmt: skip
DATA = ("self", "tensors", "src", "values", "source", "input", "value", "tensor")  # arguments that are moved
NO_DATA = {"empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_empty",
           "new_ones", "new_full", "new_empty_strided", "sym_size", "is_same_size", "_assert_async", "_assert_tensor_metadata"}  # fmt: skip


def follow(labels: Labels, op, given: dict, out: object, where: str) -> None:
    """Label the output of an operation. given: its arguments by name. where: the module in which it ran."""
    name = op._schema.name.split("::")[1]
    name = name if name.startswith("__") else name.rstrip("_")
    tensors = [t for value in given.values() for t in (value if isinstance(value, list | tuple) else [value])]
    tensors = [t for t in tensors if isinstance(t, Tensor)]
    outs = [t for t in (out if isinstance(out, list | tuple) else [out]) if isinstance(t, Tensor)]
    if name in NO_DATA or not outs and name != "_local_scalar_dense":
        return
    if all(labels.of(t) is None and not labels.is_weight(t) for t in tensors):
        return
    if op.is_view or name in ("_unsafe_view", "view", "reshape", "detach", "lift_fresh"):
        if name in ("view", "_unsafe_view", "unflatten") and (found := labels.of(out)) is not None:
            labels.slices(found)
        return
    rule = RULES.get(name)
    if rule is None and (torch.Tag.pointwise in op.tags or name in POINTWISE_UNTAGGED):
        rule = pointwise
    if rule is None and re.search("pool|upsample|grid_sampler", name):
        rule = spatial
    (rule or unknown)(labels, name, given, out, f"{name} in {where}" if where else name)


def unknown(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """Bar the channels that an operation without a rule meets."""
    for value in given.values():
        for tensor in value if isinstance(value, list | tuple) else [value]:
            if (found := labels.of(tensor)) is not None:
                labels.bar(found, why)
            elif isinstance(tensor, Tensor) and labels.is_weight(tensor):
                labels.spoil(tensor, why)


def moves(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """Run the operation on the labels."""

    def codes(tensor: object) -> object:  # 0 stands for no label, so that what is filled with 0 has none
        return (labels.codes(tensor) + 1).double() if isinstance(tensor, Tensor) else tensor

    moved = {key: tree_map(codes, value) if key in DATA else value for key, value in given.items()}
    if name == "constant_pad_nd":
        moved["value"] = 0
    if isinstance(moved.get("accumulate"), bool):
        moved["accumulate"] = False
    results = given["op"](**{key: value for key, value in moved.items() if key != "op"})
    outs, results = (list(x) if isinstance(x, list | tuple) else [x] for x in (out, results))
    for one, result in zip(outs, results):
        labels.put(one, result.long() - 1)


def adds(labels: Labels, name: str, given: dict, out: Tensor, why: str) -> None:
    """Elements are added at places of another tensor: what meets there is tied."""
    before = labels.codes(given["self"]).clone()
    data = next(given[key] for key in ("source", "src", "values") if key in given)
    codes, place = (labels.codes(t) for t in (data, given["self"]))
    arguments = {k: v for k, v in given.items() if k not in ("op", "alpha", "accumulate")}
    arguments |= {"self": place.double() * 0, next(k for k in ("source", "src", "values") if k in given): codes.double() + 1}
    added = getattr(torch.ops.aten, {"index_add": "index_copy", "scatter_add": "scatter"}.get(name, name))(**arguments)
    added = added.long() - 1
    labels.tie(before, added)
    labels.put(out, torch.where(added == NONE, before, added))


def pointwise(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """Keep the places; what meets in a sum is tied, and what meets otherwise is linked."""
    values = [value for key, value in given.items() if key != "op"]
    outs = [t for t in (out if isinstance(out, list | tuple) else [out]) if isinstance(t, Tensor)]
    shape = outs[0].shape
    tensors = [t for t in values if isinstance(t, Tensor)]
    if name == "copy":
        tensors = tensors[1:]
    weights = [t for t in tensors if labels.is_weight(t)]
    found = [(t, labels.of(t)) for t in tensors]
    found = [(t, of.expand(shape)) for t, of in found if of is not None]
    if not found:
        return _computed_weight(labels, weights, outs, why)
    merged = found[0][1]
    for _, of in found[1:]:
        (labels.tie if name in SUMS else labels.channels.merge)(merged, of)
        merged = torch.where(merged == NONE, of, merged)
    _scale(labels, name, given, tensors, [of for _, of in found], weights, why)
    if name in PRODUCTS and len(found) > 1:
        merged = found[-1][1].where(found[-1][1] != NONE, merged)
    merged = labels.scales.roots(merged)
    for weight in weights:
        meets(labels, weight, merged, MAKES if name in SUMS else ALONG)
    for one in outs:
        if one.shape == shape:
            labels.put(one, merged)


def _scale(labels, name, given, tensors, found, weights, why) -> None:
    """Pin the channels whose scale an operation does not let through."""
    numbers = [v for k, v in given.items() if isinstance(v, int | float) and not isinstance(v, bool) and k != "alpha"]
    passes = name in HOMOGENEOUS or name in SUMS and len(found) + len(weights) == len(tensors) and not any(numbers)
    passes |= name in ("clamp", "clamp_min") and not any(numbers)
    if name == "where":
        passes = len(found) + len(weights) == len(tensors) - 1
    if name in PRODUCTS:
        for of in found[:-1]:  # of several that are multiplied, the last may be scaled
            labels.pin(of, why)
        passes = not (name == "div" and (len(found) > 1 or labels.of(tensors[0]) is None))
    if not passes:
        for of in found:
            labels.pin(of, why)


def _computed_weight(labels: Labels, weights: list[Tensor], outs: list[Tensor], why: str) -> None:
    """A function of the entries of one parameter keeps them; of several, the one that has all places stands for all."""
    whole = [w for w in weights if w.shape == outs[0].shape]
    for weight in weights:
        if weight.numel() > 1 and (not whole or weight is not whole[0]):
            labels.spoil(weight, why)
    if whole:
        labels.put(outs[0], NONE - 1 - labels.entries(whole[0]))


def meets(labels: Labels, weight: Tensor, found: Tensor, role: str) -> None:
    """Note what the entries of a parameter are to the channels that they meet, element by element."""
    weight = weight.expand(found.shape)
    differ = [a for a in range(found.dim()) if weight.stride(a) != 0 and weight.shape[a] > 1]
    rest = [a for a in range(found.dim()) if a not in differ]
    entries = weight.permute(*differ, *rest)[(...,) + (0,) * len(rest)]
    entries = labels.entries(entries).flatten()  # (n,)
    found = found.permute(*differ, *rest).reshape(len(entries), -1)  # (n, m)
    found = torch.unique(found, dim=1) if found.shape[1] > 1 else found
    if found.shape[1] > 1 and bool((found[:, 0] == NONE).all()):
        found = found[:, 1:]
    if found.shape[1] == 1:
        labels.record(entries, found[:, 0], role)
    else:
        name, along = labels.positions(entries)
        labels.shared.append((name, along, found))


def product(labels: Labels, name: str, given: dict, out: Tensor, why: str) -> None:
    """Multiply matrices; a bias is added to the product."""
    tensors = [value for value in given.values() if isinstance(value, Tensor)]
    added = tensors.pop(0) if name in ("addmm", "baddbmm", "addbmm", "addmv") else None
    a, b = tensors
    if b.dim() == 1:
        b, out = b[:, None], out[..., None]
    if a.dim() == 1:
        a, out = a[None], out[None]
    found = _multiply(labels, a if a.dim() == 3 else a[None], b if b.dim() == 3 else b[None], why)
    if found is not None:
        labels.put(out if out.dim() == 3 else out[None], found)
    if added is not None:
        pointwise(labels, "add", {"self": out, "other": added}, out, why)


def _multiply(labels: Labels, a: Tensor, b: Tensor, why: str) -> Tensor | None:
    """Labels (B, I, J), or of size 1 where constant, of the product of (B, I, K) and (B, K, J)."""
    if labels.is_weight(b):
        found = labels.of(a)
        if found is None and labels.is_weight(a):
            found = labels.as_channels(labels.entries(a))
        return read(labels, found, b, 1, 2, why)
    if labels.is_weight(a):
        found = labels.of(b)
        found = read(labels, None if found is None else found.mT, a, 2, 1, why)
        return None if found is None else found.mT
    of_a, of_b = labels.of(a), labels.of(b)
    if (of_a is not None and varies(of_a, 2)) or (of_b is not None and varies(of_b, 1)):
        return _contract(labels, of_a, of_b, why)
    if of_a is None or of_b is None:
        return of_b[:, :1] if of_a is None else of_a[:, :, :1]
    if varies(of_a, 1) and varies(of_b, 2):
        labels.bar(of_a, why)
        labels.bar(of_b, why)
        return None
    if varies(of_a, 1):
        labels.pairs.append((of_b[:, 0, 0], of_a[:, :, 0]))
        return of_a[:, :, :1]
    labels.pairs.append((of_a[:, 0, 0], of_b[:, 0]))  # attention: each head of values with its weights
    return of_b[:, :1]


def _contract(labels: Labels, of_a: Tensor | None, of_b: Tensor | None, why: str) -> Tensor | None:
    """The contraction of two activations along channels, as of queries and keys; each different row is one channel."""
    if of_a is None or of_b is None:
        labels.bar(of_b if of_a is None else of_a, f"{why}, with numbers that no parameter makes")
        return None
    for found, axis in ((of_a, 1), (of_b, 2)):
        labels.pin(found, why)
        labels.tie(found.narrow(axis, 0, 1).expand_as(found), found)
    a, b = labels.scales.roots(of_a[:, 0]), labels.scales.roots(of_b[:, :, 0])  # (B, K)
    rows, number = torch.unique(torch.cat([a, b], 1), dim=0, return_inverse=True)
    made = labels.new(len(rows))
    for row, one in zip(rows, made):
        labels.rows.append((why, torch.cat([row[row >= 0], one[None]])))
    labels.slices(a)
    labels.slices(b)
    return made[number][:, None, None]


def read(labels: Labels, found: Tensor | None, weight: Tensor, inner: int, outer: int, why: str) -> Tensor:
    """The labels (1, 1, J) of a product with a parameter that reads found (B, I, K) along its inner axis."""
    name, axes, made = labels.record_line(line(weight, outer), None, MAKES)
    if found is None:
        return made[None, None]
    if not varies(found, 2) and (varies(found, 1) or varies(found, 0)):  # it mixes what stands across channels
        labels.bar(made, f"{why}, across channels")
        return found[:, :, :1]
    read_name, read_axes, _ = labels.record_line(line(weight, inner), labels.settle(found, 2), READS, axes)
    labels.outputs[read_name, read_axes] = axes
    return made[None, None]


def convolution(labels: Labels, name: str, given: dict, out: Tensor, why: str) -> None:
    """A product along the channels (axis 1); grouped ones copy whole groups."""
    x, weight, bias, groups = given["input"], given["weight"], given["bias"], given["groups"]
    found, outer, inner = labels.of(x), *((1, 0) if given["transposed"] else (0, 1))
    if not labels.is_weight(weight):
        return labels.bar(found, f"{why}, whose weight is computed")
    flat = None if found is None else found.transpose(1, -1).reshape(1, -1, found.shape[1])
    if groups == 1:
        made = read(labels, flat, weight, inner, outer, why)[0, 0]
    elif groups == x.shape[1] and found is not None:  # depthwise
        made = labels.settle(flat, 2).repeat_interleave(out.shape[1] // groups)
        labels.record_line(line(weight, 0), made if outer == 0 else labels.settle(flat, 2), ALONG)
    else:
        made = _grouped(labels, None if flat is None else labels.settle(flat, 2), weight, groups, outer, out, why)
    made = made.view(1, -1, *[1] * (out.dim() - 2))
    labels.put(out, made if made.shape[1] == out.shape[1] else found[:, :1])
    if bias is not None:
        pointwise(labels, "add", {"self": out, "other": bias.view(made.shape)}, out, why)


def _grouped(labels, read_by, weight, groups, outer, out, why) -> Tensor:
    if outer == 1:
        labels.bar(read_by, f"{why}, grouped and transposed")
        return labels.new(out.shape[1])
    made = labels.record_line(line(weight, 0), None, MAKES)[2]
    of_groups = made.view(groups, -1)
    labels.slices(of_groups)
    if read_by is not None:
        labels.slices(read_by.view(groups, -1))
        of_groups = torch.cat([read_by.view(groups, -1), of_groups], 1)
        labels.all_or_none(of_groups, why)
    return made


def embedding(labels: Labels, name: str, given: dict, out: Tensor, why: str) -> None:
    """Rows of a parameter are looked up: each of its columns makes a channel."""
    if labels.is_weight(given["weight"]):
        labels.put(out, labels.record_line(line(given["weight"], 1), None, MAKES)[2])


def batch_norm(labels: Labels, name: str, given: dict, out: tuple, why: str) -> None:
    """Each channel is normalised by itself, and its scale begins anew."""
    found = labels.of(given["input"])
    if found is None:
        return unknown(labels, name, given, out, why)
    found = labels.settle(found, 1)
    for key in ("running_mean", "running_var"):
        if given.get(key) is not None and labels.is_weight(given[key]):
            labels.record(labels.entries(given[key]), found, ALONG)
    _begin_scale(labels, found, given, out[0], (1, -1, *[1] * (out[0].dim() - 2)), why)


def _begin_scale(labels: Labels, found: Tensor, given: dict, out: Tensor, shape: tuple[int, ...], why: str) -> None:
    """Label what is normalised: it is copied with its channels (n,), and scaled by weight and bias."""
    labels.pin(found, why)
    weight, bias = given.get("weight"), given.get("bias")
    if weight is None or not labels.is_weight(weight):
        labels.put(out, found.view(shape))
        return
    distinct, place = torch.unique(found, return_inverse=True)
    entries = labels.entries(weight).flatten()
    if len(entries) != len(found):
        return unknown(labels, "", {"input": out}, out, why)
    made = torch.where(distinct == NONE, NONE, labels.new(len(distinct)))[place]
    _, _, _ = labels.record(entries, made, MAKES)
    labels.channels.merge(made, found)
    made = labels.scales.roots(made)
    if bias is not None and labels.is_weight(bias):
        labels.record(labels.entries(bias).flatten(), made, MAKES)
    labels.put(out, labels.scales.roots(made).view(shape))


def layer_norm(labels: Labels, name: str, given: dict, out: tuple, why: str) -> None:
    """Channels of the last axes are normalised together."""
    x, n_axes = given["input"], len(given["normalized_shape"])
    found = labels.of(x)
    if found is None:
        found = labels.as_channels(labels.entries(x))
    labels.all_or_none(found.reshape(-1, torch.Size(given["normalized_shape"]).numel()), why)
    labels.pin(found, why)
    out = out[0]
    labels.put(out, found)
    for key, role in (("weight", ALONG), ("bias", MAKES)):
        if given.get(key) is not None and labels.is_weight(given[key]):
            meets(labels, given[key], found, ALONG)


def group_norm(labels: Labels, name: str, given: dict, out: tuple, why: str) -> None:
    """Channels of a group are normalised together."""
    found = labels.of(given["input"])
    if found is None:
        return
    found = labels.settle(found, 1)
    groups = found.view(given["group"], -1)
    labels.all_or_none(groups, why)
    labels.slices(groups)
    _begin_scale(labels, found, given, out[0], (1, -1, *[1] * (out[0].dim() - 2)), why)


def reduction(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """One number from several: channels that meet in it are copied all or none."""
    found = labels.of(given["self"])
    if found is None:
        return
    axes = given.get("dim")
    axes = range(found.dim()) if axes in (None, [], ()) else [axes] if isinstance(axes, int) else axes
    axes = sorted({axis % found.dim() for axis in axes}) if found.dim() else []
    if any(varies(found, axis) for axis in axes):
        rest = [a for a in range(found.dim()) if a not in axes]
        labels.pin(found, why)
        if name not in ("amax", "amin", "max", "min"):
            rows = found.permute(*rest, *axes).reshape(torch.Size([found.shape[a] for a in rest]).numel(), -1)
            labels.all_or_none(rows, why)
        return
    if name not in ("mean", "sum", "amax", "amin", "max", "min"):
        labels.pin(found, why)
    for axis in axes:
        found = found.narrow(axis, 0, 1)
    for one in out if isinstance(out, list | tuple) else [out]:
        labels.put(one, found if one.dim() == found.dim() else found.squeeze(tuple(axes)))


def along(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """Places are kept, or along one axis exchanged; it must not be that of the channels."""
    found = labels.of(given["self"])
    if found is None:
        return unknown(labels, name, given, out, why)
    axis = given.get("dim", -1)
    if varies(found, axis):
        return labels.bar(found, f"{why}, over channels")
    if name not in ("cumsum", "sort", "topk", "kthvalue"):
        labels.pin(found, why)
    for one in out if isinstance(out, list | tuple) else [out]:
        labels.put(one, found.narrow(axis, 0, 1))


def spatial(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """Each channel by itself, over the last axes."""
    found = labels.of(given["input"] if "input" in given else given["self"])
    n_axes = int(re.search(r"[123]d", name).group()[0])
    if found is None or found.dim() < n_axes + 1:
        return unknown(labels, name, given, out, why)
    kept = found.dim() - n_axes
    flat = labels.settle(found.flatten(0, kept - 1).flatten(1).mT, 1)  # (N·C,)
    found = flat.view(*found.shape[:kept], *[1] * n_axes)
    for one in out if isinstance(out, list | tuple) else [out]:
        labels.put(one, found)


def varies(found: Tensor, axis: int) -> bool:
    """Whether labels differ along an axis."""
    return bool((found != found.narrow(axis, 0, 1)).any())


_BY_KIND = {
    moves: MOVES,
    adds: {"index_add", "scatter_add", "index_reduce"},
    product: {"mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "dot", "vdot"},
    convolution: {"convolution"},
    embedding: {"embedding"},
    batch_norm: {"native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
                 "cudnn_batch_norm", "miopen_batch_norm", "_batch_norm_with_update"},  # fmt: skip
    layer_norm: {"native_layer_norm", "_fused_rms_norm"},
    group_norm: {"native_group_norm"},
    reduction: {"mean", "sum", "var", "std", "var_mean", "std_mean", "amax", "amin", "max", "min", "logsumexp", "norm",
                "linalg_vector_norm", "prod", "any", "all", "nansum"},  # fmt: skip
    along: {"_softmax", "_log_softmax", "_safe_softmax", "cumsum", "cumprod", "sort", "topk", "logcumsumexp"},
}  # fmt: skip
RULES = {name: rule for rule, names in _BY_KIND.items() for name in names}
