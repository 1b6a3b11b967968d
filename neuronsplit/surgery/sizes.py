"""Sizes that modules note as numbers: after a split, those that the run needs go along.

What torch's own modules note of their parameters is known, and follows. Any other number is changed on evidence: the
run fails without it, and gets further with it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._python_dispatch import TorchDispatchMode

from neuronsplit.surgery.pointwise import tensors_in
from neuronsplit.surgery.trace import running_modules

MAX_RUNS = 40  # of the network, to find the numbers that it needs


Grown = dict[int, set[int]]  # sizes that have grown, and what they may be now


class Number(NamedTuple):
    """A size that a module notes, or its configuration, and what it is after a split."""

    module: str
    attribute: str  # of the module; "config.x" is that of its configuration
    old: object
    new: object


def set_number(net: nn.Module, number: Number, value: object) -> None:
    """Set a number of a module."""
    holder = net.get_submodule(number.module)
    *path, attribute = number.attribute.split(".")
    setattr(holder.config if path else holder, attribute, value)


class Run:
    """One run of a network: how far it got, what it computed or why it failed, and how much that differs.

    error: one line, with the operation and module that failed. change: of the output, infinite if it failed.
    replaced: parameters that must not be used any more, by their storage; a list of the user's may hold them.
    """

    def __init__(
        self,
        net: nn.Module,
        call: Callable[[], object],
        change: Callable[[object], float],
        replaced: dict[int, str],
    ):
        self.n_operations, self.operation, self.error, self.change = 0, "", None, float("inf")
        with running_modules(net) as modules, _Count(self, replaced):
            try:
                out = call()
            except Exception as error:  # of the user's network, so of any kind
                where = " in ".join(text for text in (self.operation, (modules.stopped or [""])[-1]) if text)
                self.error = ": ".join(
                    text for text in (where, " ".join(str(error).split()) or type(error).__name__) if text
                )
        self.where = modules.stopped or []
        if self.error is None:
            self.change = change(out)

    def is_further(self, other: "Run") -> bool:
        """Whether this run got further than another, or as far and to an output that differs by far less."""
        if self.error is None and other.error is None:
            return self.change < 1e-3 * other.change
        return self.n_operations > other.n_operations


class _Count(TorchDispatchMode):
    def __init__(self, run: Run, replaced: dict[int, str]):
        super().__init__()
        self.run, self.replaced = run, replaced

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        for tensor in tensors_in([*args, *(kwargs or {}).values()]):
            if tensor.layout == torch.strided and tensor.untyped_storage()._cdata in self.replaced:
                name = self.replaced[tensor.untyped_storage()._cdata]
                raise ValueError(f"it still uses the old {name!r}, which something beside its module holds")
        self.run.operation = op._schema.name.split("::")[1].strip("_")
        out = op(*args, **(kwargs or {}))
        self.run.operation = ""
        self.run.n_operations += 1
        return out


def noted_sizes(module: nn.Module) -> dict[str, object]:
    """What a module of torch.nn notes of the shapes of its parameters, by their present shapes."""
    weight = getattr(module, "weight", None)
    if isinstance(module, nn.RNNBase):
        hidden = module.weight_hh_l0.shape[0] // {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        return {"input_size": module.weight_ih_l0.shape[1], "hidden_size": hidden}
    if isinstance(module, nn.RNNCellBase):
        return {"input_size": module.weight_ih.shape[1], "hidden_size": module.weight_hh.shape[1]}
    if isinstance(module, _NormBase) and (weight is not None or module.running_mean is not None):
        return {"num_features": len(module.running_mean if weight is None else weight)}
    if weight is None:
        return {}
    if isinstance(module, nn.Linear):
        return {"in_features": weight.shape[1], "out_features": weight.shape[0]}
    if isinstance(module, _ConvTransposeNd):
        return {"in_channels": weight.shape[0], "out_channels": weight.shape[1] * module.groups}
    if isinstance(module, _ConvNd):
        groups = weight.shape[0] * module.groups // module.out_channels if module.groups > 1 else 1
        return {"groups": groups, "in_channels": weight.shape[1] * groups, "out_channels": weight.shape[0]}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": len(weight), "num_groups": module.num_groups * len(weight) // module.num_channels}
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return {"normalized_shape": tuple(weight.shape)}
    return {"embedding_dim": weight.shape[1]} if isinstance(module, nn.Embedding) else {}


def update_noted(net: nn.Module, names: Iterable[str]) -> list[Number]:
    """Update what torch's modules note of the shapes of some parameters. Returns what has changed."""
    changed = []
    for owner in dict.fromkeys(name.rpartition(".")[0] for name in names):
        for attribute, new in noted_sizes(net.get_submodule(owner)).items():
            number = Number(owner, attribute, getattr(net.get_submodule(owner), attribute), new)
            if number.old != new:
                set_number(net, number, new)
                changed.append(number)
    return changed


def shared_eps(net: nn.Module, names: Iterable[str]) -> list[Number]:
    """Halve the eps of norms whose channels become twice as many, and half as large in the square."""
    changed = []
    for owner in dict.fromkeys(name.rpartition(".")[0] for name in names):
        module = net.get_submodule(owner)
        for attribute, value in list(vars(module).items()):
            if type(value) is float and "eps" in attribute and not isinstance(module, _NormBase):
                changed.append(Number(owner, attribute, value, value / 2))
                set_number(net, changed[-1], value / 2)
    return changed


def find_numbers(
    net: nn.Module,
    run: Callable[[], Run],
    tolerance: float,
    grown: list[Grown],
    names: Iterable[str],
    changed: list[Number],
) -> Run:
    """Run a network, and change numbers that its modules note as long as the run gets further with them.

    tolerance: a change of the output that is rounding.
    grown: the new sizes that an old one may stand for; the first ones are tried first.
    names: the parameters that were changed.
    changed: gets the numbers that were changed, in their order.
    Returns the last run.
    """
    last, n_runs = run(), 1
    while last.error is not None or last.change > tolerance:
        for numbers in _groups(_candidates(net, grown, names, last.where), by_name=last.error is None):
            changed += numbers
            for number in numbers:
                set_number(net, number, number.new)
            further, n_runs = run(), n_runs + 1
            if further.is_further(last):
                last = further
                break
            for number in numbers:
                set_number(net, number, number.old)
                changed.remove(number)
            if n_runs >= MAX_RUNS:
                return last
        else:
            return last
    return last


def _groups(numbers: Iterator[Number], by_name: bool) -> list[list[Number]]:
    """Numbers one by one; or those of one name in several modules, of which each has an effect only with the others."""
    groups: dict[tuple, list[Number]] = {}
    for number in numbers:
        key = number.attribute, str(number.old), str(number.new), "" if by_name else number.module
        group = groups.setdefault(key, [])
        group += [number] if number not in group else []
    return list(groups.values())


def _candidates(net: nn.Module, grown: list[Grown], names: Iterable[str], where: list[str]) -> Iterator[Number]:
    """Numbers that may stand for a size: of the module that failed and those around it, then of parameters' owners."""
    owners = dict.fromkeys(reversed(where))
    for name in names:
        while name := name.rpartition(".")[0]:
            owners.setdefault(name)
    owners.setdefault("")
    for new_sizes in grown:
        for owner in owners:
            module = net.get_submodule(owner)
            for prefix, holder in (("", module), ("config.", getattr(module, "config", None))):
                for attribute, value in list(getattr(holder, "__dict__", {}).items()):
                    yield from (Number(owner, prefix + attribute, value, new) for new in _changed(value, new_sizes))


def _changed(value: object, new_sizes: Grown) -> list:
    """What a number may become, or a list of numbers of which one changes."""
    if type(value) is int:
        return sorted(new_sizes.get(value, ()))
    if type(value) not in (tuple, list) or not all(type(one) is int for one in value):
        return []
    changes = [(at, new) for at, one in enumerate(value) for new in sorted(new_sizes.get(one, ()))]
    return [type(value)([*value[:at], new, *value[at + 1 :]]) for at, new in changes]
