"""The constructions of exact splits, each at 1e-12 in float64, and wrong as soon as one share of it is.

The counterexample of each: the same split with the share of one twin in one reader 1 % too large is no longer exact.
"""

import copy

import pytest
import torch
from networks import EXACT, Custom, in_double, outputs, relative_change, rng, settle
from torch import nn
from torch.nn.functional import gelu, glu, pixel_shuffle, scaled_dot_product_attention, silu

from neuronsplit.surgery.split_neuron import split_neuron

UNSCALED = [rule for rule in EXACT if not rule.startswith("scaled")]


def linear(*sizes):
    return {name: nn.Linear(n_in, n_out) for name, n_in, n_out in sizes}


def hidden(activation):
    return lambda: nn.Sequential(nn.Linear(5, 6), activation(), nn.Linear(6, 3))


def swiglu():
    return Custom(
        lambda n, x: n.down(silu(n.gate(x)) * n.up(x)), **linear(("gate", 5, 6), ("up", 5, 6), ("down", 6, 5))
    )


def packed_glu():
    return Custom(lambda n, x: n.down(glu(n.up(x), -1)), **linear(("up", 5, 12), ("down", 6, 5)))


def packed_by_chunk():
    def forward(net, x):
        gate, value = net.up(x).chunk(2, -1)
        return net.down(gelu(gate) * value)

    return Custom(forward, **linear(("up", 5, 12), ("down", 6, 5)))


def convolutions(norm, conv=nn.Conv2d):
    return lambda: nn.Sequential(conv(2, 6, 3), norm(6), nn.ReLU(), conv(6, 3, 1))


def grouped(groups=3):
    return nn.Sequential(
        nn.Conv1d(2, 6, 1), nn.ReLU(), nn.Conv1d(6, 6, 1, groups=groups), nn.ReLU(), nn.Conv1d(6, 3, 1)
    )


def residual(norm):
    """A residual axis of width 6 with an MLP, a norm before it and one at the end."""

    def forward(net, x):
        h = net.embed(x)
        h = h + net.down(gelu(net.up(net.norm(h))))
        return net.head(net.last(h))

    return lambda: Custom(forward, norm=norm(6), last=norm(6),
                          **linear(("embed", 5, 6), ("up", 6, 7), ("down", 7, 6), ("head", 6, 3)))  # fmt: skip


def by_hand(width):
    """RMSNorm as language models write it."""
    net = Custom(lambda n, x: n.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)))
    net.weight = nn.Parameter(torch.rand(width) + 0.5)
    return net


def attention(n_heads=3, n_kv=3, size=4, kernel=True):
    """Attention of tokens of width 6; with n_kv < n_heads, queries share keys and values."""

    def heads(x, n):
        return x.unflatten(-1, (-1, size)).transpose(1, 2)

    def forward(net, x):
        q, k, v = heads(net.q(x), n_heads), heads(net.k(x), n_kv), heads(net.v(x), n_kv)
        k, v = (t.repeat_interleave(n_heads // n_kv, 1) for t in (k, v))
        if kernel:
            out = scaled_dot_product_attention(q, k, v)
        else:
            out = (q @ k.mT / size**0.5).softmax(-1) @ v
        return net.o(out.transpose(1, 2).flatten(2))

    inner, kv = n_heads * size, n_kv * size
    return Custom(forward, **linear(("q", 6, inner), ("k", 6, kv), ("v", 6, kv), ("o", inner, 6)))


def packed_attention():
    """As in ViTs: q, k and v are packed in one matrix."""

    def forward(net, x):
        q, k, v = net.qkv(x).reshape(*x.shape[:2], 3, -1, 4).permute(2, 0, 3, 1, 4)
        return net.o(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    return Custom(forward, **linear(("qkv", 6, 36), ("o", 12, 6)))


class Tagger(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.rnn = kind(5, 4, batch_first=True, **options)
        self.head = nn.Linear(8 if options.get("bidirectional") else 4, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Cells(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell, self.head = kind(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


def flattened():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


def shuffled():
    return Custom(lambda n, x: n.b(torch.relu(pixel_shuffle(n.a(x), 2))), a=nn.Conv2d(2, 12, 3), b=nn.Conv2d(3, 2, 1))


def concatenated():
    return Custom(lambda n, x: n.c(torch.cat([x, torch.tanh(n.a(x)), n.b(x)], 1)),
                  **linear(("a", 5, 4), ("b", 5, 3), ("c", 12, 2)))  # fmt: skip


def lora():
    return Custom(lambda n, x: n.base(x) + 2.0 * n.B(n.A(x)), **linear(("base", 5, 3), ("A", 5, 4), ("B", 4, 3)))


FLAT, IMAGE, TOKENS, SIGNAL = (2, 5), (2, 2, 6, 6), (2, 4, 5), (2, 2, 7)
WIDE, TOGETHER = (2, 4, 6), {"together": True}
CONSTRUCTIONS = {  # network, layer, shape of the inputs, rules, options, parameter that reads the last copy
    **{f"before {a.__name__}": (hidden(a), "0", FLAT, UNSCALED, {}, "2.weight") for a in (nn.GELU, nn.Softplus)},
    "before ReLU, scaled": (hidden(nn.ReLU), "0", FLAT, EXACT, {}, "2.weight"),
    "before PReLU, scaled": (hidden(nn.PReLU), "0", FLAT, EXACT, {}, "2.weight"),
    "SwiGLU by its gate": (swiglu, "gate", FLAT, UNSCALED, {}, "down.weight"),
    "SwiGLU by its value": (swiglu, "up", FLAT, EXACT, {}, "down.weight"),
    "GLU packed in one matrix": (packed_glu, "up", FLAT, EXACT, TOGETHER, "down.weight"),
    "GEGLU packed in one matrix": (packed_by_chunk, "up", FLAT, EXACT, TOGETHER, "down.weight"),
    "BatchNorm": (convolutions(nn.BatchNorm2d), "0", IMAGE, EXACT, {}, "3.weight"),
    "transposed convolution": (convolutions(nn.BatchNorm2d, nn.ConvTranspose2d), "0", IMAGE, EXACT, {}, "3.weight"),
    "GroupNorm": (convolutions(lambda n: nn.GroupNorm(3, n)), "0", IMAGE, UNSCALED, TOGETHER, "3.weight"),
    "InstanceNorm": (convolutions(lambda n: nn.InstanceNorm2d(n, affine=True)), "0", IMAGE, EXACT, {}, "3.weight"),
    "grouped convolution": (grouped, "0", SIGNAL, EXACT, TOGETHER, "4.weight"),
    "depthwise convolution": (lambda: grouped(6), "0", SIGNAL, EXACT, {}, "4.weight"),
    "LayerNorm axis": (residual(nn.LayerNorm), "embed", FLAT, EXACT, TOGETHER, "head.weight"),
    "RMSNorm axis": (residual(nn.RMSNorm), "down", FLAT, UNSCALED, TOGETHER, "up.weight"),
    "RMSNorm by hand": (residual(by_hand), "embed", FLAT, UNSCALED, TOGETHER, "head.weight"),
    "attention head by q": (attention, "q", WIDE, UNSCALED, TOGETHER, "o.weight"),
    "attention head by v": (attention, "v", WIDE, UNSCALED, TOGETHER, "o.weight"),
    "attention head by hand": (lambda: attention(kernel=False), "k", WIDE, UNSCALED, TOGETHER, "o.weight"),
    "key and value head with its queries": (lambda: attention(4, 2), "k", WIDE, UNSCALED, TOGETHER, "o.weight"),
    "one key and value head": (lambda: attention(3, 1), "v", WIDE, UNSCALED, TOGETHER, "o.weight"),
    "packed attention": (packed_attention, "qkv", WIDE, UNSCALED, TOGETHER, "o.weight"),
    **{f"{k.__name__} {o}": (lambda k=k, o=o: Tagger(k, **o), "rnn", TOKENS, UNSCALED, {}, "head.weight")
       for k in (nn.LSTM, nn.GRU, nn.RNN) for o in ({}, {"num_layers": 2}, {"num_layers": 2, "bidirectional": True})},
    **{k.__name__: (lambda k=k: Cells(k), "cell", TOKENS, UNSCALED, {}, "head.weight")
       for k in (nn.LSTMCell, nn.GRUCell, nn.RNNCell)},
    "flatten": (flattened, "0", IMAGE, EXACT, {}, "3.weight"),
    "pixel shuffle": (shuffled, "a", IMAGE, EXACT, TOGETHER, "b.weight"),
    "concatenation": (concatenated, "a", FLAT, UNSCALED, {}, "c.weight"),
    "LoRA rank": (lora, "A", FLAT, EXACT, {}, "B.weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_a_construction_is_exact_under_all_of_its_rules(name):
    make, layer, shape, rules, options, _ = CONSTRUCTIONS[name]
    torch.manual_seed(0)
    net, inputs = settle(make()), [in_double(torch.randn(shape)) for _ in range(3)]
    before = [outputs(net, x) for x in inputs]
    for rule in rules:
        split = copy.deepcopy(net)
        record = split_neuron(split, layer, 1, example_inputs=inputs[0], rule=rule, rng=rng(), **options)
        assert max(relative_change(old, outputs(split, x)) for x, old in zip(inputs, before)) <= 1e-12
        assert record.shapes and record.change <= 1e-12
        assert sum(p.numel() for p in split.parameters()) > sum(p.numel() for p in net.parameters())
        assert any(alpha != 1 for alpha, *_ in record.coefficients) == rule.startswith("scaled")


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_a_construction_with_one_wrong_share_is_not_exact(name):
    make, layer, shape, rules, options, reads = CONSTRUCTIONS[name]
    torch.manual_seed(0)
    net, x = settle(make()), in_double(torch.randn(shape))
    before = outputs(net, x)
    record = split_neuron(net, layer, 1, example_inputs=x, rule=rules[0], rng=rng(), **options)
    (place,) = [place for place in record.places if place[0] == reads]
    _, axis, role, _, runs, _ = place
    assert role == "reads"
    with torch.no_grad():
        first, end = runs[0][0]
        net.get_parameter(reads).narrow(axis, first, end - first).mul_(1.01)
    assert relative_change(before, outputs(net, x)) > 1e-5


# A unit of a packed gate and a channel before pixel shuffle are several rows of one layer, and one neuron.
SEVERAL_ROWS = {"GLU packed in one matrix", "GEGLU packed in one matrix", "pixel shuffle"}
ALONE_TOO = {"LayerNorm axis", "RMSNorm axis"}  # one channel, by another rule
SETS = [name for name, (*_, options, _) in CONSTRUCTIONS.items() if options and name not in SEVERAL_ROWS | ALONE_TOO]


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_channels_is_not_split_unasked(name):
    make, layer, shape, *_ = CONSTRUCTIONS[name]
    net = settle(make())
    held = [id(p) for p in net.parameters()]
    with pytest.raises(ValueError, match="has no exact split alone .*: allowed is together=True, which splits"):
        split_neuron(net, layer, 1, example_inputs=in_double(torch.randn(shape)), rule="even")
    assert [id(p) for p in net.parameters()] == held


@pytest.mark.parametrize("name", ["before GELU", "GRU {}"])
def test_a_scale_where_none_comes_through_is_refused(name):
    make, layer, shape, _, options, _ = CONSTRUCTIONS[name]
    net, x = settle(make()), in_double(torch.randn(shape))
    with pytest.raises(ValueError, match="^rule 'scaled' is not exact through .*: allowed are outgoing, antisym"):
        split_neuron(net, layer, 1, example_inputs=x, rule="scaled", **options)
    before = outputs(net, x)
    record = split_neuron(net, layer, 1, example_inputs=x, rule="scaled", unscaled=True, **options)
    assert relative_change(before, outputs(net, x)) <= 1e-12 and record.coefficients[0][:2] == [1, 1]


def test_a_scale_is_in_the_value_of_a_gate_and_never_in_the_gate():
    net, x = settle(swiglu()), in_double(torch.randn(FLAT))
    old = copy.deepcopy(net)
    ((alpha, beta, _, _),) = split_neuron(net, "gate", 1, example_inputs=x, rule="scaled", rng=rng()).coefficients
    torch.testing.assert_close(net.gate.weight[[1, 6]], old.gate.weight[[1, 1]], rtol=0, atol=0)
    torch.testing.assert_close(net.up.weight[[1, 6]], torch.stack([alpha * old.up.weight[1], beta * old.up.weight[1]]))


def test_the_check_finds_a_wrong_share(monkeypatch):
    """A rule that calls itself exact and is not: the split is undone."""
    from neuronsplit.core import split

    wrong = split.SplitRule(lambda rng, n_out: split.Coefficients(1.0, 1.0, 0.5, 0.5001))
    monkeypatch.setitem(split.SPLIT_RULES, "wrong", wrong)
    net, x = settle(hidden(nn.GELU)()), in_double(torch.randn(FLAT))
    weight = net[0].weight
    with pytest.raises(ValueError, match="'0' has no exact split known.*it would change the output by"):
        split_neuron(net, "0", 1, example_inputs=x, rule="wrong")
    assert net[0].weight is weight and net[0].out_features == 6


@pytest.mark.parametrize("name", ["attention head by q", "packed attention", "key and value head with its queries"])
def test_a_head_is_split_and_no_more(name):
    make, layer, shape, _, options, reads = CONSTRUCTIONS[name]
    net, x = settle(make()), in_double(torch.randn(shape))
    width = net.get_parameter(reads).shape[1]
    split_neuron(net, layer, 1, example_inputs=x, rule="even", **options)
    assert net.get_parameter(reads).shape[1] == width + (8 if "queries" in name else 4)


def test_several_heads_follow_one_another_to_any_number():
    net, x = settle(packed_attention()), in_double(torch.randn(WIDE))
    before = outputs(net, x)
    for neuron in (0, 5, 1):
        split_neuron(net, "qkv", neuron, example_inputs=x, rule="outgoing", rng=rng(), together=True)
    assert relative_change(before, outputs(net, x)) <= 1e-12 and net.qkv.weight.shape == (72, 6)
