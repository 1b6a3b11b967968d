import numpy as np
import plain
import pytest
import torch
from torch.nn.functional import cross_entropy

from neuronsplit.data import Split
from neuronsplit.growth import GROWTHS, INEXACT, SMALL, STEP, WITHOUT_PARENT
from neuronsplit.model import MLP
from neuronsplit.optimizers import OPTIMIZERS, split, start
from neuronsplit.split import RULES
from neuronsplit.training import train_step


def trained(optimizer="adam", replicas=3):
    """Networks with means that are not 0, the optimiser at work on them, and images with labels."""
    g = torch.Generator().manual_seed(0)
    mlp = MLP((12, 5, 4), replicas).to(torch.float64)
    sample = Split(torch.randn(60, 12, generator=g).double(), torch.randint(4, (60,), generator=g))
    at_work = start(optimizer, mlp, 0.01)
    for _ in range(20):
        train_step(mlp, sample.images.expand(replicas, -1, -1), sample.labels.expand(replicas, -1), at_work)
    return mlp, at_work, sample


def grown(rule, *parts):
    mlp, at_work, sample = parts
    neurons = None if rule in WITHOUT_PARENT else torch.tensor([1, 4, 0])
    GROWTHS[rule](mlp, at_work, neurons, sample, [np.random.default_rng(r) for r in range(3)])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", GROWTHS)
def test_a_growth_adds_one_neuron_and_an_exact_one_changes_no_output(rule, optimizer):
    mlp, at_work, sample = trained(optimizer)
    before = mlp(sample.images)
    grown(rule, mlp, at_work, sample)
    assert mlp.sizes == (12, 6, 4)
    assert all(mean.sizes == (12, 6, 4) for mean in at_work.means.values())
    change = (mlp(sample.images) - before).abs().max() / before.abs().max()
    assert change < (0.2 if rule in INEXACT else 1e-12)
    if rule in INEXACT:
        assert change > 1e-6
    train_step(mlp, sample.images.expand(3, -1, -1), sample.labels.expand(3, -1), at_work)  # goes on


@pytest.mark.parametrize("rule", ["scaled", "even"])
def test_running_means_of_gradients_are_split_as_the_gradients_are(rule):
    """A mean that equals the gradient before a split equals it after: power 1, and its square: power 2."""
    mlp, at_work, sample = trained()

    def gradients():
        own = mlp[:]
        parameters = [p.requires_grad_() for p in own.parameters()]
        loss = cross_entropy(own(sample.images).flatten(0, 1), sample.labels.repeat(3), reduction="sum")
        return torch.autograd.grad(loss, parameters)

    for power, mean in at_work.means.items():
        for p, gradient in zip(mean.parameters(), gradients()):
            p.copy_(gradient**power)
    grown(rule, mlp, at_work, sample)
    for power, mean in at_work.means.items():
        for p, gradient in zip(mean.parameters(), gradients()):
            torch.testing.assert_close(p, gradient**power, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("rule", ["outgoing", "opposed"])
def test_where_shares_differ_by_output_the_mean_square_is_split_by_the_mean_of_their_squares(rule):
    """Of random errors at the outputs, over which the gradients of the twins' incoming weights have such squares."""
    mlp, at_work, sample = trained(replicas=1)
    drawn = RULES[rule](np.random.default_rng(0), 4)
    before = at_work.means[2].weights[0][0, 1].clone()
    split(mlp, at_work, torch.tensor([1]), [drawn])
    after = at_work.means[2].weights[0][0]
    torch.testing.assert_close(after[1], before * np.mean(drawn.gamma**2))
    torch.testing.assert_close(after[5], before * np.mean(drawn.delta**2))


def test_a_new_neuron_begins_with_the_mean_squares_of_the_others():
    mlp, at_work, sample = trained("adam")
    squares = at_work.means[2].weights[0].clone()
    grown("fresh", mlp, at_work, sample)
    torch.testing.assert_close(at_work.means[2].weights[0][:, -1], squares.mean(1))
    assert (at_work.means[1].weights[0][:, -1] == 0).all()
    before = mlp.weights[1].clone()
    train_step(mlp, sample.images.expand(3, -1, -1), sample.labels.expand(3, -1), at_work)
    step = (mlp.weights[1] - before).abs()
    assert step[:, :, -1].max() < 0.02  # twice the learning rate at most


def test_a_fresh_neuron_is_random_sends_nothing_and_its_outgoing_weights_learn():
    mlp, at_work, sample = trained()
    grown("fresh", mlp, at_work, sample)
    fan_in, fan_out = mlp.weights[0][:, -1], mlp.weights[1][:, :, -1]
    assert (fan_out == 0).all() and fan_in.abs().max() <= (6 / 18) ** 0.5 and fan_in.std() > 0.2
    train_step(mlp, sample.images.expand(3, -1, -1), sample.labels.expand(3, -1), at_work)
    assert (mlp.weights[1][:, :, -1] != 0).all()


def test_gradmax_gives_its_incoming_weights_the_largest_gradient():
    """No other outgoing weights of the same length give a longer E[x gᵀ] v."""
    mlp, at_work, sample = trained()
    logits = mlp(sample.images).detach().requires_grad_()
    loss = cross_entropy(logits.flatten(0, 1), sample.labels.repeat(3), reduction="sum") / 60
    (g,) = torch.autograd.grad(loss, logits)
    m = sample.images.mT @ g  # (R, n_in, C)
    grown("gradmax", mlp, at_work, sample)
    v = mlp.weights[1][:, :, -1:]
    rng = torch.Generator().manual_seed(1)
    for _ in range(200):
        other = torch.randn(v.shape, generator=rng).double()
        other *= v.norm(dim=1, keepdim=True) / other.norm(dim=1, keepdim=True)
        assert ((m @ v).norm(dim=1) >= (m @ other).norm(dim=1) - 1e-12).all()
    w = mlp.weights[0]
    torch.testing.assert_close(torch.cosine_similarity(w[:, -1], -(m @ v).squeeze(2)), torch.ones(3).double())
    torch.testing.assert_close(w[:, -1].norm(dim=1), SMALL * w[:, :-1].norm(dim=2).mean(1))
    torch.testing.assert_close(v.squeeze(2).norm(dim=1), mlp.weights[1][:, :, :-1].norm(dim=1).mean(1))


def test_steepest_twins_lie_opposite_each_other_about_their_parent():
    mlp, at_work, sample = trained()
    parents = torch.cat([mlp.weights[0], mlp.biases[0]], dim=2).clone()[[0, 1, 2], [1, 4, 0]]
    whole = [plain.network(mlp, r) for r in range(3)]
    grown("steepest", mlp, at_work, sample)
    theta = torch.cat([mlp.weights[0], mlp.biases[0]], dim=2)
    first, second = theta[[0, 1, 2], [1, 4, 0]], theta[:, -1]
    for r, neuron in enumerate([1, 4, 0]):
        _, vectors = torch.linalg.eigh(plain.splitting_matrix(whole[r], neuron, *sample))
        along = torch.cosine_similarity(first[r] - second[r], vectors[:, 0], dim=0)
        assert abs(along) > 0.999
    torch.testing.assert_close((first + second) / 2, parents)
    torch.testing.assert_close((first - second).norm(dim=1) / 2, STEP * parents.norm(dim=1))
