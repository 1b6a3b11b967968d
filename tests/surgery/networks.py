"""Small networks and helpers that the tests of splits in any network share."""

import copy

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._pytree import tree_leaves, tree_map

from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.surgery.split_neuron import split_neuron

ACTIVATIONS = [nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Tanh, nn.GELU, nn.SiLU, nn.Hardswish]
HOMOGENEOUS = ACTIVATIONS[:3]
EXACT = [name for name, rule in SPLIT_RULES.items() if rule.exact]
FLAT, IMAGE = torch.ones(3, 5), torch.ones(3, 5, 7)


def rng(seed=0):
    return np.random.default_rng(seed)


def settle(net, seed=0):
    """Statistics and affine parameters of norms as after some training, all in float64."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if "Norm" in type(module).__name__:
                for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                    if tensor.is_floating_point():
                        tensor.copy_(torch.rand(tensor.shape, generator=g) + 0.5)
    return net.double().eval()


def outputs(net, x):
    """The output on a tensor, a tuple or list of arguments, or a dict of keyword arguments."""
    with torch.no_grad():
        if isinstance(x, dict):
            return net(**x)
        return net(*x) if isinstance(x, tuple | list) else net(x)


def relative_change(before, after):
    """The largest change of the floating-point numbers in an output, relative to the largest of its tensor."""
    pairs = list(zip(tree_leaves(before), tree_leaves(after), strict=True))
    pairs = [(a, b) for a, b in pairs if isinstance(a, torch.Tensor) and a.is_floating_point() and a.numel()]
    assert pairs and all(a.shape == b.shape for a, b in pairs)
    return max(((b - a).abs().max() / a.abs().max().clamp(min=1e-300)).item() for a, b in pairs)


def in_double(x):
    return tree_map(lambda t: t.double() if isinstance(t, torch.Tensor) and t.is_floating_point() else t, x)


def split_exactly(net, where, x, others=(), bound=1e-12, **options):
    """Split in float64, and require the output on the example inputs, and on others, to stay. Returns the record."""
    settle(net)
    x, *others = (in_double(one) for one in (x, *others))
    before = [copy.deepcopy(outputs(net, one)) for one in (x, *others)]
    record = split_neuron(net, where, **{"rng": rng(), "example_inputs": x} | options)
    for one, old in zip((x, *others), before):
        assert relative_change(old, outputs(net, one)) <= bound
    return record


def mlp(*sizes, activation=nn.ReLU):
    layers = [part for n_in, n_out in zip(sizes, sizes[1:]) for part in (nn.Linear(n_in, n_out), activation())]
    return nn.Sequential(*layers[:-1]).double()


def cnn(activation, channels, flat):
    """Two convolutions with BatchNorm, then either flattened positions or averaged ones, and two Linears."""
    first, second, hidden = channels
    return nn.Sequential(
        nn.Conv2d(2, first, 3, padding=1), nn.BatchNorm2d(first), activation(), nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3), activation(), nn.Identity() if flat else nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(second * (4 if flat else 1), hidden), nn.BatchNorm1d(hidden), activation(),
        nn.Dropout(0.5), nn.Linear(hidden, 3),
    )  # fmt: skip


def plain():
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))


def train(net, optimizers, steps, seed=0, n_in=6):
    """A few steps of one or several optimisers on random data of three classes."""
    optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
    g, dtype = torch.Generator().manual_seed(seed), next(net.parameters()).dtype
    for _ in range(steps):
        x, y = torch.randn(20, n_in, generator=g).to(dtype), torch.randint(3, (20,), generator=g)
        net.zero_grad()
        loss = cross_entropy(net(x), y)  # kept alive while the next step runs, as in many a loop
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    return loss


class Residual(nn.Module):
    """Several layers make the same channels; a concatenation and a mean follow."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.side, self.head = nn.BatchNorm2d(4), nn.Conv2d(2, 3, 1), nn.Linear(7, 5)

    def forward(self, x):
        h = torch.relu(self.stem(x))
        h = torch.relu(h + self.norm(self.a(h)))
        h = torch.cat([self.side(x), h + self.b(h)], dim=1)
        return self.head(h.mean([2, 3]))


class Branching(nn.Module):
    """Two layers, and a branch that depends on the input."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.b(self.a(x)) if x.sum() > 0 else self.b(x)


class Custom(nn.Module):
    """Modules by name, and a forward given as a function of the module and its inputs."""

    def __init__(self, forward, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.of = forward

    def forward(self, *inputs):
        return self.of(self, *inputs)
