import numpy as np
import plain
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch.utils._python_dispatch import TorchDispatchMode

from neuronsplit.curvature import _principal, smallest_eigenvalue, steepest_split
from neuronsplit.data import Split, load_dataset
from neuronsplit.model import MLP
from neuronsplit.optimizers import start
from neuronsplit.policies import POLICIES, TIE, choose, highest, lottery, lowest, nearest_half
from neuronsplit.scores import (
    FEW,
    activation_variance,
    fan_in,
    fan_out,
    fire_rate,
    importance,
    incoming_gradient,
    look,
    loss_after_removal,
    nearest,
    outgoing_gradient,
)
from neuronsplit.seeds import stream
from neuronsplit.training import train_epoch, train_step


@given(
    replicas=st.integers(1, 3), width=st.integers(1, 12), n=st.integers(1, 600), seed=st.integers(0, 1000),
    classes=st.integers(2, 5),
)  # fmt: skip
def test_scores_equal_the_plain_way_one_neuron_at_a_time(replicas, width, n, seed, classes):
    g = torch.Generator().manual_seed(seed)
    mlp = MLP((5, width, classes), replicas, seed).to(torch.float64)
    for p in mlp.parameters():
        p.add_(torch.randn(p.shape, generator=g))
    images = torch.randn(n, 5, generator=g, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=g)
    beyond = [importance, outgoing_gradient, activation_variance, smallest_eigenvalue]
    beyond += [incoming_gradient, nearest, fan_in, fan_out]
    seen = list(look(mlp, Split(images, labels)))
    losses, rates, *others = (score(mlp, seen) for score in (loss_after_removal, fire_rate, *beyond))
    for r in range(replicas):
        net = plain.network(mlp, r)
        for name, found in zip(plain.SCORES, others):
            expected = plain.SCORES[name](net, images, labels)
            np.testing.assert_allclose(found[r], expected, rtol=1e-5, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(losses[r], plain.losses_after_removal(net, images, labels), rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(rates[r], plain.fire_rates(net, images), rtol=1e-6)


def chosen(policy, mlp, split):
    rngs = [np.random.default_rng(r) for r in range(len(mlp.weights[0]))]
    return choose([policy], mlp, list(look(mlp, split)), rngs)


def test_every_replica_follows_its_own_policy():
    data, mlp, seeds = load_dataset("digits"), MLP((64, 8, 10), replicas=3 * len(POLICIES)), range(3)
    rngs = [stream(s, "draws") for s in seeds for _ in POLICIES]
    together = choose(list(POLICIES), mlp, list(look(mlp, data.validation)), rngs).view(3, -1)
    for s in seeds:
        for turn, policy in enumerate(POLICIES):
            alone = mlp[[s * len(POLICIES) + turn]]
            if policy == "learned":  # whose features and whose network have tests of their own
                expected = choose([policy], alone, list(look(alone, data.validation)), [None])
            else:
                expected = plain.choose(policy, plain.network(alone, 0), *data.validation, stream(s, "draws"))
            assert together[s, turn] == expected, policy


def test_removal_of_a_neuron_that_decides_everything_neither_overflows_nor_is_lost():
    """Logits of several hundred, in float32; the loss of one image counts as at most 88."""
    mlp = MLP((2, 3, 2))
    mlp.weights[0].copy_(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]))
    mlp.weights[1].copy_(torch.tensor([[[300.0, -40.0, 1.0], [-300.0, 40.0, 2.0]]]))
    images, labels = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 2
    found = loss_after_removal(mlp, list(look(mlp, Split(images, labels))))[0]
    net = plain.network(mlp, 0)
    for j in range(3):
        rest = net[1](net[0](images)) * 1.5
        rest[:, j] = 0
        losses = torch.nn.functional.cross_entropy(net[2](rest), labels, reduction="none")
        assert found[j].item() == pytest.approx(losses.clamp(max=128 * np.log(2)).mean().item(), rel=1e-4)


class LargestArray(TorchDispatchMode):
    """Notes the bytes of the largest tensor that is made while it is on."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("replicas, width", [(10, 1000), (70, 60), (1, 20_000)])
def test_removal_makes_no_array_above_80_megabytes(replicas, width):
    mlp, n = MLP((2, width, 10), replicas), 10_000
    split = Split(torch.zeros(n, 2), torch.zeros(n).long())
    with LargestArray() as largest:
        loss_after_removal(mlp, list(look(mlp, split)))
    assert 2**20 < largest.bytes < 80e6


def test_removing_the_only_neuron_leaves_the_output_bias():
    mlp = MLP((4, 1, 3))
    mlp.biases[1].copy_(torch.tensor([[[0.0], [1.0], [2.0]]]))
    loss = loss_after_removal(mlp, list(look(mlp, Split(torch.rand(50, 4), torch.full((50,), 2)))))
    assert loss.item() == pytest.approx(np.log(1 + np.exp(-1) + np.exp(-2)), rel=1e-6)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_single_neuron_is_chosen_by_every_policy(policy):
    data = load_dataset("digits")
    mlp = MLP((64, 1, 10), replicas=3)
    assert chosen(policy, mlp, data.validation).tolist() == [0, 0, 0]


def dead_network():
    """Neurons 1, 3 and 4 never fire."""
    mlp = MLP((64, 6, 10), replicas=2)
    mlp.biases[0][:, [1, 3, 4]] = -100.0
    return mlp


def test_dead_neurons_tie_and_the_lowest_index_is_chosen():
    data, mlp = load_dataset("digits"), dead_network()
    seen = list(look(mlp, data.validation))
    assert (fire_rate(mlp, seen)[:, [1, 3, 4]] == 0).all()
    losses = loss_after_removal(mlp, seen)
    torch.testing.assert_close(losses[:, 1], losses[:, 4], rtol=0, atol=TIE)
    assert chosen("min-fire", mlp, data.validation).tolist() == [1, 1]


def test_ties_go_to_the_lowest_index():
    scores = torch.tensor([[3.0, 1, 3, 1], [0.4, 0.6, 0.6, 0.4]], dtype=torch.float64)
    assert highest(scores, []).tolist() == [0, 1]
    assert lowest(scores, []).tolist() == [1, 0]
    assert nearest_half(scores, []).tolist() == [1, 0]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_diverged_network_still_gets_a_choice(policy):
    data, mlp = load_dataset("digits"), MLP((64, 6, 10), replicas=2)
    mlp.weights[0][0] = float("nan")
    mlp.weights[1][1] = float("inf")
    neurons = chosen(policy, mlp, data.validation)
    assert ((0 <= neurons) & (neurons < 6)).all()


def test_lottery_draws_with_the_softmax_of_ten_times_the_score():
    scores = torch.tensor([0.1, 0.2, 0.05, 0.3], dtype=torch.float64)
    n = 4000
    drawn = lottery(10)(scores.expand(n, -1), [np.random.default_rng(r) for r in range(n)])
    odds = np.exp(10 * scores.numpy())
    assert chisquare(np.bincount(drawn, minlength=4), n * odds / odds.sum()).pvalue > 0.001


def test_random_is_uniform():
    mlp, n = MLP((4, 5, 2), replicas=3000), 3000
    drawn = choose(["random"], mlp, [], [stream(s, "draws") for s in range(n)])
    assert chisquare(np.bincount(drawn, minlength=5)).pvalue > 0.001


@given(seed=st.integers(0, 1000), n=st.integers(20, 300), n_in=st.integers(1, 40))
def test_the_steepest_direction_is_the_eigenvector_of_the_smallest_eigenvalue(seed, n, n_in):
    g = torch.Generator().manual_seed(seed)
    mlp = MLP((n_in, 4, 3), 2, seed).to(torch.float64)
    images, labels = torch.randn(n, n_in, generator=g, dtype=torch.float64), torch.randint(3, (n,), generator=g)
    neurons = torch.tensor([[2], [0]])
    values, directions = steepest_split(mlp, images, labels, neurons)
    for r in range(2):
        matrix = plain.splitting_matrix(plain.network(mlp, r), int(neurons[r]), images, labels)
        u = directions[r, 0]
        assert u.norm().item() == pytest.approx(1)
        smallest = torch.linalg.eigvalsh(matrix)[0].item()
        bound = 1e-6 * matrix.norm().item()  # Lanczos' steps are as many as there are dimensions
        assert values[r, 0].item() == pytest.approx(smallest, abs=bound)
        assert (u @ matrix @ u).item() == pytest.approx(smallest, abs=bound)


def test_the_smallest_eigenvalue_is_found_at_the_size_of_fashion_mnist():
    """Lanczos' method, in float32, for a network half trained on images of 784 pixels."""
    g = torch.Generator().manual_seed(0)
    mlp = MLP((784, 5, 10))
    images = torch.rand(1500, 784, generator=g) ** 4 - 0.5
    labels = (images[:, :10] > images[:, :10].amax(1, keepdim=True) - 1e-9).int().argmax(1)
    optimizer = start("sgd", mlp, 0.05)
    for batch in torch.arange(1500).split(50):
        train_step(mlp, images[batch][None], labels[batch][None], optimizer)
    values, _ = steepest_split(mlp, images, labels, torch.arange(5)[None])
    net = plain.network(mlp, 0)
    for j in range(5):
        spectrum = torch.linalg.eigvalsh(plain.splitting_matrix(net, j, images, labels).double())
        assert values[0, j].item() == pytest.approx(spectrum[0].item(), abs=0.01 * spectrum.abs().max().item())


def test_the_eigenvalue_within_few_directions_chooses_nearly_as_well_as_the_whole_matrix():
    """On the 64 pixels of the digits, after some training; the directions are those of the singular vectors."""
    digits = load_dataset("digits")
    mlp, orders = MLP((64, 20, 10), 5), [stream(seed, "order") for seed in range(5)]
    optimizer = start("sgd", mlp, 0.05)
    for _ in range(5):
        train_epoch(mlp, digits.train, orders, optimizer, 32)
        every = torch.arange(20).expand(5, 20)
        exact, _ = steepest_split(mlp, *digits.validation, every)
        near = smallest_eigenvalue(mlp, look(mlp, digits.validation))
        chosen = exact.gather(1, near.argmin(1, keepdim=True))
        assert (chosen / exact.amin(1, keepdim=True)).mean() > 0.9  # both are below 0
    _, _, directions = torch.linalg.svd(digits.validation.images)
    assert (directions[:5] @ _principal(digits.validation.images, 32)[:, :5]).diagonal().abs().min() > 0.99


def test_importance_looks_at_the_first_images_only():
    mlp, g = MLP((4, 5, 2)), torch.Generator().manual_seed(0)
    images, labels = torch.randn(FEW + 900, 4, generator=g), torch.randint(2, (FEW + 900,), generator=g)
    few, all_of_them = (importance(mlp, list(look(mlp, Split(images[:n], labels[:n])))) for n in (FEW, FEW + 900))
    torch.testing.assert_close(few, all_of_them)


def test_the_policies_are_the_seven_of_2021_and_those_beyond():
    assert list(POLICIES) == [
        "random", "max-loss", "min-loss", "loss-probs", "max-fire", "min-fire", "half-fire",
        "max-importance", "importance-probs", "max-gradient", "max-variance", "min-eigenvalue", "learned",
    ]  # fmt: skip
