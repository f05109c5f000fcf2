"""The conventions of the estimators hold for images and every strategy."""

import pickle
import time

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from sknas import NASClassifier, NASRegressor
from sknas.spaces import CellSpace, ImageSpace
from sknas.strategies import STRATEGIES, GradientStrategy

DIGITS = load_digits()
N = 120
X = DIGITS.images[:N].astype(np.uint8)
NEW = DIGITS.images[N : N + 40].astype(np.uint8)
CLASSES = DIGITS.target[:N] % 3
VALUES = np.stack([X[:, :4].mean(axis=(1, 2)), X[:, 4:].mean(axis=(1, 2))], axis=1)

IMAGES = ImageSpace(stages=(1, 2), blocks=(1,), channels=(8,), kernel_size=(3,))
CELLS = CellSpace(
    operation=("none", "skip", "conv_1", "conv_3"), cells=(1,), channels=(8,)
)


def tiny(kind=NASClassifier, strategy="bayesian", **parameters):
    by_gradient = strategy == "gradient"
    usual = {
        "search_space": CELLS if by_gradient else IMAGES,
        "strategy": GradientStrategy(n_epochs=2) if by_gradient else strategy,
        # One trial more than the initial design, so that the strategy proposes.
        "max_trials": 2 if by_gradient else 6,
        "max_epochs": 6,
        "cv": 2,
        "n_jobs": 1,
        "random_state": 0,
    }
    return kind(**{**usual, **parameters})


@pytest.fixture(params=STRATEGIES)
def strategy(request):
    return request.param


@pytest.mark.parametrize(
    "kind", [NASClassifier, pytest.param(NASRegressor, marks=pytest.mark.slow)]
)
def test_every_strategy_searches_images(kind, strategy):
    y = CLASSES if kind is NASClassifier else VALUES
    model = tiny(kind, strategy).fit(X, y)
    origins = set(model.cv_results_["origin"])
    assert "default" in origins and "proposed" in origins
    assert (model.cv_results_["status"] == "ok").all()
    assert model.predict(NEW).shape == (40, *y.shape[1:])
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(NEW), model.predict(NEW))
    twin = tiny(kind, strategy).fit(X, y)
    np.testing.assert_array_equal(twin.predict(NEW), model.predict(NEW))
    found = [[t.architecture for t in each.history_] for each in (model, twin)]
    assert found[0] == found[1]


@pytest.mark.parametrize("by", ["bayesian", "gradient"])
def test_sample_and_class_weights_change_the_predictions(by):
    weight = np.where(CLASSES == 0, 1e-6, 1.0)
    light = tiny(strategy=by, max_epochs=20).fit(X, CLASSES, sample_weight=weight)
    assert (light.predict(NEW) == 0).mean() < 0.1
    model = tiny(strategy=by, class_weight={0: 50.0}, max_epochs=8).fit(X, CLASSES)
    assert (model.predict(NEW) == 0).mean() > (light.predict(NEW) == 0).mean()


@pytest.mark.parametrize("by", ["bayesian", "gradient"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"scoring": "neg_log_loss"},
        {"scoring": "balanced_accuracy", "ensemble_size": 2},
        {"ensemble_size": 1},
        {"constraints": {"n_params": 8_000}},
        {"cv": GroupKFold(2)},
    ],
    ids=lambda parameters: next(iter(parameters)),
)
def test_parameters_hold(by, parameters):
    groups = np.arange(N) // 8
    model = tiny(strategy=by, **parameters).fit(X, CLASSES, groups=groups)
    assert np.isfinite(model.predict_proba(NEW)).all()
    assert (model.cv_results_["n_params"] <= 8_000).all() or "n_params" not in str(
        parameters
    )
    if parameters.get("ensemble_size") == 1:
        assert len(model.ensemble_) == len(model.ensemble_.members[0].networks) == 1


@pytest.mark.parametrize("by", ["bayesian", "gradient"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"scoring": "neg_mean_absolute_error", "ensemble_size": 2},
        {"ensemble_size": 1, "cv": GroupKFold(2)},
        {"constraints": {"n_params": 8_000}, "scoring": "neg_median_absolute_error"},
    ],
    ids=["scoring", "groups", "constraints"],
)
def test_parameters_hold_for_a_regressor(by, parameters):
    options = {"groups": np.arange(N) // 8, "sample_weight": np.linspace(0.1, 2.0, N)}
    model = tiny(NASRegressor, by, **parameters).fit(X, VALUES[:, 0], **options)
    if "constraints" in parameters:
        assert (model.cv_results_["n_params"] <= 8_000).all()
    scores = model.cv_results_["mean_test_score"]
    assert (scores <= 0).all() or "scoring" not in parameters  # an error, negated
    assert model.predict(NEW).shape == (40,) and np.isfinite(model.predict(NEW)).all()
    plain = tiny(NASRegressor, by, **parameters)
    plain.fit(X, VALUES[:, 0], groups=options["groups"])
    assert not np.array_equal(plain.predict(NEW), model.predict(NEW))


@pytest.mark.parametrize("by", ["bayesian", "gradient"])
def test_multilabel_targets(by):
    labels = (np.median(VALUES, axis=0) < VALUES).astype(int)
    model = tiny(strategy=by).fit(X, labels)
    assert model.predict(NEW).shape == (40, 2)
    assert set(model.cv_results_["origin"]) >= {"default", "proposed"}


@pytest.mark.parametrize("by", ["bayesian", "gradient"])
def test_predictions_do_not_depend_on_n_jobs(by):
    alone, two = (tiny(strategy=by, n_jobs=n).fit(X, CLASSES) for n in (1, 2))
    np.testing.assert_array_equal(alone.predict_proba(NEW), two.predict_proba(NEW))


def test_flips_are_not_used_if_they_change_the_class():
    """The class depends on left and right, so mirrored images have the other class."""
    rng = np.random.default_rng(0)
    is_left = rng.integers(0, 2, 200)
    images = rng.integers(0, 60, (200, 8, 8))
    images[is_left == 1, :, :3] += 120
    images[is_left == 0, :, 5:] += 120
    space = ImageSpace(stages=(1, 1), blocks=(1,), channels=(8,), flip=(False, True))
    model = tiny(search_space=space, strategy="random", max_trials=10)
    model.fit(images.astype(np.uint8), is_left)
    flips = [trial.architecture["flip"] for trial in model.history_]
    assert True in flips and not model.best_architecture_["flip"]
    assert model.best_score_ > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("by", ["bayesian", "gradient"])
@pytest.mark.parametrize("seconds", [8.0])
def test_max_time_holds(by, seconds):
    started = time.monotonic()
    model = tiny(strategy=by, max_time=seconds, max_trials=None, max_epochs=15)
    model.fit(X, CLASSES)
    assert time.monotonic() - started < seconds + 2
    assert model.predict(NEW).shape == (40,)


@pytest.mark.parametrize("by", ["bayesian", "gradient"])
def test_pipelines_grid_search_and_cross_validation_take_images(by):
    flat = X.reshape(N, -1)
    options = {"strategy": by, "image_shape": (8, 8), "max_trials": 2, "max_epochs": 2}
    model = make_pipeline(MinMaxScaler(), tiny(**options))
    grid = GridSearchCV(model, {"nasclassifier__max_epochs": [1, 2]}, cv=2)
    assert grid.fit(flat, CLASSES).best_score_ > 0
    if by == "gradient":
        assert grid.best_estimator_[-1].strategy_.derived_
    assert len(cross_val_score(model, flat, CLASSES, cv=2)) == 2


def test_gradient_search_of_images_uses_a_cell_space_by_default():
    strategy = GradientStrategy("gdas", n_epochs=1)
    model = NASClassifier(
        strategy=strategy, max_trials=2, max_epochs=1, n_jobs=1, random_state=0
    ).fit(X, CLASSES)
    assert isinstance(model.search_space_, CellSpace)
    # The initial design is one architecture; the strategy proposes the rest.
    assert model.cv_results_["origin"].tolist() == ["default", "proposed"]
    assert model.predict(NEW).shape == (40,)
