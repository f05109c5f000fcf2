"""Tasks in this process, or in worker processes where that pays."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib
from joblib.parallel import get_active_backend

from sknas._problem import Problem

# Workers start once, in about 3 s, and in up to 10 s on a busy machine.
WORTH_WORKERS = 8.0  # seconds of work from which they are used
ROOM_FOR_WORKERS = 12.0  # seconds that must be left

_HOME = os.getpid()  # of the process that imported this; a fork has another


def count_workers(n_jobs: int | None) -> int:
    """Workers for a value of `n_jobs`.

    None takes all cores that affinity and cgroup allow, and one inside a worker of
    joblib; a number is read as joblib reads it. A child process gets one: it would
    not end before the workers that it starts, and in a fork of a process that has
    used workers none can be started.
    """
    is_child = multiprocessing.parent_process() is not None or os.getpid() != _HOME
    if is_child:
        return 1
    if n_jobs is not None:
        return joblib.effective_n_jobs(n_jobs)
    backend, _ = get_active_backend()
    if (backend.nesting_level or 0) > 0:
        return 1
    return joblib.cpu_count()


def count_useful(problem: Problem, n_tasks: int) -> int:
    """Workers that some tasks can keep busy: one process serves a whole GPU."""
    return min(problem.n_jobs, n_tasks) if problem.device == "cpu" else 1


def run_tasks(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    problem: Problem,
    seconds: float,
) -> Iterator[Any]:
    """Results of `function` for each task, in order, as they are ready.

    Parameters
    ----------
    function : callable
        Pure: its result depends on its task alone.
    tasks : sequence of tuple
        Arguments of each call.
    problem : Problem
        Says how many workers may be used, and until when.
    seconds : float
        About how long all tasks take in one process; short work stays in this one.
    """
    is_worth = seconds >= WORTH_WORKERS and problem.seconds_left >= ROOM_FOR_WORKERS
    n_workers = count_useful(problem, len(tasks))
    if n_workers == 1 or not is_worth:
        return (function(*task) for task in tasks)
    parallel = joblib.Parallel(n_jobs=problem.n_jobs, return_as="generator")
    return parallel(joblib.delayed(function)(*task) for task in tasks)
