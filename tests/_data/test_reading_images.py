"""Images in `fit` and `predict`, with a space of one linear layer over pixels."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
from fits import problem_of
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from torch import nn

import sknas._base as base
from sknas import NASClassifier, NASRegressor
from sknas._problem import Problem
from sknas._scoring.baselines import (
    _feature_map,
    _has_time,
    _valid_chunks,
    baseline_scores,
)
from sknas.exceptions import InvalidParameterError
from sknas.nets._image import ImageInput
from sknas.spaces import SPACES, Real, Space, TableSpace


class AddNetworkAxis(nn.Module):
    """(N, C) -> (1, N, C)."""

    def forward(self, x):
        return x[None]


class PixelSpace(Space):
    """A linear layer over pixels."""

    reads = "image"

    @property
    def choices(self):
        return {"lr": Real(3e-3, 1e-1, log=True, default=3e-2)}

    def build(self, architecture, task):
        linear = nn.Linear(task.n_columns, task.n_outputs)
        inputs = ImageInput(task.image)
        return nn.Sequential(inputs, nn.Flatten(), linear, AddNetworkAxis())


DIGITS = load_digits()
N = 240
FLOATS = DIGITS.images[:N]
X = FLOATS.astype(np.uint8)
CLASSES = DIGITS.target[:N]
VALUES = np.stack([FLOATS.mean(axis=(1, 2)), FLOATS[:, :4].mean(axis=(1, 2))], axis=1)
NEW = DIGITS.images[N : N + 100].astype(np.uint8)


def tiny(kind=NASClassifier, **parameters):
    usual = {
        "search_space": PixelSpace(),
        "trainer": "skorch",
        "max_trials": 2,
        "max_epochs": 40,
        "cv": 2,
        "n_jobs": 1,
        "random_state": 0,
    }
    return kind(**{**usual, **parameters})


@pytest.fixture(scope="module")
def classifier():
    return tiny().fit(X, CLASSES)


def test_fitted_attributes_describe_the_images(classifier):
    assert classifier.n_features_in_ == 64
    assert classifier.score(X, CLASSES) > 0.8
    assert classifier.best_score_ > 0.5
    assert classifier.baseline_scores_["linear"] > 0.8
    assert classifier.baseline_scores_["dummy"] < 0.2
    assert not hasattr(classifier, "feature_names_in_")
    assert isinstance(classifier.search_space_, PixelSpace)


def test_8_bits_and_the_same_floats_are_predicted_alike(classifier):
    expected = classifier.predict_proba(NEW)
    assert expected.dtype == np.float32
    for dtype in (np.float32, np.float16, np.int64):
        assert_array_equal(classifier.predict_proba(NEW.astype(dtype)), expected)
    exact = classifier.predict_proba(NEW.astype(np.float64))
    assert exact.dtype == np.float64
    assert_allclose(exact, expected, atol=1e-5)
    assert_allclose(exact.sum(axis=1), 1, rtol=1e-12)


def test_pixels_on_another_scale_are_refused(classifier):
    message = "X is in the range 0 to 1, fit saw 0 to 16: bring X to the scale of fit."
    with pytest.raises(ValueError, match=message):
        classifier.predict(NEW / 16)
    with pytest.raises(ValueError, match="range 0 to 16, fit saw 0 to 1:"):
        tiny(max_epochs=1).fit(FLOATS / 16, CLASSES).predict(NEW)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_8_bits_and_the_same_floats_are_learnt_alike(classifier, dtype):
    other = tiny().fit(X.astype(dtype), CLASSES)
    assert_array_equal(other.predict_proba(NEW), classifier.predict_proba(NEW))


@pytest.mark.parametrize(
    ("change", "parameters"),
    [
        (lambda X: X[..., None], {}),
        (lambda X: X[:, None], {"channel_axis": 1}),
        (lambda X: X.reshape(len(X), 64), {"image_shape": (8, 8)}),
        (lambda X: X.reshape(len(X), 64), {"image_shape": (1, 8, 8)}),
        (lambda X: pd.DataFrame(X.reshape(len(X), 64)), {"image_shape": (8, 8)}),
        (lambda X: X.tolist(), {}),
    ],
    ids=["last", "first", "flat", "flat first", "frame", "list"],
)
def test_layouts_are_learnt_and_predicted_alike(classifier, change, parameters):
    other = tiny(**parameters).fit(change(X), CLASSES)
    expected = classifier.predict_proba(NEW)
    assert_array_equal(other.predict_proba(change(NEW)), expected)
    assert other.n_features_in_ == 64
    flat = NEW.reshape(len(NEW), 64)
    if not hasattr(other, "feature_names_in_"):
        assert_array_equal(other.predict_proba(flat), expected)


def test_the_order_of_rows_does_not_matter(classifier):
    order = np.random.default_rng(0).permutation(N)
    other = tiny().fit(X[order], CLASSES[order])
    assert_array_equal(other.predict_proba(NEW), classifier.predict_proba(NEW))


def test_a_weight_is_a_repetition(rng):
    weight = rng.integers(0, 3, N)
    one = tiny().fit(X, CLASSES, sample_weight=weight)
    other = tiny().fit(X.repeat(weight, axis=0), CLASSES.repeat(weight))
    assert_array_equal(one.predict_proba(NEW), other.predict_proba(NEW))


def test_fitted_models_are_pickled(classifier):
    again = pickle.loads(pickle.dumps(classifier))
    assert_array_equal(again.predict_proba(NEW), classifier.predict_proba(NEW))
    assert clone(again).get_params()["image_shape"] is None


def test_chunks_are_predicted_like_the_whole(classifier, monkeypatch):
    expected = classifier.predict_proba(NEW)
    monkeypatch.setattr(base, "CHUNK_CELLS", 1)
    assert_allclose(classifier.predict_proba(NEW), expected, atol=1e-6)


@pytest.mark.parametrize(
    "parameters",
    [
        {"ensemble_size": 1},
        {"class_weight": "balanced"},
        {"scoring": "neg_log_loss"},
        {"cv": [(np.arange(0, N, 2), np.arange(1, N, 2))]},
        {"constraints": {"n_params": 1_000}},
    ],
    ids=lambda given: next(iter(given)),
)
def test_other_parameters_hold_for_images(parameters):
    model = tiny(**parameters).fit(X, CLASSES)
    assert model.score(X, CLASSES) > 0.8


def test_scoring_function_gets_the_original_images():
    shapes = set()

    def scoring(estimator, X, y):
        shapes.add(X.shape[1:])
        return float((estimator.predict(X) == y).mean())

    tiny(scoring=scoring).fit(X, CLASSES)
    assert shapes == {(8, 8)}


def test_groups_are_never_split():
    groups = np.arange(N) // 8
    model = tiny(cv=GroupKFold(3)).fit(X, CLASSES, groups=groups)
    assert model.score(X, CLASSES) > 0.8


@pytest.mark.parametrize("y", [VALUES, VALUES[:, 0]], ids=["two", "one"])
def test_regression_over_images(y):
    model = tiny(NASRegressor, max_epochs=80).fit(X, y)
    assert model.predict(NEW).shape == (100, *y.shape[1:])
    assert model.predict(NEW).dtype == np.float32
    assert model.score(X, y) > 0.8
    assert np.isfinite(model.baseline_scores_["linear"])


def test_multilabel_targets_of_images():
    y = np.stack([CLASSES % 2, CLASSES > 4], axis=1)
    model = tiny(max_epochs=80).fit(X, y)
    assert model.predict_proba(NEW).shape == (100, 2)
    assert (model.predict(X) == y).mean() > 0.8


def test_flat_rows_in_a_pipeline():
    model = make_pipeline(MinMaxScaler(), tiny(image_shape=(8, 8)))
    rows = X.reshape(N, 64)
    assert cross_val_score(model, rows, CLASSES, cv=2).min() > 0.6
    assert model.fit(rows, CLASSES).predict_proba(rows[:3]).dtype == np.float64


def test_a_grid_search_over_images():
    grid = GridSearchCV(tiny(max_trials=1), {"max_epochs": [1, 40]}, cv=2)
    assert grid.fit(X[..., None], CLASSES).best_params_ == {"max_epochs": 40}


def test_read_only_images_are_read(classifier):
    frozen, new = X.copy(), NEW.copy()
    for array in (frozen, new):
        array.flags.writeable = False
    expected = classifier.predict_proba(NEW)
    assert_array_equal(classifier.predict_proba(new), expected)
    assert_array_equal(tiny().fit(frozen, CLASSES).predict_proba(new), expected)


def test_max_time_holds_for_images():
    model = tiny(max_trials=None, max_time=3).fit(X, CLASSES)
    assert model.search_time_ < 6
    assert model.score(X, CLASSES) > 0.5


# --------------------------------------------------------------- choice of the reader


def test_dimensions_of_x_determine_the_default_space(monkeypatch):
    monkeypatch.setitem(SPACES, "image", PixelSpace)
    flat = X.reshape(N, 64)
    for rows, parameters, kind in (
        (X, {}, PixelSpace),
        (X[..., None], {}, PixelSpace),
        (flat, {"image_shape": (8, 8)}, PixelSpace),
        (flat, {"search_space": "image", "image_shape": (8, 8)}, PixelSpace),
        (flat, {"trainer": "auto"}, TableSpace),
    ):
        parameters = {"search_space": "auto", "max_trials": 1, **parameters}
        model = tiny(max_epochs=1, **parameters).fit(rows, CLASSES)
        assert isinstance(model.search_space_, kind)
        assert model.predict(rows[:5]).shape == (5,)


class OddSpace(PixelSpace):
    reads = "sound"


@pytest.mark.parametrize(
    ("rows", "parameters", "message"),
    [
        (
            X,
            {"search_space": "table"},
            "X must have 2 dimensions for search_space='table', got an array of shape "
            "(240, 8, 8): give one row per sample.",
        ),
        (
            X.reshape(N, 64),
            {},
            "X must hold images as an array of 3 or 4 dimensions, or as flat rows with "
            "'image_shape' the shape of one image, got an array of shape (240, 64) and "
            "image_shape=None.",
        ),
        (
            X,
            {"categorical_features": [0]},
            "The 'categorical_features' parameter of NASClassifier must be "
            "'from_dtype' or None for images, got [0].",
        ),
        (
            X,
            {"search_space": OddSpace()},
            "The 'reads' parameter of OddSpace must be one of 'table', 'image', got "
            "'sound'.",
        ),
    ],
)
def test_input_that_does_not_fit_the_space_is_rejected(rows, parameters, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        tiny(**parameters).fit(rows, CLASSES)


def test_a_rejected_fit_does_not_change_the_fitted_estimator():
    model = tiny(max_epochs=1).fit(X, CLASSES)
    expected = model.predict_proba(NEW)
    with pytest.raises(InvalidParameterError):
        model.set_params(search_space="table", image_shape=(8, 8)).fit(X, CLASSES)
    assert_array_equal(model.predict_proba(NEW), expected)


# --------------------------------------------------------------------------- baselines


def made_problem(**parameters):
    _, problem = problem_of(tiny(**parameters), X, CLASSES)
    return problem


def test_a_linear_model_reads_scaled_pixels():
    problem = made_problem()
    fold = problem.folds[0]
    features = _feature_map(fold)(fold.train.x)
    assert features.shape == (len(fold.train), 64)
    assert features.dtype == np.float32
    assert_allclose(features.mean(), 0, atol=1e-4)
    assert_allclose(features.std(), 1, rtol=1e-4)


def test_images_are_converted_to_floats_in_chunks(monkeypatch):
    monkeypatch.setattr("sknas._scoring.baselines.MAX_IMAGES", 50)
    problem = made_problem()
    fold = problem.folds[0]
    chunks = list(_valid_chunks(fold))
    assert_array_equal(np.concatenate(chunks), fold.valid.x)
    assert max(map(len, chunks)) == 50
    scores = baseline_scores(problem).scores
    assert scores["linear"].value > 0.6 > scores["dummy"].value


def test_linear_baseline_of_large_images_is_skipped():
    problem = made_problem()
    large = type(problem.task.image)((3, 512, 512), np.zeros(3), np.ones(3))
    task = type(problem.task)("multiclass", 10, 50_000, image=large)
    wide = Problem(task=task, folds=problem.folds)
    assert not _has_time(wide, np.inf)
