"""Runs of a network in both modes: what it does in training is followed too, where it is not the same."""

import numpy as np
import pytest
import torch
from torch import nn

from neuronsplit.surgery import exactness, rules
from neuronsplit.surgery.labels import Labels
from neuronsplit.surgery.split_neuron import split_neuron
from neuronsplit.surgery.trace import trace, trace_in_training

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


class TwoModes(nn.Module):
    """A network whose last step is another one in training, by the same operations."""

    def __init__(self, last):
        super().__init__()
        self.a, self.b, self.c, self.norm = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.dropout, self.last = nn.Dropout(0.5), last

    def forward(self, x):
        return self.last(self, self.dropout(torch.relu(self.norm(self.a(x)))))


SAME = {
    "as it is": lambda net, h: net.b(h),
    "both computed": lambda net, h: net.b(h) + net.c(h),
}
OTHER = {
    "another parameter": lambda net, h: (net.c if net.training else net.b)(h),
    "another output": lambda net, h: (h, net.b(h))[0 if net.training else 1],
    "another axis": lambda net, h: net.b(h) + h.mean(0 if net.training else 1).sum(),
    "another order": lambda net, h: net.c(net.b(h)) if net.training else net.b(net.c(h)),
    "dropout as a function": lambda net, h: net.b(nn.functional.dropout(h, training=net.training)),
    "fails": lambda net, h: net.b(h.view(0) if net.training else h),
}


@pytest.mark.parametrize("name", [*SAME, *OTHER])
def test_training_is_followed_where_it_is_another_computation(name, monkeypatch):
    """Dropout and the statistics of BatchNorm are no other computation."""
    net, n_followed, follow = TwoModes((SAME | OTHER)[name]).eval(), [], rules.follow
    monkeypatch.setattr(rules, "follow", lambda *arguments: (n_followed.append(1), follow(*arguments)))
    labels = Labels(net)
    in_evaluation = trace(net, lambda: net(X), labels)
    before = len(n_followed)
    in_training = trace_in_training(net, lambda: net(X), labels, in_evaluation)
    assert (in_training.exception is None) == (name != "fails")
    assert (in_training.operations != in_evaluation.operations) == (name in OTHER)
    assert (len(n_followed) > before) == (name in OTHER)
    assert not net.training


def test_what_training_gives_back_is_not_split():
    with pytest.raises(ValueError, match="in the network's output"):
        split_neuron(TwoModes(OTHER["another output"]), "a", 0, example_inputs=X)


def test_what_reads_a_channel_in_training_only_is_split_too():
    torch.manual_seed(0)
    net = TwoModes(OTHER["another parameter"]).double()
    net.dropout.p = 0.0
    before = net(X.double())
    split_neuron(net, "a", 2, example_inputs=X.double(), rng=np.random.default_rng(0))
    assert torch.allclose(net(X.double()), before, rtol=1e-12, atol=1e-12)


def test_a_device_without_double_precision(monkeypatch):
    """The check is then in the network's own precision."""

    def no_double(*_):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(exactness, "_doubled", no_double)
    net = TwoModes(SAME["as it is"])
    before = net.eval()(X)
    record = split_neuron(net, "a", 0, example_inputs=X, rng=np.random.default_rng(0))
    assert 0 < record.change < exactness.TOLERANCES[torch.float32]
    assert torch.allclose(net(X), before, atol=1e-5)


class WithToken(nn.Module):
    """A learned token stands beside what a layer makes; they are tied only where a residual sum is read."""

    def __init__(self):
        super().__init__()
        self.embed, self.token = nn.Linear(6, 4), nn.Parameter(torch.randn(1, 4))
        self.norm, self.inner = nn.LayerNorm(4), nn.Linear(4, 4)
        self.last, self.head = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        x = torch.cat([self.token, self.embed(x)])
        return self.head(self.last(x + self.inner(self.norm(x))))


def test_channels_that_are_tied_after_a_norm_take_a_scale():
    torch.manual_seed(0)
    net = WithToken()
    record = split_neuron(net, "embed", 0, example_inputs=X, rule="scaled", together=True)
    assert record.change < 1e-12
    assert {tuple(place[:3]) for place in record.places} >= {("norm.weight", 0, "makes"), ("norm.bias", 0, "makes")}
