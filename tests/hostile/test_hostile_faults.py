"""Minimal forms of faults that generated inputs have found."""

import itertools
from threading import Lock

import numpy as np
import pandas as pd
import pytest

from sknas import NASClassifier, NASRegressor
from sknas._data.deduplicate import check_weight
from sknas._data.target import TargetScale
from sknas._scoring.folds import compact
from sknas._scoring.scorer import RowScorer, find_scorer
from sknas._validation import as_float, is_word, short_repr
from sknas.exceptions import InvalidParameterError
from sknas.spaces import DictSpace, TableSpace
from sknas.strategies import (
    BayesianStrategy,
    LocalStrategy,
    RandomStrategy,
    ReinforceStrategy,
)

TINY = {"max_trials": 1, "max_epochs": 1, "cv": 2, "n_jobs": 1, "random_state": 0}
X = np.random.default_rng(0).normal(size=(24, 3))
CLASSES, VALUES = np.arange(24) % 2, X[:, 0] + X[:, 1]


def classifier(**parameters):
    return NASClassifier(**{**TINY, **parameters})


def regressor(**parameters):
    return NASRegressor(**{**TINY, **parameters})


# Targets


@pytest.mark.parametrize("labels", [[0, 3], [-1, 1], [1, 2]])
def test_multilabel_targets_other_than_0_and_1_are_refused(labels):
    y = np.array(labels)[np.random.default_rng(0).integers(0, 2, (24, 2))]
    with pytest.raises(ValueError, match="must hold 0 and 1 only"):
        classifier().fit(X, y)


@pytest.mark.parametrize("size", [1e100, 1e-100])
def test_predictions_of_targets_beyond_single_precision_stay_in_range(size):
    y = VALUES * size
    predicted = regressor().fit(X.astype(np.float32), y).predict(X.astype(np.float32))
    assert predicted.dtype == np.float64
    assert ((predicted >= y.min()) & (predicted <= y.max()) & (predicted != 0)).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0], np.float32),
        ([0.0, 0.0], np.float32),
        ([0.1, 0.1], np.float32),
        ([1e9, 1e9 + 1], np.float64),  # single precision would lose their difference
        ([1e-60, 2e-60], np.float64),
        ([1e60, 2e60], np.float64),
        ([np.nan, 2e60], np.float64),
        ([np.nan, np.nan], np.float32),
    ],
)
def test_stored_predictions_have_single_precision_if_that_suffices(values, expected):
    kept = compact(np.array(values)[:, None])
    assert kept.dtype == expected
    np.testing.assert_allclose(kept[:, 0], values, rtol=1e-6)


def test_scores_are_finite_for_outliers_in_validation_rows():
    scale = TargetScale.fit(np.zeros((3, 1)), np.ones(3))
    assert np.isfinite(scale(np.array([[1e149], [-1e149]]))).all()


def test_scores_of_huge_targets_have_a_deviation():
    model = regressor(scoring="neg_mean_squared_error", cv=3).fit(X, VALUES * 1e149)
    assert np.isfinite(model.best_score_)
    assert len(model.cv_results_["std_test_score"]) == 1


@pytest.mark.parametrize(
    ("kind", "y", "message"),
    [
        (regressor, [10**400] * 24, "y holds values beyond"),
        (regressor, np.full(24, np.longdouble("1e400")), "Input y contains infinity"),
        (regressor, [[1], [1, 2]] * 12, "y must hold one target per row"),
        (
            classifier,
            pd.Series(["a", 1] * 12, dtype=object),
            "must be of one type, got int and str",
        ),
        (
            classifier,
            np.array([True, "a", 2] * 8, dtype=object),
            "must be of one type, got bool and int and str",
        ),
    ],
)
def test_targets_that_are_not_numbers_or_labels_are_refused(kind, y, message):
    with pytest.raises(ValueError, match=message):
        kind().fit(X, y)


def test_table_of_one_repeated_row_has_a_score():
    model = regressor().fit(np.zeros((30, 1)), np.full(30, 2.0))
    assert model.best_score_ == 1
    assert model.predict([[0.0]]) == pytest.approx(2)
    scorer = RowScorer(
        find_scorer("N", None, False), None, np.ones(2), np.ones(2), None
    )
    score = scorer.score(np.ones((1, 1)), np.array([0]))
    assert np.isnan(score.value)  # there is another row


# Weights and groups


@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e-3, 1.0])
def test_equal_weights_of_any_size_are_repetitions(size):
    assert check_weight(np.full(5, size)).tolist() == [1.0] * 5


@pytest.mark.parametrize("size", [1e300, np.finfo(float).max])
def test_weights_too_large_to_be_counted_are_refused(size):
    with pytest.raises(ValueError, match=r"must sum to at most 9\.0072e\+15, got"):
        classifier().fit(X, CLASSES, sample_weight=np.full(24, size))


def test_weights_may_exceed_the_largest_integer():
    weight = np.where(np.arange(24) < 2, 2.0**51, 1.0)
    regressor(max_epochs=None).fit(X[:, :1], VALUES, sample_weight=weight)


@pytest.mark.parametrize("groups", [np.zeros((24, 2)), [(1, "a"), (2, "b")] * 12])
def test_groups_of_two_columns_are_refused(groups):
    with pytest.raises(ValueError, match="groups must hold one label per row"):
        classifier().fit(X, CLASSES, groups=groups)


# Tables


def test_a_category_of_numbers_beyond_doubles_is_read(recwarn):
    x = np.where(np.arange(24) % 2, np.longdouble("1e4000"), np.longdouble(1))
    frame = pd.DataFrame({"category": x, "number": X[:, 0]})
    model = regressor(categorical_features=["category"]).fit(frame, VALUES)
    assert np.isfinite(model.predict(frame)).all()
    assert not recwarn.list


@pytest.mark.parametrize("names", [["a", "a"], [1, 1], [None, None], [np.nan, np.nan]])
def test_columns_of_one_name_are_refused(names):
    frame = pd.DataFrame(X[:, :2])
    frame.columns = pd.Index(names, dtype=object)
    with pytest.raises(ValueError, match=r"different names, .* more than once: rename"):
        classifier().fit(frame, CLASSES)


def test_reading_a_cell_of_a_list_does_not_depend_on_other_rows():
    rows = [[index % 3 == 0, value] for index, value in enumerate(X[:, 0].tolist())]
    rows[0][1] = None  # makes it an array of dtype object
    model = classifier(max_epochs=30).fit(rows, CLASSES)
    alone = [model.predict_proba([row])[0] for row in rows]
    np.testing.assert_allclose(alone, model.predict_proba(rows), atol=1e-6)


@pytest.mark.parametrize("rows", [[[1], [1, 2]] * 12, [[(1,)], [(1, 2)]] * 12])
def test_lists_of_different_lengths_are_refused(rows):
    with pytest.raises(ValueError, match="X must hold rows of one length"):
        classifier(search_space="table").fit(rows, CLASSES)


class Odd:
    def __str__(self):
        raise KeyError("no text")


def test_message_names_a_column_of_objects_without_text():
    frame = pd.DataFrame({"odd": [Odd() for _ in range(24)]})
    message = "Column 'odd' of X can't be read, KeyError was raised"
    with pytest.raises(ValueError, match=message):
        classifier().fit(frame, CLASSES)


def test_numbers_beyond_doubles_are_infinite_without_a_warning():
    frame = pd.DataFrame({"far": np.full(24, np.longdouble("1e400"))})
    for table in (frame, frame.to_numpy()):
        with pytest.raises(ValueError, match="of X holds infinity"):
            classifier().fit(table, CLASSES)


# Images


@pytest.mark.parametrize("low", [-128, -3])
def test_signed_integer_images_are_read_alike_in_fit_and_predict(low):
    images = np.random.default_rng(0).integers(low, 100, (12, 4, 4)).astype(np.int8)
    model = classifier().fit(images, CLASSES[:12])
    assert model.predict(images).shape == (12,)


def test_unsigned_images_are_refused_after_a_fit_to_standardised_ones():
    images = np.random.default_rng(0).normal(size=(12, 4, 4))
    model = classifier().fit(images, CLASSES[:12])
    with pytest.raises(ValueError, match="bring X to the scale of fit"):
        model.predict(np.full((2, 4, 4), 2, dtype=np.uint8))


@pytest.mark.parametrize("whole", [False, True])
def test_dark_image_is_predicted_alone_as_in_a_batch(whole):
    images = np.random.default_rng(0).random((12, 4, 4)) * 200
    images[0] /= 400
    images[:, 0, 0] = 1
    images = images.round() if whole else images
    model = classifier().fit(images, CLASSES[:12])
    alone = model.predict_proba(images[:1])
    np.testing.assert_allclose(alone, model.predict_proba(images)[:1], atol=1e-6)
    if whole:  # shares differ from whole numbers
        with pytest.raises(ValueError, match="bring X to the scale of fit"):
            model.predict(images / 200)


def test_images_with_a_reversed_channel_axis_are_read():
    images = np.random.default_rng(0).random((12, 4, 4, 1))[..., ::-1]
    model = classifier(channel_axis=-1).fit(images, CLASSES[:12])
    assert model.predict(images).shape == (12,)


# Parameters


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no repr")


def test_values_are_shown_on_one_line():
    assert "\n" not in short_repr(np.eye(3))
    assert short_repr(Unprintable()) == "an object of Unprintable"


def test_words_and_numbers_of_any_type():
    assert is_word("auto", "auto") and not is_word(np.array(["auto", "b"]), "auto")
    assert as_float(10**400) == np.inf and np.isnan(as_float("1")) and as_float(2) == 2


ODD = (np.zeros(2), pd.NA, 10**400, b"auto", Unprintable(), pd.DataFrame({"a": [1]}))
NAMES = ("device", "channel_axis", "max_time", "class_weight", "image_shape", "cv")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pair
        for pair in [*itertools.product(NAMES, ODD), ("device", 2**64)]
        # A frame has rows, as if each were a split, and an int is one of folds.
        if pair[0] != "cv" or not isinstance(pair[1], pd.DataFrame)
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_message_names_the_parameter_with_a_wrong_value(name, value):
    with pytest.raises(
        InvalidParameterError, match=f"^The {name!r} parameter of NASCl"
    ):
        classifier(**{name: value}).fit(X, CLASSES)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"class_weight": {0: 10**400}}, "'class_weight' parameter .* weights >= 0"),
        ({"constraints": {"n_params": 10**400}}, "must be a finite number > 0"),
        ({"categorical_features": np.array("a")}, "'categorical_features' parameter"),
        ({"search_space": TableSpace(embedding_size=None)}, "'embedding_size' param"),
        (
            {"search_space": DictSpace({"a": [1]})},
            "of SkorchTrainer must be a Space that builds networks",
        ),
        (
            {"constraints": lambda architecture: np.array([True, False])},
            "a function of an architecture that returns True or False, .* raised Val",
        ),
        (
            {"constraints": lambda architecture: architecture["no such choice"]},
            "raised KeyError",
        ),
    ],
)
def test_wrong_nested_parameters_are_refused(parameters, message):
    with pytest.raises(InvalidParameterError, match=message):
        classifier(**parameters).fit(X, CLASSES)


@pytest.mark.parametrize(
    ("kind", "scoring", "message"),
    [
        (regressor, "roc_auc_ovr", "none of the following attributes: predict_proba"),
        (classifier, lambda model, X, y: {}["a"], "KeyError: 'a'"),
        (
            classifier,
            lambda model, X, y: "high",
            "must return one real number, got 'high'",
        ),
        (classifier, lambda model: 1.0, "TypeError: .* positional argument"),
        (classifier, lambda model, X, y: 10**400, "OverflowError: int too large"),
    ],
)
def test_message_quotes_the_error_of_a_scorer(kind, scoring, message):
    y = CLASSES if kind is classifier else VALUES
    with pytest.raises(ValueError, match=f"The 'scoring' parameter .*{message}"):
        kind(scoring=scoring).fit(X, y)


def test_strings_that_cannot_be_encoded_are_categories():
    words = np.array([["\ud800"], ["b"]] * 12, dtype=object)
    model = classifier().fit(words, CLASSES)
    assert model.predict(words).shape == (24,)
    assert model.fit(words.astype(str), CLASSES).predict(words).shape == (24,)


def test_message_shortens_a_long_string_in_a_numeric_column():
    model = classifier().fit(pd.DataFrame({"a": X[:, 0]}), CLASSES)
    new = pd.DataFrame({"a": ["1.5", "x" * 10_000]})
    with pytest.raises(ValueError, match="Column 'a' of X is read as numbers") as error:
        model.predict(new)
    assert len(str(error.value)) < 400


def test_parameters_of_a_checkpoint_must_be_picklable(tmp_path):
    kept = classifier(checkpoint=tmp_path).set_params(random_state=np.random)
    kept.fit(X, CLASSES)
    assert len(list(tmp_path.iterdir())) == 1

    class Locked(RandomStrategy):
        def __init__(self, lock=None):
            self.lock = lock

    text = "'strategy' parameter of NASClassifier must be an object that can be pickled"
    with pytest.raises(InvalidParameterError, match=text):
        kept.set_params(strategy=Locked(Lock())).fit(X, CLASSES)


def test_big_endian_columns_are_categories_too():
    frame = pd.DataFrame({"a": pd.Series(np.arange(24) % 3, dtype=">i4")})
    model = classifier(categorical_features=["a"]).fit(frame, CLASSES)
    expected = model.predict_proba(frame)
    assert (model.predict_proba(frame.astype("i4")) == expected).all()


def test_complex_targets_are_refused():
    with pytest.raises(ValueError, match=r"^Complex data not supported: give the real"):
        regressor().fit(X, VALUES + 1j)


def test_splits_that_cannot_be_iterated_are_refused():
    with pytest.raises(InvalidParameterError, match="The 'cv' parameter of"):
        classifier(cv=np.array(3)).fit(X, CLASSES)


def test_huge_class_weights_count_by_their_ratio():
    huge = classifier(class_weight={0: 1e308, 1: 5e307}).fit(X, CLASSES)
    usual = classifier(class_weight={0: 2.0, 1: 1.0}).fit(X, CLASSES)
    np.testing.assert_allclose(huge.predict_proba(X), usual.predict_proba(X), atol=1e-6)


def test_targets_of_unequal_lengths_are_refused():
    y = np.empty(24, dtype=object)
    y[:] = [(1,) * (1 + index % 2) for index in range(24)]
    with pytest.raises(ValueError, match="it holds tuple objects of unequal lengths"):
        classifier().fit(X, y)


def test_tiny_class_weights_count_by_their_ratio():
    tiny = classifier(class_weight={0: 5e-324, 1: 5e-324}).fit(X, CLASSES)
    expected = classifier().fit(X, CLASSES).predict_proba(X)
    np.testing.assert_allclose(tiny.predict_proba(X), expected, atol=1e-6)


def test_components_that_cannot_be_copied_are_refused():
    text = "The 'strategy' parameter of search must be an object whose parameters can"
    with pytest.raises(InvalidParameterError, match=text):
        classifier(strategy=LocalStrategy(memoryview(b"3"))).fit(X, CLASSES)


@pytest.mark.parametrize(
    "strategy",
    [
        BayesianStrategy(n_draws=2**31),
        ReinforceStrategy(n_estimating=2**31),
        ReinforceStrategy(n_values=2**31),
    ],
    ids=str,
)
def test_number_of_draws_that_exceeds_the_memory_is_refused(strategy):
    with pytest.raises(InvalidParameterError, match=r">= \d and <= 100000, got 2147"):
        classifier(strategy=strategy).fit(X, CLASSES)
