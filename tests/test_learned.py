"""The inputs and the models of fitted policies agree with plain loops over numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference_features import expected_features, some_scores
from sampling import one_in

from neuronsplit.core.mlp import MLP
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing import learned
from neuronsplit.growing.scores import FEATURES, forward_blocks
from neuronsplit.growing.train import Run, grow_while_training
from neuronsplit.growing.which import POLICIES, choose
from neuronsplit.study import tune
from neuronsplit.study.grid import read_study


@given(replicas=st.integers(1, 3), width=st.integers(1, 9), seed=st.integers(0, 1000))
def test_features_and_predictions_equal_plain_loops(replicas, width, seed):
    scores = some_scores(replicas, width, seed)
    x = learned.features(scores)
    assert x.shape == (replicas, width, len(learned.FEATURE_NAMES))
    w = learned.weights()["learned"]
    predicted, summed = learned.predict(w, x), learned.predict(learned.weights()["ridge"], x)
    for r in range(replicas):
        expected_x = expected_features(scores, r)
        np.testing.assert_allclose(x[r], expected_x, rtol=1e-5, atol=1e-6)
        hidden = np.maximum((expected_x - w["mean"]) / w["sd"] @ w["w_in"] + w["bias"], 0)
        value, advantage = (hidden @ w["w_out"]).T
        expected = value.mean() * w["value"] + (advantage - advantage.mean()) * w["advantage"]
        np.testing.assert_allclose(predicted[r], expected, rtol=1e-3, atol=1e-6)
        coefficients = learned.weights()["ridge"]["coefficients"]
        expected = [sum(float(c) * value for c, value in zip(coefficients, row)) for row in expected_x]
        np.testing.assert_allclose(summed[r], expected, rtol=1e-4, atol=1e-5)


@given(width=st.integers(1, 9), seed=st.integers(0, 1000))
def test_the_rank_sum_adds_three_ranks_and_equal_scores_share_theirs(width, seed):
    """The rank of a neuron is the mean of the places that it could have in an order of the scores."""
    scores, coefficients = some_scores(1, width, seed), learned.weights()["rank-sum"]["coefficients"]
    signs = {name: int(c) for name, c in zip(learned.FEATURE_NAMES, coefficients) if c}
    assert signs == {"importance": 1, "incoming_gradient_norm": 1, "outgoing_gradient_norm": -1}
    expected = np.zeros(width)
    for name, sign in signs.items():
        values = scores[name][0].tolist()
        for j, own in enumerate(values):
            places = [place for place, value in enumerate(sorted(values)) if value == own]
            expected[j] += sign * (np.mean(places) / (width - 1) - 0.5 if width > 1 else 0)
    found = learned.predict(learned.weights()["rank-sum"], learned.features(scores))[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 100))
def test_features_are_free_of_scale(scale, seed):
    scores = some_scores(2, 7, seed)
    scaled = {name: values * scale for name, values in scores.items() if name in learned.RANK_FEATURES}
    torch.testing.assert_close(learned.features(scores | scaled), learned.features(scores))


FITTED = sorted(learned.weights())


def test_the_fitted_policies_are_registered_and_named_after_data_sets():
    names = [f"{kind}-{name}" for kind in ("learned", "ridge") for name in ("fashion-mnist", "digits", "mnist-1d")]
    assert FITTED == sorted(["learned", "ridge", "rank-sum", *names]) and set(FITTED) < set(POLICIES)


@pytest.mark.parametrize("policy", FITTED)
@pytest.mark.parametrize("dataset, width", one_in(2, [("mnist-1d", 13), ("digits", 6)]))
def test_a_fitted_policy_splits_the_neuron_with_the_highest_score_at_any_width_and_on_any_data(policy, dataset, width):
    data = load_dataset(dataset)
    mlp = MLP.for_dataset(data, width, range(3))
    mlp.epochs_since_split += torch.arange(width)
    blocks = forward_blocks(mlp, data.validation)
    x = learned.features({feature.__name__: feature(mlp, blocks) for feature in FEATURES})
    scores = learned.predict(learned.weights()[policy], x)
    assert scores.isfinite().all() and (scores.std(1) > 0).all()
    torch.testing.assert_close(POLICIES[policy].score(mlp, blocks), scores)
    neurons = choose([policy], mlp, blocks, [None] * 3)
    assert (scores.gather(1, neurons[:, None])[:, 0] >= scores.amax(1) - 1e-6).all()


@pytest.mark.parametrize("policy", FITTED)
def test_networks_grow_by_it_as_by_any_other_policy(policy):
    run = Run.start(MLP((64, 3, 10), [0, 1]), [0, 1], "sgd", 0.05, 32)
    options = {"growth": "scaled", "schedule": "every-epoch", "splits": 3, "epochs": 4}
    records = list(grow_while_training(run, load_dataset("digits"), [policy], **options))
    assert [record["hidden"] for record in records] == [4, 5, 6, 6]
    assert [len(record["split_neuron"] or []) for record in records] == [2, 2, 2, 0]


def test_no_policy_was_fitted_to_seeds_of_a_study_or_of_tuning():
    """Studies that compare policies have seeds from 100; those that learned policies are fitted to say so."""
    compared = {*range(100, 120), *tune.SEEDS}
    for policy in FITTED:
        seeds = learned.weights()[policy]["seeds"]
        assert len(seeds) >= 8 and compared.isdisjoint(seeds.tolist()), policy


@pytest.mark.parametrize("dataset", ["fashion-mnist", "digits", "mnist-1d"])
def test_the_seeds_with_the_weights_are_those_of_the_study_that_they_were_fitted_to(dataset):
    planned = {seed for seeds in read_study(f"oracle-{dataset}-grown").plan.values() for seed in seeds}
    for kind in ("learned", "ridge"):
        assert set(learned.weights()[f"{kind}-{dataset}"]["seeds"].tolist()) == planned


def test_the_weights_are_small_and_no_code():
    assert learned.FILE.stat().st_size < 25_000
    with np.load(learned.FILE, allow_pickle=False) as file:
        dtypes = {key: values.dtype for key, values in file.items()}
    assert {dtype for key, dtype in dtypes.items() if not key.endswith("/seeds")} == {np.dtype("float32")}
    network = {"w_in", "bias", "w_out", "mean", "sd", "value", "advantage", "seeds"}
    for policy, own in learned.weights().items():
        assert set(own) == (network if policy.startswith("learned") else {"coefficients", "seeds"})
