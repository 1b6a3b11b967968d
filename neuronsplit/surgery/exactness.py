"""What decides whether a split is exact: which rules scale, and the check of the outputs in double precision."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from neuronsplit.core.split import SPLIT_RULES, Coefficients
from neuronsplit.surgery.trace import tensors_of

DOUBLE, MIXED = 1e-9, 1e-6  # tolerances, relative: of runs in float64, and of those that use float32 for a while
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of networks that fix their precision


def tolerance(dtypes: set[torch.dtype], double: bool) -> float:
    """The relative change of an output that is rounding, by what a run computes in.

    double: whether the network's parameters are in float64.
    """
    if double:
        return DOUBLE if dtypes == {torch.float64} else MIXED
    return max(TOLERANCES.get(dtype, DOUBLE) for dtype in dtypes)


def scales(coefficients: Coefficients) -> bool:
    """Whether a split scales what comes into the neuron, which not every activation lets through."""
    return bool(coefficients.alpha != 1 or coefficients.beta != 1)


def rules_without_scale() -> list[str]:
    """Return the rules that are exact for any function after the neuron."""
    rng = np.random.default_rng(0)  # any draw shows whether a rule scales
    return [name for name, rule in SPLIT_RULES.items() if rule.exact and not scales(rule.draw(rng, 1))]


def call_with(
    net: nn.Module, example_inputs: object, device: torch.device, dtype: torch.dtype | None, noise: float
) -> Callable[[], object]:
    """A call of a network on copies of its example inputs; a mapping has keyword arguments.

    device: the default one of the tensors that the network creates.
    dtype: that of the copies of floating-point inputs. None keeps theirs.
    noise: if it is not 0, inputs get noise of their own standard deviation, at least 1.
    """
    rng = torch.Generator("cpu").manual_seed(0)

    def copied(value: object) -> object:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value.detach().clone() if isinstance(value, Tensor) else value
        value = value.detach().clone().to(dtype or value.dtype)
        if noise and value.numel() > 1:
            value += torch.randn(value.shape, generator=rng).to(value) * value.std().clamp(min=1)
        return value

    positional = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    named = isinstance(example_inputs, Mapping)
    inputs = tree_map(copied, dict(example_inputs) if named else tuple(positional))

    def call() -> object:
        given = tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, inputs)
        with device:
            return net(**given) if named else net(*given)

    return call


def outputs_of(out: object) -> list[Tensor]:
    """The floating-point numbers in an output."""
    return [tensor.detach().clone() for tensor in tensors_of(out) if tensor.is_floating_point() and tensor.numel()]


def max_relative_change(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest change of an output, relative to the largest output; infinite where they do not match."""
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return float("inf")
    return max(_change(old, new) for old, new in zip(before, after))


def _change(old: Tensor, new: Tensor) -> float:
    same = (old == new) | (old.isnan() & new.isnan())
    change = torch.where(same, 0, (new - old).abs()).max()
    largest = torch.where(old.isfinite(), old, 0).abs().max().clamp(min=torch.finfo(old.dtype).tiny)
    return float("inf") if change.isnan() else (change / largest).item()


@contextmanager
def in_evaluation(net: nn.Module) -> Iterator[None]:
    """A network in evaluation mode, without autocast; it and random states are as before at the end."""
    attributes = {module: dict(vars(module)) for module in net.modules()}  # a run may note something, as its last state
    lists = [(one, one[:]) for of in attributes.values() for one in of.values() if isinstance(one, list)]
    buffers = [(buffer, buffer.detach().clone()) for buffer in net.buffers()]
    devices = {t.device.type for t in [*net.parameters(), *net.buffers()]} - {"meta"} | {"cpu"}
    net.eval()
    try:
        with ExitStack() as stack:
            for context in (torch.random.fork_rng(), torch.inference_mode(False), torch.no_grad()):
                stack.enter_context(context)
            for device in devices:
                stack.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        for module, before in attributes.items():
            vars(module).clear()
            vars(module).update(before)
        for one, before in lists:
            one[:] = before
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.resize_(before.shape).copy_(before)


def named_tensors(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those with several names under each."""
    named = [*net.named_parameters(remove_duplicate=False), *net.named_buffers(remove_duplicate=False)]
    return dict(named)


def set_tensors(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put parameters and buffers into their modules."""
    for name, tensor in tensors.items():
        owner, _, entry = name.rpartition(".")
        setattr(net.get_submodule(owner), entry, tensor)


def like(old: Tensor, new: Tensor) -> Tensor:
    """A tensor as a parameter, if it takes the place of one."""
    return nn.Parameter(new, False) if isinstance(old, nn.Parameter) else new


@contextmanager
def in_double(net: nn.Module, noise: float) -> Iterator[torch.dtype | None]:
    """A network whose floating-point tensors are copied to float64; the original ones are back at the end.

    noise: parameters are changed by it, relative to their size: it shows what a layer that begins at 0 would hide.
    """
    old, made = named_tensors(net), {}
    rng = torch.Generator("cpu").manual_seed(0)
    for tensor in old.values():
        if tensor.is_floating_point() and id(tensor) not in made:
            change = noise * torch.randn(tensor.shape, dtype=torch.float64, generator=rng).clamp(-3, 3)
            change = change.to(tensor.device)
            double = tensor.detach().double()
            constant = double.numel() > 0 and bool((double == double.flatten()[0]).all())
            if isinstance(tensor, nn.Parameter):  # a buffer may be a mask
                double = double * (1 + change) + (change if constant else 0)
            made[id(tensor)] = like(tensor, double.clone())
    try:
        set_tensors(net, {name: made[id(tensor)] for name, tensor in old.items() if id(tensor) in made})
        yield torch.float64
    finally:
        set_tensors(net, old)
