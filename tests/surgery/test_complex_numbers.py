"""Complex numbers: Fourier transforms beside the channels, rotations of queries and keys, and complex parameters."""

import math

import pytest
import torch
from networks import EXACT, Custom, outputs, relative_change, split_exactly
from torch import nn
from torch.nn import functional as F

from neuronsplit.surgery.split_neuron import split_neuron
from neuronsplit.surgery.splittable import splittable

SIGNAL = (3, 2, 16)


def channels(f, **parameters):
    """A convolution makes six channels, of which a function of the layer and them leaves as many."""

    def make():
        net = Custom(lambda n, x: n.b(f(n, torch.relu(n.a(x)))), a=nn.Conv1d(2, 6, 1), b=nn.Conv1d(6, 3, 1))
        for name, shape in parameters.items():
            setattr(net, name, nn.Parameter(torch.randn(shape, dtype=torch.complex128 if name == "c" else None)))
        return net

    return make


TRANSFORMS = {
    "there and back": channels(lambda n, h: torch.fft.ifft(torch.fft.fft(h)).real),
    "of real numbers": channels(lambda n, h: torch.fft.irfft(torch.fft.rfft(h)[..., :5], n=16)),
    "of two axes": channels(lambda n, h: torch.fft.rfft2(h.unflatten(2, (4, 4))).abs().flatten(2)),
    "a filter of pairs": channels(
        lambda n, h: torch.fft.irfft(torch.fft.rfft(h) * torch.view_as_complex(n.w), n=16), w=(6, 9, 2)
    ),
    "a complex filter": channels(lambda n, h: torch.fft.irfft(torch.fft.rfft(h) * n.c, n=16), c=(6, 9)),
    "a sum of complex filters": channels(
        lambda n, h: torch.fft.irfft(torch.fft.rfft(h) * (n.c + torch.view_as_complex(n.w)), n=16),
        c=(6, 9), w=(6, 9, 2),
    ),
    "a conjugate": channels(lambda n, h: (torch.fft.fft(h) * torch.fft.fft(h.flip(2)).conj()).real),
    "two parts": channels(lambda n, h: torch.view_as_real(torch.complex(h, 2 * h)).sum(-1)),
    "an angle": channels(lambda n, h: torch.fft.fft(h).angle()),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_channels_split_beside_a_transform(name):
    torch.manual_seed(0)
    split_exactly(TRANSFORMS[name](), "a", torch.randn(SIGNAL), [torch.randn(2, 2, 16)], neuron=1, rule="outgoing")


def test_a_transform_lets_a_scale_through():
    torch.manual_seed(0)
    for rule in EXACT:
        split_exactly(TRANSFORMS["a complex filter"](), "a", torch.randn(SIGNAL), neuron=1, rule=rule)
    with pytest.raises(ValueError, match="^rule 'scaled' is not exact through mul"):  # of what is scaled twice
        split_neuron(TRANSFORMS["a conjugate"](), "a", 1, example_inputs=torch.randn(SIGNAL), rule="scaled")


def spectral():
    """A Fourier layer (Li et al. 2021, arXiv 2010.08895): complex weights read and make the channels."""

    def forward(n, x):
        low = torch.fft.rfft(h := n.a(x))[..., :4]
        low = torch.einsum("bik,iok->bok", low, n.w)
        return n.out(F.gelu(torch.fft.irfft(F.pad(low, (0, 5)), n=16) + n.skip(h)))

    net = Custom(forward, a=nn.Conv1d(2, 6, 1), skip=nn.Conv1d(6, 5, 1), out=nn.Conv1d(5, 1, 1))
    net.w = nn.Parameter(torch.randn(6, 5, 4, dtype=torch.complex128))
    return net


@pytest.mark.parametrize("layer, sizes", [("a", (7, 5, 4)), ("skip", (6, 6, 4)), ("w", (6, 6, 4))])
def test_complex_weights_split(layer, sizes):
    torch.manual_seed(0)
    net = spectral()
    split_exactly(net, layer, torch.randn(SIGNAL), [torch.randn(2, 2, 16)], neuron=1, rule="antisymmetric")
    assert net.w.shape == sizes and net.w.is_complex()


def rotated(z, turns):
    pairs = torch.view_as_complex(z.reshape(*z.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(3)


def attention(n, x):
    """Queries and keys are rotated as complex numbers, as in Llama's own code."""
    q, k, v = (of(x).view(*x.shape[:2], -1, 8) for of in (n.q, n.k, n.v))
    q, k = (rotated(of, n.turns[: x.shape[1], None]) for of in (q, k))
    h = F.scaled_dot_product_attention(*(of.transpose(1, 2) for of in (q, k, v)), is_causal=True)
    return n.out(h.transpose(1, 2).flatten(2))


def test_a_head_with_complex_rotations_splits():
    torch.manual_seed(0)
    net = Custom(attention, **{name: nn.Linear(16, 16) for name in ("q", "k", "v", "out")})
    angles = torch.outer(torch.arange(9.0), 1 / 10 ** torch.linspace(0, 3, 4)).double()
    net.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))
    for layer in ("q", "v"):
        size = net.q.out_features
        split_exactly(
            net, layer, torch.randn(2, 5, 16), [torch.randn(3, 7, 16)], neuron=1, rule="outgoing", together=True
        )
        assert {net.q.out_features, net.k.out_features, net.v.out_features} == {size + 8}


def test_complex_weights_that_are_a_sum_split_with_all_terms():
    torch.manual_seed(0)

    def forward(n, x):
        return n.out(torch.fft.irfft(torch.einsum("bik,iok->bok", torch.fft.rfft(n.a(x)), n.v + n.w), n=16))

    net = Custom(forward, a=nn.Conv1d(2, 6, 1), out=nn.Conv1d(5, 1, 1))
    net.v, net.w = (nn.Parameter(torch.randn(6, 5, 9, dtype=torch.complex128)) for _ in "vw")
    for layer in ("a", "v"):
        split_exactly(net, layer, torch.randn(SIGNAL), [torch.randn(2, 2, 16)], neuron=1, rule="antisymmetric")
    assert net.v.shape == net.w.shape == (7, 6, 9)


def test_a_transform_over_the_channels_is_refused():
    net = Custom(lambda n, x: n.b(torch.fft.fft(n.a(x)).real), a=nn.Linear(6, 8), b=nn.Linear(8, 2))
    assert "fft_r2c" in splittable(net, torch.randn(5, 6)).set_index("layer").loc["a", "reason"]
    with pytest.raises(ValueError, match="'a' has no exact split known"):
        split_neuron(net, "a", 0, example_inputs=torch.randn(5, 6), rule="outgoing")


def test_the_state_of_a_complex_parameter_goes_along():
    torch.manual_seed(0)
    net, x = spectral().double(), torch.randn(SIGNAL).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(3):
        before = outputs(net, x)
        split_neuron(net, "a", step, example_inputs=x, optimizer=optimizer, rule="outgoing")
        assert relative_change(before, outputs(net, x)) < 1e-12
        net(x).square().sum().backward()
        optimizer.step()
        assert optimizer.state[net.w]["exp_avg"].shape == net.w.shape and math.isfinite(float(net(x).detach().sum()))
