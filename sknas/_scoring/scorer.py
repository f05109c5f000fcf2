"""Scores of predictions by any scikit-learn scorer, and their loss."""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import (
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass
from numbers import Number
from statistics import median_low
from typing import Any

import numpy as np
import torch
from sklearn.dummy import DummyClassifier
from sklearn.metrics import check_scoring, get_scorer, get_scorer_names
from sklearn.utils import _safe_indexing

from sknas._data.prepare import Data
from sknas._data.reader import Reader
from sknas._data.target import TargetReader
from sknas._problem import PredictionScorer, Score
from sknas._scoring.class_labels import reads_probabilities, with_classes
from sknas._scoring.metrics import Metric, count_repetitions, find_metric
from sknas._scoring.stored import (
    StoredClassifier,
    StoredRegressor,
    UserRows,
    row_hashes,
)
from sknas._training.isolation import RNG_LOCK
from sknas._training.seeds import global_random_state, seed_globally
from sknas._validation import did_you_mean, reject, short_repr

RETURNED = "the scorer returned"  # begins the reason if no error was raised
LOWEST = -1e300  # stands for minus infinity, to which squares of huge errors overflow
N_TIMED = 5  # latest calls whose seconds are kept; one may be an outlier
MIN_PROBABILITY = 1e-7  # lower bound in the log-loss, to keep it finite


def find_scorer(
    caller_name: str, scoring: Any, is_classifier: bool
) -> Callable[..., float]:
    """Return the scorer of a name or a callable; accuracy or R2 for None.

    Raises
    ------
    InvalidParameterError
        If `scoring` is neither a known name nor callable.
    """
    if scoring is None:
        scoring = "accuracy" if is_classifier else "r2"
    if isinstance(scoring, str):
        if scoring not in get_scorer_names():
            allowed = "a scikit-learn scorer name"
            advice = did_you_mean(scoring, get_scorer_names())
            reject(caller_name, "scoring", scoring, allowed, advice)
        return get_scorer(scoring)
    if not callable(scoring):
        reject(caller_name, "scoring", scoring, "a scorer name, a callable or None")
    return check_scoring(DummyClassifier(), scoring=scoring)


def takes_weight(scorer: Callable[..., float]) -> bool:
    """Return True if a scorer's metric has the parameter `sample_weight`."""
    function = getattr(scorer, "_score_func", scorer)
    try:
        return "sample_weight" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a callable of C code may have no signature
        return False


def reads_rows(scorer: Callable[..., float]) -> bool:
    """Return True unless a scorer only hands X on to the estimator."""
    return not type(scorer).__module__.startswith("sklearn.")


@dataclass(eq=False)
class RowScorer(PredictionScorer):
    """Scores predictions for rows of a table with a scikit-learn scorer.

    Parameters
    ----------
    scorer : callable
        (estimator, X, y[, sample_weight]) -> float, greater is better.
    rows : UserRows or None
        Rows of X for a scorer that may read them; None for scorers of scikit-learn,
        which don't.
    y : ndarray of shape (N,) or (N, C)
        Targets: class labels, 0/1 labels or values.
    weight : ndarray of shape (N,)
        How often each row counts.
    classes : ndarray, list of ndarray or None
        The classes; a list for multi-label targets, None for regression.
    metric : Metric or None, default=None
        The same scorer for several networks at once, see `sknas._scoring.metrics`.
    codes : ndarray of shape (N,) or (N, C) or None, default=None
        Targets that `metric` reads, None for `y`.
    """

    scorer: Callable[..., float]
    rows: UserRows | None
    y: np.ndarray
    weight: np.ndarray
    classes: Any
    metric: Metric | None = None
    codes: np.ndarray | None = None

    def __post_init__(self) -> None:
        # Where warnings of the scorer were issued; None in a worker, which shows none.
        self._shown: set[tuple[Any, ...]] | None = set()
        # Only metrics of scikit-learn: the user's own may have any scale, and draw.
        module = getattr(getattr(self.scorer, "_score_func", None), "__module__", "")
        self.is_known = module.startswith("sklearn.")
        is_classifier = self.classes is not None
        self.is_piecewise_constant = (
            self.is_known and is_classifier and not reads_probabilities(self.scorer)
        )
        self.takes_weight = takes_weight(self.scorer)
        self.scorer = with_classes(self.scorer, self.classes)
        self.is_vectorised = self.metric is not None
        self.refusal = ""  # why a call was refused, if one was
        self._seconds: list[float] = []  # of the latest calls

    def score(
        self,
        predictions: np.ndarray,
        rows: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> Score:
        with self._alone():
            return self._score(predictions, rows, weight)

    def score_each(
        self,
        predictions: np.ndarray,
        rows: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> list[Score]:
        if self.metric is None or len(rows) < 2:
            with self._alone():
                return [self._score(each, rows, weight) for each in predictions]
        weight = self.weight[rows] if weight is None else weight
        y = self.y if self.codes is None else self.codes
        arrays = (predictions, y[rows], np.round(weight, 9))
        values = self.metric(*map(torch.from_numpy, arrays)).tolist()
        return [Score(max(value, LOWEST)) for value in values]

    def _score(
        self, predictions: np.ndarray, rows: np.ndarray, weight: np.ndarray | None
    ) -> Score:
        """Call the scorer with weights, or with repeated rows if it takes none."""
        weight = self.weight[rows] if weight is None else weight
        weight = np.round(weight, 9)  # undo rounding errors: whole weights stay whole
        if not weight.any():  # the weights of their classes are 0
            return Score(float("nan"), "all rows have weight 0")
        if len(rows) == 1:
            # R2 needs two rows, and a table of one row has no others to pool with.
            n_times = 2 if len(self.y) == 1 else 1
            return self._call(predictions.repeat(n_times, 0), rows.repeat(n_times), {})
        if np.all(weight == 1):
            return self._call(predictions, rows, {})
        if self.takes_weight:
            score = self._call(predictions, rows, {"sample_weight": weight})
            # Some metrics reject every weight.
            if not np.isnan(score.value) or score.is_refused:
                return score
        repeats = count_repetitions(weight)
        return self._call(predictions.repeat(repeats, 0), rows.repeat(repeats), {})

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy for a worker."""
        return vars(self) | {"_shown": None}

    def _call(
        self, predictions: np.ndarray, rows: np.ndarray, options: dict[str, Any]
    ) -> Score:
        """Call the scorer with an estimator that has these predictions for the rows."""
        part = UserRows(np.empty((len(rows), 1)))
        if self.rows is not None:
            part = self.rows.take(rows)
        cls = StoredRegressor if self.classes is None else StoredClassifier
        estimator = cls.of(predictions, self.classes, part)
        if not self.is_known:
            seed_globally(0)  # what a scorer draws is the same for all networks
        started = time.monotonic()
        try:
            with self._showing_once(), np.errstate(all="ignore"):
                found = self.scorer(estimator, part.X, self.y[rows], **options)
            value = as_number(found)
            if self.is_known:
                value = max(value, LOWEST)
        except Exception as error:  # for example, a fold lacks a class
            text = " ".join(str(error).split())
            parts = [type(error).__name__, text.replace(cls.__name__, cls.public_name)]
            # scikit-learn's averages divide by the weights of classes, which may be 0.
            is_usual = self.is_known and isinstance(error, ZeroDivisionError)
            is_expected = (is_usual or isinstance(error, ValueError)) and parts[1]
            reason = ": ".join(filter(None, parts[1:] if is_expected else parts))
            value = float("nan")
        else:
            shown = "NaN" if np.isnan(value) else value
            reason = "" if np.isfinite(value) else f"{RETURNED} {shown}"
        self._seconds = [*self._seconds[1 - N_TIMED :], time.monotonic() - started]
        self.call_seconds = median_low(self._seconds)
        if part.refusal:
            self.refusal = part.refusal
            return Score(float("nan"), part.refusal, is_refused=True)
        return Score(value, reason)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Call the scorer while no other thread trains, or calls one.

        Generators and filters of warnings are those of the whole process.
        """
        with RNG_LOCK, nullcontext() if self.is_known else global_random_state():
            yield

    @contextmanager
    def _showing_once(self) -> Iterator[None]:
        """Show each warning of the scorer once; a metric would repeat its own ones."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", RuntimeWarning)  # a mean of no classes
            yield
        for warning in caught:
            where = (warning.category, warning.filename, warning.lineno)
            if self._shown is not None and where not in self._shown:
                self._shown.add(where)
                warnings.warn_explicit(warning.message, *where)


def as_number(value: Any) -> float:
    """Return the result of a scorer as a float.

    Raises
    ------
    TypeError
        If it is not a single real number.
    """
    found = value
    with suppress(AttributeError, TypeError, ValueError, RuntimeError):
        found = value.item()  # of an array or a tensor of one number
    if not isinstance(found, Number) or isinstance(found, complex):
        raise TypeError(
            f"the scorer must return one real number, got {short_repr(value)}"
        )
    return float(found)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class RowLoss:
    """Mean log-loss, or squared error up to a factor, of predictions for rows.

    Parameters
    ----------
    y : ndarray of shape (N,) or (N, C)
        Class codes, 0/1 labels, or values.
    weight : ndarray of shape (N,)
        How often each row counts.
    kind : {"binary", "multiclass", "multilabel", "regression"}
        The kind of target.
    """

    y: np.ndarray
    weight: np.ndarray
    kind: str

    def __call__(
        self,
        predictions: np.ndarray,
        rows: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> Any:
        """Return the loss (...) of predictions (..., N', C) for the given rows."""
        y = self.y[rows]
        weight = self.weight[rows] if weight is None else weight
        if self.kind == "regression":
            scale = np.abs(self.y).max() or 1.0  # squares of huge values overflow
            losses = ((predictions / scale - y / scale) ** 2).mean(axis=-1)
        elif self.kind == "multilabel":
            likelihood = np.where(y > 0, predictions, 1 - predictions)
            losses = -np.log(np.maximum(likelihood, MIN_PROBABILITY)).mean(axis=-1)
        else:
            likelihood = predictions[..., np.arange(len(rows)), y]
            losses = -np.log(np.maximum(likelihood, MIN_PROBABILITY))
        return np.average(losses, weights=weight, axis=-1)


def make_scorer(
    scorer: Callable[..., float],
    X: Any,
    data: Data,
    target: TargetReader,
    reader: Reader | None = None,
    attributes: dict[str, Any] | None = None,
) -> RowScorer:
    """Return a scorer of predictions for rows of the data.

    Parameters
    ----------
    scorer : callable
        (estimator, X, y[, sample_weight]) -> float, greater is better.
    X : array-like or data frame
        As the user gave it.
    data : Data
        The rows that were read from it.
    target : TargetReader
        Reads y; fitted.
    reader : Reader or None, default=None
        Reads X; fitted. None for a scorer that does not read X.
    attributes : dict of str to object or None, default=None
        Attributes of the estimator, such as `n_features_in_`.
    """
    y = data.y
    if target.kind_ in ("binary", "multiclass"):
        y = target.classes_[y]
    elif target.kind_ == "multilabel":
        y = y.astype(int)
    elif target.is_column_:
        y = y[:, 0]
    codes = data.y.astype(np.float64) if target.kind_ == "multilabel" else data.y
    rows = None
    if reads_rows(scorer):
        X = _safe_indexing(X, data.source_rows)
        rows = UserRows(X, row_hashes(data.x), reader, attributes or {})
    return RowScorer(
        scorer,
        rows,
        y,
        data.loss_weight,  # class weights count in the score, too
        target.classes_,
        metric=find_metric(scorer, target.kind_, target.classes_),
        codes=codes,
    )
