import numpy as np
import pytest
import reference
import torch
from torch.nn.functional import cross_entropy

from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import OPTIMIZERS, make_optimizer
from neuronsplit.core.split import SPLIT_RULES
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing.train import Run, grow_while_training, train_step

each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)
RATES = [0.1, 0.02, 0.3, 0.001]


def as_column(rates, dtype=torch.float32):
    return torch.tensor(rates, dtype=dtype)[:, None, None]


@each_optimizer
@pytest.mark.parametrize("rates", [[0.1] * 3, [0.1, 0.01, 0.3]], ids=["one rate", "a rate per replica"])
@pytest.mark.parametrize("sizes", [(6, 4, 3), (6, 1, 3), (6, 5, 4, 3)])
def test_training_steps_equal_autograd_and_torch_optim(sizes, rates, optimizer):
    g = torch.Generator().manual_seed(0)
    mlp = MLP(sizes, range(3)).to(torch.float64)
    nets = [reference.network(mlp, r) for r in range(3)]
    torch_optimizers = [reference.OPTIMIZERS[optimizer](net.parameters(), lr=rate) for net, rate in zip(nets, rates)]
    rate = rates[0] if len(set(rates)) == 1 else as_column(rates, torch.float64)
    own_optimizer = make_optimizer(optimizer, mlp, rate)
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
    made = make_optimizer(optimizer, mlp, as_column(RATES))
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        train_step(mlp, torch.randn(4, 8, 6, generator=g), torch.randint(3, (4, 8), generator=g), made)
    some = made[[3, 1, 1]]
    assert some.learning_rate.flatten().tolist() == as_column(RATES).flatten()[[3, 1, 1]].tolist()
    assert some.n_steps == 3 and some.state.keys() == made.state.keys()
    for exponent, mean in made.state.items():
        for p, q in zip(some.state[exponent].parameters(), mean.parameters()):
            assert torch.equal(p, q[[3, 1, 1]]) and q[[3, 1, 1]].any()
    some.learning_rate += 1
    assert made.learning_rate.flatten().tolist() == as_column(RATES).flatten().tolist()
    assert make_optimizer(optimizer, mlp, 0.1)[[0]].learning_rate == 0.1


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
