"""Which trials of a cohort are trained on from a rung."""

from __future__ import annotations

import math
from collections.abc import Sequence

EARLIEST = 0.15  # share of the schedule before which ranks say too little
KEPT = (0.5, 0.75)  # share of a cohort that goes on from the first and later halvings
LEAST = 3  # trials that always go on


def is_halving(share: float) -> bool:
    """Whether weak trials are dropped at a share of the schedule.

    Ranks after a fifteenth of the schedule agree with the final ones no better than
    chance on tables that overfit; from a fifth on they were safe on each of nine.
    """
    return EARLIEST <= share < 1.0


def survivors(
    values: Sequence[float],
    is_kept: Sequence[bool],
    n_before: int,
    seconds: Sequence[float] | None = None,
    seconds_left: float = math.inf,
    seconds_spent: float = 0.0,
    seconds_each: float = math.inf,
) -> list[int]:
    """Places of the trials that go on, in order.

    Parameters
    ----------
    values : sequence of float
        What the trials are ranked by, greater is better.
    is_kept : sequence of bool
        Trials that go on whatever their value, where there is time for them.
    n_before : int
        Halvings before this one.
    seconds : sequence of float or None, default=None
        What each still needs to its end.
    seconds_left : float, default=inf
        What there is for all of them: as many go on as can end, the best first. A
        training that is cut is not annealed, and worth little. Where none can, the best
        one goes on.
    seconds_spent : float, default=0
        What the cohort has cost. Where nothing like another one would end in time,
        this one is the last, and all of it goes on that can end.
    seconds_each : float, default=inf
        What there is for each: many workers do not end one training sooner.

    References
    ----------
    Jamieson, Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter
    Optimization. arXiv:1502.07943 (successive halving).
    """
    share = KEPT[min(n_before, len(KEPT) - 1)]
    n_kept = max(LEAST, math.ceil(share * len(values)))
    needs = list(seconds) if seconds is not None else [0.0] * len(values)
    by_value = sorted(range(len(values)), key=lambda place: -values[place])
    chosen = {j for j, kept in enumerate(is_kept) if kept} | set(by_value[:n_kept])
    another = seconds_spent + sum(needs[place] for place in chosen)
    if seconds_left < 2 * another - seconds_spent:
        chosen = set(range(len(values)))
    in_time: list[int] = []
    for place in (place for place in by_value if place in chosen):
        needed = sum(needs[other] for other in [*in_time, place])
        # One alone is no matter of how evenly workers are busy.
        is_in_time = not in_time or needed <= seconds_left
        if is_in_time and needs[place] <= seconds_each:
            in_time.append(place)
    return sorted(in_time or by_value[:1])
