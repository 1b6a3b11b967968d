"""What the example inputs do not show is refused or exact all the same: the labels are right by themselves.

The examples are nearly constant, so that the check of the outputs sees little. Other inputs, and layers that begin at
zero and are no longer, show whether the split was exact.
"""

import copy

import pytest
import torch
from networks import Custom, outputs, relative_change, rng, split_exactly
from sampling import one_in
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

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
@pytest.mark.parametrize(("n_heads", "width"), one_in(3, [(2, 2), (1, 2), (1, 4)]))
def test_norms_of_two_channels_hide_nothing(n_heads, width, where):
    """They pass on the sign of a difference only, so that what comes before may change unseen."""
    torch.manual_seed(0)
    encoders = [
        nn.TransformerEncoderLayer(width, n_heads, 5, 0.0, batch_first=True, layer_norm_eps=1e-8) for _ in range(2)
    ]
    net, x = nn.Sequential(nn.Linear(3, width), *encoders, nn.Linear(width, 2)), torch.randn(500, 4, 3)
    split_exactly(net, where, x[:2], [x], neuron=1, rule="outgoing", together=True)
    assert where == "2.linear1" or net[1].self_attn.num_heads == 2 * n_heads


class Attention(nn.Module):
    """Attention of one head or more, with a norm of its own before it, to numbers or to words."""

    def __init__(self, n_heads, words, **of_norm):
        super().__init__()
        self.embed = nn.Embedding(7, 4) if words else nn.Linear(3, 4)
        self.qkv, self.o, self.head, self.n_heads = nn.Linear(4, 12), nn.Linear(4, 4), nn.Linear(4, 2), n_heads
        self.weight, self.of_norm = nn.Parameter(torch.ones(4)), bool(of_norm)
        vars(self).update(of_norm)

    def forward(self, x):
        x = self.embed(x)
        h = x * torch.rsqrt(x.square().mean(-1, keepdim=True).clamp(min=self.eps_min) + self.eps) if self.of_norm else x
        q, k, v = (self.weight * h @ self.qkv.weight.mT + self.qkv.bias).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for t in (q, k, v))
        out = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
        return self.head(x + self.o(out.transpose(1, 2).flatten(2)))


BLIND = {
    "one token": (False, torch.randn(1, 1, 3)), "words that are all the same": (True, torch.zeros(1, 6).long()),
    "large numbers": (False, 1000 * torch.randn(2, 4, 3)), "ones": (False, torch.ones(2, 4, 3)),
}  # fmt: skip


@pytest.mark.parametrize("of_norm", [{}, {"eps": 1e-6, "eps_min": 1e-18}], ids=["no norm", "two eps"])
@pytest.mark.parametrize("where", one_in(2, ["embed", "qkv", "o"]))
@pytest.mark.parametrize("n_heads", one_in(2, [2, 1]))
@pytest.mark.parametrize("name", BLIND)
def test_attention_is_seen_where_softmax_is_constant_or_saturated(name, n_heads, where, of_norm):
    words, example = BLIND[name]
    torch.manual_seed(0)
    net = Attention(n_heads, words, **of_norm).double()
    x = torch.randint(7, (50, 6)) if words else torch.randn(50, 6, 3).double()
    before = outputs(net, x)
    example = example if words else example.double()
    for neuron in (1, 11 if where == "qkv" else 3):
        try:
            split_neuron(net, where, neuron, example_inputs=example, rule="outgoing", rng=rng(), together=True)
        except ValueError:
            continue
        assert relative_change(before, outputs(net, x)) <= 1e-9


def test_only_the_eps_of_a_norm_is_scaled():
    net = hidden(lambda n, x: n.b(n.norm(n.a(x))), norm=nn.RMSNorm(5, eps=1e-5))
    net.norm.timesteps, net.norm.n_steps = 1000.0, 0.05
    split_exactly(net, "a", torch.randn(6, 3), neuron=1, rule="outgoing")
    assert (net.norm.timesteps, net.norm.n_steps) == (1000.0, 0.05) and net.norm.eps == pytest.approx(1e-5 * 5 / 6)


@pytest.mark.parametrize("rule", ["scaled", "outgoing", "even"])
def test_a_tied_decoder_before_a_clamp_is_refused_or_exact(rule):
    """The example is within the clamp, which lets no scale through."""
    net = hidden(
        lambda n, x: n.b((torch.tanh(n.a(x) @ n.w.mT) @ n.w).clamp(-0.5, 0.5)), w=nn.Parameter(torch.randn(2, 5))
    )
    x = 20 * torch.randn(50, 3).double()
    before = outputs(net, x)
    try:
        split_neuron(net, "a", 0, example_inputs=torch.zeros(2, 3).double(), rule=rule, rng=rng())
    except ValueError:
        return
    assert relative_change(before, outputs(net, x)) <= 1e-11


class Attending(nn.Module):
    """A decoder attends to what a packed encoder makes of sentences, which has zeros behind their ends."""

    def __init__(self):
        super().__init__()
        self.embed, self.encoder = nn.Embedding(9, 4), nn.GRU(4, 5, bidirectional=True, batch_first=True)
        self.score, self.out = nn.Linear(10, 1), nn.Linear(10, 3)

    def forward(self, words, lengths):
        packed = pack_padded_sequence(self.embed(words), lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.encoder(packed)[0], batch_first=True)  # (B, T, 10)
        weights = self.score(states).squeeze(2).masked_fill(words == 0, -1e10).softmax(1)
        return self.out(torch.bmm(weights.unsqueeze(1), states).squeeze(1))


def test_what_is_behind_the_end_of_a_sentence_is_no_other_channel():
    torch.manual_seed(0)
    words, others = (torch.randint(1, 9, shape) for shape in ((3, 5), (2, 4)))
    words[1, 3:], others[0, 2:] = 0, 0
    inputs = (words, torch.tensor([5, 3, 5])), (others, torch.tensor([2, 4]))
    split_exactly(Attending(), "encoder", inputs[0], [inputs[1]], neuron=1, rule="outgoing")
