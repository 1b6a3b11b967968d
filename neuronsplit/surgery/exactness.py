"""What decides whether a split is exact: which rules scale, and the check of the outputs in double precision."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from neuronsplit.core.split import SPLIT_RULES, Coefficients
from neuronsplit.surgery.trace import tensors_of

TOLERANCES = {  # relative; networks that run in float64 may still compute in float32 for a while, and reach 1e-7
    torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1,
}  # fmt: skip


def scales(coefficients: Coefficients) -> bool:
    """Whether a split scales what comes into the neuron, which not every activation lets through."""
    return bool(coefficients.alpha != 1 or coefficients.beta != 1)


def rules_without_scale() -> list[str]:
    """Return the rules that are exact for any function after the neuron."""
    rng = np.random.default_rng(0)  # any draw shows whether a rule scales
    return [name for name, rule in SPLIT_RULES.items() if rule.exact and not scales(rule.draw(rng, 1))]


def call_with(net: nn.Module, example_inputs: object, dtype: torch.dtype | None) -> Callable[[], object]:
    """A call of a network on copies of its example inputs; a mapping has keyword arguments.

    dtype: that of the copies of floating-point inputs; None keeps theirs.
    """

    def copied(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        return value.detach().clone().to(dtype if dtype and value.is_floating_point() else value.dtype)

    if isinstance(example_inputs, Mapping):
        return lambda: net(**tree_map(copied, dict(example_inputs)))
    inputs = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    return lambda: net(*tree_map(copied, tuple(inputs)))


class Outputs(NamedTuple):
    """The floating-point outputs of a network, and those of some of its modules."""

    final: list[Tensor]
    watched: list[Tensor]


def outputs_of(net: nn.Module, call: Callable[[], object], watched: Iterable[str]) -> Outputs:
    """The outputs of a call of a network, and those of watched modules: a small head hides nothing."""
    inner: list[Tensor] = []
    hooks = [
        net.get_submodule(name).register_forward_hook(lambda *given: inner.extend(tensors_of(given[2])))
        for name in sorted(watched)
    ]
    try:
        final = tensors_of(call())
    finally:
        for hook in hooks:
            hook.remove()
    return Outputs(*([t.detach().clone() for t in of if t.is_floating_point() and t.numel()] for of in (final, inner)))


def max_relative_change(before: Outputs, after: Outputs) -> float:
    """The largest change of an output, relative to the largest output; infinite where numbers or shapes do not match.

    Raises ValueError where there are no outputs.
    """
    if not before.final:
        raise ValueError("the network gives no numbers for the example inputs: allowed are inputs that it answers")
    if [t.shape for t in before.final] != [t.shape for t in after.final]:
        return float("inf")
    inner = [(old, new) for old, new in zip(before.watched, after.watched) if old.shape == new.shape]
    return max(_change(old, new) for old, new in [*zip(before.final, after.final), *inner])


def _change(old: Tensor, new: Tensor) -> float:
    same = (old == new) | (old.isnan() & new.isnan())
    change = torch.where(same, 0, (new - old).abs()).max()
    largest = torch.where(old.isfinite(), old, 0).abs().max().clamp(min=torch.finfo(old.dtype).tiny)
    return float("inf") if change.isnan() else (change / largest).item()


@contextmanager
def in_evaluation(net: nn.Module) -> Iterator[None]:
    """A network in evaluation mode, without autocast; modes and random states are as before at the end."""
    modes = {module: module.training for module in net.modules()}
    devices = {t.device.type for t in [*net.parameters(), *net.buffers()]} - {"meta"} | {"cpu"}
    net.eval()
    try:
        with torch.random.fork_rng(), torch.inference_mode(False), torch.no_grad():
            stack = [torch.autocast(device, enabled=False) for device in devices]
            for autocast in stack:
                autocast.__enter__()
            try:
                yield
            finally:
                for autocast in reversed(stack):
                    autocast.__exit__(None, None, None)
    finally:
        for module, mode in modes.items():
            module.training = mode


def named_tensors(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those with several names under each."""
    named = [*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)]
    return dict(named)


def set_tensors(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put parameters and buffers into their modules."""
    for name, tensor in tensors.items():
        owner, _, entry = name.rpartition(".")
        setattr(net.get_submodule(owner), entry, tensor)


@contextmanager
def in_double(net: nn.Module) -> Iterator[torch.dtype | None]:
    """A network whose floating-point tensors are copied to float64; the original ones are back at the end."""
    old = named_tensors(net)
    made: dict[int, Tensor] = {}
    for tensor in old.values():
        if tensor.is_floating_point() and id(tensor) not in made:
            double = tensor.detach().double().clone()
            made[id(tensor)] = nn.Parameter(double, False) if isinstance(tensor, nn.Parameter) else double
    try:
        set_tensors(net, {name: made[id(tensor)] for name, tensor in old.items() if id(tensor) in made})
        yield torch.float64
    finally:
        set_tensors(net, old)


def runs_in_double(net: nn.Module, example_inputs: object) -> bool:
    """Whether a network runs in float64, which one that fixes a precision does not."""
    with suppress(RuntimeError, TypeError, ValueError, NotImplementedError):
        with in_double(net) as dtype:
            call_with(net, example_inputs, dtype)()
        return True
    return False
