"""What goes to workers: the rows of a problem once, and then light calls.

Nothing is unpickled here but what a process of the same search has pickled.
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

from sknas._parallel.worker import ParentProcess, claim_device, end_with
from sknas._problem import Problem
from sknas._training.isolation import one_thread

HEAVY = ("folds", "score", "loss")  # of a problem; the rest goes with each call
ALIGNED = 64  # bytes: where arrays begin, for the vector units of a core
N_OPENED = 2  # parcels that a worker keeps, the latest ones

Spans = tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Payload:
    """What is heavy in a problem, pickled once.

    Parameters
    ----------
    key : str
        Names it in all processes.
    spans : tuple of (int, int)
        Where in the bytes the pickle stands, and then each of its arrays.
    data : str or object
        The bytes: the path of a file, or what a cluster makes an array of.
    """

    key: str
    spans: Spans
    data: Any

    @property
    def is_there(self) -> bool:
        """Whether its file, if it has one, was not removed."""
        return not isinstance(self.data, str) or os.path.exists(self.data)


def pack(problem: Problem, file: BinaryIO) -> Spans:
    """Write what is heavy into a file; where the pickle and each of its arrays stand.

    Arrays stand there as they are: a worker that maps the file, or the store of a
    cluster, has no copy of its own.
    """
    buffers: list[pickle.PickleBuffer] = []
    head = io.BytesIO()
    heavy = {name: getattr(problem, name) for name in HEAVY}
    cloudpickle.Pickler(head, 5, buffers.append).dump(heavy)
    spans = []
    for part in (head.getbuffer(), *(buffer.raw() for buffer in buffers)):
        start = -(-file.tell() // ALIGNED) * ALIGNED
        file.seek(start)
        file.write(part)
        spans.append((start, start + part.nbytes))
    return tuple(spans)


def unpack(spans: Spans, data: Any) -> dict[str, Any]:
    """What was packed; its arrays are views into the bytes."""
    view = memoryview(data).toreadonly()  # all calls read the same
    head, *buffers = (view[start:stop] for start, stop in spans)
    return pickle.loads(head, buffers=buffers)


_opened: dict[str, dict[str, Any]] = {}  # by key, the latest last
_opening = threading.Lock()


def _open(payload: Payload, data: Any) -> dict[str, Any]:
    """What is in a parcel, unpickled once a process."""
    with _opening:
        heavy = _opened.pop(payload.key, None)
        if heavy is None:
            if isinstance(data, str):
                data = np.memmap(data, np.uint8, "r")
            heavy = unpack(payload.spans, data)
        _opened[payload.key] = heavy
        for old in list(_opened)[:-N_OPENED]:
            del _opened[old]
        return heavy


@dataclass(frozen=True, eq=False)
class Task:
    """A call of a function, ready to go to another process.

    Parameters
    ----------
    parcel : Payload
        What it reads; the bytes go beside the call, each backend has its own way.
    content : bytes
        The function, the rest of the problem, and the task.
    end : float
        The deadline as a time of day: machines agree on that, but not on where their
        clocks begin.
    home : Home or None
        The process that searches, for workers that are its children.
    """

    payload: Payload
    content: bytes
    end: float
    parent: ParentProcess | None


def make_task(
    function: Callable[..., Any],
    problem: Problem,
    task: tuple[Any, ...],
    payload: Payload,
    parent: ParentProcess | None = None,
) -> Task:
    """The call ``function(problem, *task)`` without what is in the parcel."""
    light = replace(problem.for_worker(), folds=(), score=None, loss=None)
    content = _dumped((function, light, task))
    end = time.time() + problem.seconds_left
    return Task(replace(payload, data=None), content, end, parent)


def execute(call: Task, data: Any) -> bytes:
    """What a worker does: the result of a call, pickled."""
    changes: dict[str, Any] = {}
    if call.parent is not None:
        end_with(call.parent.process, call.parent.folder)
        if call.parent.n_devices:
            changes["device"] = claim_device(call.parent.folder, call.parent.n_devices)
    if np.isfinite(call.end):
        changes["deadline"] = time.monotonic() + call.end - time.time()
    with one_thread():
        function, light, task = pickle.loads(call.content)
        problem = replace(light, **_open(call.payload, data), **changes)
        return _dumped(function(problem, *task))


class _Pickler(cloudpickle.Pickler):
    """Takes tensors from the device that they are on: another process has another."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor) and obj.device.type != "cpu":
            return obj.detach().cpu().__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        return super().reducer_override(obj)


def _dumped(value: Any) -> bytes:
    file = io.BytesIO()
    _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(value)
    return file.getvalue()


def read_result(content: bytes) -> Any:
    """The result that a worker sent."""
    return pickle.loads(content)
