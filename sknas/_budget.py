"""Budget of a search, and the cost model: seconds of trainings on any machine.

A budget is a function of the data and the parameters, not of the machine.

============  =======================================================
batch size    256 up to 256 rows (one batch), then 64 up to 2,000 rows,
              128 up to 8,000, 256 up to 30,000, 512 up to 100,000, 1024
steps         n_rows, but at least 60 and at most 1,500
trials        3 at 100 rows, growing with the square root: 9 at 1,000;
              at least 3, at most 16
============  =======================================================

An image costs more than a row of a table, so the cost per step matters less:

============  =======================================================
batch size    64 up to 8,000 images, 128 up to 100,000, 256
steps         n_rows, but at most 300 or 15 epochs, whichever is more;
              up to twice that if `max_time` is given and allows it
trials        as for tables
============  =======================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

CORES = 1.6  # cores assumed on every machine, so that a budget does not depend on it
DEFAULT_COLUMNS = 400  # columns up to which the cost of the first layer is negligible
HALVING_COST = 0.5  # relative cost of a cohort with successive halving
MIN_COHORT_COST = 3  # least cost of a cohort of three or more, in full trainings
MIN_STEPS = 60  # steps of a full training, however few the rows
MIN_TIMED_STEPS = 100  # steps of a full training, however short the time
MIN_TRIALS, MAX_TRIALS = 3, 16
MAX_SMALL_ROWS = 3_000  # rows below which a table is small
SMALL_STEPS = 2_000  # steps of batched trainings on small tables, given `max_time`
MIN_HOLDOUT_ROWS = 5_000  # rows from which a hold-out set can rank trials
N_SNAPSHOTS = 6  # about the snapshots of a training, each of which is scored
SCORE_SHARE = 0.25  # share of the time that the scores of a cohort may take


@dataclass(frozen=True)
class Defaults:
    """Default sizes of a search, most of them functions of the number of rows.

    Rows are counted by their weights.

    Parameters
    ----------
    batch_sizes : tuple of (float, int)
        Ascending upper bounds of the number of rows, each with its batch size.
    folds : tuple of (float, int)
        Ascending bounds, each with the number of folds for fewer rows; from the last
        bound on, one hold-out set.
    max_steps : int
        Upper bound of the optimiser steps of a full training.
    n_proposals : int
        Proposals that are trained side by side.
    min_proposals : int
        Minimum of `n_proposals`, if time is short.
    min_after_search : int
        Minimum of `n_proposals`, if the strategy compares architectures by itself.
    max_epochs : int, default=0
        Number of epochs that are allowed even if they exceed `max_steps`.
    max_stretch : int, default=1
        Factor by which trainings may be lengthened, if `max_time` is given.
    """

    batch_sizes: tuple[tuple[float, int], ...]
    folds: tuple[tuple[float, int], ...]
    max_steps: int
    n_proposals: int
    min_proposals: int
    min_after_search: int
    max_epochs: int = 0
    max_stretch: int = 1

    def batch_size(self, n_rows: float) -> int:
        """Return the batch size."""
        return next(size for bound, size in self.batch_sizes if n_rows <= bound)

    def n_steps(self, n_rows: float) -> int:
        """Return the optimiser steps of a full training at the default batch size."""
        n_batches = n_rows / self.batch_size(n_rows)
        high = max(self.max_steps, math.ceil(self.max_epochs * n_batches))
        return int(min(max(n_rows, MIN_STEPS), high))

    def n_trials(self, n_rows: float) -> int:
        """Return the trials of a search without `max_trials` and `max_time`."""
        n_trials = round(3 * math.sqrt(n_rows / 100))
        return int(min(max(n_trials, MIN_TRIALS), MAX_TRIALS))

    def n_folds(self, n_rows: float) -> int:
        """Return the folds of ``cv="auto"``; 1 is a hold-out set."""
        return next((folds for bound, folds in self.folds if n_rows < bound), 1)


# Three folds keep the search of a very small table short. Otherwise, five folds beat
# fewer folds of more architectures on each of five tables up to 10,000 rows, and the
# networks of the folds form the ensemble.
TABLE = Defaults(
    batch_sizes=(
        *((256, 256), (2_000, 64), (8_000, 128), (30_000, 256), (100_000, 512)),
        (math.inf, 1024),
    ),
    folds=((400, 3), (16_000, 5), (40_000, 3)),
    max_steps=1_500,
    n_proposals=16,
    min_proposals=8,
    min_after_search=8,
)
# A network for images takes longer, so there are fewer folds and smaller cohorts.
IMAGE = Defaults(
    batch_sizes=((8_000, 64), (100_000, 128), (math.inf, 256)),
    folds=((4_000, 3),),
    max_steps=300,
    n_proposals=8,
    min_proposals=4,
    min_after_search=2,
    max_epochs=15,
    max_stretch=2,
)


def defaults_for(is_image: bool) -> Defaults:
    """Return the defaults of images or of tables."""
    return IMAGE if is_image else TABLE


@dataclass(frozen=True)
class CostModel:
    """Seconds of an optimiser step of one network, on one slow core.

    Parameters
    ----------
    step : float
        Seconds of every step.
    row : float, default=0.0
        Seconds of each row of the batch, of up to `DEFAULT_COLUMNS` columns.
    pixel : float, default=0.0
        Seconds of each pixel of the batch.
    """

    step: float
    row: float = 0.0
    pixel: float = 0.0

    def seconds(
        self, batch_size: int, n_columns: int, n_pixels: int | None = None
    ) -> float:
        """Return the seconds of a step."""
        row = self.row * max(1.0, n_columns / DEFAULT_COLUMNS)
        return self.step + (row + (n_pixels or 0) * self.pixel) * batch_size


# Estimates: per core, examples/benchmarks/population_speed.py measured 1.1 to 3.6 times
# this speed.
BATCHED_COST = CostModel(step=1e-4, row=1e-5)
GROUP_SECONDS = 1.5e-3  # of a step of any number of networks, on a slow core
# Estimates: per core, examples/benchmarks/population_speed.py measured 1.4 and 5.3 ms
# for steps that these put at 1.6 and 3.6 ms.
TABLE_COST = CostModel(step=1e-3, row=1e-5)
# Estimates: no benchmark measures a single step of `ImageSpace`.
IMAGE_COST = CostModel(step=5e-3, pixel=8e-7)


@dataclass(frozen=True)
class Workload:
    """Size of the data of a search, and the cost of a training on them.

    Parameters
    ----------
    n_rows : float
        Rows of the table, by their weights.
    n_columns : int, default=1
        Columns of the table.
    n_pixels : int or None, default=None
        Pixels of an image; None for a table.
    is_batched : bool, default=True
        True if the trainer trains many networks at once.
    relative_cost : float, default=1.0
        Cost of a network of the space, relative to the default space of its data.
    time_share : float, default=0.0
        Share of the time that the strategy takes to compare architectures by itself.
    score_seconds : float, default=0.0
        Seconds of a call of the scorer.
    n_folds : int or None, default=None
        Folds that the user asks for; None if the budget decides.
    """

    n_rows: float
    n_columns: int = 1
    n_pixels: int | None = None
    is_batched: bool = True
    relative_cost: float = 1.0
    time_share: float = 0.0
    score_seconds: float = 0.0
    n_folds: int | None = None

    @property
    def defaults(self) -> Defaults:
        """Default sizes for this kind of data."""
        return defaults_for(self.n_pixels is not None)

    @property
    def n_steps(self) -> int:
        """Steps of a full training if `max_time` is given."""
        if not self.is_batched:
            return self.defaults.n_steps(self.n_rows)
        return SMALL_STEPS if self.n_rows < MAX_SMALL_ROWS else TABLE.max_steps

    @property
    def min_proposals(self) -> int:
        """Minimum number of proposals that are trained side by side."""
        sizes = self.defaults
        return sizes.min_after_search if self.time_share else sizes.min_proposals

    @property
    def step_seconds(self) -> float:
        """Seconds of a step of one network at the default batch size."""
        batch_size = self.defaults.batch_size(self.n_rows)
        cost = TABLE_COST if self.n_pixels is None else IMAGE_COST
        if self.is_batched:
            cost = BATCHED_COST
        seconds = cost.seconds(batch_size, self.n_columns, self.n_pixels)
        return self.relative_cost * seconds


@dataclass(frozen=True)
class Budget:
    """Size of a search.

    Parameters
    ----------
    n_trials : int or None
        Trials; None if time is the only bound.
    n_steps : int
        Steps of a full training at the default batch size.
    n_folds : int
        Folds of ``cv="auto"``.
    n_proposals : int, default=16
        Proposals that are trained side by side.
    scores_rungs : bool, default=True
        False to score networks at the end of their training alone.
    """

    n_trials: int | None
    n_steps: int
    n_folds: int
    n_proposals: int = TABLE.n_proposals
    scores_rungs: bool = True


def cohort_cost(n_proposals: int) -> float:
    """Return the cost of a cohort in full trainings; a small one drops few trials."""
    return max(HALVING_COST * n_proposals, min(n_proposals, MIN_COHORT_COST))


def plan_budget(
    workload: Workload, max_trials: int | None, max_time: float | None
) -> Budget:
    """Plan a search, from the size of its data and the bounds that the user sets.

    If the time is short, fewer proposals are trained side by side; then there are fewer
    folds, or a hold-out set; then trainings get shorter. Networks for images are
    trained longer if there is time for a few of them. If scores would take a large
    share of the time, each network is scored once.

    Parameters
    ----------
    workload : Workload
        Size of the data and cost of a training.
    max_trials : int or None
        Maximum number of trials.
    max_time : float or None
        Maximum time, in seconds.
    """
    n_rows, sizes = workload.n_rows, workload.defaults
    n_folds, n_proposals = sizes.n_folds(n_rows), sizes.n_proposals
    if max_time is None:
        n_trials = max_trials or sizes.n_trials(n_rows)
        return Budget(n_trials, sizes.n_steps(n_rows), n_folds, n_proposals)
    seconds = CORES * max_time * (1 - workload.time_share)
    step_seconds = workload.step_seconds

    def affordable(n_proposals: int, n_folds: int) -> int:
        """Return the steps that the time allows each training of a cohort."""
        return int(seconds / (cohort_cost(n_proposals) * n_folds * step_seconds))

    n_proposals = min(n_proposals, max_trials or n_proposals)
    min_proposals = min(n_proposals, workload.min_proposals)
    # Lengthen trainings if there is time for that with few proposals.
    n_steps = max(workload.n_steps, affordable(min_proposals, n_folds))
    n_steps = min(n_steps, sizes.max_stretch * workload.n_steps)
    while n_proposals > min_proposals and n_steps > affordable(n_proposals, n_folds):
        n_proposals = max(n_proposals // 2, min_proposals)
    if n_steps > affordable(n_proposals, n_folds):
        can_hold_out = n_rows >= MIN_HOLDOUT_ROWS
        n_folds = 1 if can_hold_out else min(n_folds, 3)
    n_steps = min(n_steps, max(affordable(n_proposals, n_folds), MIN_TIMED_STEPS))
    budget = Budget(max_trials, n_steps, n_folds, n_proposals)
    n_scores = cohort_cost(n_proposals) * N_SNAPSHOTS * (workload.n_folds or n_folds)
    if n_scores * workload.score_seconds <= SCORE_SHARE * max_time:
        return budget
    return _with_few_scores(budget, workload, max_time)


def _with_few_scores(budget: Budget, workload: Workload, seconds: float) -> Budget:
    """Return a budget for a slow scorer: its first cohort takes most of the time.

    Without rungs a training has no score before its end: it is planned for half of the
    time, in case that it is slower than expected. More cohorts follow if there is time.
    """
    seconds *= 1 - workload.time_share
    n_folds = workload.n_folds or _affordable_folds(budget, workload, seconds)
    scoring, training = (
        each * n_folds for each in (workload.score_seconds, workload.step_seconds)
    )
    wanted = max(MIN_TIMED_STEPS, budget.n_steps // 2)
    most = min(SCORE_SHARE * seconds / scoring, seconds / 2 / (wanted * training))
    n_proposals = min(max(int(most), 1), budget.n_proposals)
    # The first call has measured the scorer.
    left = seconds - workload.score_seconds - n_proposals * scoring
    step_seconds = n_proposals * training
    if workload.is_batched:
        step_seconds = max(step_seconds, GROUP_SECONDS)
    n_steps = max(int(left / 2 / step_seconds), MIN_TIMED_STEPS)
    return replace(
        budget,
        n_steps=min(n_steps, budget.n_steps),
        n_folds=n_folds,
        n_proposals=n_proposals,
        scores_rungs=False,
    )


def _affordable_folds(budget: Budget, workload: Workload, seconds: float) -> int:
    """Return the folds of which the scores take a small share of the time, or 1."""
    most = SCORE_SHARE * seconds / workload.score_seconds
    return next((n for n in (budget.n_folds, 3) if n <= min(most, budget.n_folds)), 1)
