"""Inputs of strategies and trainers: the data and the context of a search."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from sknas._history import Architecture, Trial


@dataclass(frozen=True, eq=False)
class ImageSpec:
    """Layout and statistics of images.

    Encoded images are one array of shape (N, channels, height, width) in the dtype of
    the user, 8 bits or floats. The network scales them batch by batch, so the whole
    array is never copied.

    Parameters
    ----------
    shape : (int, int, int)
        Channels, height and width.
    mean, deviation : ndarray of shape (channels,), float32
        Statistics of each channel over the training rows.
    """

    shape: tuple[int, int, int]
    mean: np.ndarray
    deviation: np.ndarray


@dataclass(frozen=True, eq=False)
class TaskSpec:
    """Layout of the encoded rows and of the outputs of a network.

    An encoded table is one float array of shape (N, F): the numeric columns, then the
    two-valued ones, then one column of codes for each category. Code 0 stands for an
    unknown or rare level; known levels count from 1.

    Parameters
    ----------
    kind : {"binary", "multiclass", "multilabel", "regression"}
        The kind of target.
    n_outputs : int
        Columns of the output (C): classes, labels or targets.
    n_rows : int
        Size of the training table: the sum of its sample weights.
    n_numeric : int, default=0
        Numeric columns, robustly scaled into (-3, 3).
    n_binary : int, default=0
        Two-valued columns, -1 and +1 (0 if unknown).
    cardinalities : tuple of int, default=()
        Levels of each categorical column, code 0 not counted.
    edges : ndarray of shape (n_numeric, 49)
        Ascending quantiles of the numeric columns, for piecewise-linear encodings.
    probabilistic : bool, default=False
        True if the scorer reads probabilities rather than labels.
    image : ImageSpec or None, default=None
        The images; None for a table.
    """

    kind: str
    n_outputs: int
    n_rows: int
    n_numeric: int = 0
    n_binary: int = 0
    cardinalities: tuple[int, ...] = ()
    edges: np.ndarray = field(default_factory=lambda: np.zeros((0, 49), np.float32))
    probabilistic: bool = False
    image: ImageSpec | None = None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one encoded row: (F,), or (channels, height, width)."""
        return (self.n_columns,) if self.image is None else self.image.shape

    @property
    def n_columns(self) -> int:
        """Numbers in one encoded row (F)."""
        if self.image is not None:
            return math.prod(self.image.shape)
        return self.n_numeric + self.n_binary + len(self.cardinalities)

    @property
    def is_classification(self) -> bool:
        """True if the outputs are probabilities."""
        return self.kind != "regression"


@dataclass(frozen=True, eq=False)
class Rows:
    """Encoded rows: x (N, F) float32 or images, y (N,) or (N, C), weight (N,).

    Rows of one group are never split: groups (N,) of int, or None.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Fold:
    """One split, encoded by the statistics of its training rows alone.

    Parameters
    ----------
    task : TaskSpec
        The task as encoded by the statistics of these training rows.
    train, valid : Rows
        Rows to train on, and rows to score on.
    valid_rows : ndarray of int
        Row numbers of `valid` in the whole table.
    restore : callable
        Network output (..., C) -> predictions: probabilities or target values.
    encoder : Encoder
        Encodes further rows in the same way.
    is_single : bool, default=True
        True if single precision can hold the predictions.
    """

    task: TaskSpec
    train: Rows
    valid: Rows
    valid_rows: np.ndarray
    restore: Callable[[np.ndarray], np.ndarray]
    encoder: Any = None
    is_single: bool = True


class Score(NamedTuple):
    """A score, and the reason if it is undefined.

    Parameters
    ----------
    value : float
        Greater is better; NaN if undefined.
    reason : str, default=""
        Why the value is NaN or infinite, if that is known.
    is_refused : bool, default=False
        True if the scorer asks for what a search can't give it, whatever the model.
    """

    value: float
    reason: str = ""
    is_refused: bool = False


class PredictionScorer(ABC):
    """Scores predictions for rows of the training table.

    Attributes
    ----------
    is_piecewise_constant : bool
        True if small changes of predictions do not change the score, as in accuracy.
    is_vectorised : bool
        True if `score_many` scores all models at once, and quickly.
    call_seconds : float
        Seconds of a call of `score`, a median of the latest ones in this process.
    """

    is_piecewise_constant = False
    is_vectorised = False
    call_seconds = 0.0

    @abstractmethod
    def score(
        self,
        predictions: np.ndarray,
        rows: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> Score:
        """Score the predictions of one model.

        Parameters
        ----------
        predictions : ndarray of shape (N', C)
            Probabilities or target values.
        rows : ndarray of int of shape (N',)
            Indices of the rows in the training table.
        weight : ndarray of shape (N',) or None, default=None
            How often each row counts; None for the weights of the whole table.
        """

    def score_each(
        self,
        predictions: np.ndarray,
        rows: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> list[Score]:
        """Return the scores of the predictions (K, N', C) of K models."""
        return [self.score(each, rows, weight) for each in predictions]

    def score_many(
        self,
        predictions: np.ndarray,
        rows: np.ndarray,
        weight: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the values (K,) of these scores."""
        scores = self.score_each(predictions, rows, weight)
        return np.array([score.value for score in scores])


class Store(ABC):
    """Keeps results by key, so that they need not be computed again.

    Attributes
    ----------
    seconds : float
        Seconds of all runs that wrote to the store.
    """

    seconds = 0.0

    @abstractmethod
    def get(self, key: str) -> Any:
        """Return the value of a key, or None."""

    @abstractmethod
    def put(self, key: str, value: Any) -> None:
        """Keep a value, and replace an earlier one of the same key.

        Parameters
        ----------
        key : str
            One of `sknas._checkpoint.keys`.
        value : object
            Plain Python values, arrays, tensors, and registered dataclasses.
        """

    @abstractmethod
    def drop(self, key: str) -> None:
        """Delete values that are no longer needed.

        Parameters
        ----------
        key : str
            A key, or the prefix before a colon that several keys share.
        """

    def setdefault(self, key: str, value: Any) -> Any:
        """Return the value of a key; keep and return `value` if there is none."""
        found = self.get(key)
        if found is None:
            self.put(key, value)
            found = value
        return found


class NullStore(Store):
    """Keeps nothing: the store of a search without a checkpoint."""

    def get(self, key: str) -> Any:
        return None

    def put(self, key: str, value: Any) -> None:
        pass

    def drop(self, key: str) -> None:
        pass


def _always(architecture: Architecture) -> bool:
    return True


def _silent(trial: Trial) -> None:
    pass


@dataclass(frozen=True, eq=False)
class Problem:
    """The data of a search: encoded folds, and how predictions are scored.

    Parameters
    ----------
    task : TaskSpec or None
        The task on all rows; None in `sknas.search`, as are the folds.
    folds : tuple of Fold
        The splits that score a trial.
    full : Fold or None
        All rows and nothing to validate, for a refit.
    n_rows : int
        Rows of the table that out-of-fold predictions cover.
    scorer : PredictionScorer or None
        Scores predictions, greater is better.
    loss : callable or None
        (predictions, row numbers[, weights]) -> mean loss, smooth even where the score
        is piecewise constant.
    feasible : callable
        Architecture -> True if it keeps the constraints.
    n_steps : int
        Optimiser steps of a full training at the task's default batch size.
    max_epochs : int or None
        Maximum number of epochs.
    seed : int
        Seeds the randomness that all trials share, such as the order of rows.
    unscored_folds : tuple of int, default=()
        Folds in which no model has a score, such as an AUC of one class. The score of
        a trial is its mean over the others, and it needs all of them.
    scores_rungs : bool, default=True
        False if scores are so slow that networks are scored once, at the end of their
        training, and no trial is dropped before.
    """

    task: TaskSpec | None = None
    folds: tuple[Fold, ...] = ()
    full: Fold | None = None
    n_rows: int = 0
    scorer: PredictionScorer | None = None
    loss: Callable[..., float] | None = None
    feasible: Callable[[Architecture], bool] = _always
    n_steps: int = 0
    max_epochs: int | None = None
    seed: int = 0
    unscored_folds: tuple[int, ...] = ()
    scores_rungs: bool = True

    def for_worker(self) -> Problem:
        """Return the problem without the parts that workers do not need."""
        return replace(self, full=None, feasible=_always)


@dataclass(eq=False)
class RunContext:
    """The run of a search: device, deadline, workers, reports and store.

    Parameters
    ----------
    device : str, default="cpu"
        Where networks are trained.
    deadline : float or None, default=None
        End of the work on the monotonic clock, in seconds. The loop of a search moves
        the deadline of its trainer before each batch.
    n_jobs : int, default=1
        Worker processes that may be used.
    report : callable
        Called with each trial as soon as it is done, before the rest of its batch.
    store : Store
        Keeps results, so that a search that is resumed need not compute them again.
    """

    device: str = "cpu"
    deadline: float | None = None
    n_jobs: int = 1
    report: Callable[[Trial], None] = _silent
    store: Store = field(default_factory=NullStore)

    def for_worker(self) -> RunContext:
        """Return the context of a worker, which neither reports nor keeps results."""
        return replace(self, report=_silent, store=NullStore())

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline, infinite without one."""
        if self.deadline is None:
            return float("inf")
        return self.deadline - time.monotonic()
