"""*When* a network grows: a schedule says how many neurons are split at the end of an epoch."""

from collections.abc import Callable
from typing import NamedTuple


class Schedule(NamedTuple):
    """The number of splits due at the end of an epoch.

    due(epoch, val_losses, splits_left): epochs count from 1, val_losses are those of the epochs before this one, and
    splits_left is the number of splits not yet made.
    """

    due: Callable[[int, list[float], int], int]
    data_dependent: bool = False  # whether it looks at losses, so that seeds may grow at different epochs


def every(n_epochs: int, n_splits: int) -> Callable[[int, list[float], int], int]:
    """Make n_splits at the end of every n_epochs-th epoch."""
    return lambda epoch, val_losses, splits_left: 0 if epoch % n_epochs else n_splits


def all_at(chosen: int) -> Callable[[int, list[float], int], int]:
    """Make all splits at the end of one epoch."""
    return lambda epoch, val_losses, splits_left: splits_left if epoch == chosen else 0


def all_at_half(epoch: int, val_losses: list[float], splits_left: int) -> int:
    """Make all splits half-way through as many epochs: training then costs as much as with one split per epoch."""
    return splits_left if epoch == (splits_left + 1) // 2 else 0


def plateau(epoch: int, val_losses: list[float], splits_left: int) -> int:
    """Make a split when the validation loss of the epoch before was less than 1 % below that of its predecessor."""
    return 1 if len(val_losses) > 1 and val_losses[-1] > 0.99 * val_losses[-2] else 0


SCHEDULES = {
    "every-epoch": Schedule(every(n_epochs=1, n_splits=1)),
    "5-per-5-epochs": Schedule(every(n_epochs=5, n_splits=5)),
    "all-at-half": Schedule(all_at_half),
    "all-at-1": Schedule(all_at(1)),
    "all-at-10": Schedule(all_at(10)),
    "plateau": Schedule(plateau, data_dependent=True),
}
