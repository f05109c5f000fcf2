"""How much is trained: functions of rows and parameters, never of a machine.

============  =======================================================
batch size    256 up to 256 rows (one batch), then 64 below 2,000 rows,
              128 below 8,000, 256 below 30,000, 512 below 100,000, 1024
steps         n_rows, but at least 60 and at most 1,500
trials        3 at 100 rows, growing with the square root: 9 at 1,000;
              at least 3, at most 16
============  =======================================================

For images a row costs much and a step little:

============  =======================================================
batch size    64 below 8,000 images, 128 below 100,000, 256
steps         n_rows, but at most 300 or 15 epochs, whichever is more;
              up to twice that where time is the bound and suffices
trials        as for tables
============  =======================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass

N_STEPS = (60, 1_500)
N_TRIALS = (3, 16)
IMAGE_STEPS, IMAGE_EPOCHS = 300, 15

STEP_SECONDS = 1e-4  # of a step of one network among others
ROW_SECONDS = 1e-5  # of each row of its batch
DEFAULT_COLUMNS = 400  # above which the first layer is what takes the time
ALONE_SECONDS = 1e-3  # of a step of one network alone
IMAGE_SECONDS = 5e-3  # of a step on images
PIXEL_SECONDS = 8e-7  # of each pixel of its batch
N_IMAGE_PROPOSALS = 8  # networks for images that are trained side by side
CORES = 1.6  # that a search is planned for
N_PROPOSALS = 16
HALVING_COST = 0.5  # of a cohort that is halved, beside one that is not,
FULL_COST = 3  # but of so many trainings at least, if there are as many
LONG_STEPS, LONG_BELOW = 2_000, 3_000  # steps below so many rows, if time is the bound
LONGER = 2  # times that images are trained as long where time suffices
LONG_IMAGES = 4  # networks for images that are rather trained longer than more of them
SEARCHED_IMAGES = 2  # the same where a relaxed network was searched before
MIN_STEPS = 100
MIN_HOLDOUT_ROWS = 5_000
MAX_FOLDED_IMAGES = 4_000


TABLE_SIZES = ((256, 256), (2_000, 64), (8_000, 128), (30_000, 256), (100_000, 512))
IMAGE_SIZES = ((8_000, 64), (100_000, 128))


def default_batch_size(n_rows: float, is_image: bool = False) -> int:
    """Rows of a batch for a table, or images, of `n_rows`."""
    sizes, largest = (IMAGE_SIZES, 256) if is_image else (TABLE_SIZES, 1024)
    return next((size for bound, size in sizes if n_rows <= bound), largest)


def default_steps(n_rows: float, is_image: bool = False) -> int:
    """Optimiser steps of a full training, at the default batch size."""
    low, high = N_STEPS
    if is_image:
        n_batches = n_rows / default_batch_size(n_rows, is_image)
        high = max(IMAGE_STEPS, math.ceil(IMAGE_EPOCHS * n_batches))
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
        Steps on the whole table at the default batch size, which decide the cycles
        of the learning rate: a share of the schedule is the same point for all
        architectures, in every fold and in the refit.
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
    is_image: bool = False,
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
    is_image : bool, default=False
        Whether rows are images.
    """
    usual_size = default_batch_size(n_rows, is_image)
    wanted = round(n_steps * math.sqrt(usual_size / batch_size))
    planned = _bounded(n_steps, n_rows, usual_size, max_epochs)
    n_batches = max(1, math.ceil(n_train / batch_size))
    return Length(_bounded(wanted, n_train, batch_size, max_epochs), n_batches, planned)


def _bounded(
    n_steps: int, n_rows: float, batch_size: int, max_epochs: int | None
) -> int:
    """Steps that a bound of epochs allows, at least one."""
    if max_epochs is None:
        return max(1, n_steps)
    return max(1, min(n_steps, max_epochs * max(1, math.ceil(n_rows / batch_size))))


def alone_seconds(
    batch_size: int, n_columns: int, n_pixels: int | None = None
) -> float:
    """About how long a step of one network alone takes, on one slow core."""
    if n_pixels is not None:
        return IMAGE_SECONDS + n_pixels * PIXEL_SECONDS * batch_size
    return ALONE_SECONDS + _row_seconds(n_columns) * batch_size


def _row_seconds(n_columns: int) -> float:
    return ROW_SECONDS * max(1.0, n_columns / DEFAULT_COLUMNS)


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
    n_proposals : int, default=16
        Proposals that are trained side by side.
    """

    n_trials: int | None
    n_steps: int
    n_folds: int
    n_proposals: int = N_PROPOSALS


def auto_folds(n_rows: float, is_image: bool = False) -> int:
    """Folds of ``cv="auto"`` for a table of `n_rows`: 3, 5, 3, and 1 for a hold-out.

    Very small tables have no time to lose. Five folds beat fewer of more architectures
    on each of five tables up to 10,000 rows; their networks are the ensemble, too.
    Networks for images take longer: 3 folds below 4,000 images, a hold-out above.
    """
    if is_image:
        return 3 if n_rows < MAX_FOLDED_IMAGES else 1
    if n_rows < 400:
        return 3
    if n_rows < 16_000:
        return 5
    return 3 if n_rows < 40_000 else 1


def cohort_cost(n_proposals: int) -> float:
    """Full trainings that a cohort is worth: of a small one few are dropped."""
    return max(HALVING_COST * n_proposals, min(n_proposals, FULL_COST))


def plan_budget(
    n_rows: float,
    max_trials: int | None,
    max_time: float | None,
    *,
    n_columns: int = 1,
    is_batched: bool = True,
    n_pixels: int | None = None,
    relative_cost: float = 1.0,
    time_share: float = 0.0,
) -> Budget:
    """The budget of a search, from the size of the table and what the user bounds.

    With a time that is short for the table, fewer are trained side by side, then 3
    folds take the place of 5, a hold-out that of folds where it is large enough to
    choose by, and then trainings get shorter. Images are trained up to twice as long
    where there is time for a few such trainings. The pace is a constant, that of a slow
    core, so that the plan depends on parameters alone: wide tables take longer, and so
    do networks that are not trained side by side, `is_batched`, and images, of so many
    pixels each; and those of a space whose `relative_cost` says so. A strategy that
    takes a `time_share` leaves so much less of the time; it has compared architectures
    by itself, so that fewer networks for images are trained.
    """
    is_image = n_pixels is not None
    n_folds = auto_folds(n_rows, is_image)
    most_side = N_IMAGE_PROPOSALS if is_image else N_PROPOSALS
    if max_time is None:
        n_trials = max_trials or default_trials(n_rows)
        return Budget(n_trials, default_steps(n_rows, is_image), n_folds, most_side)
    batch_size = default_batch_size(n_rows, is_image)
    if is_batched:
        n_steps = LONG_STEPS if n_rows < LONG_BELOW else N_STEPS[1]
        pace = STEP_SECONDS + _row_seconds(n_columns) * batch_size
    else:
        n_steps = default_steps(n_rows, is_image)
        pace = relative_cost * alone_seconds(batch_size, n_columns, n_pixels)
    seconds = CORES * max_time * (1 - time_share)

    def possible(n_proposals: int, n_folds: int) -> int:
        """Steps that a training of a cohort has time for."""
        return int(seconds / (cohort_cost(n_proposals) * n_folds * pace))

    n_proposals = min(most_side, max_trials or most_side)
    n_least = most_side // 2
    if is_image:
        n_least = min(n_proposals, SEARCHED_IMAGES if time_share else LONG_IMAGES)
        n_steps = min(max(n_steps, possible(n_least, n_folds)), LONGER * n_steps)
    while n_proposals > n_least and n_steps > possible(n_proposals, n_folds):
        n_proposals = max(n_proposals // 2, n_least)
    if n_steps > possible(n_proposals, n_folds):
        n_folds = 1 if n_rows >= MIN_HOLDOUT_ROWS else min(n_folds, 3)
    n_steps = min(n_steps, max(possible(n_proposals, n_folds), MIN_STEPS))
    return Budget(max_trials, n_steps, n_folds, n_proposals)
