"""Scores of simple models on the folds of a search, to compare with."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import OneHotEncoder

from sknas._history import History
from sknas._problem import Fold, Problem, TaskSpec
from sknas._scoring import score_folds

FLOPS = 2e9  # products a second that a linear model is assumed to do
LONGEST = 600.0  # seconds that a search without a bound is assumed to have
MAX_SHARE = 0.1  # of the time left that it may take


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
    products = 400 * task.n_rows * width * task.n_outputs * len(problem.folds)
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
    task, y, weight = fold.task, fold.train.y, fold.train.weight
    train, valid = _features(fold)
    if task.kind == "regression":
        output = make(task).fit(train, y, sample_weight=weight).predict(valid)
        return fold.restore(np.asarray(output).reshape(valid.shape[0], -1))
    if task.kind == "multilabel":
        labels = [
            _shares(make(task), train, column, weight, valid, 2) for column in y.T
        ]
        return np.stack([shares[:, 1] for shares in labels], axis=1)
    return _shares(make(task), train, y, weight, valid, task.n_outputs)


def _features(fold: Fold) -> tuple[Any, Any]:
    """Encoded rows to train and to validate on, categories one-hot."""
    n_plain = fold.task.n_numeric + fold.task.n_binary
    train, valid = fold.train.x, fold.valid.x
    if not fold.task.cardinalities:
        return train, valid
    one_hot = OneHotEncoder(handle_unknown="ignore").fit(train[:, n_plain:])
    parts = (
        sparse.hstack([x[:, :n_plain], one_hot.transform(x[:, n_plain:])], format="csr")
        for x in (train, valid)
    )
    return next(parts), next(parts)


def _shares(
    model: Any, train: Any, y: np.ndarray, weight: np.ndarray, valid: Any, n: int
) -> np.ndarray:
    """Class probabilities (Nv, n); zeros for classes the training rows lack."""
    full = np.zeros((valid.shape[0], n))
    classes = np.unique(y).astype(int)
    if len(classes) == 1:
        full[:, classes] = 1.0
    else:
        model.fit(train, y, sample_weight=weight)
        full[:, classes] = model.predict_proba(valid)
    return full
