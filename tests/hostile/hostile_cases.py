"""Generated cases, and the check that each gives a valid result or a clear error.

A case is generated from one integer, its seed, so the seed alone reproduces it.
"""

import copy
import linecache
import re
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.exceptions import DataConversionWarning, NotFittedError

import sknas
from sknas.exceptions import SearchFailedError, SearchWarning, UnseenValuesWarning

TINY = {"max_trials": 1, "max_epochs": 1, "cv": 2, "n_jobs": 1, "random_state": 0}
SKNAS, SKLEARN = Path(sknas.__file__).parent, Path(sklearn.__file__).parent
LONGEST = 1_000  # maximum length of a message, in characters
CLOSE = 1e-4  # tolerance of a prediction, relative to the largest one

ALLOWED = (DataConversionWarning, UnseenValuesWarning)  # warnings
# Advice in messages of scikit-learn that nobody can follow who calls sknas.
MISLEADING = ("labels argument", "`labels`", "assigning it to")
# Allowed reasons of failed trials; any other reason is a caught crash.
REASONS = ("diverged", "undefined", "memory")
CRASHES = (
    *("IndexError", "KeyError", "RuntimeError", "AssertionError", "AttributeError"),
    *("ZeroDivisionError", "OverflowError", "UnicodeError", "TypeError", "ValueError"),
    *("Unicode", "NotImplementedError", "RecursionError", "MemoryError"),
)


@dataclass
class Case:
    """One call of `fit`, and the tables to predict afterwards.

    If `may_fail` is False, an error is a fault. `notes` lists what is unusual about
    the case.
    """

    seed: int
    estimator: object
    X: object
    y: object
    fit: dict = field(default_factory=dict)
    new: list = field(default_factory=list)  # (X, may be refused)
    may_fail: bool = False
    notes: list = field(default_factory=list)
    alike: list = field(default_factory=list)  # tables of the same values as X

    def __str__(self):
        shown = {k: v for k, v in self.fit.items() if v is not None}
        description = (
            f"{brief(self.estimator)}, fit {sorted(shown)}: {'; '.join(self.notes)}"
        )
        return f"case {self.seed}: {description}"


def brief(value):
    text = " ".join(repr(value).split())
    return text[:200].encode("ascii", "backslashreplace").decode()


class FaultError(AssertionError):
    """An invalid result, or an error that is not documented."""


def outcome(case):
    """Return "correct", "refused in predict", or the name of a documented error.

    Raises
    ------
    FaultError
        With the reason, for any other outcome.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return _outcome(case)
        finally:
            _check_warnings(caught)


def _outcome(case):
    given = (case.X, case.y)
    before = _copied(given)
    try:
        model = case.estimator.fit(case.X, case.y, **case.fit)
    except Exception as error:
        name = documented(error)
        if not case.may_fail:
            raise FaultError(f"refused a valid fit: {brief(error)}") from error
        return name
    finally:
        if not _same(given, before):
            raise FaultError("X or y was changed by fit")
    check_search(model)
    name = "correct"
    for X, may_fail in case.new:
        try:
            check_predictions(model, X, case)
        except FaultError:
            raise
        except Exception as error:
            documented(error)
            if not may_fail:
                message = f"refused valid rows in predict: {brief(error)}"
                raise FaultError(message) from error
            name = "refused in predict"
    for X in case.alike:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UnseenValuesWarning)
            found = _answers(model, X, len(case.X))
        _check_close(found, _answers(model, case.X, len(case.X)), "of equal values")
    return name


def documented(error):
    """Return the name of a documented error.

    Raises
    ------
    FaultError
        If a library raised it, or its message is not a sentence.
    """
    name, text = type(error).__name__, str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if any(advice in text for advice in MISLEADING):
        raise FaultError(f"advice that can't be followed: {brief(text)}") from error
    position, line = (
        Path(frame.filename),
        linecache.getline(frame.filename, frame.lineno),
    )
    where = f"{name} at {position.name}:{frame.lineno}: {brief(text)}"
    if isinstance(error, SearchFailedError):
        if any(crash in text for crash in CRASHES):
            raise FaultError(f"trials crashed: {where}") from error
        return name
    if not isinstance(error, ValueError | TypeError):
        raise FaultError(f"undocumented: {where}") from error
    is_ours = SKNAS in position.parents
    is_raised = line.strip().startswith("raise") or "reject(" in line
    if not (SKLEARN in position.parents or (is_ours and is_raised)):
        raise FaultError(f"from inside: {where}") from error
    # Messages of scikit-learn list the names of columns, however long they are.
    is_sentence = " " in text.strip() and (len(text) < LONGEST or not is_ours)
    if not is_sentence or (is_ours and "\n" in text):
        raise FaultError(f"not a sentence: {where}") from error
    return "NotFittedError" if isinstance(error, NotFittedError) else name


def _check_warnings(caught):
    for warning in caught:
        kind, text = warning.category, str(warning.message)
        if issubclass(kind, SearchWarning):
            if any(crash in text for crash in CRASHES):
                raise FaultError(f"trials crashed: {brief(text)}")
        elif not (issubclass(kind, ALLOWED) or _is_from_sklearn(warning)):
            position = Path(warning.filename).name
            raise FaultError(
                f"{kind.__name__} at {position}:{warning.lineno}: {brief(text)}"
            )


def _is_from_sklearn(warning):
    """True if scikit-learn itself warns about y or about a scorer."""
    is_plain = warning.category in (UserWarning, FutureWarning)
    is_there = SKLEARN in Path(warning.filename).parents
    return is_plain and (is_there or "number of unique classes" in str(warning.message))


def check_search(model):
    """Assert that a search leaves no NaN and no caught crash."""
    for trial in model.history_:
        if trial.status == "failed" and any(c in trial.reason for c in CRASHES):
            raise FaultError(f"a trial crashed: {brief(trial.reason)}")
    if model.history_.succeeded and not np.isfinite(model.best_score_):
        raise FaultError(f"best_score_ is {model.best_score_}")
    weights = [member.weight for member in model.ensemble_.members]
    if not np.isclose(sum(weights), 1):
        raise FaultError(f"weights of members are {weights}")


def check_predictions(model, X, case):
    """Assert shape, finite values, and predictions that do not depend on other rows."""
    n = len(X) if hasattr(X, "__len__") else 1
    together = _answers(model, X, n)
    rows = np.arange(n)[::-1]
    _check_close(_answers(model, _take(X, rows), n)[rows], together, "reversed")
    alone = np.random.default_rng(case.seed).integers(n, size=min(n, 2))
    for row in alone:
        one = _answers(model, _take(X, np.array([row])), 1)
        _check_close(one, together[row : row + 1], "alone")


def _answers(model, X, n):
    """Return probabilities or values, after checking them."""
    predicted = model.predict(X)
    if len(predicted) != n:
        raise FaultError(f"{len(predicted)} predictions for {n} rows")
    if not hasattr(model, "classes_"):
        if not np.isfinite(predicted).all():
            raise FaultError(f"predictions are not finite: {brief(predicted)}")
        return predicted
    shares = model.predict_proba(X)
    if not (np.isfinite(shares).all() and (shares >= 0).all() and (shares <= 1).all()):
        raise FaultError(f"probabilities are {brief(shares)}")
    if isinstance(model.classes_, list):
        is_right = predicted.shape == shares.shape == (n, len(model.classes_))
        is_right &= bool(np.isin(predicted, [0, 1]).all())
    else:
        is_right = shares.shape == (n, len(model.classes_))
        is_right &= predicted.shape == (n,)
        is_right &= bool(np.allclose(shares.sum(axis=1), 1, atol=1e-5))
        is_right &= set(predicted.tolist()) <= set(model.classes_.tolist())
    if not is_right:
        raise FaultError(f"classes {brief(predicted)} of {brief(shares)}")
    return shares


def _check_close(found, wanted, how):
    with np.errstate(all="ignore"):
        unit = np.abs(wanted).max() or 1.0
        if not np.allclose(found / unit, wanted / unit, rtol=0, atol=CLOSE):
            raise FaultError(f"other predictions {how}: {brief(found)} {brief(wanted)}")


def _take(X, rows):
    if hasattr(X, "iloc"):
        return X.iloc[rows]
    if isinstance(X, list | tuple):
        return type(X)(X[row] for row in rows)
    if isinstance(X, torch.Tensor):
        return X[torch.tensor(rows.copy())]
    return np.asanyarray(X)[rows]


def _copied(given):
    """Return a copy to compare with, or None if it can't be copied."""
    try:
        return copy.deepcopy(given)
    except Exception:  # a memory view
        return None


def _same(given, before):
    if before is None:
        return True
    return all(_equal(a, b) for a, b in zip(given, before, strict=True))


def _equal(a, b):
    if isinstance(a, pd.DataFrame):
        same = a.dtypes.equals(b.dtypes) and a.index.equals(b.index)
        return same and _equal(a.to_numpy(object), b.to_numpy(object))
    if isinstance(a, pd.Series):
        return a.dtype == b.dtype and _equal(a.to_numpy(object), b.to_numpy(object))
    if isinstance(a, np.ndarray) and a.dtype != object:
        return a.tobytes() == b.tobytes() and a.shape == b.shape
    if isinstance(a, np.ndarray):
        a, b = a.tolist(), b.tolist()  # the repr of an array is truncated
    if isinstance(a, memoryview):
        return a.tobytes() == b.tobytes()
    return _shown(a) == _shown(b)


def _shown(value):
    """Return a value as text, without the addresses of objects."""
    return re.sub("0x[0-9a-fA-F]+", "", repr(value))
