"""What use by strangers found: accepted splits that were wrong, and refusals that left something changed."""

import pytest
import torch
from networks import in_double, outputs, relative_change, rng, settle
from torch import nn
from torch.nn import functional as F

from neuronsplit import replay, split_neuron, splittable

X = in_double(torch.randn(9, 8, generator=torch.Generator().manual_seed(0)))


def two_layers(hidden=6):
    return nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, 2))


OPTIMIZERS = [torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop, torch.optim.Adafactor]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_states_of_a_single_neuron_are_split(kind):
    net = settle(two_layers(1))
    optimizer = kind(net.parameters(), lr=1e-3)
    net(X).sum().backward()
    optimizer.step()
    split_neuron(net, "0", 0, example_inputs=X, optimizer=optimizer, rng=rng())
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if value.dim() and key not in ("row_var", "col_var"):
                assert value.shape == parameter.shape, key
        if "row_var" in state:
            assert state["row_var"].shape == (len(parameter), 1) and state["col_var"].shape == (1, parameter.shape[1])
    net(X).sum().backward()
    optimizer.step()


class Forward(nn.Module):
    """Layers a and b, with a forward pass of the test's own."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.a, self.b, self.run = nn.Linear(8, 6), nn.Linear(6, 3), forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.run(self, x)


class Listed(nn.Module):
    """Parameters that a plain list holds beside the module."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(6, 8)), nn.Parameter(torch.randn(3, 6))
        self.all = [self.a, self.b]

    def forward(self, x):
        return F.linear(F.relu(F.linear(x, self.all[0])), self.all[1])


class Stateful(nn.Module):
    """Notes its last state and counts its runs; a size is written in."""

    def __init__(self):
        super().__init__()
        self.rnn, self.a, self.b, self.last = nn.GRU(8, 6, batch_first=True), nn.Linear(6, 5), nn.Linear(5, 2), None
        self.register_buffer("n", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.n += 1
        h, last = self.rnn(x[None], self.last)
        self.last = last.detach()
        return self.b(self.a(h).view(-1, 5))


class Answer:
    """An output of a type that nobody knows."""

    def __init__(self, mean):
        self.mean = mean


@pytest.mark.parametrize("net, layer, message", [
    (Forward(lambda n, x: n.b(h := n.a(x)) + n.c(h.max(1).indices), c=nn.Embedding(9, 3)), "a", "place among the"),
    (Listed(), "a", "do not reach it"),
    (Forward(lambda n, x: (Answer(n.b(n.a(x))), x.sum())), "b", "it is in the network's output"),
    (Forward(lambda n, x: n.b(n.a(x) + (torch.ones(6).double() if n.training else 0))), "a", "in training"),
    (Forward(lambda n, x: n.b(torch.view_as_real(torch.view_as_complex(n.a(x).view(-1, 3, 2)) ** 2).flatten(1))), "a",
     "addmm in b"),
])  # fmt: skip
def test_what_was_accepted_and_wrong_is_refused(net, layer, message):
    net = settle(net)
    with pytest.raises(ValueError, match=message):
        split_neuron(net, layer, 1, example_inputs=X, rule="even", rng=rng())


def test_a_refusal_leaves_buffers_and_attributes_as_they_were():
    net = settle(Stateful())
    with pytest.raises(ValueError, match="has no exact split known"):
        split_neuron(net, "a", 1, example_inputs=X, rule="even")
    splittable(net, X)
    assert net.n == 0 and net.last is None and net.training is False
    net(X)
    assert net.n == 1


def test_a_network_is_not_touched_by_a_refusal_of_a_recurrent_layer():
    net = settle(nn.Sequential(nn.GRU(8, 6)))
    before = net(X)[0]
    with pytest.raises(ValueError, match="it is in the network's output"):
        split_neuron(net, "0", 1, example_inputs=X, rule="even")
    assert torch.equal(net(X)[0], before)


def test_replay_takes_one_record_and_names_what_is_none():
    net, fresh = settle(two_layers()), settle(two_layers())
    fresh.load_state_dict(net.state_dict())
    record = split_neuron(net, "0", 1, example_inputs=X, rng=rng())
    replay(record, fresh)
    assert relative_change(outputs(net, X), outputs(fresh, X)) == 0
    with pytest.raises(
        ValueError, match="^record '3': allowed are records of split_neuron, or what JSON made of them$"
    ):
        replay([3], fresh)
