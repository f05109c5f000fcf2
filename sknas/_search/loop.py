"""The loop of a search: propose, train, observe."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from sknas._history import (
    Architecture,
    Cause,
    History,
    Proposal,
    Status,
    StopReason,
    Trial,
)
from sknas._parallel.run import count_workers_in_time
from sknas._problem import Problem, RunContext
from sknas._resolve import copy_part
from sknas._search.proposals import next_number, trial_seed
from sknas._search.recorder import Recorder
from sknas._search.reevaluate import TIME_SHARE, rescore_proposals, top_k
from sknas.spaces import Space, UnseenSampler
from sknas.strategies import Strategy
from sknas.trainers import Trainer

MAX_REPEATS = 10  # batches in a row without a new architecture that end a search
N_TIMED = 20  # latest calls of the constraints whose seconds are averaged
N_WITH_NETWORKS = 25  # best trials whose networks and predictions are kept


class OutOfTimeError(Exception):
    """Raised in place of a call of the user's constraints after the deadline."""


class _TimedConstraints:
    """Constraints until the end of the search, and how long their calls take.

    A part of the search that does not refer to it: the strategy keeps them, and a
    search in a cycle would keep its networks until the garbage collector runs.
    """

    def __init__(
        self, feasible: Callable[[Architecture], bool], end: float | None
    ) -> None:
        self.feasible, self.end = feasible, end
        self.seconds: list[float] = []  # of the latest calls

    @property
    def is_late(self) -> bool:
        """True after the end of the search."""
        return self.end is not None and time.monotonic() >= self.end

    def __call__(self, architecture: Architecture) -> bool:
        """Return True if an architecture keeps the constraints.

        Raises
        ------
        OutOfTimeError
            After the end of the search: constraints may be slow.
        """
        if self.is_late:
            raise OutOfTimeError
        started = time.monotonic()
        is_feasible = self.feasible(architecture)
        seconds = time.monotonic() - started
        self.seconds = [*self.seconds[1 - N_TIMED :], seconds]
        return is_feasible


@dataclass(eq=False)
class Search:
    """A search: the strategy proposes, the trainer scores, a history records.

    Parameters
    ----------
    space : Space
        Where to search.
    strategy : Strategy
        Proposes; a copy is used.
    trainer : Trainer
        Scores; a copy is used.
    problem : Problem
        The data; its seed is that of the search.
    context : RunContext
        Device, time, workers and store.
    max_trials : int or None
        Maximum number of trials.
    deadline : callable
        History -> time on the monotonic clock at which to stop, or None.
    on_trials : callable or None, default=None
        Called with the history after each trial.
    n_proposals : int or None, default=None
        Proposals per batch; None for the number that the trainer asks for.
    n_reevaluated : int, default=0
        Architectures to score once more at the end.
    previous : History
        Trials of a previous search, to which new ones are added.
    """

    space: Space
    strategy: Strategy
    trainer: Trainer
    problem: Problem
    context: RunContext
    max_trials: int | None
    deadline: Callable[[History], float | None]
    on_trials: Callable[[History], None] | None = None
    n_proposals: int | None = None
    n_reevaluated: int = 0
    previous: History = field(default_factory=History)

    def __post_init__(self) -> None:
        self.space.check()
        self.strategy = copy_part("strategy", self.strategy)
        self.trainer = copy_part("trainer", self.trainer)
        self._cohort_size = self.n_proposals or self.trainer.n_proposals
        self._recorder = Recorder(self.context.store)
        # The loop moves the trainer's deadline before each batch.
        self._trainer_context = replace(self.context)
        self._seen = {trial.architecture.key for trial in self.previous}
        self._queue: list[list[Proposal]] = []  # the initial design, in batches
        self._feasible = _TimedConstraints(self.problem.feasible, self.context.deadline)

    def run(self, initial_design: Sequence[Proposal] = ()) -> History:
        """Search until a bound is met or the user presses Ctrl-C.

        Parameters
        ----------
        initial_design : sequence of Proposal
            Proposals to train before the strategy is asked; only the first one, if the
            strategy needs no initial design.
        """
        history = replace(self.previous, stop_reason=None)
        try:
            self._setup(initial_design)
            while history.stop_reason is None:
                size = self._recorder.size(partial(self._batch_size, history))
                if isinstance(size, StopReason):
                    history = replace(history, stop_reason=size)
                    continue
                proposals = self._recorder.proposals(size, self._propose(history, size))
                if proposals:
                    history = self._evaluate(proposals, history)
                else:
                    history = replace(history, stop_reason=self._end_of_proposals())
            history = self._reevaluate(history)
        except KeyboardInterrupt:
            history = replace(history, stop_reason=StopReason.INTERRUPTED)
        return history

    def _setup(self, initial_design: Sequence[Proposal]) -> None:
        """Set up the parts; the strategy observes the trials of a previous search."""
        self._started = time.monotonic() - self._recorder.seconds
        seed, n = self.problem.seed, len(self.previous)
        rng = np.random.default_rng([seed, n] if n else seed)
        self.strategy.attach(self.context)
        problem = replace(self.problem, feasible=self._feasible)
        self.strategy.setup(self.space, problem, rng)
        self.trainer.setup(self.space, self.problem, self._trainer_context)
        if n:
            self.strategy.observe([trial.without_arrays() for trial in self.previous])
        if not self.strategy.needs_initial_design:
            initial_design = initial_design[:1]
        starts = range(0, len(initial_design), self._cohort_size)
        batches = [list(initial_design[s : s + self._cohort_size]) for s in starts]
        self._queue = [batch for batch in batches if any(map(self._is_new, batch))]

    def _batch_size(self, history: History) -> int | StopReason:
        """Return the number of proposals to ask for, or the reason to stop."""
        if self._n_left(history) <= 0:
            return StopReason.MAX_TRIALS
        deadline = self._end_of_search(history)
        if deadline is not None and time.monotonic() >= deadline:
            return StopReason.MAX_TIME
        if self._queue:
            return self._cohort_size
        return self._n_in_time(history, deadline) or StopReason.MAX_TIME

    def _n_left(self, history: History) -> float:
        return np.inf if self.max_trials is None else self.max_trials - len(history)

    def _n_in_time(self, history: History, deadline: float | None) -> int:
        """Return the number of proposals, fewer if little time is left."""
        times = [t.seconds for t in history.succeeded if t.seconds]
        if deadline is None or not times or not self.trainer.truncates_trainings:
            return self._cohort_size
        # The trials are sorted by rung. Don't start one that would be truncated.
        mean = float(np.mean(times[: self._cohort_size // 2 or 1]))
        seconds_left = deadline - time.monotonic()
        context = replace(self._trainer_context, deadline=deadline)
        n_workers = count_workers_in_time(context, self._cohort_size)
        # Constraints are evaluated in this process, before the trainings.
        constraint = float(np.mean(self._feasible.seconds or [0.0]))
        n = seconds_left / (mean / n_workers + constraint)
        return int(np.clip(n, 0, self._cohort_size))

    def _end_of_search(self, history: History) -> float | None:
        """Return the deadline, less the time for re-evaluating the top k."""
        deadline = self.deadline(history)
        if deadline is None or not self.n_reevaluated or len(history.succeeded) < 2:
            return deadline
        return deadline - TIME_SHARE * (deadline - self._started)

    def _propose(self, history: History, size: int) -> list[Proposal]:
        """Return new proposals with numbers and seeds; none if there are no more."""
        n = int(min(size, self._n_left(history)))
        self._feasible.end = self._end_of_search(history)
        try:
            return self._propose_new(history, n)
        except OutOfTimeError:
            return []

    def _propose_new(self, history: History, n: int) -> list[Proposal]:
        """Return up to `n` new proposals, those of the initial design first."""
        while self._queue:
            batch = self._queue.pop(0)
            is_timed = self.deadline(history) is not None
            if is_timed and not self.strategy.needs_initial_design and len(batch) < n:
                # No worker should wait until the default one is trained.
                batch += self.strategy.propose(n - len(batch))
            if new := self._numbered(batch, history, n):
                return new
        for _ in range(MAX_REPEATS):
            batch = self.strategy.propose(n)
            new = self._numbered(batch, history, n)
            if new or not batch or self._feasible.is_late:
                return new
        return []

    def _end_of_proposals(self) -> StopReason:
        if self._feasible.is_late:
            return self._recorder.end(StopReason.MAX_TIME)
        rng = np.random.default_rng(self.problem.seed)
        rest = UnseenSampler(self.space, self._feasible, rng)
        rest.mark_keys(self._seen)
        try:
            is_over = rest.is_over()
            reason = StopReason.SPACE_EXHAUSTED if is_over else StopReason.STRATEGY_DONE
        except OutOfTimeError:
            reason = StopReason.MAX_TIME
        return self._recorder.end(reason)

    def _is_new(self, proposal: Proposal) -> bool:
        return proposal.architecture.key not in self._seen

    def _numbered(
        self, batch: Sequence[Proposal], history: History, n: int
    ) -> list[Proposal]:
        """Give numbers and seeds to at most `n` new and feasible proposals."""
        new: list[Proposal] = []
        first = next_number(history)
        for proposal in batch:
            architecture = proposal.architecture
            if len(new) == n or not self._is_new(proposal):
                continue
            if self._feasible(architecture):
                self._seen.add(architecture.key)
                number = first + len(new)
                seed = trial_seed(self.problem.seed, number)
                new.append(replace(proposal, number=number, seed=seed))
        return new

    def _evaluate(
        self,
        proposals: list[Proposal],
        history: History,
        deadline: Callable[[History], float | None] | None = None,
    ) -> History:
        """Train proposals and return the history with their trials."""
        self._seen |= {proposal.architecture.key for proposal in proposals}
        self._trainer_context.deadline = (deadline or self._end_of_search)(history)
        trials = self._recorder.trials(partial(self._train, proposals, history))
        with suppress(OutOfTimeError):  # the strategy is not asked again
            self.strategy.observe([trial.without_arrays() for trial in trials])
        # Trials that never started are not recorded.
        extended = history.extended(trial for trial in trials if trial.has_started)
        history = extended.without_predictions(N_WITH_NETWORKS)
        self._recorder.drop_networks(extended, history)
        self._report(history, [])
        if any(trial.cause == Cause.INTERRUPTED for trial in trials):
            return replace(history, stop_reason=StopReason.INTERRUPTED)
        return history

    def _train(self, proposals: list[Proposal], history: History) -> list[Trial]:
        self._trainer_context.report = partial(self._report, history, [])
        try:
            trials = [_checked(trial) for trial in self.trainer.train(proposals)]
        finally:  # a search that its trainer refers to is freed by the collector only
            self._trainer_context.report = self.context.report
        if len(trials) != len(proposals):
            raise RuntimeError(
                f"{type(self.trainer).__name__}.train must return a trial for each of "
                f"{len(proposals)} proposals, got {len(trials)}."
            )
        return trials

    def _report(self, history: History, batch: list[Trial], *done: Trial) -> None:
        """Keep trials of a batch that are done, and report the history with them."""
        for trial in done:
            self._recorder.keep(_checked(trial))  # on disk before it is reported
        batch.extend(done)
        if self.on_trials is not None:
            self.on_trials(history.extended(batch))

    def _reevaluate(self, history: History) -> History:
        """Score the top k once more with fresh seeds: the best score is partly luck."""
        best = top_k(self.strategy, history, self.n_reevaluated)
        for start in range(0, len(best), self._cohort_size):
            deadline = self.deadline(history)
            is_late = deadline is not None and time.monotonic() >= deadline
            if is_late and not self._recorder.is_replaying:
                break
            first = next_number(history)
            architectures = best[start : start + self._cohort_size]
            proposals = rescore_proposals(architectures, first, self.problem.seed)
            # Not only initial weights, but also batches and dropout masks differ.
            problem = replace(self.problem, seed=trial_seed(self.problem.seed, first))
            self._trainer_context.deadline = deadline
            self.trainer.setup(self.space, problem, self._trainer_context)
            proposals = self._recorder.proposals(0, proposals)
            history = self._evaluate(proposals, history, self.deadline)
            if history.stop_reason == StopReason.INTERRUPTED:
                break
        return history


def _checked(trial: Trial) -> Trial:
    """Return the trial, as a failed one if its score is not finite."""
    if trial.status != Status.OK or (
        trial.score is not None and np.isfinite(trial.score)
    ):
        return trial
    cause = Cause.UNDEFINED_SCORE
    return replace(
        trial, status=Status.FAILED, score=None, cause=cause, reason=cause.value
    )
