"""Schedules: number of steps, rungs and snapshots."""

from dataclasses import replace

import numpy as np
import pytest
from cohorts import make_problem

from sknas._budget import TABLE
from sknas._training.schedules import coslog, n_cycles, training_length
from sknas.trainers._schedule import Schedule

SIZES = [10, 100, 256, 257, 900, 1_500, 3_000]


def problem_of(n, n_steps=None, **changes):
    n_steps = TABLE.n_steps(n) if n_steps is None else n_steps
    return make_problem(n=n, n_folds=2, n_steps=n_steps, cardinalities=(), **changes)


def schedule_of(problem, batch_size=None):
    size = TABLE.batch_size(problem.task.n_rows) if batch_size is None else batch_size
    return Schedule.of({"batch_size": size}, problem)


@pytest.mark.parametrize("n", SIZES)
def test_learning_rate_is_zero_at_rungs(n):
    schedule = schedule_of(problem_of(n))
    assert list(schedule.rungs) == sorted(set(schedule.rungs))
    assert schedule.rungs[-1] == schedule.n_steps == TABLE.n_steps(n)
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
def test_rungs_have_the_same_shares_for_all_batch_sizes(n, max_epochs):
    problem = problem_of(n, max_epochs=max_epochs)
    schedules = [schedule_of(problem, size) for size in (16, 32, 64, 128, 256, 512)]
    cycles = {schedule.cycles for schedule in schedules}
    assert len(cycles) == 1
    expected = np.array(schedule_of(problem).rungs) / schedule_of(problem).n_steps
    for schedule in schedules:
        if schedule.n_steps >= 30:
            shares = np.array(schedule.rungs) / schedule.n_steps
            np.testing.assert_allclose(
                shares, expected, atol=1 / schedule.n_steps + 0.03
            )


@pytest.mark.parametrize("batch_size", [16, 64, 128, 256])
@pytest.mark.parametrize("n", SIZES)
def test_a_refit_has_the_same_schedule(n, batch_size):
    """A share of the schedule means the same in cross-validation and in the refit."""
    problem = problem_of(n)
    schedule = schedule_of(problem, batch_size)
    length = training_length(n, n, problem.n_steps, batch_size, None)
    assert n_cycles(length.planned) == schedule.cycles
    assert length.n_steps == schedule.n_steps


def test_smaller_batches_take_more_steps():
    problem = problem_of(900)
    schedules = [schedule_of(problem, size) for size in (32, 64, 128)]
    assert schedules[1].n_steps == 900
    assert [s.n_steps for s in schedules] == [
        round(900 * 2**0.5),
        900,
        round(900 / 2**0.5),
    ]
    assert [s.n_batches for s in schedules] == [15, 8, 4]
    assert [s.n_distinct_batches for s in schedules] == [15, 8, 4]


@pytest.mark.parametrize("max_epochs", [1, 2, 7])
def test_max_epochs_bounds_the_number_of_steps(max_epochs):
    schedule = schedule_of(problem_of(900, max_epochs=max_epochs))
    assert schedule.n_steps == 8 * max_epochs
    assert schedule.rungs[-1] == schedule.n_steps
    assert all(
        0 < step <= schedule.n_steps for step in (*schedule.rungs, *schedule.snapshots)
    )


def test_a_schedule_may_have_one_step():
    schedule = schedule_of(problem_of(100, n_steps=1))
    assert (schedule.n_steps, schedule.rungs, schedule.snapshots) == (1, (1,), (1,))


def test_integer_weights_equal_repeated_rows():
    """Weighted rows are split into batches like repeated ones."""
    weight = np.full(300, 4.0)
    schedule = schedule_of(problem_of(300, 100, weight=weight), 64)
    # 150 rows of weight 4 train: 600 draws in 10 batches, with most rows in several.
    assert schedule.n_batches == 10
    assert 1 < schedule.n_distinct_batches < 10
    heavy = schedule_of(problem_of(300, 100, weight=weight * 1e4), 64)
    assert 1 <= heavy.n_distinct_batches <= schedule.n_distinct_batches


def test_folds_of_different_sizes_share_one_schedule():
    problem = problem_of(900)
    small = replace(problem.folds[0].train, x=problem.folds[0].train.x[:100])
    small = replace(small, y=small.y[:100], weight=small.weight[:100])
    uneven = (replace(problem.folds[0], train=small), problem.folds[1])
    schedule = schedule_of(replace(problem, folds=uneven))
    assert schedule.n_batches == -(-275 // 64)  # mean of 100 and 450 rows
    assert hash(schedule) == hash(schedule_of(replace(problem, folds=uneven)))


def test_default_batch_size_is_that_of_small_tables():
    problem = problem_of(100)
    assert Schedule.of({}, problem) == schedule_of(problem, 256)
