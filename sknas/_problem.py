"""The frozen data that strategies and trainers read."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sknas._history import Architecture, Trial


@dataclass(frozen=True, eq=False)
class ImageSpec:
    """What the images of a task look like.

    Encoded images are one array of shape (N, channels, height, width), as they were
    given: 8 bits or floats. The network itself brings them to one scale, so that they
    are never copied whole.

    Parameters
    ----------
    shape : (int, int, int)
        Channels, height and width.
    mean, deviation : ndarray of shape (channels,), float32
        Of each channel, over the training rows.
    """

    shape: tuple[int, int, int]
    mean: np.ndarray
    deviation: np.ndarray


@dataclass(frozen=True, eq=False)
class TaskSpec:
    """What a network has to read and to answer.

    An encoded table is one float array of shape (N, F): first the numeric columns,
    then the two-valued ones, then one column of codes a category (0 is an unknown,
    rare or untrained level; the levels count from 1).

    Parameters
    ----------
    kind : {"binary", "multiclass", "multilabel", "regression"}
        The kind of target.
    n_outputs : int
        Columns of the answer (C): classes, labels or targets.
    n_rows : int
        Size of the training table: the sum of its weights.
    n_numeric : int, default=0
        Numeric columns, robustly scaled into (-3, 3).
    n_binary : int
        Two-valued columns, -1 and +1 (0 where unknown).
    cardinalities : tuple of int
        Levels of each categorical column, code 0 not counted.
    edges : ndarray of shape (n_numeric, 49)
        Quantiles of the numeric columns, ascending: for piecewise-linear encodings.
    probabilistic : bool, default=False
        Whether the score reads probabilities rather than labels.
    image : ImageSpec or None, default=None
        The images, where rows are images; a table has none.
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
        """The shape of one encoded row: (F,), or channels, height and width."""
        return (self.n_columns,) if self.image is None else self.image.shape

    @property
    def n_columns(self) -> int:
        """Numbers of an encoded row (F)."""
        if self.image is not None:
            return math.prod(self.image.shape)
        return self.n_numeric + self.n_binary + len(self.cardinalities)

    @property
    def is_classification(self) -> bool:
        """Whether the answer is a probability."""
        return self.kind != "regression"


@dataclass(frozen=True, eq=False)
class Rows:
    """Encoded rows: x (N, F) float32 or images, y (N,) or (N, C), weight (N,).

    Rows of one group, (N,) of int, are never parted; None where there are no groups.
    """

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    groups: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Fold:
    """One split, encoded by what its training rows alone told.

    Parameters
    ----------
    task : TaskSpec
        The task as the encoder of these training rows sees it.
    train, valid : Rows
        Rows to train on and to score on.
    valid_rows : ndarray of int
        Row numbers of `valid` in the whole table.
    restore : callable
        Network output (..., C) -> predictions: probabilities or target values.
    encoder : Encoder
        What encoded the rows.
    is_single : bool, default=True
        Whether single precision can hold predictions.
    """

    task: TaskSpec
    train: Rows
    valid: Rows
    valid_rows: np.ndarray
    restore: Callable[[np.ndarray], np.ndarray]
    encoder: Any = None
    is_single: bool = True


class Store(ABC):
    """Results by name: what is there need not be computed again.

    Attributes
    ----------
    seconds : float
        Seconds of all searches that wrote here, as far as they told.
    """

    seconds = 0.0

    @abstractmethod
    def get(self, key: str) -> Any:
        """What was put under a key, or None."""

    @abstractmethod
    def put(self, key: str, value: Any) -> None:
        """Keep a value; a later one of the same key takes its place.

        Parameters
        ----------
        key : str
            Its name.
        value : object
            Plain Python values, arrays, tensors, and records of what is trained.
        """

    @abstractmethod
    def drop(self, key: str) -> None:
        """Give back the room of the values that nobody will ask for.

        Parameters
        ----------
        key : str
            Of a value, or what the keys of several begin with, up to a colon.
        """

    def kept(self, key: str, value: Any) -> Any:
        """What is there under a key, or else a value, which then is."""
        there = self.get(key)
        if there is None:
            self.put(key, value)
            there = value
        return there


class NullStore(Store):
    """Keeps nothing: the journal of a search without a checkpoint."""

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
    """All that a strategy or a trainer may know of the work.

    Parameters
    ----------
    task : TaskSpec or None
        The task on all rows; None in `sknas.search`, as are the folds.
    folds : tuple of Fold
        The splits that score a trial.
    full : Fold or None
        All rows, nothing to validate: for refits.
    n_rows : int
        Rows of the table that out-of-fold predictions cover.
    score : callable or None
        (predictions, row numbers[, weights]) -> score, greater is better, NaN if
        undefined.
    loss : callable or None
        (predictions, row numbers[, weights]) -> mean loss, smooth where a score has
        steps.
    feasible : callable
        Whether an architecture keeps the constraints.
    n_steps : int
        Optimiser steps of a full training at the task's default batch size.
    max_epochs : int or None
        Upper bound of epochs.
    device : str
        Where networks are trained.
    deadline : float or None
        End of the work on the monotonic clock, in seconds.
    n_jobs : int
        Worker processes that may be used.
    seed : int
        Seeds what is random for all trials alike, such as the order of rows.
    report : callable
        Told each trial as soon as it is done, before its batch is.
    journal : Journal
        Keeps results, so that a search that is begun again need not compute them.
    """

    task: TaskSpec | None = None
    folds: tuple[Fold, ...] = ()
    full: Fold | None = None
    n_rows: int = 0
    score: Callable[..., float] | None = None
    loss: Callable[..., float] | None = None
    feasible: Callable[[Architecture], bool] = _always
    n_steps: int = 0
    max_epochs: int | None = None
    device: str = "cpu"
    deadline: float | None = None
    n_jobs: int = 1
    seed: int = 0
    report: Callable[[Trial], None] = _silent
    store: Store = field(default_factory=NullStore)

    def for_worker(self) -> Problem:
        """What a worker process is told: no refit, and nobody to ask or tell."""
        return replace(
            self, full=None, report=_silent, feasible=_always, store=NullStore()
        )

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline, infinite without one."""
        if self.deadline is None:
            return float("inf")
        return self.deadline - time.monotonic()
