"""How long a unit is trained, and where it is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sknas._budget import training_length
from sknas._problem import Problem
from sknas._training.batches import n_parts
from sknas._training.schedules import distinct_cycle_ends, n_cycles

LATE_SNAPSHOTS = (0.85, 0.93)  # shares of the schedule where the rate is low again


@dataclass(frozen=True)
class Schedule:
    """The schedule of a unit.

    Parameters
    ----------
    n_steps : int
        Optimiser steps of a full training.
    cycles : int
        Cycles of the learning rate.
    rungs : tuple of int
        Steps after which all networks are annealed, the last is `n_steps`.
    looks : tuple of int
        Steps after which networks are scored: the rungs, and some near the end.
    n_batches : int
        Batches of an epoch.
    n_parts : int
        Batches that the different rows of a fold are dealt into.
    """

    n_steps: int
    cycles: int
    rungs: tuple[int, ...]
    snapshots: tuple[int, ...]
    n_batches: int
    n_parts: int

    @classmethod
    def of(cls, architecture: Any, problem: Problem) -> Schedule:
        """The plan of an architecture: a function of its batch size and the table."""
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
        snapshots = tuple(sorted({*rungs, *(step for step in late if step)}))
        return cls(
            n_steps=length.n_steps,
            cycles=cycles,
            rungs=rungs,
            snapshots=snapshots,
            n_batches=length.n_batches,
            n_parts=n_parts(n_rows, total, batch_size),
        )
