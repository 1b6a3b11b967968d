import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from neuronsplit.growing.when import SCHEDULES, Schedule

LOSSES = [1.0, 0.8, 0.799, 0.5, 0.499, 0.3, 0.299, 0.2, 0.1, 0.1, 0.1, 0.05]
any_losses = st.lists(st.floats(0.01, 10), min_size=30, max_size=30)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("splits", [0, 1, 4, 10, 12])
def test_schedules_split_when_they_say(schedule, splits):
    expected = [reference.splits_due(schedule, epoch, LOSSES, splits) for epoch in range(1, 14)]
    due = [SCHEDULES[schedule].due(epoch, LOSSES[: epoch - 1], splits) for epoch in range(1, 14)]
    if schedule in ("every-epoch", "5-per-5-epochs"):  # these go on until all splits are made
        due = np.diff(np.minimum(np.cumsum([0, *due]), splits)).tolist()
    assert due == expected


@pytest.mark.parametrize("schedule", [name for name, one in SCHEDULES.items() if not one.data_dependent])
@given(losses=any_losses, others=any_losses, epoch=st.integers(1, 31), splits_left=st.integers(0, 20))
def test_a_schedule_that_is_not_data_dependent_ignores_the_losses(schedule, losses, others, epoch, splits_left):
    due = SCHEDULES[schedule].due
    expected = due(epoch, others[: epoch - 1], splits_left)
    assert due(epoch, losses[: epoch - 1], splits_left) == expected == due(epoch, [], splits_left)


@pytest.mark.parametrize("schedule", [name for name, one in SCHEDULES.items() if one.data_dependent])
def test_a_data_dependent_schedule_looks_at_the_losses(schedule):
    courses = [[1.0, 0.5, 0.2], [1.0, 1.0, 1.0]]
    assert len({SCHEDULES[schedule].due(4, course, 1) for course in courses}) == 2


def test_every_schedule_is_a_schedule_and_only_plateau_is_data_dependent():
    assert all(isinstance(schedule, Schedule) for schedule in SCHEDULES.values())
    assert [name for name, schedule in SCHEDULES.items() if schedule.data_dependent] == ["plateau"]
