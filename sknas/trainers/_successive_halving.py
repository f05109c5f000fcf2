"""Successive halving: a cohort is trained from rung to rung, and shrinks on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from sknas._checkpoint import keys
from sknas._history import Cause, Fault, Origin, Trial
from sknas._parallel.run import count_workers_in_time
from sknas._problem import RunContext
from sknas.trainers._group import NetworkGroup, TrialState

PROMOTED_SHARES = (0.5, 0.75)  # share of a cohort promoted at the first and later rungs
MIN_PROMOTED = 3  # trials
MIN_SHARE = 0.15  # share of the schedule before which rankings say too little
EFFICIENCY = 0.85  # share of the time of parallel workers that they are busy

Groups = list[NetworkGroup]


def successive_halving(
    groups: Groups,
    advance: Callable[[Groups, int], Groups],
    n_folds: int,
    context: RunContext,
    *,
    halving: bool = True,
    regroup: Callable[[Groups], Groups] = list,
) -> dict[int, Trial]:
    """Train a cohort to its end, and drop weaker trials at the rungs.

    Parameters
    ----------
    groups : list of NetworkGroup
        The trials of the cohort.
    advance : callable
        (groups, rung) -> groups at that rung; it raises no errors.
    n_folds : int
        Folds of a trial.
    context : RunContext
        The deadline, the store, and the report of trials as soon as they end.
    halving : bool, default=True
        False to train all trials to the end.
    regroup : callable, default=list
        Rearranges groups that have shrunk.

    Returns
    -------
    dict of int to Trial
        All trials by their numbers.

    References
    ----------
    Jamieson, Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter
    Optimization. arXiv:1502.07943.
    """
    states = [state for group in groups for state in group.trials]
    schedules = {state.schedule for state in states}
    n_rungs = max((len(schedule.rungs) for schedule in schedules), default=0)
    trials: dict[int, Trial] = {}
    n_reductions = 0
    for rung in range(n_rungs):
        groups = advance(groups, rung)
        is_last = rung == n_rungs - 1 or _is_paused(groups, context)
        groups, dropped = _drop_faults(groups)
        if is_last:
            groups, dropped = [], [*dropped, *_finish(groups, dropped)]
        elif halving and is_reduced(min(s.share(rung) for s in schedules)):
            first = min(state.proposal.number for state in states)
            key = keys.promoted(first, n_reductions)
            groups, weaker = _reduce(groups, n_reductions, key, context)
            dropped += weaker
            n_reductions += 1
        for state in dropped:
            trial = trials[state.proposal.number] = state.to_trial(n_folds)
            context.report(trial)
        groups = regroup(groups)
        if not groups:
            break
    return trials


def _is_paused(groups: Groups, context: RunContext) -> bool:
    """Return True if the deadline or the user has ended the training."""
    faults = [state.fault for group in groups for state in group.trials]
    return context.seconds_left <= 0 or any(f and f.is_pause for f in faults)


def _drop_faults(groups: Groups) -> tuple[Groups, list[TrialState]]:
    """Return groups of the trials without a fault, and the other trials."""
    left, dropped = [], []
    for group in groups:
        sound = [j for j, state in enumerate(group.trials) if state.fault is None]
        dropped += [state for state in group.trials if state.fault is not None]
        if sound:
            left.append(group.take(sound))
    return left, dropped


def _finish(groups: Groups, dropped: list[TrialState]) -> list[TrialState]:
    """Return the trials that reached the last rung of the cohort."""
    states = [state for group in groups for state in group.trials]
    if not any(state.is_interrupted for state in dropped):
        return states
    # Trials that reached this rung next to an interrupted one are unfinished, too.
    return [replace(state, fault=Fault(Cause.INTERRUPTED)) for state in states]


def _reduce(
    groups: Groups, n_reductions: int, key: str, context: RunContext
) -> tuple[Groups, list[TrialState]]:
    """Return groups of the promoted trials, and the trials that are dropped."""
    pairs = [(state, group.step) for group in groups for state in group.trials]
    states = [state for state, _ in pairs]
    seconds_left = context.seconds_left
    n_workers = count_workers_in_time(context, len(states))
    # The choice depends on the clock: a search that is resumed makes it only once.
    promoted = context.store.setdefault(
        key,
        promote(
            [state.value for state in states],
            # The default stays in the comparison, and a re-evaluation is no contest.
            [s.proposal.origin in (Origin.DEFAULT, Origin.RESCORE) for s in states],
            n_reductions,
            [s.seconds * (s.schedule.n_steps / step - 1) for s, step in pairs],
            EFFICIENCY * seconds_left * n_workers,
            sum(state.seconds for state in states),
            seconds_left,
        ),
    )
    left, start = [], 0
    for group in groups:
        indices = [j for j in range(len(group.trials)) if start + j in promoted]
        start += len(group.trials)
        if indices:
            left.append(group.take(indices))
    return left, [state for j, state in enumerate(states) if j not in promoted]


def is_reduced(share: float) -> bool:
    """Return True if weaker trials are dropped after a share of the schedule.

    On tables that overfit, rankings after a fifteenth of the schedule agree with the
    final ones no better than chance; from a fifth on they were safe on each of nine.
    """
    return MIN_SHARE <= share < 1.0


def promote(
    values: Sequence[float],
    is_protected: Sequence[bool],
    n_reductions: int,
    seconds: Sequence[float] | None = None,
    seconds_left: float = math.inf,
    seconds_spent: float = 0.0,
    seconds_each: float = math.inf,
) -> list[int]:
    """Return the indices of the promoted trials, in order.

    As many trials are promoted as can end in time, the best first: a truncated training
    is not annealed, and worth little. If none can, the best one is promoted.

    Parameters
    ----------
    values : sequence of float
        Values that rank the trials, greater is better.
    is_protected : sequence of bool
        True for trials that are promoted whatever their value, if there is time.
    n_reductions : int
        Earlier reductions of the cohort.
    seconds : sequence of float or None, default=None
        Seconds that each trial needs to its end; None for 0.
    seconds_left : float, default=inf
        Seconds that all workers together have left.
    seconds_spent : float, default=0
        Seconds that the cohort has taken. If no other cohort like it would end in time,
        it is the last one, and every trial is promoted that can end.
    seconds_each : float, default=inf
        Seconds left for a single trial, which has only one worker.
    """
    share = PROMOTED_SHARES[min(n_reductions, len(PROMOTED_SHARES) - 1)]
    n_promoted = max(MIN_PROMOTED, math.ceil(share * len(values)))
    needs = list(seconds) if seconds is not None else [0.0] * len(values)
    ranked = sorted(range(len(values)), key=lambda j: -values[j])
    chosen = {j for j, is_safe in enumerate(is_protected) if is_safe}
    chosen |= set(ranked[:n_promoted])
    another = seconds_spent + sum(needs[j] for j in chosen)
    if seconds_left < 2 * another - seconds_spent:
        chosen = set(range(len(values)))
    promoted: list[int] = []
    for j in (j for j in ranked if j in chosen):
        needed = sum(needs[i] for i in [*promoted, j])
        # A single training does not depend on how evenly workers are busy.
        is_in_time = not promoted or needed <= seconds_left
        if is_in_time and needs[j] <= seconds_each:
            promoted.append(j)
    return sorted(promoted or ranked[:1])
