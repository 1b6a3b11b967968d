"""Scores of neurons agree with the study's, with closed forms, and with plain loops over neurons and autograd."""

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from neuronsplit.core.mlp import MLP
from neuronsplit.data.datasets import Subset
from neuronsplit.growing import scores as study
from neuronsplit.surgery.neuron_scores import ABLATION, GRADIENTS, SCORES, neuron_scores
from neuronsplit.surgery.split_neuron import split_neuron

NO_ABLATION = SCORES[1:]


def loss_of(net, batch):
    images, labels = batch
    return cross_entropy(net(images), labels)


def by_loops(front, back, axis):
    """Scores with the network in two halves: front() → activations, and activations → back(activations), the loss."""
    a = front().detach().requires_grad_()
    whole = back(a)
    (gradient,) = torch.autograd.grad(whole, a)
    whole = whole.detach()
    rows = []
    for j in range(a.shape[axis]):
        masked = a.detach().clone()
        masked.select(axis, j).zero_()
        x, g = a.detach().select(axis, j).flatten(), gradient.select(axis, j).flatten()
        firing = sum(float(value) > 0 for value in x) / len(x)
        row = back(masked).detach() - whole, (x * g).abs().sum(), g.norm(), firing, x.var(correction=0)
        rows.append([float(value) for value in row])
    return np.array(rows)


def some_batches(n, shape, n_classes=3, sizes=None, seed=0):
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(n, *shape, generator=g).double()
    labels = torch.randint(n_classes, (n,), generator=g)
    return list(zip(images.split(sizes or n), labels.split(sizes or n)))


def small_net(seed=0, activation=nn.ReLU):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 3)).double()


@settings(max_examples=60)
@given(width=st.integers(2, 8), n=st.integers(1, 300), seed=st.integers(0, 1000), where=st.sampled_from("01"))
def test_scores_of_a_dense_network_are_those_of_the_study(width, n, seed, where):
    g = torch.Generator().manual_seed(seed)
    mlp = MLP((5, width, 3), [seed]).to(torch.float64)
    for p in mlp.parameters():
        p.add_(torch.randn(p.shape, generator=g))
    images = torch.randn(n, 5, generator=g, dtype=torch.float64)
    labels = torch.randint(3, (n,), generator=g)
    net, batches = reference.network(mlp, 0), list(zip(images.split(70), labels.split(70)))
    found = neuron_scores(net, where, loss_of, batches)
    blocks = study.forward_blocks(mlp, Subset(images, labels))
    ((_, _, hidden), (_, grad, _)) = list(mlp.gradients(images, blocks[0].hidden, blocks[0].logits, labels))
    if where == "1":  # the study's variance is that of the activations after the ReLU
        np.testing.assert_allclose(found.activation_variance, study.activation_variance(mlp, blocks)[0], rtol=1e-5)
    else:  # a ReLU's gradient is what the study hands back from it
        np.testing.assert_allclose(found.activation_gradient_norm, grad[0].norm(dim=0), rtol=1e-5)
    np.testing.assert_allclose(found.fire_rate, study.fire_rate(mlp, blocks)[0], rtol=1e-5)
    np.testing.assert_allclose(found.activation_importance, (hidden * grad)[0].abs().sum(0), rtol=1e-5, atol=1e-12)
    # The study scales the neurons that remain by H / (H − 1). That is undone by smaller outgoing weights.
    mlp.weights[1] *= (width - 1) / width
    increase = study.ablation_loss(mlp, blocks)[0] - loss_of(net, (images, labels)).item()
    np.testing.assert_allclose(found.ablation_loss_increase, increase, rtol=1e-5, atol=1e-9)


def test_scores_have_closed_forms_where_the_loss_is_linear():
    torch.manual_seed(0)
    net, v = nn.Linear(3, 5).double(), torch.randn(5).double()
    x = torch.randn(40, 3).double()
    a = net(x).detach()
    found = neuron_scores(net, "", lambda net, batch: (net(batch) @ v).mean(), x.split(11))
    expected = {
        "ablation_loss_increase": -(v * a).mean(0), "activation_importance": (v * a).abs().mean(0),
        "activation_gradient_norm": v.abs() / 40**0.5, "fire_rate": (a > 0).double().mean(0),
        "activation_variance": a.var(0, correction=0),
    }  # fmt: skip
    assert list(found) == list(SCORES) == list(expected) and list(found.index) == [*range(5)]
    assert found.index.name == "neuron" and (found.dtypes == "float64").all()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-10, atol=1e-13)
    assert (found.ablation_loss_increase.abs() <= found.activation_importance).all()


@settings(max_examples=60)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 1000), as_list=st.booleans())
def test_scores_do_not_depend_on_how_examples_are_batched(sizes, seed, as_list):
    net = small_net(seed, nn.GELU)
    batches = some_batches(sum(sizes), (4,), sizes=sizes, seed=seed)
    found = neuron_scores(net, "1", loss_of, batches if as_list else (batch for batch in batches))
    ((images, labels),) = some_batches(sum(sizes), (4,), seed=seed)
    loops = by_loops(lambda: net[:2](images), lambda a: cross_entropy(net[2](a), labels), 1)
    np.testing.assert_allclose(found, loops, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    "where, axis", [("0", None), ("1", None), ("2", 1), ("3", -3), ("4", None), ("5", 1), ("7", None), ("8", None)]
)
def test_channels_of_a_convolutional_network(where, axis):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.Identity(), nn.GroupNorm(5, 5),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(45, 6), nn.Dropout(0.5), nn.Linear(6, 3),
    ).double()  # fmt: skip
    net(torch.randn(30, 2, 8, 8).double() * 3)  # statistics other than 0 and 1
    found = neuron_scores(net, where, loss_of, some_batches(23, (2, 8, 8), sizes=10), axis=axis)
    net.eval()
    ((images, labels),) = some_batches(23, (2, 8, 8))
    cut = int(where) + 1
    loops = by_loops(lambda: net[:cut](images), lambda a: cross_entropy(net[cut:](a.clone()), labels), 1)
    assert len(found) == (6 if cut > 7 else 5)
    np.testing.assert_allclose(found, loops, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("shape", [(2, 9), (7, 2, 9)])
def test_a_convolution_of_one_image_without_an_axis_for_images(shape):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Tanh()).double(), torch.randn(shape).double()
    found = neuron_scores(net, "0", lambda net, batch: net(batch).square().mean(), [x])
    loops = by_loops(lambda: net[0](x), lambda a: net[1](a).square().mean(), -2)
    np.testing.assert_allclose(found, loops, rtol=1e-9, atol=1e-13)


class Recurrent(nn.Module):
    """A recurrent layer, of which the output or the final state is read."""

    def __init__(self, kind, reads, unbatched=False, **options):
        super().__init__()
        self.rnn, self.reads = kind(3, 4, **options), reads
        self.last = nn.Linear(4 * (1 + self.rnn.bidirectional), 2)

    def forward(self, x):
        out, state = self.rnn(x)
        return self.head(out, state[0] if isinstance(state, tuple) else state)

    def head(self, out, h_n):
        if self.reads == "out":
            return self.last(out)
        top = h_n[-1 - self.rnn.bidirectional :]
        return self.last(torch.cat([*top], -1)) + (0 if self.reads == "state" else self.last(out.tanh()).sum())


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("reads", ["out", "state", "both"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first, shape", [(True, (5, 6, 3)), (False, (6, 5, 3)), (True, (6, 3))])
def test_units_of_recurrent_layers(kind, reads, bidirectional, batch_first, shape):
    torch.manual_seed(0)
    net = Recurrent(kind, reads, bidirectional=bidirectional, batch_first=batch_first, num_layers=2).double()
    x = torch.randn(shape).double()
    found = neuron_scores(net, "rnn", lambda net, batch: net(batch).square().mean(), [x])
    lower = net.rnn(x)[1]
    lower = (lower[0] if isinstance(lower, tuple) else lower)[: -1 - bidirectional].detach()

    def back(a):  # a: (…, directions, units); the final states are those after the last step of each direction
        time = 1 if batch_first and len(shape) == 3 else 0
        top = [a.select(time, -1 if d == 0 else 0).select(-2, d) for d in range(1 + bidirectional)]
        return net.head(a.flatten(-2), torch.cat([lower, torch.stack(top)])).square().mean()

    loops = by_loops(lambda: net.rnn(x)[0].unflatten(-1, (1 + bidirectional, 4)), back, -1)
    np.testing.assert_allclose(found, loops, rtol=1e-8, atol=1e-13)
    assert len(found) == 4 and (found.ablation_loss_increase != 0).all()


def test_a_cell_that_runs_at_every_step():
    """The gradient by an activation goes through the later steps; a neuron is 0 at all steps."""
    torch.manual_seed(0)
    cell, x = nn.LSTMCell(3, 4).double(), torch.randn(6, 5, 3).double()
    net = nn.ModuleDict({"cell": cell})

    def loss(net, batch, change=lambda t, h: h):
        h = c = torch.zeros(5, 4).double()
        for t, step in enumerate(batch):
            h, c = net["cell"](step, (h, c))
            h = change(t, h)
        return h.square().mean()

    found = neuron_scores(net, "cell", loss, [x])
    activations, shifts = {}, torch.zeros(6, 5, 4).double().requires_grad_()

    def shifted(t, h):
        activations[t] = h.detach()
        return h + shifts[t]

    whole = loss(net, x, shifted)
    (gradient,) = torch.autograd.grad(whole, shifts)
    a = torch.stack([*activations.values()])
    for j in range(4):
        without = loss(net, x, lambda t, h, j=j: h * (torch.arange(4) != j))
        row = (without - whole).detach(), (a * gradient)[..., j].abs().sum(), gradient[..., j].norm()
        np.testing.assert_allclose(found.loc[j, [ABLATION, *GRADIENTS]], [float(value) for value in row], rtol=1e-9)
    np.testing.assert_allclose(found.activation_variance, a.flatten(0, 1).var(0, correction=0), rtol=1e-9)


class Named(nn.Module):
    """A network with keyword arguments, an output of several kinds, and a layer that runs twice."""

    def __init__(self):
        super().__init__()
        self.encoder, self.attention, self.head = nn.Linear(4, 6), nn.MultiheadAttention(6, 2, batch_first=True), Head()

    def forward(self, *, left, right):
        hidden = torch.stack([self.encoder(left).tanh(), self.encoder(right).tanh()], 1)
        return {"logits": self.head(self.attention(hidden, hidden, hidden)[0].sum(1))["all"][1], "left": left}


class Head(nn.Linear):
    """A layer with an output of several kinds, of which the second is its first tensor of numbers."""

    def __init__(self):
        super().__init__(6, 3)

    def forward(self, x):
        return {"n": torch.tensor([len(x)]), "all": [None, super().forward(x)]}


def named_loss(net, batch):
    return cross_entropy(net(**batch["inputs"])["logits"], batch["labels"])


def test_named_inputs_and_outputs_of_several_kinds():
    torch.manual_seed(0)
    net, labels = Named().double(), torch.tensor([0, 2, 1, 1, 0])
    left, right = torch.randn(2, 5, 4).double()
    batches = [{"inputs": {"left": left[i], "right": right[i]}, "labels": labels[i]} for i in (slice(2), slice(2, 5))]

    def after_encoder(a):
        hidden = torch.stack([a[0].tanh(), a[1].tanh()], 1)
        return after_attention(net.attention(hidden, hidden, hidden)[0])

    def after_attention(a):
        return cross_entropy(nn.functional.linear(a.sum(1), net.head.weight, net.head.bias), labels)

    def hidden():
        return torch.stack([net.encoder(left).tanh(), net.encoder(right).tanh()], 1)

    loops = {
        "encoder": by_loops(lambda: torch.stack([net.encoder(left), net.encoder(right)]), after_encoder, -1),
        "attention": by_loops(lambda: net.attention(*[hidden()] * 3)[0], after_attention, -1),
        "head": by_loops(lambda: net.head(net.attention(*[hidden()] * 3)[0].sum(1))["all"][1],
                         lambda a: cross_entropy(a, labels), -1),
    }  # fmt: skip
    for where, expected in loops.items():
        np.testing.assert_allclose(neuron_scores(net, where, named_loss, batches), expected, rtol=1e-9, atol=1e-13)


def test_a_layer_that_runs_for_some_examples_only():
    """A mixture of two experts, each of which gets the examples on its side."""

    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3)])

        def forward(self, x):
            out = torch.zeros(len(x), 3).double()
            for expert, side in zip(self.experts, (x[:, 0] > 0, x[:, 0] <= 0)):
                if side.any():
                    out[side] = expert(x[side])
            return out

    torch.manual_seed(0)
    net, ((images, labels),) = Mixture().double(), some_batches(30, (4,))
    one = neuron_scores(net, "experts.0", loss_of, [(images, labels)])
    some = neuron_scores(net, "experts.0", loss_of, zip(images.split(2), labels.split(2)))
    np.testing.assert_allclose(some, one, rtol=1e-9, atol=1e-13)
    side = images[:, 0] > 0
    a = net.experts[0](images[side])
    rest = cross_entropy(net(images[~side]), labels[~side], reduction="sum")
    loops = by_loops(lambda: a, lambda a: (cross_entropy(a, labels[side], reduction="sum") + rest) / 30, 1)
    np.testing.assert_allclose(one, loops, rtol=1e-9, atol=1e-13)


def test_a_dead_neuron_scores_0_everywhere_even_if_the_network_is_random():
    net, ((images, labels),) = small_net(), some_batches(20, (4,))
    with torch.no_grad():
        net[0].bias[[1, 4]] = -100

    def loss(net, batch):
        a = net[1](net[0](batch[0]))
        return cross_entropy(net[2](a + 0.1 * torch.randn_like(a)), batch[1])

    first = neuron_scores(net, "1", loss, [(images, labels)])
    torch.manual_seed(7)
    assert first.equals(neuron_scores(net, "1", loss, [(images, labels)]))
    scores = first.drop(columns="activation_gradient_norm")  # a dead neuron may have outgoing weights
    assert (scores.loc[[1, 4]] == 0).all(axis=None) and (scores.drop(index=[1, 4]) != 0).all(axis=None)
    before = neuron_scores(net, "0", loss, [(images, labels)], scores=["activation_gradient_norm"])
    assert (before.loc[[1, 4]] == 0).all(axis=None)  # of what comes in, none


def test_the_variance_of_large_activations_keeps_its_digits():
    net = nn.Sequential(nn.Identity(), nn.Linear(2, 2)).double()
    x = 1e8 + torch.stack([torch.full((9,), 0.1), torch.arange(9) / 10], 1).double()
    found = neuron_scores(net, "0", lambda net, x: net(x).mean(), x.split(4)).activation_variance
    np.testing.assert_allclose(found, x.var(0, correction=0), rtol=1e-6, atol=1e-15)
    assert (found >= 0).all()


def test_batches_stay_as_they_are_even_if_a_layer_returns_its_input_or_it_is_used_again():
    class Reuses(nn.Sequential):
        def forward(self, x):
            hidden = self[0](x) if len(self) > 2 else x
            out = self[-1](self[-2](hidden))
            with torch.no_grad():
                hidden.mul_(1 if hidden is x else -1)
            return out

    torch.manual_seed(0)
    (batch,), net = some_batches(20, (4,)), Reuses(nn.Identity(), nn.Linear(4, 3)).double()
    before = batch[0].clone()
    neuron_scores(net, "0", loss_of, [batch])
    assert torch.equal(batch[0], before)
    net = Reuses(nn.Linear(4, 6), nn.Identity(), nn.Linear(6, 3)).double()
    found = neuron_scores(net, "1", loss_of, [batch])
    loops = by_loops(lambda: net[0](batch[0]), lambda a: cross_entropy(net[2](a), batch[1]), 1)
    np.testing.assert_allclose(found, loops, rtol=1e-9, atol=1e-13)


def test_batches_that_are_drawn_or_have_no_tensors():
    net, state = small_net(), torch.get_rng_state()
    drawn = [(torch.randn(5, 4).double(), torch.arange(5) % 3) for _ in range(3)]
    torch.set_rng_state(state)
    found = neuron_scores(net, "1", loss_of, ((torch.randn(5, 4).double(), torch.arange(5) % 3) for _ in range(3)))
    assert found.equals(neuron_scores(net, "1", loss_of, drawn))
    numbers = neuron_scores(net, "1", lambda net, number: loss_of(net, drawn[number]), range(3))
    np.testing.assert_allclose(numbers, found, rtol=1e-9)


@pytest.mark.parametrize("failing", [False, True])
def test_the_network_and_the_random_numbers_are_as_before(failing):
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    net.train()[1].eval()
    net[0].weight.requires_grad_(False)
    batches = some_batches(20, (4,), sizes=8)
    loss_of(net, batches[0]).backward()
    modes, flags = [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]
    grads = [(p.grad, None if p.grad is None else p.grad.clone()) for p in net.parameters()]
    state, rng = {name: t.clone() for name, t in net.state_dict().items()}, torch.get_rng_state()
    seen = []

    def loss(net, batch):
        seen.append(net.training or net[3].training)
        if failing and len(seen) == 5:
            raise RuntimeError("no more")
        return loss_of(net, batch)

    if failing:
        with pytest.raises(RuntimeError, match="no more"):
            neuron_scores(net, "2", loss, batches)
    else:
        loader = torch.utils.data.DataLoader(list(zip(*map(torch.cat, zip(*batches)))), 8, shuffle=True)
        neuron_scores(net, "2", loss, loader)
    assert not any(seen) and [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == flags
    assert all(p.grad is grad for p, (grad, _) in zip(net.parameters(), grads))
    assert all(grad is None or torch.equal(grad, before) for grad, before in grads)
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng) and torch.backends.mha.get_fastpath_enabled()
    assert not any(m._forward_hooks for m in net.modules())


def test_frozen_networks_and_those_under_no_grad_have_the_same_scores():
    net, batches = small_net(), some_batches(20, (4,), sizes=8)
    expected = neuron_scores(net, "1", loss_of, batches)
    with torch.no_grad():
        assert expected.equals(neuron_scores(net, "1", loss_of, batches))
    assert expected.equals(neuron_scores(net.requires_grad_(False), "1", loss_of, batches))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_fused_and_compiled_layers_are_seen():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double()
    net, x = nn.TransformerEncoder(layer, 1).eval(), torch.randn(3, 5, 8).double()
    padding = torch.arange(5) >= torch.tensor([[5], [3], [4]])

    def loss(net, batch):
        return net(batch, src_key_padding_mask=padding).square().mul(torch.arange(8))[~padding].mean()

    found = neuron_scores(net, "layers.0.linear1", loss, [x], scores=[ABLATION])
    for j in range(16):
        weight = net.layers[0].linear2.weight
        with torch.no_grad():
            kept, weight[:, j] = weight[:, j].clone(), 0
            without = loss(net, x)
            weight[:, j] = kept
            whole = loss(net, x)
        # relu(0) is 0, and so is what linear2 without column j reads of it
        assert found.ablation_loss_increase[j] == pytest.approx((without - whole).item(), rel=1e-9, abs=1e-14)
    net, batches = small_net(), some_batches(20, (4,))
    compiled = torch.compile(net, backend="eager")
    with torch.no_grad():
        loss_of(compiled, batches[0])
    expected = neuron_scores(net, "1", loss_of, batches)
    np.testing.assert_allclose(neuron_scores(compiled, "_orig_mod.1", loss_of, batches), expected, rtol=1e-9)


def test_chosen_scores_in_their_order_and_no_pass_that_they_do_not_need():
    net, batches, n_passes = small_net(), some_batches(20, (4,), sizes=8), []
    every = neuron_scores(net, "1", loss_of, batches)

    def loss(net, batch):
        n_passes.append(torch.is_grad_enabled())
        return loss_of(net, batch)

    for scores, per_batch in [(["fire_rate"], [False]), (("activation_variance", GRADIENTS[0]), [True]),
                              ([GRADIENTS[1], ABLATION], [True] + [False] * 7)]:  # fmt: skip
        n_passes.clear()
        found = neuron_scores(net, "1", loss, batches, scores=scores)
        assert list(found) == list(scores) and found.equals(every[list(scores)])
        assert n_passes == per_batch * 3


def test_the_best_neuron_can_be_split():
    net, batches = small_net(), some_batches(20, (4,), sizes=8)
    neuron = neuron_scores(net, "1", loss_of, batches).ablation_loss_increase.idxmax()
    before = net(batches[0][0])
    split_neuron(net, "0", neuron, example_inputs=batches[0][0])
    torch.testing.assert_close(net(batches[0][0]), before)
    assert len(neuron_scores(net, "1", loss_of, batches)) == 7


@pytest.mark.parametrize("dtype, rtol", [(torch.float32, 1e-3), (torch.bfloat16, 0.2)])
def test_other_precisions(dtype, rtol):
    net, ((images, labels),) = small_net(), some_batches(50, (4,))
    expected = neuron_scores(net, "1", loss_of, [(images, labels)], scores=NO_ABLATION)
    found = neuron_scores(net.to(dtype), "1", loss_of, [(images.to(dtype), labels)], scores=NO_ABLATION)
    assert (found.dtypes == "float64").all()
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * expected.max().max())


class Packs(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(4, 2)

    def forward(self, x):
        return self.rnn(nn.utils.rnn.pack_sequence([x, x[:3]]))[1]


PLAIN, CONV = small_net(), nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()).double()
IDS = torch.tensor([1, 2])
BATCHES, IMAGES = some_batches(20, (4,), sizes=8), [torch.ones(2, 1, 3, 3).double()]


def mean(net, batch):
    return net(batch).mean()


@pytest.mark.parametrize(
    "net, where, loss, batches, options, message",
    [
        (PLAIN, "3", loss_of, BATCHES, {}, r"layer '3': allowed are names such as \[.*'1'.*\]"),
        (PLAIN, 1, loss_of, BATCHES, {}, r"layer 1 \(did you mean '1'\?\): allowed are names such as \['1', .*\]"),
        (PLAIN, "1", loss_of, BATCHES, {"scores": ["loss"]}, r"scores \['loss'\]: allowed are lists of ablation_.*"),
        (PLAIN, "1", loss_of, BATCHES, {"scores": "fire_rate"}, r"scores 'fire_rate': allowed are lists of .*"),
        (PLAIN, "1", loss_of, BATCHES, {"scores": []}, r"scores \[\]: allowed are lists of .*fire_rate, .*"),
        (PLAIN, "1", loss_of, BATCHES, {"axis": 2}, "axis 2 of '1': allowed are -1, 1"),
        (CONV, "1", mean, IMAGES, {}, r"axis of '1', with \(2, 2, 3, 3\): allowed are axis=1 .* or axis=-1"),
        (PLAIN, "1", loss_of, [], {}, r"batches \[\]: allowed are one or more, with examples in them"),
        (PLAIN, "1", lambda net, b: net(b[0]), BATCHES, {}, r"loss of shape \(8, 3\): allowed is a tensor with one .*"),
        (PLAIN, "1", lambda net, b: loss_of(net, b).item(), BATCHES, {}, r"loss \d\.\d+: allowed is a tensor .*"),
        (PLAIN, "2", lambda net, b: net[0](b[0]).mean(), BATCHES, {}, r"layer '2' does not run when the loss is .*"),
        (PLAIN, "2", lambda net, b: 0 * net(b[0]).detach().mean(), BATCHES, {}, r"the loss has no gradient by '2': .*"),
        (PLAIN, "0", lambda net, b: (net(b[0]), net[2].bias.sum())[1], BATCHES, {}, r"the loss has no gradient .*"),
        (PLAIN, "1", torch.no_grad()(loss_of), BATCHES, {}, r"the loss has no gradient by '1': .* or other scores"),
        (Packs().double(), "rnn", mean, [BATCHES[0][0]], {}, r"'rnn' returns PackedSequence: allowed are tensors.*"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_named_with_what_is(net, where, loss, batches, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        neuron_scores(net, where, loss, batches, **options)
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize("output", ["text", 3, IDS, torch.tensor(1.5), (None, {"n": IDS})])
def test_an_output_without_numbers_is_refused(output):
    class Says(nn.Module):
        def forward(self, x):
            return output

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.says, self.linear = Says(), nn.Linear(4, 1).double()

        def forward(self, x):
            self.says(x)
            return self.linear(x)

    with pytest.raises(ValueError, match=f"^'says' returns {type(output).__name__}: allowed are tensors"):
        neuron_scores(Net(), "says", mean, [BATCHES[0][0]])
