import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronsplit import parting
from neuronsplit.data import load_dataset
from neuronsplit.model import MLP
from neuronsplit.optimizers import OPTIMIZERS, split, start
from neuronsplit.parting import NO_SPLIT, angles, differing, effective_rank, follow_twins, kappa
from neuronsplit.split import RULES, Coefficients
from neuronsplit.training import train_step


@given(degrees=st.floats(0, 180), scale=st.floats(0.01, 100))
def test_an_angle_by_construction(degrees, scale):
    mlp = MLP((2, 2, 3)).to(torch.float64)
    turned = np.deg2rad(degrees)
    mlp.weights[0][0] = torch.tensor([[1.0, 0], [scale * np.cos(turned), scale * np.sin(turned)]])
    assert angles(mlp, [0], [1]).item() == pytest.approx(degrees, abs=1e-6)


def test_the_images_on_which_twins_differ_are_counted():
    data, mlp = load_dataset("digits"), MLP((64, 6, 10), 2)
    images = data.validation.images
    found = differing(mlp, images, [0, 2], [1, 3])
    for r in range(2):
        fires = (images @ mlp.weights[0][r].mT).relu() > 0
        assert found[r, 1].item() == pytest.approx((fires[:, 2] ^ fires[:, 3]).float().mean().item())


def test_the_effective_rank_of_equal_directions_is_their_number():
    """Three neurons that fire on images of their own, equally strongly, and two that never fire."""
    mlp = MLP((3, 5, 2)).to(torch.float64)
    mlp.weights[0][0] = torch.cat([torch.eye(3), -torch.ones(2, 3)]).double()
    assert effective_rank(mlp, torch.eye(3).double()).item() == pytest.approx(3)
    mlp.weights[0][0, 1:3] = mlp.weights[0][0, 0]
    assert effective_rank(mlp, torch.eye(3).double()).item() == pytest.approx(1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twins_of_an_even_split_never_part(optimizer):
    rows = pd.concat(follow_twins(load_dataset("digits"), ["even"], optimizer, 0.005, 6, 1, 5, [0, 1]))
    assert rows.angle.max() < 1e-4 and rows.differ.max() == 0  # equal in exact arithmetic


def split_network(drawn):
    """A network of one replica in float64, its neuron 1 split, and mini-batches to train it."""
    g = torch.Generator().manual_seed(0)
    mlp = MLP((12, 4, 5)).to(torch.float64)
    batches = [
        (torch.randn(1, 16, 12, generator=g).double(), torch.randint(5, (1, 16), generator=g)) for _ in range(60)
    ]
    split(mlp, start("sgd", mlp, 0.05), torch.tensor([1]), [drawn])
    return mlp, batches


@given(alpha=st.floats(0.3, 2), ratio=st.floats(0.3, 2))
def test_with_kappa_1_twins_stay_collinear_under_sgd(alpha, ratio):
    """(α, β, γ, δ) with γ/α = δ/β."""
    beta = alpha * ratio
    gamma = alpha / (alpha**2 + beta**2)
    drawn = Coefficients(alpha, beta, gamma, gamma * ratio)
    assert kappa(drawn) == pytest.approx(1)
    mlp, batches = split_network(drawn)
    optimizer = start("sgd", mlp, 0.05)
    for images, labels in batches:
        train_step(mlp, images, labels, optimizer)
    assert angles(mlp, [1], [4]).item() < 1e-6
    adam = start("adam", mlp, 0.05)  # no longer, where a step is not the gradient
    for images, labels in batches:
        train_step(mlp, images, labels, adam)
    assert abs(ratio - 1) < 0.1 or angles(mlp, [1], [4]).item() > 0.1


def test_one_step_parts_twins_by_what_the_theory_says():
    """w₁/α − w₂/β = −η (γ/α − δ/β) g, g the parent's gradient at the split: exact in the first step."""
    drawn = RULES["scaled"](np.random.default_rng(4), 5)
    alpha, beta, gamma, delta = drawn
    mlp, ((images, labels), *_) = split_network(drawn)
    whole = MLP((12, 4, 5)).to(torch.float64)
    whole.weights[0].requires_grad_()
    loss = torch.nn.functional.cross_entropy(whole(images[0])[0], labels[0])
    g = torch.autograd.grad(loss, whole.weights[0])[0][0, 1]
    train_step(mlp, images, labels, start("sgd", mlp, 0.05))
    w = mlp.weights[0][0]
    torch.testing.assert_close(w[1] / alpha - w[4] / beta, -0.05 * (gamma / alpha - delta / beta) * g)


def test_a_neuron_that_never_fires_gives_two_that_never_fire():
    data, mlp = load_dataset("digits"), MLP((64, 6, 10))
    mlp.biases[0][0, 2] = -100
    optimizer = start("adam", mlp, 0.001)
    split(mlp, optimizer, torch.tensor([2]), [RULES["scaled"](np.random.default_rng(0), 10)])
    before = mlp.weights[0][0, [2, 6]].clone()
    for batch in torch.arange(1200).split(50):
        train_step(mlp, data.train.images[batch][None], data.train.labels[batch][None], optimizer)
    assert torch.equal(mlp.weights[0][0, [2, 6]], before)
    assert (mlp.hidden(data.train.images)[0][0, :, [2, 6]] == 0).all()


def test_the_2021_draws_have_the_kappas_that_theory_gives():
    """max(κ, 1/κ) of four draws from U[½, 1): its median is near 1.3, and 1 in 5 is nearly frozen."""
    rng = np.random.default_rng(0)
    logs = np.array([abs(np.log(kappa(RULES["scaled"](rng, 1)))) for _ in range(20_000)])
    a, b, c, d = rng.uniform(0.5, 1, size=(4, 200_000))  # the common factor falls out of κ
    expected = abs(np.log(c * b / (d * a)))
    assert np.median(np.exp(logs)) == pytest.approx(np.median(np.exp(expected)), abs=0.01)
    assert (logs < 0.1).mean() == pytest.approx((expected < 0.1).mean(), abs=0.01)


def test_followed_twins_make_a_table_a_row_a_pair():
    rows = pd.concat(follow_twins(load_dataset("digits"), [NO_SPLIT, "scaled"], "sgd", 0.05, 4, 1, 2, [3, 4]))
    assert list(rows) == ["seed", "rank", "test_loss", "pair", "angle", "differ", "rule", "optimizer", "epoch"]
    counts = rows.groupby("rule").size()
    assert counts["scaled"] == 2 * 4 * 3 and counts[NO_SPLIT] == 2 * 3
    at_split = rows[rows.epoch == 0]
    assert at_split.angle.max() < 1e-3 and at_split.differ.max() == 0
    assert at_split.groupby("seed").test_loss.agg(np.ptp).max() < 1e-5  # the split changes nothing
    alone = pd.concat(follow_twins(load_dataset("digits"), ["scaled"], "sgd", 0.05, 4, 1, 2, [4]))
    np.testing.assert_allclose(rows[(rows.rule == "scaled") & (rows.seed == 4)].angle, alone.angle, rtol=1e-3)


def test_every_neuron_is_split_once():
    mlp = MLP((6, 3, 2), 2).to(torch.float64)
    images = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).double()
    before, w = mlp(images), mlp.weights[0].clone()
    rngs = [np.random.default_rng(r) for r in range(2)]
    parting.split_all(mlp, start("sgd", mlp, 0.1), "scaled", None, rngs)
    torch.testing.assert_close(mlp(images), before)
    ratio = mlp.weights[0][:, 3:] / w  # (R, H, n_in): β of each neuron
    torch.testing.assert_close(ratio, ratio[..., :1].expand_as(ratio))
