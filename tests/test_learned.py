"""The network of the learned policy agrees with plain loops over numbers."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronsplit.core.mlp import MLP
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing import learned
from neuronsplit.growing.scores import FEATURES, forward_blocks
from neuronsplit.growing.train import Run, grow_while_training
from neuronsplit.growing.which import POLICIES, choose
from neuronsplit.names import NETWORK_KEYS, SHUFFLE_LOSSES

NAMES = [feature.__name__ for feature in FEATURES]


def some_scores(replicas, width, seed):
    """Scores of neurons, some of them equal."""
    g = torch.Generator().manual_seed(seed)
    scores = {name: torch.randint(6, (replicas, width), generator=g) / 5.0 for name in NAMES}
    return scores | {"epochs_since_split": torch.randint(4, (replicas, width), generator=g).float()}


def expected_features(scores, r):
    """The features of one replica, a row per neuron."""
    width = scores["fire_rate"].shape[1]
    rows = []
    for j in range(width):
        row = []
        for name in learned.RANK_FEATURES:
            others = [scores[name][r, k].item() for k in range(width) if k != j]
            own = scores[name][r, j].item()
            below = sum(own > other for other in others) + 0.5 * sum(own == other for other in others)
            row.append(below / (width - 1) - 0.5 if others else 0.0)
        oldest = scores["epochs_since_split"][r].max().item()
        row += [scores["fire_rate"][r, j].item(), scores["max_correlation"][r, j].item()]
        row += [scores["epochs_since_split"][r, j].item() / max(oldest, 1), np.log(width), np.log(1 + oldest)]
        rows.append(row)
    return np.array(rows)


@given(replicas=st.integers(1, 3), width=st.integers(1, 9), seed=st.integers(0, 1000))
def test_features_and_predictions_equal_plain_loops(replicas, width, seed):
    scores = some_scores(replicas, width, seed)
    x = learned.features(scores)
    assert x.shape == (replicas, width, len(learned.FEATURE_NAMES))
    w, predicted = learned.weights(), learned.predict(learned.weights(), x)
    for r in range(replicas):
        expected_x = expected_features(scores, r)
        np.testing.assert_allclose(x[r], expected_x, rtol=1e-5, atol=1e-6)
        hidden = np.maximum((expected_x - w["mean"]) / w["sd"] @ w["w_in"] + w["bias"], 0)
        value, advantage = (hidden @ w["w_out"]).T
        expected = value.mean() * w["value"] + (advantage - advantage.mean()) * w["advantage"]
        np.testing.assert_allclose(predicted[r], expected, rtol=1e-3, atol=1e-6)


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 100))
def test_features_are_free_of_scale(scale, seed):
    scores = some_scores(2, 7, seed)
    scaled = {name: values * scale for name, values in scores.items() if name in learned.RANK_FEATURES}
    torch.testing.assert_close(learned.features(scores | scaled), learned.features(scores))


def test_it_learns_which_neuron_is_best_and_how_much_a_split_gains():
    """Gains that depend on the fire rate and the width are predicted for a width that was not in the training data."""

    def example(width, seed):
        scores = some_scores(1, width, seed)
        return learned.features(scores), 1e-3 * (scores["fire_rate"] - 0.5 + width / 10)

    networks = [example(width, seed) for width in (6, 12) for seed in range(40)]
    weights = learned.fit(networks, torch.Generator(), n_steps=500, weight_decay=0.01)
    pairs = [(learned.predict(weights, x), gain) for x, gain in (example(9, seed) for seed in range(100, 120))]
    for predicted, gain in pairs:
        assert np.corrcoef(predicted[0], gain[0])[0, 1] > 0.95
    values, expected = ([one[i].mean().item() for one in pairs] for i in (0, 1))
    assert values == pytest.approx(expected, rel=0.2)


def test_it_learns_from_networks_of_one_neuron_and_of_equal_gains():
    networks = [(learned.features(some_scores(1, width, width)), torch.full((1, width), 1e-3)) for width in (1, 4, 6)]
    weights = learned.fit(networks, torch.Generator(), n_steps=20)
    assert all(np.isfinite(values).all() for values in weights.values())


def test_gains_of_a_network_that_diverged_are_refused():
    gains = torch.tensor([[0.1, torch.nan, 0.2]])
    with pytest.raises(ValueError, match="^gains of nan or inf: allowed are gains of networks that did not diverge$"):
        learned.fit([(learned.features(some_scores(1, 3, 0)), gains)], torch.Generator())


def test_training_it_twice_gives_the_same_weights():
    g = torch.Generator().manual_seed(0)
    networks = [(learned.features(some_scores(1, 5, seed)), torch.rand(1, 5, generator=g)) for seed in range(5)]
    first, second = (learned.fit(networks, torch.Generator().manual_seed(1), n_steps=20) for _ in range(2))
    assert all((first[name] == second[name]).all() for name in first)


def test_the_policy_splits_the_neuron_with_the_highest_predicted_gain():
    digits, mlp = load_dataset("digits"), MLP((64, 6, 10), range(3))
    mlp.epochs_since_split += torch.arange(6)
    blocks = forward_blocks(mlp, digits.validation)
    scores = {feature.__name__: feature(mlp, blocks) for feature in FEATURES}
    predicted = learned.predict(learned.weights(), learned.features(scores))
    torch.testing.assert_close(POLICIES["learned"].score(mlp, blocks), predicted)
    neurons = choose(["learned"], mlp, blocks, [None] * 3)
    assert (predicted.gather(1, neurons[:, None])[:, 0] >= predicted.amax(1) - 1e-6).all()


def test_networks_grow_by_it_as_by_any_other_policy():
    run = Run.start(MLP((64, 3, 10), [0, 1]), [0, 1], "sgd", 0.05, 32)
    options = {"growth": "scaled", "schedule": "every-epoch", "splits": 3, "epochs": 4}
    records = list(grow_while_training(run, load_dataset("digits"), ["learned"], **options))
    assert [record["hidden"] for record in records] == [4, 5, 6, 6]
    assert [len(record["split_neuron"] or []) for record in records] == [2, 2, 2, 0]


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
    examples = learned.training_examples(table, 10)
    assert [example.keys["seed"] for example in examples] == [0, 1]
    for seed, example in enumerate(examples):
        own = table[(table.seed == seed) & (table.horizon == 10)]
        first, second, _, unsplit = own.to_dict("records")
        expected = [[unsplit[name] - split[name] for split in (first, second)] for name in SHUFFLE_LOSSES]
        np.testing.assert_allclose(example.gains, expected, rtol=1e-5)
        scores = {name: torch.tensor([[first[name], second[name]]]) for name in NAMES}
        np.testing.assert_allclose(example.x[0], expected_features(scores, 0), rtol=1e-5, atol=1e-6)


def test_the_weights_are_small_and_no_code():
    assert learned.FILE.stat().st_size < 10_000
    with np.load(learned.FILE, allow_pickle=False) as file:
        assert {values.dtype for values in file.values()} == {np.dtype("float32")}
        assert set(file) == {"w_in", "bias", "w_out", "mean", "sd", "value", "advantage"}
