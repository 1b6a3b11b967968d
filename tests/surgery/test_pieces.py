"""Parameters that are concatenated before they are used, and axes that are split into pieces of written sizes."""

import pytest
import torch
from networks import in_double, split_exactly
from torch import nn
from torch.nn import functional as F

TOKENS = in_double(torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0)))
IMAGES = in_double(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)))


class ConcatenatedBias(nn.Module):
    """Attention with a packed weight and biases of its own for queries and values; that of keys is 0."""

    def __init__(self, dim=12, heads=3):
        super().__init__()
        self.heads, self.qkv, self.o = heads, nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.q_bias, self.v_bias = nn.Parameter(torch.randn(dim)), nn.Parameter(torch.randn(dim))
        self.register_buffer("k_bias", torch.zeros(dim), persistent=False)

    def packed(self, x):
        return F.linear(x, self.qkv.weight, torch.cat([self.q_bias, self.k_bias, self.v_bias]))

    def forward(self, x):
        q, k, v = self.packed(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).sum(-1)


class ConcatenatedWeights(ConcatenatedBias):
    """The three weights are parameters of their own too, which read the same channels."""

    def __init__(self, dim=12, heads=3):
        super().__init__(dim, heads)
        self.i = nn.Linear(dim, dim)
        self.q, self.k, self.v = (nn.Parameter(torch.randn(dim, dim)) for _ in range(3))

    def packed(self, x):
        return F.linear(torch.tanh(self.i(x)), torch.cat([self.q, self.k, self.v]))


@pytest.mark.parametrize(
    "net, where", [(ConcatenatedBias, "qkv"), (ConcatenatedWeights, "q"), (ConcatenatedWeights, "v")]
)
@pytest.mark.parametrize("neuron", [0, 7])
def test_concatenated_parameters_grow_each_by_its_own(net, where, neuron):
    net = net()
    before = {name: tensor.shape for name, tensor in net.state_dict().items()}
    record = split_exactly(net, where, TOKENS, [TOKENS[:1] ** 2], neuron=neuron, together=True, rule="outgoing")
    assert {place[0] for place in record.places} >= {"o.weight"}
    assert net.heads == 4 and net.o.weight.shape[1] == 16
    assert net.q_bias.shape == net.v_bias.shape == ((16,) if where == "qkv" else before["q_bias"])


@pytest.mark.parametrize("neuron", [0, 11])
def test_what_concatenated_parameters_read_is_split_alone(neuron):
    net = ConcatenatedWeights()
    split_exactly(net, "i", TOKENS, [TOKENS[:1] ** 2], neuron=neuron, rule="outgoing")
    assert net.q.shape == net.k.shape == net.v.shape == (12, 13)


class Gated(nn.Module):
    """A gate for what is convolved and what is not: three pieces, whose sizes are in one tuple."""

    def __init__(self):
        super().__init__()
        self.sizes = (10, 6, 4)
        self.a, self.conv, self.b = nn.Linear(12, 20), nn.Conv1d(4, 4, 3, padding=1, groups=4), nn.Linear(10, 3)

    def forward(self, x):
        gate, kept, convolved = self.a(x).split(self.sizes, dim=-1)
        convolved = self.conv(convolved.transpose(1, 2)).transpose(1, 2)
        return self.b(F.silu(gate) * torch.cat([kept, convolved], -1))


class Partial(nn.Module):
    """A convolution sees some of the channels of a residual axis; the others pass it by."""

    def __init__(self, residual=True):
        super().__init__()
        self.residual, self.sizes = residual, [6, 3, 3]
        self.stem, self.head = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 2, 1)
        self.dense = nn.Conv2d(3, 3, 3, padding=1)
        self.depthwise = nn.Conv2d(3, 3, 3, padding=1, groups=3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        kept, a, b = x.split(self.sizes, 1)
        mixed = torch.cat([kept, self.dense(a), self.depthwise(b)], 1)
        return self.head(torch.relu(x + mixed if self.residual else mixed))


@pytest.mark.parametrize("neuron, sizes", [(0, (11, 7, 4)), (5, (11, 7, 4)), (6, (11, 6, 5)), (9, (11, 6, 5))])
def test_several_sizes_of_one_tuple_change_together(neuron, sizes):
    net = Gated()
    split_exactly(net, "a", TOKENS, [TOKENS**2], neuron=neuron, rule="outgoing")
    assert net.sizes == sizes


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("neuron, sizes", [(0, [7, 3, 3]), (5, [7, 3, 3]), (6, [6, 4, 3]), (11, [6, 3, 4])])
def test_a_copy_stands_in_the_piece_of_what_it_copies(residual, neuron, sizes):
    net = Partial(residual)
    split_exactly(net, "stem", IMAGES, [IMAGES**2], neuron=neuron, rule="outgoing")
    assert net.sizes == sizes
