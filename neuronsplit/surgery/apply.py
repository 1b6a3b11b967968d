"""Make a split or merge that has been found: change tensors, the sizes that modules note, and optimisers' states."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neuronsplit.core.split import Coefficients, Twins, twins
from neuronsplit.surgery.edits import Place, TensorEdit, apply_edits, edits_of, n_outputs
from neuronsplit.surgery.entries import extent
from neuronsplit.surgery.exactness import named_tensors, set_tensors
from neuronsplit.surgery.merges import merge_edits
from neuronsplit.surgery.noted_sizes import Number, set_numbers, weight_norms
from neuronsplit.surgery.optimizer_state import replace_parameters, split_state
from neuronsplit.surgery.shadow import has_memory, storage_of
from neuronsplit.surgery.trace import created_on

MERGE = "merge"  # the rule in the record of a merge


class SplitRecord(NamedTuple):
    """A record of what a split or a merge did, in values that JSON can store; `replay` repeats it on a network."""

    neurons: dict[str, list[int]]  # by layer
    rule: str  # or MERGE: the second of two sets went
    sets: list[int]  # of each neuron in turn: the number of the set of channels that was split
    coefficients: list[list]  # α, β, γ, δ of each neuron in turn; γ and δ are numbers, or one per output of a reader
    places: list[list]  # of each changed axis of a parameter or buffer: a Place
    last: bool  # whether copies come last; else each stands behind what it copies
    numbers: list[list]  # of each size that a module notes and that has changed: a Number
    shapes: dict[str, tuple[list[int], list[int]]]  # of each changed parameter and buffer, before and after
    change: float  # the largest change of an output on the example inputs, relative to the largest output
    unsaved: str = ""  # why a network that is made of this one's configuration is another; "" if it is the same

    def __repr__(self) -> str:
        what = f"neurons={self.neurons}, rule={self.rule!r}, change={self.change:.2g}"
        return f"SplitRecord({what}, {len(self.shapes)} changed tensors in shapes, …)"


def recorded_edits(record: SplitRecord, net: nn.Module, tensors: dict[str, Tensor]) -> dict[str, list[TensorEdit]]:
    """The edits that a record stands for, on the tensors of a network by their names."""
    places = [Place(*place) for place in record.places]
    if missing := [place.name for place in places if place.name not in tensors]:
        inside = [f", but {name!r}" for name in tensors if name.endswith(f".{missing[0]}")]  # this one is a wrapper
        but = "".join(inside[:1])
        raise ValueError(f"the network has no {missing[0]!r}{but}: allowed are records of splits of this network")
    for name, (before, _) in record.shapes.items():
        if (shape := list(tensors[name].shape)) != list(before):
            raise ValueError(f"{name!r} has the shape {shape}: allowed is {list(before)}, as recorded")
    for name in dict.fromkeys(place.name for place in places):
        _require_memory_of_its_own(name, tensors)
    if record.rule == MERGE:
        return merge_edits(places, tensors, record.coefficients[0][3], weight_norms(net))
    drawn = [Coefficients(*(np.array(c) for c in each)) for each in record.coefficients]
    of_sets: Twins = twins(max(record.sets) + 1, n_outputs(places, tensors), record.sets, drawn)
    return edits_of(places, tensors, of_sets, record.last, weight_norms(net))


def _require_memory_of_its_own(name: str, tensors: dict[str, Tensor]) -> None:
    """Raise ValueError where another tensor shares entries with one: only one of them would see a change."""
    tensor = tensors[name]
    for other, one in tensors.items():
        if one is not tensor and has_memory(one) and storage_of(one) == storage_of(tensor) and _overlap(one, tensor):
            raise ValueError(f"{other!r} has entries of {name!r} in its memory: allowed is one parameter for both")


def _overlap(*tensors: Tensor) -> bool:
    """Whether the ranges of two tensors in one storage overlap."""
    (first, end), (other_first, other_end) = (
        (of.data_ptr(), of.data_ptr() + of.itemsize * extent(of)) for of in tensors
    )
    return first < other_end and other_first < end


def edited(name: str, tensor: Tensor, edits: list[TensorEdit]) -> Tensor:
    """A tensor after its edits, of its own class and with its attributes and gradient."""
    new = apply_edits(tensor.detach(), edits)
    if not isinstance(tensor, nn.Parameter):
        return new
    if tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None):
        raise ValueError(f"{name!r} has hooks of its own, which the new parameter would lose: remove them")
    new = nn.Parameter(new, requires_grad=tensor.requires_grad)
    new.__class__ = type(tensor)
    new.__dict__.update(tensor.__dict__)
    if tensor.grad is not None:
        new.grad = apply_edits(tensor.grad, edits, exponent=1)
    return new


def make_split(
    net: nn.Module, record: SplitRecord, optimizers: list[torch.optim.Optimizer], state: str, exponents: dict[str, int]
) -> SplitRecord:
    """Make a split in a network, and in the state of optimisers; returns the record.

    Raises ValueError, and changes nothing, where a tensor or a state cannot be changed.
    """
    tensors = named_tensors(net)
    with torch.inference_mode(False), torch.no_grad(), created_on(torch.device("cpu")):
        edits = recorded_edits(record, net, tensors)
        new = {name: edited(name, tensors[name], edits[name]) for name in edits}
        old = {name: tensors[name] for name in edits}
        states = split_state(optimizers, net, old, edits, state, exponents)
    set_tensors(net, tensors, new)
    set_numbers(net, [Number(*number) for number in record.numbers])
    replace_parameters(optimizers, {id(old[name]): new[name] for name in old}, states)
    return record
