from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import reference
import torch
from sampling import one_in

from neuronsplit.core.mlp import MLP
from neuronsplit.core.seeds import stream
from neuronsplit.core.split import draw_coefficients
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing import learned
from neuronsplit.growing.scores import FEATURES, forward_blocks
from neuronsplit.growing.train import Run
from neuronsplit.growing.which import POLICIES, Policy, argmax, choose
from neuronsplit.measuring.all_splits import (
    HORIZONS,
    N_COEFFICIENT_DRAWS,
    policy_choices,
    run_all_splits,
    train_with_random_splits,
)
from neuronsplit.names import NETWORK_KEYS, SHUFFLE_LOSSES

DIGITS, SEEDS, BATCH_SIZE, WIDTH = load_dataset("digits"), [3, 8], 32, 4
SCORES = [feature.__name__ for feature in FEATURES]


def trained(width=WIDTH, n_splits=0, n_epochs=2, optimizer="sgd", learning_rate=0.05):
    run = Run.start(MLP.for_dataset(DIGITS, width - n_splits, SEEDS), SEEDS, optimizer, learning_rate, BATCH_SIZE)
    train_with_random_splits(run, DIGITS, "scaled", n_splits, n_epochs)
    return run


@pytest.fixture(scope="module")
def table():
    torch.set_num_threads(1)
    return run_all_splits(trained(), DIGITS, "scaled")


def test_the_table_has_a_row_per_branch_and_horizon(table):
    assert list(table) == ["seed", "branch_type", "neuron", "loss_before", *SCORES, "horizon", *SHUFFLE_LOSSES]
    assert table.groupby(["seed", "branch_type", "horizon"]).size().to_dict() == {
        (seed, branch_type, horizon): n
        for seed in SEEDS
        for branch_type, n in (("neuron", WIDTH), ("draw", N_COEFFICIENT_DRAWS), ("unsplit", 1))
        for horizon in HORIZONS
    }
    neurons = table[(table.branch_type == "neuron") & (table.horizon == 1)].groupby("seed").neuron.agg(list)
    assert neurons.tolist() == [[0, 1, 2, 3]] * 2 and set(table[table.branch_type == "draw"].neuron) == {0}
    assert table.loss_shuffle_0.lt(table.loss_before).all()
    assert not np.allclose(table.loss_shuffle_0, table.loss_shuffle_1)


def branches_of(seed):
    """Every branch of a seed's network: its type, its neuron, its number among that type, and its coefficients."""
    rng = stream(seed, "coefficients")
    shared = draw_coefficients("scaled", [stream(seed, "coefficients")], 10)[0]
    draws = draw_coefficients("scaled", rng.spawn(N_COEFFICIENT_DRAWS), 10)
    yield from (("neuron", neuron, neuron, shared) for neuron in range(WIDTH))
    yield from (("draw", 0, i, drawn) for i, drawn in enumerate(draws))
    yield "unsplit", None, 0, None


@pytest.mark.parametrize("seed, shuffle", one_in(4, product(SEEDS, (0, 1))))
def test_a_branch_is_what_its_network_becomes_alone(table, seed, shuffle):
    """Each branch is split and trained on with torch.nn and torch.optim; the last one is not split."""
    run, options = trained(), SimpleNamespace(learning_rate=0.05, batch_size=BATCH_SIZE)
    for branch_type, neuron, i, coefficients in branches_of(seed):
        net = reference.network(run.mlp, SEEDS.index(seed))
        net = net if neuron is None else reference.split(net, neuron, coefficients)
        rng = stream(seed, "order").spawn(2)[shuffle]
        for epoch in range(1, max(HORIZONS) + 1):
            permutation = torch.from_numpy(rng.permutation(len(DIGITS.train.labels)))
            reference.train_epoch_by_sgd(net, permutation, DIGITS.train, options)
            if epoch in HORIZONS:
                expected = reference.evaluate("val", net, *DIGITS.validation)["val_loss"]
                rows = table[(table.seed == seed) & (table.branch_type == branch_type) & (table.horizon == epoch)]
                assert rows[f"loss_shuffle_{shuffle}"].iloc[i] == pytest.approx(expected, rel=1e-4)


def test_a_run_can_be_split_in_every_way_twice_and_stays_as_it_is(table):
    run = trained()
    before = [p.clone() for p in run.mlp.parameters()]
    first, second = (run_all_splits(run, DIGITS, "scaled") for _ in range(2))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    pd.testing.assert_frame_equal(first, table, check_exact=True)
    assert all(torch.equal(p, q) for p, q in zip(before, run.mlp.parameters()))


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_networks_train_with_random_splits_as_the_reference_does(optimizer):
    run = trained(5, 2, 3, optimizer, 0.01)
    assert run.mlp.width == 5 and all(mean.width == 5 for mean in run.optimizer.state.values())
    assert run.optimizer.n_steps == 3 * (len(DIGITS.train.labels) // BATCH_SIZE)
    assert run.mlp.epochs_since_split.amin() == 1 and run.mlp.epochs_since_split.amax() == 3
    options = SimpleNamespace(optimizer=optimizer, learning_rate=0.01, growth="scaled")
    for r, seed in enumerate(SEEDS):
        net = reference.network(MLP((64, 3, 10), [seed]), 0)
        torch_optimizer = reference.OPTIMIZERS[optimizer](net.parameters(), lr=0.01)
        order, coefficients, draws = (stream(seed, purpose) for purpose in ("order", "coefficients", "draws"))
        for epoch in range(3):
            permutation = torch.from_numpy(order.permutation(len(DIGITS.train.labels)))
            reference.train_epoch(net, permutation, DIGITS.train, BATCH_SIZE, torch_optimizer)
            if epoch < 2:
                neuron = int(draws.integers(3 + epoch))
                net, torch_optimizer = reference.split_with_optimizer(
                    net, torch_optimizer, neuron, options, coefficients
                )
        for p, q in zip(run.mlp.parameters(), reference.parameters_of(net)):
            torch.testing.assert_close(p[r], q, rtol=1e-3, atol=1e-5)


def test_the_scores_are_those_by_which_policies_choose(table):
    run = trained()
    blocks = forward_blocks(run.mlp, DIGITS.validation)
    rows = table[(table.branch_type == "neuron") & (table.horizon == 1)]
    for feature in FEATURES:
        np.testing.assert_allclose(rows[feature.__name__], feature(run.mlp, blocks).flatten(), rtol=1e-5, atol=1e-7)


def with_keys(table):
    """The table as a study has it, with the settings of its networks."""
    keys = [key for key in NETWORK_KEYS if key not in table]
    return pd.DataFrame(dict.fromkeys(keys, 0), table.index).join(table)


def test_the_probabilities_of_policies_are_those_with_which_they_choose(table):
    rows = table[table.branch_type == "neuron"]
    run, choices = trained(), policy_choices(with_keys(table))
    blocks = forward_blocks(run.mlp, DIGITS.validation)
    assert set(choices) == POLICIES.keys() - learned.weights().keys()  # the scores of fitted policies are no columns
    for policy, frame in choices.items():
        assert frame.index.sort_values().equals(rows.index.sort_values())
        of_network = frame.join(rows[["seed", "horizon", "neuron"]]).groupby(["seed", "horizon"])
        assert np.allclose(of_network.probability.sum(), 1)
        for (seed, _), network in of_network:
            network = network.sort_values("neuron")
            if policy == "random" or policy.endswith("-probs"):
                scores = POLICIES[policy].score(run.mlp, blocks)[SEEDS.index(seed)].double().numpy()
                odds = np.exp(10 * (scores - scores.max()))
                np.testing.assert_allclose(network.probability, odds / odds.sum(), rtol=1e-5)
            else:
                chosen = choose([policy], run.mlp, blocks, [None] * 2)[SEEDS.index(seed)]
                assert network.probability.tolist() == np.eye(WIDTH)[chosen].tolist(), policy


def test_preferences_are_scores_turned_so_that_the_highest_is_preferred(table):
    rows, choices = table[table.branch_type == "neuron"], policy_choices(with_keys(table))
    assert choices["random"].preference.isna().all()
    columns = {"max-loss": rows.ablation_loss, "loss-probs": rows.ablation_loss, "min-loss": -rows.ablation_loss}
    columns |= {"min-fire": -rows.fire_rate, "half-fire": -(rows.fire_rate - 0.5).abs()}
    columns |= {"min-eigenvalue": -rows.smallest_eigenvalue, "max-variance": rows.activation_variance}
    for policy, expected in columns.items():
        np.testing.assert_allclose(choices[policy].preference.sort_index(), expected, rtol=1e-6, err_msg=policy)


def test_policies_of_the_user_are_judged_by_their_own_scores_and_picks(table, monkeypatch):
    def fire_rate(mlp, blocks):  # a score with the name of a column
        return -POLICIES["max-fire"].score(mlp, blocks)

    monkeypatch.setitem(POLICIES, "own-score", Policy(fire_rate, argmax))
    monkeypatch.setitem(POLICIES, "own-pick", Policy(POLICIES["max-fire"].score, lambda scores, rngs: scores.argmin(1)))
    choices = policy_choices(with_keys(table))
    assert "own-score" not in choices
    assert choices["own-pick"].preference.isna().all()
    firing = table.fire_rate[choices["own-pick"].index]
    chosen = firing[choices["own-pick"].probability == 1]
    lowest = firing.groupby([table.seed[firing.index], table.horizon[firing.index]]).min()
    np.testing.assert_allclose(sorted(chosen), sorted(lowest))
