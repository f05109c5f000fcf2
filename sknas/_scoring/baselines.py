"""Scores of simple models on the folds of a search, to compare with."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import OneHotEncoder

from sknas._history import History
from sknas._problem import Fold, Problem, TaskSpec
from sknas._scoring.folds import score_folds

FLOPS = 2e9  # products a second that a linear model is assumed to do
LONGEST = 600.0  # seconds that a search without a bound is assumed to have
MAX_SHARE = 0.1  # of the time left that it may take
MAX_IMAGES = 2_000  # that simple models are fitted on, and that are floats at once


def simple_scores(problem: Problem) -> dict[str, float]:
    """Scores of a linear and a dummy model; NaN where there was no time for one."""
    return {
        "linear": _score(problem, _linear) if _has_time(problem) else float("nan"),
        "dummy": _score(problem, _dummy),
    }


def default_score(history: History) -> float:
    """Score of the default network, NaN if it has none."""
    default = [t for t in history if t.proposal.origin == "default"]
    scores = [t.score for t in default if t.score is not None]
    return scores[0] if scores else float("nan")


def _has_time(problem: Problem) -> bool:
    task = problem.task
    assert task is not None
    width = task.n_columns + sum(task.cardinalities)
    n_rows = task.n_rows if task.image is None else min(task.n_rows, MAX_IMAGES)
    products = 400 * n_rows * width * task.n_outputs * len(problem.folds)
    return products / FLOPS < MAX_SHARE * min(problem.seconds_left, LONGEST)


def _dummy(task: TaskSpec) -> Any:
    return DummyClassifier() if task.is_classification else DummyRegressor()


def _linear(task: TaskSpec) -> Any:
    return LogisticRegression(max_iter=200) if task.is_classification else Ridge()


def _score(problem: Problem, make: Any) -> float:
    assert problem.score is not None
    predictions, rows, weights = [], [], []
    for fold in problem.folds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predictions.append(_predict(make, fold))
        rows.append(fold.valid_rows)
        weights.append(fold.valid.weight)
    scored = score_folds(predictions, rows, weights, problem.n_rows, problem.score)
    return scored.mean


def _predict(make: Any, fold: Fold) -> np.ndarray:
    """Predictions (Nv, C) of a model fitted on the fold's training rows."""
    task = fold.task
    part = slice(None) if task.image is None else slice(MAX_IMAGES)
    x, y, weight = fold.train.x[part], fold.train.y[part], fold.train.weight[part]
    features = _features(fold)
    train, valid = features(x), _Parts(features, fold.valid.x, task)
    if task.kind == "regression":
        output = valid.answers(make(task).fit(train, y, sample_weight=weight).predict)
        return fold.restore(output.reshape(len(valid), -1))
    if task.kind == "multilabel":
        labels = [
            _shares(make(task), train, column, weight, valid, 2) for column in y.T
        ]
        return np.stack([shares[:, 1] for shares in labels], axis=1)
    return _shares(make(task), train, y, weight, valid, task.n_outputs)


def _features(fold: Fold) -> Callable[[np.ndarray], Any]:
    """Encoded rows -> what a linear model reads: categories one-hot, pixels scaled."""
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


class _Parts:
    """Rows to validate on; images are not all made floats at once."""

    def __init__(
        self, features: Callable[[np.ndarray], Any], x: np.ndarray, task: TaskSpec
    ) -> None:
        self.features, self.x = features, x
        self.size = max(len(x), 1) if task.image is None else MAX_IMAGES

    def __len__(self) -> int:
        return len(self.x)

    def answers(self, method: Callable[[Any], np.ndarray]) -> np.ndarray:
        """What a fitted model answers to them."""
        starts = range(0, len(self.x), self.size)
        parts = [self.x[start : start + self.size] for start in starts]
        return np.concatenate([method(self.features(part)) for part in parts])


def _shares(
    model: Any, train: Any, y: np.ndarray, weight: np.ndarray, valid: _Parts, n: int
) -> np.ndarray:
    """Class probabilities (Nv, n); zeros for classes the training rows lack."""
    full = np.zeros((len(valid), n))
    classes = np.unique(y).astype(int)
    if len(classes) == 1:
        full[:, classes] = 1.0
    else:
        model.fit(train, y, sample_weight=weight)
        full[:, classes] = valid.answers(model.predict_proba)
    return full
