"""Run a network on its example inputs, and follow the labels of its channels."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from neuronsplit.surgery import rules
from neuronsplit.surgery.facts import ALONG, READS
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.modes import in_training
from neuronsplit.surgery.runs import Call, Run, run, tensors_in, tensors_of
from neuronsplit.surgery.shadow import has_memory, storage_of

EXITS = Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.tolist


class DoesNotRun(ValueError):
    """A network does not run on its example inputs."""


class _Exits(TorchFunctionMode):
    """Bars channels whose numbers leave the network, for NumPy or Python, which no operation shows."""

    def __init__(self, labels: Labels):
        super().__init__()
        self.labels = labels

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in EXITS:
            name = function.__name__.strip("_")
            self.labels.bar(self.labels.of(args[0]), f"{name}() takes its numbers out of the network")
        return function(*args, **(kwargs or {}))


@contextmanager
def opened_kernels() -> Iterator[None]:
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


def created_on(device: torch.device) -> AbstractContextManager:
    """Tensors are created on a device; this costs time at every operation, so only where they are not anyway."""
    return nullcontext() if torch.get_default_device() == device else device


def trace(net: nn.Module, call: Call, labels: Labels) -> Run:
    """Run a network by a call of it, and follow the labels of its channels.

    Raises DoesNotRun where it does not run.
    """
    done = _followed(net, call, labels)
    if done.exception is not None:
        said = (str(done.exception).strip().splitlines() or [""])[0]  # torch lists all that it would take behind it
        why = " ".join(f"{type(done.exception).__name__}: {said}".split())
        what = "example_inputs as you call it: a tensor, a tuple of arguments, or a dict of keyword ones"
        why = f"the network does not run on the example inputs ({why}): allowed are {what}"
        raise DoesNotRun(why) from done.exception
    return done


def trace_in_training(net: nn.Module, call: Call, labels: Labels, in_evaluation: Run) -> Run:
    """Run a network in training mode too, and label what it does only then, such as an auxiliary head.

    in_evaluation: the run that the labels are from.
    Returns the run, which may fail: it may need labels of examples, or more than one image.
    """
    # Channels may have been tied after they met in a norm.
    late = bool(labels.rows or labels.means or labels.shared)
    with in_training(net):
        with opened_kernels():
            trained = in_evaluation if late else run(net, call, None, {})
        if late or trained.operations != in_evaluation.operations:
            n_means = len(labels.means)
            trained = _followed(net, call, labels)
            whys = {one.why for one in labels.means[:n_means]}  # others are not in the outputs that are compared
            labels.rows += [(one.why, one.channels) for one in labels.means if one.why not in whys]
            labels.means = [one for one in labels.means if one.why in whys]
        return trained


def _followed(net: nn.Module, call: Call, labels: Labels) -> Run:
    cpu = torch.device("cpu")

    def follow(op, given: dict, out: object, where: str) -> None:
        labels.dtypes |= {tensor.dtype for tensor in tensors_in([out]) if tensor.is_floating_point()}
        with created_on(cpu):  # whatever device the user's tensors are created on
            rules.follow(labels, op, given, out, where)

    def note_inputs(_: nn.Module, args: tuple, kwargs: dict) -> None:
        labels.inputs = {storage_of(one) for one in tensors_of([args, kwargs]) if has_memory(one)}

    with opened_kernels(), _Exits(labels), net.register_forward_pre_hook(note_inputs, with_kwargs=True):
        done = run(net, call, follow, {})
    others, labels.barred = labels.barred, []  # what is in the output is so for this reason first
    for tensor in tensors_of(done.out):
        labels.bar(labels.of(tensor), "it is in the network's output")
        labels.bar_used_places(labels.of(tensor))
    labels.barred += others
    for name, module in net.named_modules():
        _one_size_for_several(labels, name, module)
    return done


def _one_size_for_several(labels: Labels, name: str, module: nn.Module) -> None:
    """Note which channels a module of torch.nn cannot but copy together, because it has one size for them."""
    if not isinstance(module, nn.RNNBase | nn.MultiheadAttention):
        return
    own = {key: owner for key, owner in labels.owners.items() if key[0].rpartition(".")[0] == name and key[2] != ALONG}
    if isinstance(module, nn.RNNBase):  # hidden_size: of all layers and directions
        units = [owner for (entry, _, role), owner in own.items() if role == READS and "weight_hh" in entry]
        for other in units[1:]:
            labels.channels.merge(units[0], other)
    elif own:  # embed_dim: of what comes in, and of all heads together
        labels.all_or_none(torch.cat([*own.values()])[None], f"one embed_dim for all heads of {name!r}")
