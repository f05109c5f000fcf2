"""Run tasks in this process, or in worker processes if that is faster."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from joblib.parallel import get_active_backend

from sknas._history import Cause, Fault
from sknas._parallel.devices import count_gpus
from sknas._parallel.executors import (
    DASK,
    RAY,
    Executor,
    WorkerDiedError,
    find_executor,
)
from sknas._problem import Problem, RunContext

# Starting workers takes about 3 s, and up to 10 s on a busy machine.
WORTH_WORKERS = 8.0  # seconds of work from which starting workers pays off
ROOM_FOR_WORKERS = 12.0  # seconds until the deadline that starting workers needs
MIN_PACE = 0.2  # share of a core below which a machine is not taken to be busier
PACE_SECONDS = 0.02  # CPU time to measure the pace

_IMPORTING_PID = os.getpid()  # a fork has another process id


def count_workers(n_jobs: int | None) -> int:
    """Return the number of workers for a value of `n_jobs`.

    None is the number in `joblib.parallel_config`, else all workers of the backend: for
    the default one, the cores that affinity and cgroup allow. A number is read as
    joblib reads it. Inside a worker, `n_jobs` is 1: a child process would not end
    before its own workers, a fork of a process with workers can't start any, and a
    worker of a cluster would wait for itself. In threads it is 1, too: networks of
    different threads are trained one after another.
    """
    backend, configured = get_active_backend()
    if _is_worker() or getattr(backend, "uses_threads", False):
        return 1
    if n_jobs is None:
        n_jobs = configured
    if n_jobs is None:
        n_jobs = 1 if (backend.nesting_level or 0) > 0 else -1
    n_workers = max(1, backend.effective_n_jobs(n_jobs))
    # Dask returns all of its workers, whatever `n_jobs` is.
    return min(n_workers, n_jobs) if n_jobs > 0 else n_workers


def _is_worker() -> bool:
    """Return True in a child process, and in a worker of a cluster."""
    if multiprocessing.parent_process() is not None or os.getpid() != _IMPORTING_PID:
        return True
    ray, distributed = sys.modules.get("ray"), sys.modules.get("distributed")
    if ray is not None and ray.is_initialized():
        mode = ray.get_runtime_context().worker.mode
        if mode == ray.WORKER_MODE:
            return True
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


def count_useful_workers(context: RunContext, n_tasks: int) -> int:
    """Return how many workers can be busy with `n_tasks`: at most one for each GPU."""
    return max(1, min(_count_processes(context), n_tasks))


def _count_processes(context: RunContext) -> int:
    """Return how many processes may work at a time.

    Workers on this machine claim one GPU each; those of a cluster are assigned theirs.
    """
    if context.device == "cpu" or _is_cluster():
        return context.n_jobs
    return min(context.n_jobs, count_gpus(context.device))


def _has_room(context: RunContext) -> bool:
    """Return True if workers can start, and finish some work, before the deadline.

    On a machine that is busy otherwise this takes longer, as measured by the pace of
    this process.
    """
    seconds_left, room = context.seconds_left, ROOM_FOR_WORKERS
    if room <= seconds_left < room / MIN_PACE and not _is_cluster():
        seconds_left *= _pace()
    return seconds_left >= room


def _is_cluster() -> bool:
    """Return True if workers are those of a cluster, not of this machine."""
    backend, _ = get_active_backend()
    return type(backend).__name__ in (DASK, RAY)


def count_workers_in_time(context: RunContext, n_tasks: int) -> int:
    """Return how many workers can be busy; 1 if they can't start in time."""
    n_workers = count_useful_workers(context, n_tasks)
    return n_workers if n_workers > 1 and _has_room(context) else 1


def _pace() -> float:
    """Return the share of a core that this process gets, measured for a moment."""
    started, cpu_started = time.monotonic(), time.thread_time()
    while (used := time.thread_time() - cpu_started) < PACE_SECONDS:
        pass
    # Clocks are coarse: nearly all of a core is all of it.
    return min(1.0, used / (time.monotonic() - started) / 0.9)


def run_tasks(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    problem: Problem,
    context: RunContext,
    seconds: float,
) -> Iterator[Any]:
    """Return results of ``function(problem, context, *task)``, in order, when ready.

    Tasks that were under way when a worker died are retried one at a time. A task whose
    worker dies again has a `Fault` as its result.

    Parameters
    ----------
    function : callable
        Its result depends on its arguments alone.
    tasks : sequence of tuple
        The other arguments of each task.
    problem : Problem
        The data, sent to each worker once.
    context : RunContext
        The number of workers, and the deadline.
    seconds : float
        Estimated seconds of all tasks in one process; little work stays in this one.
    """
    if seconds < WORTH_WORKERS or count_workers_in_time(context, len(tasks)) == 1:
        problem, context = problem.for_worker(), context.for_worker()
        return (function(problem, context, *task) for task in tasks)
    # The same number for few tasks, too: all rungs use the same workers.
    executor = find_executor(_count_processes(context), count_gpus(context.device))
    left = dict(enumerate(tasks))
    return _run_with_retries(function, left, problem, context, executor)


def _run_with_retries(
    function: Callable[..., Any],
    left: dict[int, tuple[Any, ...]],
    problem: Problem,
    context: RunContext,
    executor: Executor,
) -> Iterator[Any]:
    """Yield results in order, and retry tasks whose workers died.

    `left` holds the arguments of the tasks without a result, by index.
    """
    n_deaths: Counter[int] = Counter()
    ready: dict[int, Any] = {}
    next_index = 0
    while left:
        # A task that may have killed a worker runs alone: it takes no others with it,
        # and has all of the memory.
        suspects = [index for index in left if n_deaths[index]]
        chosen = suspects[:1] or list(left)
        tasks = ((index, left[index]) for index in chosen)
        lost: list[int] = []
        n_open = len(chosen)
        try:
            for index, result in executor.results(function, problem, context, tasks):
                n_open -= 1
                if _is_lost(result):
                    lost.append(index)
                    continue
                del left[index]
                ready[index] = result
                # Yield the last result only after the executor has ended: joblib kills
                # its workers if its generator is closed before its end.
                while n_open and next_index in ready:
                    yield ready.pop(next_index)
                    next_index += 1
        except WorkerDiedError:
            unfinished = [i for i in chosen if i in left and i not in lost]
            lost += unfinished[: executor.n_workers]  # they were under way
        n_deaths.update(lost)
        if lost:
            ready |= _give_up(left, n_deaths, context)
    while next_index in ready:
        yield ready.pop(next_index)
        next_index += 1


def _is_lost(result: Any) -> bool:
    return isinstance(result, Fault) and result.cause is Cause.WORKER_LOST


def _give_up(
    left: dict[int, tuple[Any, ...]], n_deaths: Counter[int], context: RunContext
) -> dict[int, Fault]:
    """Remove the tasks that are not retried from `left`, and return their faults."""
    is_late = context.seconds_left < ROOM_FOR_WORKERS  # new workers have to start
    faults = {index: Fault(Cause.OUT_OF_TIME) for index in left if is_late}
    faults |= {index: Fault(Cause.WORKER_LOST) for index in left if n_deaths[index] > 1}
    for index in faults:
        del left[index]
    return faults
