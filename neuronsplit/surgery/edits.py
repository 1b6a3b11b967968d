"""What a split does to each parameter and buffer: its entries are copied by index and scaled.

The second twin of a split comes last, in every tensor.

    what makes the channel       × gain    α or β (a BatchNorm behind the layer takes them in its place)
    what consumes it             × share   γ or δ, one per output
    what only goes along         copied    running statistics, a layer in front of its BatchNorm
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neuronsplit.core.split import Twins
from neuronsplit.surgery.paths import NORMS, Carrier, Path, depthwise


class TensorEdit(NamedTuple):
    """What happens to the entries of one tensor along one axis."""

    axis: int
    source: Tensor  # the old position of each new entry
    scale: Tensor  # the factor of each entry: over the axis, or (outputs, axis) for the weight of a consumer
    gradient: Callable[[int], Tensor]  # from an exponent of the gradient to the factor of that power


def edits_of(net: nn.Module, path: Path, channels: Twins) -> dict[str, list[TensorEdit]]:
    """The edits of each parameter and buffer, by its name; those of consumers come first.

    Raises ValueError for a tensor that does not have one entry per channel.
    """
    edits: dict[str, list[TensorEdit]] = defaultdict(list)
    first = 0
    one = torch.ones(1, dtype=torch.float64)  # for positions that carry none of the channels, −1
    for name, carrier in path.consumers.items():
        rows = net.get_submodule(name).weight.shape[0]
        share = channels.share[first : first + rows]
        first += rows
        source, of = _spread(channels, carrier.segments)
        scale = torch.cat([share, one.expand(rows, 1)], 1)[:, of]
        gain = torch.cat([channels.gain, one])[of]
        gradient = partial(_gradient_factor, gain, torch.ones_like(gain)[None])
        edits[f"{name}.weight"].append(TensorEdit(1, source, scale, gradient))
    for name, carrier in (dict.fromkeys(path.makers, Carrier(0)) | path.along).items():
        source, of = _spread(channels, carrier.segments)
        gain = torch.cat([channels.gain, one])[of]
        share = torch.cat([channels.share, one.expand(len(channels.share), 1)], 1)[:, of]
        module = net.get_submodule(name)
        for entry, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.dim() > 0 and len(tensor) != int(source.max()) + 1:
                raise ValueError(f"{name}.{entry!r} has {len(tensor)} entries: allowed is one per channel")
            if tensor.dim() > 0:  # the count of batches of a BatchNorm stays
                scale = gain if f"{name}.{entry}" in path.gains else torch.ones_like(gain)
                gradient = partial(_gradient_factor, gain / scale, share)
                edits[f"{name}.{entry}"].append(TensorEdit(0, source, scale, gradient))
    return edits


def _spread(channels: Twins, segments: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """For an axis that carries the channels in segments: the old position of each new one, and its channel or −1."""
    positions, of, start = [], [], 0
    width = int(channels.source.max()) + 1
    for segment in segments:
        if segment < 0:
            positions.append(torch.arange(start, start - segment))
            of.append(torch.full((-segment,), -1))
            start -= segment
        else:
            runs = channels.source[:, None] * segment + torch.arange(segment)  # (C', k)
            positions.append(start + runs.flatten())
            of.append(torch.arange(len(channels.source)).repeat_interleave(segment))
            start += width * segment
    return torch.cat(positions), torch.cat(of)


def _gradient_factor(gain: Tensor, share: Tensor, exponent: int) -> Tensor:
    """The factor of a power of the gradient: a mean over the outputs, exact where all have the same share."""
    return gain**exponent * (share**exponent).mean(0)


def apply_edits(tensor: Tensor, edits: list[TensorEdit], exponent: int | None = None) -> Tensor:
    """A parameter after its edits; with an exponent, a tensor that goes with that power of the parameter's gradient."""
    channels_last = (
        tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    )
    for edit in edits:
        factor = edit.scale if exponent is None else edit.gradient(exponent)
        shape = [1] * tensor.dim()
        shape[edit.axis] = -1
        if factor.dim() == 2:
            shape[0] = factor.shape[0]
        new = tensor.index_select(edit.axis, edit.source.to(tensor.device))
        tensor = new * factor.reshape(shape).to(new)
    return tensor.contiguous(memory_format=torch.channels_last) if channels_last else tensor


def get_tensor(net: nn.Module, name: str) -> Tensor:
    """A parameter or buffer by its name."""
    module, _, entry = name.rpartition(".")
    return getattr(net.get_submodule(module), entry)


def set_tensors(net: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put tensors into their modules, and update the sizes that the modules note down."""
    for name, tensor in tensors.items():
        module_name, _, entry = name.rpartition(".")
        module = net.get_submodule(module_name)
        setattr(module, entry, tensor)
        if entry != "weight":
            continue
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = tensor.shape
        elif isinstance(module, nn.GroupNorm):
            module.num_groups = module.num_channels = len(tensor)
        elif isinstance(module, NORMS):
            module.num_features = len(tensor)
        else:
            if depthwise(module):
                module.groups = len(tensor)
            module.out_channels, module.in_channels = tensor.shape[0], tensor.shape[1] * module.groups
