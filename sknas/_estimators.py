"""The public estimators, NASClassifier and NASRegressor.

Their docstrings are written out in full, as in scikit-learn, so that editors show them;
a test checks that the common parts are equal.
"""

from __future__ import annotations

from typing import Any, Never, Self

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin

from sknas._base import BaseNAS
from sknas._data.containers import read_container
from sknas._scoring.stored import labels
from sknas.spaces import Space
from sknas.strategies import Strategy
from sknas.trainers import Trainer


class NASClassifier(ClassifierMixin, BaseNAS):
    """Classifier whose `fit` searches the architecture of a neural network.

    Predictions come from a small ensemble of networks, or from a single one. X may be a
    table of numbers, categories, strings and booleans with missing values, or an
    array of images; targets may be binary, multi-class or multi-label.

    Parameters
    ----------
    search_space : {"auto", "table", "image", "cell"} or Space, default="auto"
        Architectures to search: those of `sknas.spaces.TableSpace`,
        `sknas.spaces.ImageSpace`, `sknas.spaces.CellSpace`, or of your own
        `sknas.spaces.Space`. "auto" is "table" for tables. For arrays of images, and
        with an `image_shape`, it is "image", or "cell" if the strategy is "gradient".
    strategy : str or Strategy, default="bayesian"
        How architectures are proposed: "bayesian", "evolution", "gradient", "local",
        "random", "reinforce", or an object of `sknas.strategies`. "gradient" needs a
        space with a supernet.
    trainer : {"auto", "population", "skorch"} or Trainer, default="auto"
        How proposals are trained and scored: "population" trains many networks at
        once, "skorch" each by itself, as many at a time as there are processes. "auto"
        is "population" for spaces that can build many networks at once, such as
        `sknas.spaces.TableSpace`, and "skorch" for others; see `sknas.trainers`.
    max_trials : int or None, default=None
        Number of architectures to train, the default and the known ones included. With
        neither `max_trials` nor `max_time`, it depends on the number of rows: 3 at 100
        rows, 9 at 1,000, at most 16.
    max_time : float or None, default=None
        Seconds that `fit` may take, the final training included. Without `max_trials`,
        it is the only bound. If it is short for the data, trainings are shorter. A call
        of your own code that is running then, such as a scorer, is not cut short.
    max_epochs : int or None, default=None
        Maximum number of epochs of a training. With None, the number of rows decides.
    cv : "auto", int, splitter or iterable of (train, test), default="auto"
        Validation of the search. "auto" is 3 folds below 400 rows, 5 below 16,000, 3
        below 40,000, and a hold-out set of a fifth above; for images 3 below 4,000, and
        a hold-out set above. There are fewer folds if the time is short. Each fold
        trains and validates each class of a classifier; a class of one row is trained.
        Other splits are used as they are.
    scoring : str, callable or None, default=None
        A scikit-learn scorer, or a function (estimator, X, y) -> float, greater is
        better. It ranks trials, selects epochs and weights the members of the ensemble.
        The estimator predicts rows of that X, unchanged, in any order or in part; it
        refuses others. None is accuracy.
    ensemble_size : int or None, default=None
        Maximum number of architectures in the ensemble; None is 8. Each contributes
        the networks of its folds, which are trained already. 1 is a single network,
        trained on all rows; from 14 trials on, the best architectures are then scored
        once more, with new seeds and beyond `max_trials`, and the best mean wins.
    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Columns read as categories: those of category, string, boolean and object
        dtype, except objects that are numbers or dates; none; or a mask, indices or
        names of columns.
    image_shape : tuple of int or None, default=None
        Shape of one image, for images that are flat rows of X: (height, width),
        (height, width, channels) or (channels, height, width).
    channel_axis : {"auto", 1, 3, -1}, default="auto"
        Axis of the channels, if X has 4 dimensions or `image_shape` three numbers: 1
        for channels first, 3 or -1 for channels last. "auto" is the axis of length 1, 3
        or 4; it raises an error if both or neither are.
    class_weight : dict, "balanced" or None, default=None
        Weight of each class, in the loss and in the score of the search.
    constraints : dict, callable or None, default=None
        Upper bounds for each network, such as ``{"n_params": 100_000}``: ``n_params``,
        its number of trained parameters, and ``latency``, the seconds it takes to
        predict 256 rows on one CPU thread. Or a function that returns True for each
        architecture that is allowed. Others are never trained.
    device : str, default="auto"
        "auto", "cpu", "cuda", or one of several GPUs, "cuda:1". "auto" is a GPU if
        there is one.
    n_jobs : int or None, default=None
        Number of worker processes, of one thread each. None is all cores that this
        process may use, and 1 in a joblib worker. The result does not depend on it.
    random_state : int, RandomState or None, default=None
        Seeds everything random.
    checkpoint : str, path or None, default=None
        Folder that keeps the search while it runs. If `fit` was interrupted, another
        call with the same data and parameters resumes it, and `max_time` counts the
        seconds of all calls.
    warm_start : bool, default=False
        If True, another `fit` on the same data adds trials to those of the last one,
        `max_trials` more or for another `max_time`. The estimator then keeps the
        networks of the best trials.
    verbose : int, default=0
        1 shows a progress bar, 0 nothing.

    Attributes
    ----------
    best_architecture_ : Architecture
        The architecture of the best trial.
    best_score_ : float
        Its validation score. As the best of many it is optimistic: hold out a test set
        for an unbiased one. NaN if the time was too short for a single trial.
    cv_results_ : dict of str to ndarray
        A row for each trial, as in ``GridSearchCV``, with status, rung, origin, epochs,
        seconds and number of parameters; ready for ``pandas.DataFrame``.
    history_ : History
        The trials themselves.
    baseline_scores_ : dict of str to float
        Scores of the default network, a linear model and a dummy model on the same
        folds; the last two are trained on at most 2,000 images.
    ensemble_ : Ensemble
        The networks that predict, and their weights.
    network_ : TensorNet
        The skorch net of the member with the largest weight.
    search_space_ : Space
        The space that was searched, without choices that have no effect for this X; its
        ``describe`` puts an architecture into words.
    strategy_ : Strategy
        The strategy that searched, with its records, such as the ``trajectory_`` of a
        `sknas.strategies.GradientStrategy`.
    scorer_ : callable
        The scikit-learn scorer that ranks trials.
    n_trials_ : int
        Number of trials, re-evaluations included.
    search_time_ : float
        Seconds that `fit` took.
    stop_reason_ : str
        "max_trials", "max_time", "space_exhausted", "strategy_done" or "interrupted".
    classes_ : ndarray of shape (n_classes,), or list of them
        The labels; for multi-label targets a list with an array for each label.
    n_features_in_ : int
        Number of columns of X; for images channels x height x width.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had names.

    See Also
    --------
    NASRegressor : The same search for numeric targets.
    sknas.search : The same search over any Python function.

    References
    ----------
    White et al.: Neural Architecture Search: Insights from 1000 Papers.
    arXiv:2301.08727.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import train_test_split
    >>> from sknas import NASClassifier
    >>> X, y = load_iris(return_X_y=True, as_frame=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> classifier = NASClassifier(max_trials=3, random_state=0)
    >>> classifier.fit(X_train, y_train).score(X_test, y_test) > 0.9
    True
    """

    _is_classifier = True

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
        class_weight: Any = None,
        constraints: Any = None,
        device: str = "auto",
        n_jobs: int | None = None,
        random_state: Any = None,
        checkpoint: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            search_space,
            strategy,
            trainer,
            max_trials=max_trials,
            max_time=max_time,
            max_epochs=max_epochs,
            cv=cv,
            scoring=scoring,
            ensemble_size=ensemble_size,
            categorical_features=categorical_features,
            image_shape=image_shape,
            channel_axis=channel_axis,
            constraints=constraints,
            device=device,
            n_jobs=n_jobs,
            random_state=random_state,
            checkpoint=checkpoint,
            warm_start=warm_start,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        groups: Any = None,
        **unknown: Never,
    ) -> Self:
        return super().fit(X, y, sample_weight, groups, **unknown)

    fit.__doc__ = BaseNAS.fit.__doc__

    def predict(self, X: Any) -> np.ndarray:
        """Predict the most probable class of each row.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features), or images
            Rows with the columns of `fit`, in the same order; or images of the shape
            and on the scale of those of `fit`, as arrays or as flat rows.

        Returns
        -------
        ndarray of shape (n_samples,), or (n_samples, n_labels)
            Classes; 0 and 1 for multi-label targets.
        """
        return labels(self._predictions(X), self.classes_)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict the probability of each class, or of each label.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features), or images
            Rows with the columns of `fit`, in the same order; or images of the shape
            and on the scale of those of `fit`, as arrays or as flat rows.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples, n_labels)
            Columns in the order of `classes_`; in the precision of X.
        """
        return self._predictions(X)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of the predictions.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features), or images
            Rows, or images, as in `predict`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The true targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            Share of the rows whose class, or whose labels, are all right.
        """
        y = read_container("y", y)
        sample_weight = read_container("sample_weight", sample_weight)
        return float(super().score(X, y, sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class NASRegressor(RegressorMixin, BaseNAS):
    """Regressor whose `fit` searches the architecture of a neural network.

    Predictions come from a small ensemble of networks, or from a single one. X may be a
    table of numbers, categories, strings and booleans with missing values, or an
    array of images; there may be several targets. Predictions stay within the range of
    the training targets.

    Parameters
    ----------
    search_space : {"auto", "table", "image", "cell"} or Space, default="auto"
        Architectures to search: those of `sknas.spaces.TableSpace`,
        `sknas.spaces.ImageSpace`, `sknas.spaces.CellSpace`, or of your own
        `sknas.spaces.Space`. "auto" is "table" for tables. For arrays of images, and
        with an `image_shape`, it is "image", or "cell" if the strategy is "gradient".
    strategy : str or Strategy, default="bayesian"
        How architectures are proposed: "bayesian", "evolution", "gradient", "local",
        "random", "reinforce", or an object of `sknas.strategies`. "gradient" needs a
        space with a supernet.
    trainer : {"auto", "population", "skorch"} or Trainer, default="auto"
        How proposals are trained and scored: "population" trains many networks at
        once, "skorch" each by itself, as many at a time as there are processes. "auto"
        is "population" for spaces that can build many networks at once, such as
        `sknas.spaces.TableSpace`, and "skorch" for others; see `sknas.trainers`.
    max_trials : int or None, default=None
        Number of architectures to train, the default and the known ones included. With
        neither `max_trials` nor `max_time`, it depends on the number of rows: 3 at 100
        rows, 9 at 1,000, at most 16.
    max_time : float or None, default=None
        Seconds that `fit` may take, the final training included. Without `max_trials`,
        it is the only bound. If it is short for the data, trainings are shorter. A call
        of your own code that is running then, such as a scorer, is not cut short.
    max_epochs : int or None, default=None
        Maximum number of epochs of a training. With None, the number of rows decides.
    cv : "auto", int, splitter or iterable of (train, test), default="auto"
        Validation of the search. "auto" is 3 folds below 400 rows, 5 below 16,000, 3
        below 40,000, and a hold-out set of a fifth above; for images 3 below 4,000, and
        a hold-out set above. There are fewer folds if the time is short. Each fold
        trains and validates each class of a classifier; a class of one row is trained.
        Other splits are used as they are.
    scoring : str, callable or None, default=None
        A scikit-learn scorer, or a function (estimator, X, y) -> float, greater is
        better. It ranks trials, selects epochs and weights the members of the ensemble.
        The estimator predicts rows of that X, unchanged, in any order or in part; it
        refuses others. None is R2.
    ensemble_size : int or None, default=None
        Maximum number of architectures in the ensemble; None is 8. Each contributes
        the networks of its folds, which are trained already. 1 is a single network,
        trained on all rows; from 14 trials on, the best architectures are then scored
        once more, with new seeds and beyond `max_trials`, and the best mean wins.
    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Columns read as categories: those of category, string, boolean and object
        dtype, except objects that are numbers or dates; none; or a mask, indices or
        names of columns.
    image_shape : tuple of int or None, default=None
        Shape of one image, for images that are flat rows of X: (height, width),
        (height, width, channels) or (channels, height, width).
    channel_axis : {"auto", 1, 3, -1}, default="auto"
        Axis of the channels, if X has 4 dimensions or `image_shape` three numbers: 1
        for channels first, 3 or -1 for channels last. "auto" is the axis of length 1, 3
        or 4; it raises an error if both or neither are.
    constraints : dict, callable or None, default=None
        Upper bounds for each network, such as ``{"n_params": 100_000}``: ``n_params``,
        its number of trained parameters, and ``latency``, the seconds it takes to
        predict 256 rows on one CPU thread. Or a function that returns True for each
        architecture that is allowed. Others are never trained.
    device : str, default="auto"
        "auto", "cpu", "cuda", or one of several GPUs, "cuda:1". "auto" is a GPU if
        there is one.
    n_jobs : int or None, default=None
        Number of worker processes, of one thread each. None is all cores that this
        process may use, and 1 in a joblib worker. The result does not depend on it.
    random_state : int, RandomState or None, default=None
        Seeds everything random.
    checkpoint : str, path or None, default=None
        Folder that keeps the search while it runs. If `fit` was interrupted, another
        call with the same data and parameters resumes it, and `max_time` counts the
        seconds of all calls.
    warm_start : bool, default=False
        If True, another `fit` on the same data adds trials to those of the last one,
        `max_trials` more or for another `max_time`. The estimator then keeps the
        networks of the best trials.
    verbose : int, default=0
        1 shows a progress bar, 0 nothing.

    Attributes
    ----------
    best_architecture_ : Architecture
        The architecture of the best trial.
    best_score_ : float
        Its validation score. As the best of many it is optimistic: hold out a test set
        for an unbiased one. NaN if the time was too short for a single trial.
    cv_results_ : dict of str to ndarray
        A row for each trial, as in ``GridSearchCV``, with status, rung, origin, epochs,
        seconds and number of parameters; ready for ``pandas.DataFrame``.
    history_ : History
        The trials themselves.
    baseline_scores_ : dict of str to float
        Scores of the default network, a linear model and a dummy model on the same
        folds; the last two are trained on at most 2,000 images.
    ensemble_ : Ensemble
        The networks that predict, and their weights.
    network_ : TensorNet
        The skorch net of the member with the largest weight.
    search_space_ : Space
        The space that was searched, without choices that have no effect for this X; its
        ``describe`` puts an architecture into words.
    strategy_ : Strategy
        The strategy that searched, with its records, such as the ``trajectory_`` of a
        `sknas.strategies.GradientStrategy`.
    scorer_ : callable
        The scikit-learn scorer that ranks trials.
    n_trials_ : int
        Number of trials, re-evaluations included.
    search_time_ : float
        Seconds that `fit` took.
    stop_reason_ : str
        "max_trials", "max_time", "space_exhausted", "strategy_done" or "interrupted".
    n_features_in_ : int
        Number of columns of X; for images channels x height x width.
    feature_names_in_ : ndarray of str
        Names of the columns, if X had names.

    See Also
    --------
    NASClassifier : The same search for classes.
    sknas.search : The same search over any Python function.

    References
    ----------
    White et al.: Neural Architecture Search: Insights from 1000 Papers.
    arXiv:2301.08727.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sknas import NASRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> regressor = NASRegressor(max_trials=3, random_state=0).fit(X[:300], y[:300])
    >>> regressor.predict(X[300:]).shape
    (142,)
    """

    _is_classifier = False

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        groups: Any = None,
        **unknown: Never,
    ) -> Self:
        return super().fit(X, y, sample_weight, groups, **unknown)

    fit.__doc__ = BaseNAS.fit.__doc__

    def predict(self, X: Any) -> np.ndarray:
        """Predict the target of each row.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features), or images
            Rows with the columns of `fit`, in the same order; or images of the shape
            and on the scale of those of `fit`, as arrays or as flat rows.

        Returns
        -------
        ndarray of shape (n_samples,), or (n_samples, n_targets)
            Values in the precision of X.
        """
        values = self._predictions(X)
        return values[:, 0] if self._target.is_column_ else values

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the coefficient of determination of the predictions.

        Parameters
        ----------
        X : array-like or data frame of shape (n_samples, n_features), or images
            Rows, or images, as in `predict`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The true targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        float
            At most 1; 0 for the mean of y; the mean over several targets.
        """
        y = read_container("y", y)
        sample_weight = read_container("sample_weight", sample_weight)
        return float(super().score(X, y, sample_weight))


# Python's own errors name the function: the public class, where pickle finds it, too.
BaseNAS.__init__.__module__ = __name__
BaseNAS.__init__.__qualname__ = "NASRegressor.__init__"
