"""Faults that strangers found: accepted splits that changed something, and other exceptions than ValueError."""

import random
import re
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import Custom, outputs, relative_change, rng, settle
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from neuronsplit.surgery.neuron_scores import neuron_scores
from neuronsplit.surgery.split_neuron import replay, split_neuron
from neuronsplit.surgery.splittable import splittable

FLAT = (4, 5)


def hidden(f, **parameters):
    """A hidden layer of six units before a function of them, and a layer that reads it."""

    def make():
        net = Custom(lambda n, x: n.out(f(n, n.a(x))), a=nn.Linear(5, 6), out=nn.Linear(6, 2))
        for name, value in parameters.items():
            setattr(net, name, nn.Parameter(value.clone()))
        return net

    return make


def summed(f):
    """A sum over the channels of two layers."""
    return lambda: Custom(lambda n, x: f(n.a(x), n.b(x)).sum(-1), a=nn.Linear(5, 6), b=nn.Linear(5, 6))


def read_through(f):
    """A parameter reads the channels after a function of its entries."""

    def make():
        net = Custom(
            lambda n, x: n.out(torch.relu(torch.relu(n.a(x)) @ f(n.w).T)), a=nn.Linear(5, 6), out=nn.Linear(3, 2)
        )
        net.w = nn.Parameter(torch.randn(3, 6))
        return net

    return make


ONE = torch.tensor(0.4)
NOT_SCALED = {  # a threshold that all channels share lets no scale through
    "a learned clip": hidden(lambda n, h: h.relu().clamp(max=n.alpha), alpha=ONE),
    "a smallest one": hidden(lambda n, h: torch.minimum(h.relu(), n.alpha), alpha=ONE),
    "a largest one": hidden(lambda n, h: torch.maximum(h, n.alpha), alpha=ONE),
    "a threshold": hidden(lambda n, h: torch.relu(h - n.alpha), alpha=ONE),
    "a distance": hidden(lambda n, h: (h - n.alpha).abs(), alpha=ONE),
    "a clip by a tensor": hidden(lambda n, h: h.clamp(max=torch.full_like(h, 0.4))),
    "stacked": hidden(lambda n, h: torch.stack([h.relu(), h.relu() * 0.5]).sum(0)),
}


@pytest.mark.parametrize("name", NOT_SCALED)
def test_what_lets_no_scale_through_is_refused_or_exact(name):
    for seed in range(5):
        torch.manual_seed(seed)
        net, x, other = settle(NOT_SCALED[name]()), torch.randn(FLAT).double(), 20 * torch.randn(9, 5).double()
        before = outputs(net, other)
        try:
            split_neuron(net, "a", 1, example_inputs=x, rule="scaled", rng=rng(), together=True)
        except ValueError as error:
            assert "rule 'scaled' is not exact through" in str(error)
        assert relative_change(before, outputs(net, other)) <= 1e-10
        split_neuron(net, "a", 1, example_inputs=x, rule="outgoing", rng=rng(), together=True)
        assert relative_change(before, outputs(net, other)) <= 1e-10


HIDDEN_BY_SILENCE = {  # what only examples that reach the unit would show
    "a product of three": summed(lambda a, b: a.relu() ** 2 * b.relu()),
    "a cube": summed(lambda a, b: a.relu() ** 3),
    "a bounded one": summed(lambda a, b: F.relu6(a)),
    "a logarithm": summed(lambda a, b: torch.log1p(a.relu())),
    "softplus of a weight": read_through(F.softplus),
    "tanh of a weight": read_through(torch.tanh),
    "a square of a weight": read_through(torch.square),
    "columns of length 1": read_through(lambda w: F.normalize(w, dim=0)),
    "a rounded weight": read_through(lambda w: (4 * w).round() / 4),
}


@pytest.mark.parametrize("name", HIDDEN_BY_SILENCE)
def test_a_silent_unit_hides_no_change(name):
    for seed in range(20):
        torch.manual_seed(seed)
        net, x, other = settle(HIDDEN_BY_SILENCE[name]()), torch.randn(1, 5).double(), torch.randn(50, 5).double()
        before = outputs(net, other)
        try:
            split_neuron(net, "a", 1, example_inputs=x, rule="even", together=True)
        except ValueError:
            continue
        assert relative_change(before, outputs(net, other)) <= 1e-10


def attention(window=6):
    """The window has the size that the heads have together, and no other reason to grow."""

    def forward(n, x):
        i = torch.arange(x.shape[1])
        q, k, v = (t.unflatten(-1, (n.heads, -1)).transpose(1, 2) for t in n.qkv(x).split(n.dim, -1))
        far = (i[:, None] - i).abs() >= n.window
        mixed = (q @ k.mT).masked_fill(far, -1e9).softmax(-1) @ v
        return n.out(mixed.transpose(1, 2).reshape(len(x), -1, n.dim))

    net = Custom(forward, qkv=nn.Linear(5, 18), out=nn.Linear(6, 2))
    net.dim, net.heads, net.window = 6, 2, window
    return net


def test_a_number_that_no_run_needs_stays():
    torch.manual_seed(0)
    net, x, other = settle(attention()), torch.randn(2, 4, 5).double(), torch.randn(2, 20, 5).double()
    before = outputs(net, other)
    split_neuron(net, "qkv", 0, example_inputs=x, rule="even", together=True)
    assert (net.dim, net.heads, net.window) == (9, 3, 6)
    assert relative_change(before, outputs(net, other)) <= 1e-10


@pytest.mark.parametrize("config", [{"n": 5}, (1, 2), "small", 5, [5], type("Slots", (), {"__slots__": ("n",)})()])
def test_a_configuration_of_any_kind_is_left_alone(config):
    net = settle(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)))
    net.config = config
    record = split_neuron(net, "0", 1, example_inputs=torch.randn(FLAT).double())
    assert net[0].out_features == 7 and record.unsaved == ""


class Writes(nn.Module):
    """It notes in its configuration what follows from it."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        config.size = config.width // config.heads
        self.qkv, self.out = nn.Linear(5, 3 * config.width), nn.Linear(config.width, 2)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.config.heads, self.config.size)).permute(2, 0, 3, 1, 4)
        return self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


def test_making_the_network_again_writes_into_no_configuration_of_the_users():
    net, x = settle(Writes(SimpleNamespace(width=6, heads=2))), torch.randn(2, 4, 5).double()
    before = outputs(net, x)
    split_neuron(net, "qkv", 1, example_inputs=x, rule="even", together=True)
    assert vars(net.config) == {"width": 9, "heads": 3, "size": 3}
    assert relative_change(before, outputs(net, x)) <= 1e-12


@pytest.mark.parametrize("read", ["matmul", "einsum", "inner", "linear"])
def test_a_vector_reads_the_channels(read):
    ways = {
        "matmul": lambda n, h: h @ n.q, "einsum": lambda n, h: torch.einsum("bd,d->b", h, n.q),
        "inner": lambda n, h: torch.inner(h, n.q), "linear": lambda n, h: F.linear(h, n.q[None]),
    }  # fmt: skip
    net = Custom(lambda n, x: ways[read](n, torch.relu(n.a(x))), a=nn.Linear(5, 6))
    net.q = nn.Parameter(torch.randn(6))
    x, before = torch.randn(FLAT).double(), None
    before = outputs(settle(net), x)
    for rule in ("scaled", "outgoing", "even"):
        split_neuron(net, "a", 1, example_inputs=x, rule=rule, rng=rng())
        assert relative_change(before, outputs(net, x)) <= 1e-12
    assert net.q.shape == (9,)


@pytest.mark.parametrize("dim", [0, 2, None])
def test_weight_norm_over_three_axes(dim):
    torch.manual_seed(0)
    net = settle(nn.Sequential(nn.Conv1d(2, 6, 1), nn.ReLU(), weight_norm(nn.Conv1d(6, 3, 3), dim=dim)))
    x = torch.randn(2, 2, 7).double()
    before = outputs(net, x)
    split_neuron(net, "0", 1, example_inputs=x, rule="antisymmetric", rng=rng())
    assert relative_change(before, outputs(net, x)) <= 1e-12


def test_weight_norm_of_a_single_unit_is_refused():
    net = settle(nn.Sequential(weight_norm(nn.Linear(5, 1)), nn.ReLU(), nn.Linear(1, 2)))
    with pytest.raises(ValueError, match="weight norm over an axis with one entry: allowed are axes with several"):
        split_neuron(net, "0", 0, example_inputs=torch.randn(FLAT).double(), rule="even")


def test_the_state_goes_as_the_gradient_where_no_parameter_reads():
    torch.manual_seed(0)
    net, x = settle(summed(lambda a, b: a * b)()), torch.randn(FLAT).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9)
    net(x).square().sum().backward()
    optimizer.step()
    split_neuron(net, "a", 1, example_inputs=x, optimizer=optimizer, rule="even", together=True)
    net.zero_grad()
    net(x).square().sum().backward()
    for p in net.parameters():
        torch.testing.assert_close(optimizer.state[p]["momentum_buffer"], p.grad, rtol=1e-10, atol=1e-12)


def noting(n, x):
    n.masks.setdefault(x.dtype, torch.ones(()).to(x))
    n.last.append(random.random() + np.random.rand())
    n.steps = n.steps + 1
    return n.out(torch.relu(n.a(x)) * n.masks[x.dtype])


@pytest.mark.parametrize("layer", ["a", "out"])
def test_what_a_run_notes_and_draws_is_as_before(layer):
    net = Custom(noting, a=nn.Linear(5, 6), out=nn.Linear(6, 2))
    net.masks, net.last = {}, []
    net.register_buffer("steps", torch.zeros(()))
    x, states = torch.randn(FLAT), (random.getstate(), np.random.get_state()[1].copy())
    splittable(net, x)
    try:
        split_neuron(net, layer, 1, example_inputs=x)
    except ValueError:
        assert layer == "out"
    assert net.masks == {} and net.last == [] and net.steps == 0
    assert random.getstate() == states[0] and np.array_equal(np.random.get_state()[1], states[1])
    net(x)


def test_one_layer_that_is_not_found_hides_no_other_from_the_table():
    cell = nn.utils.parametrizations.weight_norm(nn.GRUCell(5, 6), "weight_hh")
    net = Custom(lambda n, x: n.out(n.cell(torch.relu(n.a(x)))), a=nn.Linear(5, 5), cell=cell, out=nn.Linear(6, 2))
    table = splittable(net, torch.randn(FLAT)).set_index("layer")
    assert table.splits_together["a"] == 1 and table.reason["a"] == ""
    assert (table.splits_together == 0).sum() > 0


def tied_by_memory(tie):
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 5))
    if tie == "parameter":
        net[2].weight = nn.Parameter(net[0].weight.t())
    elif tie == "data":
        net[2].weight.data = net[0].weight.data.t()
    else:
        net.register_buffer("flat", net[0].weight.data.view(-1))
    return net


@pytest.mark.parametrize("tie", ["parameter", "data", "a buffer"])
def test_two_parameters_with_one_memory_are_refused_and_stay_tied(tie):
    net, x = tied_by_memory(tie), torch.randn(FLAT)
    before = net[0].weight.data_ptr()
    with pytest.raises(ValueError, match="^'(2.weight|flat)' has entries of '0.weight' in its memory: allowed is one"):
        split_neuron(net, "0", 1, example_inputs=x)
    assert net[0].weight.data_ptr() == before and net[0].weight.shape == (6, 5)


def test_parameters_that_are_parts_of_one_memory_split():
    net, flat = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(100)
    net[0].weight.data, net[2].weight.data = flat[:30].view(6, 5), flat[30:42].view(2, 6)
    x = torch.randn(FLAT)
    before = outputs(net, x)
    split_neuron(net, "0", 1, example_inputs=x)
    assert net[0].out_features == 7 and relative_change(before, outputs(net, x)) < 1e-5


GENERATORS = {
    "torch": (lambda: torch.Generator().manual_seed(3), lambda g: float(torch.randn(1, generator=g))),
    "numpy": (lambda: np.random.default_rng(3), lambda g: g.normal()),
    "an old numpy": (lambda: np.random.RandomState(3), lambda g: g.normal()),
    "python": (lambda: random.Random(3), lambda g: g.gauss(0, 1)),
}


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_that_a_network_holds_draws_the_same_in_every_run_and_stays(kind):
    make, draw = GENERATORS[kind]
    net = Custom(lambda n, x: n.out(torch.relu(n.a(x))) + draw(n.rng), a=nn.Linear(5, 6), out=nn.Linear(6, 2))
    net.rng, x = make(), torch.randn(FLAT)
    splittable(net, x)
    split_neuron(net, "a", 1, example_inputs=x)
    assert net.a.out_features == 7 and draw(net.rng) == draw(make())


def test_what_a_run_notes_in_tensors_and_nested_lists_is_as_before():
    def forward(n, x):
        n.steps += 1
        n.array += 1
        n.seen["shapes"][0].append(x.shape)
        return n.out(torch.relu(n.a(x)))

    net = Custom(forward, a=nn.Linear(5, 6), out=nn.Linear(6, 2))
    net.steps, net.array, net.seen = torch.zeros(2), np.zeros(3), {"shapes": [[]]}
    splittable(net, torch.randn(FLAT))
    split_neuron(net, "a", 1, example_inputs=torch.randn(FLAT))
    assert net.steps.tolist() == [0, 0] and net.array.tolist() == [0, 0, 0] and net.seen == {"shapes": [[]]}


EXITS = {
    "numpy": lambda h: h.detach().numpy().sum(),
    "array": lambda h: np.asarray(h.detach()).sum(),
    "tolist": lambda h: sum(map(sum, h.tolist())),
}


@pytest.mark.parametrize("name", EXITS)
def test_numbers_that_leave_the_network_bar_their_channels(name):
    """The limit is not reached by the example inputs, so no check would see what it depends on."""
    net = Custom(
        lambda n, x: n.out((h := torch.relu(n.a(x))) * min(1.0, 60 / (float(EXITS[name](h)) + 1e-9))),
        a=nn.Linear(5, 6), out=nn.Linear(6, 2),
    )  # fmt: skip
    x = 0.01 * torch.randn(FLAT)
    why = rf"{name}\(\) takes its numbers out of the network"
    assert re.search(why, splittable(net, x).reason[0])
    for rule in ("scaled", "outgoing"):
        with pytest.raises(ValueError, match=rf"^'a' has no exact split known \({why}\): allowed are"):
            split_neuron(net, "a", 1, example_inputs=x, rule=rule)


class Experts(nn.Module):
    """Two layers of which one call may use only one."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 2)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))

    def forward(self, x, which=(0,)):
        return self.b(sum(self.experts[i](torch.relu(self.a(x))) for i in which))


def test_experts_are_split_only_where_the_inputs_reach_them_all():
    """One that is not reached would go on reading as many channels as before."""
    net, x = Experts(), torch.randn(FLAT)
    why = "the example inputs reach 'experts.0.weight' and not 'experts.1.weight': allowed are such as reach both"
    assert splittable(net, x).set_index("layer").reason["a"] == why
    with pytest.raises(ValueError, match=re.escape(f"'a' has no exact split known ({why})")):
        split_neuron(net, "a", 1, example_inputs=x)
    split_neuron(net, "a", 1, example_inputs={"x": x, "which": (0, 1)})
    assert [expert.in_features for expert in net.experts] == [7, 7]


def test_a_network_that_has_not_run_is_named_by_every_function():
    def lazy():
        return nn.Sequential(nn.LazyLinear(6), nn.ReLU(), nn.Linear(6, 2))

    x = torch.randn(FLAT)
    for call in (partial(splittable, lazy(), x), partial(neuron_scores, lazy(), "0", lambda n, b: n(b).mean(), [x])):
        with pytest.raises(ValueError, match="^'0' is a LazyLinear that has not run: run the network once first$"):
            call()


def test_records_that_cannot_all_be_replayed_change_nothing():
    net, other = (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)) for _ in range(2))
    record = split_neuron(net, "0", 1, example_inputs=torch.randn(FLAT))
    before = dict(other.named_parameters())
    with pytest.raises(ValueError, match=r"has the shape \[2, 7\]: allowed is \[2, 6\], as recorded$"):
        replay([record, record], other)
    assert other[0].out_features == 6 and all(one is before[name] for name, one in other.named_parameters())
