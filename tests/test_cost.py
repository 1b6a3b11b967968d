"""Costs and comparisons at equal cost, by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import course
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, bmm_flop

from neuronsplit.analysis import cost, tables
from neuronsplit.core.mlp import MLP
from neuronsplit.core.optimizers import make_optimizer
from neuronsplit.growing.train import train_step


@settings(max_examples=20)
@given(*[st.integers(1, 40)] * 4)
def test_multiply_adds_are_those_that_torch_counts(n_in, width, n_out, n_images):
    """Which counts a multiplication and an addition as two; those of biases are not products, and not counted."""
    net = nn.Sequential(nn.Linear(n_in, width), nn.ReLU(), nn.Linear(width, n_out))
    images, labels = torch.ones(n_images, n_in), torch.zeros(n_images, dtype=torch.long)
    with FlopCounterMode(display=False) as training:
        nn.functional.cross_entropy(net(images), labels).backward()
    assert cost.multiply_adds(width, n_in, n_out, n_images) == training.get_total_flops() / 2
    with FlopCounterMode(display=False) as evaluation, torch.no_grad():
        net(images)
    assert evaluation.get_total_flops() / 2 == (n_in + n_out) * width * n_images  # proportional to the width


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_a_step_of_the_package_takes_the_multiply_adds_that_are_counted(optimizer):
    """Two networks; sums over images, for biases, may be products with a vector of ones."""

    def of_update(total, a, b, *_, **__):
        return bmm_flop(a, b)

    mlp = MLP((784, 35, 10), [0, 1])
    made = make_optimizer(optimizer, mlp, 0.01)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: of_update}) as counter:
        train_step(mlp, torch.ones(1, 32, 784), torch.zeros(2, 32, dtype=torch.long), made)
    found, expected = counter.get_total_flops() / 2, 2 * cost.multiply_adds(35, 784, 10, 32)
    assert expected <= found < 1.002 * expected


def test_cost_is_counted_before_the_split():
    """Width 2 grows by one, then by two: trained with 2, 3 and 5 neurons."""
    grown = course("random", [3, 5, 5], ["1", "0 new", None], [3.0, 2, 1])
    assert cost.neuron_epochs(grown).tolist() == [2, 5, 10]


def test_seconds_are_those_of_the_steps_at_each_width():
    """Widths 2, 3 and 5, of which 3 is half-way between two that were timed."""
    times = pd.DataFrame({"width": [6, 2, 4, 5], "seconds": [0.9, 0.1, 0.3, 0.4]})
    grown = course("random", [3, 5, 5], ["1", "0 new", None], [3.0, 2, 1])
    assert cost.seconds(grown, times, 100).tolist() == pytest.approx([10, 10 + 20, 10 + 20 + 40])
    both = pd.concat([grown, grown.assign(seed=1)], ignore_index=True)
    assert cost.seconds(both, times, 1)[5] == pytest.approx(0.7)
    with pytest.raises(ValueError, match="width 5: allowed are those within the widths that were timed, 2 to 4$"):
        cost.seconds(grown, times[times.width < 5], 100)


def final_difference(table, metric, *options):
    """The last difference at equal cost of each policy and seed."""
    return tables.final_values(cost.difference_at_equal_cost(table, metric, *options), "difference")


def test_equal_cost_takes_the_control_when_it_had_cost_as_much():
    grown = course("random", [3, 5, 5], ["1", "0 2", None], [3.0, 2, 1])
    control = course("no-split", [4, 4, 4, 4], None, [4.0, 3, 2.5, 2.2])  # costs 4, 8, 12, 16; the other 10
    table = pd.concat([control[:3], grown], ignore_index=True)
    found = final_difference(table, "test_loss", "no-split")
    assert found["random"].tolist() == [1 - 2.75]
    cheap = pd.concat([control[:3], course("random", [2, 2, 2], None, [5.0, 5, 5])], ignore_index=True)  # 6
    found = final_difference(cheap, "test_loss", "no-split")
    assert found["random"].tolist() == [5 - 3.5]


def test_a_difference_at_equal_cost_is_taken_after_every_epoch():
    grown = course("random", [3, 5, 5], ["1", "0 2", None], [3.0, 2, 1])  # costs 2, 5, 10
    control = course("no-split", [4, 4, 4], None, [4.0, 3, 2.5])  # 4, 8, 12
    table = pd.concat([control, grown], ignore_index=True)
    found = cost.difference_at_equal_cost(table, "test_loss", "no-split")
    np.testing.assert_allclose(found.difference, [np.nan, 2 - 3.75, 1 - 2.75])
    np.testing.assert_allclose(found.cost, [2 / 12, 5 / 12, 10 / 12])


def test_differences_at_equal_epochs_multiply_adds_and_time_are_one_computation():
    """The control has 4 neurons; a step of it takes 3 seconds, and as many with 2 or 3 neurons."""
    grown = course("random", [3, 5, 5], ["1", "0 2", None], [3.0, 2, 1])
    control = course("no-split", [4, 4, 4], None, [4.0, 3, 2.5])
    table = pd.concat([control, grown], ignore_index=True)
    at_equal_epochs = cost.difference_at_equal_cost(table, "test_loss", "no-split", "epoch")
    assert at_equal_epochs.difference.tolist() == [3 - 4, 2 - 3, 1 - 2.5]
    found = final_difference(table, "test_loss", "no-split", "epoch")
    pd.testing.assert_frame_equal(found, tables.paired_differences(table, "test_loss", "no-split"), check_names=False)
    times = pd.DataFrame({"width": [2, 4, 5], "seconds": [3.0, 3, 1.5]})
    timed = table.assign(seconds=cost.seconds(table, times, 1))  # 3, 6 and 9; the other 3, 6 and 7.5
    found = cost.difference_at_equal_cost(timed, "test_loss", "no-split", "seconds")
    assert found.difference.tolist() == [3 - 4, 2 - 3, 1 - 2.75] and found.cost.tolist() == [3 / 9, 6 / 9, 7.5 / 9]
    shares = [cost.relative_cost(timed, "no-split", name)["random"] for name in ("epoch", "neuron_epochs", "seconds")]
    assert shares == pytest.approx([1, 10 / 12, 7.5 / 9])
    several = pd.concat([times.assign(dataset="mine"), times.assign(dataset="other", seconds=1.0)])
    assert cost.relative_seconds(table.assign(dataset="mine"), "no-split", several)["random"] == pytest.approx(7.5 / 9)


def test_at_equal_cost_validation_picks_from_the_epochs_that_cost_as_much():
    """The control is best at its second epoch, which the other cannot reach with its cost of 6."""
    control = course("no-split", [4, 4, 4], None, [4.0, 2, 3]).assign(val_loss=[3, 1, 2])  # costs 4, 8, 12
    grown = course("random", [2, 2, 2], None, [5.0, 1, 3]).assign(val_loss=[3, 2, 9])  # 2, 4, 6
    table = pd.concat([control, grown], ignore_index=True)
    table["best"] = tables.best_so_far(table, "test_loss")
    found = final_difference(table, "best", "no-split")
    assert found["random"].tolist() == [1 - (4 + 2) / 2]


def test_the_relative_cost_is_that_of_the_last_epoch():
    control = course("no-split", [4, 4, 4], None, [4.0, 3, 2.5])  # 12
    grown = course("random", [3, 5, 5], ["1", "0 2", None], [3.0, 2, 1])  # 10
    cheaper = course("random", [2, 2, 2], None, [3.0, 2, 1]).assign(seed=1)  # 6: the mean is 8
    found = cost.relative_cost(pd.concat([control, grown, cheaper], ignore_index=True), "no-split")
    assert found.to_dict() == pytest.approx({"no-split": 1, "random": 8 / 12})


def test_a_lead_ends_where_the_interval_first_includes_zero():
    """Against a plain loop over epochs; noise makes the lead of a cheaper policy end at some point."""
    rng, parts = np.random.default_rng(0), []
    for seed in range(6):
        control = course("no-split", [4] * 9, None, [3 - 0.3 * i + rng.normal(0, 0.05) for i in range(9)])
        grown = course("random", [2] * 9, None, [2.6 - 0.05 * i + rng.normal(0, 0.05) for i in range(9)])
        last = course("max-loss", [2] * 9, None, [5.0] * 9)
        parts.append(pd.concat([control, grown, last]).assign(seed=seed))
    table = pd.concat(parts, ignore_index=True)
    values, expected = table.pivot(index="seed", columns=["policy", "epoch"], values="test_loss"), 0.0
    for epoch in range(2, 10):  # cost 2 · epoch, which the control has after epoch / 2 of its own
        before, after = values["no-split"][epoch // 2], values["no-split"][(epoch + 1) // 2]
        difference = values["random"][epoch] - (before + after) / 2
        mean, error = difference.mean(), difference.std() / 6**0.5
        if mean + 2.570582 * error >= 0:  # Student's t of 5 degrees of freedom
            break
        expected = 2 * epoch / 36
    found = cost.lead_until(table, "test_loss", "no-split")
    assert found.to_dict() == {"random": pytest.approx(expected), "max-loss": 0.0} and 0.1 < expected < 0.45
