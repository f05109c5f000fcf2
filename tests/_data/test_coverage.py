"""Each fold trains and validates each class, whatever the counts, groups and weights.

A class of one row or group is an exception: it is trained.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sknas._data.coverage import Blocks, class_codes, cover_classes
from sknas._data.splits import make_splits

quick = settings(max_examples=80, deadline=None, derandomize=True, database=None)
seeds, folds = st.integers(0, 2**31 - 1), st.sampled_from([1, 2, 3, 5, 8])
counts = st.lists(
    st.one_of(st.integers(2, 6), st.integers(2, 60)), min_size=2, max_size=12
)


def split(y, n_folds, seed, *, weight=None, groups=None, cv="auto"):
    kind = "multiclass" if y.ndim == 1 else "multilabel"
    weight = np.ones(len(y)) if weight is None else weight
    return make_splits("N", cv, y, weight, groups, kind, n_folds, seed)


def classes_of(y, rows):
    return set(class_codes(y)[rows].ravel().tolist())


def check(y, splits, groups=None, weight=None):
    """Assert what holds for all splits, and return the classes without a score."""
    n_blocks = Blocks.of(y, groups).n_blocks
    if groups is None and weight is not None:
        n_blocks = np.bincount(y, weight)
    there = set(np.flatnonzero(n_blocks).tolist())
    skipped = set()
    for own in splits:
        assert len(own.train) and len(own.valid)
        if weight is None:
            assert not set(own.train) & set(own.valid)
            assert len(own.train) + len(own.valid) == len(y)
        if groups is not None:
            assert not set(groups[own.train]) & set(groups[own.valid])
        assert classes_of(y, own.train) == there
        skipped |= there - classes_of(y, own.valid)
    validated = set().union(*(classes_of(y, own.valid) for own in splits))
    single = set(np.flatnonzero(n_blocks == 1).tolist())
    assert not single & validated
    return skipped - single, there - validated - single


@quick
@given(counts=counts, n_folds=folds, seed=seeds)
def test_each_fold_trains_and_validates_each_class(counts, n_folds, seed):
    y = np.random.default_rng(seed).permutation(np.repeat(range(len(counts)), counts))
    splits = split(y, n_folds, seed)
    assert check(y, splits) == (set(), set())
    assert len(splits) == min(n_folds, max(2, *counts))
    validated = np.bincount(
        np.concatenate([own.valid for own in splits]), minlength=len(y)
    )
    for code, count in enumerate(counts):
        times = validated[y == code]
        if n_folds > 1 and count >= len(splits):
            assert_array_equal(times, 1)
        elif n_folds > 1:  # each fold validates one row of the class
            assert times.sum() == len(splits) and times.max() - times.min() <= 1


@quick
@given(counts=counts, n_single=st.integers(1, 4), n_folds=folds, seed=seeds)
def test_a_class_of_one_row_is_trained_by_each_fold(counts, n_single, n_folds, seed):
    y = np.repeat(range(len(counts) + n_single), [*counts, *[1] * n_single])
    assert check(y, split(y, n_folds, seed)) == (set(), set())


@quick
@given(counts=counts, n_folds=folds, seed=seeds)
def test_a_weight_is_a_repetition(counts, n_folds, seed):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(range(len(counts)), counts))
    weight = rng.integers(1, 5, len(y))
    weighted = split(y, n_folds, seed, weight=weight.astype(float))
    assert check(y, weighted, weight=weight) == (set(), set())
    row = np.repeat(np.arange(len(y)), weight)
    repeated = split(y[row], n_folds, seed)
    for one, other in zip(weighted, repeated, strict=True):
        total = np.zeros(len(y))
        total[one.valid] = weight[one.valid] * one.valid_share
        np.testing.assert_allclose(
            total, np.bincount(row[other.valid], minlength=len(y))
        )


@quick
@given(
    n_groups=st.integers(2, 15),
    n_classes=st.integers(2, 6),
    n_rows=st.integers(6, 80),
    n_folds=folds,
    seed=seeds,
)
def test_groups_are_never_split(n_groups, n_classes, n_rows, n_folds, seed):
    rng = np.random.default_rng(seed)
    groups = np.unique(rng.integers(0, n_groups, n_rows), return_inverse=True)[1]
    y = rng.integers(0, n_classes, n_rows)
    y[rng.random(n_rows) < 0.5] = 0
    y = np.unique(y, return_inverse=True)[1]
    if len(np.unique(groups)) < 2 or len(np.unique(y)) < 2:
        return
    blocks = Blocks.of(y, groups)
    splits = split(y, n_folds, seed, groups=groups)
    if blocks.is_pinned.all():  # no group can be validated: rather that than no score
        return
    _, unvalidated = check(y, splits, groups)
    if n_folds > 1:
        possible = np.flatnonzero(~blocks.is_pinned @ blocks.classes)
        assert not unvalidated & set(possible.tolist())


@quick
@given(n_rows=st.integers(4, 60), n_labels=st.integers(1, 5), n_folds=folds, seed=seeds)
def test_each_fold_trains_and_validates_both_values_of_a_label(
    n_rows, n_labels, n_folds, seed
):
    rng = np.random.default_rng(seed)
    shares = rng.choice([0.0, 0.03, 0.1, 0.5, 0.9, 1.0], n_labels)
    y = (rng.random((n_rows, n_labels)) < shares).astype(float)
    if Blocks.of(y, None).is_pinned.all():
        return
    splits = split(y, n_folds, seed)
    _, unvalidated = check(y, splits)
    if n_folds > 1:
        possible = np.flatnonzero(
            ~Blocks.of(y, None).is_pinned @ Blocks.of(y, None).classes
        )
        assert not unvalidated & set(possible.tolist())


@pytest.mark.parametrize("groups", [None, np.arange(40) // 2], ids=["rows", "groups"])
@pytest.mark.parametrize("n_folds", [1, 5])
def test_folds_of_rare_classes_depend_on_the_seed_alone(n_folds, groups):
    y = np.repeat([0, 1, 2], [32, 4, 4])
    first, again, other = (split(y, n_folds, s, groups=groups) for s in (1, 1, 2))
    for one, two in zip(first, again, strict=True):
        assert_array_equal(one.valid, two.valid)
    pairs = zip(first, other, strict=True)
    assert not all(np.array_equal(one.valid, two.valid) for one, two in pairs)


def test_folds_that_have_each_class_are_unchanged():
    y, blocks = np.arange(30) % 3, Blocks.of(np.arange(30) % 3, None)
    valid = np.array([np.arange(30) // 10 == fold for fold in range(3)])
    assert_array_equal(cover_classes(valid, blocks, 0), valid)
    # Fold 1 would train no row of class 2, and fold 0 validate none of class 1.
    valid = np.array([y == 2, y == 1])
    covered = cover_classes(valid, blocks, 0)
    assert_array_equal((valid & ~covered).sum(axis=1), [1, 1])
    assert_array_equal((covered & ~valid).sum(axis=1), [2, 2])
