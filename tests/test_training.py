import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from neuronsplit.data import load_dataset
from neuronsplit.model import MLP
from neuronsplit.seeds import stream
from neuronsplit.split import draw
from neuronsplit.training import SCHEDULES, evaluate, measures, sgd_step, train_epoch


@pytest.mark.parametrize("sizes", [(6, 4, 3), (6, 1, 3), (6, 5, 4, 3)])
def test_sgd_step_equals_autograd(sizes):
    g = torch.Generator().manual_seed(0)
    images, labels = torch.randn(3, 8, 6, generator=g).double(), torch.randint(3, (3, 8), generator=g)
    mlp = MLP(sizes, replicas=3).double()
    logits = mlp(images)
    loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / 8
    gradients = torch.autograd.grad(loss, list(mlp.parameters()))
    expected = [p - 0.1 * gradient for p, gradient in zip(mlp.parameters(), gradients)]
    torch.testing.assert_close(sgd_step(mlp, images, labels, 0.1), logits)
    for p, target in zip(mlp.parameters(), expected):
        torch.testing.assert_close(p, target, rtol=1e-12, atol=1e-14)


def test_the_last_partial_batch_is_dropped():
    data = load_dataset("digits")
    logits, labels = train_epoch(MLP((64, 4, 10), 2), data.train, [stream(s, "order") for s in (0, 1)], 0.1, 500)
    assert logits.shape == (2, 1000, 10) and labels.shape == (2, 1000)


def test_measures_are_those_of_torch_and_a_count():
    logits, labels = torch.randn(2, 7, 3), torch.randint(3, (2, 7))
    found = measures("x", logits, labels)
    for r in range(2):
        assert found["x_loss"][r].item() == pytest.approx(cross_entropy(logits[r], labels[r]).item())
        hits = sum(int(logits[r, i].argmax() == labels[r, i]) for i in range(7))
        assert found["x_accuracy"][r].item() == pytest.approx(hits / 7)


def test_evaluation_in_blocks_equals_one_pass():
    data, mlp = load_dataset("digits"), MLP((64, 4, 10), 2)
    logits, labels = evaluate(mlp, data.train)
    torch.testing.assert_close(logits, mlp(data.train.images))
    assert torch.equal(labels, data.train.labels)


def test_every_epoch_splits_first_then_is_still():
    assert SCHEDULES["every-epoch"](2, 3) == [True, True, False, False, False]


@pytest.mark.parametrize("rule", ["scaled", "even", "outgoing", "scaled-outgoing"])
def test_outgoing_gradients_of_twins_are_those_of_their_parent_times_alpha_and_beta(rule):
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(1, 30, 5, generator=g).double(), torch.randint(4, (1, 30), generator=g)
    mlp = MLP((5, 3, 4)).double()

    def outgoing_gradient():
        loss = cross_entropy(mlp(x)[0], y[0])
        return torch.autograd.grad(loss, mlp.weights[1])[0][0]  # (4, H)

    parent = outgoing_gradient()[:, 1]
    coefficients = draw(rule, [np.random.default_rng(0)], 4)
    mlp.split(torch.tensor([1]), coefficients)
    twins = outgoing_gradient()
    ((alpha, beta, _, _),) = coefficients
    torch.testing.assert_close(twins[:, 1], float(alpha) * parent, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(twins[:, 3], float(beta) * parent, rtol=1e-10, atol=1e-14)
