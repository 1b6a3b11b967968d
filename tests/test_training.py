import numpy as np
import plain
import pytest
import torch
from torch.nn.functional import cross_entropy

from neuronsplit.data import load_dataset
from neuronsplit.model import MLP
from neuronsplit.optimizers import OPTIMIZERS, start
from neuronsplit.scores import look
from neuronsplit.seeds import stream
from neuronsplit.split import draw
from neuronsplit.training import SCHEDULES, evaluate, grow, judged, measures, train_epoch, train_step


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("sizes", [(6, 4, 3), (6, 1, 3), (6, 5, 4, 3)])
def test_training_steps_equal_autograd_and_torch_optim(sizes, optimizer):
    g = torch.Generator().manual_seed(0)
    mlp = MLP(sizes, replicas=3).to(torch.float64)
    nets = [plain.network(mlp, r) for r in range(3)]
    plainly = [plain.OPTIMIZERS[optimizer](net.parameters(), lr=0.1) for net in nets]
    at_work = start(optimizer, mlp, 0.1)
    for _ in range(5):
        images, labels = torch.randn(3, 8, 6, generator=g).double(), torch.randint(3, (3, 8), generator=g)
        logits = mlp(images)
        torch.testing.assert_close(train_step(mlp, images, labels, at_work), logits)
        for r, (net, step) in enumerate(zip(nets, plainly)):
            step.zero_grad()
            cross_entropy(net(images[r]), labels[r]).backward()
            step.step()
            expected = [p for layer in net if hasattr(layer, "weight") for p in (layer.weight, layer.bias[:, None])]
            found = [p[r] for pair in zip(mlp.weights, mlp.biases) for p in pair]
            for p, target in zip(found, expected):
                torch.testing.assert_close(p, target, rtol=1e-10, atol=1e-12)


def test_the_last_partial_batch_is_dropped():
    data = load_dataset("digits")
    mlp = MLP((64, 4, 10), 2)
    order = [stream(s, "order") for s in (0, 1)]
    losses, hits = train_epoch(mlp, data.train, order, start("sgd", mlp, 0.1), 500)
    assert losses.shape == hits.shape == (2, 1000)


def test_measures_are_those_of_torch_and_a_count():
    logits, labels = torch.randn(2, 7, 3), torch.randint(3, (2, 7))
    found = measures("x", *judged(logits, labels))
    for r in range(2):
        assert found["x_loss"][r].item() == pytest.approx(cross_entropy(logits[r], labels[r]).item())
        hits = sum(int(logits[r, i].argmax() == labels[r, i]) for i in range(7))
        assert found["x_accuracy"][r].item() == pytest.approx(hits / 7)


def test_of_equal_logits_the_first_counts():
    assert judged(torch.zeros(1, 3, 4), torch.tensor([0, 1, 0]))[1].tolist() == [[True, False, True]]


def test_evaluation_in_blocks_equals_one_pass():
    data, mlp = load_dataset("digits"), MLP((64, 4, 10), 2)
    assert len(list(look(mlp, data.train))) > 1
    losses, hits = evaluate(look(mlp, data.train))
    whole_losses, whole_hits = judged(mlp(data.train.images), data.train.labels)
    torch.testing.assert_close(losses, whole_losses)
    assert torch.equal(hits, whole_hits)


def test_policies_of_one_seed_see_the_same_mini_batches_and_learn_as_if_alone():
    data, optimizer = load_dataset("digits"), "adam"
    alone, shared = MLP((64, 12, 10), 2, seed=3), MLP((64, 12, 10), 2, seed=3)[[0, 0, 0, 1, 1, 1]]
    for mlp in (alone, shared):
        train_epoch(mlp, data.train, [stream(s, "order") for s in (3, 4)], start(optimizer, mlp, 0.01), 32)
    for p, q in zip(alone.parameters(), shared.parameters()):
        torch.testing.assert_close(q, p.repeat_interleave(3, dim=0))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("splits", [0, 1, 4, 10, 12])
def test_schedules_split_when_they_say(schedule, splits):
    losses = [1.0, 0.8, 0.799, 0.5, 0.499, 0.3, 0.299, 0.2, 0.1, 0.1, 0.1, 0.05]
    expected = [plain.splits_after(schedule, epoch, losses, splits) for epoch in range(1, 14)]
    wanted = [SCHEDULES[schedule](epoch, losses[: epoch - 1], splits) for epoch in range(1, 14)]
    if schedule in ("every-epoch", "5-every-5"):  # go on until all are done
        wanted = np.diff(np.minimum(np.cumsum([0, *wanted]), splits)).tolist()
    assert wanted == expected


def test_a_schedule_that_tells_replicas_apart_is_refused(monkeypatch):
    monkeypatch.setitem(SCHEDULES, "by-loss", lambda epoch, losses, splits: int(epoch > 1 and losses[-1] > limit))
    data, mlp = load_dataset("digits"), MLP((64, 4, 10), 2)
    limit = None
    training = grow(mlp, data, [0, 1], ["random"], "scaled", "by-loss", 1, 2, "sgd", 0.05, 32)
    limit = next(training)["val_loss"].mean().item()
    with pytest.raises(ValueError, match="^schedule 'by-loss' tells repeats apart: allowed is one replica at a time$"):
        next(training)


@pytest.mark.parametrize("rule", ["scaled", "even", "outgoing", "scaled-outgoing"])
def test_outgoing_gradients_of_twins_are_those_of_their_parent_times_alpha_and_beta(rule):
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(1, 30, 5, generator=g).double(), torch.randint(4, (1, 30), generator=g)
    mlp = MLP((5, 3, 4)).to(torch.float64)

    def outgoing_gradient():
        fan_out = mlp.weights[1].requires_grad_()
        return torch.autograd.grad(cross_entropy(mlp(x)[0], y[0]), fan_out)[0][0]  # (4, H)

    parent = outgoing_gradient()[:, 1]
    coefficients = draw(rule, [np.random.default_rng(0)], 4)
    mlp.weights[1] = mlp.weights[1].detach()
    mlp.split(torch.tensor([1]), coefficients)
    twins = outgoing_gradient()
    ((alpha, beta, _, _),) = coefficients
    torch.testing.assert_close(twins[:, 1], float(alpha) * parent, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(twins[:, 3], float(beta) * parent, rtol=1e-10, atol=1e-14)
