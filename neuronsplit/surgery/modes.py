"""A network in evaluation or in training, with random numbers that are the same each time, and as it was at the end."""

import copy
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

DEPTH = 4  # of lists and dicts in each other, in which a run may note something


@contextmanager
def in_evaluation(net: nn.Module) -> Iterator[None]:
    """A network in evaluation mode, without autocast; it and random states are as before at the end.

    What it keeps in evaluation of what follows from its parameters is dropped, as in training.
    """
    modes = {module: module.training for module in net.modules()}
    net.train()
    for module, mode in modes.items():
        module.training = mode
    devices = {t.device.type for t in [*net.parameters(), *net.buffers()]} - {"meta"} | {"cpu"}
    with ExitStack() as stack:
        for context in (kept_state(net), kept_random_states(), torch.inference_mode(False), torch.no_grad()):
            stack.enter_context(context)
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        net.eval()
        yield


@contextmanager
def in_training(net: nn.Module) -> Iterator[None]:
    """A network in training mode; it is in evaluation and as before at the end."""
    with kept_state(net):
        net.train()
        try:
            yield
        finally:
            net.eval()


@contextmanager
def kept_state(net: nn.Module) -> Iterator[None]:
    """Attributes and buffers of a network's modules are as before at the end: a run may note something in them."""
    with _undone(one for module in net.modules() for one in _undo(vars(module), DEPTH)):
        yield


@contextmanager
def kept_generators(net: nn.Module) -> Iterator[None]:
    """Random generators that modules hold as attributes are as before at the end."""
    with _undone(one for module in net.modules() for held in vars(module).values() for one in _undo(held, 0)):
        yield


@contextmanager
def _undone(undo: Iterable[Callable[[], object]]) -> Iterator[None]:
    """What puts values back is called at the end."""
    undo = [*undo]
    try:
        yield
    finally:
        with torch.no_grad():
            for put_back in undo:
                put_back()


def _undo(value: object, depth: int) -> Iterator[Callable[[], object]]:
    """What puts a value back that may be changed in place, and what it holds; at a depth of 0, only a generator."""
    match value:
        case torch.Generator():
            yield partial(value.set_state, value.get_state())
        case random.Random():
            yield partial(value.setstate, value.getstate())
        case np.random.RandomState():
            yield partial(value.set_state, value.get_state())
        case np.random.Generator():
            yield partial(setattr, value.bit_generator, "state", value.bit_generator.state)
        case Tensor() if depth and not isinstance(value, nn.Parameter) and value.layout == torch.strided:
            yield partial(_put_numbers, value, value.detach().clone())
        case np.ndarray() if depth:
            yield partial(np.copyto, value, value.copy())
        case list() | deque() | dict() | set() if depth:
            yield partial(_put_items, value, copy.copy(value))
            for one in value.values() if isinstance(value, dict) else value:
                yield from _undo(one, depth - 1)


def _put_numbers(tensor: Tensor, before: Tensor) -> None:
    if tensor.shape != before.shape or not (tensor.is_meta or torch.equal(tensor, before)):
        tensor.resize_(before.shape).copy_(before)


def _put_items(items: list | deque | dict | set, before: list | deque | dict | set) -> None:
    items.clear()
    (items.update if isinstance(items, dict | set) else items.extend)(before)


@contextmanager
def seeded() -> Iterator[None]:
    """Random numbers are the same each time; random states are as before at the end."""
    with kept_random_states():
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(0)
        yield


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Random states are as before at the end."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
