"""What decides whether a split is exact: what lets a scale through, which rules scale, and the check of the outputs."""

import operator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from neuronsplit.core.split import SPLIT_RULES, Coefficients

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # relative
# Modules, functions and tensor methods by what they do to a channel that is scaled by a positive number.
HOMOGENEOUS = {  # the scale comes through
    nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d,
    nn.Upsample, nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d, torch.abs, "abs", operator.neg, torch.neg, "clone",
    F.relu, torch.relu, torch.relu_, F.leaky_relu, F.dropout,
    F.max_pool1d, F.avg_pool1d, F.max_pool3d, F.avg_pool3d, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d,
    "relu", "relu_", "contiguous",
}  # fmt: skip
ELEMENTWISE = {  # it does not: exact for α = β = 1 alone
    nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.ELU, nn.SELU, nn.CELU, nn.Softplus,
    nn.Mish, nn.Threshold, F.selu, F.celu, F.hardtanh, F.softsign, F.logsigmoid, torch.clamp, "clamp",
    nn.ReLU6, nn.Hardtanh, nn.Softsign, nn.LogSigmoid, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink,
    F.gelu, F.silu, F.sigmoid, F.tanh, F.hardswish, F.hardsigmoid, F.elu, F.softplus, F.relu6, F.mish,
    torch.sigmoid, torch.tanh, "sigmoid", "tanh",
}  # fmt: skip


def scales(coefficients: Coefficients) -> bool:
    """Whether a split scales what comes into the neuron, which not every activation lets through."""
    return bool(coefficients.alpha != 1 or coefficients.beta != 1)


def rules_without_scale() -> list[str]:
    """Return the rules that are exact for any function after the neuron."""
    rng = np.random.default_rng(0)  # any draw shows whether a rule scales
    return [name for name, rule in SPLIT_RULES.items() if rule.exact and not scales(rule.draw(rng, 1))]


def run_examples(net: nn.Module, example_inputs, watched: set[str]) -> list[Tensor]:
    """The network's outputs in evaluation mode, and those of the watched modules: a small head hides nothing."""
    found = []
    hooks = [net.get_submodule(name).register_forward_hook(lambda *args: found.append(args[2])) for name in watched]
    try:
        with in_mode(net, False):
            found.append(net(*inputs(example_inputs)))
    finally:
        for hook in hooks:
            hook.remove()
    return [
        leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel()
    ]


def max_relative_change(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest change of an output, relative to the largest output."""
    if not before:
        raise ValueError("the network gives no numbers for the example inputs: allowed are inputs that it answers")
    return max(
        ((new - old).abs().max() / old.abs().max().clamp(min=torch.finfo(old.dtype).tiny)).item()
        for old, new in zip(before, after, strict=True)
    )


@contextmanager
def in_mode(net: nn.Module, training: bool):
    """A network in training or evaluation mode, and back in its modules' own modes after."""
    modes = {module: module.training for module in net.modules()}
    net.train(training)
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def inputs(example_inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return copies of the example inputs, so that a network that works in place leaves them unchanged."""
    example_inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    return tuple(x.clone() if isinstance(x, Tensor) else x for x in example_inputs)
