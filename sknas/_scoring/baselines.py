"""Scores of simple models on the folds of a search, as baselines."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from joblib import parallel_config
from scipy import sparse
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import OneHotEncoder

from sknas._history import History, Origin
from sknas._problem import Fold, Problem, Score, TaskSpec
from sknas._scoring.folds import score_predictions

FLOPS = 2e9  # assumed multiplications per second of a linear model
DEFAULT_SECONDS = 600.0  # assumed length of a search without a time limit
MAX_TIME_SHARE = 0.1  # share of the time left that the linear model may take
MAX_IMAGES = 2_000  # images to fit on, and images converted to floats at once


def baseline_scores(problem: Problem, seconds_left: float = np.inf) -> dict[str, Score]:
    """Return the scores of a linear and a dummy model.

    The score of the linear model is NaN if there is no time for it.
    """
    scores = {"linear": Score(float("nan"), "not enough time")}
    if _has_time(problem, seconds_left):
        scores["linear"] = _score(problem, _linear)
    return scores | {"dummy": _score(problem, _dummy)}


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


def _dummy(task: TaskSpec) -> Any:
    return DummyClassifier() if task.is_classification else DummyRegressor()


def _linear(task: TaskSpec) -> Any:
    return LogisticRegression(max_iter=200) if task.is_classification else Ridge()


def _score(problem: Problem, make: Callable[[TaskSpec], Any]) -> Score:
    # In workers, the linear model of scikit-learn 1.6 would be the first task: joblib
    # would take the memory of torch, which is loaded later, for a leak.
    with parallel_config(backend="sequential"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictions = [_predict(make, fold)[None] for fold in problem.folds]
    scores = score_predictions(problem, predictions, finite=np.array([True]))
    return Score(float(scores.mean[0]), scores.reasons[0])


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
