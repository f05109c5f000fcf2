"""Equal rows are merged into one."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sknas._data.deduplicate import check_weight, deduplicate


def some_rows(seed):
    """Return numbers with gaps, codes and a target, with many equal rows."""
    rng = np.random.default_rng(seed)
    numbers = rng.choice([0.5, -1.5, np.nan], size=(40, 2))
    return [numbers, rng.integers(0, 2, (40, 1)), rng.integers(0, 2, 40)]


@pytest.mark.parametrize("seed", range(4))
def test_each_distinct_row_occurs_once_with_the_sum_of_its_weights(seed):
    parts = some_rows(seed)
    weight = np.random.default_rng(seed).uniform(0.1, 2, 40)
    merged = deduplicate(parts, weight)
    whole = np.column_stack(parts)
    different, inverse = np.unique(
        np.nan_to_num(whole, nan=9), axis=0, return_inverse=True
    )
    assert len(merged.first) == len(different)
    assert_array_equal(whole[merged.first][merged.inverse], whole)
    expected = np.bincount(inverse.ravel(), weight)
    assert_allclose(np.sort(merged.weight), np.sort(expected))
    assert_allclose(merged.weight[merged.inverse], expected[inverse.ravel()])


@pytest.mark.parametrize("seed", range(4))
def test_a_weight_is_a_repetition(seed):
    parts = some_rows(seed)
    weight = np.random.default_rng(seed).integers(1, 5, 40)
    repeated = [np.repeat(part, weight, axis=0) for part in parts]
    one = deduplicate(parts, weight.astype(float))
    other = deduplicate(repeated, np.ones(weight.sum()))
    assert_array_equal(one.weight, other.weight)
    for part, again in zip(parts, repeated, strict=True):
        assert_array_equal(part[one.first], again[other.first])


def test_the_order_of_rows_does_not_matter(rng):
    parts, order = some_rows(0), rng.permutation(40)
    one = deduplicate(parts, np.ones(40))
    other = deduplicate([part[order] for part in parts], np.ones(40))
    assert_array_equal(one.weight, other.weight)
    for part in parts:
        assert_array_equal(part[one.first], part[order][other.first])


@pytest.mark.parametrize(
    "parts",
    [
        [np.array([[1, 2], [2, 1]])],
        [np.array([1, 2]), np.array([2, 1])],
        [np.array([0.0, np.nan])],
        [np.array([1.0, np.nextafter(1, 2)])],
        [np.zeros((2, 3)), np.zeros((2, 0)), np.array([0, 1])],
    ],
)
def test_different_rows_stay_apart(parts):
    assert len(deduplicate(parts, np.ones(2)).first) == 2


@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_rows_without_a_column_are_equal(n_rows):
    parts = [np.zeros((n_rows, 0)), np.zeros((n_rows, 2))]
    assert deduplicate(parts, np.ones(n_rows)).weight.tolist() == [n_rows]


def test_many_different_rows(rng):
    numbers = rng.normal(size=(50_000, 3)).astype(np.float32)
    assert len(deduplicate([numbers], np.ones(50_000)).first) == 50_000


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ([1, 1], [1, 1]),
        ([3, 0], [3, 0]),
        ([0.5, 2], [0.5, 2]),
        (
            [0.25, 0.75],
            [0.5, 1.5],
        ),  # shares that sum to 1 are scaled up to the number of rows
        ([0.5, 0, 0.5], [1, 0, 1]),  # rows of weight 0 are ignored
        ([1e-300, 1e-300], [1, 1]),
    ],
)
def test_weights_that_sum_to_less_than_their_rows_are_scaled_up(weight, expected):
    assert_allclose(check_weight(np.array(weight, dtype=float)), expected)
