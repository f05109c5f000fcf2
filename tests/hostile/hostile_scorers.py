"""Cases with scorers of the user: they read rows, fail, and return odd values."""

import decimal
from dataclasses import dataclass

import numpy as np
import pandas as pd
import polars as pl
import torch
from hostile_cases import TINY, Case, FaultError
from sklearn.base import clone
from sklearn.metrics import accuracy_score, r2_score

from sknas import NASClassifier, NASRegressor
from sknas.exceptions import SearchFailedError

CONTAINERS = {
    "frame": lambda frame: frame,
    "polars": pl.from_pandas,
    "objects": lambda frame: frame.to_numpy(object),
    "numbers": lambda frame: frame[["a", "b"]].to_numpy(),
    "single": lambda frame: frame[["a", "b"]].to_numpy(np.float32),
    "lists": lambda frame: frame[["a", "b"]].to_numpy().tolist(),
    "images": lambda frame: np.random.default_rng(len(frame)).random(
        (len(frame), 3, 3)
    ),
}


def _rows(X, rows):
    if isinstance(X, list):
        return [list(X[row]) for row in rows]
    return X.iloc[rows] if hasattr(X, "iloc") else X[np.asarray(rows)]


def _changed(X, rows):
    """Return rows whose first cell is another."""
    X = _rows(X, rows)
    if isinstance(X, list):
        X[0][0] += 0.5
    elif isinstance(X, pl.DataFrame):
        X[0, "a"] = X[0, "a"] + 0.5
    elif isinstance(X, pd.DataFrame):
        X = X.assign(a=X["a"].to_numpy() + 0.5)
    else:
        X[(0,) * X.ndim] += 0.25
    return X


# (X, row numbers) -> what is predicted; the rows of X with these numbers.
READ = {
    "as they are": lambda X, rows: X if len(rows) == len(X) else _rows(X, rows),
    "copied": _rows,
    "as an array": lambda X, rows: np.asarray(_rows(X, rows)),
    "as lists": lambda X, rows: np.asarray(_rows(X, rows)).tolist(),
}
ORDERS = {
    "in order": lambda n: np.arange(n),
    "reversed": lambda n: np.arange(n)[::-1],
    "shuffled": lambda n: np.random.permutation(n),  # noqa: NPY002
    "in part": lambda n: np.arange(n)[:: 2 if n > 3 else 1],
    "repeated": lambda n: np.repeat(np.arange(n), 2),
}
REFUSED = {
    "changed": lambda e, X, n: e.predict(_changed(X, np.arange(n))),
    "clone": lambda e, X, n: clone(e),
    "fit": lambda e, X, n: e.fit(X, np.zeros(n)),
    "caught": lambda e, X, n: _caught(e, X, n),
}
FINE = (
    *(float, np.float32, np.array, lambda v: np.array([v]), decimal.Decimal),
    *(torch.tensor, lambda v: pd.Series([v]), lambda v: np.bool_(v > 0)),
)
ODD = (
    *(str, complex, lambda v: None, lambda v: {"a": v}, lambda v: [v], lambda v: pd.NA),
    *(lambda v: np.nan, lambda v: np.inf, lambda v: np.array([v, v]), lambda v: float),
)


def _caught(estimator, X, n):
    try:
        estimator.predict(_changed(X, np.arange(n)))
    except ValueError:
        return 0.5
    raise AssertionError("changed rows were predicted")


@dataclass
class ScorerCase(Case):
    """A case whose scorer must be refused if `must_fail` is True."""

    must_fail: bool = False


class Scorer:
    """Scores rows in some order, and may fail."""

    def __init__(self, read, order, fails, cast, refused=None):
        self.read, self.order, self.fails, self.cast = read, order, fails, cast
        self.refused = refused

    def __call__(self, estimator, X, y):
        n = len(y)
        if self.refused is not None:
            self.refused(estimator, X, n)
        rows = self.order(n)
        predicted = estimator.predict(self.read(X, rows))
        if self.fails(estimator, X, y, predicted):
            raise OSError("no score")
        is_class = hasattr(estimator, "classes_")
        value = (accuracy_score if is_class else r2_score)(y[rows], predicted)
        estimator.predict(X)[:] = 0  # the predictions are the scorer's own
        y[:] = 0
        return self.cast(float(value))


def _flaky(rng):
    draws = np.random.default_rng(rng.integers(2**31))
    share = rng.choice([0.02, 0.1, 0.3])
    return lambda e, X, y, predicted: draws.random() < share


def scorer_case(seed):
    """Return a case with a scorer that must be accepted, may fail, or is refused."""
    rng = np.random.default_rng(seed)
    case = ScorerCase(seed, None, None, None)
    n = int(rng.choice([12, 20, 40, 90]))
    frame = pd.DataFrame(
        {
            "a": rng.normal(size=n),
            "b": rng.integers(0, 3, n).astype(float),
            "c": rng.choice(["u", "v"], n).astype(object),
        }
    )
    container = _drawn(rng, CONTAINERS, case)
    case.X = CONTAINERS[container](frame)
    is_classifier = bool(rng.random() < 0.5)
    case.y = np.arange(n) % 2 if is_classifier else rng.normal(size=n)
    read = READ[_drawn(rng, READ, case)]
    order = ORDERS[_drawn(rng, ORDERS, case)]
    fails, cast, refused = (lambda *_: False), FINE[rng.integers(len(FINE))], None
    kind = rng.choice(["fine", "fails", "fold", "dummy", "odd", "refused"])
    case.notes.append(str(kind))
    if kind == "fails":
        fails, case.may_fail = _flaky(rng), True
    elif kind == "fold":
        first = case.y[:1].copy()  # of a regressor: no two targets are equal
        fails = lambda e, X, y, predicted: not is_classifier and first in y  # noqa: E731
    elif kind == "dummy":
        fails = lambda e, X, y, predicted: is_constant(e)  # noqa: E731
        is_constant = lambda e: not np.ptp(e._predictions, axis=0).any()  # noqa: E731
        case.may_fail = True  # small networks may be constant, too
    elif kind == "odd":
        cast = ODD[rng.integers(len(ODD))]
        case.may_fail = case.must_fail = True
    elif kind == "refused":
        refused = REFUSED[_drawn(rng, REFUSED, case)]
        case.may_fail = case.must_fail = True
    cls = NASClassifier if is_classifier else NASRegressor
    options = {
        "trainer": str(rng.choice(["auto", "skorch"])),
        "cv": int(rng.choice([2, 3])),
        "max_trials": int(rng.integers(1, 4)),
        "strategy": str(rng.choice(["random", "bayesian"])),
        "ensemble_size": [None, 1][rng.integers(2)],
        "scoring": Scorer(read, order, fails, cast, refused),
    }
    case.estimator = cls(**TINY | options)
    return case


def check_folds(case, name):
    """Assert that scored trials are means over the same folds."""
    if case.must_fail:
        if name == "correct":
            raise FaultError("a scorer was not refused")
        return
    if name == SearchFailedError.__name__ or not hasattr(case.estimator, "history_"):
        return
    trials = case.estimator.history_.succeeded
    scores = np.array([trial.fold_scores for trial in trials])
    counted = ~np.isnan(scores).all(axis=0)
    if np.isnan(scores[:, counted]).any():
        raise FaultError(f"trials are compared on different folds: {scores}")
    if counted.any():
        means = [trial.score for trial in trials]
        if not np.allclose(means, scores[:, counted].mean(axis=1)):
            raise FaultError(f"scores {means} are no means of {scores}")


def _drawn(rng, choices, case):
    name = str(rng.choice(list(choices)))
    case.notes.append(name)
    return name
