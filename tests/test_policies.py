import numpy as np
import plain
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from neuronsplit.data import load_dataset
from neuronsplit.model import MLP
from neuronsplit.policies import (
    POLICIES,
    TIE,
    choose,
    fire_rate,
    highest,
    loss_after_removal,
    lottery,
    lowest,
    nearest_half,
)
from neuronsplit.seeds import stream


@given(
    replicas=st.integers(1, 3), width=st.integers(1, 12), n=st.integers(1, 600), seed=st.integers(0, 1000),
    classes=st.integers(2, 5),
)  # fmt: skip
def test_scores_equal_the_plain_way_one_neuron_at_a_time(replicas, width, n, seed, classes):
    g = torch.Generator().manual_seed(seed)
    mlp = MLP((5, width, classes), replicas, seed).double()
    with torch.no_grad():
        for p in mlp.parameters():
            p.add_(torch.randn(p.shape, generator=g))
    images = torch.randn(n, 5, generator=g, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=g)
    with torch.no_grad():
        losses, rates = loss_after_removal(mlp, images, labels), fire_rate(mlp, images, labels)
    for r in range(replicas):
        net = plain.network(mlp, r)
        np.testing.assert_allclose(losses[r], plain.losses_after_removal(net, images, labels), rtol=1e-10)
        np.testing.assert_allclose(rates[r], plain.fire_rates(net, images), rtol=1e-6)


def test_removing_the_only_neuron_leaves_the_output_bias():
    mlp = MLP((4, 1, 3))
    with torch.no_grad():
        mlp.biases[1].copy_(torch.tensor([[[0.0], [1.0], [2.0]]]))
        loss = loss_after_removal(mlp, torch.rand(50, 4), torch.full((50,), 2))
    assert loss.item() == pytest.approx(np.log(1 + np.exp(-1) + np.exp(-2)), rel=1e-6)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_single_neuron_is_chosen_by_every_policy(policy):
    data = load_dataset("digits")
    mlp = MLP((64, 1, 10), replicas=3)
    assert choose(policy, mlp, *data.validation, [np.random.default_rng(r) for r in range(3)]).tolist() == [0, 0, 0]


def dead_network():
    """Neurons 1, 3 and 4 never fire."""
    mlp = MLP((64, 6, 10), replicas=2)
    with torch.no_grad():
        mlp.biases[0][:, [1, 3, 4]] = -100.0
    return mlp


def test_dead_neurons_tie_and_the_lowest_index_is_chosen():
    data, mlp = load_dataset("digits"), dead_network()
    with torch.no_grad():
        assert (fire_rate(mlp, *data.validation)[:, [1, 3, 4]] == 0).all()
        losses = loss_after_removal(mlp, *data.validation)
    torch.testing.assert_close(losses[:, 1], losses[:, 4], rtol=0, atol=TIE)
    assert choose("min-fire", mlp, *data.validation, []).tolist() == [1, 1]


def test_ties_go_to_the_lowest_index():
    scores = torch.tensor([[3.0, 1, 3, 1], [0.4, 0.6, 0.6, 0.4]], dtype=torch.float64)
    assert highest(scores, []).tolist() == [0, 1]
    assert lowest(scores, []).tolist() == [1, 0]
    assert nearest_half(scores, []).tolist() == [1, 0]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_diverged_network_still_gets_a_choice(policy):
    data, mlp = load_dataset("digits"), MLP((64, 6, 10), replicas=2)
    with torch.no_grad():
        mlp.weights[0][0] = float("nan")
        mlp.weights[1][1] = float("inf")
    chosen = choose(policy, mlp, *data.validation, [np.random.default_rng(r) for r in range(2)])
    assert ((0 <= chosen) & (chosen < 6)).all()


def test_lottery_draws_with_the_softmax_of_ten_times_the_score():
    scores = torch.tensor([0.1, 0.2, 0.05, 0.3], dtype=torch.float64)
    n = 4000
    drawn = lottery(scores.expand(n, -1), [np.random.default_rng(r) for r in range(n)])
    odds = np.exp(10 * scores.numpy())
    assert chisquare(np.bincount(drawn, minlength=4), n * odds / odds.sum()).pvalue > 0.001


def test_random_is_uniform():
    mlp, n = MLP((4, 5, 2), replicas=3000), 3000
    drawn = choose("random", mlp, torch.rand(1, 4), torch.zeros(1).long(), [stream(s, "draws") for s in range(n)])
    assert chisquare(np.bincount(drawn, minlength=5)).pvalue > 0.001


def test_the_seven_policies():
    assert list(POLICIES) == ["random", "max-loss", "min-loss", "loss-probs", "max-fire", "min-fire", "half-fire"]
