"""The plan of a search: batch sizes, steps, trials and folds."""

import pytest

from sknas._budget import (
    BATCHED_COST,
    CORES,
    IMAGE,
    IMAGE_COST,
    MIN_TIMED_STEPS,
    SCORE_SHARE,
    TABLE,
    TABLE_COST,
    Workload,
    cohort_cost,
    plan_budget,
)

N_ROWS = [2, 30, 100, 256, 257, 1_000, 1_999, 5_000, 30_000, 200_000, 10**7]


@pytest.mark.parametrize(
    ("n_rows", "expected"),
    [
        *((1, 256), (256, 256), (257, 64), (1_999, 64)),
        *((7_999, 128), (29_999, 256), (99_999, 512), (10**6, 1024)),
    ],
)
def test_batch_size_grows_with_the_rows(n_rows, expected):
    assert TABLE.batch_size(n_rows) == expected


@pytest.mark.parametrize(
    ("n_rows", "expected"),
    [(5, 60), (60, 60), (700, 700), (1_500, 1_500), (9e5, 1_500)],
)
def test_number_of_steps_by_rows(n_rows, expected):
    assert TABLE.n_steps(n_rows) == expected


@pytest.mark.parametrize(
    ("n_rows", "expected"), [(2, 3), (100, 3), (1_000, 9), (10**6, 16)]
)
def test_number_of_trials_by_rows(n_rows, expected):
    assert TABLE.n_trials(n_rows) == expected


@pytest.mark.parametrize(
    ("n_rows", "expected"),
    [(10, 3), (399, 3), (400, 5), (5_000, 5), (15_999, 5), (16_000, 3), (40_000, 1)],
)
def test_number_of_folds_by_rows(n_rows, expected):
    assert TABLE.n_folds(n_rows) == expected


def plan(n_rows, max_time, max_trials=None, **workload):
    return plan_budget(Workload(n_rows, **workload), max_trials, max_time)


def image_plan(n_rows, max_time, max_trials=None, n_pixels=28 * 28, **workload):
    workload |= {"is_batched": False, "n_pixels": n_pixels}
    return plan(n_rows, max_time, max_trials, **workload)


def work(budget):
    """Return the steps of a cohort, over all folds and proposals."""
    return budget.n_steps * budget.n_folds * budget.n_proposals


@pytest.mark.parametrize(
    ("n_rows", "expected"),
    [(30, (3, 60, 3, 16)), (1_000, (9, 1_000, 5, 16)), (200_000, (16, 1_500, 1, 16))],
)
def test_plan_without_bounds_is_the_default(n_rows, expected):
    budget = plan(n_rows, None)
    found = (budget.n_trials, budget.n_steps, budget.n_folds, budget.n_proposals)
    assert found == expected


def test_max_trials_is_planned_as_given():
    assert plan(1_000, None, max_trials=7).n_trials == 7
    assert plan(1_000, 10.0, max_trials=7).n_trials == 7


def test_trials_are_not_planned_if_only_time_is_bounded():
    assert {plan(n_rows, 5.0).n_trials for n_rows in N_ROWS} == {None}


@pytest.mark.parametrize("n_rows", N_ROWS)
def test_less_time_never_means_more_work(n_rows):
    budgets = [plan(n_rows, seconds) for seconds in (0.1, 1, 5, 20, 100, 10_000)]
    assert list(map(work, budgets)) == sorted(map(work, budgets))
    assert all(budget.n_steps >= 100 for budget in budgets)
    assert {budget.n_proposals for budget in budgets} <= {8, 16}
    folds = [budget.n_folds for budget in budgets]
    assert folds == sorted(folds)


@pytest.mark.parametrize("n_rows", N_ROWS)
def test_long_time_keeps_all_folds_and_proposals(n_rows):
    budget = plan(n_rows, 10**6)
    assert budget.n_folds == TABLE.n_folds(n_rows) and budget.n_proposals == 16
    assert budget.n_steps == (2_000 if n_rows < 3_000 else 1_500)
    assert budget.n_steps >= TABLE.n_steps(n_rows)


def seconds_of_cohort(budget, step_seconds):
    cost = cohort_cost(budget.n_proposals) * budget.n_folds * budget.n_steps
    return cost * step_seconds / CORES


@pytest.mark.parametrize("n_rows", N_ROWS)
def test_a_cohort_fits_into_the_time(n_rows):
    step = BATCHED_COST.seconds(TABLE.batch_size(n_rows), 1)
    for seconds in (5, 20, 100, 1_000):
        budget = plan(n_rows, seconds)
        fits = seconds_of_cohort(budget, step) <= seconds * (1 + 1e-9)
        assert fits or budget.n_steps == 100


def test_short_time_reduces_the_cohort_then_folds_then_steps():
    budgets = [plan(1_000, seconds) for seconds in (600, 20, 12, 1)]
    found = [(b.n_proposals, b.n_folds, b.n_steps) for b in budgets]
    assert found[:3] == [(16, 5, 2_000), (8, 5, 2_000), (8, 3, 2_000)]
    assert found[3][:2] == (8, 3) and 100 <= found[3][2] < 2_000


def test_short_time_replaces_folds_by_a_hold_out_for_large_tables_only():
    assert plan(300, 0.5).n_folds == 3
    assert plan(4_999, 0.5).n_folds == 3
    assert plan(5_000, 0.5).n_folds == 1


@pytest.mark.parametrize(("is_batched", "seconds"), [(True, 5.0), (False, 60.0)])
def test_wide_tables_get_less_work(is_batched, seconds):
    def work_of(n_columns, seconds=seconds):
        return work(plan(2_000, seconds, n_columns=n_columns, is_batched=is_batched))

    assert work_of(1) == work_of(400) > work_of(2_000) > work_of(20_000)
    assert work_of(2_000, 10**6) == work_of(1, 10**6)


def test_only_columns_beyond_400_increase_the_cost():
    for cost in (BATCHED_COST, TABLE_COST):
        assert cost.seconds(64, 1) == cost.seconds(64, 400) < cost.seconds(64, 401)
        one_row = cost.seconds(1, 4_000) - cost.step
        assert cost.seconds(64, 4_000) == pytest.approx(cost.step + 64 * one_row)


def test_successive_halving_saves_half_the_cost_of_large_cohorts():
    costs = [cohort_cost(n) for n in range(1, 17)]
    assert costs == sorted(costs)
    assert costs[:3] == [1, 2, 3]  # nothing is dropped from them
    assert costs[7] == 4 and costs[15] == 8


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
    assert IMAGE.batch_size(n_rows) == batch_size
    assert IMAGE.n_steps(n_rows) == n_steps
    budget = image_plan(n_rows, None)
    found = (budget.n_steps, budget.n_folds, budget.n_proposals)
    assert found == (n_steps, n_folds, 8)


def test_images_are_trained_twice_as_long_if_time_suffices():
    usual = IMAGE.n_steps(10_000)
    assert image_plan(10_000, None).n_steps == usual
    in_300, in_400, in_3000 = (image_plan(10_000, t) for t in (300.0, 400.0, 3_000.0))
    assert usual < in_300.n_steps < in_400.n_steps == 2 * usual
    assert in_300.n_proposals == in_400.n_proposals == 4
    assert (in_3000.n_steps, in_3000.n_proposals) == (2 * usual, 8)
    steps = [image_plan(10_000, seconds).n_steps for seconds in (200.0, 100.0, 30.0)]
    assert steps[0] >= usual > steps[1] > steps[2]
    assert image_plan(10_000, 150.0, max_trials=1).n_steps == 2 * usual


def test_time_share_reduces_the_number_of_image_networks():
    steps = 2 * IMAGE.n_steps(10_000)
    for time_share, n_proposals in ((0.0, 4), (1 / 3, 2)):
        budget = image_plan(10_000, 400.0, time_share=time_share)
        assert (budget.n_steps, budget.n_proposals) == (steps, n_proposals)
    in_time = image_plan(10_000, 10_000.0, time_share=1 / 3)
    assert in_time == image_plan(10_000, 10_000.0)
    # For tables, a share only reduces the time.
    assert plan(1_000, 20, time_share=0.5) == plan(1_000, 10)


def test_larger_images_get_less_work():
    sizes = (64, 28 * 28, 128 * 128)
    budgets = [image_plan(10_000, 300.0, n_pixels=n) for n in sizes]
    assert work(budgets[0]) > work(budgets[1]) > work(budgets[2])
    for budget, n_pixels in zip(budgets, sizes, strict=True):
        step = IMAGE_COST.seconds(128, n_pixels, n_pixels)
        fits = seconds_of_cohort(budget, step) <= 300 * 1.001
        assert fits or budget.n_steps == 100


def test_costly_spaces_get_less_work():
    costs = (0.5, 1.0, 4.0)
    budgets = [image_plan(10_000, 300.0, relative_cost=cost) for cost in costs]
    assert work(budgets[0]) > work(budgets[1]) > work(budgets[2])


@pytest.mark.parametrize("is_batched", [True, False])
@pytest.mark.parametrize("max_time", [5, 30, 300])
@pytest.mark.parametrize("n_rows", [100, 1_000, 20_000])
def test_scores_that_take_little_time_change_no_plan(is_batched, max_time, n_rows):
    changes = {"is_batched": is_batched}
    quick = plan(n_rows, max_time, **changes)
    assert quick.scores_rungs
    assert plan(n_rows, max_time, score_seconds=max_time / 1e4, **changes) == quick
    assert plan(n_rows, None, score_seconds=9.0, **changes).scores_rungs


@pytest.mark.parametrize("n_folds", [None, 4])
@pytest.mark.parametrize("max_time", [5, 30, 300])
@pytest.mark.parametrize("score_seconds", [0.5, 2.0, 20.0])
def test_slow_scores_leave_time_for_training(max_time, score_seconds, n_folds):
    options = {"score_seconds": score_seconds, "n_folds": n_folds}
    for make in (plan, image_plan):
        quick, slow = (make(1_000, max_time, **some) for some in ({}, options))
        assert slow.n_folds <= (n_folds or quick.n_folds)
        assert 1 <= slow.n_proposals <= quick.n_proposals
        assert MIN_TIMED_STEPS <= slow.n_steps <= quick.n_steps
        seconds = slow.n_proposals * slow.n_folds * score_seconds
        if slow.scores_rungs:
            assert slow == quick
        elif slow.n_proposals > 1:
            assert seconds <= SCORE_SHARE * max_time


def test_folds_of_the_user_are_all_scored():
    slow = {"score_seconds": 10.0, "n_folds": 7}
    assert plan(1_000, 30, **slow).n_folds == 7
    assert plan(1_000, 30, score_seconds=10.0).n_folds == 1
