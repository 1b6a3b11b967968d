"""The learning rates of a run: from epoch to epoch, after the first split, and of neurons that warm up."""

import pytest
import reference
import torch
from torch.nn.functional import cross_entropy

from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import OPTIMIZERS
from neuronsplit.core.seeds import stream
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing.train import Run

DIGITS, SEEDS = load_dataset("digits"), [3, 8]
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def started(optimizer="momentum", **values):
    return Run.start(MLP((64, 5, 10), SEEDS), SEEDS, optimizer, 0.01, 32, **values)


def split(run, n=1):
    for neuron in range(n):
        run.grow("scaled", torch.full((run.mlp.n_replicas,), neuron), DIGITS.train)


def rates_of(run):
    return run.optimizer.learning_rate.flatten().tolist()


def same(run, other):
    networks = [(run.mlp, other.mlp), *zip(run.optimizer.state.values(), other.optimizer.state.values())]
    return all(torch.equal(p, q) for a, b in networks for p, q in zip(a.parameters(), b.parameters()))


def test_each_epoch_has_its_rate_and_a_fork_goes_on_with_it():
    after_split, annealing_epochs = (torch.tensor(v)[:, None, None] for v in ([1.0, 0.5], [torch.inf, 3.0]))
    run, found = started(rate_after_split=after_split, annealing_epochs=annealing_epochs), []
    for epoch in range(3):
        run.epoch(DIGITS.train)
        found.append(rates_of(run))
        if epoch == 0:
            split(run, 2)
            run = run.fork([0, 1])
        if epoch == 1:
            split(run)
    assert [first for first, _ in found] == pytest.approx([0.01] * 3)
    assert [second for _, second in found] == pytest.approx([0.01, 0.01 * 0.75 * 0.5, 0.01 * 0.25 * 0.5])


@each_optimizer
def test_a_reset_neuron_has_a_new_state_and_all_else_is_carried(optimizer):
    carry, reset = started(optimizer), started(optimizer, state="reset")
    for run in (carry, reset):
        run.epoch(DIGITS.train)
        split(run)
    for p, q in zip(carry.mlp.parameters(), reset.mlp.parameters()):
        assert torch.equal(p, q)
    for exponent, mean in reset.optimizer.state.items():
        carried = carry.optimizer.state[exponent]
        assert torch.equal(mean.biases[1], carried.biases[1])
        for p, q in ((mean.weights[0], carried.weights[0]), (mean.weights[1].mT, carried.weights[1].mT)):
            assert torch.equal(p[:, :5], q[:, :5]) and not torch.equal(p[:, 5], q[:, 5])
            assert (p[:, 5] == 0).all() if exponent == 1 else (p[:, 5] >= 0).all()


def parts_of(mlp, replica, n):
    """What the last n neurons of a network have, and everything else: copies."""
    (w, v), (b, c) = ([p[replica] for p in layers] for layers in (mlp.weights, mlp.biases))
    old, new = (w[:-n], b[:-n], v[:, :-n], c), (w[-n:], b[-n:], v[:, -n:])
    return [p.clone() for p in old], [p.clone() for p in new]


def torch_optimizer_of(run, replica, n, optimizer, weight_decay):
    """An optimiser of torch with two groups, the last n neurons' in the second; it has the state of a run's."""
    groups = [{"params": [p.requires_grad_() for p in group]} for group in parts_of(run.mlp, replica, n)]
    made = reference.OPTIMIZERS[optimizer](groups, 0.01, weight_decay)
    names = {"sgd": {}, "momentum": {1: "momentum_buffer"}, "adam": {1: "exp_avg", 2: "exp_avg_sq"}}[optimizer]
    for exponent, name in names.items():
        for group, running in zip(groups, parts_of(run.optimizer.state[exponent], replica, n)):
            for p, value in zip(group["params"], running):
                made.state[p] |= {name: value, "step": torch.tensor(float(run.optimizer.n_steps))}
    return made


@each_optimizer
@pytest.mark.parametrize("n", [1, 2])
def test_new_neurons_warm_up_as_a_group_of_torch_whose_rate_rises(optimizer, n):
    run = started(optimizer, state="warm-up", weight_decay=0.5)
    run.epoch(DIGITS.train)
    split(run, n)
    optimizers = [torch_optimizer_of(run, r, n, optimizer, 0.5) for r in range(2)]
    run.epoch(DIGITS.train)
    for r, made in enumerate(optimizers):
        rng = stream(SEEDS[r], "order")
        rng.permutation(1200)
        (w, b, v, c), (w_new, b_new, v_new) = (group["params"] for group in made.param_groups)
        for step, index in enumerate(torch.from_numpy(rng.permutation(1200)).split(32)[:37], start=1):
            made.param_groups[1]["lr"] = 0.01 * step / 37
            hidden = torch.relu(DIGITS.train.images[index] @ torch.cat([w, w_new]).mT + torch.cat([b, b_new]).mT)
            made.zero_grad()
            cross_entropy(hidden @ torch.cat([v, v_new], dim=1).mT + c.mT, DIGITS.train.labels[index]).backward()
            made.step()
        for group, found in zip(made.param_groups, parts_of(run.mlp, r, n)):
            for p, q in zip(found, group["params"]):
                torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)


def test_a_warm_up_ends_with_its_epoch_and_starts_only_at_a_split():
    warm, reset = started(state="warm-up"), started(state="reset")
    for run in (warm, reset):
        run.epoch(DIGITS.train)
    assert same(warm, reset)
    split(warm)
    warm.epoch(DIGITS.train)
    other = warm.fork([0, 1])
    other.state = "reset"
    for run in (warm, other):
        run.epoch(DIGITS.train)
    assert same(warm, other)
    for run in (warm, other):
        split(run)
        run.epoch(DIGITS.train)
    assert not same(warm, other)
