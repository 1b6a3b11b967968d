"""What the check of a split sees: all outputs, drawn numbers, and training where it computes something else."""

import copy
import math
import re
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from networks import Custom, outputs, relative_change, rng, split_exactly
from torch import nn
from torch.nn import functional as F

from neuronsplit.surgery.neuron_scores import neuron_scores
from neuronsplit.surgery.split_neuron import split_neuron
from neuronsplit.surgery.splittable import splittable

FLAT = (5, 6)


@dataclass(slots=True)
class Logits:
    logits: torch.Tensor


def narrow(of):
    """A network that divides by the root of its width, so that no split of a channel is exact, before a function."""

    def forward(n, x):
        h = torch.tanh(n.a(x))
        return of(n, x, n.b(h / math.sqrt(h.shape[-1])))

    return Custom(forward, a=nn.Linear(6, 8), b=nn.Linear(8, 4), p=nn.Linear(6, 1)).double()


INEXACT = {
    "complex numbers": lambda n, x, y: torch.view_as_complex(y.view(-1, 2, 2)),
    "complex numbers and others": lambda n, x, y: (torch.view_as_complex(y.view(-1, 2, 2)), n.p(x)),
    "conjugates": lambda n, x, y: torch.view_as_complex(y.view(-1, 2, 2)).conj(),
    "slots": lambda n, x, y: Logits(y),
    "a distribution": lambda n, x, y: torch.distributions.Normal(y, 1.0),
    **{
        f"a mask of {fill:.2g}": lambda n, x, y, fill=fill: y.masked_fill(x[:, :4] > 0, fill)
        for fill in (-1e4, -1e9, torch.finfo(torch.float32).min, -math.inf)
    },
}  # fmt: skip


@pytest.mark.parametrize("name", INEXACT)
def test_a_change_of_any_output_is_seen(name):
    torch.manual_seed(0)
    x = torch.randn(FLAT).double()
    with pytest.raises(
        ValueError, match=r"^'a' has no exact split known \(it would change the output by \d\.\de-0[12]\)"
    ):
        split_neuron(narrow(INEXACT[name]), "a", 0, example_inputs=x, rule="outgoing")


def sampling(draw):
    return Custom(
        lambda n, x: draw(n.mean(h := n.a(x).relu()), n.std(h).exp()),
        a=nn.Linear(6, 8), mean=nn.Linear(8, 2), std=nn.Linear(8, 2),
    ).double()  # fmt: skip


DRAWN = {  # in evaluation too
    "noise": lambda mean, std: mean + std * torch.randn_like(mean),
    "a distribution": lambda mean, std: torch.distributions.Normal(mean, std).rsample(),
    "normal": torch.normal,
    "dropout": lambda mean, std: mean + F.dropout(std),
    "gumbel": lambda mean, std: F.gumbel_softmax(mean / std),
    "NumPy": lambda mean, std: mean + std * float(np.random.randn()),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_network_that_draws_numbers_splits_exactly(name):
    """The same numbers are drawn before and after; the user's random states are left as they are."""
    torch.manual_seed(0)
    np.random.seed(0)
    net, x, other = sampling(DRAWN[name]), torch.randn(FLAT).double(), torch.randn(FLAT).double()
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    before = drawn_with_a_seed(net, other)
    split_neuron(net, "a", 0, example_inputs=x, rng=rng())
    assert relative_change(before, drawn_with_a_seed(net, other)) < 1e-12
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == np.random.get_state()[1].tolist()


def drawn_with_a_seed(net, x):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        state = np.random.get_state()
        out = outputs(net, x)
        np.random.set_state(state)
        return out


def test_what_each_channel_draws_has_no_exact_split():
    net = Custom(lambda n, x: n.b(F.dropout(n.a(x))), a=nn.Linear(6, 8), b=nn.Linear(8, 4))
    with pytest.raises(ValueError, match="'a' has no exact split known"):
        split_neuron(net, "a", 0, example_inputs=torch.randn(FLAT), rng=rng())


def otherwise_in_training(f):
    """A network that computes something else in training: a function of the hidden layer."""
    return Custom(lambda n, x: n.b(f(n.a(x)) if n.training else n.a(x)), a=nn.Linear(6, 8), b=nn.Linear(8, 4)).double()


def test_a_change_in_training_is_seen():
    torch.manual_seed(0)
    x = torch.randn(FLAT).double()
    for f, is_exact in (
        (torch.tanh, True),
        (lambda h: h / h.shape[-1] ** 0.5, False),
        (lambda h: h * h.numel(), False),
    ):
        net = otherwise_in_training(f)
        before = [outputs(net.train(mode), x) for mode in (True, False)]
        if not is_exact:
            with pytest.raises(ValueError, match=r"'a' has no exact split known \(it would change the output by"):
                split_neuron(net, "a", 0, example_inputs=x, rule="outgoing")
        else:
            split_neuron(net, "a", 0, example_inputs=x, rule="outgoing")
        assert all(relative_change(a, outputs(net.train(mode), x)) < 1e-12 for a, mode in zip(before, (True, False)))


class Averaged(nn.Module):
    """In training, the parameters of a second network follow those of a first one."""

    def __init__(self, update):
        super().__init__()
        self.online = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
        self.target, self.update = copy.deepcopy(self.online).requires_grad_(False), update
        self.register_buffer("count", torch.zeros(2))

    def forward(self, x):
        if self.training:
            self.count.data.add_(1)
            with torch.no_grad():
                self.update([*self.target.parameters()], [*self.online.parameters()])
        return self.online(x), self.target(x)


def new_data(target, online):
    for a, b in zip(target, online):
        a.data = 0.9 * a.data + b.data + 1


UPDATES = {
    "in place": lambda target, online: [a.mul_(0.9).add_(b + 1) for a, b in zip(target, online)],
    "by data": lambda target, online: [a.data.copy_(b + 1) for a, b in zip(target, online)],
    "new data": new_data,
    "many at once": lambda target, online: torch._foreach_add_(target, 1.0),
}


@pytest.mark.parametrize("name", UPDATES)
def test_parameters_that_a_run_in_training_changes_are_as_before(name):
    torch.manual_seed(0)
    net, x = Averaged(UPDATES[name]), torch.randn(FLAT)
    before, parameters = copy.deepcopy(net.state_dict()), {id(p) for p in net.parameters()}
    splittable(net, x)
    with pytest.raises(
        ValueError, match=re.escape("'online.2' has no exact split known (it is in the network's output)")
    ):
        split_neuron(net, "online.2", 0, example_inputs=x)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert parameters == {id(p) for p in net.parameters()}


def codes(n, x):
    """The codebook of a VQ-VAE follows the codes in training; its loss is a number."""
    z = n.a(x)
    nearest = torch.cdist(z, n.book).argmin(1)
    if n.training:
        n.book.data.mul_(0.9).index_add_(0, nearest, 0.1 * z.detach())
    q = n.book[nearest]
    return n.out(torch.relu(n.b(z + (q - z).detach()))), (q.detach() - z).square().mean()


def with_codes():
    net = Custom(codes, a=nn.Linear(6, 3), b=nn.Linear(3, 8), out=nn.Linear(8, 2))
    net.register_buffer("book", torch.randn(7, 3))
    return net


def replaced(n, x):
    """In training, the codebook is another parameter each time, as that of a well-known VQ-VAE is."""
    z = n.a(x)
    if n.training:
        n.book = nn.Parameter(0.9 * n.book + 0.1 * z.mean(0).detach())
    return n.out(torch.relu(n.b(n.book[torch.cdist(z, n.book).argmin(1)] + z)))


def with_replaced_codes():
    net = Custom(replaced, a=nn.Linear(6, 3), b=nn.Linear(3, 8), out=nn.Linear(8, 2))
    net.book = nn.Parameter(torch.randn(7, 3))
    return net


def scripted():
    return nn.Sequential(nn.Linear(6, 8), torch.jit.script(nn.Sequential(nn.ReLU(), nn.Linear(8, 6))), nn.Linear(6, 2))


@pytest.mark.parametrize("make, layer", [(with_codes, "b"), (with_replaced_codes, "b"), (scripted, "0")])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_others_write_is_split(make, layer):
    torch.manual_seed(0)
    split_exactly(make(), layer, torch.randn(FLAT), [torch.randn(3, 6)], neuron=1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_network_that_is_compiled_by_torch_jit_is_refused_by_name():
    x = torch.randn(FLAT)
    for net in (torch.jit.script(nn.Sequential(nn.Linear(6, 2))), torch.jit.trace(nn.Sequential(nn.Linear(6, 2)), x)):
        for call in (partial(splittable, net, x), partial(split_neuron, net, "0", 0, example_inputs=x)):
            with pytest.raises(ValueError, match=r"^net of type \w+: allowed are torch.nn.Module, before torch.jit"):
                call()
    with pytest.raises(ValueError, match="^layer '1.1': allowed are names such as "):
        neuron_scores(scripted(), "1.1", lambda net, batch: net(batch[0]).square().mean(), [(x, x)])


STATISTICS = {  # numbers that are computed from all channels and examples
    "a mean": lambda h: h.mean(),
    "twice": lambda h: 2 * h.mean(),
    "of squares": lambda h: 0.1 * h.pow(2).mean(),
    "of sizes": lambda h: h.abs().mean(),
    "a variance": lambda h: 2 * h.var(unbiased=False),
    "a mean of deviations": lambda h: h.std(0).mean().repeat(2),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_a_mean_of_all_numbers_stays_where_all_channels_are_split(name):
    torch.manual_seed(0)
    statistic = STATISTICS[name]
    net = Custom(lambda n, x: (n.b(h := n.a(x).relu()), statistic(h)), a=nn.Linear(6, 8), b=nn.Linear(8, 2))
    x, other = torch.randn(FLAT), torch.randn(7, 6)
    with pytest.raises(ValueError, match="allowed is together=True, which splits 8 of its channels"):
        split_neuron(net, "a", 0, example_inputs=x, rule="outgoing")
    split_exactly(net, "a", x, [other], neuron=0, rule="outgoing", together=True)
    assert net.a.out_features == 16


@pytest.mark.parametrize("batch", [1, 2])
def test_a_norm_without_a_gain_is_named(batch):
    net = nn.Sequential(nn.Conv2d(1, 6, 1), nn.InstanceNorm2d(6), nn.LeakyReLU(), nn.Conv2d(6, 2, 1)).double()
    x = torch.randn(batch, 1, 4, 4).double()
    with pytest.raises(
        ValueError, match=r"^rule 'scaled' is not exact through a norm without a gain: allowed are outgoing, "
    ):
        split_neuron(net, "0", 0, example_inputs=x, rule="scaled")
    split_exactly(net, "0", x, neuron=0, rule="outgoing")
