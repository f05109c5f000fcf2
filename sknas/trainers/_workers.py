"""Tasks in this process, or in worker processes where that pays."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import joblib
import numpy as np
import torch
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend

from sknas._isolation import one_thread
from sknas._problem import Problem
from sknas.trainers._network import failure_reason
from sknas.trainers._parcel import Parcel, light, sent

# Workers start once, in about 3 s, and in up to 10 s on a busy machine.
WORTH_WORKERS = 8.0  # seconds of work from which they are used
ROOM_FOR_WORKERS = 12.0  # seconds that must be left
TOGETHER = 2  # times that tasks are given to workers side by side
LOST = "its worker process died, twice or more"
LOOK_SECONDS = 0.5  # between two looks whether a parent is alive

_HOME = os.getpid()  # of the process that imported this; a fork has another
_watched: set[int] = set()  # parents of this process that are looked at


def count_workers(n_jobs: int | None) -> int:
    """Workers for a value of `n_jobs`.

    None takes all cores that affinity and cgroup allow, or all workers of the backend
    that the user chose for joblib, and one inside a worker of joblib; a number is read
    as joblib reads it. A child process gets one: it would not end before the workers
    that it starts, and in a fork of a process that has used workers none can be
    started.
    """
    is_child = multiprocessing.parent_process() is not None or os.getpid() != _HOME
    if is_child:
        return 1
    if n_jobs is not None:
        return joblib.effective_n_jobs(n_jobs)
    backend, told = get_active_backend()
    if (backend.nesting_level or 0) > 0:
        return 1
    if _name(backend) != "LokyBackend":  # of the user's choice
        return max(1, joblib.effective_n_jobs(told or -1))
    return joblib.cpu_count()


def count_useful(problem: Problem, n_tasks: int) -> int:
    """Workers that some tasks can keep busy: one process serves a whole GPU."""
    n_workers = len(devices(problem)) if problem.device != "cpu" else problem.n_jobs
    return max(1, min(n_workers, n_tasks))


def devices(problem: Problem) -> list[str]:
    """Where tasks may run: on all GPUs, where none is named."""
    if problem.device == "cuda" and torch.cuda.device_count() > 1:
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [problem.device]


def run_tasks(
    function: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    problem: Problem,
    seconds: float,
) -> Iterator[Any]:
    """Results of ``function(problem, *task)``, in order, as they are ready.

    A task whose worker died is tried again, with those that were under way beside it;
    one that dies again and alone is given up, and the reason takes the place of its
    result.

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
    if count_useful(problem, len(tasks)) == 1 or not is_worth:
        bare = problem.bare()
        return (function(bare, *task) for task in tasks)
    return _in_workers(function, tasks, problem)


def _in_workers(
    function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], problem: Problem
) -> Iterator[Any]:
    backend, _ = get_active_backend()
    if _name(backend) == "ThreadingBackend":  # they have the problem already
        calls = [joblib.delayed(function)(problem.bare(), *task) for task in tasks]
        yield from joblib.Parallel(problem.n_jobs, return_as="generator")(calls)
        return
    parcel = sent(problem, backend)
    places = devices(problem)
    home = os.getpid() if _name(backend) == "LokyBackend" else 0
    calls = [
        (
            function,
            replace(light(problem), device=places[number % len(places)]),
            parcel.key,
            parcel.content,
            parcel.ends,
            time.time() + problem.seconds_left,
            home,
            *task,
        )
        for number, task in enumerate(tasks)
    ]
    if _name(backend) == "RayBackend":
        yield from _on_ray(calls)
    elif _name(backend) == "DaskDistributedBackend":
        yield from _on_dask(calls, backend.client)
    else:
        delayed = [joblib.delayed(_work)(*call) for call in calls]
        n_workers = count_useful(problem, max(len(tasks), 2))
        yield from _insisting(delayed, n_workers, backend.supports_return_generator)


def _on_dask(calls: list[tuple[Any, ...]], client: Any) -> Iterator[Any]:
    """Results of calls as tasks of Dask, which does those of dead workers again.

    joblib would scatter the rows at each rung, and Dask lose them with a worker.
    """
    from distributed import KilledWorker

    answers = [client.submit(_work, *call, pure=False) for call in calls]
    try:
        for answer in answers:
            try:
                result = answer.result()
            except KilledWorker:
                result = LOST
            except Exception as error:
                result = failure_reason(error)
            yield result
    finally:
        client.cancel(answers, force=True)


def _on_ray(calls: list[tuple[Any, ...]]) -> Iterator[Any]:
    """Results of calls as tasks of Ray, which does those of dead workers again.

    Its backend of joblib would start and end its workers at each rung.
    """
    import ray

    remote = ray.remote(_work)
    answers = [remote.remote(*call) for call in calls]
    try:
        for answer in answers:
            try:
                result = ray.get(answer)
            except ray.exceptions.WorkerCrashedError:
                result = LOST
            except ray.exceptions.RayError as error:
                result = failure_reason(error)
            yield result
    finally:
        for answer in answers:
            ray.cancel(answer, force=True)


def _insisting(calls: list[Any], n_workers: int, is_lazy: bool) -> Iterator[Any]:
    """Results of calls, whatever happens to workers."""
    n_done, n_deaths = 0, 0
    while n_done < len(calls):
        is_alone = n_deaths >= TOGETHER
        batch = calls[n_done : n_done + 1] if is_alone else calls[n_done:]
        parallel = joblib.Parallel(
            n_workers, return_as="generator" if is_lazy else "list", batch_size=1
        )
        try:
            for result in parallel(batch):
                n_done += 1
                yield result
        except Exception as error:  # of a worker that died, or could not be told
            n_deaths += 1
            if is_alone:
                n_done += 1
                is_death = isinstance(error, TerminatedWorkerError)
                yield LOST if is_death else failure_reason(error)


def _work(
    function: Callable[..., Any],
    problem: Problem,
    key: str,
    content: np.ndarray,
    ends: tuple[int, ...],
    end: float,
    home: int,
    *task: Any,
) -> Any:
    """A call in a worker, with what was sent before."""
    _end_with(home)
    # Machines agree on the time of day, not on where their clocks begin.
    deadline = None if np.isinf(end) else time.monotonic() + end - time.time()
    heavy = Parcel(key, content, ends).opened()
    with one_thread():
        return function(replace(problem, deadline=deadline, **heavy), *task)


def _end_with(parent: int) -> None:
    """End this process with the one that started it, which may be killed; 0 for none.

    It may have been while this one was starting.
    """
    if not parent or parent in _watched:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    _watched.add(parent)
    threading.Thread(target=watch, daemon=True).start()


def _name(backend: Any) -> str:
    return type(backend).__name__
