"""Greedy selection of the trials of an ensemble."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sknas._ensemble.calibration import apply_temperature, fit_temperature
from sknas._history import History, Trial
from sknas._problem import PredictionScorer, Problem, Score
from sknas._validation import warn_user

MAX_DRAWS = 40  # draws of a trial, with replacement
REFIT_TIME_SHARE = 0.05  # share of the time left to select, if a refit follows
TIME_SHARE = 0.5  # share of the time left to select, without a refit
LOSS_WEIGHT = 0.5  # weight of the loss relative to the score, both standardised
PATIENCE = 10  # draws without a better value that end the selection


@dataclass(frozen=True, eq=False)
class Selection:
    """The trials of an ensemble, with weights and temperatures.

    Parameters
    ----------
    trials : tuple of Trial
        Sorted by weight, the largest first.
    weights, temperatures : tuple of float
        One value per trial.
    temperature : float, default=1.0
        Temperature of the weighted mean.
    """

    trials: tuple[Trial, ...]
    weights: tuple[float, ...] = (1.0,)
    temperatures: tuple[float, ...] = (1.0,)
    temperature: float = 1.0

    @property
    def has_networks(self) -> bool:
        """True if all trials carry the networks of their folds."""
        return all(trial.networks for trial in self.trials)

    def take(self, indices: Sequence[int]) -> Selection:
        """Return the selection of some trials alone."""
        return replace(
            self,
            trials=tuple(self.trials[i] for i in indices),
            weights=tuple(self.weights[i] for i in indices),
            temperatures=tuple(self.temperatures[i] for i in indices),
        )


def choose_members(
    history: History, problem: Problem, size: int, seconds_left: float = np.inf
) -> Selection:
    """Select trials and their weights greedily.

    The probabilities of each trial are calibrated first. The selection starts with the
    best trial and adds, with replacement, the trial that improves the score of the mean
    out-of-fold prediction most. The best prefix of at most `size` different trials
    wins, and its mean is calibrated again.

    Parameters
    ----------
    history : History
        Trials; those without out-of-fold predictions are never combined.
    problem : Problem
        Scores predictions.
    size : int
        Maximum number of different trials.
    seconds_left : float, default=inf
        Seconds until the end of the fit.

    References
    ----------
    Caruana, Niculescu-Mizil, Crew, Ksikes: Ensemble Selection from Libraries of
    Models. ICML 2004.
    """
    best = history.best
    assert problem.task is not None and problem.loss is not None
    kind, mean_loss = problem.task.kind, problem.loss
    usable = [t for t in history.succeeded if t.predictions is not None]
    if best.predictions is None:
        return Selection((best,))
    if size == 1:
        usable = [best]
    library = np.stack([np.asarray(t.predictions) for t in usable])  # (trials, N, C)
    rows = np.flatnonzero(~np.isnan(library).any(axis=(0, 2)))
    library = library[:, rows]

    def loss(predictions: np.ndarray) -> float:
        return float(mean_loss(predictions, rows))

    share = TIME_SHARE if best.networks else REFIT_TIME_SHARE
    deadline = time.monotonic() + share * seconds_left
    temperatures = [
        fit_temperature(predicted, loss, kind) if time.monotonic() < deadline else 1.0
        for predicted in library
    ]
    library = np.stack(
        [
            apply_temperature(p, t, kind)
            for p, t in zip(library, temperatures, strict=True)
        ]
    )
    counts = np.ones(1)  # a single trial has none to be combined with
    if len(library) > 1:
        counts = _draw_greedily(library, rows, problem, size, deadline)
    drawn = np.flatnonzero(counts)
    by_weight = drawn[np.argsort(-counts[drawn], kind="stable")]
    weights = counts / counts.sum()
    mean = np.tensordot(weights, library, axes=1)  # (N, C)
    return Selection(
        tuple(usable[i] for i in by_weight),
        tuple(float(weights[i]) for i in by_weight),
        tuple(temperatures[i] for i in by_weight),
        fit_temperature(mean, loss, kind),
    )


def _draw_greedily(
    library: np.ndarray, rows: np.ndarray, problem: Problem, size: int, deadline: float
) -> np.ndarray:
    """Return the number of draws of each trial, in the best prefix of all draws."""
    value = _value(library, rows, problem, deadline)
    counts = np.zeros(len(library))
    total = np.zeros(library.shape[1:])
    best_value, best_counts = -np.inf, np.eye(len(library))[0]
    for n_drawn in range(1, MAX_DRAWS + 1):
        is_full = np.count_nonzero(counts) >= size
        allowed = [j for j in range(len(library)) if counts[j] or not is_full]
        if n_drawn == 1:
            allowed = [0]  # the best trial is always a member
        values = value((total + library[allowed]) / n_drawn)
        if values is None:
            break
        drawn = allowed[int(np.argmax(values))]
        total = total + library[drawn]
        counts = counts.copy()
        counts[drawn] += 1
        if values.max() > best_value:
            best_value, best_counts = values.max(), counts
        elif n_drawn - best_counts.sum() >= PATIENCE:
            break
        if time.monotonic() > deadline:
            break
    return best_counts


def _value(
    library: np.ndarray, rows: np.ndarray, problem: Problem, deadline: float
) -> Callable[[np.ndarray], np.ndarray | None]:
    """Return a function that rates predictions (K, N, C) by score and loss.

    A greedy selection gets stuck on piecewise-constant scores such as accuracy; the
    loss is smooth. Both are divided by their standard deviation over the trials. If
    there is no time for the scores of a selection, the loss decides alone. The function
    returns None after the deadline.
    """
    scorer, loss = problem.scorer, problem.loss
    assert scorer is not None and loss is not None
    losses = loss(library, rows)
    score_weight = 0.0
    n_scores = len(library) * (1 + PATIENCE)
    if n_scores * scorer.call_seconds <= deadline - time.monotonic():
        scores = _scores(scorer, library, rows, deadline)
        if scores is not None:
            score_weight = _score_weight(scores)
            # The failure of a scorer in some folds was warned of before training.
            if not score_weight and not problem.unscored_folds:
                _warn(scores[0].reason)
    loss_weight = LOSS_WEIGHT / (np.std(losses) or 1.0)

    def value(predictions: np.ndarray) -> np.ndarray | None:
        scored = np.zeros(len(predictions))
        if score_weight:
            scores = _scores(scorer, predictions, rows, deadline)
            if scores is None:
                return None
            scored = _finite(scores)
        scored = np.nan_to_num(scored * score_weight, nan=-np.inf)
        return scored - loss_weight * loss(predictions, rows)

    return value


def _scores(
    scorer: PredictionScorer, predictions: np.ndarray, rows: np.ndarray, deadline: float
) -> list[Score] | None:
    """Return the scores of predictions (K, N, C), None after the deadline."""
    if scorer.is_vectorised:
        return scorer.score_each(predictions, rows)
    scores = []
    for each in predictions:
        if time.monotonic() > deadline:
            return None
        scores.append(scorer.score(each, rows))
    return scores


def _finite(scores: list[Score]) -> np.ndarray:
    """Return the values (K,) of scores, NaN for those that are infinite."""
    values = np.array([score.value for score in scores])
    return np.where(np.isfinite(values), values, np.nan)


def _score_weight(scores: list[Score]) -> float:
    """Return the weight of the score, 0 if no trial has one."""
    values = _finite(scores)
    if not np.isfinite(values).any():
        return 0.0
    return float(1 / (np.nanstd(values) or 1.0))


def _warn(reason: str) -> None:
    reason = reason.rstrip(".") or "the scorer returned NaN"
    warn_user(
        "The members of the ensemble are selected by their loss alone, since "
        f"'scoring' has no score for the predictions of all folds together: {reason}."
    )
