"""The two estimators."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin

from sknas._base import BaseNAS
from sknas._scoring.scorer import labels
from sknas.spaces import Space
from sknas.strategies import Strategy
from sknas.trainers import Trainer


class NASClassifier(ClassifierMixin, BaseNAS):
    """Classifier whose `fit` searches the architecture of a neural network.

    A small ensemble of what the search found predicts, or a single network. Reads
    tables of numbers, categories, strings and booleans with missing values, and images
    as arrays; binary, multi-class and multi-label targets.

    Parameters
    ----------
    search_space : {"auto", "table", "image", "cell"} or Space, default="auto"
        What can be built: see `sknas.spaces.TableSpace`, `sknas.spaces.ImageSpace`
        and `sknas.spaces.CellSpace`, or define your own `sknas.spaces.Space`. "auto" is
        "table", or for arrays of images and with an `image_shape` "image", and "cell"
        where they are searched by gradient.
    strategy : str or Strategy, default="bayesian"
        What to try next: "bayesian", "evolution", "gradient", "local", "random",
        "reinforce", or an object of `sknas.strategies`. "gradient" is for spaces with a
        relaxed network.
    trainer : {"auto", "population", "skorch"} or Trainer, default="auto"
        How a proposal gets its score: "population" trains many networks for tables
        side by side, "skorch" each by itself, as many at a time as there are
        processes. "auto" takes the first for a `sknas.spaces.TableSpace`, the second
        for images and spaces of your own; see `sknas.trainers`.
    max_trials : int or None, default=None
        Architectures to train, the default and the known ones included. With neither
        `max_trials` nor `max_time`, the number of rows decides: 3 trials at 100 rows,
        9 at 1,000, at most 16.
    max_time : float or None, default=None
        Seconds that `fit` may take, the final training included. Alone, it is the
        only bound. Trainings of large tables get shorter to fit into it.
    max_epochs : int or None, default=None
        Most epochs of a training. By default the number of rows decides.
    cv : "auto", int, splitter or iterable of (train, test), default="auto"
        How the search validates. "auto" takes 3 folds below 400 rows, 5 below 16,000,
        3 below 40,000, and a hold-out of a fifth above; fewer for short times.
    scoring : str, callable or None, default=None
        Any scikit-learn scorer; it ranks trials, chooses epochs and weighs the
        ensemble. None is accuracy.
    ensemble_size : int or None, default=None
        Most architectures in the answer, None for up to 8. Each of them brings the
        networks of its folds, which are trained already; 1 is a single network,
        trained on all rows. Of 14 trials on, the leaders are then scored once more, by
        fresh seeds and beyond `max_trials`, and the best mean wins.
    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Columns read as categories: those of category, string, boolean and object
        dtype; none; or a mask, numbers or names of columns.
    image_shape : tuple of int or None, default=None
        Shape of one image, for images that are flat rows of X: (height, width),
        (height, width, channels) or (channels, height, width).
    channel_axis : {"auto", 1, 3, -1}, default="auto"
        Axis of the channels in images of X of 4 dimensions, or of three numbers in
        `image_shape`: 1 before height and width, 3 or -1 after them. "auto" takes the
        one of 1, 3 or 4 channels, and asks where both or none are.
    class_weight : dict, "balanced" or None, default=None
        Weight of each class, in the loss and in the score of the search.
    constraints : dict, callable or None, default=None
        Bounds of what may be built, such as ``{"n_params": 100_000}``: ``n_params``,
        trained parameters, and ``latency``, seconds in which one network answers 256
        rows on one CPU thread; or a function of an architecture that says whether it
        is allowed. What breaks them is never trained.
    device : str, default="auto"
        "auto", "cpu", "cuda" or one of several, "cuda:1". "auto" takes a GPU if there
        is one.
    n_jobs : int or None, default=None
        Worker processes, of one thread each. None takes all cores this process may
        use, and one inside a joblib worker. The result does not depend on it.
    random_state : int, RandomState or None, default=None
        Seeds all that is random.
    checkpoint : str, path or None, default=None
        Folder in which the search is kept as it goes: a `fit` that was broken off goes
        on from there when it is called again with the same data and parameters, and
        `max_time` counts the seconds of all of them.
    warm_start : bool, default=False
        Whether `fit`, called again with the same data, adds to the trials that are
        there, as many or as long as a first one would; then the estimator keeps the
        networks of the best trials.
    verbose : int, default=0
        1 shows a progress bar, 0 nothing.

    Attributes
    ----------
    best_architecture_ : Architecture
        The architecture of the best trial.
    best_score_ : float
        Its validation score. It is the best of many, so it is optimistic: hold rows
        out for an honest one. NaN if the time was too short for one trial.
    cv_results_ : dict of str to ndarray
        One row a trial, as in ``GridSearchCV``, with status, rung, origin, epochs,
        seconds and parameter count; ready for ``pandas.DataFrame``.
    history_ : History
        The trials themselves.
    baseline_scores_ : dict of str to float
        Scores of the default network, of a linear and of a dummy model on the same
        folds; the two simple ones learn from at most 2,000 images.
    ensemble_ : Ensemble
        What predicts: networks and their weights.
    network_ : TensorNet
        The skorch net of its heaviest member.
    search_space_ : Space
        The space searched, without choices that mean nothing for this X; its
        ``describe`` puts an architecture into words.
    strategy_ : Strategy
        The strategy that searched, with what it tells of that, such as the
        ``trajectory_`` of a `sknas.strategies.GradientStrategy`.
    scorer_ : callable
        The scorer.
    n_trials_ : int
        Trials made, second looks at leaders included.
    search_time_ : float
        Seconds that `fit` took.
    stop_reason_ : str
        "max_trials", "max_time", "space_exhausted", "strategy_done" or "interrupted".
    classes_ : ndarray of shape (n_classes,), or list of them
        The labels; for multi-label targets a list, one array a label.
    n_features_in_ : int
        Columns of X; of images, the numbers of one: channels x height x width.
    feature_names_in_ : ndarray of str
        Their names, if X had names.

    See Also
    --------
    NASRegressor : The same for numeric targets.
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

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row.

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
        """The probability of each class, or of each label.

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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class NASRegressor(RegressorMixin, BaseNAS):
    """Regressor whose `fit` searches the architecture of a neural network.

    A small ensemble of what the search found predicts, or a single network. Reads
    tables of numbers, categories, strings and booleans with missing values, and images
    as arrays; one target or several. Predictions stay within the range of the training
    targets.

    Parameters
    ----------
    search_space : {"auto", "table", "image", "cell"} or Space, default="auto"
        What can be built: see `sknas.spaces.TableSpace`, `sknas.spaces.ImageSpace`
        and `sknas.spaces.CellSpace`, or define your own `sknas.spaces.Space`. "auto" is
        "table", or for arrays of images and with an `image_shape` "image", and "cell"
        where they are searched by gradient.
    strategy : str or Strategy, default="bayesian"
        What to try next: "bayesian", "evolution", "gradient", "local", "random",
        "reinforce", or an object of `sknas.strategies`. "gradient" is for spaces with a
        relaxed network.
    trainer : {"auto", "population", "skorch"} or Trainer, default="auto"
        How a proposal gets its score: "population" trains many networks for tables
        side by side, "skorch" each by itself, as many at a time as there are
        processes. "auto" takes the first for a `sknas.spaces.TableSpace`, the second
        for images and spaces of your own; see `sknas.trainers`.
    max_trials : int or None, default=None
        Architectures to train, the default and the known ones included. With neither
        `max_trials` nor `max_time`, the number of rows decides: 3 trials at 100 rows,
        9 at 1,000, at most 16.
    max_time : float or None, default=None
        Seconds that `fit` may take, the final training included. Alone, it is the
        only bound. Trainings of large tables get shorter to fit into it.
    max_epochs : int or None, default=None
        Most epochs of a training. By default the number of rows decides.
    cv : "auto", int, splitter or iterable of (train, test), default="auto"
        How the search validates. "auto" takes 3 folds below 400 rows, 5 below 16,000,
        3 below 40,000, and a hold-out of a fifth above; fewer for short times.
    scoring : str, callable or None, default=None
        Any scikit-learn scorer; it ranks trials, chooses epochs and weighs the
        ensemble. None is R2.
    ensemble_size : int or None, default=None
        Most architectures in the answer, None for up to 8. Each of them brings the
        networks of its folds, which are trained already; 1 is a single network,
        trained on all rows. Of 14 trials on, the leaders are then scored once more, by
        fresh seeds and beyond `max_trials`, and the best mean wins.
    categorical_features : "from_dtype", None or array-like, default="from_dtype"
        Columns read as categories: those of category, string, boolean and object
        dtype; none; or a mask, numbers or names of columns.
    image_shape : tuple of int or None, default=None
        Shape of one image, for images that are flat rows of X: (height, width),
        (height, width, channels) or (channels, height, width).
    channel_axis : {"auto", 1, 3, -1}, default="auto"
        Axis of the channels in images of X of 4 dimensions, or of three numbers in
        `image_shape`: 1 before height and width, 3 or -1 after them. "auto" takes the
        one of 1, 3 or 4 channels, and asks where both or none are.
    constraints : dict, callable or None, default=None
        Bounds of what may be built, such as ``{"n_params": 100_000}``: ``n_params``,
        trained parameters, and ``latency``, seconds in which one network answers 256
        rows on one CPU thread; or a function of an architecture that says whether it
        is allowed. What breaks them is never trained.
    device : str, default="auto"
        "auto", "cpu", "cuda" or one of several, "cuda:1". "auto" takes a GPU if there
        is one.
    n_jobs : int or None, default=None
        Worker processes, of one thread each. None takes all cores this process may
        use, and one inside a joblib worker. The result does not depend on it.
    random_state : int, RandomState or None, default=None
        Seeds all that is random.
    checkpoint : str, path or None, default=None
        Folder in which the search is kept as it goes: a `fit` that was broken off goes
        on from there when it is called again with the same data and parameters, and
        `max_time` counts the seconds of all of them.
    warm_start : bool, default=False
        Whether `fit`, called again with the same data, adds to the trials that are
        there, as many or as long as a first one would; then the estimator keeps the
        networks of the best trials.
    verbose : int, default=0
        1 shows a progress bar, 0 nothing.

    Attributes
    ----------
    best_architecture_ : Architecture
        The architecture of the best trial.
    best_score_ : float
        Its validation score. It is the best of many, so it is optimistic: hold rows
        out for an honest one. NaN if the time was too short for one trial.
    cv_results_ : dict of str to ndarray
        One row a trial, as in ``GridSearchCV``, with status, rung, origin, epochs,
        seconds and parameter count; ready for ``pandas.DataFrame``.
    history_ : History
        The trials themselves.
    baseline_scores_ : dict of str to float
        Scores of the default network, of a linear and of a dummy model on the same
        folds; the two simple ones learn from at most 2,000 images.
    ensemble_ : Ensemble
        What predicts: networks and their weights.
    network_ : TensorNet
        The skorch net of its heaviest member.
    search_space_ : Space
        The space searched, without choices that mean nothing for this X; its
        ``describe`` puts an architecture into words.
    strategy_ : Strategy
        The strategy that searched, with what it tells of that, such as the
        ``trajectory_`` of a `sknas.strategies.GradientStrategy`.
    scorer_ : callable
        The scorer.
    n_trials_ : int
        Trials made, second looks at leaders included.
    search_time_ : float
        Seconds that `fit` took.
    stop_reason_ : str
        "max_trials", "max_time", "space_exhausted", "strategy_done" or "interrupted".
    n_features_in_ : int
        Columns of X; of images, the numbers of one: channels x height x width.
    feature_names_in_ : ndarray of str
        Their names, if X had names.

    See Also
    --------
    NASClassifier : The same for classes.
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

    def predict(self, X: Any) -> np.ndarray:
        """The target of each row.

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
