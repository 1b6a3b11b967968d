"""What decides whether a split is exact: the outputs of a network are compared, in double precision where it can."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from neuronsplit.surgery.modes import kept_generators, seeded
from neuronsplit.surgery.runs import Call, tensors_of
from neuronsplit.surgery.trace import DoesNotRun, created_on
from neuronsplit.surgery.transparent import transparent

DOUBLE, MIXED = 1e-9, 1e-6  # tolerances, relative: of runs in float64, and of those that use float32 for a while
MAX_DRAWN = 16381  # numbers that change a parameter, again and again; a prime, so that its rows get different ones
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of networks that fix their precision


def tolerance(dtypes: set[torch.dtype], dtype: torch.dtype | None) -> float:
    """The relative change of an output that is rounding, by what a run computes in.

    dtype: that of the network's parameters if they were copied to it, else None.
    """
    if dtype == torch.float64:
        return DOUBLE if dtypes == {torch.float64} else MIXED
    return max(TOLERANCES.get(one, DOUBLE) for one in dtypes)


def call_with(
    net: nn.Module, example_inputs: object, device: torch.device, dtype: torch.dtype | None, noise: float
) -> Call:
    """A call of a network on copies of its example inputs; a mapping has keyword arguments.

    device: the default one of the tensors that the network creates.
    dtype: that of the copies of floating-point inputs. None keeps theirs.
    noise: if it is not 0, inputs get noise of their own standard deviation, at least 1, and the run is transparent.
    What the network draws is the same in every call.
    """
    rng = torch.Generator("cpu").manual_seed(0)
    opened = transparent(net) if noise else nullcontext

    def copied(value: Tensor) -> Tensor:
        value = value.detach().clone()
        if value.is_floating_point() or value.is_complex():
            value = value.to(_precise(value, dtype))
            if noise and value.numel() > 1 and value.layout == torch.strided:
                value += torch.randn(value.shape, generator=rng).to(value) * value.std().clamp(min=1)
        return value

    positional = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    named = isinstance(example_inputs, Mapping)
    inputs = tree_map_only(Tensor, copied, dict(example_inputs) if named else tuple(positional))

    def call() -> object:
        given = tree_map_only(Tensor, Tensor.clone, inputs)
        with seeded(), kept_generators(net), created_on(device), opened():
            return net(**given) if named else net(*given)

    return call


def outputs_of(out: object) -> list[Tensor]:
    """The numbers in an output, those that are not whole; complex ones as pairs."""
    tensors = [tensor.detach() for tensor in tensors_of(out) if tensor.numel()]
    tensors = [torch.view_as_real(one.resolve_conj()) if one.is_complex() else one for one in tensors]
    return [tensor.clone() for tensor in tensors if tensor.is_floating_point()]


def max_relative_change(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest change of an output, relative to the largest output; infinite where they do not match."""
    return _max_relative_change(before, after, torch.ones_like)


def max_change_of_changed(before: list[Tensor], after: list[Tensor]) -> float:
    """The same, relative to the largest of those that change: -1e9, which masks others, makes no change small."""
    return _max_relative_change(before, after, torch.logical_not)


def _max_relative_change(before: list[Tensor], after: list[Tensor], count: Callable[[Tensor], Tensor]) -> float:
    """count: from where an output is the same to where it counts as the largest one."""
    if [tensor.shape for tensor in before] != [tensor.shape for tensor in after]:
        return float("inf")
    changes = []
    for old, new in zip(before, after):
        same = (old == new) | (old.isnan() & new.isnan())
        change = torch.where(same, 0, (new - old).abs()).max()
        largest = torch.where(old.isfinite() & count(same), old, 0).abs().max().clamp(min=torch.finfo(old.dtype).tiny)
        changes.append(float("inf") if change.isnan() else (change / largest).item())
    return max(changes)


def named_tensors(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those with several names under each."""
    return dict(net.named_parameters(remove_duplicate=False)) | dict(net.named_buffers(remove_duplicate=False))


def set_tensors(net: nn.Module, tensors: Mapping[str, Tensor], new: Mapping[str, Tensor]) -> None:
    """Put tensors into their modules; new ones come under all names of those whose place they take."""
    instead = {id(tensors[name]): tensor for name, tensor in new.items()}
    for name, tensor in tensors.items():
        owner, _, entry = name.rpartition(".")
        setattr(net.get_submodule(owner), entry, instead.get(id(tensor), tensor))


@contextmanager
def replaced_tensors(net: nn.Module, new: Mapping[str, Tensor]) -> Iterator[None]:
    """A network with new tensors in the place of some; its own are back at the end."""
    tensors = named_tensors(net)
    try:
        set_tensors(net, tensors, new)
        yield
    finally:
        set_tensors(net, tensors, {})


def in_double(net: nn.Module, noise: float) -> AbstractContextManager:
    """A network whose floating-point tensors are copied to float64; the original ones are back at the end.

    noise: parameters are changed by it, relative to their size: it shows what a layer that begins at 0 would hide.
    Raises DoesNotRun where a device has no float64.
    """
    rng, named = torch.Generator("cpu").manual_seed(0), [*net.named_parameters(), *net.named_buffers()]
    try:
        numbers = [(name, one) for name, one in named if one.is_floating_point() or one.is_complex()]
        new = {name: _doubled(tensor, noise, rng) for name, tensor in numbers}
    except (RuntimeError, TypeError) as error:
        raise DoesNotRun(str(error)) from error
    return replaced_tensors(net, new)


def _precise(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """The type with the precision of a real one for what a tensor holds; its own if there is none."""
    return tensor.dtype if dtype is None else dtype.to_complex() if tensor.is_complex() else dtype


def _doubled(tensor: Tensor, noise: float, rng: torch.Generator) -> Tensor:
    double = tensor.detach().to(_precise(tensor, torch.float64), copy=True)
    if not isinstance(tensor, nn.Parameter):  # a buffer may be a mask
        return double
    if noise and double.numel():
        flat = double.as_strided((double.numel(),), (1,))  # in the order of its memory
        change = noise * torch.randn(min(len(flat), MAX_DRAWN), generator=rng, dtype=torch.float64).to(double.device)
        constant = bool(flat[0] == flat[-1]) and bool((flat == flat[0]).all())
        factor = 1 + change
        for part in flat.split(MAX_DRAWN):
            part *= factor[: len(part)]
            if constant:
                part += change[: len(part)]
    return nn.Parameter(double, requires_grad=False)
