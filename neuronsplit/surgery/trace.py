"""Run a network on its example inputs, and follow the labels of its channels."""

import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from neuronsplit.surgery import rules
from neuronsplit.surgery.facts import MAKES, READS
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.pointwise import tensors_in


class _Follow(TorchDispatchMode):
    """Every operation runs as it does otherwise; then its rule labels what it has computed."""

    def __init__(self, labels: Labels, modules: list[str]):
        super().__init__()
        self.labels, self.modules = labels, modules

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        out = op(*args, **(kwargs or {}))
        names = [argument.name for argument in op._schema.arguments]
        given = dict(zip(names, args)) | (kwargs or {})
        where = self.modules[-1] if self.modules else ""
        self.labels.dtypes |= {tensor.dtype for tensor in tensors_in([out]) if tensor.is_floating_point()}
        with torch.device("cpu"):  # whatever device the user's tensors are created on
            rules.follow(self.labels, op, given, out, where)
        return out


class _Running(list):
    """Names of modules."""

    stopped: list[str] | None = None  # those that ran when an exception was raised


@contextmanager
def running_modules(net: nn.Module):
    """A list of the names of the modules that run at the moment, the innermost last."""
    running, hooks = _Running(), []

    def leave(*_: object) -> None:  # what a hook returns would take the place of the output
        if sys.exc_info()[0] is not None and running.stopped is None:
            running.stopped = list(running)
        running.pop()

    for name, module in net.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
        hooks.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield running
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def opened_kernels():
    """Kernels that do several operations at once are off, so that each operation is seen."""
    fast, mkldnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)  # of encoder layers
    torch.backends.mkldnn.enabled = False  # its LSTM
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.backends.mkldnn.enabled = mkldnn


def trace(net: nn.Module, call: Callable[[], object], labels: Labels) -> None:
    """Run a network by a call of it, and follow the labels of its channels.

    Raises ValueError where it does not run.
    """
    try:
        _follow_run(net, call, labels)
    except Exception as error:  # of the user's network, so of any kind
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"the network does not run on the example inputs ({text}): allowed are inputs that it takes"
        ) from error
    return labels


def trace_in_training(net: nn.Module, call: Callable[[], object], labels: Labels) -> bool:
    """Run a network in training mode too, and add to its labels what it does only then, such as an auxiliary head.

    Returns whether it runs.
    """
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    net.train()
    try:
        with suppress(Exception):  # it may need labels, or more than one image
            _follow_run(net, call, labels)
            return True
        return False
    finally:
        net.eval()
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _follow_run(net: nn.Module, call: Callable[[], object], labels: Labels) -> None:
    with opened_kernels(), running_modules(net) as modules, _Follow(labels, modules):
        out = call()
    for tensor in tensors_of(out):
        labels.bar(labels.of(tensor), "it is in the network's output")
        labels.bar_used_places(labels.of(tensor))
    for name, module in net.named_modules():
        _one_size_for_several(labels, name, module)


def _one_size_for_several(labels: Labels, name: str, module: nn.Module) -> None:
    """Note which channels a module of torch.nn cannot but copy together, because it has one size for them."""
    found = {n[len(name) + 1 :]: owner for (n, axes, role), owner in labels.owners.items()
             if role == READS and n.rpartition(".")[0] == name}  # fmt: skip
    if isinstance(module, nn.RNNBase):  # hidden_size: of all layers and directions
        units = [owner for entry, owner in found.items() if entry.startswith("weight_hh")]
        for other in units[1:]:
            labels.channels.merge(units[0], other)
    elif isinstance(module, nn.MultiheadAttention):  # embed_dim: of what comes in, and of all heads together
        inner = [o for (n, _, role), o in labels.owners.items() if role == MAKES and n.rpartition(".")[0] == name]
        labels.all_or_none(torch.cat([*found.values(), *inner])[None], f"embed_dim of {name}")


def tensors_of(value: object, depth: int = 4) -> list[Tensor]:
    """The tensors in an output: in lists, tuples, sets, mappings, and attributes of objects; caches aside."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    elif hasattr(value, "__dict__") and not isinstance(value, type | nn.Module | Callable):
        value = [] if "Cache" in type(value).__name__ else list(vars(value).values())  # keys and values grow with heads
    if not isinstance(value, list | tuple | set) or not depth:
        return []
    return [tensor for one in value for tensor in tensors_of(one, depth - 1)]
