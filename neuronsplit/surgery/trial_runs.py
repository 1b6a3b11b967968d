"""Run a network with a split on trial: are its outputs the same, and which numbers of its modules must be others?

A number is changed on evidence: the run fails without it, and gets further with it.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from neuronsplit.surgery import exactness
from neuronsplit.surgery.apply import SplitRecord, edited, recorded_edits
from neuronsplit.surgery.candidate_numbers import Sizes, are_alternatives, candidate_lists, in_any_block
from neuronsplit.surgery.modes import in_training
from neuronsplit.surgery.noted_sizes import Number, changed_numbers, changed_sizes, scaled_eps, set_numbers
from neuronsplit.surgery.runs import Call, run
from neuronsplit.surgery.shadow import storage_of

IN_TRAINING = 1e-5  # tolerance, relative: norms of a batch make rounding larger
MAX_VAIN = 40  # runs with other numbers that got no further than without them
MAX_WRONG = 1  # numbers with which a run got further, and which are left as they were in another search


class Check(NamedTuple):
    """How a network is run to see whether a split leaves its outputs as they are."""

    calls: list[Call]  # in evaluation
    before: list[Tensor]  # their outputs without the split
    tolerance: float  # the relative change of an output that is allowed
    in_training: Call | None  # must run in training mode too, where it is another computation
    before_in_training: list[Tensor]  # its outputs without the split; none where they are random


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
    tensors = exactness.named_tensors(net)
    new = {name: edited(name, tensors[name], edits) for name, edits in recorded_edits(record, net, tensors).items()}
    shapes = {name: (list(tensors[name].shape), list(new[name].shape)) for name in new}
    of_tensors = [pair for before, after in shapes.values() for pair in zip(before, after)]
    trial = partial(_run, net, check, {storage_of(tensors[name]): name for name in new})
    candidates = partial(candidate_lists, net, list(new), [of_heads, [*others, *of_tensors]])
    with exactness.replaced_tensors(net, new):
        numbers = changed_sizes(net, new) + scaled_eps(net, eps)
        with changed_numbers(net, numbers):
            last = _find_numbers(net, trial, candidates, numbers)
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
    change = exactness.max_change_of_changed(check.before, outputs)
    if change > check.tolerance or check.in_training is None:
        return _Trial(n_operations, None, change, [], change <= check.tolerance)
    with in_training(net):
        done = run(net, check.in_training, None, forbidden)
    error = done.error and f"in training, {done.error}"
    if error is None and check.before_in_training:
        there = exactness.max_change_of_changed(check.before_in_training, exactness.outputs_of(done.out))
        change = max(change, there) if there > max(check.tolerance, IN_TRAINING) else change
    passes = error is None and change <= check.tolerance
    return _Trial(n_operations + len(done.operations), error, change, done.modules, passes)


def _find_numbers(
    net: nn.Module, trial: Callable[[], _Trial], candidates: Callable[[list[str]], list], changed: list[Number]
) -> _Trial:
    """Find the numbers of modules with which a network runs as before, and change them.

    candidates: from the modules that failed in a run to lists of numbers that may be changed at once, the likely first.
    changed: gets what was changed, in order.
    Returns the last run.
    """
    n_noted, wrong = len(changed), []
    while not (last := _change_numbers(net, trial, candidates, changed, wrong)).passes:
        if len(changed) == n_noted or len(wrong) == MAX_WRONG:
            return last
        wrong.append(changed[n_noted])  # the run got further with it, but not to the end
        set_numbers(net, reversed(changed[n_noted:]), old=True)
        del changed[n_noted:]
    for number in changed[n_noted:] if len(changed) > n_noted + 1 else []:
        set_numbers(net, [number], old=True)  # is it needed, or was it changed along with others?
        if trial().passes:
            changed.remove(number)
        else:
            set_numbers(net, [number])
    return last


def _change_numbers(
    net: nn.Module,
    trial: Callable[[], _Trial],
    candidates: Callable[[list[str]], list],
    changed: list[Number],
    wrong: list[Number],
) -> _Trial:
    """Change numbers, but for those that are known to be wrong, as long as a run gets further. Returns the last run."""
    last, untried, n_noted, n_vain = trial(), None, len(changed), 0
    while not last.passes and n_vain < MAX_VAIN:
        if untried is None:  # what other blocks of the network needed is likely
            found = set(map(in_any_block, changed[n_noted:]))
            allowed = [numbers for numbers in candidates(last.modules) if not any(map(wrong.count, numbers))]
            untried = iter(sorted(allowed, key=lambda numbers: in_any_block(numbers[0]) not in found))
        if (numbers := next(untried, None)) is None:
            break
        tried = _try_numbers(net, trial, numbers)
        if not tried.is_further(last):
            n_vain += 1
            continue
        for other in [one for one in untried if are_alternatives(one, numbers)]:
            if (further := _try_numbers(net, trial, other)).is_further(tried):
                numbers, tried = other, further
        last, untried = tried, None
        changed += numbers
        set_numbers(net, numbers)
    return last


def _try_numbers(net: nn.Module, trial: Callable[[], _Trial], numbers: list[Number]) -> _Trial:
    with changed_numbers(net, numbers):
        return trial()
