"""How much is trained."""

import math

import pytest

from sknas._budget import (
    CORES,
    ROW_SECONDS,
    STEP_SECONDS,
    alone_seconds,
    auto_folds,
    cohort_cost,
    default_batch_size,
    default_steps,
    default_trials,
    plan_budget,
    training_length,
)
from sknas.trainers._successive_halving import LEAST

SIZES = [2, 30, 100, 256, 257, 1_000, 1_999, 5_000, 30_000, 200_000, 10**7]


@pytest.mark.parametrize(
    ("n_rows", "expected"),
    [
        *((1, 256), (256, 256), (257, 64), (1_999, 64)),
        *((7_999, 128), (29_999, 256), (99_999, 512), (10**6, 1024)),
    ],
)
def test_batch_sizes(n_rows, expected):
    assert default_batch_size(n_rows) == expected


@pytest.mark.parametrize(
    ("n_rows", "expected"),
    [(5, 60), (60, 60), (700, 700), (1_500, 1_500), (9e5, 1_500)],
)
def test_steps(n_rows, expected):
    assert default_steps(n_rows) == expected


@pytest.mark.parametrize(
    ("n_rows", "expected"), [(2, 3), (100, 3), (1_000, 9), (10**6, 16)]
)
def test_trials(n_rows, expected):
    assert default_trials(n_rows) == expected


@pytest.mark.parametrize(
    ("n_rows", "expected"),
    [(10, 3), (399, 3), (400, 5), (5_000, 5), (15_999, 5), (16_000, 3), (40_000, 1)],
)
def test_folds(n_rows, expected):
    assert auto_folds(n_rows) == expected


@pytest.mark.parametrize("n_rows", SIZES)
@pytest.mark.parametrize("n_steps", [60, 500, 1_500])
@pytest.mark.parametrize("batch_size", [1, 32, 256, 4_096])
def test_smaller_batches_take_more_steps_as_the_square_root(
    n_rows, n_steps, batch_size
):
    length = training_length(n_rows, 0.8 * n_rows, n_steps, batch_size, None)
    expected = n_steps * math.sqrt(default_batch_size(n_rows) / batch_size)
    assert length.n_steps == max(1, round(expected))
    # A share of the schedule is the same point for all batch sizes.
    assert length.planned == n_steps
    assert length.n_batches == math.ceil(0.8 * n_rows / batch_size)
    assert (length.n_epochs - 1) * length.n_batches < length.n_steps
    assert length.n_steps <= length.n_epochs * length.n_batches


def test_the_default_batch_size_takes_the_steps_it_is_given():
    assert training_length(1_000, 800, 640, 64, None).n_steps == 640


@pytest.mark.parametrize(
    ("most", "expected"), [(None, (57, 20)), (5, (10, 5)), (99, (57, 20)), (1, (2, 1))]
)
def test_epochs_are_bounded(most, expected):
    length = training_length(90, 60, 20, 32, most)
    assert (length.n_steps, length.planned) == expected
    assert most is None or length.n_epochs <= most


@pytest.mark.parametrize("n_rows", SIZES)
def test_a_budget_of_which_nothing_is_given(n_rows):
    budget = plan_budget(n_rows, None, None)
    assert budget.n_trials == default_trials(n_rows)
    assert budget.n_steps == default_steps(n_rows)
    assert budget.n_folds == auto_folds(n_rows)
    assert budget.n_proposals == 16


def test_trials_are_what_is_asked_for():
    assert plan_budget(1_000, 7, None).n_trials == 7
    assert plan_budget(1_000, 7, 10.0).n_trials == 7


@pytest.mark.parametrize("n_rows", SIZES)
def test_time_alone_is_the_only_bound(n_rows):
    assert plan_budget(n_rows, None, 5.0).n_trials is None


@pytest.mark.parametrize("n_rows", SIZES)
def test_less_time_never_means_more_work(n_rows):
    plans = [plan_budget(n_rows, None, t) for t in (0.1, 1, 5, 20, 100, 10_000)]
    work = [plan.n_steps * plan.n_folds * plan.n_proposals for plan in plans]
    assert work == sorted(work)
    assert all(plan.n_steps >= 100 for plan in plans)
    assert {plan.n_proposals for plan in plans} <= {8, 16}
    folds = [plan.n_folds for plan in plans]
    assert folds == sorted(folds)


@pytest.mark.parametrize("n_rows", SIZES)
def test_much_time_trains_all_there_is(n_rows):
    plan = plan_budget(n_rows, None, 10**6)
    assert plan.n_folds == auto_folds(n_rows) and plan.n_proposals == 16
    assert plan.n_steps == (2_000 if n_rows < 3_000 else 1_500)
    assert plan.n_steps >= default_steps(n_rows)


@pytest.mark.parametrize("n_rows", SIZES)
def test_what_is_planned_fits_into_the_time(n_rows):
    for seconds in (5, 20, 100, 1_000):
        plan = plan_budget(n_rows, None, seconds)
        step = STEP_SECONDS + ROW_SECONDS * default_batch_size(n_rows)
        cohort = cohort_cost(plan.n_proposals) * plan.n_folds * plan.n_steps * step
        assert cohort <= CORES * seconds or plan.n_steps == 100


def test_what_gives_way_first_where_time_is_short():
    """The cohort, then folds, then steps; and a hold-out only for large tables."""
    plans = [plan_budget(1_000, None, t) for t in (600, 20, 12, 1)]
    found = [(plan.n_proposals, plan.n_folds, plan.n_steps) for plan in plans]
    assert found[:3] == [(16, 5, 2_000), (8, 5, 2_000), (8, 3, 2_000)]
    assert found[3][:2] == (8, 3) and 100 <= found[3][2] < 2_000


def test_small_tables_keep_their_folds_and_large_ones_take_a_hold_out():
    assert plan_budget(300, None, 0.5).n_folds == 3
    assert plan_budget(4_999, None, 0.5).n_folds == 3
    assert plan_budget(5_000, None, 0.5).n_folds == 1


@pytest.mark.parametrize(("is_batched", "usual"), [(True, 5.0), (False, 60.0)])
def test_wide_tables_take_longer(is_batched, usual):
    def work(n_columns, seconds=usual):
        plan = plan_budget(
            2_000, None, seconds, n_columns=n_columns, is_batched=is_batched
        )
        return plan.n_steps * plan.n_folds * plan.n_proposals

    assert work(1) == work(400) > work(2_000) > work(20_000)
    assert work(2_000, 10**6) == work(1, 10**6)


# ------------------------------------------------------------------------------ images


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "n_steps", "n_folds"),
    [
        (50, 64, 60, 3),
        (200, 64, 200, 3),
        (1_000, 64, 300, 3),
        (4_000, 64, 938, 1),
        (10_000, 128, 1_172, 1),
        (60_000, 128, 7_032, 1),
        (200_000, 256, 11_719, 1),
    ],
)
def test_images_take_smaller_batches_and_count_epochs(
    n_rows, batch_size, n_steps, n_folds
):
    assert default_batch_size(n_rows, is_image=True) == batch_size
    assert default_steps(n_rows, is_image=True) == n_steps
    plan = plan_budget(n_rows, None, None, is_batched=False, n_pixels=64)
    assert (plan.n_steps, plan.n_folds, plan.n_proposals) == (n_steps, n_folds, 8)
    length = training_length(n_rows, n_rows, n_steps, batch_size, None, is_image=True)
    assert length.n_steps == length.planned == n_steps


def test_images_are_trained_twice_as_long_where_time_suffices():
    def plan(seconds, max_trials=None):
        told = {"is_batched": False, "n_pixels": 28 * 28}
        return plan_budget(10_000, max_trials, seconds, **told)

    usual = default_steps(10_000, is_image=True)
    assert plan(None).n_steps == usual
    assert usual < plan(300.0).n_steps < plan(400.0).n_steps == 2 * usual
    assert plan(300.0).n_proposals == plan(400.0).n_proposals == 4
    assert (plan(3_000.0).n_steps, plan(3_000.0).n_proposals) == (2 * usual, 8)
    assert plan(200.0).n_steps >= usual > plan(100.0).n_steps > plan(30.0).n_steps
    assert plan(150.0, max_trials=1).n_steps == 2 * usual


def test_what_a_cohort_is_worth():
    assert [cohort_cost(n) for n in (1, 2, 8, 16)] == [1, 2, 4, 8]
    assert cohort_cost(3) == cohort_cost(4) == LEAST


def test_where_a_relaxed_network_was_searched_fewer_are_trained():
    def plan(seconds, time_share):
        told = {"is_batched": False, "n_pixels": 28 * 28, "time_share": time_share}
        return plan_budget(10_000, None, seconds, **told)

    usual = default_steps(10_000, is_image=True)
    assert (plan(400.0, 0.0).n_steps, plan(400.0, 0.0).n_proposals) == (2 * usual, 4)
    assert (plan(400.0, 1 / 3).n_steps, plan(400.0, 1 / 3).n_proposals) == (
        2 * usual,
        2,
    )
    assert plan(10_000.0, 1 / 3) == plan(10_000.0, 0.0)
    # For tables it is the time alone that is less.
    assert plan_budget(1_000, None, 20, time_share=0.5) == plan_budget(1_000, None, 10)


def test_larger_images_leave_time_for_less():
    plans = [
        plan_budget(10_000, None, 300.0, is_batched=False, n_pixels=n)
        for n in (64, 28 * 28, 128 * 128)
    ]
    work = [plan.n_proposals * plan.n_folds * plan.n_steps for plan in plans]
    assert work[0] > work[1] > work[2]
    for plan, n in zip(plans, (64, 28 * 28, 128 * 128), strict=True):
        seconds = alone_seconds(128, n, n)
        n_least = plan.n_proposals * 100  # steps that a training always has
        used = 0.5 * plan.n_proposals * plan.n_folds * plan.n_steps * seconds / 1.6
        assert used <= 300 * 1.001 or plan.n_proposals * plan.n_steps == n_least
