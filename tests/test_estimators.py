"""The estimators follow the conventions of scikit-learn."""

import inspect
import pickle
import random
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris, make_classification
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import BaggingClassifier, StackingClassifier
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    make_scorer,
    r2_score,
    roc_auc_score,
)
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from sknas import NASClassifier, NASRegressor
from sknas._ensemble import build
from sknas._ensemble.predictor import Ensemble
from sknas._history import Architecture, History
from sknas.exceptions import UnseenValuesWarning
from sknas.spaces import TableSpace
from sknas.strategies import BayesianStrategy, RandomStrategy
from sknas.trainers import SkorchTrainer, TensorNet

KINDS = [NASClassifier, NASRegressor]
TINY = {"max_trials": 2, "max_epochs": 3, "cv": 2, "random_state": 0}
X, CLASSES = load_iris(return_X_y=True)
X = np.ascontiguousarray(X)
VALUES = X @ [1.0, -2.0, 0.5, 3.0]
LABELS = np.eye(3, dtype=int)[CLASSES]
NAMES = ["a", "b", "c", "d"]
GROUPS = np.arange(len(X)) // 10
WEIGHT = np.arange(len(X)) % 3 + 1.0


def tiny(kind=NASClassifier, **parameters):
    return kind(**{**TINY, **parameters})


def target(kind):
    return CLASSES if kind is NASClassifier else VALUES


def answers(estimator, X=X):
    """Return probabilities or values."""
    method = getattr(estimator, "predict_proba", estimator.predict)
    return method(X)


def same_answers(one, other, X=X):
    np.testing.assert_array_equal(answers(one, X), answers(other, X))


def same_search(one, other):
    """Assert that two searches have the same trials with the same scores."""
    assert [t.architecture for t in one.history_] == [
        t.architecture for t in other.history_
    ]
    scores = [
        [trial.fold_scores for trial in estimator.history_]
        for estimator in (one, other)
    ]
    assert scores[0] == scores[1]


# Weights


@pytest.fixture(scope="module")
def weighted_table():
    """600 rows, their weights, and the indices of the repeated and shuffled rows."""
    rng = np.random.default_rng(0)
    table, y = make_classification(600, 6, n_informative=4, n_classes=3, random_state=0)
    values = np.column_stack([table[:, 0] * table[:, 1], table[:, 2]])
    labels = (values > 0).astype(int)
    weight = rng.integers(0, 4, 600)
    repeated = rng.permutation(np.arange(600).repeat(weight))
    return table, {"classes": y, "values": values, "labels": labels}, weight, repeated


@pytest.mark.parametrize(
    ("kind", "name", "parameters"),
    [
        (NASClassifier, "classes", {}),
        (NASClassifier, "classes", {"class_weight": "balanced", "cv": 3}),
        (NASClassifier, "classes", {"scoring": "neg_log_loss"}),
        (NASClassifier, "labels", {}),
        (
            NASRegressor,
            "values",
            {"scoring": lambda e, X, y: -len(X) - e.predict(X).mean()},
        ),
    ],
)
def test_weights_are_repetitions(weighted_table, kind, name, parameters):
    table, targets, weight, repeated = weighted_table
    y = targets[name]
    estimator = tiny(kind, max_trials=3, ensemble_size=3, **parameters)
    weighted = clone(estimator).fit(table, y, sample_weight=weight)
    estimator.fit(table[repeated], y[repeated])
    assert (
        max(estimator.cv_results_["param_batch_size"]) < 600
    )  # several batches per epoch
    same_search(weighted, estimator)
    same_answers(weighted, estimator, table)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_weight_are_not_read(kind):
    weight = np.ones(len(X))
    weight[::5] = 0
    kept = weight > 0
    table, y = X.copy(), target(kind).astype(object)
    table[~kept] = np.inf
    y[~kept] = None
    groups = np.arange(len(X)) % 7
    without = tiny(kind).fit(X[kept], target(kind)[kept], groups=groups[kept])
    same_answers(tiny(kind).fit(table, y, weight, groups), without)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_sum_to_one_are_shares(kind):
    table, y = X[:128], target(kind)[:128]
    shares = tiny(kind).fit(table, y, sample_weight=np.full(128, 1 / 128))
    same_answers(shares, tiny(kind).fit(table, y))


def test_networks_of_noise_predict_the_heavier_class():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(400, 2))  # does not depend on y
    y = np.arange(400) % 2
    estimator = tiny().fit(noise, y, sample_weight=np.where(y == 1, 9, 1))
    assert estimator.predict(noise).mean() > 0.9


@pytest.fixture(scope="module")
def rare_table():
    rng = np.random.default_rng(0)
    y = np.repeat(["common", "rare"], [360, 40])
    return rng.normal(size=(400, 2)) + (y == "rare")[:, None], y


def test_balanced_class_weight_agrees_with_scikit_learn(rare_table):
    table, y = rare_table
    classes = np.unique(y)
    weights = compute_class_weight("balanced", classes=classes, y=y)
    balanced = tiny(class_weight="balanced").fit(table, y)
    given = tiny(class_weight=dict(zip(classes, weights, strict=True))).fit(table, y)
    np.testing.assert_allclose(answers(balanced, table), answers(given, table), 1e-3)
    found = (balanced.predict(table) == "rare") & (y == "rare")
    plain = (tiny().fit(table, y).predict(table) == "rare") & (y == "rare")
    assert found.sum() > 20 > plain.sum()


def test_classes_missing_in_class_weight_have_weight_one(rare_table):
    table, y = rare_table
    given = tiny(class_weight={"rare": 3.0}).fit(table, y)
    full = tiny(class_weight={"rare": 3.0, "common": 1}).fit(table, y)
    same_answers(given, full, table)
    plain = tiny().fit(table, y)
    rare = list(given.classes_).index("rare")
    assert answers(given, table)[:, rare].mean() > answers(plain, table)[:, rare].mean()


# Targets


@pytest.mark.parametrize(
    "wrap",
    [np.asarray, list, pd.DataFrame, lambda y: pd.DataFrame(y, columns=["p", "q"])],
)
def test_multioutput_regression(wrap):
    y = np.column_stack([VALUES, 100 - 20 * VALUES])
    regressor = NASRegressor(max_trials=1, cv=2, random_state=0).fit(X, wrap(y))
    predicted = regressor.predict(X)
    assert predicted.shape == y.shape
    assert r2_score(y, predicted, multioutput="raw_values").min() > 0.9
    assert regressor.score(X, y) == r2_score(y, predicted)


@pytest.mark.parametrize("wrap", [np.asarray, pd.DataFrame, lambda y: y.astype(bool)])
def test_multilabel_classification(wrap):
    y = np.column_stack([CLASSES == 0, CLASSES > 0]).astype(int)
    classifier = NASClassifier(max_trials=1, cv=2, random_state=0).fit(X, wrap(y))
    probabilities, predicted = classifier.predict_proba(X), classifier.predict(X)
    assert probabilities.shape == predicted.shape == y.shape
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    np.testing.assert_array_equal(predicted, probabilities > 0.5)
    assert classifier.score(X, y) == accuracy_score(y, predicted) > 0.9
    assert [list(classes) for classes in classifier.classes_] == [[0, 1], [0, 1]]


WORDS = np.array(["setosa", "versicolor", "virginica"])


@pytest.mark.parametrize(
    "y",
    [
        WORDS[CLASSES],
        WORDS[CLASSES].astype(object),
        WORDS[CLASSES].tolist(),
        pd.Series(WORDS[CLASSES], dtype="string"),
        pd.Series(WORDS[CLASSES], dtype="string[pyarrow]"),
        pd.Series(WORDS[CLASSES], dtype="category"),
        pd.Categorical(WORDS[CLASSES], categories=[*WORDS, "never seen"]),
        pl.Series(WORDS[CLASSES]),
        CLASSES == 1,
        (CLASSES == 1).tolist(),
        pd.array(CLASSES == 1, dtype="boolean"),
        pd.Series(CLASSES, dtype="Int64"),
        pd.Series(CLASSES * 10, dtype="int64[pyarrow]"),
        pd.Series(CLASSES, dtype="category"),
        CLASSES - 1.0,
        CLASSES.astype(np.uint8),
    ],
    ids=lambda y: f"{type(y).__name__}-{getattr(y, 'dtype', 'str')}",
)
def test_predicted_labels_have_the_type_of_y(y):
    classifier = tiny(max_epochs=30, max_trials=1).fit(X, y)
    values = np.array(list(y))
    np.testing.assert_array_equal(classifier.classes_, np.unique(values))
    predicted = classifier.predict(X)
    assert predicted.dtype == classifier.classes_.dtype
    assert predicted.dtype.kind in "Ubiuf"
    assert np.mean(predicted == values) > 0.9
    best = classifier.predict_proba(X).argmax(axis=1)
    np.testing.assert_array_equal(predicted, classifier.classes_[best])


@pytest.mark.parametrize("scoring", [None, "neg_mean_squared_error"])
def test_a_constant_target_is_predicted(scoring):
    regressor = tiny(NASRegressor, scoring=scoring).fit(X, np.full(len(X), 7.25))
    assert (regressor.predict(X) == 7.25).all()
    y = np.column_stack([np.full(len(X), -3), VALUES])
    assert (tiny(NASRegressor).fit(X, y).predict(X)[:, 0] == -3).all()


def test_regression_stays_within_the_targets():
    regressor = tiny(NASRegressor, max_epochs=50).fit(X, VALUES)
    predicted = regressor.predict(100 * X)
    assert VALUES.min() <= predicted.min() <= predicted.max() <= VALUES.max()


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_vector_is_ravelled_with_the_usual_warning(kind):
    y = target(kind)
    with pytest.warns(DataConversionWarning, match="column-vector y was passed"):
        estimator = tiny(kind).fit(X, y[:, None])
    assert estimator.predict(X).shape == y.shape
    same_answers(estimator, tiny(kind).fit(X, y))


# Tables


@pytest.mark.parametrize("kind", KINDS)
def test_containers_of_the_same_numbers_agree(kind, tmp_path):
    y = target(kind)
    np.save(tmp_path / "table.npy", X)
    arrays = [
        X.tolist(),
        np.asfortranarray(X),
        np.load(tmp_path / "table.npy", mmap_mode="r"),
        X.astype(object),
    ]
    frames = [pd.DataFrame(X, columns=NAMES), pl.DataFrame(X, schema=NAMES)]
    reference = tiny(kind).fit(X, y)
    for table in arrays:
        fitted = tiny(kind).fit(table, y)
        np.testing.assert_array_equal(answers(fitted, table), answers(reference))
        np.testing.assert_array_equal(answers(reference, table), answers(reference))
    for table in frames:
        fitted = tiny(kind).fit(table, y)
        assert fitted.feature_names_in_.tolist() == NAMES
        for other in frames:
            np.testing.assert_array_equal(answers(fitted, other), answers(reference))
    assert not hasattr(reference, "feature_names_in_")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_x_and_y_are_matched_by_position_not_by_index(kind):
    rng = np.random.default_rng(0)
    reference = tiny(kind).fit(X, target(kind), WEIGHT, GROUPS)
    index = [rng.permutation(len(X)) for _ in range(4)]
    frame = pd.DataFrame(X, columns=NAMES, index=index[0])
    parts = (target(kind), WEIGHT, GROUPS)
    series = [pd.Series(p, index=i) for p, i in zip(parts, index[1:], strict=True)]
    fitted = tiny(kind).fit(frame, *series)
    np.testing.assert_array_equal(answers(fitted, frame), answers(reference))


def mixed_table(missing=True):
    """A frame of plain dtypes with gaps."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "real": X[:, 0],
            "whole": np.floor(X[:, 1]),
            "flag": pd.Series(CLASSES == 2, dtype=object),
            "word": pd.Series(WORDS[rng.permutation(CLASSES)], dtype=object),
        }
    )
    if missing:
        for position, name in enumerate(frame):
            frame.loc[position::11, name] = np.nan if position < 2 else None
    return frame


NULLABLE = {"real": "Float64", "whole": "Int64", "flag": "boolean", "word": "string"}
ARROW = {
    "real": "double[pyarrow]",
    "whole": "int64[pyarrow]",
    "flag": "bool[pyarrow]",
    "word": "string[pyarrow]",
}


@pytest.mark.parametrize(
    "convert",
    [
        lambda frame: frame.astype(NULLABLE),
        lambda frame: frame.astype(NULLABLE).astype(ARROW),
        lambda frame: frame.astype({"word": "category"}),
        lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
        lambda frame: pl.from_pandas(frame.astype(NULLABLE)),
        lambda frame: pl.from_pandas(frame.astype(NULLABLE)).with_columns(
            pl.col("word").cast(pl.Categorical)
        ),
    ],
    ids=["nullable", "arrow", "category", "converted", "polars", "polars-categorical"],
)
@pytest.mark.parametrize("missing", [True, False])
def test_dtypes_of_the_same_cells_agree(convert, missing):
    frame = mixed_table(missing)
    plain = tiny().fit(frame, CLASSES)
    other = tiny().fit(convert(frame), CLASSES)
    np.testing.assert_array_equal(answers(other, convert(frame)), answers(plain, frame))


def test_rows_with_unseen_categories_and_gaps_are_predicted():
    classifier = tiny().fit(mixed_table(missing=False), CLASSES)
    strange = mixed_table(missing=True).assign(word="never seen")
    with pytest.warns(UnseenValuesWarning, match="values of X in 'word' did not"):
        assert np.isfinite(answers(classifier, strange)).all()


@pytest.mark.parametrize("nothing", [None, []])
def test_categories_are_those_of_the_dtype_or_as_given(nothing):
    codes = pd.DataFrame({"code": CLASSES * 7 % 5, "x": X[:, 0]})
    as_numbers = tiny(categorical_features=nothing).fit(codes, CLASSES)
    same_answers(as_numbers, tiny().fit(codes, CLASSES), codes)
    given = [
        tiny(categorical_features=features).fit(codes, CLASSES)
        for features in (["code"], [0], [True, False], np.array([True, False]))
    ]
    words = codes.astype({"code": "category"})
    from_dtype = tiny().fit(words, CLASSES)
    for classifier in given:
        np.testing.assert_array_equal(
            answers(classifier, codes), answers(from_dtype, words)
        )
    assert not np.array_equal(answers(as_numbers, codes), answers(given[0], codes))


@pytest.mark.parametrize(
    ("kind", "y"),
    [(NASClassifier, CLASSES), (NASClassifier, LABELS), (NASRegressor, VALUES)],
    ids=["classes", "labels", "values"],
)
def test_predictions_have_the_precision_of_the_table(kind, y):
    estimator = tiny(kind).fit(X.astype(np.float32), y)
    for dtype, expected in (
        (np.float32, np.float32),
        (np.float64, np.float64),
        (int, np.float64),
    ):
        assert answers(estimator, X.astype(dtype)).dtype == expected
    frame = pd.DataFrame(X.astype(np.float32), columns=NAMES)
    estimator = tiny(kind).fit(frame, y)
    assert answers(estimator, frame).dtype == np.float32
    assert answers(estimator, frame.astype({"a": "float64"})).dtype == np.float64
    np.testing.assert_allclose(
        answers(estimator, frame), answers(estimator, frame.astype(float)), atol=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrap", [np.asarray, pd.DataFrame])
def test_rows_are_predicted_in_bounded_batches(kind, wrap, monkeypatch):
    table = wrap(np.random.default_rng(0).normal(5, 1, size=(700, 4)))
    estimator = tiny(kind).fit(wrap(X), target(kind))
    whole = answers(estimator, table)
    sizes = []
    predict = Ensemble.predict

    def spy(self, table):
        predicted = predict(self, table)
        sizes.append(len(predicted))
        return predicted

    module = inspect.getmodule(NASClassifier._predictions)
    monkeypatch.setattr(module, "CHUNK_CELLS", 1)
    monkeypatch.setattr(Ensemble, "predict", spy)
    np.testing.assert_allclose(answers(estimator, table), whole, rtol=1e-6)
    assert max(sizes) <= 256
    assert sum(sizes) == 700


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_array])
def test_sparse_tables_are_refused_with_advice(make):
    sentence = r"^NASClassifier does not take sparse X, give a dense array: X.toarray"
    with pytest.raises(TypeError, match=sentence):
        tiny().fit(make(X), CLASSES)
    with pytest.raises(TypeError, match=sentence):
        tiny().fit(X, CLASSES).predict(make(X))


# Parameters, copies and files


def test_nested_parameters_support_get_set_and_clone():
    classifier = NASClassifier(
        TableSpace(depth=(1, 2)), BayesianStrategy(surrogate="rf"), SkorchTrainer()
    )
    parameters = classifier.get_params()
    assert parameters["strategy__surrogate"] == "rf"
    assert parameters["search_space__depth"] == (1, 2)
    classifier.set_params(strategy__acquisition="lcb", search_space__width=(16,))
    copy = clone(classifier)
    assert copy is not classifier
    assert copy.strategy is not classifier.strategy
    assert repr(copy.get_params()) == repr(classifier.get_params())
    assert (copy.strategy.acquisition, copy.search_space.width) == ("lcb", (16,))
    assert "BayesianStrategy(acquisition='lcb', surrogate='rf')" in repr(copy)
    with pytest.raises(ValueError, match="Invalid parameter 'surogate'"):
        classifier.set_params(strategy__surogate="gp")


def test_fit_does_not_change_its_parameters():
    parts = TableSpace(depth=(1, 2)), BayesianStrategy(), SkorchTrainer()
    before = [dict(vars(part)) for part in parts]
    tiny(search_space=parts[0], strategy=parts[1], trainer=parts[2]).fit(X, CLASSES)
    assert [vars(part) for part in parts] == before


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_of_both_estimators_have_the_order_of_the_signature(kind):
    parameters = list(inspect.signature(kind).parameters)
    assert len(parameters) <= 20
    assert parameters[:3] == ["search_space", "strategy", "trainer"]
    assert set(kind().get_params()) == set(parameters)
    assert all(value is None for value in kind.fit.__defaults__)


def test_a_clone_of_a_fitted_estimator_is_not_fitted():
    fitted = tiny().fit(X, CLASSES)
    with pytest.raises(NotFittedError):
        clone(fitted).predict(X)


def weight_bytes(estimator):
    """Return the bytes of the weights that predict."""
    return sum(
        p.numel() * p.element_size()
        for member in estimator.ensemble_.members
        for network in member.networks
        for p in network.module_.state_dict().values()
    )


def joblib_round_trip(estimator, path):
    joblib.dump(estimator, path)
    return joblib.load(path)


def pickle_round_trip(estimator, path):
    path.write_bytes(pickle.dumps(estimator))
    return pickle.loads(path.read_bytes())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("round_trip", "cv"), [(joblib_round_trip, 2), (pickle_round_trip, 3)]
)
def test_files_keep_the_predictions_and_are_small(kind, round_trip, cv, tmp_path):
    wide = TableSpace(depth=(3, 4), width=(512,))
    estimator = tiny(kind, search_space=wide, max_trials=3, ensemble_size=2, cv=cv)
    estimator.fit(X, target(kind))
    path = tmp_path / "estimator"
    loaded = round_trip(estimator, path)
    same_answers(loaded, estimator)
    assert loaded.best_score_ == estimator.best_score_
    assert loaded.history_ == estimator.history_
    assert path.stat().st_size <= 1.2 * weight_bytes(estimator) + 500_000


@pytest.mark.parametrize("kind", KINDS)
def test_no_training_rows_are_kept(kind):
    rng = np.random.default_rng(0)

    def dump(n_rows):
        table = pd.DataFrame(
            {
                "x": rng.normal(size=n_rows),
                "key": [f"key-{row:05d}" for row in range(n_rows)],
                "kind": rng.choice(["often-a", "often-b", "often-c"], n_rows),
            }
        )
        y = rng.normal(size=n_rows) if kind is NASRegressor else table["x"] > 0
        space = TableSpace(
            n_bins=(8,)
        )  # so that the default network has the same size for both
        estimator = tiny(kind, search_space=space, max_trials=1, max_epochs=1)
        return pickle.dumps(estimator.fit(table, y))

    small, large = dump(300), dump(6_000)
    assert b"often-a" in small
    assert b"key-00017" not in small
    assert len(large) < 1.01 * len(small)


# Inside scikit-learn


class Recording(NASClassifier):
    """Records the arguments of `fit`."""

    calls = []  # noqa: RUF012 - shared by clones on purpose

    def fit(self, X, y, sample_weight=None, groups=None):
        self.calls.append((len(X), sample_weight, groups))
        return super().fit(X, y, sample_weight=sample_weight, groups=groups)


@pytest.fixture
def recording():
    Recording.calls.clear()
    return Recording(**TINY)


def test_weights_reach_fit_without_routing(recording):
    cross_validate(recording, X, CLASSES, cv=2, params={"sample_weight": WEIGHT})
    grid = {"max_epochs": [1]}
    search = GridSearchCV(recording, grid, cv=2).fit(X, CLASSES, sample_weight=WEIGHT)
    assert [n for n, *_ in recording.calls] == [75, 75, 75, 75, 150]
    assert all(len(weight) == n for n, weight, _ in recording.calls)
    np.testing.assert_array_equal(recording.calls[-1][1], WEIGHT)
    assert search.best_estimator_.n_trials_ == 2


def test_weights_and_groups_reach_fit_by_routing(recording):
    metadata = {"sample_weight": WEIGHT, "groups": GROUPS}
    with config_context(enable_metadata_routing=True):
        with pytest.raises(ValueError, match="not explicitly set as requested or not"):
            cross_validate(recording, X, CLASSES, params=metadata)
        recording.set_fit_request(sample_weight=True, groups=True)
        recording.set_score_request(sample_weight=True)
        cross_validate(recording, X, CLASSES, cv=GroupKFold(3), params=metadata)
        grid = GridSearchCV(recording, {"max_epochs": [1]}, cv=GroupKFold(2))
        grid.fit(X, CLASSES, **metadata)
    assert len(recording.calls) == 3 + 2 + 1
    for n, weight, groups in recording.calls:
        assert len(weight) == len(groups) == n
    assert sum(len(np.unique(groups)) for *_, groups in recording.calls[:3]) == 2 * 15


@pytest.mark.process
def test_cross_validation_in_two_processes_is_the_same():
    scores = [
        cross_val_score(tiny(max_trials=1), X, CLASSES, cv=2, n_jobs=n_jobs)
        for n_jobs in (1, 2)
    ]
    np.testing.assert_array_equal(*scores)


def test_a_grid_over_strategies_spaces_and_their_parameters():
    classifier = tiny(search_space=TableSpace(activation=("relu",)))
    strategies = ["random", BayesianStrategy(surrogate="rf", n_initial_points=1)]
    grid = [
        {"strategy": strategies},
        {
            "strategy": [BayesianStrategy()],
            "strategy__surrogate": ["et"],
            "search_space__depth": [(1, 1), (3, 3)],
        },
    ]
    search = GridSearchCV(classifier, grid, cv=2, error_score="raise")
    search.fit(X, CLASSES)
    assert len(search.cv_results_["params"]) == 4
    best = search.best_estimator_.best_architecture_
    assert best["activation"] == "relu"
    for depth in (1, 3):
        classifier.set_params(search_space__depth=(depth, depth)).fit(X, CLASSES)
        assert {a["depth"] for a in classifier.cv_results_["params"]} == {depth}


def mixed_pipeline():
    columns = make_column_transformer(
        (StandardScaler(), ["real", "whole"]),
        (OneHotEncoder(sparse_output=False, handle_unknown="ignore"), ["word"]),
        ("passthrough", ["flag"]),
    )
    return make_pipeline(columns, tiny(max_epochs=30))


@pytest.mark.parametrize(
    ("estimator", "table"),
    [
        (
            StackingClassifier(
                [("a", tiny()), ("b", LogisticRegression(max_iter=1_000))], cv=2
            ),
            X,
        ),
        (CalibratedClassifierCV(tiny(max_epochs=30), cv=2), X),
        (BaggingClassifier(tiny(max_epochs=30), 2, random_state=0), X),
        (make_pipeline(StandardScaler(), tiny(max_epochs=30)), X),
        (mixed_pipeline(), mixed_table(missing=False)),
        (mixed_pipeline().set_output(transform="pandas"), mixed_table(missing=False)),
    ],
    ids=["stacking", "calibration", "bagging", "scaled", "columns", "pandas output"],
)
def test_estimators_work_inside_other_estimators(estimator, table):
    estimator.fit(table, CLASSES)
    probabilities = estimator.predict_proba(table)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert estimator.score(table, CLASSES) > 0.8


# Global state


def global_state():
    return {
        "numpy": [str(part) for part in np.random.get_state()],  # noqa: NPY002
        "python": random.getstate(),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "interop": torch.get_num_interop_threads(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "filters": list(warnings.filters),
        "floating point": np.geterr(),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_global_state_is_left_as_found(kind):
    torch.manual_seed(3)
    torch.rand(5)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        before = global_state()
        answers(tiny(kind, max_trials=4, ensemble_size=2).fit(X, target(kind)))
        assert global_state() == before
    finally:
        torch.set_num_threads(n_threads)


def test_global_settings_do_not_change_the_predictions():
    reference = tiny().fit(X, CLASSES)
    with torch.no_grad():
        same_answers(tiny().fit(X, CLASSES), reference)
    torch.manual_seed(17)
    np.random.seed(17)  # noqa: NPY002 - the test needs the global state
    same_answers(tiny().fit(X, CLASSES), reference)
    torch.set_default_dtype(torch.float64)
    try:
        same_answers(tiny().fit(X, CLASSES), reference)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_predictions(kind):
    y = target(kind)
    parameters = {"strategy": BayesianStrategy(n_initial_points=3), "max_trials": 6}
    first, second, other = (
        tiny(kind, **{**parameters, "random_state": seed}).fit(X, y)
        for seed in (0, 0, 1)
    )
    same_search(first, second)
    same_answers(first, second)
    assert not np.array_equal(answers(first), answers(other))
    same_answers(first, first.fit(X, y))
    states = [np.random.RandomState(5) for _ in range(2)]
    seeded = [tiny(kind, random_state=state).fit(X, y) for state in states]
    same_answers(*seeded)


@pytest.mark.process
def test_workers_do_not_change_the_predictions(monkeypatch):
    monkeypatch.setattr("sknas._parallel.run.WORTH_WORKERS", 0)
    table, y = make_classification(500, random_state=0)
    parameters = {"max_trials": 6, "ensemble_size": 3, "strategy": RandomStrategy()}
    alone, together = (
        tiny(n_jobs=n_jobs, **parameters).fit(table, y) for n_jobs in (1, 2)
    )
    same_search(alone, together)
    same_answers(alone, together, table)


def test_fits_in_threads_agree_with_sequential_fits():
    state = global_state()
    filters = state.pop("filters")  # catch_warnings is not thread-safe

    def fit(seed):
        assert threading.current_thread() is not threading.main_thread()
        return tiny(random_state=seed).fit(X, CLASSES)

    with ThreadPoolExecutor(2) as pool:
        in_threads = list(pool.map(fit, range(4)))
    warnings.filters[:] = filters
    after = global_state()
    after.pop("filters")
    assert after == state
    for seed, fitted in enumerate(in_threads):
        same_answers(fitted, tiny(random_state=seed).fit(X, CLASSES))


# Results of a search


@pytest.fixture(scope="module", params=KINDS)
def searched(request):
    kind = request.param
    estimator = tiny(kind, max_trials=5, cv=3, ensemble_size=3)
    frame = pd.DataFrame(X, columns=NAMES)
    return estimator.fit(frame, target(kind))


FITTED = {
    "best_architecture_": Architecture,
    "best_score_": float,
    "cv_results_": dict,
    "history_": History,
    "baseline_scores_": dict,
    "network_": TensorNet,
    "ensemble_": Ensemble,
    "n_trials_": int,
    "search_time_": float,
    "stop_reason_": str,
    "n_features_in_": int,
    "feature_names_in_": np.ndarray,
}


def test_fitted_attributes_are_set(searched):
    for name, kind in FITTED.items():
        assert isinstance(getattr(searched, name), kind), name
        if name != "network_":
            assert not hasattr(clone(searched), name)
    assert callable(searched.scorer_)
    assert hasattr(searched, "classes_") == isinstance(searched, NASClassifier)
    assert searched.stop_reason_ == "max_trials"
    assert searched.n_trials_ == len(searched.history_) == 5
    assert searched.search_time_ > 0
    assert (searched.n_features_in_, list(searched.feature_names_in_)) == (4, NAMES)


def test_cv_results_have_the_form_of_a_grid_search(searched):
    grid = GridSearchCV(DummyClassifier(), {"constant": [0, 1]}, cv=3)
    grid.fit(X, CLASSES)
    results = pd.DataFrame(searched.cv_results_)
    assert set(grid.cv_results_) - {"param_constant"} <= set(results)
    options = {"status", "rung", "origin", "n_epochs", "n_params", "seconds", "reason"}
    assert options <= set(results)
    assert len(results) == 5
    for name, column in grid.cv_results_.items():
        ours = searched.cv_results_.get(name, column)
        assert type(ours) is type(column)
        assert np.asarray(ours).dtype.kind == np.asarray(column).dtype.kind
    assert results["status"].tolist() == ["ok"] * 5
    assert results["origin"].iloc[:2].tolist() == ["default", "known"]
    assert set(results["origin"].iloc[1:]) == {"known"}
    assert (results[["n_epochs", "n_params", "seconds"]] > 0).all(axis=None)
    splits = results[[f"split{fold}_test_score" for fold in range(3)]]
    np.testing.assert_allclose(splits.mean(axis=1), results["mean_test_score"])
    np.testing.assert_allclose(splits.std(axis=1, ddof=0), results["std_test_score"])
    ranked = results.sort_values("rank_test_score")
    assert ranked["rank_test_score"].tolist() == [1, 2, 3, 4, 5]
    assert ranked["rung"].is_monotonic_decreasing
    for _, alike in ranked.groupby("rung"):
        assert alike["mean_test_score"].is_monotonic_decreasing
    best = ranked.iloc[0]
    assert best["mean_test_score"] == searched.best_score_
    assert best["params"] == dict(searched.best_architecture_)
    for row, params in enumerate(searched.cv_results_["params"]):
        for name in searched.best_architecture_:
            column = searched.cv_results_[f"param_{name}"]
            assert column.mask[row] == (name not in params)
            assert column.mask[row] or column[row] == params[name]


def test_baselines_are_scored_on_the_same_folds(searched):
    scores = searched.baseline_scores_
    assert set(scores) == {"default", "linear", "dummy"}
    results = searched.cv_results_
    assert scores["default"] == results["mean_test_score"][0]
    if isinstance(searched, NASClassifier):
        assert scores["dummy"] == pytest.approx(1 / 3, abs=0.05)
    else:  # the mean of other rows never beats the mean of the validation rows
        assert -0.5 < scores["dummy"] <= 0
    assert scores["linear"] > 0.9


def test_network_is_the_ensemble_member_with_the_largest_weight(searched):
    members = searched.ensemble_.members
    weights = [member.weight for member in members]
    assert 1 <= len(members) <= 3
    assert sum(weights) == pytest.approx(1)
    assert weights == sorted(weights, reverse=True)
    assert searched.network_ is members[0].network
    tried = [trial.architecture for trial in searched.history_]
    assert all(member.architecture in tried for member in members)


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_of_one_is_the_best_network(kind):
    estimator = tiny(kind, max_trials=3, ensemble_size=1).fit(X, target(kind))
    (member,) = estimator.ensemble_.members
    assert member.weight == 1
    assert member.architecture == estimator.best_architecture_
    assert estimator.network_ is member.network


def test_second_fit_does_not_depend_on_the_first():
    estimator = tiny().fit(pd.DataFrame(X, columns=NAMES), WORDS[CLASSES])
    estimator.fit(X[:, :2], CLASSES == 0)
    same_answers(estimator, tiny().fit(X[:, :2], CLASSES == 0), X[:, :2])
    assert list(estimator.classes_) == [False, True]
    assert estimator.n_features_in_ == 2
    assert not hasattr(estimator, "feature_names_in_")


def test_failed_second_fit_leaves_a_consistent_estimator():
    def fail(estimator, X, y):
        raise KeyboardInterrupt

    first, second = (
        pd.DataFrame({"w": list(words) * 30}) for words in ("abcd", "dcxb")
    )
    y = (first["w"] > "b").to_numpy()
    estimator = tiny(max_epochs=30).fit(first, y)
    before = answers(estimator, first)
    with pytest.raises(KeyboardInterrupt):
        estimator.set_params(scoring=fail).fit(second, ~y)
    try:
        after = answers(estimator, first)
    except NotFittedError:
        return
    np.testing.assert_array_equal(after, before)


def test_ctrl_c_during_ensemble_selection_keeps_the_trials(monkeypatch):
    calls, real = [], build.build_from_folds

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(build, "build_from_folds", interrupted)
    estimator = tiny(cv=5, ensemble_size=2).fit(X, CLASSES)
    assert len(calls) == 2
    assert estimator.stop_reason_ == "interrupted"
    monkeypatch.undo()
    same_answers(estimator, tiny(cv=5, ensemble_size=2).fit(X, CLASSES), X)


def test_bounds_of_parameters_and_epochs_hold():
    strategy = RandomStrategy()
    parameters = {"max_trials": 6, "strategy": strategy, "cv": 2, "random_state": 0}
    classifier = NASClassifier(
        **parameters, max_epochs=4, constraints={"n_params": 9_000}
    )
    results = pd.DataFrame(classifier.fit(X, CLASSES).cv_results_)
    assert len(results) == 6
    assert results["n_params"].max() <= 9_000
    assert results["n_epochs"].between(1, 4).all()
    free = pd.DataFrame(NASClassifier(**parameters).fit(X, CLASSES).cv_results_)
    assert free["n_params"].max() > 9_000
    assert free["n_epochs"].max() > 4


# Scores


def accuracy_that_inspects(estimator, X, y):
    """Return the accuracy, after checking that rows and targets match."""
    assert isinstance(X, pd.DataFrame)
    assert list(X.columns) == [*NAMES, "answer"]
    np.testing.assert_array_equal(X["answer"], y)
    return accuracy_score(y, estimator.predict(X))


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_a_scorer_sees_the_rows_it_scores(weight):
    frame = pd.DataFrame(X, columns=NAMES).assign(answer=CLASSES)
    named, own = (
        tiny(scoring=scoring).fit(frame, CLASSES, sample_weight=weight)
        for scoring in ("accuracy", accuracy_that_inspects)
    )
    same_search(named, own)
    assert own.score(frame, CLASSES) == accuracy_score(CLASSES, own.predict(frame))


BINARY = (CLASSES > 0).astype(int)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("neg_log_loss", lambda e, X, y: -log_loss(y, e.predict_proba(X))),
        ("roc_auc", lambda e, X, y: roc_auc_score(y, e.predict_proba(X)[:, 1])),
        ("accuracy", make_scorer(accuracy_score)),
        ("roc_auc", make_scorer(roc_auc_score, response_method="predict_proba")),
        ("neg_brier_score", "neg_brier_score"),
    ],
)
def test_scores_are_those_of_scikit_learn(name, own):
    # A function may read probabilities, so labels are not smoothed for it.
    space = TableSpace(label_smoothing=(0.0,))
    classifier = tiny(search_space=space, max_trials=3, scoring=name).fit(X, BINARY)
    other = tiny(search_space=space, max_trials=3, scoring=own).fit(X, BINARY)
    np.testing.assert_allclose(
        classifier.cv_results_["mean_test_score"],
        other.cv_results_["mean_test_score"],
        rtol=1e-6,
    )
    assert (classifier.best_score_ < 0) == name.startswith("neg_")
    assert classifier.best_score_ == classifier.cv_results_["mean_test_score"].max()
    score = classifier.score(X, BINARY)  # still the accuracy
    assert score == accuracy_score(BINARY, classifier.predict(X))
    direct = classifier.scorer_(classifier, X, BINARY)
    if name == "roc_auc":
        direct_value = roc_auc_score(BINARY, classifier.predict_proba(X)[:, 1])
        assert direct == pytest.approx(direct_value)


def test_score_method_of_a_regressor_is_r2():
    regressor = tiny(NASRegressor, scoring="neg_mean_absolute_error").fit(X, VALUES)
    assert regressor.best_score_ < 0
    assert regressor.score(X, VALUES) == r2_score(VALUES, regressor.predict(X))


# Output


def test_nothing_is_printed_unless_asked(capfd):
    tiny().fit(X, CLASSES).predict(X)
    assert capfd.readouterr() == ("", "")
    classifier = tiny(verbose=1).fit(X, CLASSES)
    shown = "".join(capfd.readouterr())
    assert f"best={classifier.best_score_:.4f}" in shown
    assert "2/2 trial" in shown


@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_routing_with_categories_and_every_target(kind):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.normal(size=90), "word": rng.choice(list("abc"), 90)})
    hot = np.stack([X["x"] > 0, X["word"] == "a"], axis=1).astype(int)
    y = hot[:, 0] if kind == "classes" else hot
    model = NASClassifier(max_trials=1, max_epochs=2, random_state=0, n_jobs=1)
    plain = model.fit(X, y, sample_weight=np.ones(90)).baseline_scores_
    with config_context(enable_metadata_routing=True):
        model.set_fit_request(sample_weight=True)
        routed = model.fit(X, y, sample_weight=np.ones(90)).baseline_scores_
    assert routed == plain and np.isfinite(routed["linear"])


@pytest.mark.parametrize("name", ["max_trials", "max_epochs", "ensemble_size"])
def test_short_integers_of_numpy_are_integers(name):
    """A product with a short integer overflows."""
    value = 200 if name == "max_epochs" else 2
    options = {"max_trials": 1, "max_epochs": 1, name: value}
    expected = tiny(**options).fit(X, CLASSES)
    short = tiny(**{**options, name: np.uint8(value)}).fit(X, CLASSES)
    same_answers(short, expected, X)
