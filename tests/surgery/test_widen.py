"""Several layers are widened at once: to given widths, exactly, with what has to grow with them."""

import copy

import numpy as np
import pytest
import torch
from networks import in_double, outputs, relative_change, rng, settle
from sampling import one_in
from torch import nn

from neuronsplit import replay, widen


class Encoder(nn.Module):
    """A residual axis of 6 channels with a norm, two heads of 4, and a hidden layer."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 2)
        self.q, self.k, self.v, self.out = (nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6))
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x):
        h = self.embed(x)  # (B, N, 6)
        q, k, v = (f(self.norm(h)).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        h = h + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.head(h + self.down(torch.tanh(self.up(self.norm(h)))))


X = in_double(torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)))
OTHER = in_double(torch.randn(4, 7, 3, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("widths, shapes", [
    ({"up": 13}, {"up.weight": (13, 6), "down.weight": (6, 13)}),
    ({"up": 25}, {"up.weight": (25, 6), "down.weight": (6, 25)}),  # more than twice as wide
    ({"q": 12}, {"q.weight": (12, 6), "v.weight": (12, 6), "out.weight": (6, 12)}),
    ({"embed": 12}, {"embed.weight": (12, 3), "norm.weight": (12,), "up.weight": (10, 12), "head.weight": (2, 12)}),
    ({"up": 20, "q": 16, "embed": 12}, {"up.weight": (20, 12), "q.weight": (16, 12), "out.weight": (12, 16)}),
])  # fmt: skip
@pytest.mark.parametrize("rule", ["even", "outgoing"])
def test_layers_get_the_widths_and_the_output_stays(widths, shapes, rule):
    net = settle(Encoder())
    fresh, before = copy.deepcopy(net), outputs(net, OTHER)
    record = widen(net, widths, example_inputs=X, rule=rule, rng=rng())
    assert {name: tuple(net.get_parameter(name).shape) for name in shapes} == shapes
    assert relative_change(before, outputs(net, OTHER)) <= 1e-12
    replay([record], fresh)
    assert relative_change(outputs(net, OTHER), outputs(fresh, OTHER)) == 0


def test_the_optimiser_goes_on_with_all_widened_layers():
    net = settle(Encoder())
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    net(X).square().mean().backward()
    optimizer.step()
    widen(net, {"up": 20, "q": 16}, example_inputs=X, optimizer=optimizer, rng=rng())
    assert {id(p) for p in net.parameters()} == {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert all(state["exp_avg"].shape == parameter.shape for parameter, state in optimizer.state.items())
    before = net(X).square().mean()
    optimizer.zero_grad()
    before.backward()
    optimizer.step()
    assert net(X).square().mean() < before


@pytest.mark.parametrize("state", ["carry", "reset"])
def test_second_twins_have_a_state_that_is_carried_or_reset(state):
    net = settle(Encoder())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(X).square().mean().backward()
    optimizer.step()
    optimizer.state[net.up.weight]["v"] = torch.full((10, 6), 3.0)
    old = optimizer.state[net.up.weight]["momentum_buffer"]
    options = {"state": state, "state_exponents": {"v": 2}}
    widen(net, {"up": 20}, example_inputs=X, optimizer=optimizer, rule="even", **options)
    new = optimizer.state[net.up.weight]  # each twin has half of the gradient
    torch.testing.assert_close(new["momentum_buffer"], torch.cat([old, old * (state == "carry")]) / 2)
    torch.testing.assert_close(new["v"], torch.cat([torch.ones(10, 6), torch.ones(10, 6) * (state == "carry")]) * 0.75)


class Concatenated(nn.Module):
    """A norm whose channels are those of a, then those of b."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm, self.c = nn.Linear(3, 4), nn.Linear(3, 6), nn.BatchNorm1d(10), nn.Linear(10, 2)

    def forward(self, x):
        return self.c(torch.relu(self.norm(torch.cat([self.a(x), self.b(x)], 1))))


@pytest.mark.parametrize("order", [("a", "b", "norm"), ("norm", "b", "a")])
@pytest.mark.parametrize("a", [None, 5, 8])
@pytest.mark.parametrize("b", [None, 9, 13])
@pytest.mark.parametrize("norm", one_in(2, [12, 13, 17, 16, 21, 30]))
def test_layers_that_have_channels_of_each_other_get_exactly_their_widths_or_are_refused(a, b, norm, order):
    """The norm is as wide as a and b together, so three widths fit or not, and two of them always do."""
    net = settle(Concatenated())
    x = OTHER[0]
    given = {"a": a, "b": b, "norm": norm}
    widths = {name: given[name] for name in order if given[name]}
    before = outputs(net, x)
    possible = a + b == norm if a and b else (a or 4) + (b or 6) <= norm
    if not possible:
        with pytest.raises(ValueError, match=".*leaves .* channels, fewer than split together beside the other widths"):
            widen(net, widths, example_inputs=x, rng=rng())
    else:
        widen(net, widths, example_inputs=x, rng=rng())
        assert {name: len(net.get_submodule(name).weight) for name in widths} == widths
    assert relative_change(before, outputs(net, x)) <= 1e-12


@pytest.mark.parametrize("widths, message", [
    ({"up": 10}, "width 10 of 'up': allowed are whole numbers above 10"),
    ({"up": 12.0}, "width 12.0 of 'up': allowed are whole numbers above 10"),
    ({"q": 11}, "'q' has no exact split known .width 11 of 'q' leaves 3 channels, fewer than split together.: .*"),
    ({"up": 12, "q": 11}, ".*width 11 of 'q' leaves 3 channels, fewer than split together beside the other widths.*"),
    ({"embed": 12, "out": 9}, "widths 12 of 'embed' and 9 of 'out', which have the same channels: allowed is one .*"),
    ({"norm": 7, "down": 8}, "widths 7 of 'norm' and 8 of 'down', which have the same channels: allowed is one .*"),
    ({"head": 4}, "'head' has no exact split known .it is in the network's output.*"),
    ({}, "widths {}: allowed is a dict of one or more, such as {'fc1': 20}"),
    ({"nowhere": 4}, "layer 'nowhere': allowed are embed, .*"),
])  # fmt: skip
def test_widths_that_cannot_be_are_refused_and_nothing_changes(widths, message):
    net = settle(Encoder())
    held = [(id(p), p.clone()) for p in net.parameters()]
    with pytest.raises(ValueError, match=f"^{message}$"):
        widen(net, widths, example_inputs=X, rng=rng())
    assert all(id(p) == i and torch.equal(p, old) for p, (i, old) in zip(net.parameters(), held))


def test_a_state_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="^state 'drop': allowed are carry, reset$"):
        widen(settle(Encoder()), {"up": 20}, example_inputs=X, state="drop")


def test_a_width_may_be_a_whole_number_of_numpy():
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    widen(net, {"0": np.int64(9)}, example_inputs=torch.randn(3, 5))
    assert net[0].out_features == 9
