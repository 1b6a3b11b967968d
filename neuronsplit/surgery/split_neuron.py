"""Split neurons in networks that torch.fx can trace, in place, together with the optimiser's state.

The channels of a layer are traced through the network (paths.py). Every parameter with entries for these channels is
changed in the same way (edits.py), and so is the state of the optimiser (optimizer_state.py). A split is made only if
the output on the example inputs stays the same (exactness.py).
"""

import operator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from neuronsplit.core.split import SPLIT_RULES, Coefficients, twins
from neuronsplit.surgery.edits import apply_edits, edits_of, get_tensor, set_tensors
from neuronsplit.surgery.exactness import TOLERANCE, max_relative_change, rules_without_scale, run_examples, scales
from neuronsplit.surgery.optimizer_state import split_state
from neuronsplit.surgery.paths import Path, follow


class SplitRecord(NamedTuple):
    """A record of what a split did, in values that JSON can store; `replay` repeats it on a copy of the network."""

    layer: str
    neurons: list[int]
    rule: str
    coefficients: list[list]  # α, β, γ, δ of each neuron in turn; γ and δ are numbers, or one per output of a consumer
    shapes: dict[str, tuple[list[int], list[int]]]  # of each changed parameter and buffer, before and after
    change: float  # the largest change of an output on the example inputs, relative to the largest output


def split_neuron(
    net: nn.Module,
    layer: str,
    neuron: int | None = None,
    *,
    neurons: list[int] | None = None,
    example_inputs: Tensor | tuple[Tensor, ...],
    optimizer: torch.optim.Optimizer | None = None,
    rule: str = "scaled",
    rng: np.random.Generator | None = None,
    unscaled: bool = False,
    homogeneous: tuple[type[nn.Module], ...] = (),
    state_exponents: dict[str, int] | None = None,
) -> SplitRecord:
    """Split one or several neurons (channels) of a layer in place, without a change of the network's output.

    net: a network that torch.fx can trace.
    layer: a Linear or Conv layer, by its name in `named_modules`.
    neuron, neurons: one neuron, or several at once. A neuron named again has its first twin split once more.
    example_inputs: a tensor, or a tuple of tensors, with which the network can be called.
    optimizer: the optimiser whose state is split too. The state is scaled as the gradients are. Where γ and δ differ by
        output, it is scaled by the means of their powers.
    rule: a name in SPLIT_RULES.
    rng: draws the coefficients; by default, they differ at every call.
    unscaled: use α = β = 1 where the rule scales but the network is not homogeneous, instead of refusing the split.
    homogeneous: your own modules with f(αx) = α f(x) for α > 0.
    state_exponents: the power of the gradient, 1 or 2, that each state of the optimiser averages, by the name of the
        state. It is needed only for optimisers that are not torch's own.

    Returns a record of the split, for `replay`.
    Raises ValueError where no exact split is known. Network and optimiser are then unchanged. The rule "net2net" is not
    exact by definition, so it is not refused for that.
    """
    if (neuron is None) == (neurons is None):
        raise ValueError("neuron or neurons: allowed is exactly one of them")
    try:
        neurons = [operator.index(n) for n in ([neuron] if neurons is None else neurons)]
    except TypeError as error:
        raise ValueError(f"neuron {neuron or neurons!r}: allowed are a whole number, or neurons=[...]") from error
    _require_known(rule)
    if not (rng is None or isinstance(rng, np.random.Generator)):
        raise ValueError(f"rng {rng!r}: allowed are numpy.random.default_rng(seed) and its like")
    if not (optimizer is None or isinstance(optimizer, torch.optim.Optimizer)):
        raise ValueError(f"optimizer {optimizer!r}: allowed is one torch.optim.Optimizer")
    homogeneous = tuple(homogeneous) if isinstance(homogeneous, tuple | list | set) else (homogeneous,)
    path = follow(net, layer, neurons, example_inputs, homogeneous)
    rng = np.random.default_rng() if rng is None else rng
    drawn = [SPLIT_RULES[rule].draw(rng, _outputs_of(net, path)) for _ in neurons]
    scaling = any(map(scales, drawn))
    if path.obstacles and scaling and not unscaled:
        allowed = ", ".join(rules_without_scale())
        raise ValueError(
            f"rule {rule!r} is not exact through {path.obstacles[0]}: allowed are {allowed}, or unscaled=True"
        )
    if path.obstacles and scaling:
        drawn = [Coefficients(1.0, 1.0, g / (g + d), d / (g + d)) for _, _, g, d in drawn]
    return _split(net, layer, neurons, rule, drawn, path, example_inputs, optimizer, state_exponents or {})


def replay(
    net: nn.Module,
    records: list[SplitRecord],
    example_inputs: Tensor | tuple[Tensor, ...],
    homogeneous: tuple[type[nn.Module], ...] = (),
) -> None:
    """Repeat recorded splits, in their order, on a network in the state before the first of them.

    net, example_inputs, homogeneous: as for `split_neuron`.
    records: what `split_neuron` returned. They can come from a JSON file that json.dump(records, file) wrote.
    Raises ValueError where one of the splits cannot be made on this network.
    """
    for record in records:
        record = SplitRecord(*record)
        _require_known(record.rule)
        path = follow(net, record.layer, record.neurons, example_inputs, homogeneous)
        drawn = [Coefficients(*(np.array(c) for c in each)) for each in record.coefficients]
        _split(net, record.layer, record.neurons, record.rule, drawn, path, example_inputs, None, {})


def _require_known(rule: str) -> None:
    if rule not in tuple(SPLIT_RULES):
        raise ValueError(f"rule {rule!r}: allowed are {', '.join(SPLIT_RULES)}")


def _outputs_of(net: nn.Module, path: Path) -> int:
    """The number of outputs of all consumers together, for γ and δ may differ in each."""
    return sum(net.get_submodule(name).weight.shape[0] for name in path.consumers)


def _split(net, layer, neurons, rule, drawn, path, example_inputs, optimizer, state_exponents) -> SplitRecord:
    """Make every new tensor, put them in place, and check that the output is the same; else put the old ones back."""
    channels = twins(net.get_submodule(layer).weight.shape[0], _outputs_of(net, path), neurons, drawn)
    edits = edits_of(net, path, channels)
    old = {name: get_tensor(net, name) for name in edits}
    new = {}
    with torch.inference_mode(False), torch.no_grad():
        for name, tensor in old.items():
            new[name] = apply_edits(tensor, edits[name])
            if isinstance(tensor, nn.Parameter):
                if tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None):
                    raise ValueError(f"{name!r} has hooks of its own, which the new parameter would lose: remove them")
                new[name] = nn.Parameter(new[name], requires_grad=tensor.requires_grad)
                if tensor.grad is not None:
                    new[name].grad = apply_edits(tensor.grad, edits[name], exponent=1)
        state = split_state(optimizer, net, old, edits, state_exponents) if optimizer else {}
        watched = path.consumers.keys() - path.makers
        before = run_examples(net, example_inputs, watched)
        try:
            set_tensors(net, new)
            change = max_relative_change(before, run_examples(net, example_inputs, watched))
            if SPLIT_RULES[rule].exact and not change <= TOLERANCE[next(iter(old.values())).dtype]:
                raise ValueError(f"the split of {layer!r} would change the output by {change:.1e}: allowed is rounding")
        except BaseException as error:
            set_tensors(net, old)
            if not isinstance(error, Exception) or isinstance(error, ValueError):
                raise
            raise ValueError(f"the network does not run with {layer!r} split ({error})") from error
    for group in optimizer.param_groups if optimizer else ():
        replaced = {id(old[name]): new[name] for name in edits}
        group["params"] = [replaced.get(id(parameter), parameter) for parameter in group["params"]]
    for name, values in state.items():
        del optimizer.state[old[name]]
        optimizer.state[new[name]] = values
    shapes = {name: (list(old[name].shape), list(new[name].shape)) for name in edits}
    return SplitRecord(layer, neurons, rule, [[np.asarray(c).tolist() for c in each] for each in drawn], shapes, change)
