"""Tasks in this process, or in worker processes where that pays."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from joblib.parallel import get_active_backend

from sknas._history import OUT_OF_TIME
from sknas._parallel.executors import (
    DASK,
    RAY,
    WORKER_LOST,
    Executor,
    WorkerDiedError,
    find_executor,
)
from sknas._problem import Problem

# Workers start once, in about 3 s, and in up to 10 s on a busy machine.
WORTH_WORKERS = 8.0  # seconds of work from which they are used
ROOM_FOR_WORKERS = 12.0  # seconds that must be left

_HOME = os.getpid()  # of the process that imported this; a fork has another


def count_workers(n_jobs: int | None) -> int:
    """Workers for a value of `n_jobs`.

    None takes what `joblib.parallel_config` says, else all workers of its backend: of
    the usual one, those are the cores that affinity and cgroup allow. A number is read
    as joblib reads it. Whoever is a worker gets one: a child process would not end
    before the workers that it starts, in a fork of a process that has used workers
    none can be started, and a worker of a cluster would wait for itself. Threads get
    one, too: a process trains one network after the other.
    """
    backend, told = get_active_backend()
    if _is_worker() or getattr(backend, "uses_threads", False):
        return 1
    if n_jobs is None:
        n_jobs = told
    if n_jobs is None:
        n_jobs = 1 if (backend.nesting_level or 0) > 0 else -1
    n_workers = max(1, backend.effective_n_jobs(n_jobs))
    # Dask tells of all that it has, whatever it is asked for.
    return min(n_workers, n_jobs) if n_jobs > 0 else n_workers


def _is_worker() -> bool:
    """Whether this is the child of a process, or a worker of a cluster."""
    if multiprocessing.parent_process() is not None or os.getpid() != _HOME:
        return True
    ray, distributed = sys.modules.get("ray"), sys.modules.get("distributed")
    if ray is not None and ray.is_initialized() and _is_ray_worker(ray):
        return True
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


def _is_ray_worker(ray: Any) -> bool:
    mode: int = ray.get_runtime_context().worker.mode
    return mode == ray.WORKER_MODE


def count_useful_workers(problem: Problem, n_tasks: int) -> int:
    """Workers that some tasks can keep busy: one process serves a whole GPU."""
    return max(1, min(_count_places(problem), n_tasks))


def _count_places(problem: Problem) -> int:
    """Processes that may work at a time.

    A worker of a cluster has the GPU that it is shown; here each takes one.
    """
    backend, _ = get_active_backend()
    if problem.device == "cpu" or type(backend).__name__ in (DASK, RAY):
        return problem.n_jobs
    return min(problem.n_jobs, count_gpus(problem.device))


def count_gpus(device: str) -> int:
    """GPUs to spread work over: all that are visible, where none is named."""
    return torch.cuda.device_count() if device == "cuda" else 1


def run_tasks(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    problem: Problem,
    seconds: float,
) -> Iterator[Any]:
    """Results of ``function(problem, *task)``, in order, as they are ready.

    A task that was under way when a worker died is tried again, alone; if its worker
    dies again, the reason, a str, takes the place of the result.

    Parameters
    ----------
    function : callable
        Pure: its result depends on its task alone.
    tasks : sequence of tuple
        Arguments of each call.
    problem : Problem
        Goes to each worker once; says how many may be used, and until when.
    seconds : float
        About how long all tasks take in one process; short work stays in this one.
    """
    is_worth = seconds >= WORTH_WORKERS and problem.seconds_left >= ROOM_FOR_WORKERS
    if count_useful_workers(problem, len(tasks)) == 1 or not is_worth:
        for_worker = problem.for_worker()
        return (function(for_worker, *task) for task in tasks)
    # As many for few tasks, too: the same workers serve all rungs.
    n_gpus = 0 if problem.device == "cpu" else count_gpus(problem.device)
    executor = find_executor(_count_places(problem), n_gpus)
    return _insisting(function, dict(enumerate(tasks)), problem, executor)


def _insisting(
    function: Callable[..., Any],
    left: dict[int, tuple[Any, ...]],
    problem: Problem,
    executor: Executor,
) -> Iterator[Any]:
    """Results in order, whatever happens to workers."""
    n_deaths: Counter[int] = Counter()
    ready: dict[int, Any] = {}
    next_place = 0
    while left:
        # Alone: nothing else dies with what may have killed a worker, and it has all
        # of the memory.
        suspects = [place for place in left if n_deaths[place]]
        chosen = suspects[:1] or list(left)
        tasks = ((place, left[place]) for place in chosen)
        n_open = len(chosen)
        try:
            for place, result in executor.results(function, problem, tasks):
                del left[place]
                ready[place] = result
                n_open -= 1
                # The last is handed out when the crew has ended: joblib kills workers
                # of which something is still asked when nobody listens any more.
                while n_open and next_place in ready:
                    yield ready.pop(next_place)
                    next_place += 1
        except WorkerDiedError:
            under_way = [place for place in chosen if place in left][
                : executor.n_workers
            ]
            n_deaths.update(under_way)
            ready |= _given_up(left, n_deaths, problem)
    while next_place in ready:
        yield ready.pop(next_place)
        next_place += 1


def _given_up(
    left: dict[int, tuple[Any, ...]], n_deaths: Counter[int], problem: Problem
) -> dict[int, str]:
    """The reasons of tasks that are not tried again; they are left no more."""
    is_late = problem.seconds_left < ROOM_FOR_WORKERS  # new workers have to start
    reasons = {place: WORKER_LOST for place in left if n_deaths[place] > 1}
    if is_late:
        reasons = {place: reasons.get(place, OUT_OF_TIME) for place in left}
    for place in reasons:
        del left[place]
    return reasons
