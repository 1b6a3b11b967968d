"""Policies that are fitted to tables of all splits agree with least squares, gradient descent and plain loops."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_features import NAMES, expected_features, some_scores

from neuronsplit.growing import learned
from neuronsplit.measuring import fit_policies as fitting
from neuronsplit.measuring.fit_network import fit_network
from neuronsplit.names import NETWORK_KEYS, SHUFFLE_LOSSES

N_RANKS = len(learned.RANK_FEATURES)


def test_it_learns_which_neuron_is_best_and_how_much_a_split_gains():
    """Gains that depend on the fire rate and the width are predicted for a width that was not in the training data."""

    def example(width, seed):
        scores = some_scores(1, width, seed)
        return learned.features(scores), 1e-3 * (scores["fire_rate"] - 0.5 + width / 10)

    networks = [example(width, seed) for width in (6, 12) for seed in range(40)]
    weights = fit_network(networks, torch.Generator(), n_steps=500, weight_decay=0.01)
    pairs = [(learned.predict(weights, x), gain) for x, gain in (example(9, seed) for seed in range(100, 120))]
    for predicted, gain in pairs:
        assert np.corrcoef(predicted[0], gain[0])[0, 1] > 0.95
    values, expected = ([one[i].mean().item() for one in pairs] for i in (0, 1))
    assert values == pytest.approx(expected, rel=0.2)


def test_it_learns_from_networks_of_one_neuron_and_of_equal_gains():
    networks = [(learned.features(some_scores(1, width, width)), torch.full((1, width), 1e-3)) for width in (1, 4, 6)]
    weights = fit_network(networks, torch.Generator(), n_steps=20)
    assert all(np.isfinite(values).all() for values in weights.values())


def test_gains_of_a_network_that_diverged_are_refused():
    gains = torch.tensor([[0.1, torch.nan, 0.2]])
    with pytest.raises(ValueError, match="^gains of nan or inf: allowed are gains of networks that did not diverge$"):
        fit_network([(learned.features(some_scores(1, 3, 0)), gains)], torch.Generator())


def test_training_it_twice_gives_the_same_weights():
    g = torch.Generator().manual_seed(0)
    networks = [(learned.features(some_scores(1, 5, seed)), torch.rand(1, 5, generator=g)) for seed in range(5)]
    first, second = (fit_network(networks, torch.Generator().manual_seed(1), n_steps=20) for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)


def test_training_examples_are_the_networks_of_a_table_with_the_gain_of_each_split():
    rng = np.random.default_rng(0)
    keys = {"seed": [0, 1], "horizon": [1, 10]}
    rows = []
    for seed in keys["seed"]:
        for horizon in keys["horizon"]:
            for branch_type, neuron in [("neuron", 0), ("neuron", 1), ("draw", 0), ("unsplit", None)]:
                row = dict.fromkeys(NETWORK_KEYS, "same") | {"seed": seed, "horizon": horizon, "neuron": neuron}
                row |= {"branch_type": branch_type} | dict(zip(SHUFFLE_LOSSES, rng.random(2)))
                rows.append(row | {name: rng.random() for name in NAMES})
    table = pd.DataFrame(rows)
    examples = fitting.training_examples(table, 10)
    assert [example.keys["seed"] for example in examples] == [0, 1]
    for seed, example in enumerate(examples):
        own = table[(table.seed == seed) & (table.horizon == 10)]
        first, second, _, unsplit = own.to_dict("records")
        expected = [[unsplit[name] - split[name] for split in (first, second)] for name in SHUFFLE_LOSSES]
        np.testing.assert_allclose(example.gains, expected, rtol=1e-5)
        scores = {name: torch.tensor([[first[name], second[name]]]) for name in NAMES}
        np.testing.assert_allclose(example.x[0], expected_features(scores, 0), rtol=1e-5, atol=1e-6)


def some_examples(n, seed=0, gain=lambda x: x[..., 0] - 2 * x[..., 5], noise=0.1, dataset="digits"):
    """Networks of several widths, whose gains are a function of their features, and noise."""
    rng, examples = torch.Generator().manual_seed(seed), []
    for i in range(n):
        x = learned.features(some_scores(1, 4 + i % 5, 1000 * seed + i))
        gains = 1e-3 * (gain(x) + noise * torch.randn(2, x.shape[1], generator=rng)) + 0.01 * i
        examples.append(fitting.TrainingExample({"dataset": dataset, "seed": i // 3}, x, gains))
    return examples


def rows_of(examples):
    """Inputs and gains of neurons less their means in the network, and weights by which all data sets are alike."""
    x, y, weight = [], [], []
    for e in examples:
        gains, own = e.gains.mean(0).double(), e.x[0].double()
        n_of_dataset = sum(other.keys["dataset"] == e.keys["dataset"] for other in examples)
        for j in range(len(gains)):
            x.append(own[j] - own.mean(0))
            y.append((gains[j] - gains.mean()) / gains.std(correction=0))
            weight.append(1 / len(gains) / n_of_dataset)
    weight = torch.tensor(weight, dtype=torch.float64)
    return torch.stack(x), torch.stack(y), weight / weight.sum()


def scaled(examples, penalty):
    """Coefficients of ridge regression by least squares, where each penalty is one more row."""
    x, y, weight = rows_of(examples)
    sd = (weight @ x.square()).sqrt().clamp(min=0.01)
    a = torch.cat([weight.sqrt()[:, None] * x / sd, penalty**0.5 * torch.eye(len(sd), dtype=x.dtype)])
    b = torch.cat([weight.sqrt() * y, torch.zeros(len(sd), dtype=x.dtype)])
    return torch.linalg.lstsq(a, b[:, None]).solution[:, 0] / sd


@pytest.mark.long
@given(seed=st.integers(0, 50), penalty=st.sampled_from([1e-3, 0.1, 10.0]))
def test_ridge_regression_is_least_squares_with_a_row_for_each_penalty(seed, penalty):
    examples = some_examples(12, seed) + some_examples(5, seed + 1, dataset="mnist-1d")
    xx, xy, _ = fitting.moments(examples).mean()
    found = fitting.solve_ridge(xx, xy, penalty)
    torch.testing.assert_close(found, scaled(examples, penalty), rtol=1e-6, atol=1e-8)
    assert (found[-len(learned.NETWORK_FEATURES) :] == 0).all()  # they do not differ in a network


def test_gradient_descent_on_the_penalised_error_ends_at_the_closed_form():
    examples, penalty = some_examples(20), 0.1
    x, y, weight = rows_of(examples)
    sd = (weight @ x.square()).sqrt().clamp(min=0.01)
    w = torch.zeros(len(sd), dtype=x.dtype, requires_grad=True)
    for _ in range(3000):
        loss = (weight * (x / sd @ w - y).square()).sum() + penalty * w.square().sum()
        (gradient,) = torch.autograd.grad(loss, w)
        w = (w - 0.1 * gradient).detach().requires_grad_()
    found = fitting.solve_ridge(*fitting.moments(examples).mean()[:2], penalty)
    torch.testing.assert_close(found * sd, w.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_the_error_by_which_a_penalty_is_chosen_is_that_on_seeds_left_out(penalty):
    examples = some_examples(24)  # of seeds 0 to 7
    errors = []
    for fold in range(fitting.N_FOLDS):
        w = scaled([e for e in examples if e.keys["seed"] % fitting.N_FOLDS != fold], penalty)
        for e in examples:
            if e.keys["seed"] % fitting.N_FOLDS == fold:
                x, y, _ = rows_of([e])
                errors.append((x @ w - y).square().mean())
    assert fitting.squared_error(fitting.moments(examples), penalty) == pytest.approx(np.mean(errors))


def test_more_noise_makes_the_chosen_penalty_larger_and_a_ridge_policy_finds_what_gains_depend_on():
    clear, noisy = (fitting.fit_ridge(some_examples(60, noise=noise)) for noise in (0.05, 20.0))
    assert np.abs(noisy["coefficients"]).sum() < 0.3 * np.abs(clear["coefficients"]).sum()
    for e in some_examples(10, seed=7, noise=0):  # on networks that it was not fitted to
        assert np.corrcoef(learned.predict(clear, e.x)[0], e.gains[0])[0, 1] > 0.98
    assert clear["seeds"].tolist() == list(range(20))


def test_a_penalty_cannot_be_chosen_by_one_seed():
    with pytest.raises(ValueError, match="^examples of 1 seeds: allowed are 2 or more, as some are left out$"):
        fitting.fit_ridge(some_examples(3))


@pytest.mark.parametrize("three", [(0, 5, 7), (1, 2, 3)])
def test_the_rank_sum_is_the_three_ranks_and_signs_that_gains_depend_on(three):
    def gain(x):
        return x[..., three[0]] - x[..., three[1]] + x[..., three[2]]

    found = fitting.fit_rank_sum(some_examples(40, gain=gain))["coefficients"]
    assert found[list(three)].tolist() == [1, -1, 1] and np.abs(found).sum() == 3


def test_no_other_sum_of_three_ranks_correlates_better_with_gains():
    """Of every sum, by NumPy, with two data sets that count alike."""
    examples = some_examples(9, noise=2) + some_examples(30, 3, lambda x: x[..., 3], 2, "mnist-1d")
    x, y, weight = (one.numpy() for one in rows_of(examples))
    x = x[:, :N_RANKS]
    best = max(
        (signs for signs in product((-1, 0, 1), repeat=N_RANKS) if np.abs(signs).sum() == 3),
        key=lambda signs: weight @ (x @ signs * y) / (weight @ (x @ signs) ** 2) ** 0.5,
    )
    assert fitting.fit_rank_sum(examples)["coefficients"][:N_RANKS].tolist() == list(best)


def test_weights_are_saved_as_they_are_read(tmp_path, monkeypatch):
    known = some_examples(15)
    fitted = {"learned-digits": fitting.fit_learned(known, torch.Generator()), "ridge-digits": fitting.fit_ridge(known)}
    fitting.save_weights(tmp_path / "weights.npz", fitted)
    monkeypatch.setattr(learned, "FILE", tmp_path / "weights.npz")
    read = learned.weights.__wrapped__()
    assert read.keys() == fitted.keys()
    for policy, own in fitted.items():
        assert read[policy].keys() == own.keys()
        assert all(np.array_equal(read[policy][name], values) for name, values in own.items())


def test_weights_left_out_the_seeds_of_their_fold_and_are_measured_on_these():
    examples, ones = some_examples(24), np.ones(len(learned.FEATURE_NAMES), np.float32)
    plain = fitting.evaluate([{"coefficients": ones}] * fitting.N_FOLDS, examples).predicted
    weights = fitting.cross_fit(lambda own: {"seeds": fitting.seeds_of(own)}, examples)
    seeds, measured = {e.keys["seed"] for e in examples}, set()
    for fold, own in enumerate(weights):
        left_out = seeds - set(own["seeds"].tolist())
        assert left_out and {seed % fitting.N_FOLDS for seed in left_out} == {fold}
        doubled = [{"coefficients": ones * (1 + (other == fold))} for other in range(fitting.N_FOLDS)]
        found = fitting.evaluate(doubled, examples)
        assert found.predicted.tolist() == pytest.approx((plain * (1 + found.seed.isin(left_out))).tolist())
        measured |= left_out
    assert measured == seeds


def test_the_choice_of_weights_is_measured_as_a_plain_loop_does():
    coefficients = torch.rand(len(learned.FEATURE_NAMES), generator=torch.Generator().manual_seed(4)).numpy()
    examples, weights = some_examples(4), [{"coefficients": coefficients}] * fitting.N_FOLDS
    for example, (_, row) in zip(examples, fitting.evaluate(weights, examples).iterrows(), strict=True):
        scores = [sum(float(c) * value for c, value in zip(coefficients, inputs)) for inputs in example.x[0].tolist()]
        gains = [(a + b) / 2 for a, b in zip(*example.gains.tolist())]
        best = scores.index(max(scores))
        assert row["gain"] == pytest.approx(gains[best] - sum(gains) / len(gains), abs=1e-6)
        assert (row["actual"], row["predicted"]) == pytest.approx((gains[best], scores[best]), abs=1e-5)
        ranks = [[sorted(values).index(value) for value in values] for values in (scores, gains)]
        assert row["rank_correlation"] == pytest.approx(np.corrcoef(*ranks)[0, 1])
