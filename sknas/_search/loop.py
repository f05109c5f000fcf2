"""The loop of a search: propose, train, record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from sknas._history import (
    INTERRUPTED,
    RESCORE,
    UNDEFINED,
    Architecture,
    History,
    Proposal,
    Trial,
)
from sknas._parallel.run import count_useful_workers
from sknas._problem import Problem, TaskSpec
from sknas._resolve import _copied
from sknas.spaces import Space, UnseenSampler
from sknas.strategies import Strategy
from sknas.trainers import Trainer

MAX_REPEATS = 10  # batches of nothing new after which a strategy is done
N_KEPT = 25  # best trials whose predictions are kept, for an ensemble
N_REEVALUATED = 5  # architectures scored again where scores are noisy
REEVALUATION_SHARE = 0.15  # of the time, or of the trials of an estimator, for that


class Search:
    """One search, of a strategy with a trainer: the only loop there is.

    Parameters
    ----------
    space : Space
        Where to search.
    strategy : Strategy
        Proposes; a clone of it does the work.
    trainer : Trainer
        Scores; a clone of it does the work.
    problem : Problem
        What both may know.
    seed : int
        Seeds the strategy and each trial.
    max_trials : int or None
        Trials to make.
    deadline : callable
        History so far -> end of the search on the monotonic clock, or None.
    on_trials : callable, default=None
        Called with the history whenever trials were added.
    n_proposals : int or None, default=None
        Proposals asked for at once; None for as many as the trainer likes.
    n_reevaluated : int, default=0
        Architectures that are scored once more at the end, by a fresh seed.
    earlier : History, default=History()
        Trials of a search that this one goes on with; `max_trials` counts them.
    """

    def __init__(
        self,
        *,
        space: Space,
        strategy: Strategy,
        trainer: Trainer,
        problem: Problem,
        seed: int,
        max_trials: int | None,
        deadline: Callable[[History], float | None],
        on_trials: Callable[[History], None] | None = None,
        n_proposals: int | None = None,
        n_reevaluated: int = 0,
        previous: History = History(),  # noqa: B008 - it is frozen
    ) -> None:
        self.space = space
        space.check()
        self.strategy = _copied("strategy", strategy)
        self.trainer = _copied("trainer", trainer)
        self.problem = problem
        self.seed = seed
        self.max_trials = max_trials
        self.deadline = deadline
        self.on_trials = on_trials
        self.n_proposals = (
            self.trainer.n_proposals if n_proposals is None else n_proposals
        )
        self.n_reevaluated = n_reevaluated
        self.store = problem.store
        self.previous = replace(previous, stop_reason="")
        self._seen: set[str] = set()
        self._n_batches = 0

    def run(self, first: Sequence[Proposal] = ()) -> History:
        """Search until a bound is met; Ctrl-C ends it too.

        What the journal of the problem holds is not done again: the strategy is asked
        and told as it was, and comes to the state that it had.

        Parameters
        ----------
        first : sequence of Proposal
            What to train before the strategy is asked.
        """
        history = self.previous
        self.begun = time.monotonic() - self.store.seconds
        try:
            # Not the same draws again where trials are there already.
            seed = [self.seed, len(history)] if len(history) else self.seed
            rng = np.random.default_rng(seed)
            self.strategy.setup(self.space, self.problem, rng)
            self.trainer.setup(self.space)
            self._seen = {trial.architecture.key for trial in history}
            if len(history):
                self.strategy.observe([trial.without_arrays() for trial in history])
            n = self.n_proposals
            queue = [list(first[at : at + n]) for at in range(0, len(first), n)]
            while not history.stop_reason:
                history = self._advance(history, queue)
            history = self._reevaluated(history)
        except KeyboardInterrupt:
            history = replace(history, stop_reason=INTERRUPTED)
        return history

    def _advance(self, history: History, queue: list[list[Proposal]]) -> History:
        """One batch more, or the reason why there is none."""
        stop_reason = self.store.get(f"end:{self._n_batches}")
        if stop_reason is not None:
            return replace(history, stop_reason=stop_reason)
        batch = self.store.get(self._batch_key)
        deadline = self._end_of_search(history)
        left = np.inf if self.max_trials is None else self.max_trials - len(history)
        if batch is None and left <= 0:
            return self._ended(history, "max_trials")
        if batch is None and deadline is not None and time.monotonic() >= deadline:
            return self._ended(history, "max_time")
        n = self.n_proposals
        if queue:
            first = queue.pop(0)
            if deadline is not None and not self.strategy.needs_initial_design:
                # Time is short: no worker waits for the default one to be trained.
                first += self._beside(int(min(n, left)) - len(first))
            new = self._numbered(first, history, left)
            if not new:  # all of them were tried before
                return history
        else:
            n = batch["n"] if batch else self._n_in_time(history, deadline)
            if not n:
                return self._ended(history, "max_time")
            new = self._proposed(history, int(min(n, left)))
            if not new and batch is None:
                return self._ended(history, self._end_of_proposals())
        return self._trained(new, history, deadline, self.problem, n)

    def _beside(self, n: int) -> list[Proposal]:
        """What a strategy proposes before it has heard of a trial."""
        return self.strategy.propose(n) if n > 0 else []

    @property
    def _batch_key(self) -> str:
        return f"batch:{self._n_batches}"

    def _ended(self, history: History, stop_reason: str) -> History:
        """The history with the reason why the search is over."""
        self.store.put(f"end:{self._n_batches}", stop_reason)
        return replace(history, stop_reason=stop_reason)

    def _end_of_search(self, history: History) -> float | None:
        """The deadline, less the time in which leaders are scored again."""
        deadline = self.deadline(history)
        if deadline is None or not self.n_reevaluated or len(history.succeeded) < 2:
            return deadline
        return deadline - REEVALUATION_SHARE * (deadline - self.begun)

    def _reevaluated(self, history: History) -> History:
        """The history with new scores of its leaders: the best one had luck, too."""
        top_k = self._top_k(history)
        for at in range(0, len(top_k), self.n_proposals):
            deadline = self.deadline(history)
            is_late = deadline is not None and time.monotonic() >= deadline
            if is_late and self.store.get(self._batch_key) is None:
                break
            first = _next_number(history)
            proposals = [
                Proposal(a, origin=RESCORE, number=number, seed=self._seed_of(number))
                for number, a in enumerate(
                    top_k[at : at + self.n_proposals], start=first
                )
            ]
            # Other rows in a batch and other units dropped, not other weights alone.
            again = replace(self.problem, seed=self._seed_of(first))
            history = self._trained(proposals, history, deadline, again)
            if history.stop_reason == INTERRUPTED:
                break
        return history

    def _top_k(self, history: History) -> list[Architecture]:
        """What to score again: the best of the highest rung, if there are two."""
        if not self.n_reevaluated or history.stop_reason == INTERRUPTED:
            return []
        scored = history.succeeded
        top = [t for t in scored if t.proposal.rung == scored[0].proposal.rung]
        if len(top) < 2:
            return []
        ranked = {t.architecture.key: t.architecture for t in self.strategy.rank(top)}
        return list(ranked.values())[: self.n_reevaluated]

    def _trained(
        self,
        proposals: list[Proposal],
        history: History,
        deadline: float | None,
        problem: Problem,
        n: int = 0,
    ) -> History:
        """The history with what came of some proposals, of `n` that were asked for."""
        number, key = self._n_batches, self._batch_key
        batch = self.store.get(key)
        if batch is None:
            self.store.put(key, {"n": n, "proposals": proposals})
        else:  # what depended on the clock is as it was
            proposals = batch["proposals"]
            self._seen |= {proposal.architecture.key for proposal in proposals}
        self._n_batches += 1
        known = self._known(number)
        trials = known or self._train(proposals, history, deadline, problem)
        self.strategy.observe([trial.without_arrays() for trial in trials])
        # A trial that was never begun is none.
        begun = [
            trial for trial in trials if trial.status != "stopped" or trial.seconds
        ]
        is_interrupted = any(trial.reason == INTERRUPTED for trial in trials)
        history = history.extended(begun)
        if not known and not is_interrupted:  # a search begun again goes on with these
            self._keep_all(number, begun)
        kept = history.without_predictions(N_KEPT)
        for before, after in zip(history, kept, strict=True):
            if before.networks is not None and after.networks is None:
                self.store.drop(f"networks:{before.proposal.number}")
        self._report(kept, [])
        return replace(kept, stop_reason=INTERRUPTED) if is_interrupted else kept

    def _train(
        self,
        proposals: list[Proposal],
        history: History,
        deadline: float | None,
        problem: Problem,
    ) -> list[Trial]:
        """What came of some proposals; no number is no score."""
        report = partial(self._report, history, [])
        problem = replace(problem, deadline=deadline, report=report)
        trials = [checked(trial) for trial in self.trainer.train(proposals, problem)]
        if len(trials) != len(proposals):
            raise RuntimeError(
                f"{type(self.trainer).__name__}.train must return a trial for each of "
                f"{len(proposals)} proposals, it returned {len(trials)}."
            )
        return trials

    def _keep(self, trial: Trial) -> None:
        """Write a trial down, its networks and predictions first."""
        number = trial.proposal.number
        is_begun = trial.status != "stopped" or trial.seconds
        if trial.reason == INTERRUPTED or not is_begun:
            return
        if self.store.get(f"trial:{number}") == trial.without_arrays():
            return
        if trial.networks is not None or trial.predictions is not None:
            told = {"networks": trial.networks, "predictions": trial.predictions}
            self.store.put(f"networks:{number}", told)
        self.store.put(f"trial:{number}", trial.without_arrays())

    def _keep_all(self, number: int, trials: list[Trial]) -> None:
        """Write a batch down; what its trainer kept on the way is not needed then."""
        for trial in trials:
            self._keep(trial)
        numbers = [trial.proposal.number for trial in trials]
        self.store.put(f"done:{number}", numbers)
        self.store.drop("cohort")

    def _known(self, number: int) -> list[Trial]:
        """The trials of a batch that was done before, with the networks still kept."""
        trials = []
        for trial_number in self.store.get(f"done:{number}") or ():
            trial = self.store.get(f"trial:{trial_number}")
            kept = self.store.get(f"networks:{trial_number}") or {}
            trials.append(replace(trial, **kept))
        return trials

    def _n_in_time(self, history: History, deadline: float | None) -> int:
        """Proposals to ask for: fewer where the time that is left is short."""
        times = [t.seconds for t in history.succeeded if t.seconds]
        if deadline is None or not times or not self.trainer.is_cut:
            return self.n_proposals
        # Those of the highest rung stand first; a training that is cut is worth little.
        usual = float(np.mean(times[: self.n_proposals // 2 or 1]))
        n_workers = count_useful_workers(self.problem, self.n_proposals)
        there_is = (deadline - time.monotonic()) * n_workers
        return int(np.clip(there_is / usual, 0, self.n_proposals))

    def _report(self, history: History, batch: list[Trial], *done: Trial) -> None:
        """Tell what is done: the history, and the trials of the batch under way."""
        for trial in done:
            self._keep(checked(trial))  # on disk before it is told
        batch.extend(done)
        if self.on_trials is not None:
            self.on_trials(history.extended(batch))

    def _proposed(self, history: History, n: int) -> list[Proposal]:
        """What the strategy proposes that may be trained; empty if that is over."""
        for _ in range(MAX_REPEATS):
            batch = self.strategy.propose(n)
            new = self._numbered(batch, history, n)
            if new or not batch:
                return new
        return []

    def _end_of_proposals(self) -> str:
        feasible = self.problem.feasible
        rest = UnseenSampler(self.space, feasible, np.random.default_rng(self.seed))
        rest.mark_keys(self._seen)
        return "space_exhausted" if rest.is_over() else "strategy_done"

    def _numbered(
        self, batch: Sequence[Proposal], history: History, most: float
    ) -> list[Proposal]:
        """Those of a batch that are new and feasible, with number and seed."""
        new: list[Proposal] = []
        first = _next_number(history)
        for proposal in batch:
            architecture = proposal.architecture
            is_new = architecture.key not in self._seen and len(new) < most
            if not is_new or not self.problem.feasible(architecture):
                continue
            self._seen.add(architecture.key)
            number = first + len(new)
            seed = self._seed_of(number)
            new.append(replace(proposal, number=number, seed=seed))
        return new

    def _seed_of(self, number: int) -> int:
        """Depends on the place in the search alone, not on who trains it."""
        return int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])


def _not_begun(proposal: Proposal, reason: str) -> Trial:
    return Trial(proposal, status="stopped", reason=reason)


def _next_number(history: History) -> int:
    """One more than any so far: trials that were never begun leave gaps."""
    return 1 + max((trial.proposal.number for trial in history), default=-1)


def checked(trial: Trial) -> Trial:
    """A trial whose score is no number is a failed one, whoever trained it."""
    if trial.status != "ok" or (trial.score is not None and np.isfinite(trial.score)):
        return trial
    return replace(trial, status="failed", score=None, reason=UNDEFINED)


def initial_design(
    space: Space,
    task: TaskSpec | None,
    feasible: Callable[[Architecture], bool],
) -> list[Proposal]:
    """The default architecture and the known ones, as far as they are allowed."""
    architectures = space.portfolio(task)
    proposals = [
        Proposal(architecture, origin="known" if place else "default")
        for place, architecture in enumerate(architectures)
    ]
    return [p for p in proposals if feasible(p.architecture)]


def count_reevaluated(max_trials: int | None) -> int:
    """Leaders of an estimator's search to score again; one alone says nothing."""
    n = N_REEVALUATED if max_trials is None else int(REEVALUATION_SHARE * max_trials)
    return min(n, N_REEVALUATED) if n > 1 else 0
