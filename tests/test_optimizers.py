import math

import numpy as np
import pytest
import reference
import torch
from torch.nn.functional import cross_entropy

from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import OPTIMIZERS, Rates, make_optimizer, reset_state, train_step
from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing.train import Run, grow_while_training

each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)
RATES = [0.1, 0.02, 0.3, 0.001]


def as_column(rates, dtype=torch.float32):
    return torch.tensor(rates, dtype=dtype)[:, None, None]


@each_optimizer
@pytest.mark.parametrize("rates", [[0.1] * 3, [0.1, 0.01, 0.3]], ids=["one rate", "a rate per replica"])
@pytest.mark.parametrize("decays", [[0.0] * 3, [0.5] * 3, [0.0, 0.5, 2.0]], ids=["none", "one decay", "decays"])
@pytest.mark.parametrize("sizes", [(6, 4, 3), (6, 1, 3), (6, 5, 4, 3)])
def test_training_steps_equal_autograd_and_torch_optim(sizes, decays, rates, optimizer):
    g = torch.Generator().manual_seed(0)
    mlp = MLP(sizes, range(3)).to(torch.float64)
    nets = [reference.network(mlp, r) for r in range(3)]
    own_values = zip(nets, rates, decays)
    torch_optimizers = [
        reference.OPTIMIZERS[optimizer](net.parameters(), rate, decay) for net, rate, decay in own_values
    ]
    rate, decay = (v[0] if len(set(v)) == 1 else as_column(v, torch.float64) for v in (rates, decays))
    own_optimizer = make_optimizer(optimizer, mlp, rate, decay)
    for _ in range(5):
        images, labels = torch.randn(3, 8, 6, generator=g).double(), torch.randint(3, (3, 8), generator=g)
        logits = mlp(images)
        torch.testing.assert_close(train_step(mlp, images, labels, own_optimizer), logits)
        for r, (net, torch_optimizer) in enumerate(zip(nets, torch_optimizers)):
            torch_optimizer.zero_grad()
            cross_entropy(net(images[r]), labels[r]).backward()
            torch_optimizer.step()
            for p, expected in zip(mlp.parameters(), reference.parameters_of(net)):
                torch.testing.assert_close(p[r], expected, rtol=1e-10, atol=1e-12)


@each_optimizer
def test_replicas_that_share_images_step_with_rates_of_their_own(optimizer):
    """Four replicas of two seeds: their first layers are one matrix in the product."""
    g = torch.Generator().manual_seed(0)
    together = MLP((6, 5, 4, 3), [0, 0, 1, 1]).to(torch.float64)
    alone = [together[[r]] for r in range(4)]
    optimizers = [make_optimizer(optimizer, mlp, rate) for mlp, rate in zip(alone, RATES)]
    own_optimizer = make_optimizer(optimizer, together, as_column(RATES, torch.float64))
    for _ in range(5):
        images, labels = torch.randn(2, 8, 6, generator=g).double(), torch.randint(3, (4, 8), generator=g)
        train_step(together, images, labels, own_optimizer)
        for r, (mlp, its_optimizer) in enumerate(zip(alone, optimizers)):
            train_step(mlp, images[[r // 2]], labels[[r]], its_optimizer)
            for p, q in zip(together.parameters(), mlp.parameters()):
                torch.testing.assert_close(p[r], q[0], rtol=1e-10, atol=1e-12)


@each_optimizer
def test_growing_networks_with_rates_of_their_own_equal_each_alone(optimizer):
    digits, policies, rates = load_dataset("digits"), ["min-fire", "max-fire"], [0.02, 0.005, 0.01, 0.002]
    options = {"growth": "scaled", "schedule": "every-epoch", "splits": 2, "epochs": 3}
    run = Run.start(MLP((64, 5, 10), [4, 4, 9, 9]), [4, 9], optimizer, as_column(rates), 32)
    together = list(grow_while_training(run, digits, policies, **options))
    assert run.mlp.width == 7
    for r, (seed, policy) in enumerate((seed, policy) for seed in (4, 9) for policy in policies):
        own_run = Run.start(MLP((64, 5, 10), [seed]), [seed], optimizer, rates[r], 32)
        for record, own_record in zip(together, grow_while_training(own_run, digits, [policy], **options)):
            neurons = (record["split_neuron"], own_record["split_neuron"])
            assert neurons == (None, None) or neurons[0][r] == neurons[1][0]
            for name in ("train_loss", "val_loss", "test_loss"):
                torch.testing.assert_close(record[name][r], own_record[name][0], rtol=1e-4, atol=1e-6)


@each_optimizer
def test_an_optimizer_of_some_replicas_keeps_their_rates_state_and_steps(optimizer):
    mlp = MLP((6, 4, 3), range(4))
    made = make_optimizer(optimizer, mlp, as_column(RATES), as_column([0, 0.1, 0, 0.2]))
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        train_step(mlp, torch.randn(4, 8, 6, generator=g), torch.randint(3, (4, 8), generator=g), made)
    some = made[[3, 1, 1]]
    assert some.learning_rate.flatten().tolist() == as_column(RATES).flatten()[[3, 1, 1]].tolist()
    assert some.n_steps == 3 and some.state.keys() == made.state.keys()
    for exponent, mean in made.state.items():
        for p, q in zip(some.state[exponent].parameters(), mean.parameters()):
            assert torch.equal(p, q[[3, 1, 1]]) and q[[3, 1, 1]].any()
    assert some.weight_decay.flatten().tolist() == as_column([0.2, 0.1, 0.1]).flatten().tolist()
    some.learning_rate += 1
    assert made.learning_rate.flatten().tolist() == as_column(RATES).flatten().tolist()
    assert make_optimizer(optimizer, mlp, 0.25)[[0]].learning_rate.tolist() == [[[0.25]]]


def test_a_rate_of_0_changes_nothing():
    """The rate at the end of an annealing can be so small that float32 makes it 0."""
    for optimizer in OPTIMIZERS:
        mlp = MLP((6, 4, 3), [0, 1])
        before, made = mlp[[0, 1]], make_optimizer(optimizer, mlp, as_column([0.0, 0.1]), 0.1)
        images = torch.zeros(2, 8, 6)  # their weights have gradients of 0, so that Adam has squares of 0
        train_step(mlp, images, torch.arange(16).view(2, 8) % 3, made)
        for p, q in zip(mlp.parameters(), before.parameters()):
            assert torch.equal(p[0], q[0]) and p.isfinite().all()
        assert not torch.equal(mlp.biases[1][1], before.biases[1][1])


def test_rates_are_those_of_torchs_scheduler_and_fall_at_the_first_split():
    rates = Rates(as_column([0.1, 0.1, 0.4]), as_column([1, 0.5, 0.5]), as_column([7, math.inf, 7]))
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    for n_epochs in range(7):
        (cosine,) = scheduler.get_last_lr()
        for grown, after in ((False, (1, 1, 1)), (True, (1, 0.5, 0.5))):
            expected = [0.1 * cosine * after[0], 0.1 * after[1], 0.4 * cosine * after[2]]
            assert rates.after(n_epochs, grown).flatten().tolist() == pytest.approx(expected, rel=1e-6)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("n", [1, 2])
def test_a_reset_state_is_0_for_gradients_and_the_others_average_for_squares(n):
    made, g = make_optimizer("adam", MLP((6, 4, 3), range(2)), 0.1), torch.Generator().manual_seed(0)
    for mean in made.state.values():
        for p in mean.parameters():
            p.uniform_(generator=g)
    before = made[[0, 1]]
    reset_state(made, n)
    for exponent, mean in made.state.items():
        found, old = ([m.weights[0], m.biases[0], m.weights[1].mT, m.biases[1]] for m in (mean, before.state[exponent]))
        assert torch.equal(found.pop(), old.pop())  # of the outputs' biases
        for p, q in zip(found, old):
            assert torch.equal(p[:, :-n], q[:, :-n])
            others = sum(q[:, j] for j in range(4 - n)) / (4 - n)
            for j in range(4 - n, 4):
                torch.testing.assert_close(p[:, j], others if exponent == 2 else torch.zeros_like(others))


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="^optimizer 'lbfgs': allowed are sgd, momentum, adam$"):
        make_optimizer("lbfgs", MLP((6, 4, 3)), 0.1)


@pytest.mark.parametrize("rule", ["scaled", "even", "outgoing", "scaled-outgoing"])
def test_gradients_of_twins_are_their_parents_times_alpha_and_beta_or_gamma_and_delta(rule):
    """The outgoing weights' gradients for any share; the incoming weights' where all outputs have the same share."""
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(30, 5, generator=g).double(), torch.randint(4, (30,), generator=g)
    mlp = MLP((5, 3, 4)).to(torch.float64)

    def gradients_by_w_in_and_w_out():
        weights = [w.detach().requires_grad_() for w in mlp.weights]
        logits = (x @ weights[0][0].mT + mlp.biases[0][0].mT).relu() @ weights[1][0].mT + mlp.biases[1][0].mT
        by_w_in, by_w_out = torch.autograd.grad(cross_entropy(logits, y), weights)
        return by_w_in[0], by_w_out[0]  # (H, n_in), (4, H)

    by_w_in, by_w_out = gradients_by_w_in_and_w_out()
    drawn = SPLIT_RULES[rule].draw(np.random.default_rng(0), 4)
    mlp.split(torch.tensor([1]), [drawn])
    by_twins_w_in, by_twins_w_out = gradients_by_w_in_and_w_out()
    tolerance = {"rtol": 1e-10, "atol": 1e-14}
    torch.testing.assert_close(by_twins_w_out[:, 1], float(drawn.alpha) * by_w_out[:, 1], **tolerance)
    torch.testing.assert_close(by_twins_w_out[:, 3], float(drawn.beta) * by_w_out[:, 1], **tolerance)
    if rule in ("scaled", "even"):
        torch.testing.assert_close(by_twins_w_in[1], float(drawn.gamma) * by_w_in[1], **tolerance)
        torch.testing.assert_close(by_twins_w_in[3], float(drawn.delta) * by_w_in[1], **tolerance)
