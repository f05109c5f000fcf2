"""The estimator that scorers get answers for the rows it was given, and no others."""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.metrics import accuracy_score, get_scorer
from sklearn.model_selection import cross_val_score
from sklearn.utils.validation import check_is_fitted

from sknas._data.image import ImageReader
from sknas._data.table_reader import TableReader
from sknas._scoring import stored
from sknas._scoring.stored import (
    NEW_FIT,
    OTHER_ROWS,
    RefusedError,
    StoredClassifier,
    StoredRegressor,
    UserRows,
    row_hashes,
)

N = 12
RNG = np.random.default_rng(0)
NUMBERS = np.column_stack([RNG.normal(size=(N, 2)), np.repeat([0.0, np.nan], N // 2)])
MIXED = pd.DataFrame(
    {
        "number": NUMBERS[:, 0],
        "whole": np.arange(N) % 5,
        "word": pd.Series(["a", "b", None, "d"] * (N // 4), dtype="str"),
        "flag": np.arange(N) % 3 == 0,
        "level": pd.Categorical(["u", "v"] * (N // 2)),
    },
    index=RNG.permutation(N),
)
IMAGES = RNG.integers(0, 255, (N, 5, 5, 3)).astype(np.uint8)
SHARES = RNG.dirichlet([1, 1, 1], N)
CLASSES = np.array(["x", "y", "z"])

CONTAINERS = {
    "array": NUMBERS,
    "single": NUMBERS.astype(np.float32),
    "list": NUMBERS.tolist(),
    "tensor": torch.tensor(NUMBERS),
    "frame": MIXED,
    "polars": pl.from_pandas(MIXED),
    "images": IMAGES,
}


def user_rows(X):
    is_image = getattr(X, "ndim", 2) == 4
    reader = ImageReader("N") if is_image else TableReader("N")
    learnt = StoredClassifier()  # learns the names of the columns
    checked = reader.check(learnt, X, reset=True)
    hashes = row_hashes(reader.fit(checked).read(checked))
    return UserRows(X, hashes, reader, vars(learnt))


def estimator_of(X, predictions=SHARES, classes=CLASSES, cls=StoredClassifier):
    """Return an estimator of rows of X, and the rows as a scorer gets them."""
    part = user_rows(X).take(np.arange(N))
    return cls.of(predictions, classes, part), part.X


def taken(X, rows):
    """Return rows of X in its container, copied."""
    if isinstance(X, list):
        return [list(X[row]) for row in rows]
    return X.iloc[rows] if hasattr(X, "iloc") else X[np.asarray(rows)]


@pytest.mark.parametrize("name", CONTAINERS)
@settings(max_examples=15, deadline=None)
@given(rows=st.lists(st.integers(0, N - 1), min_size=1, max_size=2 * N))
def test_rows_are_found_in_any_order_and_in_part(name, rows):
    estimator, X = estimator_of(CONTAINERS[name])
    assert type(X) is type(CONTAINERS[name])
    found = estimator.predict_proba(taken(X, rows))
    np.testing.assert_allclose(found, SHARES[rows], rtol=1e-12)
    assert estimator.predict(taken(X, rows)).tolist() == [
        CLASSES[SHARES[row].argmax()] for row in rows
    ]


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize(
    "convert",
    [
        pd.DataFrame.copy,
        pd.DataFrame.to_numpy,
        lambda X: X.to_numpy().tolist(),
        pl.from_pandas,
        lambda X: X.astype({"word": object, "level": str, "whole": float}),
        lambda X: X.convert_dtypes(),
        copy.deepcopy,
    ],
)
def test_a_frame_is_found_in_another_container(convert):
    estimator, X = estimator_of(MIXED)
    np.testing.assert_allclose(estimator.predict_proba(convert(X)[::-1]), SHARES[::-1])


def test_single_and_double_precision_of_a_number_are_the_same():
    estimator, X = estimator_of(CONTAINERS["single"])
    np.testing.assert_allclose(estimator.predict_proba(X.astype(float)), SHARES)
    wider, X = estimator_of(NUMBERS)
    with pytest.raises(RefusedError):  # rounded numbers are others
        wider.predict(X.astype(np.float32))


def test_images_are_found_as_flat_rows():
    estimator, X = estimator_of(IMAGES)
    found = estimator.predict_proba(X[::-2].reshape(len(X[::-2]), -1).astype(float))
    np.testing.assert_allclose(found, SHARES[::-2])


def changed(X, kind, row):
    X = copy.deepcopy(X)
    if kind == "value":
        if isinstance(X, pd.DataFrame):
            X.iloc[row, 0] += 1e-9
        elif X.dtype == np.uint8:
            X[row, 0, 0, 0] ^= 1
        else:
            X[row, 0] += 1e-9
    elif kind == "gap":
        if isinstance(X, pd.DataFrame):
            X.iloc[row, 2] = None if X.iloc[row, 2] == "a" else "a"
        elif X.dtype != np.uint8:
            X[row, 1] = np.nan
        else:
            X[row] = 255 - X[row]
    else:  # a column is permuted
        column = X.iloc[:, 1] if isinstance(X, pd.DataFrame) else X[:, 1]
        column = np.roll(np.asarray(column), 1, axis=0)
        if isinstance(X, pd.DataFrame):
            X["whole"] = column
        else:
            X[:, 1] = column
    return X


@pytest.mark.parametrize("kind", ["value", "gap", "permutation"])
@pytest.mark.parametrize("name", ["array", "frame", "images"])
@settings(max_examples=5, deadline=None)
@given(row=st.integers(0, N - 1))
def test_changed_rows_are_refused(name, kind, row):
    estimator, X = estimator_of(CONTAINERS[name])
    with pytest.raises(RefusedError, match="rows that it was not given"):
        estimator.predict(changed(X, kind, row))


@pytest.mark.parametrize("name", ["array", "frame", "images"])
def test_rows_that_were_overwritten_are_refused(name):
    estimator, X = estimator_of(CONTAINERS[name])
    before = copy.deepcopy(CONTAINERS[name])
    if name == "frame":
        X.iloc[0, 0] = 7.0
    else:
        X[0] = 7
    with pytest.raises(RefusedError):
        estimator.predict(X)
    same = pickle.dumps(CONTAINERS[name]) == pickle.dumps(before)
    assert same  # a copy was changed


def test_equal_rows_of_a_table_have_their_own_predictions_in_order():
    X = np.repeat(NUMBERS, 2, axis=0)
    part = user_rows(X).take(np.arange(2 * N))
    predictions = np.arange(2.0 * N)[:, None]
    estimator = StoredRegressor.of(predictions, None, part)
    for given_rows in (part.X, part.X.copy(), part.X.tolist()):
        assert estimator.predict(given_rows).tolist() == list(range(2 * N))
    assert estimator.predict(X[[5]])[0] in (4, 5)


def test_predictions_may_be_changed_by_the_scorer():
    values = RNG.normal(size=(N, 1))
    before = values.copy()
    for array, cls in (
        (values, StoredRegressor),
        (np.tile(values, 2), StoredRegressor),
    ):
        estimator, X = estimator_of(NUMBERS, array, None, cls)
        predicted = estimator.predict(X)
        predicted -= predicted
    labels = [np.array([0, 1])] * 3
    estimator, X = estimator_of(NUMBERS, SHARES.copy(), labels)
    estimator.predict_proba(X)[:] = 0
    estimator.classes_.clear()
    np.testing.assert_array_equal(values, before)
    assert len(labels) == 3 and estimator.predict_proba(X).any()


def test_attributes_are_those_of_a_fitted_estimator():
    estimator, X = estimator_of(MIXED)
    check_is_fitted(estimator)
    assert is_classifier(estimator) and estimator.get_params() == {}
    assert estimator.n_features_in_ == 5
    assert estimator.feature_names_in_.tolist() == list(MIXED.columns)
    assert estimator.classes_.tolist() == CLASSES.tolist()
    assert repr(estimator) == "StoredClassifier()"
    estimator, X = estimator_of(NUMBERS, RNG.normal(size=(N, 2)), None, StoredRegressor)
    assert is_regressor(estimator) and not hasattr(estimator, "feature_names_in_")
    assert estimator.predict(X[:3]).shape == (3, 2)
    assert not hasattr(estimator, "classes_")


def test_scikit_learn_can_score_the_estimator():
    estimator, X = estimator_of(NUMBERS)
    y = estimator.predict(X)
    assert estimator.score(X, y) == 1
    assert get_scorer("accuracy")(FrozenEstimator(estimator), X[::2], y[::2]) == 1
    assert get_scorer("roc_auc_ovr")(estimator, X, y) > 0.9


@pytest.mark.parametrize(
    "scorer",
    [
        lambda e, X, y: clone(e),
        lambda e, X, y: e.fit(X, y),
        lambda e, X, y: cross_val_score(e, X, y, cv=2).mean(),
    ],
)
def test_a_new_fit_is_refused(scorer):
    estimator, X = estimator_of(NUMBERS)
    with pytest.raises(RefusedError, match=r"^it clones or fits the estimator"):
        scorer(estimator, X, estimator.predict(X))
    assert estimator._rows.refusal == NEW_FIT


def test_a_permutation_importance_is_refused_for_constant_predictions_too():
    constant = np.tile([1.0, 0.0, 0.0], (N, 1))
    estimator, X = estimator_of(NUMBERS, constant)
    with pytest.raises(RefusedError):
        permutation_importance(estimator, X, np.repeat("x", N), n_repeats=1)
    assert estimator._rows.refusal == OTHER_ROWS


def test_errors_of_reading_are_those_of_the_estimator():
    estimator, X = estimator_of(MIXED)
    with pytest.raises(ValueError, match="same order as they were in fit"):
        estimator.predict(X[X.columns[::-1]])
    with pytest.raises(ValueError, match="Found array with 0 sample"):
        estimator.predict(X.iloc[:0])
    assert not estimator._rows.refusal


def test_cells_that_cannot_be_pickled_are_compared_by_content():
    class Odd(str):
        def __reduce__(self):
            raise TypeError("not me")

    X = pd.DataFrame({"a": pd.Series([Odd(f"w{i}") for i in range(N)], dtype=object)})
    estimator, given_rows = estimator_of(X)
    np.testing.assert_allclose(estimator.predict_proba(given_rows), SHARES)


@pytest.mark.parametrize("kind", [object, "str", "category"])
def test_words_that_were_overwritten_are_refused(kind):
    X = pd.DataFrame({"a": [f"w{i}" for i in range(N)]}, dtype=kind)
    estimator, given_rows = estimator_of(X)
    for same in ("w3", "".join(["w", "3"])):  # an equal word is the same row
        given_rows.iloc[3, 0] = same
        np.testing.assert_allclose(estimator.predict_proba(given_rows), SHARES)
    given_rows.iloc[3, 0] = "w4"
    estimator._predictions = SHARES[::-1]
    found = estimator.predict_proba(given_rows)
    np.testing.assert_allclose(found[3], SHARES[::-1][4])


def test_each_fold_is_compared_by_one_digest_and_words_are_not_read(monkeypatch):
    class Word(str):
        def __reduce__(self):
            raise AssertionError

    calls = []
    digest = stored._digest
    monkeypatch.setattr(stored, "_digest", lambda X: calls.append(X) or digest(X))
    X = pd.DataFrame({"a": pd.Series(map(Word, "abcdefghijkl"), dtype=object)})
    rows = user_rows(X)
    monkeypatch.delattr(TableReader, "read")  # rows as given need not be read
    for _ in range(3):
        for part in (np.arange(6), np.arange(6, N)):
            found = rows.take(part.copy())
            assert found.find(StoredClassifier(), found.X) == slice(None)
    assert len(calls) == 2 + 6  # one for each fold, one for each call
    copied = pickle.loads(pickle.dumps(replace(rows, X=NUMBERS)))
    assert not copied._digests


def test_kept_estimators_still_answer():
    estimator, X = estimator_of(MIXED)
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_allclose(again.predict_proba(X), estimator.predict_proba(X))
    assert accuracy_score(again.predict(X), estimator.predict(X)) == 1
