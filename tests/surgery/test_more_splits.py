"""Splits that are exact although no list of modules knows the network: control flow, tied weights, sets of channels."""

import pytest
import torch
from networks import FLAT, IMAGE, Branching, Custom, plain, rng, split_exactly
from torch import nn

from neuronsplit.surgery.split_neuron import split_neuron


class Reused(Branching):
    """b reads the channels, and those of another layer too: both are split."""

    def __init__(self):
        super().__init__()
        self.c = nn.Linear(5, 5)

    def forward(self, x):
        return self.b(torch.relu(self.a(x))) + self.b(torch.tanh(self.c(x)))


class Recurrent(nn.Module):
    """A layer that reads its own channels."""

    def __init__(self):
        super().__init__()
        self.i, self.h, self.o = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.o(torch.relu(self.h(torch.relu(self.h(torch.relu(self.i(x)))))))


class Chunked(Branching):
    def forward(self, x):
        left, right = torch.relu(self.a(x)).chunk(2, dim=1)
        return self.b(torch.cat([left, right], 1))


class Strongest(Branching):
    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h) + h.max(1, keepdim=True)[0]


class Squared(Branching):
    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h * h)


class Unread(Branching):
    def forward(self, x):
        return self.b(x) + self.a(x).size(0)


class Auxiliary(Branching):
    """A branch for training alone, which takes no Linear."""

    def forward(self, x):
        h = torch.relu(self.a(x))
        return self.b(h) + (h.mean(1, keepdim=True) if self.training else 0)


class Stacked(nn.Module):
    """As many channels are needed in both branches."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(8, 2)

    def forward(self, x):
        return self.c(torch.stack([self.a(x), self.b(x)], 1).flatten(1))


class Computed(Branching):
    """Its matrix is computed from a parameter that is used twice in it."""

    def forward(self, x):
        return self.b(torch.relu(nn.functional.linear(x, self.a.weight * 2 + self.a.weight.abs(), self.a.bias)))


class Shifted(Branching):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.randn(5))

    def forward(self, x):
        return self.b(torch.relu(self.a(x) + self.shift))


def grouped():
    return nn.Sequential(nn.Conv1d(5, 4, 1), nn.ReLU(), nn.Conv1d(4, 2, 1, groups=2), nn.ReLU(), nn.Conv1d(2, 3, 1))


def normed(layer):
    return nn.Sequential(nn.Linear(5, 4), layer, nn.ReLU(), nn.Linear(4, 2))


def late_norm():
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 2))


def buffered():
    net = plain()
    net[0].register_buffer("importance", torch.zeros(3))
    return net


def parametrised():
    net = plain()
    nn.utils.parametrizations.weight_norm(net[0])
    return net


def tied_in_a_row():
    """Two layers share a matrix that makes channels and reads them."""
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 2))
    net[4].weight = net[2].weight
    return net


def one_channel():
    """A factor that is a number, for a single channel."""
    net = Custom(lambda n, x: n.b(n.s * n.a(x)), a=nn.Linear(5, 1), b=nn.Linear(1, 2))
    net.s = nn.Parameter(torch.tensor(2.0))
    return net


class Grouped(nn.Module):
    """One number of every two channels."""

    def __init__(self, reduce):
        super().__init__()
        self.a, self.b, self.reduce = nn.Linear(5, 6), nn.Linear(3, 2), reduce

    def forward(self, x):
        return self.b(self.reduce(self.a(x).view(len(x), -1, 2)))


class Averaged(nn.Module):
    """The mean of two heads, each with a score for each example, as in graph attention."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.score = nn.Linear(5, 6), nn.Linear(3, 2), nn.Parameter(torch.randn(2, 3))

    def forward(self, x):
        h = self.a(x).view(len(x), -1, 3)
        return self.b((torch.softmax((h * self.score).sum(2, keepdim=True), 0) * h).mean(1))


class Mixer(nn.Module):
    """A layer reads the five tokens of each channel (Tolstikhin et al. 2021, arXiv 2105.01601)."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.down, self.out = nn.Linear(7, 4), nn.Linear(5, 6), nn.Linear(6, 5), nn.Linear(4, 2)

    def forward(self, x):
        h = self.embed(x).mT
        return self.out((h + self.down(torch.relu(self.up(h)))).mean(2))


class OnGraph(nn.Module):
    """A graph convolution (Kipf & Welling 2017, arXiv 1609.02907) by a sparse matrix, and one that is not used."""

    def __init__(self, to_sparse):
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, 2)
        self.register_buffer("graph", to_sparse(torch.ones(3, 3) / 3))
        self.register_buffer("unused", to_sparse(torch.eye(2)))

    def forward(self, x):
        return torch.sparse.mm(self.graph.to(x.dtype), self.b(torch.relu(self.graph.to(x.dtype) @ self.a(x))))


EVEN, TOGETHER = {"rule": "even"}, {"rule": "outgoing", "together": True}
SPLITS = {
    "a reader of two layers": (Reused, "a", FLAT, EVEN, {"a": 6, "c": 6, "b": (2, 6)}),
    "a layer that reads itself": (Recurrent, "h", FLAT, {}, {"i": 7, "h": (7, 7), "o": (2, 7)}),
    "a matrix of two layers in a row": (tied_in_a_row, "2", FLAT, {}, {"0": 7, "2": (7, 7), "5": (2, 7)}),
    "chunks of equal use": (Chunked, "a", FLAT, {}, {"a": 6, "b": (2, 6)}),
    "the largest of all channels": (Strongest, "a", FLAT, EVEN, {"a": 6, "b": (2, 6)}),
    "a square": (Squared, "a", FLAT, EVEN, {"a": 6, "b": (2, 6)}),
    "channels that nothing reads": (Unread, "a", FLAT, {}, {"a": 6, "b": (2, 5)}),
    "a shift by a parameter": (Shifted, "a", FLAT, {}, {"a": 6, "b": (2, 6)}),
    "a scale up to a BatchNorm": (late_norm, "0", FLAT, {}, {"0": 5, "3": (2, 5)}),
    "a computed weight": (Computed, "a", FLAT, EVEN, {"a": 6, "b": (2, 6)}),
    "a weight norm": (parametrised, "0", FLAT, EVEN, {"0": 5, "2": (2, 5)}),
    "a buffer of no use": (buffered, "0", FLAT, {}, {"0": 5, "2": (2, 5)}),
    "a mean in training": (Auxiliary, "a", FLAT, TOGETHER, {"a": 10, "b": (2, 10)}),
    "a layer norm": (lambda: normed(nn.LayerNorm(4)), "0", FLAT, TOGETHER, {"0": 8, "3": (2, 8)}),
    "an RMS norm": (lambda: normed(nn.RMSNorm(4, eps=1e-3)), "0", FLAT, TOGETHER, {"0": 8, "3": (2, 8)}),
    "a number for one channel": (one_channel, "a", FLAT, {"neuron": 0}, {"a": 2, "b": (2, 2)}),
    "a group of GroupNorm": (lambda: normed(nn.GroupNorm(2, 4)), "0", FLAT, TOGETHER, {"0": 6, "3": (2, 6)}),
    "a group of a convolution": (grouped, "0", IMAGE, TOGETHER, {"0": 6, "2": (3, 2), "4": (3, 3)}),
    "stacked branches": (Stacked, "a", FLAT, TOGETHER, {"a": 5, "b": 5, "c": (2, 10)}),
    "channels that are pooled": (lambda: nn.Sequential(nn.Linear(5, 4), nn.AvgPool1d(2), nn.Linear(2, 2)), "0",
                                 IMAGE[:, :, :5], TOGETHER | {"neuron": 0}, {"0": 8, "2": (2, 4)}),
    "the larger of two channels": (lambda: Grouped(lambda h: h.amax(2)), "a", FLAT, TOGETHER, {"a": 8, "b": (2, 4)}),
    "sums of two channels": (lambda: Grouped(lambda h: h.relu().sum(2)), "a", FLAT, TOGETHER, {"a": 8, "b": (2, 4)}),
    "lengths of two channels": (lambda: Grouped(lambda h: h.norm(dim=2)), "a", FLAT, TOGETHER, {"a": 8, "b": (2, 4)}),
    "the mean of heads": (Averaged, "a", FLAT, TOGETHER, {"a": 12, "b": (2, 3)}),
    "a layer across tokens": (Mixer, "up", IMAGE, {}, {"embed": 4, "up": 7, "down": (5, 7)}),
    "neighbours of channels": (lambda: Custom(lambda n, x: n.b(torch.relu((h := n.a(x)) + h.roll(1, 1))),
                                              a=nn.Linear(5, 4), b=nn.Linear(4, 2)), "a", FLAT, TOGETHER,
                               {"a": 8, "b": (2, 8)}),
    "a graph": (lambda: OnGraph(torch.Tensor.to_sparse), "a", FLAT, {}, {"a": 7, "b": (2, 7)}),
    "a graph in rows": (lambda: OnGraph(torch.Tensor.to_sparse_csr), "a", FLAT, {}, {"a": 7, "b": (2, 7)}),
}  # fmt: skip


@pytest.mark.parametrize("make, layer, x, options, sizes", SPLITS.values(), ids=list(SPLITS))
def test_what_goes_along_is_found_and_the_output_stays(make, layer, x, options, sizes):
    torch.manual_seed(0)
    net, others = make(), [torch.randn(x.shape) for _ in range(2)]
    split_exactly(net, layer, torch.randn(x.shape), others, **{"neuron": 1} | options)
    for name, size in sizes.items():
        shape = net.get_submodule(name).weight.shape
        assert shape[: len(size)] == size if isinstance(size, tuple) else shape[0] == size


@pytest.mark.parametrize("make, layer, x, options, sizes", SPLITS.values(), ids=list(SPLITS))
def test_gradients_flow_and_training_goes_on(make, layer, x, options, sizes):
    net, x = make().eval(), torch.randn(x.shape)
    optimizer = torch.optim.Adam(net.parameters())
    for _ in range(2):
        net.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
        split_neuron(
            net, layer, example_inputs=x, optimizer=optimizer, rng=rng(), **{"neuron": 1} | options | {"together": True}
        )
    net(x).square().sum().backward()
    optimizer.step()


def test_a_scale_that_ends_at_a_norm_is_in_no_weight_before_it():
    net = late_norm()
    before = net[0].weight.detach().clone()
    record = split_exactly(net, "0", FLAT, neuron=1)
    torch.testing.assert_close(net[0].weight[[1, 4]], before[[1, 1]].double())
    ((alpha, beta, _, _),) = record.coefficients
    assert alpha != 1 and (net[2].weight[4] / net[2].weight[1]).item() == pytest.approx(beta / alpha)


def test_a_branch_that_the_input_decides_is_split_as_the_examples_ran_it():
    net = Branching()
    split_exactly(net, "a", FLAT, [2 * FLAT], neuron=1)
    assert net.b.in_features == 6


class Mixture(nn.Module):
    """Experts that only some inputs reach."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(5, 3), nn.ModuleList(plain() for _ in range(3))

    def forward(self, x):
        weights, chosen = self.gate(x).softmax(1).topk(1)
        out = x.new_zeros(len(x), 2)
        for number, expert in enumerate(self.experts):
            rows = (chosen[:, 0] == number).nonzero()[:, 0]
            if len(rows):
                out = out.index_add(0, rows, expert(x[rows]) * weights[rows])
        return out


def test_a_unit_of_an_expert_is_split_and_the_other_experts_stay():
    torch.manual_seed(0)
    net = Mixture()
    split_exactly(net, "experts.1.0", torch.randn(40, 5), [torch.randn(40, 5)], neuron=2)
    assert [expert[0].out_features for expert in net.experts] == [4, 5, 4]


def test_a_list_of_inputs_a_dict_and_several_outputs():
    net = Custom(lambda net, x, y: {"sum": net.c(torch.relu(net.a(x) + net.b(y))), "first": [x]},
                 a=nn.Linear(5, 4), b=nn.Linear(3, 4), c=nn.Linear(4, 2))  # fmt: skip
    split_exactly(net, "a", [torch.randn(3, 5), torch.randn(3, 3)], neuron=1)
    assert net.b.weight.shape == (5, 3)


@pytest.mark.parametrize("seed", range(4))
def test_splits_follow_one_another_in_all_layers(seed):
    torch.manual_seed(seed)
    net, x = Recurrent(), torch.randn(4, 5)
    for layer in ("i", "h", "i"):
        split_exactly(net, layer, x, [torch.randn(4, 5)], neurons=[0, 1, 0])
    assert net.h.weight.shape == (15, 15)


def test_the_network_that_runs_in_half_precision_only_is_split_to_its_rounding():
    net = Custom(lambda net, x: net.b(torch.relu(net.a(x.bfloat16()).bfloat16())), a=nn.Linear(5, 4), b=nn.Linear(4, 2))
    net = net.bfloat16()
    record = split_neuron(net, "a", 1, example_inputs=torch.randn(3, 5), rng=rng())
    assert net.a.weight.dtype == torch.bfloat16 and record.change < 0.1


class ReducedKeys(nn.Module):
    """Attention over fewer tokens (PVT): one size is written for the channels, the heads and what is reduced."""

    def __init__(self):
        super().__init__()
        self.embed, self.q, self.kv, self.o = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 16), nn.Linear(8, 8)
        self.reduce, self.norm, self.head, self.n_heads = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2), 2

    def forward(self, x):
        x = self.embed(x)
        n, length, size = x.shape
        q = self.q(x).reshape(n, length, self.n_heads, -1).transpose(1, 2)
        reduced = self.norm(self.reduce(x[:, ::2]).reshape(n, -1, size))
        k, v = self.kv(reduced).reshape(n, -1, 2, self.n_heads, size // self.n_heads).permute(2, 0, 3, 1, 4)
        out = (q @ k.mT * (size // self.n_heads) ** -0.5).softmax(-1) @ v
        return self.head(x + self.o(out.transpose(1, 2).reshape(n, length, size)))


@pytest.mark.parametrize("where", ["embed", "reduce", "q", "kv"])
def test_one_size_that_is_written_for_several_axes_doubles_in_all(where):
    torch.manual_seed(0)
    net, x = ReducedKeys(), torch.randn(2, 3, 6, 5)
    split_exactly(net, where, x[0], [x[1]], neuron=0, rule="outgoing", together=True)
    assert net.n_heads == 4 and net.embed.out_features == net.reduce.out_features == 16


class OverChannels(nn.Module):
    """Attention whose weights are between the channels of a head (XCiT), or linear attention."""

    def __init__(self, linear):
        super().__init__()
        self.qkv, self.o, self.n_heads, self.linear = nn.Linear(5, 24), nn.Linear(8, 2), 2, linear

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.n_heads, 4).permute(2, 0, 3, 1, 4)
        out = q.softmax(-1) @ (k.mT @ v) if self.linear else v @ (q.mT @ k / x.shape[1]).softmax(-1).mT
        return self.o(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("linear", [True, False])
def test_channels_of_a_head_that_all_meet_split_as_a_head(linear):
    torch.manual_seed(0)
    net, x = OverChannels(linear), torch.randn(2, 3, 6, 5)
    record = split_exactly(net, "qkv", x[0], [x[1]], neuron=5, rule="outgoing", together=True)
    assert net.n_heads == 3 and net.o.in_features == 12
    assert next(place[4] for place in record.places if place[0] == "o.weight") == [[[4, 8]]]


class Chosen(nn.Module):
    """Softmax chooses between branches, for each channel by itself (selective kernels)."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.choice, self.o = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 8), nn.Linear(4, 2)

    def forward(self, x):
        branches = torch.stack([self.a(x), torch.tanh(self.b(x))], 1)
        weights = self.choice(branches.sum(1)).unflatten(1, (2, -1)).softmax(1)
        return self.o((branches * weights).sum(1))


@pytest.mark.parametrize("where", ["a", "b", "choice"])
def test_a_channel_of_all_branches_that_softmax_chooses_between(where):
    torch.manual_seed(0)
    net, x = Chosen(), torch.randn(2, 3, 5)
    split_exactly(net, where, x[0], [x[1]], neuron=1, rule="outgoing", together=True)
    assert (net.a.out_features, net.b.out_features, net.choice.out_features) == (5, 5, 10)


class KeptInEvaluation(nn.Module):
    """What follows from the parameters is kept until the network is in training again (LeViT)."""

    def __init__(self):
        super().__init__()
        self.a, self.o, self.table, self.kept = nn.Linear(5, 4), nn.Linear(4, 2), nn.Parameter(torch.randn(2, 4)), None

    def train(self, mode=True):
        self.kept = None if mode else self.kept
        return super().train(mode)

    def forward(self, x):
        places = self.table.repeat_interleave(3, 0)
        if not self.training:
            places = self.kept = places if self.kept is None else self.kept
        return self.o(torch.tanh(self.a(x) + places))


def test_what_is_kept_in_evaluation_is_dropped():
    torch.manual_seed(0)
    net, x = KeptInEvaluation(), torch.randn(2, 6, 5)
    split_exactly(net, "a", x[0], [x[1]], neuron=1, rule="outgoing")  # it ran in evaluation before
    assert net.table.shape == (2, 5) and not net.training and net.kept.shape == (6, 5)


class Pieces(nn.Module):
    """A normalised axis, cut apart by the number of its pieces, of which the first two are added (Res2Net)."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.o = nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x):
        a, b, c = self.norm(self.embed(x)).chunk(3, -1)
        return self.o(torch.cat([torch.tanh(a), torch.tanh(a + b), c], -1))


def test_pieces_of_an_axis_keep_their_copies():
    torch.manual_seed(0)
    net, x = Pieces(), torch.randn(2, 3, 5)
    split_exactly(net, "embed", x[0], [x[1]], neuron=0, rule="outgoing", together=True)
    assert net.embed.out_features > 7  # the first two pieces meet


def test_layers_that_are_concatenated_keep_their_copies():
    """A norm takes both: the copies of each stand behind its own channels (densely connected networks)."""
    torch.manual_seed(0)
    net = Custom(lambda n, x: n.o(torch.tanh(n.norm(torch.cat([n.a(x), n.b(x)], 1)))),
                 a=nn.Linear(5, 4), b=nn.Linear(5, 2), norm=nn.LayerNorm(6), o=nn.Linear(6, 2))  # fmt: skip
    x = torch.randn(2, 3, 5)
    record = split_exactly(net, "a", x[0], [x[1]], neuron=0, rule="outgoing", together=True)
    assert (net.a.out_features, net.b.out_features) == (8, 4)
    assert next(place[4] for place in record.places if place[0] == "o.weight") == [[[0, 4], [4, 6]]]


class PackedGroups(nn.Module):
    """Queries, keys and values in one matrix, cut apart by two numbers of heads that only fit together (Phi-3)."""

    def __init__(self):
        super().__init__()
        self.n_heads, self.n_groups, self.size = 4, 2, 4
        self.qkv, self.o = nn.Linear(5, 32), nn.Linear(16, 3)

    def forward(self, x):
        packed, stop = self.qkv(x), self.n_heads * self.size
        after = stop + self.n_groups * self.size
        q, k, v = packed[..., :stop], packed[..., stop:after], packed[..., after:]
        q, k, v = (t.unflatten(-1, (-1, self.size)).transpose(1, 2) for t in (q, k, v))
        out = nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return self.o(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("neuron", [0, 17, 30])
def test_two_numbers_of_heads_that_only_fit_together_both_follow(neuron):
    torch.manual_seed(0)
    net, x = PackedGroups(), torch.randn(2, 2, 6, 5)
    split_exactly(net, "qkv", x[0], [x[1]], neuron=neuron, rule="outgoing", together=True)
    assert (net.n_heads, net.n_groups, net.size) == (6, 3, 4) and net.o.in_features == 24
