"""X, y, weights and groups may be in any container, in `fit`, `predict` and `score`."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.datasets import load_digits, load_iris
from torch.utils.data import DataLoader, TensorDataset

from sknas import NASClassifier, NASRegressor
from sknas.spaces import ImageSpace

IRIS = load_iris()
X, CLASSES = IRIS.data.astype(np.float32), IRIS.target
WEIGHT, GROUPS = np.arange(150) % 3 + 1.0, np.arange(150) // 5
DIGITS = load_digits()
IMAGES = DIGITS.images[:60].astype(np.uint8)
LABELS = DIGITS.target[:60] % 2
TINY = {"max_trials": 1, "max_epochs": 2, "cv": 2, "n_jobs": 1, "random_state": 0}
SMALL = ImageSpace(stages=(1, 2), blocks=(1,), channels=(8,), kernel_size=(3,))


def with_gradient(values):
    return torch.tensor(values).float().requires_grad_()


def in_bfloat16(values):
    return torch.tensor(values).bfloat16()


@pytest.fixture(scope="module")
def table():
    return NASClassifier(**TINY).fit(X, CLASSES, WEIGHT, GROUPS)


@pytest.fixture(scope="module")
def images():
    return NASClassifier(SMALL, **TINY).fit(IMAGES, LABELS)


@pytest.mark.parametrize("wrap", [with_gradient, lambda a: list(with_gradient(a))])
def test_tensors_with_gradients_are_learnt_and_predicted_like_arrays(table, wrap):
    given = [wrap(values) for values in (X, CLASSES, WEIGHT, GROUPS)]
    expected = table.predict_proba(X)
    assert_array_equal(table.predict_proba(given[0]), expected)
    assert table.score(*given[:3]) == table.score(X, CLASSES, WEIGHT)
    model = NASClassifier(**TINY).fit(*given)
    assert_array_equal(model.predict_proba(X), expected)
    assert_array_equal(model.classes_, [0, 1, 2])


def test_targets_weights_and_groups_in_bfloat16_are_read(table):
    given = [in_bfloat16(values) for values in (CLASSES, WEIGHT, GROUPS)]
    model = NASClassifier(**TINY).fit(X, *given)
    assert_array_equal(model.predict_proba(X), table.predict_proba(X))
    assert model.score(X, *given[:2]) == table.score(X, CLASSES, WEIGHT)


def test_regression_targets_may_be_tensors():
    y = X[:, 0] * 2
    one = NASRegressor(**TINY).fit(X, y)
    other = NASRegressor(**TINY).fit(X, with_gradient(y))
    assert_array_equal(other.predict(with_gradient(X)), one.predict(X))
    assert other.score(X, with_gradient(y)) == one.score(X, y)


def test_masked_cells_are_missing_in_fit_and_predict():
    mask = np.zeros(X.shape, bool)
    mask[::4, 1] = True
    masked, filled = np.ma.masked_array(X, mask), np.where(mask, np.nan, X)
    models = [NASClassifier(**TINY).fit(each, CLASSES) for each in (masked, filled)]
    expected = models[1].predict_proba(filled)
    for model in models:
        assert_array_equal(model.predict_proba(masked), expected)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        NASClassifier(**TINY).fit(X, np.ma.masked_array(CLASSES, mask[:, 1]))


ONE_IMAGE_EACH = {
    "images of PIL": lambda a: [Image.fromarray(image) for image in a],
    "images of PIL, 32 bits": lambda a: [
        Image.fromarray(image).convert("I") for image in a
    ],
    "series": lambda a: pd.Series([Image.fromarray(image) for image in a]),
    "array of objects": lambda a: pd.Series(list(a)).to_numpy(),
    "with gradient": with_gradient,
    "bfloat16": in_bfloat16,
    "list of tensors": lambda a: list(with_gradient(a)),
    "channels last": lambda a: torch.tensor(a)[:, None].to(
        memory_format=torch.channels_last
    ),
    "channel axis": lambda a: a[..., None],
}


@pytest.mark.parametrize("name", ONE_IMAGE_EACH)
def test_images_in_any_container_are_predicted_alike(images, name):
    given = ONE_IMAGE_EACH[name](IMAGES)
    assert_array_equal(images.predict_proba(given), images.predict_proba(IMAGES))


@pytest.mark.parametrize("name", ["images of PIL", "series", "list of tensors"])
def test_images_in_any_container_are_learnt_alike(images, name):
    given = ONE_IMAGE_EACH[name](IMAGES)
    model = NASClassifier(SMALL, **TINY).fit(given, LABELS)
    assert_array_equal(model.predict_proba(IMAGES), images.predict_proba(IMAGES))


def test_a_list_of_images_is_searched_in_the_space_of_images():
    pictures = [Image.fromarray(image).resize((4, 4)) for image in IMAGES[:8]]
    model = NASClassifier(**TINY).fit(pictures, LABELS[:8])
    assert isinstance(model.search_space_, ImageSpace)
    assert model.n_features_in_ == 16
    colours = [image.convert("RGB") for image in pictures]
    with pytest.raises(ValueError, match=r"shape \(4, 4\) that fit saw"):
        model.predict(colours)


def test_datasets_are_refused_at_every_door(table):
    dataset = TensorDataset(torch.tensor(X), torch.tensor(CLASSES))
    for given in (dataset, DataLoader(dataset)):
        for call in (
            NASClassifier(**TINY).fit,
            table.predict,
            table.predict_proba,
            lambda given: table.score(given, CLASSES),
            lambda given: table.score(X, given),
            lambda given: NASClassifier(**TINY).fit(X, given),
        ):
            with pytest.raises(ValueError, match=r"^[Xy] can't be read.* X, y = "):
                call(given)
    assert table.score(*dataset.tensors) == table.score(X, CLASSES)
