"""Messages for invalid calls, and unusual calls that are valid."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    PredefinedSplit,
    ShuffleSplit,
    TimeSeriesSplit,
)

from sknas import NASClassifier, NASRegressor
from sknas.exceptions import InvalidParameterError, SearchWarning
from sknas.spaces import DictSpace, TableSpace
from sknas.strategies import BayesianStrategy

KINDS = [NASClassifier, NASRegressor]
TINY = {"max_trials": 2, "max_epochs": 3, "cv": 2, "random_state": 0}
X, CLASSES = load_iris(return_X_y=True)
VALUES = X[:, 0] - X[:, 1]

FOLDS = (
    "'auto', an int >= 2, a scikit-learn splitter or an iterable of (train, test) row "
    "indices"
)
COLUMNS = (
    "'from_dtype', None, a mask of one bool per column, or indices or names of columns "
    "of X"
)
STRATEGIES = (
    "one of 'bayesian', 'evolution', 'gradient', 'local', 'random', 'reinforce'"
)
SPACES = "one of 'auto', 'table', 'image', 'cell'"
TRAINERS = "one of 'auto', 'population', 'skorch'"
MEAN_SPACE = "; did you mean 'table'?"
MEAN_STRATEGY = "; did you mean 'bayesian'?"

# (parameter, value, allowed values in the message, advice)
WRONG = [
    ("search_space", "tabel", SPACES, MEAN_SPACE),
    ("search_space", None, f"{SPACES} or a Space object", ""),
    ("search_space", TableSpace, f"{SPACES} or a Space object", ""),
    ("strategy", "bayes", STRATEGIES, MEAN_STRATEGY),
    ("strategy", "zzz", STRATEGIES, ""),
    ("strategy", 3, f"{STRATEGIES} or a Strategy object", ""),
    ("trainer", "skroch", TRAINERS, "; did you mean 'skorch'?"),
    ("trainer", "popular", TRAINERS, "; did you mean 'population'?"),
    ("trainer", None, f"{TRAINERS} or a Trainer object", ""),
    *[
        (name, value, "an int >= 1 or None", "")
        for name in ("max_trials", "max_epochs", "ensemble_size")
        for value in (0, -1, 2.0, True, "3")
    ],
    *[
        ("max_time", value, "a finite number > 0 or None", "")
        for value in (0, -1.5, float("nan"), float("inf"), "10s", True)
    ],
    *[("cv", value, FOLDS, "") for value in (1, 0, None, "kfold", 2.5, True, [1, 2])],
    ("cv", KFold, FOLDS, ""),
    ("cv", 200, "at most the number of rows, 150", ""),
    (
        "scoring",
        "acuracy",
        "a scikit-learn scorer name",
        "; did you mean 'accuracy'?",
    ),
    ("scoring", 3, "a scorer name, a callable or None", ""),
    ("scoring", ["accuracy", "f1"], "a scorer name, a callable or None", ""),
    *[("categorical_features", value, COLUMNS, "") for value in ("all", 3)],
    ("categorical_features", [True, False], COLUMNS, ""),
    *[
        ("constraints", value, "a dict of bounds, a callable or None", "")
        for value in (5, "n_params < 5")
    ],
    *[
        ("device", value, "'auto' or a device of this machine: cpu", "")
        for value in ("gpu", 3, None)
    ],
    *[
        ("n_jobs", value, "None or an int other than 0", "")
        for value in (0, 1.5, "all")
    ],
    *[
        ("random_state", value, "an int from 0 to 2**32 - 1, a RandomState or None", "")
        for value in ("abc", -1, 1.5, np.random.default_rng(0))
    ],
    *[("verbose", value, "an int >= 0", "") for value in (-1, "loud", None, 0.5)],
]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """Hide GPUs, so that devices are refused alike on all machines."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def tiny(kind=NASClassifier, **parameters):
    return kind(**{**TINY, **parameters})


def target(kind):
    return CLASSES if kind is NASClassifier else VALUES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "value", "allowed", "advice"), WRONG)
def test_message_names_a_wrong_parameter_and_the_allowed_values(
    kind, name, value, allowed, advice
):
    estimator = tiny(kind, **{name: value})  # the constructor only stores
    with pytest.raises(InvalidParameterError) as caught:
        estimator.fit(X, target(kind))
    assert str(caught.value) == (
        f"The {name!r} parameter of {kind.__name__} must be {allowed}, "
        f"got {value!r}{advice or '.'}"
    )
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TypeError)


WEIGHTS = "None, 'balanced' or a dict of label to weight"


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("balance", WEIGHTS),
        ([1, 2, 3], WEIGHTS),
        ({7: 1.0}, "a dict with labels of y, [0, 1, 2]"),
        ({0: -1}, f"{WEIGHTS}, weights >= 0"),
        ({0: "a"}, f"{WEIGHTS}, weights >= 0"),
        ({0: 0, 1: 0, 2: 0}, f"{WEIGHTS}, weights >= 0"),
        ({0: float("nan")}, f"{WEIGHTS}, weights >= 0"),
        ({0: float("inf")}, f"{WEIGHTS}, weights >= 0"),
    ],
)
def test_message_names_a_wrong_class_weight_and_the_allowed_values(value, allowed):
    with pytest.raises(InvalidParameterError) as caught:
        tiny(class_weight=value).fit(X, CLASSES)
    assert str(caught.value) == (
        f"The 'class_weight' parameter of NASClassifier must be {allowed}, "
        f"got {value!r}."
    )


def test_class_weight_is_refused_for_multilabel_targets():
    with pytest.raises(InvalidParameterError) as caught:
        tiny(class_weight="balanced").fit(X, np.eye(3, dtype=int)[CLASSES])
    assert str(caught.value) == (
        "The 'class_weight' parameter of NASClassifier must be None for multi-label "
        "targets, got 'balanced'."
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"strategy": BayesianStrategy(surrogate="gpr")},
            "The 'surrogate' parameter of BayesianStrategy must be one of 'hamming', "
            "'gp', 'rf', 'et', 'gbrt', 'deep-ensemble', 'wl', got 'gpr'; did you mean "
            "'gp'?",
        ),
        (
            {"strategy": BayesianStrategy(acquisition="eii")},
            "The 'acquisition' parameter of BayesianStrategy must be one of 'ei', "
            "'pi', 'lcb', 'eips', 'thompson', 'gp_hedge', got 'eii'; did you mean "
            "'ei'?",
        ),
        (
            {"strategy": BayesianStrategy(n_initial_points=0)},
            "The 'n_initial_points' parameter of BayesianStrategy must be an int >= "
            "1 or None, got 0.",
        ),
        (
            {"search_space": TableSpace(activation=("rleu",))},
            "The 'activation' parameter of TableSpace must be a choice of ('relu', "
            "'silu', 'selu', 'gelu', 'mish', 'tanh', 'parametric-relu', "
            "'parametric-silu', 'parametric-selu', 'parametric-gelu', "
            "'parametric-mish', 'parametric-tanh'), got ['rleu'].",
        ),
        (
            {"search_space": TableSpace(depth=(3, 1))},
            "The 'depth' parameter of TableSpace must be two ascending ints from 0 "
            "to 32, got [3, 1].",
        ),
        (
            {"trainer": "population", "search_space": DictSpace({"width": [1, 2]})},
            "The 'search_space' parameter of PopulationTrainer must be a space "
            "that builds batches of networks for trainer='population', or take "
            "trainer='skorch', got "
            "DictSpace(given={'width': [1, 2]}).",
        ),
        (
            {"constraints": {"n_params": -1}},
            "The \"constraints['n_params']\" parameter of NASClassifier must be a "
            "finite number > 0, got -1.",
        ),
        (
            {"constraints": {"n_param": 100}},
            "The 'constraints' parameter of NASClassifier must be a dict of bounds of "
            "['n_params', 'latency'], got {'n_param': 100}; did you mean 'n_params'?",
        ),
        (
            {"categorical_features": [1, 7]},
            f"The 'categorical_features' parameter of NASClassifier must be {COLUMNS}, "
            "got 7.",
        ),
    ],
)
def test_message_names_a_wrong_nested_parameter(parameters, message):
    with pytest.raises(InvalidParameterError) as caught:
        tiny(**parameters).fit(X, CLASSES)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("kind", "scoring"),
    [(NASClassifier, "f1"), (NASClassifier, "roc_auc"), (NASRegressor, "accuracy")],
)
def test_scorer_for_another_kind_of_target_is_refused(kind, scoring):
    estimator = tiny(kind, scoring=scoring)
    message = f"^The 'scoring' parameter of {kind.__name__} must fit y, got '{scoring}'"
    with pytest.raises(ValueError, match=message):
        estimator.fit(X, target(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", ["table", TableSpace()])
@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("image_shape", (2, 2), "None for a table"),
        ("channel_axis", 1, "'auto' for a table"),
    ],
)
def test_image_parameters_are_refused_for_tables(kind, space, name, value, allowed):
    estimator = tiny(kind, search_space=space, **{name: value})
    with pytest.raises(InvalidParameterError) as caught:
        estimator.fit(X, target(kind))
    assert str(caught.value) == (
        f"The {name!r} parameter of {kind.__name__} must be {allowed}, got {value!r}."
    )


@pytest.mark.parametrize(
    ("cv", "message"),
    [
        ([], r"The splits of cv=\[\] leave no rows to train or to validate on"),
        ([(np.arange(9), np.arange(990, 999))], "'cv' parameter of NASClassifier"),
        (KFold(200), "number of splits n_splits=200 greater than .* n_samples=150"),
    ],
)
def test_splits_that_do_not_fit_the_rows_are_refused(cv, message):
    with pytest.raises(ValueError, match=message):
        tiny(cv=cv).fit(X, CLASSES)


def test_more_folds_than_rows_of_any_class_are_refused():
    with pytest.raises(InvalidParameterError) as caught:
        tiny(cv=10).fit(X[::10], CLASSES[::10])
    assert str(caught.value) == (
        "The 'cv' parameter of NASClassifier must be at most the rows of the largest "
        "class, 5, got 10."
    )


def frame(**columns):
    return pd.DataFrame({"a": X[:, 0], "b": X[:, 1], **columns})


DATES = pd.date_range("2020-01-01", periods=len(X))
ONE_INFINITE = np.where(np.arange(X.size).reshape(X.shape) == 6, np.inf, X)
ONE_NAN = np.where(np.arange(len(X)) == 3, np.nan, VALUES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.empty((0, 4)), r"Found array with 0 sample\(s\)"),
        (pd.DataFrame({"a": []}), r"Found array with 0 sample\(s\)"),
        (np.empty((150, 0)), r"0 feature\(s\)"),
        (pd.DataFrame(index=range(150)), r"0 feature\(s\)"),
        (X[:, 0], "Expected 2D array, got 1D array instead"),
        (
            X[:, :, None],
            r"X must have 2 dimensions for search_space='table', got an array of shape "
            r"\(150, 4, 1\): give one row per sample\.",
        ),
        (
            frame(
                day=pd.Series([*DATES[1:], DATES.tz_localize("UTC")[0]], dtype=object)
            ),
            "Column 'day' of X mixes dates with and without a time zone",
        ),
        (frame(c=ONE_INFINITE[:, 2]), r"Column 'c' of X holds infinity, numbers must"),
        (ONE_INFINITE, r"Column 'x2' of X holds infinity, numbers must"),
        (X + 0j, "Complex data not supported"),
        (X[:-1], r"inconsistent numbers of samples: \[149, 150\]"),
    ],
)
def test_message_locates_an_unreadable_cell_of_a_table(kind, table, message):
    with pytest.raises(ValueError, match=message):
        tiny(kind, search_space="table").fit(table, target(kind))


@pytest.mark.parametrize(
    ("kind", "y", "message"),
    [
        (NASClassifier, np.ones(150), r"at least two classes .* got one class, 1\.0 "),
        (NASClassifier, ["a"] * 150, r"at least two classes .* got one class, 'a' "),
        (NASClassifier, [True] * 150, r"at least two classes .* got one class, True "),
        (NASClassifier, VALUES, "Unknown label type: continuous"),
        (NASClassifier, X[:, :2].round().astype(int), "must hold 0 and 1 only"),
        (NASClassifier, ONE_NAN, "Input y contains NaN"),
        (NASClassifier, np.where(CLASSES, "a", None), "Input y contains NaN"),
        (NASClassifier, pd.array([1, 0, pd.NA] * 50), "Input y contains NaN"),
        (NASClassifier, np.full(150, np.inf), "infinity"),
        (NASRegressor, ONE_NAN, "Input y contains NaN"),
        (NASRegressor, np.where(CLASSES == 0, np.inf, 1), "Input y contains infinity"),
        (NASRegressor, pd.array([1, 0, pd.NA] * 50), "Input y contains NaN"),
        (NASRegressor, ["a"] * 150, "could not convert string to float"),
        (NASRegressor, X[:, :, None], "Found array with dim 3"),
    ],
)
def test_a_target_that_cannot_be_learnt_is_refused(kind, y, message):
    with pytest.raises(ValueError, match=message):
        tiny(kind).fit(X, y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sample_weight": np.where(CLASSES, 1, -1)}, "Negative values in data"),
        ({"sample_weight": np.zeros(150)}, "at least one non-zero number"),
        ({"sample_weight": np.full(150, np.nan)}, "sample_weight contains NaN"),
        ({"sample_weight": np.ones(149)}, r"sample_weight.shape == \(149,\)"),
        (
            {"groups": np.ones(150)},
            "There must be at least 2 groups to train and to validate on, got 1",
        ),
        ({"groups": np.ones(149)}, r"inconsistent numbers of samples: \[150, 150, 149"),
    ],
)
def test_weights_and_groups_that_cannot_be_used_are_refused(kind, given, message):
    with pytest.raises(ValueError, match=message):
        tiny(kind, cv="auto").fit(X, target(kind), **given)


@pytest.mark.parametrize("kind", KINDS)
def test_predicting_before_fitting_is_refused(kind):
    estimator = tiny(kind)
    methods = ["predict", "score"] + ["predict_proba"] * (kind is NASClassifier)
    for method in methods:
        arguments = (X, target(kind)) if method == "score" else (X,)
        with pytest.raises(NotFittedError, match=f"This {kind.__name__} instance"):
            getattr(estimator, method)(*arguments)
    with pytest.raises(NotFittedError):
        _ = estimator.network_


@pytest.fixture(scope="module")
def fitted():
    X = frame(word=np.where(CLASSES, "yes", "no"))
    return NASClassifier(max_trials=1, max_epochs=1, cv=2).fit(X, CLASSES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[["b", "a", "word"]], "must be in the same order as they were"),
        (lambda t: t.rename(columns={"a": "z"}), "(?s)unseen at fit.*z.*missing.*a"),
        (lambda t: t.drop(columns="b"), "(?s)seen at fit time, yet now missing.*b"),
        (lambda t: t.assign(z=1), "(?s)unseen at fit time.*z"),
        (lambda t: t.assign(a="text"), "Column 'a' of X is read as numbers, it must"),
        (lambda t: t.assign(a=np.inf), "Column 'a' of X holds infinity"),
        (lambda t: t.assign(a=DATES), "Column 'a' of X holds dates"),
        (lambda t: t.assign(word=DATES), "Column 'word' of X holds dates"),
        (lambda t: t.iloc[:0], r"Found array with 0 sample\(s\)"),
    ],
)
def test_rows_with_other_columns_than_in_fit_are_refused(fitted, change, message):
    with pytest.raises(ValueError, match=message):
        fitted.predict(change(frame(word="yes")))


@pytest.mark.parametrize("n_columns", [3, 5])
def test_another_number_of_columns_is_refused(n_columns):
    estimator = NASRegressor(max_trials=1, max_epochs=1, cv=2).fit(X, VALUES)
    message = f"X has {n_columns} features, but NASRegressor is expecting 4 features"
    with pytest.raises(ValueError, match=message):
        estimator.predict(np.ones((2, n_columns)))


# Unusual calls that are valid


@pytest.mark.parametrize("n_rows", [2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_automatic_folds_shrink_to_the_rows(kind, n_rows):
    y = np.arange(n_rows) % 2
    estimator = tiny(kind, cv="auto")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SearchWarning)  # about classes with one row
        estimator.fit(X[:n_rows], y)
    assert estimator.predict(X).shape == (len(X),)


def n_splits(estimator):
    return sum(name.startswith("split") for name in estimator.cv_results_)


def test_a_rare_class_is_learnt_with_one_warning():
    y = CLASSES.astype(object)
    y[:] = np.array(["setosa", "versicolor", "virginica"])[CLASSES]
    y[0] = "hapax"
    with pytest.warns(SearchWarning) as caught:
        estimator = tiny(cv=3).fit(X, y)
    assert [str(warning.message) for warning in caught] == [
        "Scores say little about some classes: no fold validates class 'hapax' "
        "(1 row). Give more rows of them, or merge them with others."
    ]
    assert caught[0].filename == __file__
    assert list(estimator.classes_) == ["hapax", "setosa", "versicolor", "virginica"]
    assert estimator.predict_proba(X).shape == (len(X), 4)
    np.testing.assert_allclose(estimator.predict_proba(X).sum(axis=1), 1, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Scores say little about some classes")
@pytest.mark.parametrize("scoring", [None, "neg_log_loss", "roc_auc_ovr"])
def test_probability_columns_match_the_classes_if_folds_lack_some(scoring):
    order = np.argsort(CLASSES, kind="stable")  # the first splits contain one class
    X_sorted, y_sorted = X[order], CLASSES[order]
    estimator = tiny(cv=TimeSeriesSplit(4), scoring=scoring)
    if scoring == "roc_auc_ovr":  # no fold validates all classes
        estimator.set_params(cv=[(np.arange(0, 150, 2), np.arange(1, 150, 2))])
    estimator.fit(X_sorted, y_sorted)
    assert estimator.predict_proba(X).shape == (len(X), 3)
    assert np.isfinite(estimator.best_score_)


HALF_SPLITS = [(np.arange(0, 150, 2), np.arange(1, 150, 2))]


@pytest.mark.filterwarnings("ignore:Scores say little about some classes")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("cv", "splits"),
    [
        (TimeSeriesSplit(3), 3),
        (ShuffleSplit(2, test_size=0.2, random_state=0), 2),
        (PredefinedSplit(np.where(np.arange(150) % 5 == 0, 0, -1)), 1),
        (HALF_SPLITS, 1),
        ([(train.tolist(), test.tolist()) for train, test in HALF_SPLITS * 2], 2),
        ([(np.arange(150) < 120, np.arange(150) >= 120)], 1),  # masks
    ],
)
def test_splitters_may_leave_rows_unvalidated(kind, cv, splits):
    estimator = tiny(kind, cv=cv, max_trials=3).fit(X, target(kind))
    assert n_splits(estimator) == splits
    assert estimator.predict(X).shape == (len(X),)


def test_splits_may_come_from_a_generator():
    estimator = tiny(cv=(split for split in HALF_SPLITS))
    assert n_splits(estimator.fit(X, CLASSES)) == 1


@pytest.mark.filterwarnings("ignore:Scores say little about some classes")
@pytest.mark.parametrize("cv", [GroupKFold(3), LeaveOneGroupOut(), "auto", 3])
def test_groups_are_never_split(cv):
    # Rows of a group are equal and of one class: splitting a group would score 1.
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), 20)
    table = 10 * rng.normal(size=(6, 4))[groups] + 0.01 * rng.normal(size=(120, 4))
    y = rng.permutation([0, 1, 0, 1, 0, 1])[groups]
    estimator = NASClassifier(max_trials=1, max_epochs=30, random_state=0)
    assert estimator.fit(table, y).best_score_ == 1
    estimator.set_params(cv=cv).fit(table, y, groups=groups)
    assert estimator.best_score_ < 1
    assert n_splits(estimator) == (6 if isinstance(cv, LeaveOneGroupOut) else 3)


# -------------------------------------------------------------- arguments of other fits

CV = "give all rows as X and y, rows to validate on are chosen by 'cv' of {}."
KEYWORDS = {
    **dict.fromkeys(("eval_set", "validation_data", "X_val", "validation_split"), CV),
    "eval_metric": "trials are scored by the parameter 'scoring' of {}.",
    "epochs": "give max_epochs to {}.",
    "time_limit": "give max_time to {}.",
    "categorical_feature": "give categorical_features to {}.",
    "cat_features": "give categorical_features to {}.",
    "callbacks": "leave it out, options of a search are parameters of {}.",
    "verbose": "give it to {}(verbose=...).",
    "sample_weights": "did you mean 'sample_weight'?",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keyword", KEYWORDS)
def test_an_argument_of_another_fit_is_refused_with_what_replaces_it(kind, keyword):
    with pytest.raises(TypeError) as caught:
        tiny(kind).fit(X, target(kind), **{keyword: [(X, CLASSES)]})
    name = kind.__name__
    assert str(caught.value) == (
        f"{name}.fit takes X, y, sample_weight and groups, got {keyword!r}: "
        + KEYWORDS[keyword].format(name)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "call",
    [
        lambda kind: kind(1, 2, 3, 4),
        lambda kind: kind(epochs=3),
        lambda kind: kind().fit(),
        lambda kind: kind().fit(X),
        lambda kind: kind().fit(X, CLASSES, None, None, X),
        lambda kind: kind().predict(),
        lambda kind: kind().predict(X, batch_size=3),
        lambda kind: kind().score(X),
        lambda kind: kind().set_params(epochs=3),
    ],
)
def test_no_error_of_a_call_names_a_private_class(kind, call):
    with pytest.raises((TypeError, ValueError)) as caught:
        call(kind)
    assert "BaseNAS" not in str(caught.value)


def test_metadata_is_routed_to_fit_as_before():
    with config_context(enable_metadata_routing=True):
        model = tiny().set_fit_request(sample_weight=True)
        requests = model.get_metadata_routing().fit.requests
    assert requests == {"sample_weight": True, "groups": None}
