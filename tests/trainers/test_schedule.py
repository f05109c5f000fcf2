"""How long a unit is trained, and where it is looked at."""

from dataclasses import replace

import numpy as np
import pytest
from cohorts import make_problem

from sknas._budget import default_batch_size, default_steps, training_length
from sknas._training.schedules import coslog, distinct_cycle_ends, n_cycles
from sknas.trainers._schedule import Schedule

SIZES = [10, 100, 256, 257, 900, 1_500, 3_000]


def problem_of(n, n_steps=None, **changes):
    n_steps = default_steps(n) if n_steps is None else n_steps
    return make_problem(n=n, n_folds=2, n_steps=n_steps, cardinalities=(), **changes)


def plan_of(problem, batch_size=None):
    size = default_batch_size(problem.task.n_rows) if batch_size is None else batch_size
    return Schedule.of({"batch_size": size}, problem)


@pytest.mark.parametrize("n", SIZES)
def test_rungs_are_where_all_learning_rates_are_zero(n):
    schedule = plan_of(problem_of(n))
    assert schedule.rungs == tuple(
        distinct_cycle_ends(schedule.n_steps, schedule.cycles)
    )
    assert schedule.rungs[-1] == schedule.n_steps == default_steps(n)
    for step in schedule.rungs[:-1]:
        assert coslog(step / schedule.n_steps, schedule.cycles) < 0.02
    assert set(schedule.rungs) <= set(schedule.snapshots)
    late = [
        step / schedule.n_steps
        for step in schedule.snapshots
        if step not in schedule.rungs
    ]
    assert late == pytest.approx([0.85, 0.93], abs=1 / schedule.n_steps)
    assert list(schedule.snapshots) == sorted(set(schedule.snapshots))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("max_epochs", [None, 30])
def test_rungs_are_the_same_shares_for_all_batch_sizes(n, max_epochs):
    problem = problem_of(n, max_epochs=max_epochs)
    schedules = [plan_of(problem, size) for size in (16, 32, 64, 128, 256, 512)]
    cycles = {schedule.cycles for schedule in schedules}
    assert len(cycles) == 1
    usual = np.array(plan_of(problem).rungs) / plan_of(problem).n_steps
    for schedule in schedules:
        if schedule.n_steps >= 30:
            shares = np.array(schedule.rungs) / schedule.n_steps
            np.testing.assert_allclose(shares, usual, atol=1 / schedule.n_steps + 0.03)


@pytest.mark.parametrize("batch_size", [16, 64, 128, 256])
@pytest.mark.parametrize("n", SIZES)
def test_a_refit_has_the_same_schedule(n, batch_size):
    """A share of the schedule is the same point in the folds and on all rows."""
    problem = problem_of(n)
    schedule = plan_of(problem, batch_size)
    length = training_length(n, n, problem.n_steps, batch_size, None)
    assert n_cycles(length.planned) == schedule.cycles
    assert length.n_steps == schedule.n_steps


def test_smaller_batches_take_more_steps():
    problem = problem_of(900)
    schedules = [plan_of(problem, size) for size in (32, 64, 128)]
    assert schedules[1].n_steps == 900
    assert [p.n_steps for p in schedules] == [
        round(900 * 2**0.5),
        900,
        round(900 / 2**0.5),
    ]
    assert [p.n_batches for p in schedules] == [15, 8, 4]
    assert [p.n_parts for p in schedules] == [15, 8, 4]


@pytest.mark.parametrize("max_epochs", [1, 2, 7])
def test_epochs_are_bounded(max_epochs):
    schedule = plan_of(problem_of(900, max_epochs=max_epochs))
    assert schedule.n_steps == 8 * max_epochs
    assert schedule.rungs[-1] == schedule.n_steps
    assert all(
        0 < step <= schedule.n_steps for step in (*schedule.rungs, *schedule.snapshots)
    )


def test_one_step_is_a_plan():
    schedule = plan_of(problem_of(100, n_steps=1))
    assert (schedule.n_steps, schedule.rungs, schedule.snapshots) == (1, (1,), (1,))


def test_a_weight_is_a_repetition():
    """Rows that stand for many are dealt into batches like the rows themselves."""
    weight = np.full(300, 4.0)
    schedule = plan_of(problem_of(300, 100, weight=weight), 64)
    # 150 rows of weight 4 train: 600 draws in 10 batches, with most rows in several.
    assert schedule.n_batches == 10
    assert 1 < schedule.n_parts < 10
    heavy = plan_of(problem_of(300, 100, weight=weight * 1e4), 64)
    assert 1 <= heavy.n_parts <= schedule.n_parts


def test_folds_of_different_sizes_have_one_plan():
    problem = problem_of(900)
    small = replace(problem.folds[0].train, x=problem.folds[0].train.x[:100])
    small = replace(small, y=small.y[:100], weight=small.weight[:100])
    uneven = (replace(problem.folds[0], train=small), problem.folds[1])
    schedule = plan_of(replace(problem, folds=uneven))
    assert schedule.n_batches == -(-275 // 64)  # of 100 and 450 rows
    assert hash(schedule) == hash(plan_of(replace(problem, folds=uneven)))


def test_architectures_without_a_batch_size_take_the_usual_one():
    problem = problem_of(100)
    assert Schedule.of({}, problem) == plan_of(problem, 256)
