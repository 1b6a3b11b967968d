import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import OPTIMIZERS, make_optimizer, split_with_state, train_step
from neuronsplit.core.seeds import stream
from neuronsplit.core.split import SPLIT_RULES, Coefficients
from neuronsplit.data.datasets import Subset, load_dataset
from neuronsplit.growing.train import Run
from neuronsplit.measuring.twin_divergence import (
    angles,
    effective_rank,
    firing_disagreement,
    kappa,
    predicted_and_measured_angles,
    split_all,
    track_twins,
)
from neuronsplit.names import NO_GROWTH

DIGITS = load_dataset("digits")


@given(degrees=st.floats(0, 180), scale=st.floats(0.01, 100))
def test_an_angle_by_construction(degrees, scale):
    mlp = MLP((2, 2, 3)).to(torch.float64)
    radians = np.deg2rad(degrees)
    mlp.weights[0][0] = torch.tensor([[1.0, 0], [scale * np.cos(radians), scale * np.sin(radians)]])
    assert angles(mlp, [0], [1]).item() == pytest.approx(degrees, abs=1e-6)


def test_the_images_for_which_only_one_twin_fires_are_counted():
    mlp, images = MLP((64, 6, 10), [0, 1]), DIGITS.validation.images
    found = firing_disagreement(mlp.hidden(images)[-1], [0, 2], [1, 3])
    for r in range(2):
        fires = (images @ mlp.weights[0][r].mT).relu() > 0
        assert found[r, 1].item() == pytest.approx((fires[:, 2] ^ fires[:, 3]).float().mean().item())


def test_the_effective_rank_of_equal_directions_is_their_number():
    """Three neurons fire for images of their own, equally strongly, and two never fire."""
    mlp = MLP((3, 5, 2)).to(torch.float64)
    mlp.weights[0][0] = torch.cat([torch.eye(3), -torch.ones(2, 3)]).double()
    assert effective_rank(mlp.hidden(torch.eye(3).double())[-1]).item() == pytest.approx(3)
    mlp.weights[0][0, 1:3] = mlp.weights[0][0, 0]
    assert effective_rank(mlp.hidden(torch.eye(3).double())[-1]).item() == pytest.approx(1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twins_of_an_even_split_never_diverge(optimizer):
    rows = pd.concat(track_twins(DIGITS, ["even"], optimizer, 0.005, 6, 1, 5, [0, 1]))
    assert rows.angle.max() < 1e-4 and rows.firing_disagreement.max() == 0  # equal in exact arithmetic


def split_network(drawn):
    """A network of one replica in float64 whose neuron 1 is split, and mini-batches to train it."""
    g = torch.Generator().manual_seed(0)
    mlp = MLP((12, 4, 5)).to(torch.float64)
    batches = [
        (torch.randn(1, 16, 12, generator=g).double(), torch.randint(5, (1, 16), generator=g)) for _ in range(60)
    ]
    split_with_state(mlp, make_optimizer("sgd", mlp, 0.05), torch.tensor([1]), [drawn])
    return mlp, batches


@pytest.mark.long
@given(alpha=st.floats(0.3, 2), ratio=st.floats(0.3, 2))
def test_with_kappa_1_twins_stay_collinear_under_sgd(alpha, ratio):
    """(α, β, γ, δ) with γ/α = δ/β."""
    beta = alpha * ratio
    gamma = alpha / (alpha**2 + beta**2)
    drawn = Coefficients(alpha, beta, gamma, gamma * ratio)
    assert kappa(drawn) == pytest.approx(1)
    mlp, batches = split_network(drawn)
    optimizer = make_optimizer("sgd", mlp, 0.05)
    for images, labels in batches:
        train_step(mlp, images, labels, optimizer)
    assert angles(mlp, [1], [4]).item() < 1e-6
    adam = make_optimizer("adam", mlp, 0.05)  # its steps are not along the gradient, so the twins diverge
    for images, labels in batches:
        train_step(mlp, images, labels, adam)
    assert abs(ratio - 1) < 0.1 or angles(mlp, [1], [4]).item() > 0.1


def test_one_step_moves_twins_apart_as_the_theory_predicts():
    """w₁/α − w₂/β = −η (γ/α − δ/β) g, with the parent's gradient g at the split: exact for the first step."""
    drawn = SPLIT_RULES["scaled"].draw(np.random.default_rng(4), 5)
    alpha, beta, gamma, delta = drawn
    mlp, ((images, labels), *_) = split_network(drawn)
    unsplit = MLP((12, 4, 5)).to(torch.float64)
    unsplit.weights[0].requires_grad_()
    loss = torch.nn.functional.cross_entropy(unsplit(images[0])[0], labels[0])
    g = torch.autograd.grad(loss, unsplit.weights[0])[0][0, 1]
    train_step(mlp, images, labels, make_optimizer("sgd", mlp, 0.05))
    w = mlp.weights[0][0]
    torch.testing.assert_close(w[1] / alpha - w[4] / beta, -0.05 * (gamma / alpha - delta / beta) * g)


def test_predicted_and_measured_angles_agree_after_one_step():
    """After one step the prediction is exact; κ is that of each seed's own coefficients."""
    table = predicted_and_measured_angles(DIGITS, 0.05, 4, 1, [1, 20], [3, 8])
    assert list(table) == ["predicted", "measured", "kappa", "seed", "steps"]
    assert table.groupby(["steps", "seed"]).size().tolist() == [4] * 4
    first = table[table.steps == 1]
    assert first.measured.max() > 0.01
    np.testing.assert_allclose(first.predicted, first.measured, rtol=0.01, atol=1e-3)
    rng = stream(8, "coefficients")
    kappas = [kappa(SPLIT_RULES["scaled"].draw(rng, 10)) for _ in range(4)]
    np.testing.assert_allclose(first[first.seed == 8].kappa, kappas, rtol=1e-6)
    alone = predicted_and_measured_angles(DIGITS, 0.05, 4, 1, [1, 20], [8])
    np.testing.assert_allclose(table[table.seed == 8].measured, alone.measured, rtol=1e-3, atol=1e-4)


def test_a_neuron_that_never_fires_gives_two_that_never_fire():
    mlp = MLP((64, 6, 10))
    mlp.biases[0][0, 2] = -100
    optimizer = make_optimizer("adam", mlp, 0.001)
    drawn = SPLIT_RULES["scaled"].draw(np.random.default_rng(0), 10)
    split_with_state(mlp, optimizer, torch.tensor([2]), [drawn])
    before = mlp.weights[0][0, [2, 6]].clone()
    for index in torch.arange(1200).split(50):
        train_step(mlp, DIGITS.train.images[index][None], DIGITS.train.labels[index][None], optimizer)
    assert torch.equal(mlp.weights[0][0, [2, 6]], before)
    assert (mlp.hidden(DIGITS.train.images)[0][0, :, [2, 6]] == 0).all()


def test_the_draws_of_2021_have_the_kappas_that_theory_gives():
    """max(κ, 1/κ) of four draws from U[½, 1): its median is near 1.3, and 1 in 5 is nearly frozen."""
    rng = np.random.default_rng(0)
    logs = np.array([abs(np.log(kappa(SPLIT_RULES["scaled"].draw(rng, 1)))) for _ in range(20_000)])
    a, b, c, d = rng.uniform(0.5, 1, size=(4, 200_000))  # the common factor cancels in κ
    expected = abs(np.log(c * b / (d * a)))
    assert np.median(np.exp(logs)) == pytest.approx(np.median(np.exp(expected)), abs=0.01)
    assert (logs < 0.1).mean() == pytest.approx((expected < 0.1).mean(), abs=0.01)


def test_tracked_twins_make_a_table_with_a_row_per_pair():
    rows = pd.concat(track_twins(DIGITS, [NO_GROWTH, "scaled"], "sgd", 0.05, 4, 1, 2, [3, 7]))
    columns = ["seed", "effective_rank", "test_loss", "pair", "angle", "firing_disagreement", "growth", "optimizer"]
    assert list(rows) == [*columns, "epoch"]
    counts = rows.groupby("growth").size()
    assert counts["scaled"] == 2 * 4 * 3 and counts[NO_GROWTH] == 2 * 3
    at_split = rows[rows.epoch == 0]
    assert at_split.angle.max() < 1e-3 and at_split.firing_disagreement.max() == 0
    assert at_split.groupby("seed").test_loss.agg(np.ptp).max() < 1e-5  # the split changes nothing
    alone = pd.concat(track_twins(DIGITS, ["scaled"], "sgd", 0.05, 4, 1, 2, [7]))
    np.testing.assert_allclose(rows[(rows.growth == "scaled") & (rows.seed == 7)].angle, alone.angle, rtol=1e-3)


def test_every_neuron_is_split_once():
    mlp = MLP((6, 3, 2), [0, 1]).to(torch.float64)
    images = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).double()
    before, w = mlp(images), mlp.weights[0].clone()
    split_all(Run.start(mlp, [0, 1], "sgd", 0.1, 5), "scaled", Subset(images, torch.zeros(20).long()))
    torch.testing.assert_close(mlp(images), before)
    ratio = mlp.weights[0][:, 3:] / w  # (R, H, n_in): β of each neuron
    torch.testing.assert_close(ratio, ratio[..., :1].expand_as(ratio))
