"""The configuration that a network is made of, such as `config` of Hugging Face, after a split.

A network that is saved with its configuration has to come back as it is. A value of it is changed on evidence: what is
made of it is then more like this network, in its shapes and sizes.
"""

import copy
from collections.abc import Iterator
from itertools import chain
from types import NoneType

import torch
from torch import nn

from neuronsplit.surgery.apply import SplitRecord
from neuronsplit.surgery.exactness import call_with, max_relative_change, outputs_of
from neuronsplit.surgery.noted_sizes import Number, set_numbers

SAME = 1e-5  # the relative change of outputs in float64, of networks that may use float32 for a while


def follow_config(net: nn.Module, record: SplitRecord, example_inputs: object) -> SplitRecord:
    """Change the configuration of a network that has been split; returns the record with what has changed in it.

    A network that has none, or that is not made of it alone, stays as it is.
    """
    numbers = [Number(*number) for number in record.numbers]
    try:
        vars(net.config)  # that of other kinds of configurations is not followed
        first = _differences(net, _made_of(net, copy.deepcopy(net.config)), numbers)
    except Exception:  # of the user's network, so of any kind
        return record
    changes, left = _fewest_differences(net, numbers, first, without="")
    others = (_fewest_differences(net, numbers, first, without=change.attribute)[0] for change in changes)
    more = ([*changes, change] for change in _candidates(net.config, first, numbers, changes))
    for tried in chain([changes], others, more):
        if _differences_with(net, tried, numbers) == [] and _same_outputs(net, example_inputs, tried):
            set_numbers(net, tried)
            return record._replace(numbers=[*record.numbers, *map(list, tried)])
    what, _, own = left[0] if left else ("these", None, "outputs")
    return record._replace(unsaved=f"no values of its config make {what} {own} together with the others")


def _fewest_differences(
    net: nn.Module, numbers: list[Number], first: list[tuple], without: str
) -> tuple[list[Number], list[tuple]]:
    """Changes of the configuration, one after the other, each of which leaves the fewest differences; and what is left.

    without: a value that stays.
    """
    changes: list[Number] = []
    left = first
    while left:
        tried = [[*changes, one] for one in _candidates(net.config, left, numbers, changes) if one.attribute != without]
        found = [(with_one, _differences_with(net, with_one, numbers)) for with_one in tried]
        found = [(with_one, rest) for with_one, rest in found if rest is not None and len(rest) < len(left)]
        if not found:
            break
        changes, left = min(found, key=lambda one: len(one[1]))
    return changes, left


def _made_of(net: nn.Module, config: object, device: str = "meta") -> nn.Module:
    with torch.device(device), torch.random.fork_rng(devices=[]):
        return type(net)(config)


def _config_with(net: nn.Module, changes: list[Number]) -> object:
    holder = nn.Module()
    holder.config = copy.deepcopy(net.config)
    set_numbers(holder, changes)
    return holder.config


def _differences_with(net: nn.Module, changes: list[Number], numbers: list[Number]) -> list[tuple] | None:
    try:
        return _differences(net, _made_of(net, _config_with(net, changes)), numbers)
    except Exception:  # the configuration, or the network, refuses it
        return None


def _differences(net: nn.Module, made: nn.Module, numbers: list[Number]) -> list[tuple[str, object, object]]:
    """Where another network is not as this one: what it is, as it is there, and here."""
    here, there = net.state_dict(), made.state_dict()
    shapes = [{name: tuple(tensor.shape) for name, tensor in one.items()} for one in (there, here)]
    found = [(name, *(of.get(name) for of in shapes)) for name in shapes[0] | shapes[1]]
    for module, attribute, *_ in numbers:
        if "." not in attribute:
            of = [getattr(one.get_submodule(module), attribute, None) for one in (made, net)]
            found.append((f"{module}.{attribute}", *of))
    return [(name, a, b) for name, a, b in found if a != b]


def _candidates(
    config: object, differences: list[tuple], numbers: list[Number], changes: list[Number]
) -> Iterator[Number]:
    """Values of a configuration that may stand for what differs, or for what the split changed."""
    both = [(made, own) for _, made, own in differences] + [(number.old, number.new) for number in numbers]
    pairs = [
        pair for a, b in both for pair in (zip(a, b) if isinstance(a, tuple) and isinstance(b, tuple) else [(a, b)])
    ]
    pairs = [(a, b) for a, b in pairs if a != b and type(a) is type(b) and type(a) in (int, float)]
    ratios = {b / a for a, b in pairs if type(a) is int and a}
    for attribute, value in list(vars(config).items()):
        if type(value) in (int, float, NoneType) and f"config.{attribute}" not in [one.attribute for one in changes]:
            new = [b for a, b in pairs if value is None or (a == value and type(a) is type(value))]
            new += [round(value * ratio) for ratio in ratios if type(value) is int and value and value * ratio % 1 == 0]
            yield from (Number("", f"config.{attribute}", value, one) for one in dict.fromkeys(new))


def _eps_of(net: nn.Module) -> list[tuple[str, str, float]]:
    """What modules add to variances, and the like."""
    named = [(name, *one) for name, module in net.named_modules() for one in vars(module).items() if "eps" in one[0]]
    return [(name, attribute, value) for name, attribute, value in named if type(value) is float]


def _same_outputs(net: nn.Module, example_inputs: object, changes: list[Number]) -> bool:
    """Whether a network that is made of a changed configuration, with the parameters of this one, computes the same."""
    try:
        own = copy.deepcopy(net).double().eval()
        made = _made_of(net, _config_with(net, changes), "cpu").double().eval().to(next(net.parameters()).device)
        made.load_state_dict(own.state_dict())
        if _eps_of(made) != _eps_of(own):  # it has hardly any effect on most outputs
            return False
        device = torch.get_default_device()
        with torch.no_grad():
            outputs = [outputs_of(call_with(one, example_inputs, device, torch.float64, 0.0)()) for one in (own, made)]
        return max_relative_change(*outputs) < SAME
    except Exception:  # of the user's network, so of any kind; the split has been made, and its record must not be lost
        return False
