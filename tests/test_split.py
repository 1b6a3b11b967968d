import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronsplit.core.mlp import MLP
from neuronsplit.core.split import SPLIT_RULES, draw_coefficients, twins

EXACT_RULES = [name for name, rule in SPLIT_RULES.items() if rule.exact]
each_exact_rule = pytest.mark.parametrize("rule", EXACT_RULES)


def random_mlp(sizes, replicas, seed, dtype=torch.float64):
    """Networks whose biases are not zero, so that they are tested too."""
    mlp = MLP(sizes, range(seed, seed + replicas)).to(dtype)
    g = torch.Generator().manual_seed(seed)
    for b in mlp.biases:
        b.copy_(torch.rand(b.shape, generator=g) - 0.5)
    return mlp


@each_exact_rule
@given(data=st.data())
def test_an_exact_split_keeps_the_output(rule, data):
    replicas = data.draw(st.integers(1, 4), "replicas")
    sizes = tuple(data.draw(st.lists(st.integers(1, 7), min_size=3, max_size=5), "sizes"))
    layer = data.draw(st.integers(0, len(sizes) - 3), "layer")
    seed = data.draw(st.integers(0, 2**31), "seed")
    mlp = random_mlp(sizes, replicas, seed)
    width, n_out = sizes[layer + 1], sizes[layer + 2]
    neurons = torch.tensor(data.draw(st.lists(st.integers(0, width - 1), min_size=replicas, max_size=replicas)))
    x = torch.randn(9, sizes[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    before = mlp(x)
    mlp.split(
        neurons, draw_coefficients(rule, [np.random.default_rng(seed + r) for r in range(replicas)], n_out), layer
    )
    assert mlp.sizes[layer + 1] == width + 1
    torch.testing.assert_close(mlp(x), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", SPLIT_RULES)
@given(seed=st.integers(0, 2**63), n_out=st.integers(1, 12))
def test_a_rule_is_exact_if_its_coefficients_share_each_output(rule, seed, n_out):
    alpha, beta, gamma, delta = SPLIT_RULES[rule].draw(np.random.default_rng(seed), n_out)
    assert np.all(alpha > 0) and np.all(beta > 0)
    shares = alpha * gamma + beta * delta
    assert np.allclose(shares, 1, rtol=1e-14, atol=0) == SPLIT_RULES[rule].exact


def test_scaled_is_the_rule_of_the_2021_study():
    a, b, c, d = np.random.default_rng(5).uniform(0.5, 1, 4)
    root = (a * c + b * d) ** 0.5
    drawn = SPLIT_RULES["scaled"].draw(np.random.default_rng(5), 10)
    np.testing.assert_allclose(drawn, [a / root, b / root, c / root, d / root])


def test_each_replica_draws_from_its_own_stream():
    together = draw_coefficients("outgoing", [np.random.default_rng(r) for r in (4, 9)], 3)
    for drawn, r in zip(together, (4, 9)):
        alone = SPLIT_RULES["outgoing"].draw(np.random.default_rng(r), 3)
        assert all(np.array_equal(a, b) for a, b in zip(drawn, alone))


def test_replicas_are_split_as_a_loop_over_them_does_entry_by_entry():
    mlp = random_mlp((5, 4, 2), 3, 0)
    w_in, bias, w_out = (p.clone() for p in (mlp.weights[0], mlp.biases[0], mlp.weights[1]))
    coefficients = draw_coefficients("scaled-outgoing", [np.random.default_rng(r) for r in range(3)], 2)
    mlp.split(torch.tensor([2, 0, 3]), coefficients)
    for r, i in enumerate([2, 0, 3]):
        alpha, beta, gamma, delta = (torch.as_tensor(c) for c in coefficients[r])
        expected_in = torch.vstack([w_in[r], beta * w_in[r, i]])
        expected_in[i] = alpha * w_in[r, i]
        expected_bias = torch.vstack([bias[r], beta * bias[r, i]])
        expected_bias[i] = alpha * bias[r, i]
        expected_out = torch.hstack([w_out[r], (delta * w_out[r, :, i])[:, None]])
        expected_out[:, i] = gamma * w_out[r, :, i]
        torch.testing.assert_close(mlp.weights[0][r], expected_in)
        torch.testing.assert_close(mlp.biases[0][r], expected_bias)
        torch.testing.assert_close(mlp.weights[1][r], expected_out)


@given(
    neurons=st.lists(st.integers(0, 3), max_size=6), rule=st.sampled_from(EXACT_RULES), seed=st.integers(0, 1000),
)  # fmt: skip
def test_twins_share_the_output_of_a_neuron_that_is_split_several_times(neurons, rule, seed):
    rng = np.random.default_rng(seed)
    source, gain, share = twins(4, 3, neurons, draw_coefficients(rule, [rng] * len(neurons), 3))
    for neuron in range(4):
        total = (gain * share)[:, source == neuron].sum(1)
        torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64), rtol=1e-13, atol=0)


def test_a_neuron_that_the_layer_lacks_is_refused_and_nothing_changes():
    mlp = MLP((3, 4, 2), [0, 1])
    before = [p.clone() for p in mlp.parameters()]
    with pytest.raises(IndexError, match=r"^neuron \[1, 4\]: allowed are 0 to 3$"):
        mlp.split(torch.tensor([1, 4]), draw_coefficients("even", [np.random.default_rng(0)] * 2, 2))
    assert all(torch.equal(a, b) for a, b in zip(before, mlp.parameters()))


def test_the_rule_of_net2net_changes_the_output_a_little():
    mlp, x = random_mlp((4, 6, 3), 1, 0), torch.randn(20, 4, dtype=torch.float64)
    before = mlp(x)
    mlp.split(2, draw_coefficients("net2net", [np.random.default_rng(0)], 3))
    assert 1e-5 < (mlp(x) - before).abs().max() < 1
