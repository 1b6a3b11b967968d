"""What the example inputs do not show is refused or exact all the same: the labels are right by themselves.

The examples are nearly constant, so that the check of the outputs sees little. Other inputs, and layers that begin at
zero and are no longer, show whether the split was exact.
"""

import copy

import pytest
import torch
from networks import Custom, outputs, relative_change, rng, split_exactly
from torch import nn

from neuronsplit.surgery.split_neuron import split_neuron


def hidden(forward, **modules):
    """A network with what an example of zeros or ones does not show, and the inputs that do show it."""
    torch.manual_seed(0)
    return Custom(forward, **modules | {"a": nn.Linear(3, 5), "b": nn.Linear(5, 2)}).double()


def zero(n_in, n_out):
    layer = nn.Linear(n_in, n_out)
    nn.init.zeros_(layer.weight)
    return layer


HIDDEN = {
    "scale and a mask": (lambda n, x: n.b(n.a(x).abs().masked_fill(x[:, :1] > 2, 0.5)), "scaled"),
    "scale and a cast to whole numbers": (lambda n, x: n.b((n.a(x) / 9).long().double()), "scaled"),
    "scale and a division that rounds": (lambda n, x: n.b(n.a(x).abs().div(9, rounding_mode="floor")), "scaled"),
    "scale and a floor": (lambda n, x: n.b((n.a(x) / 9).trunc()), "scaled"),
    "scale and a hard step": (lambda n, x: n.b(nn.functional.threshold(n.a(x), -50.0, -50.0)), "scaled"),
    "scale and a clamp": (lambda n, x: n.b(n.a(x).clamp(-20, 20)), "scaled"),
    "scale and a softshrink": (lambda n, x: n.b(nn.functional.relu6(n.a(x) / 3)), "scaled"),
    "a mask as an index": (lambda n, x: n.b(n.a(x)) + len((h := n.a(x))[h > 4]), "outgoing"),
    "a count": (lambda n, x: n.b(n.a(x)) + (n.a(x) > 4).sum(1, keepdim=True), "outgoing"),
    "a sum": (lambda n, x: n.b(n.a(x)) + (n.a(x) - 4).relu().sum(1, keepdim=True), "outgoing"),
    "a position": (lambda n, x: n.b(n.a(x)) + (n.a(x) - 4).relu().argmax(1, keepdim=True), "outgoing"),
    "a norm": (lambda n, x: n.b(n.a(x)) + (n.a(x) - 4).relu().norm(dim=1, keepdim=True), "outgoing"),
    "a sum behind zeros": (lambda n, x: n.b(n.a(x)) + n.zero(n.a(x).sum(1, keepdim=True)), "outgoing"),
    "a product behind zeros": (lambda n, x: n.b(n.a(x)) + n.zero((n.a(x) * n.a(x)).sum(1, keepdim=True)), "outgoing"),
    "a lower triangle": (lambda n, x: n.b((n.a(x) - 4).relu().tril()), "outgoing"),
    "a written slice": (lambda n, x: n.b(torch.cat([(n.a(x) - 4).relu()[:, :2], n.a(x)[:, 2:]], 1)), "outgoing"),
}  # fmt: skip


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("name", HIDDEN)
def test_what_the_example_does_not_show_is_refused_or_exact_all_the_same(name, together):
    forward, rule = HIDDEN[name]
    net, x = hidden(forward, zero=zero(1, 2)), 20 * torch.randn(6, 3).double()
    unsplit = copy.deepcopy(net)
    try:
        split_neuron(
            net, "a", 1, example_inputs=0.01 * torch.ones(6, 3).double(), rule=rule, rng=rng(), together=together
        )
    except ValueError:
        return
    for one in (net, unsplit):
        nn.init.constant_(one.zero.weight, 0.7)
    change = relative_change(outputs(unsplit, x), outputs(net, x))
    assert change <= 1e-11


@pytest.mark.parametrize("where", ["0", "1.linear2", "1.self_attn.in_proj_weight", "2.linear1"])
@pytest.mark.parametrize(("n_heads", "width"), [(1, 2), (2, 2), (1, 4)])
def test_norms_of_two_channels_hide_nothing(n_heads, width, where):
    """They pass on the sign of a difference only, so that what comes before may change unseen."""
    torch.manual_seed(0)
    encoders = [
        nn.TransformerEncoderLayer(width, n_heads, 5, 0.0, batch_first=True, layer_norm_eps=1e-8) for _ in range(2)
    ]
    net, x = nn.Sequential(nn.Linear(3, width), *encoders, nn.Linear(width, 2)), torch.randn(500, 4, 3)
    split_exactly(net, where, x[:2], [x], neuron=1, rule="outgoing", together=True)
    assert where == "2.linear1" or net[1].self_attn.num_heads == 2 * n_heads
