"""Targets: reading and scaling."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special
from sklearn.exceptions import DataConversionWarning

from sknas._data.target import TargetReader, TargetScale, sigmoid, softmax

LABELS = {
    "strings": (["b", "a", "b"], ["a", "b"]),
    "objects": (np.array(["b", "a", "b"], dtype=object), ["a", "b"]),
    "booleans": ([True, False, True], [False, True]),
    "floats": ([2.0, -1.0, 2.0], [-1, 2]),
    "large": ([2**60, 1, 2**60], [1, 2**60]),
    "series": (pd.Series(["b", "a", "b"]), ["a", "b"]),
    "string": (pd.Series(["b", "a", "b"], dtype="string"), ["a", "b"]),
    "arrow": (pd.Series(["b", "a", "b"], dtype="string[pyarrow]"), ["a", "b"]),
    "category": (pd.Series(["b", "a", "b"], dtype="category"), ["a", "b"]),
    "numbered": (pd.Series([7, 3, 7], dtype="category"), [3, 7]),
    "boolean": (pd.Series([True, False, True], dtype="boolean"), [False, True]),
    "nullable": (pd.Series([7, 3, 7], dtype="Int64"), [3, 7]),
    "array": (pd.array([7, 3, 7], dtype="Int8"), [3, 7]),
    "arrow integer": (pd.Series([7, 3, 7], dtype="int64[pyarrow]"), [3, 7]),
    "index": (pd.Series([7, 3, 7], index=[5, 5, 5]), [3, 7]),
    "polars": (pl.Series(["b", "a", "b"]), ["a", "b"]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_binary_labels_of_any_type(kind):
    y, classes = LABELS[kind]
    reader = TargetReader(is_classifier=True)
    assert_array_equal(reader.fit_read(y), [1, 0, 1])
    assert reader.classes_.tolist() == classes
    assert reader.classes_.dtype != object
    assert (reader.kind_, reader.n_outputs_) == ("binary", 2)


def test_multiclass_labels():
    reader = TargetReader(is_classifier=True)
    assert_array_equal(reader.fit_read([5, 7, 6, 5]), [0, 2, 1, 0])
    assert (reader.kind_, reader.n_outputs_) == ("multiclass", 3)


@pytest.mark.parametrize("wrap", [np.array, pd.DataFrame, pl.DataFrame])
def test_multilabel_targets(wrap):
    reader = TargetReader(is_classifier=True)
    y = np.array([[0, 1], [1, 1], [0, 0]])
    assert_array_equal(reader.fit_read(wrap(y)), y)
    assert (reader.kind_, reader.n_outputs_) == ("multilabel", 2)
    assert [classes.tolist() for classes in reader.classes_] == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("y", "shape", "is_column"),
    [
        ([1.5, 2], (2, 1), True),
        ([5, 5], (2, 1), True),
        (pd.Series([1, 2], dtype="Int64"), (2, 1), True),
        (pd.Series([1.5, 2], dtype="double[pyarrow]"), (2, 1), True),
        (np.ones((2, 3)), (2, 3), False),
        (pd.DataFrame({"a": [1.0, 2], "b": [2, 3]}), (2, 2), False),
        (pl.DataFrame({"a": [1.0, 2], "b": [2.0, 3]}), (2, 2), False),
    ],
)
def test_regression_targets_of_any_shape(y, shape, is_column):
    reader = TargetReader(is_classifier=False)
    values = reader.fit_read(y)
    assert (values.shape, values.dtype) == (shape, np.float64)
    assert_array_equal(values, np.asarray(y, dtype=float).reshape(shape))
    assert (reader.kind_, reader.n_outputs_) == ("regression", shape[1])
    assert reader.is_column_ is is_column


@pytest.mark.parametrize("is_classifier", [True, False])
def test_column_vector_is_ravelled_with_a_warning(is_classifier):
    reader = TargetReader(is_classifier)
    with pytest.warns(DataConversionWarning, match="A column-vector y was passed"):
        reader.fit_read(np.array([[1], [0], [1]]))
    assert reader.n_outputs_ == 1 + is_classifier
    assert reader.is_column_ is not is_classifier


MISSING = {
    "float": np.array([1.0, np.nan]),
    "object": np.array(["a", None], dtype=object),
    "float object": pd.Series([1.0, None], dtype=object),
    "nullable": pd.array([1, None], dtype="Int64"),
    "string": pd.Series(["a", None], dtype="string"),
    "category": pd.Series(["a", None], dtype="category"),
    "arrow": pd.Series([1, None], dtype="int64[pyarrow]"),
    "polars": pl.Series([1, None]),
}


@pytest.mark.parametrize("is_classifier", [True, False])
@pytest.mark.parametrize("kind", MISSING)
def test_missing_targets_are_refused(kind, is_classifier):
    with pytest.raises(ValueError, match=r"Input y contains NaN\."):
        TargetReader(is_classifier).fit_read(MISSING[kind])


@pytest.mark.parametrize("is_classifier", [True, False])
def test_infinite_targets_are_refused(is_classifier):
    with pytest.raises(ValueError, match="Input y contains infinity"):
        TargetReader(is_classifier).fit_read(np.array([1.0, np.inf]))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0.5, 1.5, 2.5], "Unknown label type: continuous"),
        (
            [[0, 2], [1, 1]],
            "y with several outputs must hold 0 and 1 only (multi-label), fit one "
            "classifier per output for more classes, for example with "
            "sklearn.multioutput.MultiOutputClassifier.",
        ),
        (
            [1, 1],
            "y must hold at least two classes to train a classifier, got one class, 1 "
            "(after rows of zero weight are dropped).",
        ),
        (
            ["a", "a"],
            "y must hold at least two classes to train a classifier, got one class, "
            "'a' (after rows of zero weight are dropped).",
        ),
    ],
)
def test_invalid_classes(y, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TargetReader(is_classifier=True).fit_read(y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["red", "blue"], "could not convert string to float"),
        (np.zeros((2, 2, 2)), "Found array with dim 3"),
        ([1j, 2], "Complex data not supported"),
    ],
)
def test_invalid_regression_targets(y, message):
    with pytest.raises(ValueError, match=message):
        TargetReader(is_classifier=False).fit_read(y)


# -------------------------------------------------------------------------- scale


def test_targets_are_standardised_and_restored(rng):
    y = rng.normal(3, 5, size=(50, 2))
    scale = TargetScale.fit(y, np.ones(50))
    z = scale(y)
    assert z.dtype == np.float32
    assert_allclose(z.mean(axis=0), 0, atol=1e-6)
    assert_allclose(z.std(axis=0), 1, rtol=1e-6)
    assert_allclose(scale.restore(z), y, rtol=1e-5)


def test_predictions_stay_within_the_training_targets():
    scale = TargetScale.fit(np.array([[0.0], [10.0]]), np.ones(2))
    assert scale.restore(np.array([[-99.0], [0], [99]])).ravel().tolist() == [0, 5, 10]


def test_a_weight_is_a_repetition(rng):
    y, weight = rng.normal(size=(30, 2)), rng.integers(1, 5, 30)
    one = TargetScale.fit(y, weight.astype(float))
    other = TargetScale.fit(np.repeat(y, weight, axis=0), np.ones(weight.sum()))
    for name in ("mean", "std", "low", "high"):
        assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)


@pytest.mark.parametrize("value", [0.1, 0.0, -1e300])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_constant_targets_are_restored_exactly(value, weight):
    y = np.full((7, 1), value)
    scale = TargetScale.fit(y, np.full(7, weight))
    assert_allclose(scale(y), 0, atol=1e-6)
    assert_array_equal(scale.restore(np.array([[-5.0], [5.0]])), [[value]] * 2)


@pytest.mark.parametrize("size", [1e300, 1e-300, 1e150, 1e-200, 1.0])
def test_huge_and_tiny_targets_are_restored(size, rng):
    y = size * rng.uniform(-1, 1, size=(40, 1))
    scale = TargetScale.fit(y, np.ones(40))
    z = scale(y)
    assert z.std() == pytest.approx(1, rel=1e-3)
    assert_allclose(scale.restore(z), y, rtol=1e-4, atol=1e-6 * size)


# ----------------------------------------------------------- outputs as predictions


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_softmax_and_sigmoid(dtype, rng):
    output = (30 * rng.normal(size=(20, 3))).astype(dtype)
    output[0] = [1e4, 0, -1e4]
    rtol = 1e-5 if dtype == np.float32 else 1e-9
    assert_allclose(softmax(output), special.softmax(output, axis=1), rtol, atol=1e-7)
    assert_allclose(softmax(output).sum(axis=1), 1, rtol=1e-6)
    assert_allclose(sigmoid(output), special.expit(output), rtol, atol=1e-7)
    assert softmax(output).dtype == sigmoid(output).dtype == dtype
