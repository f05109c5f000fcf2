"""Who works: processes that joblib starts, a Dask cluster or a Ray cluster."""

from __future__ import annotations

import importlib
import io
import os
import tempfile
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

from sknas._parallel.payload import Payload, Task, execute, make_task, pack, read_result
from sknas._parallel.worker import ParentProcess, remove, worker_folder
from sknas._problem import Problem

Function = Callable[..., Any]
Tasks = Iterable[tuple[int, tuple[Any, ...]]]  # with their places
Results = Iterator[tuple[int, Any]]

WORKER_LOST = "its worker process died, twice or more"  # why there is no result
DASK, RAY = "DaskDistributedBackend", "RayBackend"  # as joblib names them
GRACE = 5.0  # seconds after the deadline in which a cluster may answer
LARGE = {"distributed.admin.large-graph-warning-threshold": "1 TiB"}


class WorkerDiedError(Exception):
    """A worker died, and with it all that was under way."""


def _patience(problem: Problem) -> float | None:
    """Seconds in which a cluster must answer, which may have lost all its workers."""
    seconds = problem.seconds_left
    return max(0.0, seconds) + GRACE if np.isfinite(seconds) else None


class Executor(ABC):
    """Workers of one backend.

    Parameters
    ----------
    n_workers : int
        Tasks that are under way at a time.
    """

    def __init__(self, n_workers: int) -> None:
        self.n_workers = n_workers

    @property
    @abstractmethod
    def key(self) -> str:
        """The same for crews that can read what was sent to the other."""

    @abstractmethod
    def send(self, problem: Problem) -> Payload:
        """What is heavy in a problem, on its way to all workers."""

    @abstractmethod
    def results(self, function: Function, problem: Problem, tasks: Tasks) -> Results:
        """Places and results of ``function(problem, *task)``, as they are ready.

        Tasks are begun in their order. Where a cluster has tried one again by itself
        and given it up, the result is `WORKER_LOST`.

        Raises
        ------
        WorkerDiedError
            If all tasks without a result have to be begun again.
        """

    def sent(self, problem: Problem) -> Payload:
        """The parcel of a problem, made once for all its tasks."""
        parts = (*problem.folds, problem.score, problem.loss)
        key, known, payload = _sent.get(parts[0], ("", [], None))
        is_other = key != self.key or [ref() for ref in known] != [*parts]
        if payload is None or is_other or not payload.is_there:
            payload = self.send(problem)
            _sent[parts[0]] = self.key, [_reference(part) for part in parts], payload
        return payload

    def forget(self, problem: Problem) -> None:
        """Send the problem anew when it is needed: what was sent is lost."""
        _sent.pop(problem.folds[0], None)


# By the first fold: a parcel lasts as long as that does.
_sent: weakref.WeakKeyDictionary[Any, tuple[str, list[Any], Payload]] = (
    weakref.WeakKeyDictionary()
)


def _reference(part: Any) -> Callable[[], Any]:
    return (lambda: None) if part is None else weakref.ref(part)


def find_executor(n_workers: int, n_devices: int = 0) -> Executor:
    """The workers of the backend that is active in joblib."""
    backend, _ = get_active_backend()
    # By name: neither class is there where its package is not.
    name = type(backend).__name__
    if name == DASK:
        return DaskExecutor(n_workers, backend.client)
    if name == RAY:
        return RayExecutor(n_workers, backend.ray_remote_args or {})
    return JoblibExecutor(n_workers, backend, n_devices)


class JoblibExecutor(Executor):
    """Processes of this machine, or whatever another backend of joblib starts."""

    def __init__(self, n_workers: int, backend: Any, n_devices: int = 0) -> None:
        super().__init__(n_workers)
        self.name = type(backend).__name__
        has_generator = getattr(backend, "supports_return_generator", False)
        self.return_as = "generator_unordered" if has_generator else "list"
        # Others may be nobody's children, or those of a server that forks.
        self.parent = None
        if self.name == "LokyBackend":
            self.parent = ParentProcess(os.getpid(), worker_folder(), n_devices)

    @property
    def key(self) -> str:
        return self.name

    def send(self, problem: Problem) -> Payload:
        if self.name not in ("LokyBackend", "MultiprocessingBackend"):
            return _in_memory(problem)
        handle, path = tempfile.mkstemp(dir=worker_folder())
        with os.fdopen(handle, "wb") as file:
            spans = pack(problem, file)
        payload = Payload(uuid.uuid4().hex, spans, path)
        weakref.finalize(payload, remove, os.getpid(), path)
        return payload

    def results(self, function: Function, problem: Problem, tasks: Tasks) -> Results:
        payload = self.sent(problem)
        calls = (
            (place, make_task(function, problem, task, payload, self.parent))
            for place, task in tasks
        )
        work = joblib.delayed(_answered)
        parallel = joblib.Parallel(
            n_jobs=self.n_workers, batch_size=1, return_as=self.return_as
        )
        found: Any = None
        try:
            found = parallel(work(place, call, payload.data) for place, call in calls)
            for place, content in found:
                yield place, read_result(content)
        except TerminatedWorkerError:
            raise WorkerDiedError from None
        except BaseException as error:
            _close(found, error)
            raise


def _close(found: Any, error: BaseException) -> None:
    """End what nobody waits for any more, which joblib would warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        # Ctrl-C may have come while joblib handed tasks out: then it has what is found.
        clear_frames(error.__traceback__)
        if isinstance(found, Generator):
            found.close()


def _answered(place: int, call: Task, data: Any) -> tuple[int, bytes]:
    return place, execute(call, data)


class DaskExecutor(Executor):
    """A Dask cluster. It tries a task again by itself, as often as it is told to.

    joblib would send the rows at each rung, and lose them with a worker.
    """

    def __init__(self, n_workers: int, client: Any) -> None:
        super().__init__(n_workers)
        self.client = client
        self.dask: Any = importlib.import_module("dask")
        self.distributed: Any = importlib.import_module("distributed")

    @property
    def key(self) -> str:
        return self.client.id

    def send(self, problem: Problem) -> Payload:
        payload = _in_memory(problem)
        told: dict[str, Any] = {"broadcast": True, "hash": False}
        if (seconds := _patience(problem)) is not None:
            told["timeout"] = seconds
        try:
            # To all workers: what one alone had would be lost with it.
            data = self.client.scatter(payload.data, **told)
        except TimeoutError:  # there is none
            raise WorkerDiedError from None
        return Payload(payload.key, payload.spans, data)

    def results(self, function: Function, problem: Problem, tasks: Tasks) -> Results:
        payload = self.sent(problem)
        waiting, places = iter(tasks), {}
        done = self.distributed.as_completed(timeout=_patience(problem))

        def start(n: int) -> None:
            for place, task in islice(waiting, n):
                call = make_task(function, problem, task, payload)
                key = f"sknas-{uuid.uuid4().hex}"
                with self.dask.config.set(LARGE):  # a call has the networks of a unit
                    future = self.client.submit(execute, call, payload.data, key=key)
                places[future] = place
                done.add(future)

        try:
            start(self.n_workers)
            for future in done:
                yield places.pop(future), self._result(future, problem)
                start(1)
        except TimeoutError:
            raise WorkerDiedError from None
        finally:
            self.client.cancel(list(places))

    def _result(self, future: Any, problem: Problem) -> Any:
        try:
            return read_result(future.result())
        except self.distributed.KilledWorker:
            return WORKER_LOST
        except CancelledError:  # the result was lost with a worker, or what it reads
            self.forget(problem)
            raise WorkerDiedError from None


class RayExecutor(Executor):
    """A Ray cluster. It tries a task once more by itself.

    Its backend of joblib would start and end all workers at each rung.
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

    def send(self, problem: Problem) -> Payload:
        payload = _in_memory(problem)
        return Payload(payload.key, payload.spans, self.ray.put(payload.data))

    def results(self, function: Function, problem: Problem, tasks: Tasks) -> Results:
        payload = self.sent(problem)
        waiting, places = iter(tasks), {}

        def start(n: int) -> None:
            for place, task in islice(waiting, n):
                call = make_task(function, problem, task, payload)
                places[self.execute.remote(call, payload.data)] = place

        try:
            start(self.n_workers)
            while places:
                ready, _ = self.ray.wait(list(places), timeout=_patience(problem))
                if not ready:
                    raise WorkerDiedError
                yield places.pop(ready[0]), self._result(ready[0])
                start(1)
        finally:
            for reference in places:
                self.ray.cancel(reference)  # as Ctrl-C; by force Ray ends itself, too

    def _result(self, reference: Any) -> Any:
        try:
            return read_result(self.ray.get(reference))
        except self.deaths:
            return WORKER_LOST


def _in_memory(problem: Problem) -> Payload:
    """What is heavy in a problem, as an array."""
    file = io.BytesIO()
    spans = pack(problem, file)
    return Payload(uuid.uuid4().hex, spans, np.frombuffer(file.getbuffer(), np.uint8))
