"""A network in evaluation or in training, with random numbers that are the same each time, and as it was at the end."""

import copy
import random
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn


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
    attributes = {module: dict(vars(module)) for module in net.modules()}
    kinds = list, deque, dict, set
    held = [(one, copy.copy(one)) for of in attributes.values() for one in of.values() if isinstance(one, kinds)]
    buffers = [(buffer, buffer.detach().clone()) for buffer in net.buffers()]
    try:
        yield
    finally:
        for module, before in attributes.items():
            vars(module).clear()
            vars(module).update(before)
        for one, before in held:
            one.clear()
            (one.update if isinstance(one, dict | set) else one.extend)(before)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.resize_(before.shape).copy_(before)


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
