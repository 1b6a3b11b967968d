"""Runs of a network: what it computes, by which operations in which modules, and where it fails."""

import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuronsplit.surgery.shadow import has_memory, storage_of

Call = Callable[[], object]  # runs a network on its example inputs
DROPOUTS = nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d  # what they compute stands for what comes in


class Run(NamedTuple):
    """What a run has computed, or where it failed."""

    out: object
    exception: Exception | None
    failed: str  # the operation that failed, and its module
    modules: list[str]  # those that ran when it failed, the innermost last
    operations: list[tuple]  # each with its module and arguments; the last one is what is given back
    is_random: bool  # whether one of them drew random numbers

    @property
    def error(self) -> str | None:
        """Where and why it failed, in one line; None if it did not."""
        said = str(self.exception)
        if "Traceback of TorchScript" in said:  # its last line has the error
            said = said.strip().splitlines()[-1].rstrip(": ")
        why = " ".join(said.split()) or type(self.exception).__name__
        return self.exception and ": ".join(text for text in (self.failed, why) if text)


def require_module(net: object) -> None:
    """Raise ValueError for what is no network, or has no parameters yet."""
    if not isinstance(net, nn.Module):
        such = f", such as {net.__name__}()" if isinstance(net, type) else ""
        raise ValueError(f"net of type {type(net).__name__}: allowed are torch.nn.Module{such}")
    if isinstance(net, torch.jit.ScriptModule):
        raise ValueError(f"net of type {type(net).__name__}: allowed are torch.nn.Module, before torch.jit compiles it")
    for name, module in net.named_modules():
        if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():
            raise ValueError(f"{name!r} is a {type(module).__name__} that has not run: run the network once first")


def require_numbers(net: nn.Module) -> None:
    """Raise ValueError where parameters have a shape only."""
    for name, tensor in net.named_parameters():
        if tensor.is_meta:
            raise ValueError(f"{name!r} is on the device meta, without numbers: allowed is a network that has them")


def run(net: nn.Module, call: Call, follow: Callable[..., None] | None, forbidden: Mapping[int, str]) -> Run:
    """Run a network by a call of it. Its parameters are as before at the end, whatever it does to them.

    follow: gets each operation, its arguments by name, what it has computed, and the module in which it ran.
    forbidden: names of tensors that must not be used any more, by their storage; a list of the user's may hold them.
    """
    observer, held = _Observer(net, follow, forbidden), [(tensor, tensor.data) for tensor in net.parameters()]
    hooks = observer.hooks(net)
    try:
        with observer:
            out, exception = call(), None
    except Exception as error:  # of the user's network, so of any kind
        out, exception = None, error
    finally:
        for hook in hooks:
            hook.remove()
        for storage, before in observer.written:
            storage.copy_(before)
        for tensor, data in held:
            if tensor.data_ptr() != data.data_ptr():
                tensor.data = data
    observer.operations.append(("output", *map(observer.described, tensors_of(out))))
    failed = " in ".join(text for text in (observer.operation, (observer.stopped or [""])[-1]) if text)
    return Run(out, exception, failed, observer.stopped, observer.operations, observer.is_random)


def tensors_in(values: Iterable) -> list[Tensor]:
    """The tensors in some values, such as the arguments of an operation, and in lists of them: no further."""
    values = [one for value in values for one in (value if isinstance(value, list | tuple) else [value])]
    return [value for value in values if isinstance(value, Tensor)]


def tensors_of(value: object, depth: int = 4) -> list[Tensor]:
    """The tensors in an output: in lists, tuples, sets, mappings, and attributes of objects; caches aside."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    elif "Cache" in type(value).__name__:  # its keys and values grow with heads
        return []
    elif not isinstance(value, list | tuple | set | type | nn.Module | Callable):
        slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
        value = [getattr(value, name) for name in [*getattr(value, "__dict__", ()), *slots] if hasattr(value, name)]
    if not isinstance(value, list | tuple | set) or not depth:
        return []
    return [tensor for one in value for tensor in tensors_of(one, depth - 1)]


class _Observer(TorchDispatchMode):
    """Notes every operation, which runs as it does otherwise."""

    def __init__(self, net: nn.Module, follow: Callable[..., None] | None, forbidden: Mapping[int, str]):
        super().__init__()
        self.follow, self.forbidden = follow, forbidden
        self.operation, self.operations, self.running, self.stopped, self.is_random = "", [], [], [], False
        self.parameters = {storage_of(tensor) for tensor in net.parameters() if has_memory(tensor)}
        self.written: list[tuple] = []  # the memory of parameters that the network writes to, and what was in it
        named = chain(net.named_parameters(), net.named_buffers())
        self.sources: dict[int, object] = {storage_of(tensor): name for name, tensor in named if has_memory(tensor)}
        self.dropouts = {name for name, module in net.named_modules() if type(module) in DROPOUTS}

    def hooks(self, net: nn.Module) -> list:
        """Note the modules that run."""

        def leave(*_: object) -> None:  # what a hook returns would take the place of the output
            if sys.exc_info()[0] is not None and not self.stopped:
                self.stopped = list(self.running)
            self.running.pop()

        hooks = []
        for name, module in net.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # it takes no hooks
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self.running.append(name)))
            hooks.append(module.register_forward_hook(leave, always_call=True))
        return hooks

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        name, short, keys, writes = _described(op)
        given = dict(zip(keys, args)) | (kwargs or {})
        where, tensors = (self.running or [""])[-1], [t for t in tensors_in(given.values()) if has_memory(t)]
        if used := [self.forbidden[at] for at in map(storage_of, tensors) if at in self.forbidden]:
            raise ValueError(f"it still uses the old {used[0]!r}, which something outside its module holds")
        self.operation, self.is_random = short, self.is_random or torch.Tag.nondeterministic_seeded in op.tags
        for tensor in tensors_in([given[key] for key in writes if key in given]):
            if has_memory(tensor) and (at := storage_of(tensor)) in self.parameters:
                self.parameters.remove(at)
                self.written.append((tensor.untyped_storage(), tensor.untyped_storage().clone()))
        arguments = {key: self.described(value) for key, value in given.items() if "train" not in key}
        out = op(*args, **(kwargs or {}))
        self.operation = ""
        is_dropout = where in self.dropouts and bool(tensors)
        source = self.sources.get(storage_of(tensors[0])) if is_dropout else len(self.operations)
        self.sources |= {storage_of(tensor): source for tensor in tensors_in([out]) if has_memory(tensor)}
        if not is_dropout and any(tensor.is_floating_point() for tensor in tensors):  # not counts of steps and the like
            self.operations.append((name, where, arguments))
        if self.follow:
            self.follow(op, given, out, where)
        return out

    def described(self, value: object) -> object:
        if isinstance(value, list | tuple):
            return [self.described(one) for one in value]
        if isinstance(value, Tensor):
            return "tensor", self.sources.get(storage_of(value)) if has_memory(value) else None
        return value if isinstance(value, int | float | str) else type(value)


@cache
def _described(op) -> tuple[str, str, list[str], list[str]]:
    """The full name of an operation, a short one, and the names of its arguments and of those that it writes to."""
    short, arguments = op._schema.name.split("::")[1].strip("_"), op._schema.arguments
    writes = [one.name for one in arguments if one.alias_info is not None and one.alias_info.is_write]
    return str(op), short, [argument.name for argument in arguments], writes
