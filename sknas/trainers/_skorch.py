"""The reference trainer: one network after another, through skorch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sknas._history import INTERRUPTED, OUT_OF_TIME, Proposal, Trial
from sknas._problem import Fold, Problem, Rows
from sknas._scoring import FoldScores, score_folds
from sknas.spaces import Space
from sknas.trainers._base import Trainer
from sknas.trainers._network import Training, failure_reason, train_network
from sknas.trainers._workers import run_tasks


@dataclass(frozen=True, eq=False)
class _FoldOutcome:
    """What came of a proposal on a fold; `reason` is empty where all went well."""

    reason: str = ""
    outputs: tuple[np.ndarray, ...] = ()
    stops: tuple[tuple[float, int], ...] = ()
    n_params: int = 0
    seconds: float = 0.0


class SkorchTrainer(Trainer):
    """Trains each proposal on each fold by itself.

    The number of epochs is chosen jointly over the folds, among the few points where
    the learning rate is zero, by the mean score.

    References
    ----------
    Tietz, Fan, Nouri, Bossan: skorch: A scikit-learn compatible neural network library
    that wraps PyTorch. 2017.

    Examples
    --------
    >>> from sknas import NASClassifier
    >>> from sknas.trainers import SkorchTrainer
    >>> search = NASClassifier(trainer=SkorchTrainer())
    """

    def setup(self, space: Space) -> None:
        self.space_ = space
        self.seconds_: list[float] = []

    def train(self, proposals: Sequence[Proposal], problem: Problem) -> list[Trial]:
        tasks = [
            (self._training(proposal, fold, problem), fold.train, fold.valid.x)
            for proposal in proposals
            for fold in problem.folds
        ]
        usual = float(np.mean(self.seconds_)) if self.seconds_ else 0.0
        outcomes = run_tasks(train_fold, tasks, problem, usual * len(proposals))
        trials = []
        try:
            for proposal in proposals:
                trials.append(_trial(proposal, outcomes, problem))
                problem.report(trials[-1])
        except KeyboardInterrupt:
            left = proposals[len(trials) :]
            trials += [Trial(p, status="stopped", reason=INTERRUPTED) for p in left]
        self.seconds_ += [trial.seconds for trial in trials if trial.status == "ok"]
        return trials

    def _training(self, proposal: Proposal, fold: Fold, problem: Problem) -> Training:
        return Training(
            space=self.space_,
            architecture=dict(proposal.architecture),
            task=fold.task,
            n_steps=problem.n_steps,
            max_epochs=problem.max_epochs,
            seed=proposal.seed,
            device=problem.device,
            deadline=problem.deadline,
        )


def train_fold(training: Training, train: Rows, valid_x: np.ndarray) -> _FoldOutcome:
    """Train on one fold; whatever goes wrong becomes a reason."""
    started = time.monotonic()
    if training.deadline is not None and started > training.deadline:
        return _FoldOutcome(OUT_OF_TIME)
    try:
        trained = train_network(training, train, valid_x)
    except Exception as error:
        return _FoldOutcome(failure_reason(error), seconds=time.monotonic() - started)
    return _FoldOutcome(
        OUT_OF_TIME if trained.is_cut else "",
        tuple(trained.outputs),
        tuple(trained.stops),
        trained.n_params,
        time.monotonic() - started,
    )


def _trial(
    proposal: Proposal, outcomes: Iterator[_FoldOutcome], problem: Problem
) -> Trial:
    """Gather a proposal's folds, choose where to stop, and score."""
    folds = [next(outcomes) for _ in problem.folds]
    seconds = tuple(fold.seconds for fold in folds)
    told: dict[str, Any] = {"fold_seconds": seconds, "seconds": sum(seconds)}
    reasons = [fold.reason for fold in folds if fold.reason]
    if reasons:
        failed = [reason for reason in reasons if reason != OUT_OF_TIME]
        status = "failed" if failed else "stopped"
        return Trial(proposal, status=status, reason=(failed or reasons)[0], **told)
    started = time.monotonic()
    try:
        best = _best_point(folds, problem)
    except Exception as error:  # of a scorer the user wrote
        return Trial(proposal, status="failed", reason=failure_reason(error), **told)
    if best is None:
        why = getattr(problem.score, "reason", "") or "the scorer returned NaN"
        reason = f"no score: {why.rstrip('.')}"
        return Trial(proposal, status="failed", reason=reason, **told)
    told["seconds"] += time.monotonic() - started
    share, n_epochs = folds[0].stops[best.place]
    return Trial(
        proposal,
        score=best.scored.mean,
        loss=best.loss,
        fold_scores=tuple(best.scored.scores),
        score_seconds=tuple(best.scored.seconds),
        stop=share,
        n_epochs=n_epochs,
        n_params=folds[0].n_params,
        predictions=best.scored.predictions,
        **told,
    )


@dataclass(frozen=True, eq=False)
class _Point:
    """The scores of a proposal at one annealed point of its schedule."""

    place: int
    loss: float
    scored: FoldScores

    @property
    def order(self) -> tuple[float, float, int]:
        """Sorts points to the best: score, then lower loss, then later."""
        return self.scored.mean, -self.loss, self.place


def _best_point(folds: list[_FoldOutcome], problem: Problem) -> _Point | None:
    """The point of the best mean score; the lower loss, then the later one."""
    n_points = min(len(fold.outputs) for fold in folds)
    points = []
    for place in range(n_points):
        outputs = [fold.outputs[place] for fold in folds]
        points.append(_score_point(place, outputs, problem))
    scored = [point for point in points if np.isfinite(point.scored.mean)]
    return max(scored, key=lambda point: point.order, default=None)


def _score_point(place: int, outputs: list[np.ndarray], problem: Problem) -> _Point:
    assert problem.score is not None and problem.loss is not None
    folds = problem.folds
    predicted = [f.restore(out) for f, out in zip(folds, outputs, strict=True)]
    rows = [fold.valid_rows for fold in folds]
    weights = [fold.valid.weight for fold in folds]
    losses = list(map(problem.loss, predicted, rows, weights))
    scored = score_folds(predicted, rows, weights, problem.n_rows, problem.score)
    return _Point(place, float(np.mean(losses)), scored)
