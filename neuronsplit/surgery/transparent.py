"""Runs in which nothing hides what comes before it, so that a check of the outputs sees all that a split does.

In a usual run, a norm of few channels passes on little more than signs. Softmax passes on little where it saturates, or
where it has a single place. Attention to tokens that are all the same is the same for all weights. So norms have a
larger eps here, and softmax adds a function of each of its inputs alone. An exact split stays exact.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuronsplit.surgery.noted_sizes import changed_numbers, scaled_eps
from neuronsplit.surgery.trace import opened_kernels

LEAST_EPS = 0.1  # of norms


def transparent(net: nn.Module) -> Callable[[], AbstractContextManager]:
    """A context in which runs of a network are transparent, by the eps that its norms have now.

    A split may scale their eps, which then counts in the context too.
    """
    factors: dict[str, float] = {}
    for number in scaled_eps(net, dict.fromkeys(dict(net.named_modules()), 1.0)):
        if 0 < number.old < LEAST_EPS:
            factors[number.module] = min(LEAST_EPS / number.old, factors.get(number.module, float("inf")))

    @contextmanager
    def context() -> Iterator[None]:
        with changed_numbers(net, scaled_eps(net, factors)), opened_kernels(), _OpenSoftmax():
            yield

    return context


class _OpenSoftmax(TorchDispatchMode):
    """Softmax adds to its result (1 + x / (1 + |x|)) / 2 of each input x, which is positive, and 0 where x is −∞."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        if op._schema.name not in ("aten::_softmax", "aten::_safe_softmax"):
            return out
        x: Tensor = args[0].to(out)
        return out + (1 + torch.sign(x) * (1 - 1 / (1 + x.abs()))) / 2
