"""Messages to workers: the large data of a problem once, then small tasks.

Only pickles of processes of the same search are loaded here.
"""

from __future__ import annotations

import io
import os
import pickle
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import cloudpickle
import joblib
import numpy as np
from torch import Tensor

from sknas._parallel.devices import claim_device
from sknas._parallel.worker import ParentProcess, exit_with_parent
from sknas._problem import Problem, RunContext
from sknas._training.isolation import one_thread
from sknas._training.settings import DefaultSettings

SHARED = ("folds", "scorer", "loss")  # fields of a problem that are sent only once
MAX_UNPACKED = 2  # payloads that a worker keeps unpacked, the latest ones

SharedData = dict[str, Any]  # fields of a problem by name


@dataclass(frozen=True)
class Packed:
    """The shared data of a problem, pickled apart from their arrays.

    Whatever stores arrays as they are, such as joblib's files and the object stores of
    clusters, thereby lets all workers of a machine read the same copy.

    Parameters
    ----------
    key : str
        Unique name, the same in all processes.
    content : bytes
        The pickle.
    arrays : list of ndarray
        The bytes of its arrays, read-only since all tasks share them.
    """

    key: str
    content: bytes = field(compare=False)
    arrays: list[np.ndarray] = field(compare=False)


@dataclass(frozen=True, eq=False)
class Payload:
    """The packed data of a problem, sent once.

    Parameters
    ----------
    data : str or object
        The path of a file, or an object that a cluster turns into the packed data.
    """

    data: Any

    @property
    def exists(self) -> bool:
        """False if its file was removed."""
        return not isinstance(self.data, str) or os.path.exists(self.data)


def pack(problem: Problem) -> Packed:
    """Pickle the shared data of a problem without a copy of their arrays."""
    shared = {name: getattr(problem, name) for name in SHARED}
    buffers: list[pickle.PickleBuffer] = []
    # Not by joblib, which can't pickle functions of a script.
    content = cloudpickle.dumps(shared, 5, buffers.append)
    arrays = [np.asarray(buffer.raw().toreadonly()) for buffer in buffers]
    return Packed(uuid.uuid4().hex, content, arrays)


@lru_cache(MAX_UNPACKED)
def unpack(data: str | Packed) -> SharedData:
    """Return what `pack` packed; the arrays of a file are mapped, not read."""
    packed = joblib.load(data, mmap_mode="r") if isinstance(data, str) else data
    return pickle.loads(packed.content, buffers=packed.arrays)


_unpacking = threading.Lock()  # threads of a worker share one unpacked payload


@dataclass(frozen=True, eq=False)
class Task:
    """A function call for another process.

    Parameters
    ----------
    content : bytes
        The pickled function, rest of the problem, context and arguments.
    deadline : float
        Deadline as wall-clock time: monotonic clocks of machines start differently.
    parent : ParentProcess or None
        The process that searches, for workers that are its children.
    """

    content: bytes
    deadline: float
    parent: ParentProcess | None


def make_task(
    function: Callable[..., Any],
    problem: Problem,
    context: RunContext,
    arguments: tuple[Any, ...],
    parent: ParentProcess | None = None,
) -> Task:
    """Return the task ``function(problem, context, *arguments)``."""
    light = replace(problem.for_worker(), folds=(), scorer=None, loss=None)
    content = _dump((function, light, context.for_worker(), arguments))
    deadline = time.time() + context.seconds_left
    return Task(content, deadline, parent)


def execute(task: Task, data: str | Packed) -> bytes:
    """Return the pickled result of a task; this runs in the worker."""
    changes: dict[str, Any] = {}  # to the context
    if task.parent is not None:
        exit_with_parent(task.parent.pid, task.parent.folder)
        if task.parent.n_devices:
            changes["device"] = claim_device(task.parent.folder, task.parent.n_devices)
    if np.isfinite(task.deadline):
        changes["deadline"] = time.monotonic() + task.deadline - time.time()
    with DefaultSettings(), one_thread():
        function, light, context, arguments = pickle.loads(task.content)
        with _unpacking:
            problem = replace(light, **unpack(data))
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
