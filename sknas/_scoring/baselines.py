"""Scores of simple models on the folds of a search, as baselines."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from joblib import parallel_config
from scipy import sparse
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import OneHotEncoder

from sknas._history import History, Origin
from sknas._problem import Fold, Problem, Score, TaskSpec
from sknas._scoring.folds import FoldScores, score_predictions

FLOPS = 2e9  # assumed multiplications per second of a linear model
DEFAULT_SECONDS = 600.0  # assumed length of a search without a time limit
MAX_TIME_SHARE = 0.1  # share of the time left that a model and its scores may take
N_TRIES = 2  # calls before a fold counts as unscored: a scorer may fail at random
KEEP_ROWS = "score only the rows and the estimator it is given"
MAX_IMAGES = 2_000  # images to fit on, and images converted to floats at once


@dataclass(frozen=True, eq=False)
class Baselines:
    """Scores of simple models, and what they tell about the scorer.

    Parameters
    ----------
    scores : dict of str to Score
        Scores of a linear and a dummy model; that of the linear one is NaN if there is
        no time for it.
    unscored_folds : tuple of int
        Folds in which no model has a score.
    is_refused : bool
        True if the scorer can score no model, or asks for what a search can't give it.
    must : str
        What a refused scorer must do, as in "fit y".
    reason : str
        Why the scorer is refused, or why there are folds without a score.
    """

    scores: dict[str, Score]
    unscored_folds: tuple[int, ...]
    is_refused: bool
    must: str
    reason: str


def baseline_scores(problem: Problem, seconds_left: float = np.inf) -> Baselines:
    """Score a linear and a dummy model.

    A fold has a score if some model has a finite one. Predictions that are near the
    targets are scored, too, in folds in which these two models have none: a
    correlation, for example, is undefined for a dummy.
    """
    deadline = time.monotonic() + seconds_left
    models = _score_models(problem, seconds_left, deadline)
    refusals = [s for m in models.values() for (s,) in m.scores if s.is_refused]
    unscored = () if refusals else _unscored(problem, models, deadline)
    problem = replace(problem, unscored_folds=unscored)
    scores = {name: replace(m, problem=problem).means[0] for name, m in models.items()}
    are_all = len(unscored) == len(problem.folds)
    is_undefined = are_all and not any(np.isfinite(s.value) for s in scores.values())
    must, reason = "fit y", ""
    if refusals:
        must = KEEP_ROWS
        reason = refusals[0].reason
    elif is_undefined:
        reason = scores["dummy"].reason
    elif unscored:
        reason = models["dummy"].reason(0, unscored[0])
    late = Score(float("nan"), "not enough time")
    return Baselines(
        {name: scores.get(name, late) for name in ("linear", "dummy")},
        unscored,
        is_undefined or bool(refusals),
        must,
        reason.rstrip("."),
    )


def _score_models(
    problem: Problem, seconds_left: float, deadline: float
) -> dict[str, FoldScores]:
    """Return the scores of the models there is time for."""
    models = {}
    if _can_score(problem, deadline):
        models["dummy"] = _score(problem, partial(_predict, _dummy), deadline)
    if _has_time(problem, seconds_left) and _can_score(problem, deadline):
        models["linear"] = _score(problem, partial(_predict, _linear), deadline)
    return {name: scores for name, scores in models.items() if not scores.late[0]}


def _unscored(
    problem: Problem, models: dict[str, FoldScores], deadline: float
) -> tuple[int, ...]:
    """Return the folds in which no model has a finite score.

    If these are all folds, a model near the targets is added to `models`. Without time
    to score it, every fold may have a score.
    """
    if "dummy" not in models or not _can_score(problem, deadline):
        return ()
    is_scored = np.any([np.isfinite(m.by_fold[0]) for m in models.values()], axis=0)
    left = np.flatnonzero(~is_scored)
    for _ in range(N_TRIES):
        if len(left):
            some = replace(problem, folds=tuple(problem.folds[fold] for fold in left))
            near = _score(some, _near, deadline)
            if len(left) == len(problem.folds):
                models["near"] = near
            left = left[~np.isfinite(near.by_fold[0])]
    return tuple(left.tolist())


def default_score(history: History) -> float:
    """Return the score of the default network, NaN if it has none."""
    default = [t for t in history if t.proposal.origin == Origin.DEFAULT]
    scores = [t.score for t in default if t.score is not None]
    return scores[0] if scores else float("nan")


def _has_time(problem: Problem, seconds_left: float) -> bool:
    task = problem.task
    assert task is not None
    width = task.n_columns + sum(task.cardinalities)
    n_rows = task.n_rows if task.image is None else min(task.n_rows, MAX_IMAGES)
    products = 400 * n_rows * width * task.n_outputs * len(problem.folds)
    seconds = min(seconds_left, DEFAULT_SECONDS)
    return products / FLOPS < MAX_TIME_SHARE * seconds


def _can_score(problem: Problem, deadline: float) -> bool:
    """Return True if the scores of a model take a small share of the time left."""
    assert problem.scorer is not None
    seconds = len(problem.folds) * problem.scorer.call_seconds
    return seconds <= MAX_TIME_SHARE * (deadline - time.monotonic())


def _dummy(task: TaskSpec) -> Any:
    return DummyClassifier() if task.is_classification else DummyRegressor()


def _linear(task: TaskSpec) -> Any:
    return LogisticRegression(max_iter=200) if task.is_classification else Ridge()


def _score(
    problem: Problem, predict: Callable[[Fold], np.ndarray], deadline: float
) -> FoldScores:
    # In workers, the linear model of scikit-learn 1.6 would be the first task: joblib
    # would take the memory of torch, which is loaded later, for a leak.
    with parallel_config(backend="sequential"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictions = [predict(fold)[None] for fold in problem.folds]
    return score_predictions(problem, predictions, np.array([True]), deadline)


def _near(fold: Fold) -> np.ndarray:
    """Return predictions (N_valid, C) that are near the targets, but not all equal."""
    kind, y = fold.task.kind, fold.valid.y
    if kind in ("binary", "multiclass"):
        y = np.eye(fold.task.n_outputs)[y]
    mixed = 0.7 * y + 0.3 * np.roll(y, 1, axis=0)
    if kind == "regression":
        return fold.restore(mixed)
    if kind == "multilabel":
        return 0.1 + 0.8 * mixed
    return 0.8 * mixed + 0.2 / fold.task.n_outputs


def _predict(make: Callable[[TaskSpec], Any], fold: Fold) -> np.ndarray:
    """Return predictions (N_valid, C) of a model fitted on the training rows."""
    task = fold.task
    part = slice(None) if task.image is None else slice(MAX_IMAGES)
    x, y, weight = fold.train.x[part], fold.train.y[part], fold.train.weight[part]
    features = _feature_map(fold)
    train = features(x)

    def predict(y: np.ndarray, method: str) -> np.ndarray:
        """Return the predictions of a model that is fitted to targets (N,)."""
        model = make(task).fit(train, y, sample_weight=weight)
        chunks = [getattr(model, method)(features(x)) for x in _valid_chunks(fold)]
        return np.concatenate(chunks)

    def probabilities(y: np.ndarray, n_classes: int) -> np.ndarray:
        """Return probabilities (N_valid, n_classes), 0 for classes not in `y`."""
        found = np.zeros((len(fold.valid), n_classes))
        classes = np.unique(y).astype(int)
        is_single = len(classes) == 1
        found[:, classes] = 1.0 if is_single else predict(y, "predict_proba")
        return found

    if task.kind == "regression":
        return fold.restore(predict(y, "predict").reshape(len(fold.valid), -1))
    if task.kind == "multilabel":
        by_label = [probabilities(column, 2)[:, 1] for column in y.T]
        return np.stack(by_label, axis=1)
    return probabilities(y, task.n_outputs)


def _valid_chunks(fold: Fold) -> Iterator[np.ndarray]:
    """Yield the validation rows; images in parts, as they are converted to floats."""
    x = fold.valid.x
    size = max(len(x), 1) if fold.task.image is None else MAX_IMAGES
    for start in range(0, len(x), size):
        yield x[start : start + size]


def _feature_map(fold: Fold) -> Callable[[np.ndarray], Any]:
    """Return a function from encoded rows to features of a linear model.

    Categories are one-hot encoded, pixels standardised.
    """
    image, n_plain = fold.task.image, fold.task.n_numeric + fold.task.n_binary
    if image is not None:
        mean, deviation = (
            statistic[:, None, None] for statistic in (image.mean, image.deviation)
        )
        return lambda x: ((x - mean) / deviation).reshape(len(x), -1)
    if not fold.task.cardinalities:
        return lambda x: x
    one_hot = OneHotEncoder(handle_unknown="ignore").fit(fold.train.x[:, n_plain:])
    return lambda x: sparse.hstack(
        [x[:, :n_plain], one_hot.transform(x[:, n_plain:])], format="csr"
    )
