"""Preparation of data: from X and y to encoded folds."""

import re
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sknas._data.image import ImageReader
from sknas._data.prepare import encode_fold, read_data, split_rows
from sknas._data.splits import Split
from sknas._data.table_reader import TableReader
from sknas._data.target import TargetReader
from sknas._scoring.scorer import find_scorer, make_scorer
from sknas.exceptions import InvalidParameterError

CV = "auto"


def read(X, y, weight=None, *, groups=None, cv=CV, class_weight=None):
    """Return the data and the fitted target reader."""
    is_classifier = np.asarray(y).dtype.kind != "f"
    target = TargetReader(is_classifier)
    weight = np.ones(len(X)) if weight is None else np.asarray(weight, dtype=float)
    reads = TableReader if np.ndim(X) == 2 else ImageReader
    reader = reads("NASClassifier")
    options = {"reader": reader, "target": target, "cv": cv}
    data = read_data(X, y, weight, groups, class_weight=class_weight, **options)
    return data, target


def encode(data, target, train, valid):
    split = Split(np.asarray(train), np.asarray(valid))
    return encode_fold(data, split, target=target, probabilistic=False)


def sorted_rows(fold_rows):
    """Return encoded rows, sorted by their values."""
    whole = np.column_stack([fold_rows.x, fold_rows.y, fold_rows.weight])
    return whole[np.lexsort(whole.T)]


def targets(kind, n, rng):
    return {
        "classes": rng.choice(["a", "b", "c"], n),
        "labels": rng.integers(0, 2, (n, 2)),
        "values": rng.normal(size=(n, 2)),
    }[kind]


# --------------------------------------------------------------------------- merging


def test_equal_rows_are_merged_and_their_weights_added():
    X = np.array([[1.0, 2], [1, 2], [1, 2], [3, 4], [-0.0, 0], [0, 0]])
    data, _ = read(X, [0, 0, 1, 1, 1, 1])
    assert len(data) == 4  # the third row has another class
    assert sorted(data.weight) == [1, 1, 2, 2]
    assert_array_equal(X[data.source_rows], data.x.numeric)


@pytest.mark.parametrize(
    ("kind", "class_weight"),
    [("classes", None), ("classes", "balanced"), ("labels", None), ("values", None)],
)
def test_a_weight_is_a_repetition(mixed_frame, rng, kind, class_weight):
    y = targets(kind, len(mixed_frame), rng)
    weight = rng.integers(0, 4, len(mixed_frame))
    repeated = np.repeat(np.arange(len(mixed_frame)), weight)
    X, again = mixed_frame, mixed_frame.iloc[repeated]
    one, target = read(X, y, weight, class_weight=class_weight)
    other, _ = read(again, y[repeated], class_weight=class_weight)
    assert len(one) == np.count_nonzero(weight)
    for name in ("y", "weight", "loss_weight"):
        assert_array_equal(getattr(one, name), getattr(other, name))
    rows = np.arange(len(one))
    for train, valid in ((rows, rows[:0]), (rows[::2], rows[1::2])):
        fold, same = (encode(data, target, train, valid) for data in (one, other))
        for side in ("train", "valid"):
            for name in ("x", "y", "weight"):
                expected = getattr(getattr(fold, side), name)
                assert_array_equal(getattr(getattr(same, side), name), expected)
        assert fold.task.n_rows == same.task.n_rows == weight.sum()
        assert_array_equal(fold.task.edges, same.task.edges)


def test_the_order_of_rows_does_not_matter(mixed_frame, rng):
    y = rng.integers(0, 2, len(mixed_frame))
    order = rng.permutation(len(mixed_frame))
    one, _ = read(mixed_frame, y)
    other, _ = read(mixed_frame.iloc[order], y[order])
    assert_array_equal(one.x.numeric, other.x.numeric)
    assert_array_equal(one.x.codes, other.x.codes)
    assert_array_equal(one.y, other.y)
    assert_array_equal(one.source_rows, order[other.source_rows])


def test_rows_of_weight_zero_have_no_effect(mixed_frame, rng):
    y = np.where(np.arange(len(mixed_frame)) < 40, rng.integers(0, 2, 48), 7)
    weight = (np.arange(len(mixed_frame)) < 40).astype(float)
    one, target = read(mixed_frame, y, weight)
    other, _ = read(mixed_frame[:40], y[:40])
    assert target.classes_.tolist() == [0, 1]
    assert_array_equal(one.x.codes, other.x.codes)
    assert_array_equal(one.source_rows, other.source_rows)


def test_weights_that_sum_to_one_are_scaled_to_the_rows(numeric_table):
    X, y = numeric_table
    data, _ = read(X, y, np.full(len(X), 1 / len(X)))
    assert_allclose(data.weight, 1)


def test_rows_of_different_groups_stay_apart():
    X, y = np.zeros((4, 1)), [0, 0, 1, 1]
    data, _ = read(X, y, groups=["a", "b", "b", "b"])
    assert sorted(zip(data.groups, data.y, data.weight, strict=True)) == [
        (0, 0, 1),
        (1, 0, 1),
        (1, 1, 2),
    ]


# ---------------------------------------------------------------------------- splits


def test_explicit_splits_refer_to_the_rows_of_x():
    X = np.arange(8.0)[:, None] // 2  # each row occurs twice
    y = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    pairs = [([0, 2, 4], [6, 7]), ([4, 5, 6, 7], [0, 1])]
    data, target = read(X, y, cv=pairs)
    splits = split_rows(data, "NASClassifier", pairs, target, 3, 0)
    for split, given in zip(splits, pairs, strict=True):
        for side, rows in ((split.train, given[0]), (split.valid, given[1])):
            numbers = np.repeat(data.x.numeric[side, 0], data.weight[side].astype(int))
            assert_array_equal(np.sort(numbers), np.sort(X[rows, 0]))


def test_explicit_splits_may_contain_rows_of_weight_zero():
    X, y = np.arange(6.0)[:, None], np.array([0, 1] * 3)
    pairs = [([0, 1, 2], [3, 4, 5])]
    data, target = read(X, y, [1, 1, 0, 1, 0, 1], cv=pairs)
    (split,) = split_rows(data, "NASClassifier", pairs, target, 3, 0)
    train, valid = split.train, split.valid
    assert_array_equal(X[data.source_rows], data.x.numeric)
    assert sorted(data.x.numeric[train, 0]) == [0, 1]
    assert sorted(data.x.numeric[valid, 0]) == [3, 5]


@pytest.mark.parametrize("n_folds", [1, 3])
def test_rows_of_few_values_are_split_by_weight(rng, n_folds):
    X = rng.integers(0, 3, size=(600, 2)).astype(float)
    data, target = read(X, (rng.random(600) < 0.2 + 0.3 * X[:, 0]).astype(int))
    assert len(data) <= 18  # nine values, two classes
    held = np.zeros(len(data))
    for split in split_rows(data, "NASClassifier", "auto", target, n_folds, 0):
        inside = np.zeros(len(data))
        inside[split.train] += data.weight[split.train] * split.train_share
        held[split.valid] += data.weight[split.valid] * split.valid_share
        outside = data.weight - inside
        assert_allclose(
            outside[split.valid], data.weight[split.valid] * split.valid_share
        )
        # Both sides have the same shares of the classes.
        rates = [np.average(data.y, weights=side) for side in (inside, outside)]
        assert abs(rates[0] - rates[1]) < 0.1
        assert abs(outside.sum() / 600 - (0.2 if n_folds == 1 else 1 / n_folds)) < 0.06
    if n_folds > 1:
        assert_allclose(held, data.weight)


# -------------------------------------------------------------------------- encoding


@pytest.mark.parametrize("kind", ["classes", "labels", "values"])
def test_the_encoder_does_not_depend_on_validation_rows(mixed_frame, rng, kind):
    n = len(mixed_frame)
    y = targets(kind, n, rng)
    train, valid = np.arange(30), np.arange(30, n)
    changed, y_changed = mixed_frame.copy(), y.copy()
    changed.loc[valid, "number"] = 1e6 * rng.normal(size=len(valid))
    changed.loc[valid, "gaps"] = pd.NA
    changed.loc[valid, "constant"] = 9.0
    changed.loc[valid, "nothing"] = 1
    changed.loc[valid, "word"] = "apricot"  # sorts before all other words
    changed.loc[valid, "many"] = [f"new{row}" for row in valid]
    y_changed[valid] = 100 * y[valid[::-1]] if kind == "values" else y[valid[::-1]]
    encoded = []
    for X, target_values in ((mixed_frame, y), (changed, y_changed)):
        data, target = read(X, target_values, cv=[(train, valid)])
        fold = encode(data, target, *data.splits[0])
        probe = fold.encoder.transform(data.x)
        encoded.append((sorted_rows(fold.train), fold.task, probe.shape, fold.restore))
    (one, one_task, one_shape, one_restore), (two, task, shape, restore) = encoded
    assert_allclose(one, two, rtol=1e-6)
    assert one_shape[1] == shape[1]
    assert one_task.cardinalities == task.cardinalities
    assert_array_equal(one_task.edges, task.edges)
    output = rng.normal(size=(5, task.n_outputs))
    assert_allclose(one_restore(output), restore(output))


@pytest.mark.parametrize("kind", ["classes", "labels", "values"])
def test_a_fold(mixed_frame, rng, kind):
    n = len(mixed_frame)
    data, target = read(mixed_frame, targets(kind, n, rng))
    fold = encode(data, target, np.arange(30), np.arange(30, n))
    assert (len(fold.train), len(fold.valid)) == (30, n - 30)
    assert_array_equal(fold.valid_rows, np.arange(30, n))
    assert fold.train.x.dtype == fold.valid.x.dtype == np.float32
    assert fold.train.x.shape[1] == fold.task.n_columns
    assert fold.task.n_numeric == fold.encoder.n_numeric == len(fold.task.edges)
    again = fold.encoder.transform(data.x.take(fold.valid_rows))
    assert_array_equal(again.astype(np.float32), fold.valid.x)
    y_type = {"classes": np.int64}.get(kind, np.float32)
    assert fold.train.y.dtype == fold.valid.y.dtype == y_type
    expected = {"classes": "multiclass", "labels": "multilabel", "values": "regression"}
    assert fold.task.kind == expected[kind]
    assert fold.task.is_classification is (kind != "values")
    predictions = fold.restore(rng.normal(size=(4, fold.task.n_outputs)))
    if kind == "classes":
        assert_allclose(predictions.sum(axis=1), 1)
    elif kind == "labels":
        assert ((predictions > 0) & (predictions < 1)).all()
    else:
        assert_allclose(fold.restore(fold.train.y), data.y[:30], rtol=1e-5, atol=1e-6)


# ----------------------------------------------------------------------------- images


@pytest.fixture
def images(rng):
    """Return 8-bit images (40, 5, 6, 3), a few of them equal."""
    X = rng.integers(0, 256, (40, 5, 6, 3), dtype=np.uint8)
    X[30:] = X[:10]
    return X


@pytest.mark.parametrize("kind", ["classes", "labels", "values"])
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_a_weight_is_a_repetition_of_an_image(images, rng, kind, dtype):
    X, y = images.astype(dtype), targets(kind, 40, rng)
    weight = rng.integers(0, 4, 40)
    one, target = read(X, y, weight)
    other, _ = read(X.repeat(weight, axis=0), y.repeat(weight, axis=0))
    assert_array_equal(one.weight, other.weight)
    rows = np.arange(len(one))
    for train, valid in ((rows, rows[:0]), (rows[::2], rows[1::2])):
        fold, same = (encode(data, target, train, valid) for data in (one, other))
        assert_array_equal(fold.train.x, same.train.x)
        assert_array_equal(fold.valid.x, same.valid.x)
        assert_array_equal(fold.task.image.mean, same.task.image.mean)
        assert_array_equal(fold.task.image.deviation, same.task.image.deviation)


def test_equal_images_of_one_class_become_one(images):
    y = np.arange(40) % 2
    data, _ = read(images, y)
    assert len(data) == 30  # repeated images have the same class
    assert sorted(data.weight) == [1] * 20 + [2] * 10
    assert_array_equal(np.moveaxis(images[data.source_rows], 3, 1), data.x.pixels)
    assert_array_equal(y[data.source_rows], data.y)
    groups = np.arange(40) // 30
    assert len(read(images, y, groups=groups)[0]) == 40


def test_the_order_of_images_does_not_matter(images, rng):
    y, order = rng.integers(0, 2, 40), rng.permutation(40)
    one, _ = read(images, y)
    other, _ = read(images[order], y[order])
    assert_array_equal(one.x.pixels, other.x.pixels)
    assert_array_equal(one.y, other.y)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("uint8", "uint8"), ("int32", "uint8"), ("float32",) * 2, ("float64", "float32")],
)
def test_a_fold_of_images(images, dtype, kept):
    data, target = read(images.astype(dtype), np.arange(40) % 2)
    train, valid = np.arange(20), np.arange(20, 30)
    fold = encode(data, target, train, valid)
    assert fold.train.x.dtype == fold.valid.x.dtype == kept
    assert fold.train.x.shape == (20, *fold.task.row_shape) == (20, 3, 5, 6)
    assert_array_equal(fold.valid.x, data.x.pixels[valid])
    means = fold.train.x.mean(axis=(2, 3), dtype=float)
    mean = np.average(means, axis=0, weights=fold.train.weight)
    assert_allclose(fold.task.image.mean, mean, rtol=1e-6)
    assert (fold.task.n_numeric, fold.task.n_columns) == (0, 90)
    assert fold.task.kind == "binary"


def test_the_encoder_does_not_depend_on_validation_images(images):
    y = np.arange(40) % 2
    train, valid = np.arange(20), np.arange(20, 40)
    changed = images.copy()
    changed[valid] = 255
    tasks = []
    for X in (images, changed):
        data, target = read(X, y, cv=[(train, valid)])
        tasks.append(encode(data, target, *data.splits[0]).task)
    assert_array_equal(tasks[0].image.mean, tasks[1].image.mean)
    assert_array_equal(tasks[0].image.deviation, tasks[1].image.deviation)


def test_many_images_need_bounded_memory(rng):
    X = rng.integers(0, 256, (20_000, 28, 28), dtype=np.uint8)
    y = rng.integers(0, 2, len(X))
    tracemalloc.start()
    try:
        data, target = read(X, y)
        _, peak_of_reading = tracemalloc.get_traced_memory()
        encode(data, target, np.arange(16_000), np.arange(16_000, 20_000))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_of_reading < 1.7 * X.nbytes  # the sorted rows and their digests
    assert (
        peak < 3 * X.nbytes
    )  # plus the rows of a fold; floats would be 8 times as large


def test_large_tables_need_bounded_memory(rng):
    X = rng.standard_normal((60_000, 20))
    y = (X[:, 0] > 0).astype(int)
    tracemalloc.start()
    try:
        data, target = read(X, y)
        encode(data, target, np.arange(len(X)), np.arange(0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The sorted rows, the encoded rows and their conversion, but no other copies.
    assert peak < 4 * X.nbytes


def test_all_rows_are_not_copied(images, rng):
    data, target = read(images, rng.integers(0, 2, len(images)))
    full = encode(data, target, np.arange(len(data)), np.arange(0))
    assert np.shares_memory(full.train.x, data.x.pixels) and len(full.valid) == 0
    part = encode(data, target, np.arange(10), np.arange(10, 20))
    assert not np.shares_memory(part.train.x, data.x.pixels)


# ------------------------------------------------------------------------ class weights


@pytest.mark.parametrize(
    ("class_weight", "expected"),
    [
        (None, [1, 1, 1]),
        ("balanced", [1 / 6, 1 / 3, 1 / 2]),
        ({"a": 2.0}, [2, 1, 1]),
        ({"a": 1, "b": 0, "c": 4}, [1, 0, 4]),
    ],
)
def test_class_weights_scale_the_loss_weights_and_keep_their_sum(
    class_weight, expected
):
    y = np.repeat(["a", "b", "c"], [6, 3, 2])
    X = np.arange(11.0)[:, None]
    data, _ = read(X, y, class_weight=class_weight)
    assert_array_equal(data.weight, 1)
    assert data.loss_weight.sum() == pytest.approx(11)
    mean = np.array([data.loss_weight[data.y == c].mean() for c in range(3)])
    assert_allclose(mean / mean.sum(), np.array(expected) / np.sum(expected))


def test_folds_train_with_class_weights():
    y = np.array([0, 1] * 6)
    data, target = read(np.arange(12.0)[:, None], y, class_weight={0: 3.0})
    fold = encode(data, target, np.arange(8), np.arange(8, 12))
    for rows in (fold.train, fold.valid):
        assert_allclose(rows.weight, np.where(rows.y == 0, 1.5, 0.5))


def test_balanced_class_weights_count_sample_weights():
    X, y = np.arange(4.0)[:, None], np.array([0, 0, 1, 1])
    data, _ = read(X, y, [3, 3, 1, 1], class_weight="balanced")
    sums = np.bincount(data.y, data.loss_weight)
    assert sums[0] == pytest.approx(sums[1])


@pytest.mark.parametrize(
    ("class_weight", "allowed"),
    [
        ("even", "None, 'balanced' or a dict of label to weight"),
        ([1, 2], "None, 'balanced' or a dict of label to weight"),
        ({0: -1}, "None, 'balanced' or a dict of label to weight, weights >= 0"),
        ({0: 0, 1: 0}, "None, 'balanced' or a dict of label to weight, weights >= 0"),
        ({5: 1}, "a dict with labels of y, [0, 1]"),
        ({0: "much"}, "None, 'balanced' or a dict of label to weight"),
        ({0: None}, "None, 'balanced' or a dict of label to weight"),
        ({0: np.inf}, "None, 'balanced' or a dict of label to weight"),
    ],
    ids=str,
)
def test_wrong_class_weights_are_refused(class_weight, allowed):
    message = f"The 'class_weight' parameter of NASClassifier must be {allowed}"
    with pytest.raises(InvalidParameterError, match=re.escape(message)) as caught:
        read(np.arange(4.0)[:, None], [0, 1, 0, 1], class_weight=class_weight)
    assert str(caught.value).endswith(f"got {class_weight!r}.")


def test_class_weights_are_refused_for_multilabel_targets():
    message = "must be None for multi-label targets, got 'balanced'."
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        read(np.zeros((3, 1)), np.eye(3, dtype=int), class_weight="balanced")


# ----------------------------------------------------------------------------- scores


def test_scorer_gets_original_labels_and_rows():
    X = pd.DataFrame({"a": [3.0, 1.0, 2.0, 0.0]})
    y = np.array(["no", "yes", "no", "yes"])
    data, target = read(X, y)
    seen = {}

    def scoring(estimator, X, y):
        seen.update(X=X["a"].tolist(), y=y.tolist())
        return float((estimator.predict(X) == y).mean())

    scorer = find_scorer("NASClassifier", scoring, True)
    scorer = make_scorer(scorer, X, data, target)
    rows = np.array([2, 0])
    assert scorer.score(np.eye(2)[data.y[rows]], rows).value == 1
    assert seen["X"] == data.x.numeric[rows, 0].tolist()
    assert seen["y"] == [y[int(data.source_rows[row])] for row in rows]


def test_class_weights_are_used_in_the_score():
    X, y = np.arange(4.0)[:, None], np.array([0, 0, 0, 1])
    data, target = read(X, y, class_weight="balanced")
    scorer = find_scorer("NASClassifier", None, True)
    scorer = make_scorer(scorer, X, data, target)
    always_zero = np.tile([1.0, 0.0], (4, 1))
    assert scorer.score(always_zero, np.arange(4)).value == pytest.approx(0.5)


def test_single_output_targets_are_scored_as_one_column():
    y = np.array([1.0, 2.0, 4.0])
    data, target = read(np.arange(3.0)[:, None], y)
    scorer = make_scorer(find_scorer("NASRegressor", None, False), None, data, target)
    assert scorer.score(data.y, np.arange(3)).value == 1
