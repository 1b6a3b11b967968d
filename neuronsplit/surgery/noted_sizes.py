"""Sizes that modules note as numbers: what torch's own modules note of their parameters follows a split."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.weight_norm import WeightNorm

EPS = re.compile(r"(?<![a-z])eps(?![a-z])|epsilon")  # names of the eps of norms, such as norm_eps; not "steps"


class Number(NamedTuple):
    """A size that a module notes, or its configuration, and what it is after a split."""

    module: str
    attribute: str  # of the module; "config.x" is that of its configuration
    old: object
    new: object


def set_numbers(net: nn.Module, numbers: Iterable[Number], old: bool = False) -> None:
    """Set numbers of modules to what they are after a split, or back to what they were."""
    for number in numbers:
        holder = net.get_submodule(number.module)
        *path, attribute = number.attribute.split(".")
        setattr(holder.config if path else holder, attribute, number.old if old else number.new)


@contextmanager
def changed_numbers(net: nn.Module, numbers: list[Number]) -> Iterator[None]:
    """A network with other numbers; those that the list has at the end are then back to what they were."""
    try:
        set_numbers(net, numbers)
        yield
    finally:
        set_numbers(net, reversed(numbers), old=True)


def noted_sizes(module: nn.Module) -> dict[str, object]:
    """What a module of torch.nn notes of the shapes of its parameters, by their present shapes."""
    try:
        weight = getattr(module, "weight", None)
    except Exception:  # it is computed, from tensors that do not fit together
        return {}
    if isinstance(module, nn.RNNBase):
        hidden = module.weight_hh_l0.shape[0] // {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        return {"input_size": module.weight_ih_l0.shape[1], "hidden_size": hidden}
    if isinstance(module, nn.RNNCellBase):
        return {"input_size": module.weight_ih.shape[1], "hidden_size": module.weight_hh.shape[1]}
    if isinstance(module, _NormBase) and (weight is not None or module.running_mean is not None):
        return {"num_features": len(module.running_mean if weight is None else weight)}
    if weight is None:
        return {}
    if isinstance(module, nn.Linear):
        return {"in_features": weight.shape[1], "out_features": weight.shape[0]}
    if isinstance(module, _ConvTransposeNd):
        return {"in_channels": weight.shape[0], "out_channels": weight.shape[1] * module.groups}
    if isinstance(module, _ConvNd):
        groups = weight.shape[0] * module.groups // module.out_channels if module.groups > 1 else 1
        return {"groups": groups, "in_channels": weight.shape[1] * groups, "out_channels": weight.shape[0]}
    if isinstance(module, nn.GroupNorm):
        return {"num_channels": len(weight), "num_groups": module.num_groups * len(weight) // module.num_channels}
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return {"normalized_shape": tuple(weight.shape)}
    return {"embedding_dim": weight.shape[1]} if isinstance(module, nn.Embedding) else {}


def changed_sizes(net: nn.Module, names: Iterable[str]) -> list[Number]:
    """What torch's modules note of the shapes of some parameters, and is another by their present shapes."""
    modules = {owner: net.get_submodule(owner) for owner in dict.fromkeys(name.rpartition(".")[0] for name in names)}
    noted = [
        Number(owner, attribute, getattr(module, attribute), new)
        for owner, module in modules.items()
        for attribute, new in noted_sizes(module).items()
    ]
    return [number for number in noted if number.old != number.new]


def scaled_eps(net: nn.Module, factors: dict[str, float]) -> list[Number]:
    """The eps of norms, by their names, if the squares of their channels are scaled by factors."""
    return [
        Number(norm, attribute, value, value * factor)
        for norm, factor in factors.items()
        for attribute, value in vars(net.get_submodule(norm)).items()
        if type(value) is float and EPS.search(attribute)
    ]


def weight_norms(net: nn.Module) -> dict[str, str]:
    """The names of g by those of v, of all weights under torch's weight_norm."""
    found = {}
    for name, module in net.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, ParametrizationList) and isinstance(module[0], _WeightNorm):
            found[f"{prefix}original1"] = f"{prefix}original0"
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):
                found[f"{prefix}{hook.name}_v"] = f"{prefix}{hook.name}_g"
    return found
