"""Executors: processes that joblib starts, a Dask cluster or a Ray cluster."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import uuid
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from itertools import islice
from traceback import clear_frames
from typing import Any

import joblib
import numpy as np
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend

from sknas._history import Cause, Fault
from sknas._parallel.payload import Payload, Task, execute, make_task, pack, read_result
from sknas._parallel.worker import ParentProcess, remove, worker_folder
from sknas._problem import Problem, RunContext

Function = Callable[..., Any]
Tasks = Iterable[tuple[int, tuple[Any, ...]]]  # index and arguments
Results = Iterator[tuple[int, Any]]  # index and result

DASK, RAY = "DaskDistributedBackend", "RayBackend"  # joblib's class names
GRACE_TIME = 5.0  # seconds after the deadline in which a cluster may still answer
WAIT_TIME = 2.0  # the same for workers on this machine, and a call of the scorer
DASK_OPTIONS = {"distributed.admin.large-graph-warning-threshold": "1 TiB"}


class WorkerDiedError(Exception):
    """A worker died, and the tasks under way were lost with it."""


def _timeout(context: RunContext, grace_time: float) -> float | None:
    """Return the seconds in which workers must answer; there may be none."""
    seconds = context.seconds_left
    return max(0.0, seconds) + grace_time if np.isfinite(seconds) else None


def _call_seconds(problem: Problem) -> float:
    return 0.0 if problem.scorer is None else problem.scorer.call_seconds


class Executor(ABC):
    """The workers of one backend.

    Parameters
    ----------
    n_workers : int
        Tasks under way at a time.
    """

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers

    @property
    @abstractmethod
    def key(self) -> str:
        """Equal for executors whose workers can read each other's payloads."""

    @abstractmethod
    def send(self, problem: Problem, context: RunContext) -> Payload:
        """Send the shared data of a problem to all workers."""

    @abstractmethod
    def results(
        self, function: Function, problem: Problem, context: RunContext, tasks: Tasks
    ) -> Results:
        """Yield the index and result of each task as soon as it is ready.

        Tasks start in their order. If a cluster retried a task by itself and gave up,
        the result is a `Fault`, though another task may have killed the workers.

        Raises
        ------
        WorkerDiedError
            If all tasks without a result have to start again.
        """

    def find_payload(self, problem: Problem, context: RunContext) -> Payload:
        """Return the payload of a problem, which is sent once for all tasks."""
        shared = (*problem.folds, problem.scorer, problem.loss)
        key, known, payload = _payloads.get(shared[0], ("", [], None))
        is_other = key != self.key or [ref() for ref in known] != [*shared]
        if payload is None or is_other or not payload.exists:
            payload = self.send(problem, context)
            references = [_reference(part) for part in shared]
            _payloads[shared[0]] = self.key, references, payload
        return payload


# Weakly keyed by the first fold, so that a payload is freed with its problem.
_payloads: weakref.WeakKeyDictionary[Any, tuple[str, list[Any], Payload]] = (
    weakref.WeakKeyDictionary()
)


def _reference(part: Any) -> Callable[[], Any]:
    return (lambda: None) if part is None else weakref.ref(part)


def find_executor(n_workers: int, n_devices: int = 0) -> Executor:
    """Return an executor for joblib's active backend."""
    backend, _ = get_active_backend()
    # By name: the classes can't be imported without their packages.
    name = type(backend).__name__
    if name == DASK:
        return DaskExecutor(n_workers, backend.client)
    if name == RAY:
        return RayExecutor(n_workers, backend.ray_remote_args or {})
    return JoblibExecutor(n_workers, backend, n_devices)


class JoblibExecutor(Executor):
    """Processes on this machine, or the workers of any other backend of joblib."""

    def __init__(self, n_workers: int, backend: Any, n_devices: int = 0) -> None:
        super().__init__(n_workers)
        self.name = type(backend).__name__
        has_generator = getattr(backend, "supports_return_generator", False)
        self.return_as = "generator_unordered" if has_generator else "list"
        # Workers of other backends may not be our child processes (forkserver).
        self.parent = None
        if self.name == "LokyBackend":
            self.parent = ParentProcess(os.getpid(), worker_folder(), n_devices)

    @property
    def key(self) -> str:
        return self.name

    def send(self, problem: Problem, context: RunContext) -> Payload:
        packed = pack(problem)
        if self.name not in ("LokyBackend", "MultiprocessingBackend"):
            return Payload(packed)
        path = os.path.join(worker_folder(), packed.key)
        joblib.dump(packed, path)
        payload = Payload(path)
        weakref.finalize(payload, remove, os.getpid(), path)
        return payload

    def results(
        self, function: Function, problem: Problem, context: RunContext, tasks: Tasks
    ) -> Results:
        payload = self.find_payload(problem, context)
        made = (
            (i, make_task(function, problem, context, arguments, self.parent))
            for i, arguments in tasks
        )
        work = joblib.delayed(_execute_indexed)
        parallel = joblib.Parallel(
            n_jobs=self.n_workers, batch_size=1, return_as=self.return_as
        )
        wait = _call_seconds(problem) + WAIT_TIME
        found: Any = None
        try:
            parallel.timeout = _timeout(context, wait)
            found = parallel(work(index, task, payload.data) for index, task in made)
            for index, content in found:
                yield index, read_result(content)
                # joblib counts the time anew after each result.
                parallel.timeout = _timeout(context, wait)
        except (TerminatedWorkerError, multiprocessing.TimeoutError):
            raise WorkerDiedError from None
        except BaseException as error:
            _close(found, error)
            raise


def _close(found: Any, error: BaseException) -> None:
    """Close a generator of results before its end, without joblib's warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # If Ctrl-C came while joblib dispatched tasks, its frames hold the generator.
        clear_frames(error.__traceback__)
        if isinstance(found, Generator):
            found.close()


def _execute_indexed(index: int, task: Task, data: Any) -> tuple[int, bytes]:
    return index, execute(task, data)


class DaskExecutor(Executor):
    """A Dask cluster, which retries a task as often as it is configured to.

    joblib's own backend would send the data at each rung, and lose it with a worker.
    """

    def __init__(self, n_workers: int, client: Any) -> None:
        super().__init__(n_workers)
        self.client = client
        self.dask: Any = importlib.import_module("dask")
        self.distributed: Any = importlib.import_module("distributed")

    @property
    def key(self) -> str:
        return self.client.id

    def send(self, problem: Problem, context: RunContext) -> Payload:
        options: dict[str, Any] = {"broadcast": True, "hash": False}
        if (seconds := _timeout(context, GRACE_TIME)) is not None:
            options["timeout"] = seconds
        try:
            # To all workers: data on a single one would be lost with it.
            return Payload(self.client.scatter(pack(problem), **options))
        except TimeoutError:  # there is no worker
            raise WorkerDiedError from None

    def results(
        self, function: Function, problem: Problem, context: RunContext, tasks: Tasks
    ) -> Results:
        payload = self.find_payload(problem, context)
        waiting, indices = iter(tasks), {}
        done = self.distributed.as_completed(timeout=_timeout(context, GRACE_TIME))

        def start(n: int) -> None:
            for index, arguments in islice(waiting, n):
                task = make_task(function, problem, context, arguments)
                key = f"sknas-{uuid.uuid4().hex}"
                with self.dask.config.set(DASK_OPTIONS):  # arguments may be large
                    future = self.client.submit(execute, task, payload.data, key=key)
                indices[future] = index
                done.add(future)

        try:
            start(self.n_workers)
            for future in done:
                yield indices.pop(future), self._result(future, problem)
                start(1)
        except TimeoutError:
            raise WorkerDiedError from None
        finally:
            self.client.cancel(list(indices))

    def _result(self, future: Any, problem: Problem) -> Any:
        try:
            return read_result(future.result())
        except self.distributed.KilledWorker:
            _payloads.pop(problem.folds[0], None)  # it may be lost with the workers
            return Fault(Cause.WORKER_LOST)
        except CancelledError:  # the result or its payload was lost with a worker
            _payloads.pop(problem.folds[0], None)  # the next task sends it again
            raise WorkerDiedError from None


class RayExecutor(Executor):
    """A Ray cluster, which retries a task once.

    joblib's own backend would start and end all workers at each rung.
    """

    def __init__(self, n_workers: int, options: dict[str, Any]) -> None:
        super().__init__(n_workers)
        self.ray: Any = importlib.import_module("ray")
        self.execute = self.ray.remote(**{"max_retries": 1, **options})(execute)
        names = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError")
        self.deaths = tuple(getattr(self.ray.exceptions, name) for name in names)

    @property
    def key(self) -> str:
        return self.ray.get_runtime_context().get_worker_id()

    def send(self, problem: Problem, context: RunContext) -> Payload:
        return Payload(self.ray.put(pack(problem)))

    def results(
        self, function: Function, problem: Problem, context: RunContext, tasks: Tasks
    ) -> Results:
        payload = self.find_payload(problem, context)
        waiting, indices = iter(tasks), {}

        def start(n: int) -> None:
            for index, arguments in islice(waiting, n):
                task = make_task(function, problem, context, arguments)
                indices[self.execute.remote(task, payload.data)] = index

        try:
            start(self.n_workers)
            while indices:
                ready, _ = self.ray.wait(
                    list(indices), timeout=_timeout(context, GRACE_TIME)
                )
                if not ready:
                    raise WorkerDiedError
                yield indices.pop(ready[0]), self._result(ready[0])
                start(1)
        finally:
            for reference in indices:
                # An interrupt, not a kill: Ray would end its own processes as well.
                self.ray.cancel(reference)

    def _result(self, reference: Any) -> Any:
        try:
            return read_result(self.ray.get(reference))
        except self.deaths:
            return Fault(Cause.WORKER_LOST)
