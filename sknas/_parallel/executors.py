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

from sknas._parallel.payload import Call, Parcel, answer, make_call, pack, read_answer
from sknas._parallel.worker import Home, home_folder, remove
from sknas._problem import Problem

Function = Callable[..., Any]
Tasks = Iterable[tuple[int, tuple[Any, ...]]]  # with their places
Results = Iterator[tuple[int, Any]]

LOST = "its worker process died, twice or more"  # why there is no result
DASK, RAY = "DaskDistributedBackend", "RayBackend"  # as joblib names them
GRACE = 5.0  # seconds after the deadline in which a cluster may answer
LARGE = {"distributed.admin.large-graph-warning-threshold": "1 TiB"}


class WorkerDiedError(Exception):
    """A worker died, and with it all that was under way."""


def _patience(problem: Problem) -> float | None:
    """Seconds in which a cluster must answer, which may have lost all its workers."""
    seconds = problem.seconds_left
    return max(0.0, seconds) + GRACE if np.isfinite(seconds) else None


class Crew(ABC):
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
    def send(self, problem: Problem) -> Parcel:
        """What is heavy in a problem, on its way to all workers."""

    @abstractmethod
    def results(self, function: Function, problem: Problem, tasks: Tasks) -> Results:
        """Places and results of ``function(problem, *task)``, as they are ready.

        Tasks are begun in their order. Where a cluster has tried one again by itself
        and given it up, the result is `LOST`.

        Raises
        ------
        WorkerDiedError
            If all tasks without a result have to be begun again.
        """

    def sent(self, problem: Problem) -> Parcel:
        """The parcel of a problem, made once for all its tasks."""
        parts = (*problem.folds, problem.score, problem.loss)
        key, known, parcel = _sent.get(parts[0], ("", [], None))
        is_other = key != self.key or [ref() for ref in known] != [*parts]
        if parcel is None or is_other or not parcel.is_there:
            parcel = self.send(problem)
            _sent[parts[0]] = self.key, [_reference(part) for part in parts], parcel
        return parcel

    def forget(self, problem: Problem) -> None:
        """Send the problem anew when it is needed: what was sent is lost."""
        _sent.pop(problem.folds[0], None)


# By the first fold: a parcel lasts as long as that does.
_sent: weakref.WeakKeyDictionary[Any, tuple[str, list[Any], Parcel]] = (
    weakref.WeakKeyDictionary()
)


def _reference(part: Any) -> Callable[[], Any]:
    return (lambda: None) if part is None else weakref.ref(part)


def find_crew(n_workers: int, n_devices: int = 0) -> Crew:
    """The workers of the backend that is active in joblib."""
    backend, _ = get_active_backend()
    # By name: neither class is there where its package is not.
    name = type(backend).__name__
    if name == DASK:
        return DaskCrew(n_workers, backend.client)
    if name == RAY:
        return RayCrew(n_workers, backend.ray_remote_args or {})
    return JoblibCrew(n_workers, backend, n_devices)


class JoblibCrew(Crew):
    """Processes of this machine, or whatever another backend of joblib starts."""

    def __init__(self, n_workers: int, backend: Any, n_devices: int = 0) -> None:
        super().__init__(n_workers)
        self.name = type(backend).__name__
        has_generator = getattr(backend, "supports_return_generator", False)
        self.return_as = "generator_unordered" if has_generator else "list"
        # Others may be nobody's children, or those of a server that forks.
        self.home = None
        if self.name == "LokyBackend":
            self.home = Home(os.getpid(), home_folder(), n_devices)

    @property
    def key(self) -> str:
        return self.name

    def send(self, problem: Problem) -> Parcel:
        if self.name not in ("LokyBackend", "MultiprocessingBackend"):
            return _in_memory(problem)
        handle, path = tempfile.mkstemp(dir=home_folder())
        with os.fdopen(handle, "wb") as file:
            spans = pack(problem, file)
        parcel = Parcel(uuid.uuid4().hex, spans, path)
        weakref.finalize(parcel, remove, os.getpid(), path)
        return parcel

    def results(self, function: Function, problem: Problem, tasks: Tasks) -> Results:
        parcel = self.sent(problem)
        calls = (
            (place, make_call(function, problem, task, parcel, self.home))
            for place, task in tasks
        )
        work = joblib.delayed(_answered)
        parallel = joblib.Parallel(
            n_jobs=self.n_workers, batch_size=1, return_as=self.return_as
        )
        found: Any = None
        try:
            found = parallel(work(place, call, parcel.data) for place, call in calls)
            for place, content in found:
                yield place, read_answer(content)
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


def _answered(place: int, call: Call, data: Any) -> tuple[int, bytes]:
    return place, answer(call, data)


class DaskCrew(Crew):
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

    def send(self, problem: Problem) -> Parcel:
        parcel = _in_memory(problem)
        told: dict[str, Any] = {"broadcast": True, "hash": False}
        if (seconds := _patience(problem)) is not None:
            told["timeout"] = seconds
        try:
            # To all workers: what one alone had would be lost with it.
            data = self.client.scatter(parcel.data, **told)
        except TimeoutError:  # there is none
            raise WorkerDiedError from None
        return Parcel(parcel.key, parcel.spans, data)

    def results(self, function: Function, problem: Problem, tasks: Tasks) -> Results:
        parcel = self.sent(problem)
        waiting, places = iter(tasks), {}
        done = self.distributed.as_completed(timeout=_patience(problem))

        def start(n: int) -> None:
            for place, task in islice(waiting, n):
                call = make_call(function, problem, task, parcel)
                key = f"sknas-{uuid.uuid4().hex}"
                with self.dask.config.set(LARGE):  # a call has the networks of a unit
                    future = self.client.submit(answer, call, parcel.data, key=key)
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
            return read_answer(future.result())
        except self.distributed.KilledWorker:
            return LOST
        except CancelledError:  # the result was lost with a worker, or what it reads
            self.forget(problem)
            raise WorkerDiedError from None


class RayCrew(Crew):
    """A Ray cluster. It tries a task once more by itself.

    Its backend of joblib would start and end all workers at each rung.
    """

    def __init__(self, n_workers: int, options: dict[str, Any]) -> None:
        super().__init__(n_workers)
        self.ray: Any = importlib.import_module("ray")
        self.answer = self.ray.remote(**{"max_retries": 1, **options})(answer)
        names = ("WorkerCrashedError", "NodeDiedError", "OutOfMemoryError")
        self.deaths = tuple(getattr(self.ray.exceptions, name) for name in names)

    @property
    def key(self) -> str:
        return self.ray.get_runtime_context().get_worker_id()

    def send(self, problem: Problem) -> Parcel:
        parcel = _in_memory(problem)
        return Parcel(parcel.key, parcel.spans, self.ray.put(parcel.data))

    def results(self, function: Function, problem: Problem, tasks: Tasks) -> Results:
        parcel = self.sent(problem)
        waiting, places = iter(tasks), {}

        def start(n: int) -> None:
            for place, task in islice(waiting, n):
                call = make_call(function, problem, task, parcel)
                places[self.answer.remote(call, parcel.data)] = place

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
            return read_answer(self.ray.get(reference))
        except self.deaths:
            return LOST


def _in_memory(problem: Problem) -> Parcel:
    """What is heavy in a problem, as an array."""
    file = io.BytesIO()
    spans = pack(problem, file)
    return Parcel(uuid.uuid4().hex, spans, np.frombuffer(file.getbuffer(), np.uint8))
