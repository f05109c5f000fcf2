"""The check, before training, that a scorer fits the target and can rank trials."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from sknas._data.rare_classes import RareClasses
from sknas._history import History
from sknas._problem import Fold, Problem
from sknas._scoring.baselines import KEEP_ROWS, Baselines, baseline_scores
from sknas._scoring.folds import score_predictions
from sknas._scoring.scorer import RETURNED, RowScorer
from sknas._validation import short_repr, warn_user

MAX_SCORE = 1e6  # a score of classes beyond it was divided by about zero


@dataclass(frozen=True, eq=False)
class ScorerCheck:
    """Checks a scorer with the scores of simple models.

    Parameters
    ----------
    caller_name : str
        Name of the estimator, for messages.
    scoring : object
        The parameter, for messages.
    scorer : RowScorer
        The scorer that was made of it.
    classes : RareClasses or None
        The folds of each class, None for values.
    """

    caller_name: str
    scoring: Any
    scorer: RowScorer
    classes: RareClasses | None

    def run(
        self, problem: Problem, seconds_left: float
    ) -> tuple[Problem, dict[str, float]]:
        """Return the problem with the folds to score, and the scores of baselines.

        Raises
        ------
        ValueError
            If the scorer can't score this target, or these rows.
        """
        if self.scorer.refusal:  # when its seconds were measured
            self._reject(self.scorer.refusal, KEEP_ROWS)
        found = baseline_scores(problem, seconds_left)
        if found.must == "fit y":
            self._check_classes(problem, found.is_refused)
        if found.is_refused:
            self._reject(found.reason, found.must)
        self._warn(found, len(problem.folds))
        values = {name: score.value for name, score in found.scores.items()}
        scores = {k: v if np.isfinite(v) else float("nan") for k, v in values.items()}
        return replace(problem, unscored_folds=found.unscored_folds), scores

    def warn_if_unlearnt(self, history: History, dummy: float) -> None:
        """Warn if all trials score like a model that never predicts a rare class."""
        if self.classes is not None and self.scorer.is_piecewise_constant:
            scores = [trial.score for trial in history.succeeded]
            self.classes.warn_if_unlearnt(scores, dummy)

    def _check_classes(self, problem: Problem, is_undefined: bool) -> None:
        """Reject a scorer that says nothing without the classes that folds lack."""
        if self.classes is None or self.classes.validated.all():
            return
        # A metric of labels takes rows of two classes out of three for binary ones.
        if is_undefined or self.scorer.is_piecewise_constant:
            self._check_target(problem)
        if self.classes.never_validated.any() and (
            is_undefined or (self.scorer.is_known and not _can_rank(problem))
        ):
            self.classes.reject_scoring(self.caller_name, self.scoring)

    def _check_target(self, problem: Problem) -> None:
        """Reject a scorer that does not fit all rows together."""
        assert problem.task is not None
        n, n_outputs = problem.n_rows, problem.task.n_outputs
        constant = np.full((n, n_outputs), 1 / n_outputs)
        reason = self.scorer.score(constant, np.arange(n)).reason
        if reason and not reason.startswith(RETURNED):
            self._reject(reason)

    def _warn(self, found: Baselines, n_folds: int) -> None:
        """Warn of rare classes, and of folds in which no model has a score."""
        if self.classes is not None:
            self.classes.warn()
        n_unscored = len(found.unscored_folds)
        if 0 < n_unscored < n_folds:
            warn_user(
                f"No model has a score in {n_unscored} of {n_folds} folds, and scores "
                f"are means over the others: {found.reason}."
            )

    def _reject(self, reason: str, must: str = "fit y") -> NoReturn:
        if must == "fit y" and not self.scorer.is_known:
            must = "return a score"  # an error of the user's code may have any cause
        raise ValueError(
            f"The 'scoring' parameter of {self.caller_name} must {must}, "
            f"got {short_repr(self.scoring)}: {reason.rstrip('.')}."
        )


def _can_rank(problem: Problem) -> bool:
    """Return True if the scores of right, wrong and constant predictions differ."""
    models = [_answers(fold) for fold in problem.folds]  # (3, N_valid, C) each
    scored = score_predictions(problem, models, np.ones(3, dtype=bool))
    by_fold = scored.by_fold  # (3, n_folds)
    is_scored = np.isfinite(by_fold).all(axis=0)
    values = by_fold[:, is_scored]
    if not values.size:
        return True
    return bool(np.ptp(values, axis=0).any() and np.abs(values).max() <= MAX_SCORE)


def _answers(fold: Fold) -> np.ndarray:
    """Return right, wrong and constant predictions (3, N_valid, C)."""
    y = fold.valid.y
    if fold.task.kind == "multilabel":
        return np.stack([y, 1 - y, np.zeros_like(y)]).astype(np.float32)
    n_classes = fold.task.n_outputs
    codes = [y, (y + 1) % n_classes, np.zeros_like(y)]
    return np.stack([np.eye(n_classes, dtype=np.float32)[each] for each in codes])
