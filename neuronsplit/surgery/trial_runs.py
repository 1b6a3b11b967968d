"""Run a network with a split on trial: are its outputs the same, and which numbers of its modules must be others?

A number is changed on evidence: the run fails without it, and gets further with it.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, product
from typing import NamedTuple

from torch import Tensor, nn

from neuronsplit.surgery import exactness
from neuronsplit.surgery.apply import SplitRecord, edited, recorded_edits
from neuronsplit.surgery.noted_sizes import Number, changed_sizes, scaled_eps, set_numbers
from neuronsplit.surgery.runs import Call, run, storage_of

MAX_VAIN = 40  # runs with other numbers that got no further than without them
MAX_LISTS = 64  # that a list of numbers may become
Sizes = list[tuple[int, int]]  # before and after a split


class Check(NamedTuple):
    """How a network is run to see whether a split leaves its outputs as they are."""

    calls: list[Call]  # in evaluation
    before: list[Tensor]  # their outputs without the split
    tolerance: float  # the relative change of an output that is allowed
    in_training: Call | None  # must run in training mode too; its outputs are random


class _Trial(NamedTuple):
    n_operations: int  # that ran before it ended or failed
    error: str | None
    change: float  # of the outputs, infinite if it failed
    modules: list[str]  # those that failed, the innermost last
    passes: bool

    def is_further(self, other: "_Trial") -> bool:
        """Whether a run got further than another, or as far and to an output that differs by far less."""
        if self.error is None and other.error is None:
            return self.change < 1e-3 * other.change
        return self.n_operations > other.n_operations


def try_split(
    net: nn.Module, record: SplitRecord, check: Check, eps: dict[str, float], of_heads: Sizes, others: Sizes
) -> tuple[SplitRecord, str | None]:
    """Run a network with a split, and find the numbers that it needs; then put all back.

    eps: the factor of the eps of norms, by their modules.
    of_heads: numbers of heads and groups that grow, which are tried first.
    others: other sizes that grow.
    Returns the record with all that was found, and why the network does not run, or None.
    """
    tensors, numbers = exactness.named_tensors(net), []
    new = {name: edited(name, tensors[name], edits) for name, edits in recorded_edits(record, net, tensors).items()}
    shapes = {name: (list(tensors[name].shape), list(new[name].shape)) for name in new}
    of_tensors = [pair for before, after in shapes.values() for pair in zip(before, after)]
    with exactness.replaced_tensors(net, new):
        try:
            numbers += changed_sizes(net, new) + scaled_eps(net, eps)
            set_numbers(net, numbers)
            trial = partial(_run, net, check, {storage_of(tensors[name]): name for name in new})
            candidates = partial(_candidates, net, list(new), [of_heads, [*others, *of_tensors]])
            last = _find_numbers(net, trial, candidates, numbers)
        finally:
            set_numbers(net, reversed(numbers), old=True)
    found = [list(number) for number in numbers]
    return record._replace(numbers=found, shapes=shapes, change=last.change), last.error


def _run(net: nn.Module, check: Check, forbidden: dict[int, str]) -> _Trial:
    """Run a network in evaluation, and if its outputs are the same, in training; there it may have other sizes."""
    n_operations, outputs = 0, []
    for call in check.calls:
        net.train()  # some networks keep what follows from their parameters in evaluation
        net.eval()
        done = run(net, call, None, forbidden)
        n_operations += len(done.operations)
        if done.error is not None:
            return _Trial(n_operations, done.error, float("inf"), done.modules, False)
        outputs += exactness.outputs_of(done.out)
    change = exactness.max_relative_change(check.before, outputs)
    if change > check.tolerance or check.in_training is None:
        return _Trial(n_operations, None, change, [], change <= check.tolerance)
    net.train()
    done = run(net, check.in_training, None, forbidden)
    net.eval()
    error = done.error and f"in training, {done.error}"
    return _Trial(n_operations + len(done.operations), error, change, done.modules, error is None)


def _find_numbers(
    net: nn.Module, trial: Callable[[], _Trial], candidates: Callable[[_Trial], list], changed: list[Number]
) -> _Trial:
    """Run a network, and change numbers that its modules note as long as the run gets further with them.

    candidates: lists of numbers that may be changed at once after a run, the likely ones first.
    changed: gets what was changed, in order.
    Returns the last run.
    """
    last, untried, n_noted, n_vain = trial(), None, len(changed), 0
    while not last.passes and n_vain < MAX_VAIN:
        if untried is None:  # what other blocks of the network needed is likely
            found = set(map(_in_any_block, changed[n_noted:]))
            untried = iter(sorted(candidates(last), key=lambda numbers: _in_any_block(numbers[0]) not in found))
        if (numbers := next(untried, None)) is None:
            break
        tried = _try_numbers(net, trial, numbers)
        if not tried.is_further(last):
            n_vain += 1
            continue
        for other in [one for one in untried if _are_alternatives(one, numbers)]:
            if (further := _try_numbers(net, trial, other)).is_further(tried):
                numbers, tried = other, further
        last, untried = tried, None
        changed += numbers
        set_numbers(net, numbers)
    for number in changed[n_noted:] if last.passes and len(changed) > n_noted + 1 else []:
        set_numbers(net, [number], old=True)  # is it needed, or was it changed along with others?
        if trial().passes:
            changed.remove(number)
        else:
            set_numbers(net, [number])
    return last


def _try_numbers(net: nn.Module, trial: Callable[[], _Trial], numbers: list[Number]) -> _Trial:
    try:
        set_numbers(net, numbers)
        return trial()
    finally:
        set_numbers(net, numbers, old=True)


def _in_any_block(number: Number) -> tuple:
    """A number without the number of its block: modules that repeat have the same names but for these."""
    return re.sub(r"\d+", "#", number.module), number.attribute, str(number.old), str(number.new)


def _are_alternatives(a: list[Number], b: list[Number]) -> bool:
    return [(one.module, one.attribute) for one in a] == [(one.module, one.attribute) for one in b]


def _candidates(net: nn.Module, names: list[str], sizes: list[Sizes], last: _Trial) -> list[list[Number]]:
    """Numbers that may stand for a size that grows: those of the modules that failed first, then of parameters' owners.

    They come one by one where a run failed, and then all of a module at once. Where it did not, those of one name that
    grow alike come at once, for each may have an effect only with the others.
    """
    owners = dict.fromkeys(reversed(last.modules))
    for name in names:
        while name := name.rpartition(".")[0]:
            owners.setdefault(name)
    groups: dict[tuple, list[Number]] = {}
    of_modules: dict[str, dict[str, Number]] = {}
    for number in _numbers(net, [*owners, ""], sizes):
        alike = type(number.old) is int and last.error is None
        growth = number.new / number.old if alike else (str(number.old), str(number.new))
        group = groups.setdefault((number.attribute, growth, number.module if last.error else ""), [])
        group += [number] if number not in group else []
        of_modules.setdefault(number.module, {}).setdefault(number.attribute, number)
    return [*groups.values(), *(list(of.values()) for of in of_modules.values() if len(of) > 1)]


def _numbers(net: nn.Module, owners: list[str], sizes: list[Sizes]) -> Iterator[Number]:
    """The numbers of modules and of their configurations that may stand for a size that grows."""
    holders: dict[int, tuple[str, str, dict]] = {}  # modules may share a configuration
    for owner in owners:
        module = net.get_submodule(owner)
        for prefix, holder in (("", module), ("config.", getattr(module, "config", None))):
            holders.setdefault(id(holder), (owner, prefix, getattr(holder, "__dict__", {})))
    for grown in sizes:
        for owner, prefix, attributes in holders.values():
            for attribute, value in attributes.items():
                yield from (Number(owner, prefix + attribute, value, new) for new in _changed(value, grown))


def _changed(value: object, grown: Sizes) -> list:
    """What a number may become, or a list of numbers: one of them changes, or all that can, or some."""
    if type(value) is int:
        return sorted({after for before, after in grown if before == value != after})
    if type(value) not in (tuple, list) or not all(type(one) is int for one in value):
        return []
    choices = islice(product(*([one, *_changed(one, grown)] for one in value)), MAX_LISTS)
    n_changes = {new: sum(a != b for a, b in zip(new, value)) for new in choices}
    most = max(n_changes.values())
    likely_first = sorted(n_changes, key=lambda new: (n_changes[new] not in (1, most), n_changes[new]))
    return [type(value)(new) for new in likely_first if n_changes[new]]
