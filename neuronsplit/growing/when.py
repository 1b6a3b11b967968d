"""*When* a network grows: a schedule says how many neurons are split at the end of an epoch."""

from collections.abc import Callable
from numbers import Integral
from typing import NamedTuple

from neuronsplit.checks import describe_error


class Schedule(NamedTuple):
    """A schedule says how many splits are made at the end of each epoch.

    due: a function (epoch, val_losses, splits_left) that returns this number.
    epoch: the number of the epoch, from 1.
    val_losses: the validation losses of the epochs before this one.
    splits_left: the number of splits that are not made yet.
    """

    due: Callable[[int, list[float], int], int]
    data_dependent: bool = False  # whether it uses the losses, so that seeds can grow at different epochs


def every(n_epochs: int, n_splits: int) -> Callable[[int, list[float], int], int]:
    """Make n_splits at the end of every n_epochs-th epoch."""
    return lambda epoch, val_losses, splits_left: 0 if epoch % n_epochs else n_splits


def all_at(chosen_epoch: int) -> Callable[[int, list[float], int], int]:
    """Make all splits at the end of chosen_epoch."""
    return lambda epoch, val_losses, splits_left: splits_left if epoch == chosen_epoch else 0


def all_at_half(epoch: int, val_losses: list[float], splits_left: int) -> int:
    """Make all S splits after epoch S / 2, which costs as much training as one split per epoch."""
    return splits_left if epoch == (splits_left + 1) // 2 else 0


def plateau(epoch: int, val_losses: list[float], splits_left: int) -> int:
    """Make a split when the previous epoch lowered the validation loss by less than 1 %."""
    return 1 if len(val_losses) > 1 and val_losses[-1] > 0.99 * val_losses[-2] else 0


SCHEDULES = {
    "every-epoch": Schedule(every(n_epochs=1, n_splits=1)),
    "5-per-5-epochs": Schedule(every(n_epochs=5, n_splits=5)),
    "all-at-half": Schedule(all_at_half),
    "all-at-1": Schedule(all_at(1)),
    "all-at-10": Schedule(all_at(10)),
    "plateau": Schedule(plateau, data_dependent=True),
}


def splits_due(schedule: str, epoch: int, val_losses: list[list[float]], splits_left: int) -> int:
    """Return the number of splits at the end of an epoch, which must be the same for all replicas."""
    due = {SCHEDULES[schedule].due(epoch, losses, splits_left) for losses in val_losses}
    if not all(map(_is_count, due)):
        raise ValueError(
            f"schedule {schedule!r} makes {', '.join(map(str, due))} splits: allowed are whole numbers from 0"
        )
    due = {min(number, splits_left) for number in due}
    if len(due) > 1:
        raise ValueError(f"schedule {schedule!r} grows replicas at different epochs: allowed is one replica at a time")
    return due.pop()


def _is_count(number: object) -> bool:
    return isinstance(number, Integral) and number >= 0


def require_all_splits(schedule: str, splits: int, epochs: int) -> None:
    """Raise ValueError unless a schedule that does not look at losses makes all splits within some epochs."""
    left = splits
    for epoch in range(1, epochs + 1):
        if not left:
            return
        try:
            made = SCHEDULES[schedule].due(epoch, [], left)
        except Exception as error:  # of the user's code
            made = describe_error(error)
        if not _is_count(made):
            allowed = "whole numbers from 0, and data_dependent=True for a schedule that looks at losses"
            raise ValueError(f"schedule {schedule!r} gives {made} for epoch {epoch}: allowed are {allowed}")
        left -= min(made, left)
    if left:
        made = f"{splits - left} of {splits} splits in {epochs} epochs"
        raise ValueError(f"schedule {schedule!r} makes {made}: allowed are more epochs or fewer splits")
