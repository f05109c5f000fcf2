"""Messages to workers: the large data of a problem once, then small tasks.

Only pickles of processes of the same search are loaded here.
"""

from __future__ import annotations

import io
import os
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import cloudpickle
import numpy as np
from torch import Tensor

from sknas._parallel.devices import claim_device
from sknas._parallel.worker import ParentProcess, exit_with_parent
from sknas._problem import Problem, RunContext
from sknas._training.isolation import one_thread

SHARED = ("folds", "scorer", "loss")  # fields of a problem that are sent only once
ALIGNMENT = 64  # bytes to which arrays are aligned, for vector instructions
MAX_UNPACKED = 2  # payloads that a worker keeps unpacked, the latest ones

Spans = tuple[tuple[int, int], ...]
SharedData = dict[str, Any]  # fields of a problem by name


@dataclass(frozen=True, eq=False)
class Payload:
    """The shared data of a problem, pickled once.

    Parameters
    ----------
    key : str
        Unique name, the same in all processes.
    spans : tuple of (int, int)
        Start and stop of the pickle, and then of each of its arrays, in the bytes.
    data : str or object
        The bytes: the path of a file, or an object that a cluster turns into an array.
    """

    key: str
    spans: Spans
    data: Any

    @property
    def exists(self) -> bool:
        """False if its file was removed."""
        return not isinstance(self.data, str) or os.path.exists(self.data)


def pack(problem: Problem, file: BinaryIO) -> Spans:
    """Write the shared data of a problem to a file, and return the spans.

    Arrays are written as they are: a worker that maps the file, or the object store of
    a cluster, needs no copy of its own.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = io.BytesIO()
    shared = {name: getattr(problem, name) for name in SHARED}
    cloudpickle.Pickler(head, 5, buffers.append).dump(shared)
    spans = []
    for part in (head.getbuffer(), *(buffer.raw() for buffer in buffers)):
        start = -(-file.tell() // ALIGNMENT) * ALIGNMENT
        file.seek(start)
        file.write(part)
        spans.append((start, start + part.nbytes))
    return tuple(spans)


def unpack(spans: Spans, data: Any) -> SharedData:
    """Return the data that `pack` wrote; arrays are read-only views of the bytes."""
    view = memoryview(data).toreadonly()  # all tasks share it
    head, *buffers = (view[start:stop] for start, stop in spans)
    return pickle.loads(head, buffers=buffers)


_unpacked: dict[str, SharedData] = {}  # by key, the latest last
_unpacking = threading.Lock()


def _unpack_once(payload: Payload, data: Any) -> SharedData:
    """Unpack a payload once per process."""
    with _unpacking:
        shared = _unpacked.pop(payload.key, None)
        if shared is None:
            if isinstance(data, str):
                data = np.memmap(data, np.uint8, "r")
            shared = unpack(payload.spans, data)
        _unpacked[payload.key] = shared
        for oldest in list(_unpacked)[:-MAX_UNPACKED]:
            del _unpacked[oldest]
        return shared


@dataclass(frozen=True, eq=False)
class Task:
    """A function call for another process.

    Parameters
    ----------
    payload : Payload
        The shared data, without its bytes: each backend sends those in its own way.
    content : bytes
        The pickled function, rest of the problem, context and arguments.
    deadline : float
        Deadline as wall-clock time: monotonic clocks of machines start differently.
    parent : ParentProcess or None
        The process that searches, for workers that are its children.
    """

    payload: Payload
    content: bytes
    deadline: float
    parent: ParentProcess | None


def make_task(
    function: Callable[..., Any],
    problem: Problem,
    context: RunContext,
    arguments: tuple[Any, ...],
    payload: Payload,
    parent: ParentProcess | None = None,
) -> Task:
    """Return the task ``function(problem, context, *arguments)``."""
    light = replace(problem.for_worker(), folds=(), scorer=None, loss=None)
    content = _dump((function, light, context.for_worker(), arguments))
    deadline = time.time() + context.seconds_left
    return Task(replace(payload, data=None), content, deadline, parent)


def execute(task: Task, data: Any) -> bytes:
    """Return the pickled result of a task; this runs in the worker."""
    changes: dict[str, Any] = {}  # to the context
    if task.parent is not None:
        exit_with_parent(task.parent.pid, task.parent.folder)
        if task.parent.n_devices:
            changes["device"] = claim_device(task.parent.folder, task.parent.n_devices)
    if np.isfinite(task.deadline):
        changes["deadline"] = time.monotonic() + task.deadline - time.time()
    with one_thread():
        function, light, context, arguments = pickle.loads(task.content)
        problem = replace(light, **_unpack_once(task.payload, data))
        return _dump(function(problem, replace(context, **changes), *arguments))


class _Pickler(cloudpickle.Pickler):
    """Moves tensors to the CPU: the other process may have another device."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor) and obj.device.type != "cpu":
            return obj.detach().cpu().__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return super().reducer_override(obj)


def _dump(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


def read_result(content: bytes) -> Any:
    """Return the result that a worker sent."""
    return pickle.loads(content)
