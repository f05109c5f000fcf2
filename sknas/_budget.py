"""How much is trained: functions of rows and columns, never of time or machine.

============  =======================================================
batch size    256 up to 256 rows (one batch), then 64 below 2,000 rows,
              128 below 8,000, 256 below 30,000, 512 below 100,000, 1024
steps         n_rows, but at least 60 and at most 1,500
trials        3 at 100 rows, growing with the square root: 9 at 1,000;
              at least 3, at most 16
============  =======================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass

N_STEPS = (60, 1_500)
N_TRIALS = (3, 16)

STEP_SECONDS = 1e-3  # of a step at small batches, twice that at 256 rows
MIN_TRIALS = 10
MIN_STEPS = 100
MIN_HOLDOUT_ROWS = 5_000


def default_batch_size(n_rows: float) -> int:
    """Rows of a batch for a table of `n_rows`."""
    sizes = ((256, 256), (2_000, 64), (8_000, 128), (30_000, 256), (100_000, 512))
    return next((size for bound, size in sizes if n_rows <= bound), 1024)


def default_steps(n_rows: float) -> int:
    """Optimiser steps of a full training, at the default batch size."""
    low, high = N_STEPS
    return int(min(max(n_rows, low), high))


def default_trials(n_rows: float) -> int:
    """Trials of a search whose budget is not given."""
    low, high = N_TRIALS
    return int(min(max(round(3 * math.sqrt(n_rows / 100)), low), high))


@dataclass(frozen=True)
class Length:
    """Length of a training.

    Parameters
    ----------
    n_steps : int
        Optimiser steps.
    n_batches : int
        Batches of an epoch, by the weights of the rows.
    planned : int
        Steps on the whole table, which decide the cycles of the learning rate: a
        share of the schedule is the same point in every fold and in the refit.
    """

    n_steps: int
    n_batches: int
    planned: int

    @property
    def n_epochs(self) -> int:
        """Epochs begun."""
        return -(-self.n_steps // self.n_batches)


def training_length(
    n_rows: float,
    n_train: float,
    n_steps: int,
    batch_size: int,
    max_epochs: int | None,
) -> Length:
    """Length of a training on a part of a table.

    Smaller batches take more steps, as the square root: between the same number of
    steps and the same number of epochs.

    Parameters
    ----------
    n_rows, n_train : float
        Rows of the table and of the part to train on.
    n_steps : int
        Steps of a full training at the default batch size.
    batch_size : int
        Rows of a batch.
    max_epochs : int or None
        Bound of epochs.
    """
    wanted = n_steps * math.sqrt(default_batch_size(n_rows) / batch_size)
    steps, batches = [], []
    for size in (n_rows, n_train):
        per_epoch = max(1, math.ceil(size / batch_size))
        bound = math.inf if max_epochs is None else max_epochs * per_epoch
        batches.append(per_epoch)
        steps.append(int(max(1, min(round(wanted), bound))))
    return Length(steps[1], batches[1], steps[0])


@dataclass(frozen=True)
class Budget:
    """How much a search may do.

    Parameters
    ----------
    n_trials : int or None
        Trials; None where time is the only bound.
    n_steps : int
        Steps of a full training at the default batch size.
    n_folds : int
        Folds where the user leaves them to us.
    """

    n_trials: int | None
    n_steps: int
    n_folds: int


def auto_folds(n_rows: float) -> int:
    """Folds of ``cv="auto"`` for a table of `n_rows`: 3, 5, 3, and 1 for a hold-out.

    Small tables need every row twice and have no time to lose; from 400 rows on the
    noise of a score costs more than its folds; above 20,000 rows a hold-out is enough.
    """
    if n_rows < 400:
        return 3
    if n_rows < 5_000:
        return 5
    return 3 if n_rows < 20_000 else 1


def plan_budget(
    n_rows: float, max_trials: int | None, max_time: float | None
) -> Budget:
    """The budget of a search, from the size of the table and what the user bounds.

    With a time that is short for the table, 3 folds take the place of 5, a hold-out
    that of folds where it is large enough to choose by, and then trainings get
    shorter: room for `MIN_TRIALS` trials is wanted, at the pace of a slow core. The
    pace is a constant, so that the plan depends on parameters alone.
    """
    n_steps, n_folds = default_steps(n_rows), auto_folds(n_rows)
    if max_time is None:
        return Budget(max_trials or default_trials(n_rows), n_steps, n_folds)
    pace = STEP_SECONDS * (1 + default_batch_size(n_rows) / 256)
    n_allowed = max_time / (MIN_TRIALS * pace)  # steps of one trial, all folds
    if n_folds * n_steps > n_allowed:
        n_folds = 1 if n_rows >= MIN_HOLDOUT_ROWS else min(n_folds, 3)
    if n_folds * n_steps > n_allowed:
        n_steps = min(n_steps, int(max(n_allowed / n_folds, MIN_STEPS)))
    return Budget(max_trials, n_steps, n_folds)
