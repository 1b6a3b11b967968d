"""Dropout: its masks, steps with them, and runs in which replicas drop with probabilities of their own."""

from itertools import islice

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from neuronsplit.core.dropout import draw_masks
from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import OPTIMIZERS, make_optimizer, train_step
from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing.train import Run

SEEDS = [3, 8]


def column(values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype)[:, None, None]


def masks_of(widths, dropout, seeds=SEEDS, step=0, n_images=32):
    """The masks of one step."""
    mlp = MLP((2, *widths, 2), [seed for seed in seeds for _ in range(len(dropout) // len(seeds))])
    return next(draw_masks(mlp, column(dropout), seeds, step, n_images))


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(0, 10**6),
    st.lists(st.floats(0, 0.75, width=32), min_size=2, max_size=2),
)  # fmt: skip
def test_masks_are_those_of_single_neurons(widths, step, dropout):
    masks = masks_of(widths, dropout, step=step)
    assert len(masks) == (len(widths) if any(dropout) else 0)
    for layer, mask in enumerate(masks):
        assert mask.shape == (2, widths[layer], 32)
        for r, (seed, p) in enumerate(zip(SEEDS, dropout)):
            kept = reference.keep(seed, step, layer, widths[layer], 32, p).T
            torch.testing.assert_close(mask[r], kept / (1 - p))


def test_networks_of_any_width_drop_the_same():
    (narrow,), (wide,) = masks_of((5,), [0.5, 0.5]), masks_of((60,), [0.5, 0.5])
    assert torch.equal(narrow, wide[:, :5])
    assert not torch.equal(narrow, wide[:, 5:10])


def test_replicas_of_a_seed_share_what_is_drawn_and_drop_more_at_a_higher_probability():
    (mask,) = masks_of((50,), [0.2, 0.2, 0.6, 0.0, 0.0, 0.6])
    low, again, high, all_of_it, _, other_seed = mask
    assert torch.equal(low, again) and (all_of_it == 1).all()
    assert (low[high > 0] > 0).all() and (high > 0).sum() < (low > 0).sum()
    assert not torch.equal(high, other_seed)


def test_every_seed_step_and_layer_draws_anew():
    mlp, dropout = MLP((2, 20, 20, 2), SEEDS), column([0.5, 0.5])
    masks = list(islice(draw_masks(mlp, dropout, SEEDS, 5, 32), 50))
    patterns = {tuple((part > 0).flatten().tolist()) for of_step in masks for mask in of_step for part in mask}
    assert len(patterns) == 50 * 2 * 2
    for step, of_step in enumerate(masks, start=5):  # where a run begins does not matter
        alone = masks_of((20, 20), [0.5, 0.5], step=step)
        assert all(torch.equal(mask, other) for mask, other in zip(of_step, alone, strict=True))


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_masks_drop_their_share_and_keep_the_mean(p):
    mask = torch.cat([masks_of((100,), [p, p], step=step, n_images=100)[0] for step in range(5)])  # 100,000 draws
    assert (mask == 0).double().mean().item() == pytest.approx(p, abs=0.01)
    assert mask.double().mean().item() == pytest.approx(1, abs=0.01)
    for axis in (1, 2):  # in every row, and in every column
        assert (mask.mean(axis) > 0).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("sizes", [(6, 4, 3), (6, 5, 4, 3)])
def test_steps_with_dropout_equal_autograd(sizes, optimizer):
    g, dropout = torch.Generator().manual_seed(0), [0.5, 0.2, 0.0, 0.5]
    mlp = MLP(sizes, [0, 1, 2, 3]).to(torch.float64)
    nets = [reference.network(mlp, r) for r in range(4)]
    torch_optimizers = [reference.OPTIMIZERS[optimizer](net.parameters(), 0.1) for net in nets]
    own_optimizer = make_optimizer(optimizer, mlp, 0.1)
    masks = draw_masks(mlp, column(dropout, torch.float64), SEEDS, 0, 8)
    for step, of_step in enumerate(islice(masks, 5)):
        images, labels = torch.randn(2, 8, 6, generator=g).double(), torch.randint(3, (4, 8), generator=g)
        logits = train_step(mlp, images, labels, own_optimizer, of_step)
        for r, (net, torch_optimizer) in enumerate(zip(nets, torch_optimizers)):
            kept = [reference.keep(SEEDS[r // 2], step, k, width, 8, dropout[r]) for k, width in enumerate(sizes[1:-1])]
            expected = reference.forward(net, images[r // 2], kept, dropout[r])
            torch.testing.assert_close(logits[r], expected, rtol=1e-10, atol=1e-12)
            torch_optimizer.zero_grad()
            cross_entropy(expected, labels[r]).backward()
            torch_optimizer.step()
            for p, q in zip(mlp.parameters(), reference.parameters_of(net)):
                torch.testing.assert_close(p[r], q, rtol=1e-10, atol=1e-12)


def trained(seeds, dropout, per_seed=1):
    """A run of digits that grows between two epochs; what it measured."""
    digits, mlp = load_dataset("digits"), MLP((64, 5, 10), [seed for seed in seeds for _ in range(per_seed)])
    run = Run.start(mlp, seeds, "sgd", 0.05, 32, dropout=dropout)
    first = run.epoch(digits.train)
    run.grow("scaled", torch.zeros(mlp.n_replicas).long(), digits.train)
    return run, [*first, *run.epoch(digits.train), *run.evaluate(digits.test)]


def test_replicas_with_dropout_of_their_own_train_as_alone():
    dropout = [0.5, 0.0, 0.1, 0.5]
    run, together = trained(SEEDS, column(dropout), 2)
    for r, p in enumerate(dropout):
        own_run, alone = trained([SEEDS[r // 2]], p)
        for found, expected in zip(together, alone):
            torch.testing.assert_close(found[[r]].float(), expected.float(), rtol=1e-3, atol=1e-4)
        for p, q in zip(run.mlp.parameters(), own_run.mlp.parameters()):
            torch.testing.assert_close(p[[r]], q, rtol=1e-3, atol=1e-5)


def test_nothing_is_drawn_where_nothing_is_dropped(monkeypatch):
    monkeypatch.setattr("neuronsplit.core.dropout.stream", None)
    trained([3], 0.0)
    with pytest.raises(TypeError):
        trained([3], 0.1)


def test_a_network_is_evaluated_without_dropout():
    run, (*_, losses, correct) = trained(SEEDS, 0.5)
    images, labels = load_dataset("digits").test
    for r in range(2):
        logits = reference.network(run.mlp, r)(images)
        torch.testing.assert_close(losses[r], cross_entropy(logits, labels, reduction="none"))
