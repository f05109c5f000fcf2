"""Base class of the two estimators: the line from X and y to an ensemble."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, Never, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from sknas._budget import Budget, Workload, plan_budget
from sknas._checkpoint import keys
from sknas._checkpoint.fingerprint import PREVIOUS, fingerprint
from sknas._checkpoint.folder import find_folder, open_checkpoint
from sknas._checkpoint.shared import register_search, warn_of_shared_search
from sknas._checkpoint.warm_start import PreviousSearch
from sknas._data.containers import read_container, set_data_tags
from sknas._data.prepare import Prepared, encode_fold, prepare, split_rows
from sknas._data.rare_classes import RareClasses
from sknas._data.splits import Split, check_folds
from sknas._ensemble.build import EnsembleBuilder, best_trial, fit_deadline
from sknas._ensemble.predictor import Ensemble
from sknas._history import History, StopReason, Trial
from sknas._problem import Problem, RunContext, Store
from sknas._resolve import Parts, draw_seed, resolve
from sknas._results import cv_results
from sknas._scoring.baselines import default_score
from sknas._scoring.class_labels import reads_probabilities
from sknas._scoring.pilot import seconds_of_a_call
from sknas._scoring.scorer import RowLoss, RowScorer, make_scorer
from sknas._scoring.scorer_check import ScorerCheck
from sknas._search.constraints import failure_of, make_feasible
from sknas._search.loop import Search
from sknas._search.progress import Progress
from sknas._search.proposals import initial_design
from sknas._search.reevaluate import n_reevaluated
from sknas._search.signals import Signals
from sknas._training.settings import DefaultSettings
from sknas._validation import (
    check_integer,
    check_positive,
    errors_after,
    reject,
    reject_keyword,
)
from sknas.spaces import Space
from sknas.strategies import Strategy
from sknas.trainers import Trainer

if TYPE_CHECKING:
    from sknas.trainers import TensorNet
else:  # for typing.get_type_hints, without skorch
    TensorNet = Any

CHUNK_CELLS = 2**24  # encoded cells that `predict` holds at once


class BaseNAS(BaseEstimator, ABC):
    """Base class of `NASClassifier` and `NASRegressor`."""

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
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        groups: Any = None,
        **unknown: Never,
    ) -> Self:
        """Search architectures and build an ensemble of the best ones.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features), or images
            Numbers, dates, categories, strings and booleans; values may be missing.
            Images are arrays of 3 dimensions (n_samples, height, width), or of 4 with
            channels, or flat rows and `image_shape`: 8 bits or floats of any scale; or
            a list of images of PIL. Tensors of torch are arrays here and below.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The targets.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts, everywhere: a weight of 2 is the row given
            twice, a weight of 0 the row left out. Weights that sum to less than the
            number of rows are scaled up to it.
        groups : array-like of shape (n_samples,), default=None
            Rows of one group are never split between training and validation.
        **unknown : never
            Any other argument is refused, with the parameter that takes its place.

        Returns
        -------
        self
            The fitted estimator. Ctrl-C ends the search and returns the best so far.

        Raises
        ------
        InvalidParameterError
            If a parameter is invalid, or X is no container of rows. It is both a
            ValueError and a TypeError.
        ValueError
            If X or y can't be used.
        SearchFailedError
            If no architecture could be trained.
        """
        for keyword in unknown:
            reject_keyword(type(self).__name__, keyword, self.get_params(deep=False))
        # One thread per process, so that workers do not compete for cores.
        with (
            Signals(self.checkpoint is not None),
            threadpool_limits(limits=1),
            DefaultSettings(),
        ):
            self._fit(X, y, sample_weight, groups)
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any, groups: Any) -> None:
        started = time.monotonic()
        self._check_parameters()
        X, y = read_container("X", X), read_container("y", y)
        sample_weight = read_container("sample_weight", sample_weight)
        groups = read_container("groups", groups)
        parts = resolve(self, X)
        # Drop the old ensemble before refitting the readers, so that a failed fit never
        # predicts with a mixture of both.
        self.__dict__.pop("ensemble_", None)
        data = prepare(self, parts.reader, X, y, sample_weight, groups)
        seed = draw_seed(self.random_state)
        depends_on = self._fingerprint(parts, data)
        previous = self._find_previous(depends_on)
        if previous is not None:
            seed = previous.seed
        name, records = parts.caller_name, parts.trainer.records
        folder = find_folder(name, self.checkpoint)
        with open_checkpoint(name, folder, depends_on, records) as store:
            # A resumed search keeps its seed, and its earlier seconds count.
            seed = store.setdefault(keys.SEED, seed)
            warn_of_shared_search(self, depends_on, seed)
            started -= store.seconds
            scorer = self._make_scorer(parts, data)
            self.scorer_ = scorer.scorer
            self._time_scorer(scorer, store)
            budget = self._plan_budget(parts, data, previous, scorer.call_seconds)
            problem = self._make_problem(parts, data, scorer, budget, seed)
            check = self._make_check(parts, data, problem, scorer)
            # Encoding may have used up the time: what is left begins after it.
            deadline = fit_deadline(started, self.max_time)
            context = RunContext(parts.device, deadline, parts.n_jobs, store=store)
            with errors_after():
                history = self._search(
                    parts, data, check, problem, context, budget, previous
                )
                self._remember(depends_on, seed, budget, history)
                self.search_time_ = time.monotonic() - started

    def _search(
        self,
        parts: Parts,
        data: Prepared,
        check: ScorerCheck,
        problem: Problem,
        context: RunContext,
        budget: Budget,
        previous: PreviousSearch | None,
    ) -> History:
        """Search, build the ensemble and set the fitted attributes."""
        task = problem.task
        design = initial_design(parts.space, task, problem.feasible, context.deadline)
        parts = parts.for_task(task)
        size, max_time = self._integer("ensemble_size"), self.max_time
        n_trials = budget.n_trials
        with Progress(self.verbose, n_trials, max_time) as progress:
            problem, baselines = check.run(problem, context.seconds_left)
            builder = EnsembleBuilder(size, max_time, parts, problem, context)
            search = Search(
                space=parts.space,
                strategy=parts.strategy,
                trainer=parts.trainer,
                problem=problem,
                context=context,
                max_trials=n_trials,
                deadline=builder.search_deadline,
                on_trials=progress.show,
                n_proposals=min(budget.n_proposals, parts.trainer.n_proposals),
                n_reevaluated=n_reevaluated(n_trials, size),
                previous=History() if previous is None else previous.history,
            )
            history = search.run(design)
            progress.note("refit")
            failure = failure_of(problem.feasible)
            best = best_trial(history, design, max_time, failure)
            ensemble, is_interrupted = builder.build(history, best)
        stop_reason = StopReason.INTERRUPTED if is_interrupted else history.stop_reason
        self.stop_reason_ = str(stop_reason)
        self.strategy_ = search.strategy.summary()
        self.baseline_scores_ = {"default": default_score(history), **baselines}
        check.warn_if_unlearnt(history, baselines["dummy"])
        self._set_fitted(parts, data, history, best, ensemble)
        return history

    def _integer(self, name: str) -> int | None:
        """Return a parameter as an integer of Python, which can't overflow."""
        value = getattr(self, name)
        return check_integer(type(self).__name__, name, value, 1, optional=True)

    def _check_parameters(self) -> None:
        """Check the parameters that do not depend on the data."""
        name = type(self).__name__
        check_positive(name, "max_time", self.max_time, optional=True)
        for parameter in ("max_trials", "max_epochs", "ensemble_size"):
            self._integer(parameter)
        if not isinstance(self.verbose, bool):
            check_integer(name, "verbose", self.verbose, 0)
        find_folder(name, self.checkpoint)
        if not isinstance(self.warm_start, bool):
            reject(name, "warm_start", self.warm_start, "True or False")
        check_folds(name, self.cv)
        is_count = isinstance(self.n_jobs, Integral) and self.n_jobs != 0
        if self.n_jobs is not None and (not is_count or self.n_jobs is True):
            reject(name, "n_jobs", self.n_jobs, "None or an int other than 0")
        try:
            check_random_state(self.random_state)
        except ValueError:
            allowed = "an int from 0 to 2**32 - 1, a RandomState or None"
            reject(name, "random_state", self.random_state, allowed)

    def _fingerprint(self, parts: Parts, data: Prepared) -> dict[str, str]:
        """Return what the trials depend on as text, empty if nothing needs it."""
        if self.checkpoint is None and not self.warm_start:
            return {}
        return fingerprint(self, data.rows, data.target.classes_, parts.device)

    def _find_previous(self, depends_on: dict[str, str]) -> PreviousSearch | None:
        """Return the search that this fit adds to, if any."""
        if not self.warm_start:
            self.__dict__.pop("_previous", None)
        previous: PreviousSearch | None = vars(self).get("_previous")
        if previous is not None:
            previous.check(type(self).__name__, depends_on)
            depends_on[PREVIOUS] = previous.digest
        return previous

    def _remember(
        self, depends_on: dict[str, str], seed: int, budget: Budget, history: History
    ) -> None:
        """Remember the search for the next fit, and for other estimators."""
        if self.stop_reason_ != StopReason.INTERRUPTED:
            register_search(self, depends_on, seed)
        if self.warm_start:
            self._previous = PreviousSearch(depends_on, seed, budget, history)

    def _time_scorer(self, scorer: RowScorer, store: Store) -> None:
        """Measure a call of the scorer, to plan the time with."""
        if self.max_time is None:
            return
        seconds: float | None = store.get(keys.SCORE_SECONDS)
        if seconds is None:  # a search that is resumed has the same plan
            seconds = seconds_of_a_call(scorer, self.max_time)
            if not scorer.refusal:  # which raises an error, again if fit is repeated
                store.put(keys.SCORE_SECONDS, seconds)
        scorer.call_seconds = seconds

    def _plan_budget(
        self,
        parts: Parts,
        data: Prepared,
        previous: PreviousSearch | None,
        score_seconds: float = 0.0,
    ) -> Budget:
        n_folds = None
        if data.rows.splits is not None:
            n_folds = len(data.rows.splits)
        elif not isinstance(self.cv, str):
            n_folds = int(self.cv)
        sides = parts.reader.image_size
        workload = Workload(
            n_rows=data.rows.weight.sum(),
            n_columns=self.n_features_in_,
            n_pixels=None if sides is None else math.prod(sides),
            is_batched=parts.trainer.is_batched,
            relative_cost=parts.space.relative_cost(sides),
            time_share=parts.strategy.time_share,
            score_seconds=score_seconds,
            n_folds=n_folds,
        )
        budget = plan_budget(workload, self._integer("max_trials"), self.max_time)
        return budget if previous is None else previous.extended_budget(budget)

    def _make_problem(
        self,
        parts: Parts,
        data: Prepared,
        scorer: RowScorer,
        budget: Budget,
        seed: int,
    ) -> Problem:
        """Split the rows, and encode each fold and all rows."""
        rows, target, name = data.rows, data.target, parts.caller_name
        probabilistic = reads_probabilities(parts.scorer)
        encode = partial(encode_fold, rows, target=target, probabilistic=probabilistic)
        splits = split_rows(rows, name, self.cv, target, budget.n_folds, seed)
        folds = tuple(encode(split) for split in splits)
        full = encode(Split(np.arange(len(rows)), np.arange(0)))
        space = parts.space.for_task(full.task)
        return Problem(
            task=full.task,
            folds=folds,
            full=full,
            n_rows=len(rows),
            scorer=scorer,
            loss=RowLoss(rows.y, rows.loss_weight, target.kind_),
            feasible=make_feasible(name, self.constraints, space, full.task),
            n_steps=budget.n_steps,
            max_epochs=self._integer("max_epochs"),
            seed=seed,
            scores_rungs=budget.scores_rungs,
        )

    def _make_scorer(self, parts: Parts, data: Prepared) -> RowScorer:
        names = ("n_features_in_", "feature_names_in_")
        learnt = {name: vars(self)[name] for name in names if name in vars(self)}
        return make_scorer(
            parts.scorer, data.X, data.rows, data.target, data.reader, learnt
        )

    def _make_check(
        self, parts: Parts, data: Prepared, problem: Problem, scorer: RowScorer
    ) -> ScorerCheck:
        """Return the check of the scorer, with the folds of each class."""
        classes = None
        if self._is_classifier:
            classes = RareClasses.of(problem.folds, data.rows, data.target)
        return ScorerCheck(parts.caller_name, self.scoring, scorer, classes)

    def _set_fitted(
        self,
        parts: Parts,
        data: Prepared,
        history: History,
        best: Trial,
        ensemble: Ensemble,
    ) -> None:
        self._reader, self._target = data.reader, data.target
        self._reader.prune_vocabulary([encoder for encoder, _ in ensemble.encodings])
        self.search_space_ = parts.space
        self.best_architecture_ = best.architecture
        self.best_score_ = float("nan") if best.score is None else best.score
        self.history_ = history.without_predictions()
        self.cv_results_ = cv_results(self.history_)
        self.n_trials_ = len(history)
        if self._is_classifier:
            self.classes_ = data.target.classes_
        self.ensemble_ = ensemble  # last: it marks the estimator as fitted

    @property
    def network_(self) -> TensorNet:
        """The skorch net of `ensemble_`'s heaviest member."""
        check_is_fitted(self)
        return self.ensemble_.members[0].network

    def __sklearn_is_fitted__(self) -> bool:
        return "ensemble_" in vars(self)

    def _predictions(self, X: Any) -> np.ndarray:
        """Return probabilities or values (N, C), predicted in chunks of rows."""
        check_is_fitted(self)
        with DefaultSettings():
            X = self._reader.check(self, read_container("X", X), reset=False)
            return self._predict_chunks(X)

    def _predict_chunks(self, X: Any) -> np.ndarray:
        n_columns = max(self.n_features_in_, 1) * 64
        min_rows = self._reader.min_chunk_rows
        n_rows = int(np.clip(CHUNK_CELLS // n_columns, min_rows, 65_536))
        parts, n_unseen = [], []
        for start in range(0, len(X), n_rows):
            rows = slice(start, start + n_rows)
            part = X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]
            raw = self._reader.read(part)
            n_unseen.append(self._reader.count_unseen(raw))
            parts.append(self.ensemble_.predict(raw))
        self._reader.warn_unseen(np.sum(n_unseen, axis=0), len(X))
        return np.concatenate(parts)

    def __sklearn_tags__(self) -> Any:
        return set_data_tags(super().__sklearn_tags__())
