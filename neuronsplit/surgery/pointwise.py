"""Rules for operations that keep every element in its place."""

from functools import partial

import torch
from torch import Tensor

from neuronsplit.surgery import low_rank
from neuronsplit.surgery.axes import core, narrowed, varies
from neuronsplit.surgery.facts import ACROSS, ALONG, MAKES
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.partition import NONE
from neuronsplit.surgery.runs import tensors_in

# Pointwise operations that a scale comes through: that of all channels that are added, and that of one factor.
SUMS = set("add sub rsub maximum minimum where copy lerp complex".split())
FACTORS = {"mul", "div"}
HOMOGENEOUS = set(
    "relu leaky_relu abs neg clone _to_copy native_dropout _prelu_kernel prelu zero zeros_like positive "
    "rrelu_with_noise conj_physical _conj_physical".split()
)

LINEAR = set("neg clone _to_copy native_dropout zero zeros_like positive conj_physical _conj_physical".split())
NOT_BENT = SUMS | FACTORS | LINEAR | {"pow", "masked_fill", "fill"}


def unknown(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """Bar the channels that an operation without a rule meets."""
    for tensor in tensors_in(given.values()):
        if labels.is_weight(tensor):
            labels.lose(tensor, why)
        else:
            labels.bar(labels.of(tensor), why)


def pointwise(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """Keep the places; what meets in a sum is tied, and what meets otherwise is linked."""
    tensors = tensors_in([value for key, value in given.items() if key != "self" or name != "copy"])
    outs = tensors_in([out])
    if any(low_rank.is_product(labels, tensor) for tensor in tensors):
        if len(tensors) == 1 and name in FACTORS | {"neg", "clone"}:
            return low_rank.multiply(labels, *tensors, outs[0], partial(pointwise, labels, name, given, out, why))
        tensors = low_rank.terms(labels, tensors) if name in SUMS else tensors
    weights = [tensor for tensor in tensors if labels.is_weight(tensor)]
    found = [of.expand(outs[0].shape) for tensor in tensors if (of := labels.of(tensor)) is not None]
    if not found:
        return None if name.endswith("_like") else _of_weights(labels, name, given, tensors, outs[0], why)
    channels = [of for of in found if not labels.is_statistic(of)]
    begins, (merged, *others) = 0 < len(channels) < len(found), narrowed(*(channels or found))
    n_found = len(found) if name in SUMS else 1 + len(others)  # a mean is scaled as its channels are
    passes = _scale_passes(labels, name, given, outs[0], n_found, len(weights))
    for of in others:
        merged = _meet(labels, name, merged, of, why)
    labels.bar_beside_inputs(merged, tensors, outs[0].shape, why)
    if name == "pow" and given.get("exponent") == 2:
        _multiplied(labels, [(one, one) for one in torch.unique(merged).tolist()])
        labels.pin(merged, why, if_drawn=True)
    elif not passes:
        labels.pin(merged, why)
    if channels and name not in NOT_BENT:
        labels.bend(merged, why, passes)
    merged = labels.begin_scale(labels.scales.roots(merged), why) if begins else labels.scales.roots(merged)
    for weight in weights:
        begun = name in FACTORS and bool(torch.isin(labels.scales.roots(labels.begun), core(merged)).any())
        labels.gains |= {labels.name_of(weight)} if begun else set()
        one_by_one = meets(labels, weight, merged.expand(outs[0].shape), MAKES if name in SUMS or begun else ALONG)
        if name in SUMS and not one_by_one:  # such as one threshold for all channels
            labels.pin(merged, why)
    for one in outs:
        if one.shape == outs[0].shape:
            labels.put(one, merged)


def _meet(labels: Labels, name: str, a: Tensor, b: Tensor, why: str) -> Tensor:
    """Labels of what two activations, labelled a and b, become together, element by element.

    Channels that meet one by one are copied together. One that meets several of the other is copied with all of them,
    as the weights of attention are with the values of a head. If several meet several, one activation is labelled.
    """
    of_a, of_b = labels.channels.roots(a), labels.channels.roots(b)
    pairs = torch.unique(torch.stack([of_a, of_b]).flatten(1), dim=1)
    pairs = pairs[:, (pairs != NONE).all(0)]
    n_a, n_b = (len(torch.unique(of)) for of in pairs)
    one_b, one_a = n_a == pairs.shape[1], n_b == pairs.shape[1]  # a channel of a meets one of b; one of b, one of a
    kept, other = b, a
    if pairs.shape[1] == n_a * n_b and not one_a and not one_b:
        other, kept = sorted((a, b), key=lambda of: next(axis for axis in range(of.dim()) if varies(of, axis)))
        kept, other = (kept, other) if labels.mixing else (other, kept)
        for of in (kept, other) if labels.mixing and name in SUMS else (other,):  # a term has places of its own
            labels.bar(of, f"{why}, {ACROSS}")
    elif name in SUMS and (one_a == one_b or min(n_a, n_b) > 1):
        labels.tie(a, b)
    elif one_a == one_b:
        labels.channels.merge(a, b)
        labels.pin(a, why, if_drawn=name in FACTORS)
        if name == "mul":
            _multiplied(labels, torch.stack([b, a]).flatten(1).unique(dim=1).T.tolist())
    else:
        kept, other = (b, a) if one_a else (a, b)
        coarse, fine = pairs if one_a else pairs.flip(0)
        of_coarse = [fine[coarse == one] for one in torch.unique(coarse)]
        values = torch.nn.utils.rnn.pad_sequence(of_coarse, batch_first=True, padding_value=NONE)
        labels.head(torch.unique(coarse), values)
        labels.pin(kept if name in SUMS else other, why)
    return torch.where(kept == NONE, other, kept)


def _multiplied(labels: Labels, pairs: list[tuple[int, int]]) -> None:
    """Note the factors of products, by the label of each; NONE where there are more than two."""
    for label, other in pairs:
        again = labels.factors.get(label) == other  # in training
        labels.factors[label] = other if again or labels.factors.keys().isdisjoint((label, other)) else NONE


def glu(labels: Labels, name: str, given: dict, out: Tensor, why: str) -> None:
    """The first half along an axis, times a function of the second."""
    found = labels.of_activation(given["self"])
    values, gates = found.chunk(2, given.get("dim", -1))
    labels.channels.merge(values, gates)
    labels.cut(found.unflatten(given.get("dim", -1), (2, -1)))
    labels.pin(gates, why)
    labels.put(out, values)


def _scale_passes(labels: Labels, name: str, given: dict, out: Tensor, n_found: int, n_weights: int) -> bool:
    """Whether what is computed is scaled as the channels that it is computed from."""
    tensors = tensors_in(given.values())
    if not (out.is_floating_point() or out.is_complex()) or given.get("rounding_mode"):
        return False
    if name in FACTORS:
        return name == "mul" or (n_found == 1 and labels.of(tensors[0]) is not None)
    if name in SUMS:
        others = len(tensors) - n_found - n_weights - (name == "where") - (name == "copy")
        return not others and not _adds_numbers(given)
    bounds = sum(tensor.is_floating_point() for tensor in tensors) - n_found
    return name in HOMOGENEOUS or (
        name in ("clamp", "clamp_min", "masked_fill", "fill") and not _adds_numbers(given) and not bounds
    )


def _of_weights(labels: Labels, name: str, given: dict, tensors: list[Tensor], out: Tensor, why: str) -> None:
    """A function of parameters: some of the tensors."""
    weights = [tensor for tensor in tensors if labels.is_weight(tensor)]
    keeps = name in HOMOGENEOUS or (name in SUMS and len(weights) == len(tensors) and not _adds_numbers(given))
    distinct = len({labels.name_of(weight) for weight in weights}) == len(weights)
    keeps |= distinct and (name == "mul" or (name == "div" and weights[0] is tensors[0]))
    if name != "div":
        weights.sort(key=lambda weight: not labels.learns(weight))  # a buffer may be drawn anew
    _computed_weight(labels, weights, out, why, keeps, name in SUMS)


def _adds_numbers(given: dict) -> bool:
    """Whether an operation has numbers other than 0, those aside that multiply."""
    return any(value for key, value in given.items() if type(value) in (int, float) and key not in ("alpha", "weight"))


def _computed_weight(labels: Labels, weights: list[Tensor], out: Tensor, why: str, keeps: bool, sums: bool) -> None:
    """A function of one parameter's entries has them too; of several, the first of the full shape stands for all.

    keeps: whether the function is scaled as the entries are. sums: whether it is a sum, of which each term is scaled.
    """
    whole = next((weight for weight in weights if weight.shape == out.shape), None)
    for weight in weights:
        if whole is None:
            labels.lose(weight, why)
        elif weight.numel() > 1 and not torch.equal(labels.raw(weight.expand(out.shape)), labels.raw(whole)):
            labels.accompany(whole, weight.expand(out.shape), why, sums and weight.dtype != torch.bool)
    if whole is not None:
        if not keeps:
            labels.unscaled_weights.setdefault(labels.name_of(whole), why)
        labels.put(out, labels.raw(whole))


def weight_norm(labels: Labels, name: str, given: dict, out: object, why: str) -> None:
    """A parameter v, whose slices are normalised and multiplied by g."""
    v, g = given["v"], given["g"]
    if labels.is_weight(v) and labels.is_weight(g):
        _computed_weight(labels, [v, g], tensors_in([out])[0], why, keeps=True, sums=False)


def meets(labels: Labels, weight: Tensor, found: Tensor, role: str) -> bool:
    """Note what the entries of a parameter are to the channels that they meet; whether each meets one channel."""
    weight = weight.expand(found.shape)
    differ = [axis for axis in range(found.dim()) if weight.stride(axis) and weight.shape[axis] > 1]
    rest = [axis for axis in range(found.dim()) if axis not in differ]
    for axis in rest:
        found = found if varies(found, axis) else found.narrow(axis, 0, 1)
    weight = weight.permute(*differ, *rest)[(..., *[0] * len(rest))]  # each entry once
    found = found.permute(*differ, *rest).reshape(weight.numel(), -1)  # (n, m)
    found = torch.unique(found, dim=1) if bool((found != found[:, :1]).any()) else found[:, :1]
    found = found[:, 1:] if found.shape[1] > 1 and bool((found[:, 0] == NONE).all()) else found
    if found.shape[1] == 1:
        labels.record(weight, found[:, 0], role)
        if role == MAKES:
            labels.begun = labels.begun[~torch.isin(labels.scales.roots(labels.begun), labels.scales.roots(found))]
        return bool((found >= 0).all()) and (weight.numel() > 1 or len(torch.unique(found)) == 1)
    labels.shared.append((*labels.entries.positions(NONE - 1 - labels.raw(weight).flatten()), found))
    return False
