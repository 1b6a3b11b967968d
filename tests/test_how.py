import numpy as np
import pytest
import reference
import reference_scores
import torch
from torch.nn.functional import cross_entropy

from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import OPTIMIZERS, make_optimizer, split_with_state, train_step
from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.data.datasets import Subset
from neuronsplit.growing.how import GRADMAX_SCALE, GROWTHS, STEEPEST_STEP, Growth

PARENTS = [1, 4, 0]  # of three replicas


def step(mlp, optimizer, sample):
    replicas = mlp.n_replicas
    train_step(mlp, sample.images.expand(replicas, -1, -1), sample.labels.expand(replicas, -1), optimizer)


def trained(optimizer="adam", replicas=3):
    """Networks, an optimiser whose means are not 0, and a sample of images with labels."""
    g = torch.Generator().manual_seed(0)
    mlp = MLP((12, 5, 4), range(replicas)).to(torch.float64)
    sample = Subset(torch.randn(60, 12, generator=g).double(), torch.randint(4, (60,), generator=g))
    made = make_optimizer(optimizer, mlp, 0.01)
    for _ in range(20):
        step(mlp, made, sample)
    return mlp, made, sample


def grow(growth, mlp, optimizer, sample):
    neurons = torch.tensor(PARENTS) if GROWTHS[growth].needs_parent else None
    GROWTHS[growth].apply(mlp, optimizer, neurons, sample, [np.random.default_rng(r) for r in range(3)])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("growth", GROWTHS)
def test_a_growth_adds_one_neuron_and_an_exact_one_changes_no_output(growth, optimizer):
    mlp, made, sample = trained(optimizer)
    before = mlp(sample.images)
    grow(growth, mlp, made, sample)
    assert mlp.sizes == (12, 6, 4)
    assert all(mean.sizes == (12, 6, 4) for mean in made.state.values())
    change = (mlp(sample.images) - before).abs().max() / before.abs().max()
    assert change < 1e-12 if GROWTHS[growth].exact else 1e-6 < change < 0.2
    step(mlp, made, sample)  # training goes on


def test_every_growth_is_a_growth_and_every_split_rule_is_one_of_them():
    assert all(isinstance(growth, Growth) for growth in GROWTHS.values())
    assert [name for name, growth in GROWTHS.items() if not growth.needs_parent] == ["zero-outgoing", "gradmax"]
    for name, rule in SPLIT_RULES.items():
        assert GROWTHS[name].exact == rule.exact and GROWTHS[name].needs_parent


@pytest.mark.parametrize("rule", ["scaled", "even"])
def test_running_means_of_gradients_are_split_as_the_gradients_are(rule):
    """A mean that equals the gradient before a split equals it after: for exponent 1, and for exponent 2 its square."""
    mlp, optimizer, sample = trained()

    def gradients():
        own = mlp[:]
        parameters = [p.requires_grad_() for p in own.parameters()]
        loss = cross_entropy(own(sample.images).flatten(0, 1), sample.labels.repeat(3), reduction="sum")
        return torch.autograd.grad(loss, parameters)

    for exponent, mean in optimizer.state.items():
        for p, gradient in zip(mean.parameters(), gradients()):
            p.copy_(gradient**exponent)
    grow(rule, mlp, optimizer, sample)
    for exponent, mean in optimizer.state.items():
        for p, gradient in zip(mean.parameters(), gradients()):
            torch.testing.assert_close(p, gradient**exponent, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("rule", ["outgoing", "antisymmetric"])
def test_where_shares_differ_by_output_the_mean_square_is_split_by_the_mean_of_their_squares(rule):
    """With random errors at the outputs, the gradients of the twins' incoming weights have such squares on average."""
    mlp, optimizer, sample = trained(replicas=1)
    drawn = SPLIT_RULES[rule].draw(np.random.default_rng(0), 4)
    before = optimizer.state[2].weights[0][0, 1].clone()
    split_with_state(mlp, optimizer, torch.tensor([1]), [drawn])
    after = optimizer.state[2].weights[0][0]
    torch.testing.assert_close(after[1], before * np.mean(drawn.gamma**2))
    torch.testing.assert_close(after[5], before * np.mean(drawn.delta**2))


def test_a_new_neuron_starts_with_the_average_mean_squares_of_the_others():
    mlp, optimizer, sample = trained("adam")
    squares = optimizer.state[2].weights[0].clone()
    grow("zero-outgoing", mlp, optimizer, sample)
    torch.testing.assert_close(optimizer.state[2].weights[0][:, -1], squares.mean(1))
    assert (optimizer.state[1].weights[0][:, -1] == 0).all()
    before = mlp.weights[1].clone()
    step(mlp, optimizer, sample)
    assert (mlp.weights[1] - before).abs()[:, :, -1].max() < 0.02  # twice the learning rate at most


def test_a_zero_outgoing_neuron_is_random_and_its_outgoing_weights_learn():
    mlp, optimizer, sample = trained()
    grow("zero-outgoing", mlp, optimizer, sample)
    w_in, w_out = mlp.weights[0][:, -1], mlp.weights[1][:, :, -1]
    assert (w_out == 0).all() and w_in.abs().max() <= (6 / 18) ** 0.5 and w_in.std() > 0.2
    step(mlp, optimizer, sample)
    assert (mlp.weights[1][:, :, -1] != 0).all()


def test_gradmax_gives_its_incoming_weights_the_largest_gradient():
    """No other outgoing weights of the same norm give a longer E[x gᵀ] v."""
    mlp, optimizer, sample = trained()
    logits = mlp(sample.images).detach().requires_grad_()
    loss = cross_entropy(logits.flatten(0, 1), sample.labels.repeat(3), reduction="sum") / 60
    (g,) = torch.autograd.grad(loss, logits)
    m = sample.images.mT @ g  # (R, n_in, C)
    grow("gradmax", mlp, optimizer, sample)
    v = mlp.weights[1][:, :, -1:]
    rng = torch.Generator().manual_seed(1)
    for _ in range(200):
        other = torch.randn(v.shape, generator=rng).double()
        other *= v.norm(dim=1, keepdim=True) / other.norm(dim=1, keepdim=True)
        assert ((m @ v).norm(dim=1) >= (m @ other).norm(dim=1) - 1e-12).all()
    w = mlp.weights[0]
    torch.testing.assert_close(torch.cosine_similarity(w[:, -1], -(m @ v).squeeze(2)), torch.ones(3).double())
    torch.testing.assert_close(w[:, -1].norm(dim=1), GRADMAX_SCALE * w[:, :-1].norm(dim=2).mean(1))
    torch.testing.assert_close(v.squeeze(2).norm(dim=1), mlp.weights[1][:, :, :-1].norm(dim=1).mean(1))


def test_steepest_descent_twins_lie_opposite_each_other_about_their_parent():
    mlp, optimizer, sample = trained()
    replicas = [0, 1, 2]
    parents = torch.cat([mlp.weights[0], mlp.biases[0]], dim=2).clone()[replicas, PARENTS]
    unsplit = [reference.network(mlp, r) for r in replicas]
    grow("steepest-descent", mlp, optimizer, sample)
    theta = torch.cat([mlp.weights[0], mlp.biases[0]], dim=2)
    first, second = theta[replicas, PARENTS], theta[:, -1]
    for r, neuron in enumerate(PARENTS):
        _, vectors = torch.linalg.eigh(reference_scores.splitting_matrix(unsplit[r], neuron, *sample))
        cosine = torch.cosine_similarity(first[r] - second[r], vectors[:, 0], dim=0)
        assert abs(cosine) > 0.999
    torch.testing.assert_close((first + second) / 2, parents)
    torch.testing.assert_close((first - second).norm(dim=1) / 2, STEEPEST_STEP * parents.norm(dim=1))
