"""Other small networks: physics, reinforcement learning, flows, splines, and unusual ways of writing."""

from collections import OrderedDict, namedtuple

import torch
import torch.nn.functional as F
from torch import nn


def kan():
    """Efficient KAN: a base Linear and B-splines of each input, whose weight is viewed as a matrix."""

    class KANLinear(nn.Module):
        def __init__(self, n_in, n_out, grid_size=3, order=2):
            super().__init__()
            self.n_in, self.n_out, self.order = n_in, n_out, order
            h = 2 / grid_size
            grid = (torch.arange(-order, grid_size + order + 1) * h - 1).expand(n_in, -1).contiguous()
            self.register_buffer("grid", grid)
            self.base_weight = nn.Parameter(torch.randn(n_out, n_in) * 0.4)
            self.spline_weight = nn.Parameter(torch.randn(n_out, n_in, grid_size + order) * 0.4)
            self.spline_scaler = nn.Parameter(torch.rand(n_out, n_in) + 0.5)

        def b_splines(self, x):
            x, grid = x.unsqueeze(-1), self.grid
            bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
            for k in range(1, self.order + 1):
                left = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)])
                right = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:-k])
                bases = left * bases[:, :, :-1] + right * bases[:, :, 1:]
            return bases.contiguous()

        def forward(self, x):
            base = F.linear(F.silu(x), self.base_weight)
            weight = self.spline_weight * self.spline_scaler.unsqueeze(-1)
            return base + F.linear(self.b_splines(x).view(x.size(0), -1), weight.view(self.n_out, -1))

    return nn.Sequential(KANLinear(2, 5), KANLinear(5, 4), KANLinear(4, 1)), torch.randn(6, 2) * 0.5


def kan_of_sines():
    """Each edge has sines of its own, summed by einsum."""

    class FourierKAN(nn.Module):
        def __init__(self, n_in, n_out, k=3):
            super().__init__()
            self.k, self.coeffs = k, nn.Parameter(torch.randn(2, n_out, n_in, k) * 0.3)
            self.bias = nn.Parameter(torch.zeros(1, n_out))

        def forward(self, x):
            angle = x[:, :, None] * torch.arange(1, self.k + 1).to(x)
            y = torch.einsum("bik,oik->bo", torch.cos(angle), self.coeffs[0])
            return y + torch.einsum("bik,oik->bo", torch.sin(angle), self.coeffs[1]) + self.bias

    return nn.Sequential(FourierKAN(2, 4), FourierKAN(4, 3), FourierKAN(3, 1)), torch.randn(5, 2)


def neural_ode():
    class ODEFunc(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4 + 1, 9), nn.Tanh(), nn.Linear(9, 4))

        def forward(self, t, y):
            return self.net(torch.cat([y, t.expand(y.shape[0], 1)], 1))

    class ODENet(nn.Module):
        def __init__(self):
            super().__init__()
            self.lift, self.func, self.read = nn.Linear(2, 4), ODEFunc(), nn.Linear(4, 2)

        def forward(self, x):
            y, dt = self.lift(x), 0.25
            for step in range(3):
                t = torch.tensor(step * dt, dtype=x.dtype)
                k1 = self.func(t, y)
                k2 = self.func(t + dt / 2, y + dt / 2 * k1)
                k3 = self.func(t + dt / 2, y + dt / 2 * k2)
                k4 = self.func(t + dt, y + dt * k3)
                y = y + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            return self.read(y)

    return ODENet(), torch.randn(3, 2)


def highway():
    class Highway(nn.Module):
        def __init__(self, size, num_layers):
            super().__init__()
            self.num_layers = num_layers
            self.nonlinear = nn.ModuleList([nn.Linear(size, size) for _ in range(num_layers)])
            self.linear = nn.ModuleList([nn.Linear(size, size) for _ in range(num_layers)])
            self.gate = nn.ModuleList([nn.Linear(size, size) for _ in range(num_layers)])

        def forward(self, x):
            for layer in range(self.num_layers):
                gate = torch.sigmoid(self.gate[layer](x))
                x = gate * F.relu(self.nonlinear[layer](x)) + (1 - gate) * self.linear[layer](x)
            return x

    return nn.Sequential(OrderedDict(embed=nn.Linear(3, 6), hw=Highway(6, 2), out=nn.Linear(6, 2))), torch.randn(4, 3)


def film():
    """Feature-wise scale and shift, generated from a condition and cut by chunk."""

    class FiLM(nn.Module):
        def __init__(self):
            super().__init__()
            self.condition = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 12))
            self.conv, self.norm, self.head = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6, affine=False), nn.Linear(6, 2)

        def forward(self, x, c):
            gamma, beta = self.condition(c)[..., None, None].chunk(2, dim=1)
            x = F.relu((1 + gamma) * self.norm(self.conv(x)) + beta)
            return self.head(x.mean(dim=(2, 3)))

    return FiLM(), (torch.randn(2, 1, 7, 7), torch.randn(2, 3))


def hypernetwork():
    """A network that makes the weights of another one."""

    class Hyper(nn.Module):
        def __init__(self, n_in=3, n_hidden=5):
            super().__init__()
            self.n_in, self.n_hidden = n_in, n_hidden
            self.z, self.trunk = nn.Parameter(torch.randn(4)), nn.Linear(4, 8)
            self.to_w, self.to_b = nn.Linear(8, n_hidden * n_in), nn.Linear(8, n_hidden)
            self.head = nn.Linear(n_hidden, 2)

        def forward(self, x):
            h = torch.tanh(self.trunk(self.z))
            w, b = self.to_w(h).view(self.n_hidden, self.n_in), self.to_b(h)
            return self.head(torch.tanh(F.linear(x, w, b)))

    return Hyper(), torch.randn(4, 3)


def nerf():
    class NeRF(nn.Module):
        def __init__(self, D=4, W=10, input_ch=9, views=6, skips=(2,)):
            super().__init__()
            self.skips, self.input_ch, self.views = skips, input_ch, views
            self.pts_linears = nn.ModuleList(
                [nn.Linear(input_ch, W)]
                + [nn.Linear(W, W) if i not in skips else nn.Linear(W + input_ch, W) for i in range(D - 1)]
            )
            self.views_linears = nn.ModuleList([nn.Linear(views + W, W // 2)])
            self.feature_linear, self.alpha_linear = nn.Linear(W, W), nn.Linear(W, 1)
            self.rgb_linear = nn.Linear(W // 2, 3)

        def forward(self, x):
            input_pts, input_views = torch.split(x, [self.input_ch, self.views], dim=-1)
            h = input_pts
            for i, _ in enumerate(self.pts_linears):
                h = F.relu(self.pts_linears[i](h))
                if i in self.skips:
                    h = torch.cat([input_pts, h], -1)
            alpha, feature = self.alpha_linear(h), self.feature_linear(h)
            h = torch.cat([feature, input_views], -1)
            for layer in self.views_linears:
                h = F.relu(layer(h))
            return torch.cat([self.rgb_linear(h), alpha], -1)

    net = NeRF()
    return net, torch.randn(5, 15)


def dueling_dqn():
    class DuelingDQN(nn.Module):
        def __init__(self, n_actions=4):
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(2, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 2), nn.ReLU())
            self.advantage = nn.Sequential(nn.Linear(8 * 4, 10), nn.ReLU(), nn.Linear(10, n_actions))
            self.value = nn.Sequential(nn.Linear(8 * 4, 10), nn.ReLU(), nn.Linear(10, 1))

        def forward(self, state):
            x = self.features(state / 255.0).reshape(state.shape[0], -1)
            a, v = self.advantage(x), self.value(x)
            return v + a - a.mean(dim=1, keepdim=True)

    return DuelingDQN(), torch.rand(2, 2, 8, 8) * 255


def actor_critic():
    Policy = namedtuple("Policy", "mean std value")

    class ActorCritic(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
            self.mu, self.v, self.log_std = nn.Linear(8, 2), nn.Linear(8, 1), nn.Parameter(torch.zeros(2))
            nn.init.orthogonal_(self.mu.weight, 0.01)
            nn.init.zeros_(self.v.weight)

        def forward(self, obs):
            h = self.trunk(obs)
            return Policy(torch.tanh(self.mu(h)), self.log_std.exp().expand(len(obs), -1), self.v(h).squeeze(-1))

    return ActorCritic(), torch.randn(4, 5)


def pinn():
    """A network of sines and its derivative in the input, as physics-informed networks use them."""

    class Sine(nn.Module):
        def __init__(self, w0):
            super().__init__()
            self.w0 = w0

        def forward(self, x):
            return torch.sin(self.w0 * x)

    class PINN(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 8), Sine(3.0), nn.Linear(8, 8), Sine(1.0), nn.Linear(8, 1))

        def forward(self, x, t):
            return self.net(torch.stack([x, t], dim=-1)).squeeze(-1)

    return PINN(), (torch.rand(6), torch.rand(6))


def pinn_residual():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = nn.Linear(1, 8), nn.Linear(8, 1)

        def forward(self, x):
            with torch.enable_grad():
                x = x.detach().requires_grad_(True)
                u = self.out(torch.tanh(self.hidden(x)))
                du = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
            return du + u

    return Residual(), torch.rand(6, 1)


def real_nvp():
    class Coupling(nn.Module):
        def __init__(self, mask):
            super().__init__()
            self.register_buffer("mask", mask)
            self.s = nn.Sequential(nn.Linear(4, 7), nn.LeakyReLU(), nn.Linear(7, 4), nn.Tanh())
            self.t = nn.Sequential(nn.Linear(4, 7), nn.LeakyReLU(), nn.Linear(7, 4))

        def forward(self, x):
            masked = x * self.mask
            s, t = self.s(masked) * (1 - self.mask), self.t(masked) * (1 - self.mask)
            return masked + (1 - self.mask) * (x * s.exp() + t), s.sum(1)

    class RealNVP(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(
                [Coupling(torch.tensor([1.0, 0, 1, 0])), Coupling(torch.tensor([0, 1.0, 0, 1]))]
            )

        def forward(self, x):
            log_det = x.new_zeros(x.shape[0])
            for layer in self.layers:
                x, d = layer(x)
                log_det += d
            return x, log_det

    return RealNVP(), torch.randn(5, 4)


def glow_split():
    """A coupling of halves with a convolution that starts at zero, and a squeeze of space into channels."""

    class Glow(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(6, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())
            self.zero = nn.Conv2d(8, 12, 3, 1, 1)
            self.zero.weight.data.zero_()

        def forward(self, x):
            b, c, h, w = x.shape
            x = x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).contiguous().view(b, c * 4, h // 2, w // 2)
            xa, xb = x.chunk(2, 1)
            h = self.zero(self.net(xa))
            shift, scale = h[:, 0::2], torch.sigmoid(h[:, 1::2] + 2)
            return torch.cat([xa, (xb + shift) * scale], 1), scale.log().flatten(1).sum(-1)

    return Glow(), torch.randn(2, 3, 6, 6)


def functional_parameters():
    """No module but the network itself; weights in a ParameterList and a ParameterDict."""

    class Functional(nn.Module):
        def __init__(self, sizes=(4, 7, 6, 2)):
            super().__init__()
            self.ws = nn.ParameterList([nn.Parameter(torch.randn(o, i) / i**0.5) for i, o in zip(sizes, sizes[1:])])
            self.bs = nn.ParameterDict({f"b{i}": nn.Parameter(torch.zeros(o)) for i, o in enumerate(sizes[1:])})

        def forward(self, x):
            for i, w in enumerate(self.ws):
                x = F.linear(x, w, self.bs[f"b{i}"])
                if i < len(self.ws) - 1:
                    x = F.layer_norm(x, x.shape[-1:]) if i else F.relu(x)
            return x

    return Functional(), torch.randn(3, 4)


def matmul_style():
    """x @ self.w, biases added in place, a norm written by hand with a standard deviation."""

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.w1, self.b1 = nn.Parameter(torch.randn(3, 8) * 0.5), nn.Parameter(torch.zeros(8))
            self.w2, self.b2 = nn.Parameter(torch.randn(8, 5) * 0.5), nn.Parameter(torch.zeros(5))
            self.w3, self.g = nn.Parameter(torch.randn(5, 2) * 0.5), nn.Parameter(torch.ones(8))

        def forward(self, x):
            h = x @ self.w1
            h += self.b1
            h = self.g * (h - h.mean(-1, keepdim=True)) / (h.std(-1, keepdim=True) + 1e-5)
            h = torch.clamp(h, min=0)
            h = (h @ self.w2).add_(self.b2)
            h = h * torch.sigmoid(1.702 * h)
            return h.matmul(self.w3)

    return Plain(), torch.randn(4, 3)


def subclassed_layers():
    class MyLinear(nn.Linear):
        def reset_parameters(self):
            nn.init.orthogonal_(self.weight)
            nn.init.zeros_(self.bias)

    class WSConv2d(nn.Conv2d):
        """Weights are standardised at each call."""

        def forward(self, x):
            w = self.weight
            w = (w - w.mean(dim=(1, 2, 3), keepdim=True)) / (w.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
            return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)

    class SameConv(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)

    net = nn.Sequential(
        SameConv(2, 5, 3),
        nn.ReLU(),
        WSConv2d(5, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        MyLinear(6 * 16, 8),
        nn.SELU(),
        MyLinear(8, 3),
    )
    return net, torch.randn(2, 2, 6, 6)


def called_twice():
    """One block runs twice, a tied autoencoder reads its own weights backwards, and a step is shared by name."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.enc, self.block = nn.Linear(6, 5), nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 5))
            self.alias = self.block

        def forward(self, batch):
            h = torch.relu(self.enc(batch["x"]))
            h = self.alias(self.block(h))
            return {"reconstruction": F.linear(h, self.enc.weight.t()), "size": batch["x"].shape[0]}

    net = Twice()
    return net, ({"x": torch.randn(3, 6)},)


def weight_normed():
    from torch.nn.utils.parametrizations import orthogonal, weight_norm

    net = nn.Sequential(
        weight_norm(nn.Linear(4, 7)), nn.Softplus(), weight_norm(nn.Linear(7, 6), dim=None), nn.Softplus(),
        orthogonal(nn.Linear(6, 6)), nn.Tanh(), nn.Linear(6, 2),
    )  # fmt: skip
    return net, torch.randn(3, 4)


def physics_gated_heads():
    """Maxout, GLU, bilinear, cosine similarity, PReLU and a sum of squares: rarer operations."""

    class Rare(nn.Module):
        def __init__(self):
            super().__init__()
            self.maxout, self.glu = nn.Linear(4, 6 * 2), nn.Linear(6, 10)
            self.bilinear, self.prelu = nn.Bilinear(5, 4, 6), nn.PReLU(6)
            self.a, self.b = nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, x):
            h = self.maxout(x).view(*x.shape[:-1], 6, 2).max(-1)[0]
            h = F.glu(self.glu(h), dim=-1)
            h = self.prelu(self.bilinear(h, x))
            a, b = self.a(h), self.b(h)
            return F.cosine_similarity(a, b, dim=-1) + (a**2).sum(-1)

    return Rare(), torch.randn(3, 4)
