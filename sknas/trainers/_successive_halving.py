"""A cohort: proposals that are trained side by side, from rung to rung."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from sknas._history import IN_HALVES, INTERRUPTED, OUT_OF_TIME, RESCORE, Proposal, Trial
from sknas._parallel.run import count_useful_workers, run_tasks
from sknas._problem import Problem
from sknas._training.isolation import failure_reason
from sknas.exceptions import CheckpointError
from sknas.spaces import Space
from sknas.trainers._base import Trainer
from sknas.trainers._group import TrialState, Unit, stopped
from sknas.trainers._schedule import Schedule
from sknas.trainers._skorch_net import TensorNet

EVEN_SHARE = 0.85  # of the time of all workers that they are busy
Schedules = dict[int, Schedule]  # by the number of the proposal


class CohortTrainer(Trainer):
    """What trainers that halve a cohort share: the way from rung to rung.

    Proposals are dealt into units of work. All units are trained up to a rung, a point
    of the schedule where learning rates are zero; there the weaker trials are dropped,
    the others go on from where they are.

    Parameters
    ----------
    halving : bool, default=True
        Whether weaker trials are dropped on the way.

    References
    ----------
    Jamieson, Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter
    Optimization. arXiv:1502.07943 (successive halving).
    """

    def __init__(self, halving: bool = True) -> None:
        self.halving = halving

    def setup(self, space: Space) -> None:
        self.space_: Any = space

    @property
    @abstractmethod
    def _advance(self) -> Callable[..., list[Any]]:
        """Trains (unit, space, problem, plan, rung); a function of a module."""

    @abstractmethod
    def _units(
        self, proposals: Sequence[Proposal], problem: Problem, schedules: Schedules
    ) -> list[Any]:
        """Proposals in units of work."""

    @abstractmethod
    def _seconds(
        self, unit: Any, schedule: Schedule, n_steps: int, problem: Problem
    ) -> float:
        """About how long a unit takes for some steps, in one process."""

    @abstractmethod
    def rebuilt(self, trial: Trial, problem: Problem) -> tuple[TensorNet, ...]:
        """The network of each fold of a trial, ready to predict."""

    def _regrouped(
        self, units: list[Any], problem: Problem, schedules: Schedules
    ) -> list[Any]:
        """Units from which members were dropped, in an order that pays."""
        return units

    def train(self, proposals: Sequence[Proposal], problem: Problem) -> list[Trial]:
        if not proposals:
            return []
        schedules = {p.number: Schedule.of(p.architecture, problem) for p in proposals}
        units = self._units(proposals, problem, schedules)
        n_rungs = max(len(schedule.rungs) for schedule in schedules.values())
        done: dict[int, TrialState] = {}
        n_halvings = 0
        for rung in range(n_rungs):
            units = self._advance_all(units, problem, schedules, rung)
            is_over = rung == n_rungs - 1 or _must_stop(units, problem)
            units, dropped = _without_failures(units)
            if is_over:
                left = [member for unit in units for member in unit.members]
                is_cut = any(member.reason == INTERRUPTED for member in dropped)
                # What came far enough beside them is not at its end, either.
                dropped += [
                    replace(m, reason=INTERRUPTED) if is_cut else m for m in left
                ]
                units = []
            elif self.halving and is_halving(_share(rung, schedules)):
                units, weaker = _halved(units, n_halvings, problem, schedules)
                dropped += weaker
                n_halvings += 1
            for member in dropped:
                done[member.proposal.number] = member
                problem.report(_trial(member, schedules, problem))
            if not units:
                break
            units = self._regrouped(units, problem, schedules)
        return [_trial(done[p.number], schedules, problem) for p in proposals]

    def _advance_all(
        self, units: list[Any], problem: Problem, schedules: Schedules, rung: int
    ) -> list[Any]:
        """All units a rung further, the longest work first.

        Where the time is bounded the default network goes before all others, so that
        there is an answer as early as can be. What the journal holds is done already.
        """

        def schedule(unit: Unit) -> Schedule:
            return schedules[unit.members[0].proposal.number]

        def seconds(unit: Unit, rung: int) -> float:
            n_steps = schedule(unit).rungs[rung] - unit.step
            return self._seconds(unit, schedule(unit), n_steps, problem)

        own_rung = {id(u): min(rung, len(schedule(u).rungs) - 1) for u in units}
        work = {id(unit): seconds(unit, own_rung[id(unit)]) for unit in units}
        # Workers that start now serve the later rungs, too.
        to_the_end = sum(seconds(unit, -1) for unit in units)

        def order(unit: Unit) -> tuple[bool, float]:
            has_default = any(m.proposal.origin == "default" for m in unit.members)
            return not (has_default and problem.deadline), -work[id(unit)]

        by_work = {_key(u, own_rung[id(u)]): u for u in sorted(units, key=order)}
        done = {key: problem.store.get(key) for key in by_work}
        left = {key: unit for key, unit in by_work.items() if done[key] is None}
        tasks = [
            (self._advance, unit, self.space_, schedule(unit), own_rung[id(unit)])
            for unit in left.values()
        ]
        done |= self._done(left, tasks, problem, to_the_end)
        return [part for parts in done.values() for part in parts]

    def _done(
        self, left: dict[str, Any], tasks: list[Any], problem: Problem, seconds: float
    ) -> dict[str, list[Any]]:
        """What becomes of units, by their keys; each is kept as soon as it is done."""
        done: dict[str, list[Any]] = {}
        reason = INTERRUPTED
        try:
            results = run_tasks(_advanced, tasks, problem, seconds)
            for key, parts in zip(left, results, strict=False):
                if isinstance(parts, str):  # why there is none
                    done[key] = [stopped(left[key], parts)]
                    continue
                done[key] = parts
                reasons = {m.reason for part in parts for m in part.members}
                if not reasons & {INTERRUPTED, OUT_OF_TIME}:
                    problem.store.put(key, parts)
                if INTERRUPTED in reasons:
                    break
        except KeyboardInterrupt:
            pass
        except CheckpointError:
            raise
        except Exception as error:  # of workers that could not be started
            reason = failure_reason(error)
        ends = {key: [stopped(unit, reason)] for key, unit in left.items()}
        return ends | done


def _advanced(
    problem: Problem,
    advance: Any,
    unit: Any,
    space: Space,
    schedule: Schedule,
    rung: int,
) -> Any:
    """What a worker is asked for."""
    return advance(unit, space, problem, schedule, rung)


def _key(unit: Unit, rung: int) -> str:
    """Names what a unit is at the end of a rung."""
    numbers = ",".join(str(member.proposal.number) for member in unit.members)
    return f"cohort:{rung}:{numbers}"


def _trial(member: TrialState, schedules: Schedules, problem: Problem) -> Trial:
    """What came of a member."""
    schedule = schedules[member.proposal.number]
    n_folds = len(problem.folds)
    told: dict[str, Any] = {
        "fold_seconds": (member.seconds / n_folds,) * n_folds,
        "seconds": member.seconds,
    }
    best = member.best
    if best is None or not member.rung_scores:
        is_stopped = member.reason in (OUT_OF_TIME, INTERRUPTED)
        status = "stopped" if is_stopped else "failed"
        reason = member.reason or _why_unscored(problem)
        return Trial(member.proposal, status=status, reason=reason, **told)
    return Trial(
        replace(member.proposal, rung=len(member.rung_scores) - 1),
        score=best.score,
        loss=best.loss,
        fold_scores=best.fold_scores,
        stop=best.share,
        n_epochs=-(-best.step // schedule.n_batches),
        n_params=best.n_params,
        rung_scores=member.rung_scores,
        predictions=best.predictions,
        networks=best.networks,
        reason=_what_was_unusual(member),
        **told,
    )


def _what_was_unusual(member: TrialState) -> str:
    """The reason of a trial with a score."""
    # A search has to hear of Ctrl-C, though a score is there from the rung before.
    if member.reason == INTERRUPTED:
        return INTERRUPTED
    return IN_HALVES if member.is_halved else ""


def _why_unscored(problem: Problem) -> str:
    why = getattr(problem.score, "reason", "") or "the scorer returned NaN"
    return f"no score: {why.rstrip('.')}"


def _share(rung: int, schedules: Schedules) -> float:
    """Share of the schedule at a rung; about the same for all plans."""
    shares = [
        p.rungs[min(rung, len(p.rungs) - 1)] / p.n_steps for p in schedules.values()
    ]
    return min(shares)


def _must_stop(units: list[Any], problem: Problem) -> bool:
    """Whether units were cut by the clock or the user, not by a fault of their own."""
    reasons = {member.reason for unit in units for member in unit.members}
    return problem.seconds_left <= 0 or bool(reasons & {OUT_OF_TIME, INTERRUPTED})


def _halved(
    units: list[Any], n_halvings: int, problem: Problem, schedules: Schedules
) -> tuple[list[Any], list[TrialState]]:
    """Units with the better members, and the members that were dropped."""
    members = [member for unit in units for member in unit.members]
    # The default network is in the comparison as long as time lasts, and a second score
    # is no race.
    is_kept = [member.proposal.origin in ("default", RESCORE) for member in members]
    needed = [
        member.seconds * (schedules[member.proposal.number].n_steps / unit.step - 1)
        for unit in units
        for member in unit.members
    ]
    each = problem.seconds_left
    of_all = EVEN_SHARE * each * count_useful_workers(problem, len(members))
    values = [member.value for member in members]
    spent = sum(member.seconds for member in members)
    key = f"cohort:kept:{min(schedules)}:{n_halvings}"
    kept = problem.store.get(key)
    if kept is None:  # the clock has a say in it
        kept = survivors(values, is_kept, n_halvings, needed, of_all, spent, each)
        problem.store.put(key, kept)
    left, at = [], 0
    for unit in units:
        places = [j for j in range(len(unit.members)) if at + j in kept]
        at += len(unit.members)
        if places:
            left.append(unit.kept(places))
    return left, [member for j, member in enumerate(members) if j not in kept]


def _without_failures(units: list[Any]) -> tuple[list[Any], list[TrialState]]:
    """Units of what can go on, and the members that diverged."""
    left, failed = [], []
    for unit in units:
        sound = [j for j, member in enumerate(unit.members) if not member.reason]
        failed += [member for member in unit.members if member.reason]
        if sound:
            left.append(unit.kept(sound) if len(sound) < len(unit.members) else unit)
    return left, failed


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
