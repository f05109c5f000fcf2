"""Scores of simple models on the folds of a search, to compare with."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sknas._history import History
from sknas._problem import Fold, Problem, TaskSpec
from sknas._scoring import score_folds

FLOPS = 2e9  # products a second that a linear model is assumed to do
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
    return products / FLOPS < MAX_SHARE * problem.seconds_left


def _dummy(task: TaskSpec) -> Any:
    return DummyClassifier() if task.is_classification else DummyRegressor()


def _linear(task: TaskSpec) -> Any:
    model: Any = Ridge()
    if task.is_classification:
        model = LogisticRegression(max_iter=200)
    if task.kind == "multilabel":
        model = MultiOutputClassifier(model)
    n_plain = task.n_numeric + task.n_binary
    codes = list(range(n_plain, task.n_columns))
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encoder = make_column_transformer((one_hot, codes), remainder="passthrough")
    return make_pipeline(encoder, model) if codes else model


def _score(problem: Problem, make: Any) -> float:
    assert problem.score is not None
    predictions, rows = [], []
    for fold in problem.folds:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                predictions.append(_predict(make(fold.task), fold))
        except ValueError:
            continue  # training rows of one class have no linear model
        rows.append(fold.valid_rows)
    if not rows:
        return float("nan")
    return score_folds(predictions, rows, problem.n_rows, problem.score).mean


def _predict(model: Any, fold: Fold) -> np.ndarray:
    """Predictions (Nv, C) of a model fitted on the fold's training rows."""
    last = model.steps[-1][0] if hasattr(model, "steps") else None
    weight = f"{last}__sample_weight" if last else "sample_weight"
    model.fit(fold.train.x, fold.train.y, **{weight: fold.train.weight})
    if fold.task.kind == "regression":
        output = np.asarray(model.predict(fold.valid.x))
        return fold.restore(output.reshape(len(output), -1))
    shares = model.predict_proba(fold.valid.x)
    if fold.task.kind == "multilabel":
        columns = zip(shares, model.classes_, strict=True)
        return np.stack([_of_class(s, c, 1) for s, c in columns], axis=1)
    full = np.zeros((len(shares), fold.task.n_outputs))
    full[:, model.classes_] = shares
    return full


def _of_class(shares: np.ndarray, classes: np.ndarray, wanted: int) -> np.ndarray:
    """The column of one class, zeros where the training rows had none of it."""
    place = np.flatnonzero(classes == wanted)
    return shares[:, place[0]] if len(place) else np.zeros(len(shares))
