"""What each kind of operation does to labels: one table, RULES, which is the one place to add an operation.

    moves        puts elements elsewhere: it is run on the labels themselves
    pointwise    keeps the places of elements, and ties or links what meets there (pointwise.py)
    product      contracts an axis: a parameter reads channels along it and makes new ones along another (products.py)
    norm         works on channels one by one, or on several that are copied all or none (norms.py)

Views need no rule, because they share the storage and so the labels. An operation without a rule bars the channels that
it meets.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from neuronsplit.surgery import low_rank, norms, products
from neuronsplit.surgery.axes import core, varies, varies_where_labelled
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.partition import NONE
from neuronsplit.surgery.pointwise import glu, pointwise, unknown, weight_norm
from neuronsplit.surgery.runs import tensors_in
from neuronsplit.surgery.shadow import storage_of

POINTWISE_UNTAGGED = set(
    "_to_copy copy hardswish gelu mish threshold prelu _prelu_kernel log_sigmoid_forward masked_fill rsub where fill "
    "zeros_like zero native_dropout bernoulli complex "
    "rrelu_with_noise celu selu "
    "leaky_relu elu hardsigmoid hardtanh ldexp _conj_physical".split()  # which lack it in torch 2.9
)
MOVES = set(
    "cat stack index_select index _unsafe_index gather take roll flip rot90 repeat repeat_interleave tril triu "
    "constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col masked_select "
    "_pack_padded_sequence _pad_packed_sequence "
    "slice_scatter select_scatter index_put _index_put_impl scatter index_copy masked_scatter diagonal_copy".split()
)
ADDS = {"index_add": "index_copy", "scatter_add": "scatter", "index_put": "index_put"}  # and what moves as they do
DATA = ("self", "tensors", "src", "values", "source", "input", "value", "data")  # arguments that are moved
VIEWS_UNTAGGED = set(
    "_unsafe_view unsafe_split unsafe_split_with_sizes lift_fresh detach transpose t squeeze unsqueeze swapaxes "
    "swapdims as_strided".split()
)
SHAPES_ONLY = set("empty_like ones_like full_like rand_like randn_like new_zeros new_empty new_ones "
                  "new_full new_empty_strided is_same_size _assert_async _assert_tensor_metadata".split())  # fmt: skip


def follow(labels: Labels, op, given: dict, out: object, where: str) -> None:
    """Label what an operation has computed.

    given: its arguments by name. where: the module in which it ran.
    """
    name = op._schema.name.split("::")[1]
    name = name if name.startswith("__") else name.rstrip("_")
    known = [tensor for tensor in tensors_in(given.values()) if labels.knows(tensor)]
    labels.reached |= set(map(storage_of, known))
    if not known or name in SHAPES_ONLY:
        return
    if name == "view" and "dtype" in given:
        return labels.bar(labels.of(given["self"]), f"{name} in {where!r}")
    if name == "view_as_complex" and (found := labels.of(given["self"])) is not None:
        labels.tie(found[..., 0], found[..., 1])
    if op.is_view or name in VIEWS_UNTAGGED:
        return _sizes_written_in(labels, name, given, out)
    mask = given.get("indices", [None])[0] if name == "index_put" else None
    if isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == given["self"].shape:
        name, given = "where", {"condition": mask, "self": given["values"], "other": given["self"]}  # x[x < 0] = 0
    for tensor in known:
        labels.bar_used_places(labels.of(tensor) if not tensor.is_floating_point() else None)
    rule = RULES.get(name) or (pointwise if torch.Tag.pointwise in op.tags else unknown)
    if rule is unknown and re.search("pool.d|upsample|grid_sampler", name):
        rule = norms.spatial
    labels.module = where
    why = f"{name.removeprefix('native').strip('_')} in {where!r}" if where else name.strip("_")
    try:
        rule(labels, name, given | {"op": op}, out, why)
    except (LookupError, RuntimeError, TypeError, ValueError):  # arguments that the rule does not know
        unknown(labels, name, given, out, why)


def _sizes_written_in(labels: Labels, name: str, given: dict, out: object) -> None:
    """Note the shapes of views that may stand in the code: whole slices of them are copied."""
    if low_rank.is_product(labels, given["self"]):
        return
    if name in ("view", "_unsafe_view", "unflatten") and (found := labels.of(out)) is not None:
        labels.cut(found)
    elif name in ("split", "unsafe_split") and (found := labels.of(given["self"])) is not None:
        axis, n_parts = given.get("dim", 0), len(out)
        if found.shape[axis] % n_parts == 0:
            labels.cut(found.unflatten(axis, (n_parts, -1)))
    elif name in ("split_with_sizes", "unsafe_split_with_sizes") and (found := labels.of(given["self"])) is not None:
        pieces = found.split(given["split_sizes"], given.get("dim", 0))
        labels.pieces += [torch.unique(core(piece)) for piece in pieces]


def moves(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """Run the operation on the labels."""
    if given.get("accumulate"):
        return adds(labels, name, given, out, why)
    for tensor in tensors_in([value for key, value in given.items() if key not in DATA]):
        labels.bar(labels.of(tensor), f"{why}, at places that depend on it")
    found = labels.of(given.get("self"))
    if name in ("tril", "triu") and found is not None and (varies(found, -1) or varies(found, -2)):
        return labels.bar(found, f"{why}, over channels")

    if name in ("roll", "flip") and found is not None and any(varies(found, axis) for axis in given["dims"]):
        labels.pin(found, why)  # copies come after others in the new order

    def code(tensor: object) -> object:  # 0 stands for no label, so that what is filled with 0 has none
        return (labels.raw(tensor) + 1).double() if isinstance(tensor, Tensor) else tensor

    def on_cpu(value: object) -> object:
        return value.cpu() if isinstance(value, Tensor) else value

    arguments = {key: tree_map(code if key in DATA else on_cpu, value) for key, value in given.items() if key != "op"}
    arguments |= {key: 0 for key in ("value", "padding_value") if isinstance(arguments.get(key), float | int)}
    arguments |= {"device": torch.device("cpu")} if "device" in arguments else {}
    moved = given["op"](**arguments)
    for one, result in zip(tensors_in([out]), tensors_in([moved])):
        if one.is_floating_point() or result.is_floating_point():
            labels.put(one, result.long() - 1)
    if name == "stack" and (found := labels.of(out)) is not None:
        labels.cut(found)
    if name == "cat":
        parts = [core(of) for one in given["tensors"] if (of := labels.of(one)) is not None]
        labels.parts += [part.clone() for part in parts if part.dim() == 1]


def adds(labels: Labels, name: str, given: dict, out: Tensor, why: str) -> None:
    """Add elements at some places of a tensor: what meets there is tied."""
    before = labels.raw(given["self"]).clone()
    move = getattr(torch.ops.aten, ADDS[name])
    arguments = {key: value for key, value in given.items() if key not in ("op", "alpha", "accumulate")}
    arguments["self"] = torch.zeros_like(arguments["self"])
    moves(labels, name, arguments | {"op": move}, out, why)
    added = labels.raw(out)
    labels.tie(before, added)
    labels.put(out, torch.where(added == NONE, before, added))


def fourier(labels: Labels, name: str, given: dict, out: Tensor, why: str) -> None:
    """A transform along some axes, which mixes what stands along them."""
    found = labels.of_activation(given["self"])
    if any(varies_where_labelled(found, axis) for axis in given["dim"]):
        return unknown(labels, name, given, out, why)
    labels.put(out, found.amax(given["dim"], keepdim=True))


RULES: dict[str, Callable] = {
    **dict.fromkeys(POINTWISE_UNTAGGED, pointwise),
    **dict.fromkeys(MOVES, moves),
    **dict.fromkeys({"index_add", "scatter_add"}, adds),
    **dict.fromkeys("mm bmm addmm baddbmm mv addmv dot vdot _sparse_addmm".split(), products.product),
    "convolution": products.convolution,
    "_trilinear": products.bilinear,
    **dict.fromkeys("embedding _embedding_bag _embedding_bag_forward_only".split(), products.embedding),
    "glu": glu,
    **dict.fromkeys(("_fft_r2c", "_fft_c2r", "_fft_c2c"), fourier),
    "_weight_norm_interface": weight_norm,
    **dict.fromkeys(
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
        "miopen_batch_norm _batch_norm_with_update".split(),
        norms.batch_norm,
    ),  # fmt: skip
    **dict.fromkeys("native_layer_norm _fused_rms_norm".split(), norms.layer_norm),
    "native_group_norm": norms.group_norm,
    **dict.fromkeys(
        "mean sum nansum var std var_mean std_mean amax amin max min logsumexp norm linalg_vector_norm prod "
        "any all".split(),
        norms.reduction,
    ),  # fmt: skip
    **dict.fromkeys(("_cdist_forward", "_euclidean_dist"), norms.distance),
    **dict.fromkeys("_softmax _log_softmax _safe_softmax cumsum cumprod sort topk".split(), norms.along),
}
