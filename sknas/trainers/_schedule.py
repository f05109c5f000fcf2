"""The schedule of a training: its steps, rungs and snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sknas._problem import Problem
from sknas._training.batches import count_batches
from sknas._training.schedules import distinct_cycle_ends, n_cycles, training_length

LATE_SNAPSHOTS = (0.85, 0.93)  # shares of the schedule where the rate is low again


@dataclass(frozen=True)
class Schedule:
    """The schedule of a training.

    Parameters
    ----------
    n_steps : int
        Optimiser steps of a full training.
    cycles : int
        Cycles of the learning rate.
    rungs : tuple of int
        Steps after which the learning rate is zero; the last one is `n_steps`.
    snapshots : tuple of int
        Steps after which networks are scored: the rungs, and some near the end.
    n_batches : int
        Batches of an epoch, by the weights of the rows.
    n_distinct_batches : int
        Batches of an epoch of distinct rows, which may stand for several.
    """

    n_steps: int
    cycles: int
    rungs: tuple[int, ...]
    snapshots: tuple[int, ...]
    n_batches: int
    n_distinct_batches: int

    @classmethod
    def of(cls, architecture: Any, problem: Problem) -> Schedule:
        """Return the schedule for the batch size of an architecture and the table."""
        assert problem.task is not None
        batch_size = architecture.get("batch_size", 256)
        folds = problem.folds
        total = sum(float(fold.train.weight.sum()) for fold in folds) / len(folds)
        length = training_length(
            problem.task.n_rows,
            total,
            problem.n_steps,
            batch_size,
            problem.max_epochs,
            is_image=problem.task.image is not None,
        )
        n_rows = max(len(fold.train) for fold in folds)
        cycles = n_cycles(length.planned)
        rungs = tuple(distinct_cycle_ends(length.n_steps, cycles))
        late = {round(share * length.n_steps) for share in LATE_SNAPSHOTS}
        if not problem.scores_rungs:
            rungs, late = rungs[-1:], set()
        snapshots = tuple(sorted({*rungs, *(step for step in late if step)}))
        return cls(
            n_steps=length.n_steps,
            cycles=cycles,
            rungs=rungs,
            snapshots=snapshots,
            n_batches=length.n_batches,
            n_distinct_batches=count_batches(n_rows, total, batch_size),
        )

    def share(self, rung: int) -> float:
        """Return the share of the schedule at a rung, 1 for later ones."""
        return self.rungs[min(rung, len(self.rungs) - 1)] / self.n_steps
