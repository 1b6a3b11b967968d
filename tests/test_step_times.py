"""Steps are timed by a clock of the test's own: nothing depends on how fast this machine is."""

import itertools

import pytest

from neuronsplit.data.datasets import load_dataset
from neuronsplit.growing.train import Run
from neuronsplit.measuring.step_times import time_steps


@pytest.mark.parametrize("n_networks", [1, 3])
def test_the_time_of_a_step_is_that_of_an_epoch_by_its_steps_and_networks(n_networks):
    """By a clock that ticks once a call, an epoch takes a second; digits have images for 8 steps of 150."""
    found = time_steps(load_dataset("digits"), [4, 2], batch_size=150, n_networks=n_networks, n_rounds=2,
                       clock=itertools.count().__next__)  # fmt: skip
    n_steps = len(load_dataset("digits").train.labels) // 150
    assert found.width.tolist() == [4, 2] and n_steps == 8
    assert found.seconds.tolist() == pytest.approx([1 / 8 / n_networks] * 2)


def test_times_are_medians_of_the_rounds_after_the_first(monkeypatch):
    """Of epochs that take their width, times 100 in the first round, 1, 9 and 4 in the others."""
    now, n_epochs = [0.0], itertools.count()

    def epoch(run, sample):
        assert sample.labels.shape == (20,)
        now[0] += run.mlp.width * [100, 1, 9, 4][next(n_epochs) // 2]

    monkeypatch.setattr(Run, "epoch", epoch)
    found = time_steps(load_dataset("digits"), [5, 10], batch_size=4, n_steps=5, n_rounds=3, clock=lambda: now[0])
    assert found.seconds.tolist() == pytest.approx([5 * 4 / 5, 10 * 4 / 5])
