"""Which trials go on."""

import math

import pytest

from sknas.trainers._successive_halving import (
    EARLIEST,
    KEPT,
    LEAST,
    is_halving,
    survivors,
)


def kept_of(values, n_before=0, kept=()):
    return survivors(values, [j in kept for j in range(len(values))], n_before)


@pytest.mark.parametrize("n", range(1, 20))
@pytest.mark.parametrize("n_before", range(4))
def test_a_share_of_the_cohort_goes_on(n, n_before):
    share = (0.5, 0.75, 0.75, 0.75)[n_before]
    found = kept_of([float(j) for j in range(n)], n_before)
    n_kept = min(n, max(3, math.ceil(share * n)))
    assert found == list(range(n - n_kept, n))
    assert KEPT == (0.5, 0.75) and LEAST == 3


def test_the_better_go_on_in_their_order():
    values = [0.1, 0.9, -5.0, 0.5, 0.7, 0.2, 0.8, 0.3]
    assert kept_of(values) == [1, 3, 4, 6]


def test_some_go_on_whatever_their_value():
    values = [0.1, 0.9, -5.0, 0.5, 0.7, 0.2, 0.8, 0.3]
    assert kept_of(values, kept=[2]) == [1, 2, 3, 4, 6]
    assert kept_of(values, kept=[1]) == [1, 3, 4, 6]
    assert kept_of([float("-inf")] * 8, kept=[7]) == [0, 1, 2, 3, 7]


def test_of_equals_the_first_go_on():
    assert kept_of([1.0] * 8) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1 / 15, False), (1 / 7, False), (EARLIEST, True), (0.2, True), (7 / 15, True)],
)
def test_too_early_ranks_drop_none(share, expected):
    assert is_halving(share) is expected


def test_none_are_dropped_at_the_end():
    assert not is_halving(1.0)


NEEDS = [4.0, 1.0, 1.0, 1.0, 1.0, 1.0]  # seconds, the best trial takes longest
VALUES = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("seconds_left", "expected"),
    [
        (100.0, [0, 1, 2]),  # time for other cohorts
        (22.0, [0, 1, 2]),  # they need 6, and another cohort 16
        (21.9, [0, 1, 2, 3, 4, 5]),
        (8.5, [0, 1, 2, 3, 4]),
        (5.5, [0, 1]),
        (3.5, [0]),  # one always goes on
    ],
)
def test_the_last_cohort_trains_all_that_end_in_time(seconds_left, expected):
    kept = survivors(VALUES, [False] * 6, 0, NEEDS, seconds_left, seconds_spent=10.0)
    assert kept == expected


def test_many_workers_do_not_end_one_training_sooner():
    told = ([4.0, 3.0, 2.0], [True, False, False], 0, [2.0, 5.0, 2.0], 8.0, 9.0)
    assert survivors(*told) == [0, 1]
    assert survivors(*told, seconds_each=4.0) == [0, 2]
    assert survivors(*told, seconds_each=1.0) == [0]
    # A margin for workers that wait is none for one training alone.
    assert survivors([3, 2, 1], [False] * 3, 0, [9, 1, 1], 8.5, 1, 10) == [0]


def test_what_does_not_end_in_time_leaves_room_for_others():
    values = [6.0, 1.0, 5.0, 2.0]
    kept = survivors(values, [False] * 4, 0, [1.0, 1.0, 9.0, 1.0], 3.0)
    assert kept == [0, 1, 3]
