"""Weights that are computed of several parameters: sums, products, noise in training, and low ranks."""

import pytest
import torch
from networks import EXACT, Custom, outputs, relative_change, rng, split_exactly
from sampling import one_in
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import register_parametrization

from neuronsplit.surgery.split_neuron import split_neuron

FLAT = (5, 6)


def noisy(n_in, n_out):
    """A layer whose weights are drawn anew in training (Fortunato et al. 2018, arXiv 1706.10295)."""

    def forward(n, x):
        drawn = [of + sigma * noise * n.training for of, sigma, noise in zip(n.mu, n.sigma, (n.of_weight, n.of_bias))]
        return F.linear(x, *drawn)

    shapes = (n_out, n_in), (n_out,)
    net = Custom(forward, **{name: nn.ParameterList(map(torch.randn, shapes)) for name in ("mu", "sigma")})
    net.register_buffer("of_weight", torch.randn(n_out, n_in))
    net.register_buffer("of_bias", torch.randn(n_out))
    return net


@pytest.mark.parametrize("rule", EXACT)
@pytest.mark.parametrize("layer", ["0", "2.mu.0"])
def test_noisy_layers_split_exactly_in_training_too(layer, rule):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), noisy(4, 3), nn.ReLU(), noisy(3, 2)).double()
    x, other = torch.randn(FLAT).double(), torch.randn(9, 6).double()
    before = [outputs(net.train(mode), other) for mode in (True, False)]
    split_neuron(net, layer, 1, example_inputs=x, rule=rule, rng=rng())
    assert all(relative_change(a, outputs(net.train(mode), other)) < 1e-12 for a, mode in zip(before, (True, False)))


WEIGHTS = {  # of a layer: functions of three parameters, a mask and a gain
    "a sum": lambda n: n.a + n.b,
    "three terms": lambda n: n.a + (n.b - 2 * n.c),
    "a mask": lambda n: n.mask * n.a,
    "two masks": lambda n: n.mask * n.a + n.b * n.mask,
    "one or the other": lambda n: torch.where(n.mask > 0, n.a, n.b),
    "between two": lambda n: torch.lerp(n.a, n.b, 0.3),
    "a gain on one": lambda n: n.gain * n.a + n.b,
    "a gain on both": lambda n: n.gain * (n.a + n.b),
    "a product": lambda n: n.a * n.b,
    "a product and a sum": lambda n: n.a * n.b + n.c,
    "a ratio": lambda n: n.a / (n.b.abs() + 1),
    "a function": lambda n: n.a + n.b * n.c.exp(),
}  # fmt: skip


def computed(weight, n_in, n_out):
    net = Custom(lambda n, x: F.linear(x, weight(n), n.bias))
    for name in "abc":
        setattr(net, name, nn.Parameter(torch.randn(n_out, n_in)))
    net.bias, net.gain = nn.Parameter(torch.randn(n_out)), nn.Parameter(torch.rand(n_out, 1) + 0.5)
    net.register_buffer("mask", (torch.rand(n_out, n_in) > 0.3).double())
    return net


@pytest.mark.parametrize("rule", ["outgoing", "scaled", "antisymmetric"])
@pytest.mark.parametrize("name", one_in(2, WEIGHTS))
def test_weights_that_are_computed_of_several_parameters(name, rule):
    torch.manual_seed(0)
    weight = WEIGHTS[name]
    for layer in ("0", "2.a"):
        net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), computed(weight, 5, 4), nn.ReLU(), computed(weight, 4, 3))
        split_exactly(net, layer, torch.randn(FLAT), [torch.randn(9, 6)], neuron=1, rule=rule)


class LowRank(nn.Module):
    """What is added to a weight, as minLoRA does."""

    def __init__(self, n_out, n_in):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(2, n_in)), nn.Parameter(torch.randn(n_out, 2))

    def forward(self, weight):
        return weight + 0.5 * (self.b @ self.a).view(weight.shape)


def adapted(*layers):
    for layer in layers:
        register_parametrization(layer, "weight", LowRank(len(layer.weight), layer.weight[0].numel()))
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))


def merged(weight):
    """A layer that adds two matrices to its weight, the product of which is transposed or not."""

    def make(n_in, n_out):
        net = Custom(lambda n, x: F.linear(x, weight(n)))
        net.w, net.a, net.b = (nn.Parameter(torch.randn(s)) for s in ((n_out, n_in), (2, n_in), (n_out, 2)))
        return net

    return lambda: nn.Sequential(make(6, 5), nn.ReLU(), make(5, 4), nn.ReLU(), make(4, 3))


def used_twice(n):
    low = n.b @ n.a
    return n.w + low + low.abs()


IMAGE = (2, 3, 6, 6)
ADAPTED = {  # the network, a layer, the shape of its inputs, and a parameter of the ranks
    "by a parametrisation": (
        lambda: adapted(nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 3)), "2", FLAT, "2.parametrizations.weight.0.a",
    ),
    "of convolutions": (
        lambda: adapted(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 3)), "0", IMAGE, "2.parametrizations.weight.0.a",
    ),
    "in a forward": (merged(lambda n: n.w + n.b @ n.a / 8), "2.w", FLAT, "2.a"),
    "first": (merged(lambda n: n.b.mm(n.a) + n.w), "2.w", FLAT, "2.a"),
    "the other way round": (merged(lambda n: n.w - (n.a.T @ n.b.T).T), "2.w", FLAT, "2.a"),
}  # fmt: skip


@pytest.mark.parametrize("rule", ["outgoing", "scaled", "antisymmetric"])
@pytest.mark.parametrize("name", ADAPTED)
def test_a_product_that_is_added_to_a_weight_splits_with_it(name, rule):
    """And so do its ranks."""
    make, layer, shape, ranks = ADAPTED[name]
    torch.manual_seed(0)
    net, x, other = make(), torch.randn(shape), torch.randn(shape)
    split_exactly(net, layer, x, [other], neuron=1, rule=rule)
    split_exactly(net, ranks, x, [other], neuron=1, rule=rule)
    assert len(net.get_parameter(ranks)) == 3


@pytest.mark.parametrize("weight", [lambda n: n.b @ n.a, used_twice, lambda n: n.w * (n.b @ n.a)])
def test_a_product_that_is_used_in_another_way_is_exact_or_refused(weight):
    torch.manual_seed(0)
    net, x = merged(weight)().double(), torch.randn(FLAT).double()
    before = outputs(net, x)
    for layer in ("2.a", "2.b"):
        try:
            split_neuron(net, layer, 1, example_inputs=x, rule="outgoing", together=True)
        except ValueError as error:
            assert "has no exact split known" in str(error) or "allowed are" in str(error)
        assert relative_change(before, outputs(net, x)) < 1e-12
