"""Small language models with a residual axis of 6 channels, and the norms that it passes, written in several ways."""

import torch
from networks import Custom, settle
from torch import nn
from torch.nn import functional as F

EPS = 0.01  # large enough to be noticed


def by_hand(forward, width, bias=False):
    """A norm whose forward is a function of it and x; eps is an attribute."""
    net = Custom(forward)
    net.weight, net.variance_epsilon = nn.Parameter(torch.rand(width) + 0.5), EPS
    net.bias = nn.Parameter(torch.rand(width) + 0.5) if bias else None
    return net


def llama(n, x):
    return n.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + n.variance_epsilon))


def eps_in_code(n, x):
    return n.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 0.01))


def gemma(n, x):
    return (1.0 + n.weight) * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + n.variance_epsilon))


def centred(n, x):
    c = x - x.mean(-1, keepdim=True)
    return c / (c.pow(2).mean(-1, keepdim=True) + n.variance_epsilon).sqrt() * n.weight + n.bias


RMS = {
    "RMSNorm": lambda d: nn.RMSNorm(d, eps=EPS),
    "F.rms_norm": lambda d: by_hand(lambda n, x: F.rms_norm(x, x.shape[-1:], n.weight, n.variance_epsilon), d),
    "as in Llama": lambda d: by_hand(llama, d),
    "x * x": lambda d: by_hand(lambda n, x: x / (n.variance_epsilon + (x * x).mean(-1, True)).sqrt() * n.weight, d),
    "RMSNorm without a gain": lambda d: nn.RMSNorm(d, eps=EPS, elementwise_affine=False),
}
LAYER = {
    "LayerNorm": lambda d: nn.LayerNorm(d, eps=EPS),
    "LayerNorm without a bias": lambda d: nn.LayerNorm(d, eps=EPS, bias=False),
    "F.layer_norm": lambda d: by_hand(lambda n, x: F.layer_norm(x, x.shape[-1:], n.weight, n.bias, n.variance_epsilon),
                                      d, bias=True),
    "centred by hand": lambda d: by_hand(centred, d, bias=True),
    "LayerNorm without a gain": lambda d: nn.LayerNorm(d, eps=EPS, elementwise_affine=False),
}  # fmt: skip
NORMS = RMS | LAYER
CASES = [(name, tied) for name in NORMS for tied in (False, True) if not (tied and "a gain" in name)]


class Lm(nn.Module):
    """A small language model: attention and SwiGLU, with norms before them and at the end."""

    def __init__(self, norm, tied, d=6):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, d), nn.Linear(d, 11, bias=False)
        self.first, self.second, self.last = norm(d), norm(d), norm(d)
        self.q, self.k, self.v, self.o = nn.Linear(d, 8), nn.Linear(d, 8), nn.Linear(d, 8), nn.Linear(8, d)
        self.gate, self.up, self.down = nn.Linear(d, 10), nn.Linear(d, 10), nn.Linear(10, d, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids):
        h = self.embed(ids)
        q, k, v = (f(self.first(h)).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        h = h + self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        x = self.second(h)
        return self.head(self.last(h + self.down(F.silu(self.gate(x)) * self.up(x))))


def model(name, tied, d=6):
    torch.manual_seed(0)
    return settle(Lm(NORMS[name], tied, d))


IDS, OTHER = torch.randint(11, (2, 5)), torch.randint(11, (3, 7))


def eps_of(norm):
    return getattr(norm, "eps", None) or norm.variance_epsilon
