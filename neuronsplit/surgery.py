"""Split neurons of any network that torch.fx can trace, in place, with the optimiser's state carried along.

Every parameter that has an entry a channel on the channels' path is indexed by the same list, in which the second twin
comes last, and scaled:

    what makes the channel       × gain    α or β (a BatchNorm after the layer takes it in the layer's place)
    what consumes it             × share   γ or δ, one an output
    what only goes along         copied    running statistics, a layer before its BatchNorm
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neuronsplit.paths import NORMS, Carrier, Path, depthwise, evaluating, follow, inputs
from neuronsplit.split import INEXACT, RULES, Coefficients


class SplitRecord(NamedTuple):
    """What a split did: enough to repeat it on a copy of the network, of plain values that JSON can hold."""

    layer: str
    neurons: list[int]
    rule: str
    coefficients: list[list]  # α, β, γ, δ for each neuron in turn; γ and δ one an output of the consumers, or a number
    shapes: dict[str, tuple[list[int], list[int]]]  # of each parameter and buffer changed, before and after
    change: float  # largest change of an output on the example inputs, relative to the largest output


def split_neuron(
    net: nn.Module,
    layer: str,
    neuron: int | list[int],
    *,
    example_inputs: Tensor | tuple[Tensor, ...],
    optimizer: torch.optim.Optimizer | None = None,
    rule: str = "scaled",
    rng: np.random.Generator | None = None,
    unscaled: bool = False,
    homogeneous: tuple[type[nn.Module], ...] = (),
) -> SplitRecord:
    """Split one or more neurons (channels) of a layer of any network in place, without a change of its output.

    layer: a Linear or Conv, by its name in named_modules. neuron: one number or several; the same one again splits its
    first twin once more. unscaled: use α = β = 1 where the rule scales and the network lets no scale through, instead
    of refusing. homogeneous: modules of your own with f(αx) = α f(x) for α > 0. The optimiser's state is split with
    its parameters, scaled as gradients are; where γ and δ differ by output, by their means. The rule noisy alone is
    not exact.

    Raises ValueError, with network and optimiser as they were, where the split cannot be exact.
    """
    neurons = [neuron] if isinstance(neuron, int) else list(neuron)
    if rule not in RULES:
        raise ValueError(f"rule {rule!r}: allowed are {', '.join(RULES)}")
    path = follow(net, layer, neurons, example_inputs, homogeneous)
    outputs = sum(net.get_submodule(name).weight.shape[0] for name in path.consumers)
    rng = np.random.default_rng() if rng is None else rng
    drawn = [RULES[rule](rng, outputs) for _ in neurons]
    scaling = any(alpha != 1 or beta != 1 for alpha, beta, _, _ in drawn)
    if path.obstacles and scaling and not unscaled:
        raise ValueError(
            f"rule {rule!r} is not exact through {path.obstacles[0]}: allowed are even, outgoing, or unscaled=True"
        )
    if path.obstacles and scaling:
        drawn = [Coefficients(1.0, 1.0, g / (g + d), d / (g + d)) for _, _, g, d in drawn]
    return _split(net, layer, neurons, rule, drawn, path, example_inputs, optimizer)


def replay(
    net: nn.Module,
    records: list[SplitRecord],
    example_inputs: Tensor | tuple[Tensor, ...],
    homogeneous: tuple[type[nn.Module], ...] = (),
) -> None:
    """Repeat recorded splits, in their order, on a network as it was before the first of them.

    records may come from a JSON file: json.dump(records, file) writes them.
    """
    for record in records:
        record = SplitRecord(*record)
        path = follow(net, record.layer, record.neurons, example_inputs, homogeneous)
        drawn = [Coefficients(*(np.array(c) for c in each)) for each in record.coefficients]
        _split(net, record.layer, record.neurons, record.rule, drawn, path, example_inputs, None)


class _Channels(NamedTuple):
    """The channels after a split: which old one each is of, and what it takes of it."""

    source: Tensor  # (C',) old channel
    gain: Tensor  # (C',) product of α, β
    share: Tensor  # (outputs, C') product of γ, δ


def _channels(width: int, outputs: int, neurons: list[int], drawn: list[Coefficients]) -> _Channels:
    """Split one neuron after the other: the first twin keeps the place, the second comes last."""
    source, gain = list(range(width)), [1.0] * width
    share = [np.ones(outputs) for _ in range(width)]
    for neuron, (alpha, beta, gamma, delta) in zip(neurons, drawn):
        source.append(source[neuron])
        gain.append(gain[neuron] * float(beta))
        share.append(share[neuron] * delta)
        gain[neuron] *= float(alpha)
        share[neuron] = share[neuron] * gamma
    return _Channels(
        torch.tensor(source), torch.tensor(gain, dtype=torch.float64), torch.from_numpy(np.stack(share, 1))
    )


def _spread(channels: _Channels, segments: tuple[int, ...]) -> tuple[Tensor, Tensor]:
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


class _Edit(NamedTuple):
    """One parameter's entries along one axis: where each comes from, what scales it, what scales its gradient."""

    axis: int
    source: Tensor
    scale: Tensor  # over the axis, or (outputs, axis) for a consumer's weight
    gradient: Tensor


def _edits(net: nn.Module, path: Path, channels: _Channels) -> dict[str, list[_Edit]]:
    """What happens to each parameter and buffer, consumers first."""
    edits: dict[str, list[_Edit]] = defaultdict(list)
    first = 0
    one = torch.ones(1, dtype=torch.float64)  # for positions that carry none of the channels, −1
    mean_share = channels.share.mean(0)  # (C',): exact where every output has the same
    for name, carrier in path.consumers.items():
        rows = net.get_submodule(name).weight.shape[0]
        share = channels.share[first : first + rows]
        first += rows
        source, of = _spread(channels, carrier.segments)
        scale = torch.cat([share, one.expand(rows, 1)], 1)[:, of]
        gradient = torch.cat([channels.gain, one])[of]
        edits[f"{name}.weight"].append(_Edit(1, source, scale, gradient))
    for name, carrier in (dict.fromkeys(path.makers, Carrier(0)) | path.along).items():
        source, of = _spread(channels, carrier.segments)
        gain, share = torch.cat([channels.gain, one])[of], torch.cat([mean_share, one])[of]
        module = net.get_submodule(name)
        for entry, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.dim() > 0:  # a BatchNorm's count of batches stays
                scale = gain if f"{name}.{entry}" in path.gains else torch.ones_like(gain)
                edits[f"{name}.{entry}"].append(_Edit(0, source, scale, gain * share / scale))
    return edits


def _edited(tensor: Tensor, edits: list[_Edit], power: int | None = None) -> Tensor:
    """A parameter after its edits; with a power, a tensor that goes with that power of the parameter's gradient."""
    for edit in edits:
        factor = edit.scale if power is None else edit.gradient**power
        shape = [1] * tensor.dim()
        shape[edit.axis] = -1
        if factor.dim() == 2:
            shape[0] = factor.shape[0]
        new = tensor.index_select(edit.axis, edit.source.to(tensor.device))
        tensor = new * factor.reshape(shape).to(new)
    return tensor


POWERS = {  # of the gradient, that an optimiser's state goes with; None: it goes as the parameter; others: 1
    "exp_avg_sq": 2, "max_exp_avg_sq": 2, "square_avg": 2, "sum": 2,  # Adam, RMSprop, Adadelta, Adagrad
    "acc_delta": 0, "step_size": 0,  # Adadelta, Rprop
    "ax": None,  # ASGD
}  # fmt: skip


def _power(optimizer: torch.optim.Optimizer, key: str) -> int | None:
    """The power for one entry of an optimiser's state; RMSprop's momentum is of gradients already normalised."""
    if isinstance(optimizer, torch.optim.RMSprop) and key == "momentum_buffer":
        return 0
    return POWERS.get(key, 1)


def _split(net, layer, neurons, rule, drawn, path, example_inputs, optimizer) -> SplitRecord:
    """Make every new tensor, put them in place, and see that the output is the same; else put the old ones back."""
    outputs = sum(net.get_submodule(name).weight.shape[0] for name in path.consumers)
    channels = _channels(net.get_submodule(layer).weight.shape[0], outputs, neurons, drawn)
    edits = _edits(net, path, channels)
    old = {name: _get(net, name) for name in edits}
    new = {}
    with torch.no_grad():
        for name, tensor in old.items():
            new[name] = _edited(tensor, edits[name])
            if isinstance(tensor, nn.Parameter):
                new[name] = nn.Parameter(new[name], requires_grad=tensor.requires_grad)
                if tensor.grad is not None:
                    new[name].grad = _edited(tensor.grad, edits[name], power=1)
        state = _new_state(optimizer, old, new, edits) if optimizer else {}
        before = _outputs(net, example_inputs)
        _place(net, new)
        try:
            change = _change(before, _outputs(net, example_inputs))
        except Exception as error:
            _place(net, old)
            raise ValueError(f"the network does not run with {layer!r} split ({error}): nothing is changed") from error
    tolerance = 1000 * torch.finfo(next(iter(old.values())).dtype).eps
    if rule not in INEXACT and not change <= tolerance:
        _place(net, old)
        raise ValueError(f"the split of {layer!r} would change the output by {change:.1e}: allowed is rounding")
    for group in optimizer.param_groups if optimizer else ():
        replaced = {id(old[name]): new[name] for name in edits}
        group["params"] = [replaced.get(id(parameter), parameter) for parameter in group["params"]]
    for name, values in state.items():
        del optimizer.state[old[name]]
        optimizer.state[new[name]] = values
    shapes = {name: (list(old[name].shape), list(new[name].shape)) for name in edits}
    return SplitRecord(layer, neurons, rule, [[np.asarray(c).tolist() for c in each] for each in drawn], shapes, change)


def _new_state(optimizer, old, new, edits) -> dict[str, dict]:
    """The optimiser's state for each new parameter; raises ValueError for state that no rule here covers."""
    state = {}
    for name, parameter in old.items():
        if parameter not in optimizer.state:
            continue
        state[name] = {}
        for key, value in optimizer.state[parameter].items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value = _edited(value, edits[name], _power(optimizer, key))
            elif isinstance(value, list | tuple) or (isinstance(value, Tensor) and value.numel() > 1):
                raise ValueError(
                    f"{type(optimizer).__name__} keeps {key!r}, not of the shape of {name!r}: allowed are optimisers "
                    "whose state has the shape of its parameter"
                )
            state[name][key] = value
    return state


def _get(net: nn.Module, name: str) -> Tensor:
    module, _, entry = name.rpartition(".")
    return getattr(net.get_submodule(module), entry)


def _place(net: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put tensors into their modules, and the sizes that modules note down with them."""
    for name, tensor in tensors.items():
        module_name, _, entry = name.rpartition(".")
        module = net.get_submodule(module_name)
        setattr(module, entry, tensor)
        if entry != "weight":
            continue
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = tensor.shape
        elif isinstance(module, NORMS):
            module.num_features = len(tensor)
        else:
            if depthwise(module):
                module.groups = len(tensor)
            module.out_channels, module.in_channels = tensor.shape[0], tensor.shape[1] * module.groups


def _outputs(net: nn.Module, example_inputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    with evaluating(net):
        found = net(*inputs(example_inputs))
    found = found.values() if isinstance(found, dict) else found if isinstance(found, tuple | list) else [found]
    return [tensor for tensor in found if isinstance(tensor, Tensor)]


def _change(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest change of an output, relative to the largest output."""
    pairs = list(zip(before, after))
    return max(((b - a).abs().max() / b.abs().max().clamp(min=torch.finfo(b.dtype).tiny)).item() for b, a in pairs)
