"""Channels that meet several others, that are summed, and whose weights are normalised: as people write them."""

import pytest
import torch
from networks import EXACT, Custom, outputs, relative_change, rng, settle, split_exactly
from sampling import one_in
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import weight_norm as old_weight_norm
from torch.nn.utils.parametrizations import weight_norm

from neuronsplit.surgery.noted_sizes import weight_norms
from neuronsplit.surgery.split_neuron import replay, split_neuron


def linear(**sizes):
    return {name: nn.Linear(n_in, n_out) for name, (n_in, n_out) in sizes.items()}


def attention_pooling():
    """One weight per token multiplies all of its channels."""

    def forward(n, x):
        h = torch.relu(n.embed(x))
        return n.out((torch.softmax(n.score(torch.tanh(h)), 1) * h).sum(1))

    return Custom(forward, **linear(embed=(5, 6), score=(6, 1), out=(6, 3)))


def one_gate():
    return Custom(lambda n, x: n.out(torch.relu(n.a(x)) * torch.sigmoid(n.gate(x)) + n.shift(x)),
                  **linear(a=(5, 6), gate=(5, 1), shift=(5, 1), out=(6, 3)))  # fmt: skip


def spatial_attention():
    """One map of places, from the mean and the largest of all channels, multiplies all of them (CBAM)."""

    def forward(n, x):
        h = n.conv(x).relu()
        return n.out(h * torch.sigmoid(n.mix(torch.stack([h.mean(1), h.amax(1)], 1)))).mean((2, 3))

    return Custom(forward, conv=nn.Conv2d(2, 6, 3), mix=nn.Conv2d(2, 1, 1), out=nn.Conv2d(6, 3, 1))


def stacked_experts(average=False):
    """Experts are stacked, weighted and added up."""

    def forward(n, x):
        out = torch.stack([n.a(x), n.b(x), n.c(x)], 1)
        return n.out(out.mean(1) if average else (out * torch.softmax(n.router(x), -1)[:, :, None]).sum(1))

    return Custom(forward, **linear(a=(5, 6), b=(5, 6), c=(5, 6), router=(5, 3), out=(6, 3)))


def state_space():
    """Every channel has several states, which its input is written to and read from (S6)."""

    def forward(n, x):
        u, write, read = torch.relu(n.u(x)), n.write(x), n.read(x)
        h, ys = torch.zeros_like(u[:, 0, :, None] * write[:, 0, None]), []
        for t in range(x.shape[1]):
            h = torch.exp(-n.A.exp()) * h + u[:, t, :, None] * write[:, t, None]
            ys.append((h * read[:, t, None]).sum(-1))
        return n.out(torch.stack(ys, 1))

    net = Custom(forward, **linear(u=(5, 6), write=(5, 4), read=(5, 4), out=(6, 3)))
    net.A = nn.Parameter(torch.randn(6, 4))
    return net


def two_towers(compare):
    """Two towers whose outputs are compared."""

    def make():
        towers = {name: nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 4)) for name in "ab"}
        return Custom(lambda n, x: compare(n.a(x), n.b(x.flip(0))), **towers)

    return make


def unit(x):
    return F.normalize(x, dim=-1)


def normed_reader(kind, **options):
    """A layer that reads the channels has its weight normalised."""
    return lambda: nn.Sequential(
        nn.Linear(5, 6), nn.ReLU(), kind(nn.Linear(6, 4), **options), nn.ReLU(), nn.Linear(4, 3)
    )


def normed_convolution():
    """The norm is over all channels, one for each place of the kernel, as in wav2vec 2.0."""
    conv = weight_norm(nn.Conv1d(6, 6, 3, padding=1), name="weight", dim=2)
    return nn.Sequential(nn.Conv1d(2, 6, 1), nn.Softplus(), conv, nn.Softplus(), nn.Conv1d(6, 3, 1))


def masked_language_model():
    """A head with a norm of its own, tied to the embedding, as in BERT; the eps of that norm stays."""

    def forward(n, x):
        h = n.norm(n.embed(x))
        h = n.last(h + n.down(F.gelu(n.up(h))))
        return F.linear(n.head_norm(F.gelu(n.head(h))), n.embed.weight)

    norms = {name: nn.LayerNorm(6, eps=0.1) for name in ("norm", "last", "head_norm")}
    return Custom(forward, embed=nn.Embedding(7, 6), **norms, **linear(up=(6, 5), down=(5, 6), head=(6, 6)))


def token_and_mean():
    """The class token and the mean of the others are put in a row for the last layer, as in DINOv2."""

    def forward(n, x):
        h = torch.cat([n.token.expand(len(x), 1, -1), n.embed(x)], 1) + n.positions
        h = n.norm(h + n.down(F.gelu(n.up(n.first(h)))))
        return n.out(torch.cat([h[:, 0], h[:, 1:].mean(1)], -1))

    net = Custom(forward, norm=nn.LayerNorm(6), first=nn.LayerNorm(6),
                 **linear(embed=(5, 6), up=(6, 7), down=(7, 6), out=(12, 3)))  # fmt: skip
    net.token, net.positions = nn.Parameter(torch.randn(1, 1, 6)), nn.Parameter(torch.randn(1, 5, 6))
    return net


def averaged_weights():
    """Attention whose weights, averaged over heads, are an output; two such layers in a row."""

    def forward(n, x):
        x = n.embed(x)
        x = x + n.first(x, x, x, need_weights=False)[0]
        out, weights = n.second(x, x, x)
        return n.out(x + out), weights

    heads = {
        "first": nn.MultiheadAttention(8, 2, batch_first=True),
        "second": nn.MultiheadAttention(8, 4, batch_first=True),
    }
    return Custom(forward, **heads, **linear(embed=(5, 8), out=(8, 3)))


def sentences():
    """The kernel of a convolution covers all channels of the words (Kim 2014)."""

    def forward(n, x):
        h = n.embed(x)[:, None]
        return n.out(torch.cat([torch.relu(conv(h)).amax((2, 3)) for conv in (n.two, n.three)], 1))

    convolutions = {"two": nn.Conv2d(1, 5, (2, 6)), "three": nn.Conv2d(1, 4, (3, 6))}
    return Custom(forward, embed=nn.Embedding(7, 6), out=nn.Linear(9, 3), **convolutions)


def padded():
    """A depthwise kernel covers the whole padded image."""
    convolutions = nn.Conv2d(2, 6, 5), nn.ReLU(), nn.ZeroPad2d(1), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 3, 1)
    return nn.Sequential(*convolutions)


def bilinear():
    return Custom(lambda n, x: n.out(torch.relu(n.both(torch.tanh(n.a(x)), n.b(x)))), both=nn.Bilinear(6, 4, 5),
                  **linear(a=(5, 6), b=(5, 4), out=(5, 3)))  # fmt: skip


FLAT, TOKENS, IMAGE, SIGNAL, TEXT = (4, 5), (3, 4, 5), (2, 2, 5, 5), (2, 2, 7), "text"
TOGETHER = {"together": True}
NETWORKS = {  # network, layer, shape of the input, options, widths after the split
    "attention pooling": (attention_pooling, "embed", TOKENS, {}, {"embed": 7, "score": (1, 7), "out": (3, 7)}),
    "a gate of one unit": (one_gate, "a", FLAT, {}, {"a": 7, "gate": 1, "shift": 1, "out": (3, 7)}),
    "spatial attention": (spatial_attention, "conv", IMAGE, TOGETHER, {"conv": 12, "mix": (1, 2), "out": (3, 12)}),
    "stacked experts": (stacked_experts, "b", FLAT, TOGETHER, {"a": 7, "b": 7, "c": 7, "router": 3, "out": (3, 7)}),
    "averaged experts": (lambda: stacked_experts(True), "b", FLAT, TOGETHER, {"a": 7, "b": 7, "out": (3, 7)}),
    "a channel with states": (state_space, "u", TOKENS, {}, {"u": 7, "write": 4, "read": 4, "out": (3, 7)}),
    "a state": (state_space, "write", TOKENS, TOGETHER, {"u": 6, "write": 5, "read": 5, "out": (3, 6)}),
    "a product of vectors": (two_towers(lambda a, b: (a * b).sum(-1)), "a.2", FLAT, TOGETHER, {"a.2": 5, "b.2": 5}),
    "products of all pairs": (two_towers(lambda a, b: a @ b.T), "b.2", FLAT, TOGETHER, {"a.2": 5, "b.2": 5}),
    "contrastive": (two_towers(lambda a, b: unit(a) @ unit(b).T), "a.2", FLAT, TOGETHER, {"a.2": 5, "b.2": 5}),
    "cosine": (two_towers(F.cosine_similarity), "a.2", FLAT, TOGETHER, {"a.2": 5, "b.2": 5}),
    "distance": (two_towers(lambda a, b: (a - b).norm(dim=-1)), "a.2", FLAT, TOGETHER, {"a.2": 5, "b.2": 5}),
    "distances of all pairs": (two_towers(torch.cdist), "a.2", FLAT, TOGETHER, {"a.2": 5, "b.2": 5}),
    "a sum of squares": (two_towers(lambda a, b: (a - b).pow(2).sum(-1)), "a.2", FLAT, TOGETHER, {"a.2": 5, "b.2": 5}),
    "a product with tanh": (two_towers(lambda a, b: (a.tanh() * b).sum(-1)), "a.2", FLAT, TOGETHER, {"b.2": 5}),
    "a plain sum": (two_towers(lambda a, b: a.sum(-1) + b[:, 0]), "a.2", FLAT, TOGETHER, {"a.2": 5, "b.2": 4}),
    "weight norm of rows": (normed_reader(weight_norm), "0", FLAT, {}, {"0": 7}),
    "weight norm of all": (normed_reader(weight_norm, dim=None), "0", FLAT, {}, {"0": 7}),
    "weight norm by hooks": (normed_reader(old_weight_norm), "0", FLAT, {}, {"0": 7}),
    "rows of one norm": (normed_reader(weight_norm, dim=None), "2", FLAT, {}, {"4": (3, 5)}),
    "weight norm over channels": (normed_convolution, "2", SIGNAL, {}, {"0": 6, "4": (3, 7)}),
    "weight norm that reads": (normed_convolution, "0", SIGNAL, {}, {"0": 7, "4": (3, 6)}),
    "a tied head with a norm": (masked_language_model, "down", TEXT, TOGETHER, {"embed": (7, 12), "head": (12, 12)}),
    "a token and a mean": (token_and_mean, "embed", TOKENS, TOGETHER, {"embed": 12, "out": (3, 24)}),
    "words of sentences": (sentences, "embed", TEXT, {}, {"embed": (7, 7), "two": (5, 1, 2, 7), "three": (4, 1, 3, 7)}),
    "a padded image": (padded, "0", IMAGE, {}, {"0": 7, "3": 7, "4": (3, 7)}),
    "what a bilinear layer reads": (bilinear, "a", FLAT, {}, {"a": 7, "b": 4, "both": (5, 7, 4)}),
    "what it reads second": (bilinear, "b", FLAT, {}, {"a": 6, "b": 5, "both": (5, 6, 5)}),
    "what it makes": (bilinear, "both", FLAT, {}, {"both": (6, 6, 4), "out": (3, 6)}),
    "averaged weights": (averaged_weights, "embed", TOKENS, TOGETHER, {"embed": 16, "out": (3, 16)}),
}  # fmt: skip
each_network = pytest.mark.parametrize("name", NETWORKS)


def drawn(shape):
    return torch.randint(7, (3, 4)) if shape is TEXT else torch.randn(shape)


@each_network
def test_it_is_exact_and_nothing_else_grows(name):
    make, layer, shape, options, sizes = NETWORKS[name]
    torch.manual_seed(0)
    net, (x, *others) = make(), [drawn(shape) for _ in range(3)]
    fresh = settle(make())
    fresh.load_state_dict(settle(net).state_dict())
    record = split_exactly(net, layer, x, others, neuron=1, rule="even", **options)
    for of, size in sizes.items():
        shape = net.get_submodule(of).weight.shape
        assert shape[: len(size)] == size if isinstance(size, tuple) else shape[0] == size
    replay([record], fresh)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), fresh.state_dict().values(), strict=True))


@each_network
def test_it_is_not_exact_with_one_wrong_share(name):
    make, layer, shape, options, _ = NETWORKS[name]
    torch.manual_seed(0)
    net, x = settle(make()), drawn(shape)
    x = x if shape is TEXT else x.double()
    record = split_neuron(net, layer, 1, example_inputs=x, rule="even", **options)
    before = outputs(net, x)
    normed = weight_norms(net)
    place = next(place for place in record.places if place[2] != "along" and place[0] not in normed)
    with torch.no_grad():
        first, end = place[4][0][0]
        dict(net.named_parameters())[place[0]].narrow(place[1], first, end - first).mul_(1.01)
    assert relative_change(before, outputs(net, x)) > 1e-6


@pytest.mark.parametrize("name", one_in(3, NETWORKS))
def test_training_goes_on_and_it_splits_again(name):
    make, layer, shape, options, _ = NETWORKS[name]
    torch.manual_seed(0)
    net, x = make(), drawn(shape)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(2):
        out = outputs(net, x)
        split_neuron(net, layer, 1, example_inputs=x, optimizer=optimizer, rule="even", together=True)
        assert relative_change(out, outputs(net, x)) < 1e-4
        for _ in range(2):
            out = net(x)
            optimizer.zero_grad()
            (out[0] if isinstance(out, tuple) else out).square().sum().backward()
            optimizer.step()
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("rule", EXACT)
def test_a_normalised_weight_is_split_by_every_rule(rule):
    torch.manual_seed(0)
    net = settle(normed_reader(weight_norm)())
    x = torch.randn(FLAT).double()
    for layer in ("0", "2"):
        split_exactly(net, layer, x, [torch.randn(FLAT)], neuron=1, rule=rule)


def test_the_state_of_the_norms_goes_as_their_gradient():
    torch.manual_seed(0)
    net, x = settle(normed_reader(weight_norm)()), torch.randn(FLAT).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9)
    net(x).square().sum().backward()
    optimizer.step()
    split_neuron(net, "0", 1, example_inputs=x, optimizer=optimizer, rule="antisymmetric", rng=rng())
    net.zero_grad()
    net(x).square().sum().backward()
    g = net[2].parametrizations.weight.original0
    torch.testing.assert_close(optimizer.state[g]["momentum_buffer"], g.grad, rtol=1e-10, atol=1e-12)
