"""Records of splits, their replay, and state dicts."""

import copy
import json

import pytest
import torch
from networks import FLAT, Residual, cnn, mlp, outputs, plain, rng, settle, split_exactly, train
from torch import nn

from neuronsplit.surgery.split_neuron import replay, split_neuron


def test_a_state_dict_loads_into_a_network_built_at_the_new_size():
    net, x = settle(cnn(nn.ReLU, (4, 3, 5), flat=True)), torch.randn(3, 2, 8, 8).double()
    for layer in ("0", "4", "8"):
        split_neuron(net, layer, 0, example_inputs=x)
    built = cnn(nn.ReLU, (5, 4, 6), flat=True).double().eval()
    built.load_state_dict(net.state_dict())
    assert torch.equal(outputs(built, x), outputs(net, x))
    assert str(built) == str(net)


def test_a_history_is_replayed_on_a_fresh_copy():
    torch.manual_seed(0)
    net, x = settle(Residual()), torch.randn(3, 2, 6, 6).double()
    fresh = copy.deepcopy(net)
    splits = [("stem", [0, 0], "scaled-outgoing"), ("side", [2], "outgoing"), ("a", [5, 1], "scaled")]
    history = [
        split_neuron(net, layer, neurons=n, rule=rule, rng=rng(3), example_inputs=x) for layer, n, rule in splits
    ]
    replay(json.loads(json.dumps(history)), fresh)
    for (name, expected), found in zip(net.state_dict().items(), fresh.state_dict().values()):
        torch.testing.assert_close(found, expected, rtol=1e-15, atol=0, msg=name)


def test_a_record_of_an_unknown_rule_is_refused():
    net, x = mlp(6, 5, 3), torch.randn(9, 6).double()
    record = split_neuron(copy.deepcopy(net), "0", 1, example_inputs=x)
    with pytest.raises(ValueError, match="^rule 'opposed': allowed are scaled, even, outgoing"):
        replay([record._replace(rule="opposed")], net)
    assert net[0].out_features == 5


class Heads(nn.Module):
    """Attention that notes its number of heads, as in many a model, and a configuration that does."""

    def __init__(self, n_heads=3):
        super().__init__()
        self.config = type("Config", (), {})()
        self.config.num_heads, self.num_heads, self.size = n_heads, n_heads, 4
        self.qkv, self.out = nn.Linear(6, 12 * n_heads), nn.Linear(4 * n_heads, 6)

    def forward(self, x):
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.num_heads, self.size).permute(2, 0, 3, 1, 4)
        out = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.out(out.reshape(*x.shape[:2], self.config.num_heads * self.size))


def test_numbers_that_modules_note_go_along_and_are_replayed():
    torch.manual_seed(0)
    net, x = Heads(), torch.randn(2, 5, 6)
    fresh = copy.deepcopy(net)
    fresh.config = type("Config", (), {"num_heads": 3})()
    record = split_exactly(net, "qkv", x, [torch.randn(1, 7, 6)], neuron=1, rule="outgoing", together=True)
    assert (net.num_heads, net.config.num_heads, net.size) == (4, 4, 4)
    replay(json.loads(json.dumps([record])), fresh.double())
    assert (fresh.num_heads, fresh.config.num_heads, fresh.size) == (4, 4, 4)
    torch.testing.assert_close(outputs(fresh, x.double()), outputs(net, x.double()), rtol=1e-14, atol=1e-14)
    built = Heads(4).double()
    built.load_state_dict(net.state_dict())
    assert torch.equal(outputs(built, x.double()), outputs(net, x.double()))


def test_a_replay_on_a_network_that_trains_with_other_weights_splits_the_same_neurons():
    net, other = mlp(6, 5, 3), mlp(6, 5, 3)
    record = split_neuron(net, "0", neurons=[1, 1], example_inputs=torch.randn(4, 6).double(), rng=rng())
    before = outputs(other, x := torch.randn(9, 6).double())
    replay([record], other)
    torch.testing.assert_close(outputs(other, x), before, rtol=1e-12, atol=1e-14)
    assert other[0].weight.shape == (7, 6)
    train(other, torch.optim.SGD(other.parameters(), lr=0.1), 1)


def test_a_replay_after_loading_a_state_dict():
    net, x = mlp(6, 5, 3), torch.randn(4, 6).double()
    saved = copy.deepcopy(net.state_dict())
    record = split_neuron(net, "0", 2, example_inputs=x, rng=rng())
    loaded = mlp(6, 5, 3)
    loaded.load_state_dict(saved)
    replay([record], loaded)
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), net.state_dict().values()))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: mlp(6, 4, 3), r"'.*' has the shape \[.*\]: allowed is \[.*\], as recorded$"),
        (
            lambda: nn.Sequential(nn.Linear(6, 5)),
            "the network has no '2.weight': allowed are records of splits of this",
        ),
    ],
)
def test_a_record_of_another_network_is_refused_and_nothing_changes(make, message):
    record = split_neuron(mlp(6, 5, 3), "0", 1, example_inputs=torch.randn(4, 6).double())
    net = make().double()
    shapes = [p.shape for p in net.parameters()]
    with pytest.raises(ValueError, match=f"^{message}"):
        replay([record], net)
    assert [p.shape for p in net.parameters()] == shapes


def test_a_record_says_what_was_done():
    net = plain()
    record = split_exactly(net, "0", FLAT, neurons=[1, 3, 1])
    assert record.neurons == {"0": [1, 3, 1]} and record.rule == "scaled" and record.change <= 1e-12
    assert record.shapes == {"0.weight": ([4, 5], [7, 5]), "0.bias": ([4], [7]), "2.weight": ([2, 4], [2, 7])}
    assert len(record.coefficients) == 3 and record.sets[0] == record.sets[2] != record.sets[1]
    assert {tuple(number[:2]) for number in record.numbers} == {("0", "out_features"), ("2", "in_features")}
    for alpha, beta, gamma, delta in record.coefficients:
        assert alpha * gamma + beta * delta == pytest.approx(1)
