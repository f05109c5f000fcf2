"""Reading and encoding of images."""

import contextlib
import itertools
import re
import time
import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from sknas._data.deduplicate import deduplicate
from sknas._data.image import ImageEncoder, ImageReader, RawImages
from sknas._data.reader import n_dimensions
from sknas.exceptions import InvalidParameterError

CALLER = "NASClassifier"


class NASLike(BaseEstimator):
    """An estimator whose columns `check` sets."""


def read(X, image_shape=None, channel_axis="auto"):
    reader = ImageReader(CALLER, image_shape, channel_axis)
    X = reader.check(NASLike(), X, reset=True)
    return reader.fit(X).read(X)


def pixels(rng, *shape, n=6):
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8)


def rejected(call, *arguments, **options):
    with pytest.raises((ValueError, TypeError)) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text
    return text


# ---------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("n_channels", [1, 3, 4, 2])
def test_every_layout_gives_the_same_images(rng, n_channels):
    first = pixels(rng, n_channels, 7, 9)
    last = np.ascontiguousarray(np.moveaxis(first, 1, -1))
    shapes = {"first": (n_channels, 7, 9), "last": (7, 9, n_channels)}
    flat_first, flat_last = first.reshape(6, -1), last.reshape(6, -1)
    for images in (
        read(first),
        read(last),
        read(np.moveaxis(first, 1, -1)),  # a view
        read(first, channel_axis=1),
        read(last, channel_axis=-1),
        read(last, channel_axis=3),
        read(last, image_shape=shapes["last"]),
        read(flat_first, shapes["first"]),
        read(flat_last, shapes["last"]),
        read(flat_last, list(shapes["last"]), 3),
        read(flat_first, shapes["first"], 1),
        read(flat_last.tolist(), shapes["last"]),
        read(last.tolist()),
        read(list(last)),
        read(pd.DataFrame(flat_last), shapes["last"]),
        read(pl.DataFrame(flat_last), shapes["last"]),
        read(torch.from_numpy(first)),
    ):
        assert images.pixels.dtype == np.uint8
        assert images.pixels.flags.c_contiguous
        assert_array_equal(images.pixels, first)


def test_grey_images_have_one_channel(rng):
    X = pixels(rng, 5, 8)
    for images in (read(X), read(X, (5, 8)), read(X.reshape(6, -1), (5, 8))):
        assert_array_equal(images.pixels, X[:, None])


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((3, 32, 32), 3),
        ((32, 32, 3), 3),
        ((1, 28, 28), 1),
        ((28, 28, 1), 1),
        ((4, 9, 9), 4),
        ((2, 8, 8), 2),
        ((8, 8, 2), 2),
        ((8, 6, 1), 1),
    ],
)
def test_the_axis_that_can_hold_channels_is_found(rng, shape, channels):
    assert read(pixels(rng, *shape)).pixels.shape[1] == channels


@pytest.mark.parametrize(
    ("shape", "where"),
    [
        ((3, 32, 3), "Either"),
        ((1, 8, 4), "Either"),
        ((8, 8, 8), "No"),
        ((7, 32, 32), "No"),
        ((2, 8, 2), "No"),
        ((32, 3, 32), "No"),
    ],
)
def test_undetermined_channel_axis_is_refused(rng, shape, where):
    X = pixels(rng, *shape)
    expected = (
        f"{where} axis of images of shape {shape} may hold the channels: "
        "give channel_axis=1 for channels first or channel_axis=-1 for channels last."
    )
    assert rejected(read, X) == expected
    assert rejected(read, X.reshape(6, -1), shape) == expected
    assert read(X, channel_axis=1).pixels.shape == (6, *shape)
    assert read(X, channel_axis=-1).pixels.shape == (6, shape[2], *shape[:2])


@pytest.mark.parametrize(
    ("X", "dimensions"),
    [
        (np.zeros((2, 3, 4)), 3),
        (np.zeros((2, 3, 4)).tolist(), 3),
        (list(np.zeros((2, 3, 4))), 3),
        ([[1, "a"]], 2),
        ([], 0),
        ("text", 0),
        (pd.DataFrame({"a": [1]}), 2),
        (sparse.eye_array(3), 2),
        (None, 0),
    ],
)
def test_dimensions_are_counted_without_a_copy(X, dimensions):
    assert n_dimensions(X) == dimensions


# ------------------------------------------------------------------------- wrong calls


AXES = "'auto', 1 (channels first), or 3 or -1 (channels last)"
SHAPES = (
    "None or ints > 0, (height, width), (height, width, channels) or (channels, "
    "height, width)"
)


@pytest.mark.parametrize(
    ("shape", "parameters", "name", "allowed"),
    [
        *[
            ((6, 4, 4, 3), {"channel_axis": axis}, "channel_axis", AXES)
            for axis in (0, 2, 4, -2, 1.5, "last", None, True)
        ],
        ((6, 4, 4), {"channel_axis": 1}, "channel_axis", "'auto' for grey images"),
        *[
            ((6, 16), {"image_shape": given}, "image_shape", SHAPES)
            for given in (4, (16,), (4, -4), (0, 16), (2.0, 8.0), (1, 2, 2, 4), "44")
        ],
        (
            (6, 16),
            {"image_shape": (4, 5)},
            "image_shape",
            "a shape of 16 numbers, the columns of X",
        ),
        (
            (6, 4, 4),
            {"image_shape": (2, 8)},
            "image_shape",
            "None or (4, 4), the shape of an image of X",
        ),
    ],
)
def test_a_message_names_the_wrong_parameter(shape, parameters, name, allowed):
    with pytest.raises(InvalidParameterError) as caught:
        read(np.ones(shape), **parameters)
    assert str(caught.value) == (
        f"The {name!r} parameter of {CALLER} must be {allowed}, "
        f"got {parameters[name]!r}."
    )


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((6, 16)), "got an array of shape (6, 16) and image_shape=None"),
        (np.ones((6, 2, 2, 2, 2)), "got an array of shape (6, 2, 2, 2, 2)"),
        (np.ones(6), "Expected an array of images, got 1D array instead"),
        (np.ones((6, 4, 4)).astype(str), "must hold numbers, got an array of dtype <U"),
        (np.ones((6, 4, 4)).astype(object), "numbers, got an array of dtype object"),
        (np.ones((6, 4, 4)) + 0j, "Complex data not supported: images must hold"),
        ([np.ones((4, 4)), np.ones((5, 5))], "a list of images of different shapes"),
        (np.full((6, 4, 4), 1e200), "X holds numbers beyond 1e+30"),
        (sparse.eye_array(6), "does not take sparse X"),
        (pl.LazyFrame({"a": [1]}), "X is a lazy frame"),
    ],
)
def test_unreadable_input_is_rejected(X, message):
    assert message in rejected(read, X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.full((6, 4, 4), np.nan), "Input X contains NaN."),
        (np.full((6, 4, 4), np.inf, np.float32), "Input X contains infinity"),
        (np.resize([np.inf, -np.inf], (6, 4, 4)), "Input X contains infinity"),
        (np.ones((0, 4, 4)), "Found array with 0 sample(s)"),
        (np.ones((1, 4, 4)), "Found array with 1 sample(s)"),
        (np.ones((6, 0, 4)), "Found array with 0 feature(s)"),
    ],
)
def test_input_that_scikit_learn_rejects_has_the_message_of_scikit_learn(X, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(X)


# -------------------------------------------------------------------------- predicting


def test_number_of_features_is_the_size_of_an_image(rng):
    estimator = NASLike()
    ImageReader(CALLER).check(estimator, pixels(rng, 5, 8, 3), reset=True)
    assert estimator.n_features_in_ == 120
    assert not hasattr(estimator, "feature_names_in_")
    frame = pd.DataFrame(np.ones((3, 4)), columns=list("abcd"))
    ImageReader(CALLER, (2, 2)).check(estimator, frame, reset=True)
    assert estimator.feature_names_in_.tolist() == list("abcd")


@pytest.mark.parametrize("shape", [(5, 8), (5, 8, 3), (3, 5, 8)])
def test_shaped_and_flat_rows_are_the_same_images(rng, shape):
    X = pixels(rng, *shape)
    flat = X.reshape(6, -1)
    for given, image_shape in ((X, None), (flat, shape)):
        estimator, reader = NASLike(), ImageReader(CALLER, image_shape)
        reader.fit(reader.check(estimator, given, reset=True))
        expected = reader.read(given).pixels
        for other in (X, flat, flat[:1], X[:2]):
            seen = reader.read(reader.check(estimator, other, reset=False))
            assert_array_equal(seen.pixels, expected[: len(other)])


def test_shapes_other_than_that_of_fit_are_rejected(rng):
    X = pixels(rng, 5, 8, 3)
    estimator, reader = NASLike(), ImageReader(CALLER)
    reader.fit(reader.check(estimator, X, reset=True))
    for other in (X[..., :1], X[:, :4], X.transpose(0, 3, 1, 2), X[..., 0]):
        assert rejected(reader.check, estimator, other, reset=False) == (
            "X must hold images of the shape (5, 8, 3) that fit saw, or flat rows of "
            f"them, got an array of shape {other.shape}."
        )
    with pytest.raises(ValueError, match="X has 60 features, but NASLike is expecting"):
        reader.check(estimator, X.reshape(12, -1), reset=False)


# ------------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("uint8", "uint8"),
        ("int64", "uint8"),
        ("int8", "uint8"),
        ("uint16", "uint8"),
        ("bool", "uint8"),
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
    ],
)
def test_reading_does_not_change_values(rng, given, kept):
    X = rng.integers(0, 2, (6, 4, 4)).astype(given)
    images = read(X)
    assert images.pixels.dtype == kept
    assert_array_equal(images.pixels[:, 0], X)


def test_integers_beyond_8_bits_are_read_as_floats():
    X = np.array([[[0, 256]], [[-1, 7]]])
    assert read(X).pixels.dtype == np.float32
    assert_array_equal(read(X).pixels[:, 0], X)


def test_readable_arrays_are_not_copied(rng):
    X = pixels(rng, 5, 8)
    assert np.shares_memory(read(X).pixels, X)
    assert np.shares_memory(read(X.reshape(6, -1), (5, 8)).pixels, X)


EIGHT = np.array([[[0, 255]], [[3, 90]]], dtype=np.uint8)
FLOATS = {
    "whole": EIGHT.astype(np.float64),
    "unit": EIGHT / 255,
    "resized": EIGHT * 0.999,
    "standard": (EIGHT - 80.0) / 60,
    "dark": np.array([[[0, 1]], [[1, 0]]], dtype=np.uint8),
    "mask": EIGHT > 80,
    "black": np.zeros((2, 1, 2)),
    "eight": EIGHT,
    "sixteen": np.array([[[0.0, 16]], [[3, 9]]]),
    "over": EIGHT / 255 * 1.02,  # a scaler may produce such values from unseen rows
}


@pytest.mark.parametrize(
    ("fitted", "right", "wrong"),
    [
        ("eight", "eight whole resized dark black", "unit standard mask"),
        ("whole", "eight whole resized dark black", "unit standard mask"),
        ("unit", "unit over dark mask black", "eight whole standard"),
        ("over", "unit over dark mask black", "eight whole standard"),
        ("resized", "eight whole resized dark black", "unit"),
        ("standard", "standard unit over black", "eight dark whole resized"),
        ("mask", "unit mask dark black", "eight whole"),
    ],
)
def test_a_scale_other_than_that_of_fit_is_rejected(fitted, right, wrong):
    estimator, reader = NASLike(), ImageReader(CALLER)
    reader.fit(reader.check(estimator, FLOATS[fitted], reset=True))
    for name in right.split():
        X = reader.check(estimator, FLOATS[name], reset=False)
        assert_array_equal(reader.read(X).pixels[:, 0], FLOATS[name])
    for name in wrong.split():
        low, high = (f"{float(end(FLOATS[name])):g}" for end in (np.min, np.max))
        message = rejected(reader.check, estimator, FLOATS[name], reset=False)
        assert message.startswith(f"X is in the range {low} to {high}, fit saw ")
        assert message.endswith(": bring X to the scale of fit.")


QUARTER = 255 / 4
NOISE = np.array([[[-1.0, 1.0]], [[-0.3, 0.4]]])


@pytest.mark.parametrize(
    ("fitted", "new", "is_right"),
    [
        *[("eight", EIGHT + share * QUARTER, True) for share in (-1, -0.5, 0.5, 1)],
        *[("whole", EIGHT + share * QUARTER, True) for share in (-1, 1)],
        *[("resized", EIGHT + share * QUARTER, True) for share in (-0.5, 1)],
        *[("unit", EIGHT / 255 + share / 4, True) for share in (-1, 1)],
        ("eight", (EIGHT + NOISE).astype(np.float32), True),
        ("eight", EIGHT.astype(np.int64) - 3, True),
        ("eight", EIGHT - 1.1 * QUARTER, False),
        ("eight", EIGHT.astype(np.int16) - 128, False),
        ("eight", EIGHT / 127.5 - 1, False),
        ("resized", EIGHT / 127.5 - 1, False),
        ("resized", EIGHT - 127.5, False),
        ("eight", EIGHT.astype(np.uint16) * 257, False),
        ("eight", EIGHT.astype(np.uint16), True),
        ("unit", EIGHT * 0.999, False),
        ("unit", EIGHT / 255 - 1.1, False),
        ("unit", EIGHT / 255 + 1.1, False),
        ("unit", EIGHT / 127.5 - 1, False),
        ("standard", EIGHT * 0.02 - 100, False),
        ("standard", (EIGHT - 80.0) / 60 + 1, True),
        ("standard", (EIGHT - 80.0) / 60 - 5, False),
        ("sixteen", EIGHT / 255 * 19.9, True),
        ("sixteen", EIGHT / 255 * 16 + 17.6, False),
        ("sixteen", EIGHT * 6.3, False),
        ("sixteen", EIGHT.astype(float), True),  # light images after dark ones
        ("resized", EIGHT + 66.0, False),
        ("whole", EIGHT + 66.5, False),
    ],
)
def test_pixels_may_pass_the_range_of_fit_by_a_quarter(fitted, new, is_right):
    estimator, reader = NASLike(), ImageReader(CALLER)
    reader.fit(reader.check(estimator, FLOATS[fitted], reset=True))
    if is_right:  # and none is clipped
        read = reader.read(reader.check(estimator, new, reset=False))
        assert_array_equal(read.pixels[:, 0], new)
    else:
        message = rejected(reader.check, estimator, new, reset=False)
        assert message.endswith(": bring X to the scale of fit.")


SCALES = {
    "8 bits": lambda X: X.astype(np.uint8),
    "floats": lambda X: X,
    "shares": lambda X: X / 255,
    "centred": lambda X: X / 127.5 - 1,
    "standardised": lambda X: (X - 120) / 70,
    "resized": lambda X: X * 0.999,
    "dark": lambda X: X / 40,
    "noisy": lambda X: X / 40 - 1,
}


@pytest.mark.parametrize("fitted", SCALES)
def test_images_are_accepted_together_if_each_is_accepted_alone(rng, fitted):
    images = rng.integers(0, 256, (12, 4, 4)).astype(float)
    estimator, reader = NASLike(), ImageReader(CALLER)
    reader.fit(reader.check(estimator, SCALES[fitted](images), reset=True))

    def is_right(X):
        with contextlib.suppress(ValueError):
            reader.check(estimator, X, reset=False)
            return True
        return False

    for one, other in itertools.product(SCALES, SCALES):
        rows = SCALES[one](images[:1]), SCALES[other](images[1:2])
        rows = rows if one == other else [row.astype(float) for row in rows]
        alone = [is_right(row) for row in rows]
        assert is_right(np.concatenate(rows)) == all(alone), (one, other)


def test_a_few_pixels_far_from_zero_do_not_tell_the_scale(rng):
    estimator, reader = NASLike(), ImageReader(CALLER)
    X = 1e12 + rng.normal(size=(4, 1, 1))
    reader.fit(reader.check(estimator, X[:2], reset=True))
    reader.check(estimator, X, reset=False)
    with pytest.raises(ValueError, match="bring X to the scale of fit"):
        reader.check(estimator, 1.3 * X, reset=False)


@pytest.mark.parametrize(("n", "size", "share"), [(100, 8, 0.3), (4, 4, 1.3)])
def test_standardised_noise_is_accepted(rng, n, size, share):
    estimator, reader = NASLike(), ImageReader(CALLER)
    X = rng.normal(size=(n, size, size))
    reader.fit(reader.check(estimator, X, reset=True))
    reader.check(estimator, rng.normal(size=(5_000, size, size)), reset=False)
    X = np.array([X.min(), X.max()]).repeat(size * size // 2).reshape(1, size, size)
    for shift in (-share, share):
        with pytest.raises(ValueError, match="bring X to the scale of fit"):
            reader.check(estimator, X + shift * np.ptp(X), reset=False)


@pytest.mark.parametrize(
    ("fitted", "new", "is_right"),
    [
        ((6, 5, 4), (6, 1, 5, 4), True),
        ((6, 5, 4), (6, 5, 4, 1), True),
        ((6, 1, 9, 8), (6, 9, 8), True),
        ((6, 9, 8, 1), (6, 1, 9, 8), True),
        ((6, 5, 4), (6, 4, 5), False),
        ((6, 5, 4), (6, 5, 4, 3), False),
        ((6, 3, 9, 8), (6, 9, 8, 3), False),
    ],
)
def test_the_axis_of_a_single_channel_may_be_left_out(rng, fitted, new, is_right):
    estimator, reader = NASLike(), ImageReader(CALLER)
    X = rng.integers(0, 256, fitted, dtype=np.uint8)
    reader.fit(reader.check(estimator, X, reset=True))
    Z = np.resize(X, new)
    if is_right:
        read = reader.read(reader.check(estimator, Z, reset=False))
        assert_array_equal(read.pixels, reader.read(X).pixels)
    else:
        assert "that fit saw" in rejected(reader.check, estimator, Z, reset=False)


@pytest.mark.parametrize("scaler", [MinMaxScaler, StandardScaler])
def test_rows_that_a_pipeline_scaled_are_read(scaler):
    X = load_digits().data
    pipeline = make_pipeline(scaler(), "passthrough").fit(X[:900])
    estimator, reader = NASLike(), ImageReader(CALLER, (8, 8))
    train = reader.check(estimator, pipeline.transform(X[:900]), reset=True)
    assert reader.fit(train).read(train).pixels.shape == (900, 1, 8, 8)
    for start in range(900, len(X), 7):
        rows = pipeline.transform(X[start : start + 7])
        reader.check(estimator, rows, reset=False)
    if scaler is MinMaxScaler:
        message = rejected(reader.check, estimator, X[900:], reset=False)
        assert "0 to 16, fit saw 0 to 1:" in message


# ----------------------------------------------------------------------------- merging


def merged(images, weight=None):
    weight = np.ones(len(images)) if weight is None else weight
    return deduplicate(images.keys, weight)


def test_equal_images_are_merged_and_their_weights_added(rng):
    X = pixels(rng, 4, 4, n=5)[[0, 1, 2, 0, 3, 4, 1, 0]]
    found = merged(read(X))
    assert sorted(found.weight) == [1, 1, 1, 2, 3]
    assert_array_equal(X[found.first][found.inverse], X)


def test_merging_does_not_depend_on_precision_and_order(rng):
    X = pixels(rng, 4, 4, n=40)
    X[7] = X[31]
    expected = merged(read(X))
    order = rng.permutation(40)
    for dtype in ("int32", "float32", "float64"):
        found = merged(read(X.astype(dtype)))
        assert_array_equal(found.inverse, expected.inverse)
    again = merged(read(X[order]))
    assert_array_equal(X[order][again.first], X[expected.first])
    scaled = X / 255
    single = merged(read(scaled.astype(np.float32).astype(np.float64)))
    assert_array_equal(single.inverse, merged(read(scaled.astype(np.float32))).inverse)


def test_images_that_differ_in_one_pixel_stay_apart():
    X = np.zeros((6, 3, 3))
    X[1, 0, 0], X[2, 0, 1], X[3, 2, 2], X[4, 2, 2], X[5] = 1, 1, 0.5, -0.5, -0.0
    assert sorted(merged(read(X)).weight) == [1, 1, 1, 1, 2]  # -0.0 is 0.0


def test_many_images_are_compared_fast(rng):
    X = pixels(rng, 28, 28, n=20_000)
    images = read(X)
    merged(RawImages(images.pixels[:100]))
    started = time.process_time()
    assert len(merged(images).first) == 20_000
    assert time.process_time() - started < 2


# --------------------------------------------------------------------------- encoding


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 5, 8), (1, 300, 200)])
def test_statistics_agree_with_numpy(rng, dtype, shape):
    X = (
        pixels(rng, *shape, n=9) * np.array([1, 1, 0.5] * 3)[:, None, None, None]
    ).astype(dtype)
    weight = rng.uniform(0.2, 3, 9)
    encoder = ImageEncoder().fit(RawImages(X), weight)
    shares = np.broadcast_to(weight[:, None, None, None], X.shape)
    mean = np.average(X, axis=(0, 2, 3), weights=shares)
    squares = (X - mean[:, None, None]) ** 2
    variance = np.average(squares, axis=(0, 2, 3), weights=shares)
    assert_allclose(encoder.mean_, mean, rtol=1e-6)
    assert_allclose(encoder.deviation_, np.sqrt(variance), rtol=1e-6)
    assert encoder.mean_.dtype == encoder.deviation_.dtype == np.float32
    assert encoder.transform(RawImages(X)) is X


def test_a_weight_is_a_repetition(rng):
    X, weight = pixels(rng, 3, 5, 8), np.array([1, 2, 3, 1, 4, 1])
    one = ImageEncoder().fit(RawImages(X), weight.astype(float))
    other = ImageEncoder().fit(RawImages(X.repeat(weight, axis=0)), np.ones(12))
    assert_allclose(one.mean_, other.mean_, rtol=1e-6)
    assert_allclose(one.deviation_, other.deviation_, rtol=1e-6)


@pytest.mark.parametrize("value", [0.1, 255.0, 0.0, 1e29])
def test_a_constant_channel_has_deviation_1(rng, value):
    X = rng.random((7, 2, 3, 3))
    X[:, 1] = value
    encoder = ImageEncoder().fit(RawImages(X), rng.random(7))
    assert encoder.deviation_[1] == 1
    assert 0 < encoder.deviation_[0] < 1


def test_pixels_too_small_to_differ_in_single_precision(rng):
    encoder = ImageEncoder().fit(
        RawImages(1e-60 * rng.random((7, 1, 3, 3))), np.ones(7)
    )
    assert encoder.deviation_.tolist() == [1]


def test_the_task_describes_the_images(rng):
    encoder = RawImages(pixels(rng, 3, 5, 8)).encoder(np.ones(6))
    task = encoder.spec(kind="binary", n_outputs=2, n_rows=6, probabilistic=True)
    assert task.image.shape == task.row_shape == (3, 5, 8)
    assert (task.kind, task.n_outputs, task.n_rows) == ("binary", 2, 6)
    assert task.n_columns == 120 and task.probabilistic
    assert_array_equal(task.image.mean, encoder.mean_)
    assert_array_equal(task.image.deviation, encoder.deviation_)


@pytest.mark.parametrize("step", ["read", "merge", "encode"])
def test_many_images_are_never_copied_to_floats(rng, step):
    X = pixels(rng, 28, 28, n=20_000)
    images, weight = read(X), np.ones(len(X))
    steps = {
        "read": lambda: read(X),
        "merge": lambda: merged(images),
        "encode": lambda: images.encoder(weight).transform(images),
    }
    tracemalloc.start()
    try:
        steps[step]()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes  # floats would need four or eight times as much
