"""Splits of rows into training and validation rows."""

import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    PredefinedSplit,
    ShuffleSplit,
    StratifiedKFold,
    TimeSeriesSplit,
)

from sknas._data.splits import check_folds, is_n_folds, make_splits, user_splits
from sknas.exceptions import InvalidParameterError


def split_rows(y, groups=None, *, cv="auto", stratify=True, n_folds=3, seed=0):
    y = np.asarray(y)
    groups = None if groups is None else np.asarray(groups)
    weight, kind = np.ones(len(y)), "multiclass" if stratify else "regression"
    splits = make_splits("NASClassifier", cv, y, weight, groups, kind, n_folds, seed)
    for split in splits:  # rows of weight 1 are on one side only
        assert np.all(split.train_share == 1) and np.all(split.valid_share == 1)
    return [(split.train, split.valid) for split in splits]


def given(cv, n=12, groups=None, weighted=None):
    weighted = np.ones(n, dtype=bool) if weighted is None else np.asarray(weighted)
    X, y = np.zeros((n, 1)), np.arange(n) % 2
    return user_splits("NASClassifier", cv, X, y, groups, weighted)


def check_splits(splits, groups=None):
    """Assert that the sides of a split are not empty and share no row and no group."""
    for train, valid in splits:
        assert len(train) and len(valid)
        assert not set(train) & set(valid)
        if groups is not None:
            assert not set(groups[train]) & set(groups[valid])


# ----------------------------------------------------------------- shuffled folds


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize(("cv", "n_folds"), [("auto", 3), ("auto", 5), (4, 3), (2, 9)])
def test_each_row_is_validated_once(cv, n_folds, stratify):
    splits = split_rows(np.arange(40) % 3, cv=cv, n_folds=n_folds, stratify=stratify)
    assert len(splits) == (n_folds if cv == "auto" else cv)
    check_splits(splits)
    validated = np.concatenate([valid for _, valid in splits])
    assert_array_equal(np.sort(validated), np.arange(40))
    for train, valid in splits:
        assert len(train) + len(valid) == 40


def test_each_fold_has_its_share_of_every_class():
    y = np.repeat([0, 1, 2], [30, 12, 6])
    for _, valid in split_rows(y):
        assert np.bincount(y[valid]).tolist() == [10, 4, 2]


@pytest.mark.parametrize("stratify", [True, False])
def test_a_hold_out_is_a_fifth(stratify):
    y = np.arange(100) % 4
    ((train, valid),) = split_rows(y, n_folds=1, stratify=stratify)
    check_splits([(train, valid)])
    assert (len(train), len(valid)) == (80, 20)
    if stratify:
        assert np.bincount(y[valid]).tolist() == [5] * 4


@pytest.mark.parametrize("n_classes", [3, 100, 300, 500])
def test_a_hold_out_of_any_number_of_classes(n_classes):
    y = np.arange(1000) % n_classes
    splits = split_rows(y, n_folds=1)
    assert len(splits) == 1
    check_splits(splits)
    assert 100 <= len(splits[0][1]) <= max(300, n_classes)  # one row of each class


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("n_folds", [1, 3])
@pytest.mark.parametrize("groups", [None, np.arange(60) // 3], ids=["rows", "groups"])
def test_splits_depend_only_on_the_seed(stratify, n_folds, groups):
    y, options = np.arange(60) % 2, {"stratify": stratify, "n_folds": n_folds}
    first, again, other = (split_rows(y, groups, seed=s, **options) for s in (1, 1, 2))
    assert_array_equal(first[0][1], again[0][1])
    assert not np.array_equal(first[0][1], other[0][1])


@pytest.mark.parametrize(
    ("y", "groups", "expected"),
    [
        ([0, 1], None, 2),
        ([0, 0, 1, 1], None, 2),  # as many folds as rows of the largest class
        ([0, 0, 0, 0, 1, 1, 1, 1], None, 3),
        ([0, 1] * 6, [0] * 6 + [1] * 6, 2),
    ],
)
def test_auto_uses_fewer_folds_for_few_rows_or_groups(y, groups, expected):
    splits = split_rows(y, groups)
    assert len(splits) == expected
    check_splits(splits)


@pytest.mark.parametrize("n_rows", [2, 3, 4])
def test_auto_uses_fewer_folds_for_few_values(n_rows):
    splits = split_rows(np.zeros(n_rows), stratify=False)
    assert len(splits) == min(n_rows, 3)
    check_splits(splits)


def test_single_row_is_refused():
    message = "There must be at least 2 rows to train and to validate on, got 1."
    with pytest.raises(ValueError, match=message):
        split_rows([0], stratify=False)


def test_a_row_of_large_weight_is_on_both_sides():
    y, weight = np.zeros(1, dtype=int), np.array([60.0])
    splits = make_splits("N", "auto", y, weight, None, "regression", 3, 0)
    assert len(splits) == 3
    for split in splits:
        assert split.train.tolist() == split.valid.tolist() == [0]
        assert abs(split.valid_share[0] - 1 / 3) < 0.1
        assert split.train_share[0] + split.valid_share[0] == 1


@pytest.mark.parametrize("stratify", [True, False])
@pytest.mark.parametrize("n_folds", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_split(seed, n_folds, stratify):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 9, 80)
    y = rng.integers(0, 2, 80)
    splits = split_rows(y, groups, n_folds=n_folds, stratify=stratify, seed=seed)
    assert len(splits) == n_folds
    check_splits(splits, groups)


def test_groups_of_words_are_never_split(rng):
    groups = rng.choice(["a", "b", "c", "d"], 40)
    check_splits(split_rows(np.arange(40) % 2, groups), groups)


# ----------------------------------------------------------------------- rare classes


@pytest.mark.parametrize(
    ("counts", "cv", "n_folds", "expected"),
    [
        ([10, 10, 1], "auto", 3, 3),
        ([10, 2, 1], "auto", 3, 3),
        ([10, 10, 4], 5, 3, 5),
        ([50, 49, 1], "auto", 1, 1),  # a hold-out
        ([598, 2], "auto", 5, 5),
        ([2, 2, 2, 2], "auto", 5, 2),
    ],
)
def test_each_fold_trains_and_validates_rare_classes(counts, cv, n_folds, expected):
    y = np.repeat(np.arange(len(counts)), counts)
    splits = split_rows(y, cv=cv, n_folds=n_folds)
    assert len(splits) == expected
    check_splits(splits)
    for train, valid in splits:
        for code, count in enumerate(counts):
            assert code in y[train] and (code in y[valid]) == (count > 1)
        assert len(train) + len(valid) == len(y)


def test_all_classes_are_validated_if_every_class_is_rare():
    splits = split_rows([0, 1, 2, 3])
    check_splits(splits)
    assert_array_equal(np.sort(np.concatenate([v for _, v in splits])), np.arange(4))


def test_the_only_group_without_a_rare_class_is_validated():
    y, groups = np.array([0, 1, 0, 2, 0, 0]), np.array([0, 0, 1, 1, 2, 2])
    ((train, valid),) = split_rows(y, groups)
    assert (train.tolist(), valid.tolist()) == ([0, 1, 2, 3], [4, 5])


def test_a_group_with_a_rare_class_is_not_split():
    y = np.array([0] * 6 + [1] * 6 + [2])
    groups = np.array([0, 0, 1, 1, 2, 2] * 2 + [0])
    splits = split_rows(y, groups)
    check_splits(splits, groups)


def test_auto_uses_fewer_folds_if_rare_classes_occupy_a_group():
    y = np.array([0, 1] * 6 + [2])
    groups = np.array([0] * 6 + [1] * 6 + [2])
    splits = split_rows(y, groups)
    assert len(splits) == 2
    check_splits(splits, groups)


@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
@pytest.mark.parametrize("cv", ["auto", 2, 4])
def test_splits_of_small_tables_are_valid(cv, grouped):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n_rows = int(rng.integers(2, 25))
        y = np.unique(rng.integers(0, 4, n_rows), return_inverse=True)[1]
        groups = rng.integers(0, 6, n_rows) if grouped else None
        if grouped and len(np.unique(groups)) < 2:
            continue
        try:
            splits = split_rows(y, groups, cv=cv, n_folds=int(rng.choice([1, 2, 3])))
        except InvalidParameterError:
            assert cv != "auto"
            continue
        assert splits
        check_splits(splits, groups)


# ------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("y", "groups", "cv", "allowed"),
    [
        ([0, 1, 0], None, 5, "at most the number of rows, 3"),
        ([0, 1] * 4, [0, 1] * 4, 3, "at most the number of groups, 2"),
        ([0, 0, 1, 1, 2, 2], None, 5, "at most the rows of the largest class, 2"),
    ],
)
def test_more_folds_than_rows_are_refused(y, groups, cv, allowed):
    message = f"The 'cv' parameter of NASClassifier must be {allowed}, got {cv}."
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        split_rows(y, groups, cv=cv)


def test_single_group_is_refused():
    message = "There must be at least 2 groups to train and to validate on, got 1."
    with pytest.raises(ValueError, match=re.escape(message)):
        split_rows([0, 1] * 4, [7] * 8)


@pytest.mark.parametrize("cv", ["auto", 2, np.int64(5), KFold(3), [([0], [1])]])
def test_valid_cv(cv):
    check_folds("NASClassifier", cv)
    assert is_n_folds(cv) == (not isinstance(cv, KFold | list))


@pytest.mark.parametrize("cv", ["loo", 1, 0, -3, True, 2.5, None, KFold])
def test_invalid_cv(cv):
    message = (
        "The 'cv' parameter of NASClassifier must be 'auto', an int >= 2, a "
        "scikit-learn splitter or an iterable of (train, test) row indices, got "
        f"{cv!r}."
    )
    with pytest.raises(InvalidParameterError, match=re.escape(message)):
        check_folds("NASClassifier", cv)


# ------------------------------------------------------------------- explicit splits


def test_explicit_pairs_are_used_unchanged():
    pairs = [([0, 1, 2], [3, 4]), (np.array([5]), range(6, 8))]
    splits = given(pairs)
    assert [[side.tolist() for side in split] for split in splits] == [
        [[0, 1, 2], [3, 4]],
        [[5], [6, 7]],
    ]


def test_pairs_may_be_generated_and_may_be_masks():
    mask = np.arange(12) < 8
    ((train, valid),) = given(pair for pair in [(mask, ~mask)])
    assert_array_equal(train, np.arange(8))
    assert_array_equal(valid, np.arange(8, 12))


@pytest.mark.parametrize(
    "cv",
    [
        KFold(3),
        StratifiedKFold(2),
        ShuffleSplit(4, test_size=0.25, train_size=0.25, random_state=0),
        TimeSeriesSplit(3),
        PredefinedSplit([-1, -1, 0, 0, 1, 1, -1, -1, -1, -1, -1, -1]),
    ],
    ids=lambda cv: type(cv).__name__,
)
def test_splitters_may_leave_rows_out(cv):
    X, y = np.zeros((12, 1)), np.arange(12) % 2
    expected = list(cv.split(X, y))
    for got, wanted in zip(given(cv), expected, strict=True):
        assert_array_equal(got[0], wanted[0])
        assert_array_equal(got[1], wanted[1])


class CustomSplitter:
    """A custom splitter that yields lists."""

    def split(self, X, y=None, groups=None):
        yield list(range(4)), list(range(4, len(X)))


def test_custom_splitter():
    ((train, valid),) = given(CustomSplitter())
    assert (list(train), list(valid)) == (list(range(4)), list(range(4, 12)))


@pytest.mark.parametrize("cv", [GroupKFold(3), LeaveOneGroupOut()])
def test_splitters_get_the_groups(cv):
    groups = np.arange(12) % 4
    check_splits(given(cv, groups=groups), groups)


def test_splits_exclude_rows_of_weight_zero():
    weighted = np.arange(12) % 3 != 0  # rows 1 2 4 5 7 8 10 11 become 0 to 7
    pairs = [([0, 1, 2, 3, 4], [5, 6, 7]), ([8, 9, 10, 11], [0, 3]), ([0], [1])]
    splits = given(pairs, weighted=weighted)
    # A split without training or validation rows is dropped.
    assert [[side.tolist() for side in split] for split in splits] == [
        [[0, 1, 2], [3, 4]]
    ]


@pytest.mark.parametrize(
    "cv", [[1, 2], [(0, 1, 2)], [([0], [99])], ["ab"], [([0.5], [1])]], ids=str
)
def test_invalid_row_numbers(cv):
    with pytest.raises(InvalidParameterError, match="'cv' parameter of NASClassifier"):
        given(cv)


@pytest.mark.parametrize("pairs", [[], [([], [1])], [([0], [])], [([0, 1], [])]])
def test_splits_with_an_empty_side_are_rejected(pairs):
    pairs = [tuple(np.array(side, dtype=int) for side in pair) for pair in pairs]
    message = "leave no rows to train or to validate on, give splits with both."
    with pytest.raises(ValueError, match=message):
        given(pairs)
