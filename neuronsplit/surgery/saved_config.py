"""The configuration that a network is made of, such as `config` of Hugging Face, after a split.

A network that is saved with its configuration has to come back as it is. So a value of the configuration is changed
on evidence: a network that is made of it then has more of the shapes, and of the sizes noted, that this one has.
"""

import copy
from collections.abc import Callable, Iterator
from itertools import chain
from types import NoneType

import torch
from torch import Tensor, nn

from neuronsplit.surgery.exactness import max_relative_change, outputs_of
from neuronsplit.surgery.noted_sizes import Number, set_number

SAME = 1e-5  # the relative change of outputs in float64, of networks that may use float32 for a while


def config_numbers(
    net: nn.Module, call: Callable[[nn.Module], object], numbers: list[Number]
) -> tuple[list[Number], str]:
    """What has to change in a network's configuration after a split; and why it cannot be saved with it, or "".

    call: runs a network on the examples. numbers: what the split changed in modules. The network is as it was at the
    end; one that is not made of its configuration alone has nothing to change.
    """
    try:
        first = _differences(net, _made_of(net, net.config), numbers)
    except Exception:  # there is none, or it takes more than this to make the network
        return [], ""
    changes, left = _fewest_differences(net, numbers, first, without="")
    others = (_fewest_differences(net, numbers, first, without=change.attribute)[0] for change in changes)
    more = ([*changes, change] for change in _candidates(net.config, first, numbers, changes))
    for tried in chain([changes], others, more):
        if _differences_with(net, tried, numbers) == [] and _same_outputs(net, call, tried):
            return tried, ""
    what, made, own = (left or [("other outputs", "", "these")])[0]
    return [], f"its config makes {what} {made}, and not {own}"


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
    for change in changes:
        set_number(holder, change, change.new)
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


def _same_outputs(net: nn.Module, call: Callable[[nn.Module], object], changes: list[Number]) -> bool:
    own = copy.deepcopy(net).double().eval()
    made = _made_of(net, _config_with(net, changes), "cpu").double().eval()
    made.load_state_dict(own.state_dict())

    def outputs(one: nn.Module) -> list[Tensor]:
        with torch.no_grad():
            return outputs_of(call(one))

    return max_relative_change(outputs(own), outputs(made)) < SAME
