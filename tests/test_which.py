import numpy as np
import pytest
import reference
import reference_scores
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from neuronsplit.core.mlp import MLP
from neuronsplit.core.seeds import stream
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing import learned
from neuronsplit.growing.scores import forward_blocks, uniform
from neuronsplit.growing.which import (
    INVERSE_TEMPERATURE,
    POLICIES,
    TIE_TOLERANCE,
    Policy,
    argmax,
    argmin,
    choose,
    nearest_half,
    pick_probabilities,
    preference,
    softmax_sample,
)  # fmt: skip

each_policy = pytest.mark.parametrize("policy", POLICIES)
some_scores = st.lists(st.integers(-20, 20), min_size=1, max_size=9).map(lambda values: np.array(values) / 10)


def choices(policy, mlp, subset):
    rngs = [np.random.default_rng(r) for r in range(mlp.n_replicas)]
    return choose([policy], mlp, forward_blocks(mlp, subset), rngs)


def test_the_policies_are_the_seven_of_2021_and_those_beyond():
    assert list(POLICIES) == [
        "random", "max-loss", "min-loss", "loss-probs", "max-fire", "min-fire", "half-fire",
        "max-importance", "importance-probs", "max-gradient", "max-variance", "min-eigenvalue",
        "learned", "learned-fashion-mnist", "learned-digits", "learned-mnist-1d",
        "ridge", "ridge-fashion-mnist", "ridge-digits", "ridge-mnist-1d", "rank-sum",
    ]  # fmt: skip
    assert all(isinstance(policy, Policy) for policy in POLICIES.values())


def test_every_replica_follows_its_own_policy():
    digits, seeds, n = load_dataset("digits"), range(3), len(POLICIES)
    mlp = MLP((64, 8, 10), range(3 * n))
    rngs = [stream(s, "draws") for s in seeds for _ in POLICIES]
    together = choose(list(POLICIES), mlp, forward_blocks(mlp, digits.validation), rngs).view(3, -1)
    for s in seeds:
        for i, policy in enumerate(POLICIES):
            alone = mlp[[s * n + i]]
            if policy in learned.weights():  # what they predict has tests of its own
                expected = choose([policy], alone, forward_blocks(alone, digits.validation), [None])
            else:
                net = reference.network(alone, 0)
                expected = reference_scores.choose(policy, net, *digits.validation, stream(s, "draws"))
            assert together[s, i] == expected, policy


@each_policy
def test_every_policy_chooses_a_single_neuron(policy):
    assert choices(policy, MLP((64, 1, 10), range(3)), load_dataset("digits").validation).tolist() == [0, 0, 0]


def test_dead_neurons_tie_and_the_lowest_index_is_chosen():
    mlp = MLP((64, 6, 10), [0, 1])
    mlp.biases[0][:, [1, 3, 4]] = -100.0  # these never fire
    assert choices("min-fire", mlp, load_dataset("digits").validation).tolist() == [1, 1]


def test_ties_go_to_the_lowest_index():
    scores = torch.tensor([[3.0, 1, 3, 1], [0.4, 0.6, 0.6, 0.4]], dtype=torch.float64)
    assert argmax(scores, []).tolist() == [0, 1]
    assert argmin(scores, []).tolist() == [1, 0]
    assert nearest_half(scores, []).tolist() == [1, 0]


@each_policy
def test_a_diverged_network_still_gets_a_choice(policy):
    mlp = MLP((64, 6, 10), [0, 1])
    mlp.weights[0][0] = float("nan")
    mlp.weights[1][1] = float("inf")
    neurons = choices(policy, mlp, load_dataset("digits").validation)
    assert ((0 <= neurons) & (neurons < 6)).all()


def test_softmax_sample_draws_with_the_softmax_of_ten_times_the_score():
    scores = torch.tensor([0.1, 0.2, 0.05, 0.3], dtype=torch.float64)
    n = 4000
    drawn = softmax_sample(scores.expand(n, -1), [np.random.default_rng(r) for r in range(n)])
    odds = np.exp(10 * scores.numpy())
    assert chisquare(np.bincount(drawn, minlength=4), n * odds / odds.sum()).pvalue > 0.001


def test_random_is_uniform():
    n = 3000
    drawn = choose(["random"], MLP((4, 5, 2), range(n)), [], [stream(s, "draws") for s in range(n)])
    assert chisquare(np.bincount(drawn, minlength=5)).pvalue > 0.001


@each_policy
@given(scores=some_scores)
def test_pick_probabilities_equal_those_of_numpy(policy, scores):
    found = pick_probabilities(policy, torch.tensor(scores)).numpy()
    if policy == "random" or policy.endswith("-probs"):
        odds = np.exp(INVERSE_TEMPERATURE * (scores - scores.max()))
        np.testing.assert_allclose(found, odds / odds.sum(), rtol=1e-12)
    else:
        turned = {"min": -scores, "half": -abs(scores - 0.5)}.get(policy.split("-")[0], scores)
        assert found.tolist() == np.eye(len(scores))[reference_scores.first_best(turned)].tolist()


@each_policy
@given(scores=some_scores)
def test_a_policy_prefers_the_highest_preference(policy, scores):
    found = preference(policy, torch.tensor(scores)).numpy()
    np.testing.assert_array_equal(found, {"min": -scores, "half": -abs(scores - 0.5)}.get(policy.split("-")[0], scores))
    most_likely = pick_probabilities(policy, torch.tensor(scores)).argmax()
    assert found[most_likely] >= found.max() - 1e-6


def test_the_probabilities_of_an_own_random_pick_are_its_frequencies(monkeypatch):
    def one_of_two(scores, rngs):
        return torch.tensor([int(rng.integers(2)) for rng in rngs])

    monkeypatch.setitem(POLICIES, "one-of-two", Policy(uniform, one_of_two))
    found = pick_probabilities("one-of-two", torch.zeros(3))
    assert found[2] == 0 and found[:2].tolist() == pytest.approx([0.5, 0.5], abs=0.06)


def test_missing_scores_count_as_zero_where_probabilities_are_asked_for():
    missing, zero = torch.tensor([torch.nan, -1.0, -2.0]), torch.tensor([0.0, -1.0, -2.0])
    for policy in ("max-loss", "min-loss", "half-fire", "loss-probs"):
        torch.testing.assert_close(pick_probabilities(policy, missing), pick_probabilities(policy, zero))
        torch.testing.assert_close(preference(policy, missing), preference(policy, zero))


def test_scores_that_differ_by_rounding_tie():
    scores = torch.tensor([[0.5, 0.5 + TIE_TOLERANCE / 2, 0.1]], dtype=torch.float64)
    assert argmax(scores, []).tolist() == [0]


def test_missing_scores_count_as_zero_in_a_choice(monkeypatch):
    monkeypatch.setitem(POLICIES, "nan", Policy(lambda mlp, blocks: torch.tensor([[-1.0, torch.nan, -2.0]]), argmax))
    assert choose(["nan"], MLP((4, 3, 2)), [], [None]).tolist() == [1]
