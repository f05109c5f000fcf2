"""Build an ensemble of the networks of the folds, or of networks of all rows."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sklearn.base import clone

from sknas._ensemble.predictor import Ensemble
from sknas._ensemble.refit import build_from_folds, refit, refit_seconds
from sknas._ensemble.selection import Selection, choose_members
from sknas._history import (
    Cause,
    History,
    Proposal,
    Status,
    StopReason,
    Trial,
    count_reasons,
)
from sknas._problem import Problem, RunContext
from sknas._resolve import Parts
from sknas._validation import warn_user
from sknas.exceptions import SearchFailedError

DEFAULT_SIZE = 8  # maximum number of architectures in an ensemble
MIN_FOLD_SHARE = 0.6  # share of rows that each fold must train on, to skip the refit
FIRST_SHARE = 0.75  # share of the time for a search without a scored trial yet
OTHERS_SHARE = 0.2  # share of the time, at most, to refit members after the first
SELECTION_SHARE = 0.04  # share of the time to select and weight members
MARGIN = 0.2  # seconds between the end of the search and the refit


@dataclass(frozen=True, eq=False)
class EnsembleBuilder:
    """Builds the ensemble of a search, and reserves the time for it.

    Parameters
    ----------
    size : int or None
        Maximum number of members; None for `DEFAULT_SIZE`.
    max_time : float or None
        Seconds of the whole fit.
    parts : Parts
        The trainer of the fold networks, and the space that builds networks.
    problem : Problem
        The folds, and all rows.
    context : RunContext
        The device, the workers, and the time that is left.
    """

    size: int | None
    max_time: float | None
    parts: Parts
    problem: Problem
    context: RunContext

    @property
    def n_members(self) -> int:
        """Maximum number of members."""
        return DEFAULT_SIZE if self.size is None else int(self.size)

    @property
    def uses_folds(self) -> bool:
        """True if the networks of the folds are the ensemble, without a refit.

        Each was trained on most rows, and their mean is better than one network that
        was trained on all.
        """
        if self.n_members == 1 or not self.parts.trainer.keeps_networks:
            return False
        full, folds = self.problem.full, self.problem.folds
        total = full.train.weight.sum() if full else 0.0
        return all(f.train.weight.sum() >= MIN_FOLD_SHARE * total for f in folds)

    def search_deadline(self, history: History) -> float | None:
        """Return when to stop searching, so that the ensemble is ready in time."""
        deadline, max_time = self.context.deadline, self.max_time
        if deadline is None or max_time is None:
            return None
        if self.uses_folds:
            best = history.succeeded[:1]
            building = sum(trial.build_seconds for trial in best)
            return deadline - MARGIN - SELECTION_SHARE * max_time - building
        if not history.succeeded:
            return deadline - (1 - FIRST_SHARE) * max_time
        best = history.succeeded[: self.n_members]
        first, *others = (1.2 * refit_seconds(trial) for trial in best)
        # The first member is needed; the others are worth some of the search.
        others_time = min(sum(others) / self.context.n_jobs, OTHERS_SHARE * max_time)
        return deadline - MARGIN - min(first, 0.5 * max_time) - others_time

    def build(self, history: History, best: Trial) -> tuple[Ensemble, bool]:
        """Return the ensemble, and True if Ctrl-C interrupted its building.

        Parameters
        ----------
        history : History
            All trials; those that succeeded carry predictions.
        best : Trial
            The only member if no trial succeeded.
        """
        selection, is_interrupted = Selection((best,)), False
        try:
            if history.succeeded:
                selection = choose_members(
                    history, self.problem, self.n_members, self.context.seconds_left
                )
        except KeyboardInterrupt:
            is_interrupted = True
        if self.uses_folds and selection.has_networks:
            try:
                return self._from_folds(selection), is_interrupted
            except KeyboardInterrupt:  # building is quick: do it again
                return self._from_folds(selection), True
        chosen = {trial.proposal.number for trial in selection.trials}
        fallbacks = [t for t in history.succeeded if t.proposal.number not in chosen]
        space = self.parts.space
        result = refit(selection, fallbacks, space, self.problem, self.context)
        if result.failures:
            reasons = "; ".join(result.failures)
            warn_user(f"Some networks could not be trained on all rows: {reasons}.")
        return result.ensemble, is_interrupted or result.is_interrupted

    def _from_folds(self, selection: Selection) -> Ensemble:
        trainer = clone(self.parts.trainer)
        trainer.setup(self.parts.space, self.problem, self.context)
        return build_from_folds(selection, trainer, self.problem, self.context)


def fit_deadline(started: float, max_time: float | None) -> float | None:
    """Return the end of a fit on the monotonic clock.

    A search that is resumed after its time was over can still build its ensemble.
    """
    if max_time is None:
        return None
    reserve = MARGIN + SELECTION_SHARE * max_time
    return max(started + max_time, time.monotonic() + reserve)


def best_trial(
    history: History,
    initial_design: list[Proposal],
    max_time: float | None,
    failure: str = "",
) -> Trial:
    """Return the best trial, or one without a score if the time was too short.

    Parameters
    ----------
    history : History
        All trials.
    initial_design : list of Proposal
        The default architecture and known ones that are feasible.
    max_time : float or None
        Seconds of the whole fit.
    failure : str, default=""
        The error of a function of constraints that never succeeded.

    Raises
    ------
    SearchFailedError
        If all trials failed, or no architecture is feasible.
    KeyboardInterrupt
        If the user ended the search before any trial had a score.
    """
    if history.succeeded:
        _warn_of_failures(history)
        return history.best
    if history.stop_reason == StopReason.INTERRUPTED:
        raise KeyboardInterrupt
    if any(trial.status == Status.FAILED for trial in history):
        raise SearchFailedError(
            f"None of {len(history)} trials succeeded, {count_reasons(history)}."
        )
    proposals = [trial.proposal for trial in history] or initial_design
    is_late = history.stop_reason == StopReason.MAX_TIME
    is_late |= any(trial.cause == Cause.OUT_OF_TIME for trial in history)
    if not is_late or not proposals:
        raise SearchFailedError(_none_found(max_time if is_late else None, failure))
    warn_user(
        f"max_time={max_time!r} seconds is too short to validate one network: the "
        "default one is trained as far as time allows, without a score; give more time."
    )
    return Trial(proposals[0])


def _none_found(max_time: float | None, failure: str) -> str:
    """Return the error if no architecture is feasible; None if time is left."""
    text, advice = "No architecture that keeps the constraints was found", []
    if failure:
        text += f", as the function of 'constraints' raised {failure}"
        advice.append("fix the function")
    if max_time is not None:
        text += f" before the end of max_time={max_time!r} seconds"
        advice.append("give more time")
    if not failure:
        advice.append("loosen 'constraints'")
    return f"{text}: {', or '.join(advice)}."


def _warn_of_failures(history: History) -> None:
    """Warn of failed trials, and of a scorer that fails now and then.

    It is no surprise if less than half of the trials failed and all of those diverged.
    """
    failed = [trial for trial in history if trial.status == Status.FAILED]
    are_few = 2 * len(failed) < len(history)
    scored = [t for t in history.succeeded if t.cause == Cause.UNDEFINED_SCORE]
    if are_few and all(t.cause == Cause.DIVERGED for t in failed):
        failed = []
    counts = [
        f"{len(trials)} of {len(history)} trials {what}: {count_reasons(trials)}"
        for trials, what in ((failed, "failed"), (scored, "failed in part"))
        if trials
    ]
    if counts:
        warn_user("; ".join(counts) + ".")
