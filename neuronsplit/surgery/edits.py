"""What a split does to each parameter and buffer: its entries are copied by index and scaled.

    what makes the channel       × gain    α or β
    what reads it                × share   γ or δ, one per output
    what only goes along         copied
    the gain of a norm           copied, and all × √(Σ gain² / h'), for the norm divides by the root of this mean

The second twin comes last. Where a channel shares an axis with others (concatenated, packed, in heads), it comes right
behind the run that it copies.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from neuronsplit.core.split import Twins

READING = "reads", "reads norm"


class Place(NamedTuple):
    """Where the copied sets stand along one axis of a parameter, in values that JSON can store."""

    name: str
    axis: int
    # "makes": the copies take the gain; "reads": the share; "ties": both are one; "along": neither. "mean": as what
    # makes, and copies are the mean of all. "gain": of a norm; "reads norm": it reads a norm without one, and has it.
    role: str
    outputs: list[int]  # of a parameter that reads: the axes of what it computes
    runs: list[list[list[int]]]  # of each set: the positions [first, last + 1] of its runs
    plain: list[int]  # positions among them that take no gain, such as those of gates that are packed with their values

    def positions(self) -> list[Tensor]:
        """The positions (n,) of each set."""
        return [torch.tensor([at for run in runs for at in range(*run)], dtype=torch.long) for runs in self.runs]


class TensorEdit(NamedTuple):
    """What happens to the entries of one tensor along one axis."""

    axis: int
    source: Tensor  # (n',) the old position of each new entry
    scale: Tensor  # the factor of each entry, in a shape that broadcasts
    gradient: Callable[[int], Tensor]  # from an exponent of the gradient to the factor of that power
    copies: Tensor  # the positions of second twins among the new entries
    mean: bool = False  # whether copies are the mean of all
    merged: Tensor | None = None  # (n',) in a merge: the old position of what is added to each new entry, times scale


def n_outputs(places: list[Place], tensors: dict[str, Tensor]) -> int:
    """The number of outputs of all that reads, for γ and δ may differ in each."""
    return sum(_rows(place, tensors[place.name]) for place in places if place.role in READING)


def _rows(place: Place, tensor: Tensor) -> int:
    return torch.Size([tensor.shape[axis] for axis in place.outputs]).numel()


def edits_of(
    places: list[Place], tensors: dict[str, Tensor], twins: Twins, last: bool, norms: dict[str, str]
) -> dict[str, list[TensorEdit]]:
    """The edits of each parameter and buffer, by its name; axes that are read come first.

    tensors: the parameters and buffers by name. twins: the sets after the split, in terms of those before.
    last: whether copies come last. norms: of weights that are normalised (v in torch's weight_norm): the one that has
    their norms (g).
    """
    edits: dict[str, list[TensorEdit]] = defaultdict(list)
    first, one = 0, torch.ones(1, dtype=torch.float64)  # the factor of positions that are in no set, −1
    gain, share = torch.cat([twins.gain, one]), twins.share
    if not len(share):  # nothing reads, as in a mean over heads: copies share the gradient evenly
        share = 1 / (torch.bincount(twins.source)[twins.source] * twins.gain.where(twins.gain > 0, 1))[None].double()
    share = torch.cat([share, one.expand(len(share), 1)], 1)
    for place in sorted(places, key=lambda place: place.role not in READING):
        tensor = tensors[place.name]
        source, of = spread(place.runs, tensor.shape[place.axis], twins.source, last)
        shape = [len(of) if axis == place.axis else 1 for axis in range(tensor.dim())]
        whole = gain[of].square().mean().sqrt() if place.role in ("gain", "reads norm") else one
        if place.role in READING:
            rows = _rows(place, tensor)
            scale = _over_outputs(share[first : first + rows].index_select(1, of % len(gain)), tensor, place)
            for edit in edits[place.name]:  # outputs that are copied keep their shares
                scale = scale.index_select(edit.axis, edit.source) if scale.shape[edit.axis] > 1 else scale
            factor = partial(_gradient_factor, gain[of] / whole, torch.ones_like(gain)[None], of, shape)
            first += rows
        else:
            plain = torch.isin(source, torch.tensor(place.plain, dtype=torch.long)) | (place.role in ("along", "gain"))
            scale = torch.where(plain, 1, gain[of])
            of_others = share if place.role != "ties" else gain[None]
            factor = partial(_gradient_factor, gain[of].where(plain, 1) / whole, of_others, of, shape)
            scale = scale.view(shape)
        copies = (of >= len(place.runs)).nonzero()[:, 0]
        edits[place.name].append(TensorEdit(place.axis, source, scale * whole, factor, copies, place.role == "mean"))
    add_norms(edits, tensors, norms)
    return edits


def add_norms(edits: dict[str, list[TensorEdit]], tensors: dict[str, Tensor], norms: dict[str, str]) -> None:
    """Add the edits of the norms of weights that are normalised."""
    for v in [v for v in norms if v in edits]:
        edits[norms[v]].append(_keep_norms(tensors[v], edits[v], edits[norms[v]], tensors[norms[v]]))


def _keep_norms(v: Tensor, edits: list[TensorEdit], of_g: list[TensorEdit], g: Tensor) -> TensorEdit:
    """The edit of g that keeps g / ‖v‖, so that the weight v g / ‖v‖ is edited as v is (arXiv 1602.07868, eq. 2)."""

    def norm(v: Tensor) -> Tensor:
        axes = [axis for axis in range(v.dim()) if not g.dim() or g.shape[axis] == 1]
        return torch.linalg.vector_norm(v.double(), dim=axes, keepdim=bool(g.dim()))

    if any(v.shape[edit.axis] == 1 and g.dim() and g.shape[edit.axis] == 1 for edit in edits):
        raise ValueError("weight norm over an axis with one entry: allowed are axes with several")
    before = norm(v.detach())
    for edit in of_g:
        before = before.index_select(edit.axis, edit.source)
    ratio = norm(apply_edits(v.detach(), edits)) / before
    whole, none = torch.arange(len(ratio) if g.dim() else 1), torch.empty(0, dtype=torch.long)
    return TensorEdit(0, whole, ratio, lambda exponent: ratio**-exponent, none)


def spread(runs: list[list[list[int]]], size: int, source: Tensor, last: bool) -> tuple[Tensor, Tensor]:
    """For an axis of some size: the old position of each new one (n',), and which of the twins it is of, or −1."""
    old, twin, behind = [torch.arange(size)], [torch.full((size,), -1)], [torch.arange(size)]
    for number, of_set in enumerate(source.tolist()):
        for start, stop in runs[of_set]:
            if number < len(runs):
                twin[0][start:stop] = number
                continue
            old.append(torch.arange(start, stop))
            twin.append(torch.full((stop - start,), number))
            behind.append(torch.full((stop - start,), size if last else stop - 1))  # the position that they follow
    order = torch.cat(behind).argsort(stable=True)
    return torch.cat(old)[order], torch.cat(twin)[order]


def _over_outputs(share: Tensor, tensor: Tensor, place: Place) -> Tensor:
    """Shares (n_out, n') in a shape that broadcasts against the parameter."""
    axes = sorted({*place.outputs, place.axis})
    n = share.shape[1]
    share = share.reshape(*[tensor.shape[axis] for axis in sorted(place.outputs)], n).movedim(
        -1, axes.index(place.axis)
    )
    shape = [tensor.shape[axis] if axis in place.outputs else 1 for axis in range(tensor.dim())]
    shape[place.axis] = n
    return share.reshape(shape)


def _gradient_factor(gain: Tensor, share: Tensor, of: Tensor, shape: list[int], exponent: int) -> Tensor:
    """The factor of a power of the gradient: a mean over the outputs, exact where all have the same share.

    gain: of each position (n',). share: of each output and twin. of: the twin at each position.
    """
    return (gain**exponent * (share**exponent).mean(0)[of]).view(shape)


def apply_edits(tensor: Tensor, edits: list[TensorEdit], exponent: int | None = None) -> Tensor:
    """A parameter after its edits; with an exponent, a tensor that goes with that power of the parameter's gradient."""
    channels_last = (
        tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    )
    for edit in edits:
        factor = edit.scale if exponent is None else edit.gradient(exponent)
        new = tensor.index_select(edit.axis, edit.source.to(tensor.device))
        gone = None if edit.merged is None else tensor.index_select(edit.axis, edit.merged.to(tensor.device))
        new = new.mul_(factor.to(new)) if gone is None else _sum(new, gone, factor.to(new), exponent)
        if edit.mean and exponent is None:
            mean = tensor.mean(edit.axis, keepdim=True).repeat_interleave(len(edit.copies), edit.axis)
            new.index_copy_(edit.axis, edit.copies.to(new.device), mean)
        tensor = new
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor


def _sum(kept: Tensor, gone: Tensor, factor: Tensor, exponent: int | None) -> Tensor:
    """The sum a + factor × b, or the mean of its powers from those of a and b, which are proportional."""
    power = exponent or 1
    total = (kept ** (1 / power) + factor * gone ** (1 / power)) ** power
    return torch.where((factor == 0) | (exponent == 0), kept, total)
