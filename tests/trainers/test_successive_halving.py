"""Promotion of trials by successive halving."""

import numpy as np
import pytest

from sknas.trainers._successive_halving import MIN_SHARE, is_reduced, promote


def promoted(values, n_reductions=0, protected=()):
    return promote(values, [j in protected for j in range(len(values))], n_reductions)


def test_larger_cohorts_promote_more_trials_and_later_halvings_drop_fewer():
    counts = np.array(
        [
            [len(promoted(list(range(n)), n_reductions)) for n in range(1, 40)]
            for n_reductions in range(4)
        ]
    )
    sizes = np.arange(1, 40)
    assert (counts >= np.minimum(sizes, 3)).all() and (counts <= sizes).all()
    assert (np.diff(counts, axis=1) >= 0).all()
    assert (counts[1:] >= counts[0]).all()
    # Something is dropped from every cohort of more than a few trials.
    assert (counts[:, 4:] < sizes[4:]).all()
    assert counts[0, 15] == 8


def test_the_best_are_promoted_however_large_the_cohort(rng):
    for n in range(1, 40):
        values = rng.normal(size=n)
        chosen = promoted(list(values), n_reductions=n % 3)
        dropped = np.delete(values, chosen)
        assert values[chosen].min() > dropped.max(initial=-np.inf)


def test_the_best_trials_are_promoted_in_order():
    values = [0.1, 0.9, -5.0, 0.5, 0.7, 0.2, 0.8, 0.3]
    assert promoted(values) == [1, 3, 4, 6]


def test_protected_trials_are_promoted_whatever_their_value():
    values = [0.1, 0.9, -5.0, 0.5, 0.7, 0.2, 0.8, 0.3]
    assert promoted(values, protected=[2]) == [1, 2, 3, 4, 6]
    assert promoted(values, protected=[1]) == [1, 3, 4, 6]
    assert promoted([float("-inf")] * 8, protected=[7]) == [0, 1, 2, 3, 7]


def test_ties_are_broken_by_order():
    assert promoted([1.0] * 8) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1 / 15, False), (1 / 7, False), (MIN_SHARE, True), (0.2, True), (7 / 15, True)],
)
def test_no_trial_is_dropped_too_early(share, expected):
    assert is_reduced(share) is expected


def test_no_trial_is_dropped_at_the_end():
    assert not is_reduced(1.0)


NEEDS = [4.0, 1.0, 1.0, 1.0, 1.0, 1.0]  # seconds, the best trial takes longest
VALUES = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("seconds_left", "expected"),
    [
        (100.0, [0, 1, 2]),  # time for other cohorts
        (22.0, [0, 1, 2]),  # these trials need 6, another cohort needs 16
        (21.9, [0, 1, 2, 3, 4, 5]),
        (8.5, [0, 1, 2, 3, 4]),
        (5.5, [0, 1]),
        (3.5, [0]),  # one is always promoted
    ],
)
def test_all_trials_of_the_last_cohort_that_fit_in_the_time_are_promoted(
    seconds_left, expected
):
    found = promote(VALUES, [False] * 6, 0, NEEDS, seconds_left, seconds_spent=10.0)
    assert found == expected


def test_several_workers_do_not_speed_up_one_training():
    options = ([4.0, 3.0, 2.0], [True, False, False], 0, [2.0, 5.0, 2.0], 8.0, 9.0)
    assert promote(*options) == [0, 1]
    assert promote(*options, seconds_each=4.0) == [0, 2]
    assert promote(*options, seconds_each=1.0) == [0]
    # A single training needs no margin for workers that wait.
    assert promote([3, 2, 1], [False] * 3, 0, [9, 1, 1], 8.5, 1, 10) == [0]


def test_trials_that_would_exceed_the_time_are_not_promoted():
    values = [6.0, 1.0, 5.0, 2.0]
    found = promote(values, [False] * 4, 0, [1.0, 1.0, 9.0, 1.0], 3.0)
    assert found == [0, 1, 3]
