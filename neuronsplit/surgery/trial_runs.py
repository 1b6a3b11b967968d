"""Runs of a network that is being split: which numbers that its modules note does it need to be others?

A number is changed on evidence: the run fails without it, and gets further with it.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuronsplit.surgery.noted_sizes import Number, set_number
from neuronsplit.surgery.pointwise import tensors_in
from neuronsplit.surgery.trace import running_modules

MAX_RUNS = 40  # of the network, to find the numbers that it needs
Grown = dict[int, set[int]]  # sizes that have grown, and what they may be now


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
    """Numbers one by one, and then all of a module; by name: those of several modules that grow alike.

    In such a group, each number has an effect only with the others.
    """
    groups: dict[tuple, list[Number]] = {}
    of_modules: dict[str, dict[str, Number]] = {}
    for number in numbers:
        growth = number.new / number.old if by_name and type(number.old) is int else (str(number.old), str(number.new))
        group = groups.setdefault((number.attribute, growth, "" if by_name else number.module), [])
        group += [number] if number not in group else []
        of_modules.setdefault(number.module, {}).setdefault(number.attribute, number)
    return [*groups.values(), *(list(of.values()) for of in of_modules.values() if len(of) > 1)]


def _candidates(net: nn.Module, grown: list[Grown], names: Iterable[str], where: list[str]) -> Iterator[Number]:
    """Numbers that may stand for a size: of the module that failed and those around it, then of parameters' owners."""
    owners = dict.fromkeys(reversed(where))
    for name in names:
        while name := name.rpartition(".")[0]:
            owners.setdefault(name)
    owners.setdefault("")
    holders = {}  # modules may share a configuration
    for owner in owners:
        module = net.get_submodule(owner)
        for prefix, holder in (("", module), ("config.", getattr(module, "config", None))):
            holders.setdefault(id(holder), (owner, prefix, list(getattr(holder, "__dict__", {}).items())))
    for new_sizes in grown:
        for owner, prefix, attributes in holders.values():
            for attribute, value in attributes:
                yield from (Number(owner, prefix + attribute, value, new) for new in _changed(value, new_sizes))


def _changed(value: object, new_sizes: Grown) -> list:
    """What a number may become, or a list of numbers of which one changes."""
    if type(value) is int:
        return sorted(new_sizes.get(value, ()))
    if type(value) not in (tuple, list) or not all(type(one) is int for one in value):
        return []
    changes = [(at, new) for at, one in enumerate(value) for new in sorted(new_sizes.get(one, ()))]
    return [type(value)([*value[:at], new, *value[at + 1 :]]) for at, new in changes]
