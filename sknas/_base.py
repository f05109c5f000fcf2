"""What the two estimators share: the line from X and y to what predicts."""

from __future__ import annotations

import math
import os
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from numbers import Integral
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
)
from threadpoolctl import threadpool_limits

from sknas._budget import Budget, plan_budget
from sknas._checkpoint.fingerprint import describe_search
from sknas._checkpoint.folder import open_checkpoint
from sknas._checkpoint.warm_start import PreviousSearch
from sknas._data import (
    ImageReader,
    Reader,
    TableReader,
    TargetReader,
    as_array,
    n_dimensions,
)
from sknas._data.prepare import Data, encode_fold, read_data, split_rows
from sknas._data.splits import Split, check_folds
from sknas._ensemble.refit import build_from_folds, refit, refit_seconds
from sknas._ensemble.selection import Selection, choose_members
from sknas._history import DIVERGED, INTERRUPTED, History, Trial, count_reasons
from sknas._parallel.run import count_workers
from sknas._problem import Problem, Store
from sknas._resolve import draw_seed, find_part
from sknas._results import cv_results
from sknas._scoring.baselines import default_score, simple_scores
from sknas._scoring.scorer import RowLoss, find_scorer, make_scorer, reads_probabilities
from sknas._search.constraints import make_feasible
from sknas._search.loop import Search, count_reevaluated, initial_design
from sknas._search.progress import Progress
from sknas._search.signals import Signals
from sknas._validation import (
    brief,
    check_integer,
    check_positive,
    check_word,
    is_word,
    reject,
    warn_user,
)
from sknas.exceptions import SearchFailedError
from sknas.spaces import SPACES, Space
from sknas.strategies import STRATEGIES, GradientStrategy, Strategy
from sknas.trainers import TRAINERS, PopulationTrainer, TensorNet, Trainer
from sknas.trainers._population import can_be_batched
from sknas.trainers._successive_halving import CohortTrainer

AUTO_ENSEMBLE = 8  # architectures of ``ensemble_size=None`` at the most
BAGGED_SHARE = 0.6  # of all rows that each fold must have trained on
FIRST_SHARE = 0.75  # of the time for the default network, before any pace is known
OTHERS_SHARE = 0.2  # of the time for further networks of the ensemble
CHOICE_SHARE = 0.04  # of the time for choosing and weighing members
MARGIN = 0.2  # seconds for what comes between search and refit
CHUNK_CELLS = 2**24  # encoded cells that `predict` holds at once


class BaseNAS(BaseEstimator, ABC):
    """What both estimators share; see `NASClassifier` and `NASRegressor`."""

    _is_classifier: bool

    @abstractmethod
    def predict(self, X: Any) -> np.ndarray:
        """Predict the target of each row."""

    def __init__(
        self,
        search_space: str | Space = "auto",
        strategy: str | Strategy = "bayesian",
        trainer: str | Trainer = "auto",
        *,
        max_trials: int | None = None,
        max_time: float | None = None,
        max_epochs: int | None = None,
        cv: Any = "auto",
        scoring: Any = None,
        ensemble_size: int | None = None,
        categorical_features: Any = "from_dtype",
        image_shape: tuple[int, ...] | None = None,
        channel_axis: str | int = "auto",
        constraints: Any = None,
        device: str = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
        checkpoint: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.search_space = search_space
        self.strategy = strategy
        self.trainer = trainer
        self.max_trials = max_trials
        self.max_time = max_time
        self.max_epochs = max_epochs
        self.cv = cv
        self.scoring = scoring
        self.ensemble_size = ensemble_size
        self.categorical_features = categorical_features
        self.image_shape = image_shape
        self.channel_axis = channel_axis
        self.constraints = constraints
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.warm_start = warm_start
        self.verbose = verbose

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Search architectures; the best of them are what predicts.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features), or images
            Numbers, categories, strings and booleans; missing values are read. Images
            are arrays of 3 dimensions (n_samples, height, width), or of 4 with
            channels, or flat rows and `image_shape`: 8 bits or floats of any scale.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The targets.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts, everywhere: a weight of 2 is the row given
            twice, a weight of 0 the row left out. Weights that sum to less than the
            number of rows are scaled up to it.
        groups : array-like of shape (n_samples,), default=None
            Rows of one group are never split between training and validation.

        Returns
        -------
        self
            The fitted estimator. Ctrl-C ends the search and returns the best so far.

        Raises
        ------
        InvalidParameterError
            If a parameter is wrong; it is a ValueError and a TypeError.
        ValueError
            If X or y can't be used.
        SearchFailedError
            If no architecture could be trained.
        """
        # One thread a process: workers do not take each other's cores.
        with Signals(self.checkpoint is not None), threadpool_limits(limits=1):
            self._fit(X, y, sample_weight, groups)
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any, groups: Any) -> None:
        started = time.monotonic()
        self._check_parameters(X)
        # What an earlier fit left must not predict with what this one reads.
        self.__dict__.pop("ensemble_", None)
        data, seed, X = self._read_training_data(X, y, sample_weight, groups)
        caller_name, parts = type(self).__name__, {}
        if self.checkpoint is not None or self.warm_start:
            parts = describe_search(
                self, data, self._target.classes_, self._find_device()
            )
        previous = self._find_previous(parts)
        if previous is not None:
            seed = previous.seed
            parts["begun_from"] = previous.digest
        with ExitStack() as stack:
            records = self._find_trainer().records
            store = open_checkpoint(stack, caller_name, self.checkpoint, parts, records)
            # A search that goes on does so with the seed and in the time that it had.
            seed = store.kept("seed", seed)
            started -= store.seconds
            self._search_in(data, seed, X, started, store, previous, parts)
        self.search_time_ = time.monotonic() - started

    def _find_previous(self, parts: dict[str, str]) -> PreviousSearch | None:
        """The search that this one adds to."""
        if not self.warm_start:
            self.__dict__.pop("_previous_search", None)
        previous: PreviousSearch | None = getattr(self, "_previous_search", None)
        if previous is not None:
            previous.check(type(self).__name__, parts)
        return previous

    def _search_in(
        self,
        data: Data,
        seed: int,
        X: Any,
        started: float,
        store: Store,
        previous: PreviousSearch | None,
        parts: dict[str, str],
    ) -> None:
        """From data that were read to the fitted estimator."""
        sides = self._reader.sides
        budget = plan_budget(
            data.weight.sum(),
            self.max_trials,
            self.max_time,
            n_columns=self.n_features_in_,
            is_batched=self._is_batched(),
            n_pixels=None if sides is None else math.prod(sides),
            relative_cost=self._space.relative_cost(sides),
            time_share=self._find_strategy().time_share,
        )
        if previous is not None:
            budget = previous.bounded(budget)
        space, problem = self._make_problem(data, budget, seed, X, started)
        problem = replace(problem, store=store)
        with Progress(self.verbose, budget.n_trials, self.max_time) as progress:
            simple = simple_scores(problem)
            self._check_score(problem, simple["dummy"])
            history = self._search(space, problem, budget, seed, progress, previous)
            self.baseline_scores_ = {"default": default_score(history), **simple}
            progress.note("refit")
            self._finish(space, problem, history)
        if self.warm_start:
            self._previous_search = PreviousSearch(parts, seed, budget, history)

    def _check_parameters(self, X: Any) -> None:
        caller_name = type(self).__name__
        check_integer(caller_name, "max_trials", self.max_trials, 1, optional=True)
        check_positive(caller_name, "max_time", self.max_time, optional=True)
        check_integer(caller_name, "max_epochs", self.max_epochs, 1, optional=True)
        check_integer(
            caller_name, "ensemble_size", self.ensemble_size, 1, optional=True
        )
        if not isinstance(self.verbose, bool):
            check_integer(caller_name, "verbose", self.verbose, 0)
        if self.checkpoint is not None and not isinstance(
            self.checkpoint, str | os.PathLike
        ):
            reject(caller_name, "checkpoint", self.checkpoint, "a folder or None")
        if not isinstance(self.warm_start, bool):
            reject(caller_name, "warm_start", self.warm_start, "True or False")
        check_folds(caller_name, self.cv)
        is_count = isinstance(self.n_jobs, Integral) and self.n_jobs != 0
        if self.n_jobs is not None and (not is_count or self.n_jobs is True):
            reject(caller_name, "n_jobs", self.n_jobs, "None or an int other than 0")
        try:
            check_random_state(self.random_state)
        except ValueError:
            allowed = "an int from 0 to 2**32 - 1, a RandomState or None"
            reject(caller_name, "random_state", self.random_state, allowed)
        self._find_strategy()
        self._space = self._find_space(X)
        self._space.check()
        self._make_reader()
        self._find_trainer()
        self.scorer_ = find_scorer(caller_name, self.scoring, self._is_classifier)
        self._find_device()

    def _check_score(self, problem: Problem, score: float) -> None:
        """Refuse a scorer that can't score this target, before anything is trained."""
        why = getattr(problem.score, "reason", "")
        if np.isnan(score) and why:
            raise ValueError(
                f"The 'scoring' parameter of {type(self).__name__} must fit y, "
                f"got {brief(self.scoring)}: {why.rstrip('.')}."
            )

    def _find_space(self, X: Any) -> Space:
        """What can be built, where "auto" of what X is like."""
        caller_name = type(self).__name__
        auto = "table"
        if self.image_shape is not None or n_dimensions(X) in (3, 4):
            strategy = find_part(
                caller_name, "strategy", self.strategy, STRATEGIES, Strategy
            )
            # Of the spaces of images only cells can be relaxed.
            auto = "cell" if isinstance(strategy, GradientStrategy) else "image"
        known = {"auto": SPACES[auto], **SPACES}
        return find_part(caller_name, "search_space", self.search_space, known, Space)

    def _find_strategy(self) -> Strategy:
        caller_name = type(self).__name__
        return find_part(caller_name, "strategy", self.strategy, STRATEGIES, Strategy)

    def _make_reader(self) -> Reader:
        """A reader of what the space reads."""
        caller_name, space = type(self).__name__, self._space
        reads = check_word(
            type(space).__name__, "reads", space.reads, ("table", "image")
        )
        columns = self.categorical_features
        if reads == "image":
            if columns is not None and not is_word(columns, "from_dtype"):
                allowed = "'from_dtype' or None for images"
                reject(caller_name, "categorical_features", columns, allowed)
            return ImageReader(caller_name, self.image_shape, self.channel_axis)
        if self.image_shape is not None:
            reject(caller_name, "image_shape", self.image_shape, "None for a table")
        if not is_word(self.channel_axis, "auto"):
            reject(caller_name, "channel_axis", self.channel_axis, "'auto' for a table")
        return TableReader(caller_name, columns)

    def _is_batched(self) -> bool:
        """Whether networks of one shape are trained as one."""
        return isinstance(self._find_trainer(), PopulationTrainer)

    def _find_trainer(self) -> Trainer:
        # Spaces of tables can be built as batched networks, others may not.
        is_batched = can_be_batched(self._space)
        usual = TRAINERS["population" if is_batched else "skorch"]
        known = {"auto": usual, **TRAINERS}
        name = type(self).__name__
        return find_part(name, "trainer", self.trainer, known, Trainer)

    def _find_device(self) -> str:
        if is_word(self.device, "auto"):
            return "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(self.device)
        except (RuntimeError, TypeError, ValueError):
            device = torch.device("meta")
        known = ["cpu"]
        if torch.cuda.is_available():
            known += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        if str(device) not in known:
            allowed = "'auto' or a device of this machine: " + " or ".join(known)
            reject(type(self).__name__, "device", self.device, allowed)
        return str(self.device)

    def _read_training_data(
        self, X: Any, y: Any, sample_weight: Any, groups: Any
    ) -> tuple[Data, int, Any]:
        """Read and check what `fit` was given; fits the readers."""
        caller_name = type(self).__name__
        if y is None:
            raise ValueError(
                f"This {caller_name} estimator requires y to be passed, but the target "
                "y is None"
            )
        self._reader = self._make_reader()
        X = self._reader.check(self, X, reset=True)
        if not hasattr(y, "to_numpy"):  # a series or frame keeps its dtype
            y = as_array(y)
        check_consistent_length(X, y, groups)
        weight = _check_sample_weight(
            sample_weight, X, dtype=np.float64, ensure_non_negative=True
        )
        if not weight.any():
            raise ValueError(
                "Sample weights must contain at least one non-zero number, all are 0."
            )
        self._target = TargetReader(self._is_classifier)
        data = read_data(
            X,
            y,
            weight,
            groups,
            reader=self._reader,
            target=self._target,
            cv=self.cv,
            class_weight=getattr(self, "class_weight", None),
        )
        return data, draw_seed(self.random_state), X

    def _make_problem(
        self, data: Data, budget: Budget, seed: int, X: Any, started: float
    ) -> tuple[Space, Problem]:
        """Split, encode each split, and encode all rows for the refit."""
        target = self._target
        probabilistic = reads_probabilities(self.scorer_)
        encode = partial(encode_fold, data, target=target, probabilistic=probabilistic)
        caller_name = type(self).__name__
        splits = split_rows(data, caller_name, self.cv, target, budget.n_folds, seed)
        folds = tuple(encode(split) for split in splits)
        all_rows = Split(np.arange(len(data)), np.arange(0))
        full = encode(all_rows)
        space = self._space.for_task(full.task)
        deadline = None
        if self.max_time is not None:
            # A search whose time was over when it was broken off can still end.
            least = MARGIN + CHOICE_SHARE * self.max_time
            deadline = max(started + self.max_time, time.monotonic() + least)
        return space, Problem(
            task=full.task,
            folds=folds,
            full=full,
            n_rows=len(data),
            score=make_scorer(self.scorer_, self.scoring, X, data, target),
            loss=RowLoss(data.y, data.loss_weight, target.kind_),
            feasible=make_feasible(caller_name, self.constraints, space, full.task),
            n_steps=budget.n_steps,
            max_epochs=self.max_epochs,
            device=self._find_device(),
            deadline=deadline,
            n_jobs=count_workers(self.n_jobs),
            seed=seed,
        )

    def _search(
        self,
        space: Space,
        problem: Problem,
        budget: Budget,
        seed: int,
        progress: Progress,
        previous: PreviousSearch | None,
    ) -> History:
        strategy = self._find_strategy()
        # Where one network predicts, luck chooses it; an ensemble has others beside it.
        n_reevaluated = (
            count_reevaluated(budget.n_trials) if self.ensemble_size == 1 else 0
        )
        search = Search(
            space=space,
            strategy=strategy,
            trainer=self._find_trainer(),
            problem=problem,
            seed=seed,
            max_trials=budget.n_trials,
            n_proposals=min(budget.n_proposals, self._find_trainer().n_proposals),
            deadline=partial(self._search_deadline, problem),
            on_trials=progress.show,
            n_reevaluated=n_reevaluated,
            previous=History() if previous is None else previous.history,
        )
        first = initial_design(self._space, problem.task, problem.feasible)
        history = search.run(first if strategy.needs_initial_design else first[:1])
        # Without the data and the networks that it may hold.
        self.strategy_ = search.strategy.summary()
        return history

    def _search_deadline(self, problem: Problem, history: History) -> float | None:
        """When to stop searching, so that the refit fits into the time."""
        if problem.deadline is None or self.max_time is None:
            return None
        keeps_networks = isinstance(self._find_trainer(), CohortTrainer)
        if keeps_networks and self._is_bagged(problem):
            return problem.deadline - MARGIN - CHOICE_SHARE * self.max_time
        if not history.succeeded:
            return problem.deadline - (1 - FIRST_SHARE) * self.max_time
        best = history.succeeded[: self._ensemble_size()]
        first, *others = (1.2 * refit_seconds(trial) for trial in best)
        # The others of the ensemble are worth some search, the first is a must.
        others_share = min(sum(others) / problem.n_jobs, OTHERS_SHARE * self.max_time)
        reserve = min(first, 0.5 * self.max_time) + others_share
        return problem.deadline - MARGIN - reserve

    def _ensemble_size(self) -> int:
        return AUTO_ENSEMBLE if self.ensemble_size is None else int(self.ensemble_size)

    def _finish(self, space: Space, problem: Problem, history: History) -> None:
        """From the history to the fitted attributes."""
        is_cut = False
        if history.succeeded:
            _warn_of_failures(history)
            best = history.best
        else:
            best = self._make_do(space, problem, history)
        chosen = Selection((best,))
        try:
            if history.succeeded:
                chosen = choose_members(history, problem, self._ensemble_size())
        except KeyboardInterrupt:
            is_cut = True
        if chosen.has_networks and self._is_bagged(problem):
            trainer = clone(self._find_trainer())
            trainer.setup(space)
            try:
                self.ensemble_ = build_from_folds(chosen, trainer, problem)
            except KeyboardInterrupt:  # all is there, and soon put together
                is_cut = True
                self.ensemble_ = build_from_folds(chosen, trainer, problem)
        else:
            is_cut |= self._refit(chosen, space, problem, history)
        self._reader.forget([encoder for encoder, _ in self.ensemble_.encodings])
        self.search_space_ = space
        self.best_architecture_ = best.architecture
        self.best_score_ = float("nan") if best.score is None else best.score
        self.history_ = history.without_predictions()
        self.cv_results_ = cv_results(self.history_)
        self.n_trials_ = len(history)
        self.stop_reason_ = INTERRUPTED if is_cut else history.stop_reason
        if self._is_classifier:
            self.classes_ = self._target.classes_

    def _is_bagged(self, problem: Problem) -> bool:
        """Whether the networks of the folds are the answer, not one of all rows.

        Each of them saw most rows, and their mean is better than one that saw all.
        """
        if self._ensemble_size() == 1:
            return False
        total = problem.full.train.weight.sum() if problem.full else 0.0
        return all(
            fold.train.weight.sum() >= BAGGED_SHARE * total for fold in problem.folds
        )

    def _refit(
        self, chosen: Selection, space: Space, problem: Problem, history: History
    ) -> bool:
        """Train the chosen trials on all rows; True if Ctrl-C ended that."""
        taken = [trial.proposal.number for trial in chosen.trials]
        fallbacks = [t for t in history.succeeded if t.proposal.number not in taken]
        refitted = refit(chosen, fallbacks, space, problem)
        if refitted.failures:
            reasons = "; ".join(refitted.failures)
            warn_user(f"Some networks could not be trained on all rows: {reasons}.")
        self.ensemble_ = refitted.ensemble
        return refitted.is_interrupted

    def _make_do(self, space: Space, problem: Problem, history: History) -> Trial:
        """The default network, where time ended before any trial did."""
        if history.stop_reason == INTERRUPTED:
            raise KeyboardInterrupt
        if any(trial.status == "failed" for trial in history):
            raise SearchFailedError(
                f"None of {len(history)} trials succeeded, {count_reasons(history)}."
            )
        first = list(history) or [
            Trial(p)
            for p in initial_design(self._space, problem.task, problem.feasible)
        ]
        if history.stop_reason != "max_time" or not first:
            raise SearchFailedError(
                "No architecture that keeps the constraints was found, loosen "
                "'constraints'."
            )
        warn_user(
            f"max_time={self.max_time!r} seconds are too short to validate one "
            "network: the default one is trained as far as time allows, without a "
            "score; give more time."
        )
        return Trial(first[0].proposal)

    @property
    def network_(self) -> TensorNet:
        """The skorch net of `ensemble_`'s heaviest member."""
        check_is_fitted(self)
        return self.ensemble_.members[0].network

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "ensemble_")

    def _predictions(self, X: Any) -> np.ndarray:
        """Probabilities or values (N, C), a bounded number of rows at a time."""
        check_is_fitted(self)
        X = self._reader.check(self, X, reset=False)
        n_columns = max(self.n_features_in_, 1) * 64
        least = self._reader.least_rows
        n_rows = int(np.clip(CHUNK_CELLS // n_columns, least, 65_536))
        parts = []
        for start in range(0, len(X), n_rows):
            rows = slice(start, start + n_rows)
            part = X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]
            parts.append(self.ensemble_.predict(self._reader.read(part)))
        return np.concatenate(parts)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.target_tags.multi_output = True
        return tags


def _warn_of_failures(history: History) -> None:
    """Warn, unless only a few bold proposals diverged: those are part of a search."""
    failed = [trial for trial in history if trial.status == "failed"]
    are_few = 2 * len(failed) < len(history)
    if failed and not (are_few and all(t.reason == DIVERGED for t in failed)):
        reasons = count_reasons(failed)
        warn_user(f"{len(failed)} of {len(history)} trials failed: {reasons}.")
