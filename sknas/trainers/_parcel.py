"""The rows of a problem, sent to each worker once."""

from __future__ import annotations

import pickle
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np

from sknas._problem import Fold, Problem

N_OPENED = 2  # problems that a worker keeps, the latest ones
_sent: weakref.WeakKeyDictionary[Fold, Parcel] = weakref.WeakKeyDictionary()
_opened: dict[str, dict[str, Any]] = {}
HEAVY = ("folds", "score", "loss")  # of a problem; the rest goes with each task


@dataclass(frozen=True, eq=False)
class Parcel:
    """What is heavy in a problem, as one array of bytes.

    Parameters
    ----------
    key : str
        A digest of the content.
    content : ndarray of uint8, or what Dask or Ray put in the place of one
        The pickle, then the buffers of the arrays, which are not copied in a worker
        that maps them.
    ends : tuple of int
        Where each part ends.
    """

    key: str
    content: Any
    ends: tuple[int, ...]

    def opened(self) -> dict[str, Any]:
        """What was sent, from the store of this process where it is there already."""
        if self.key not in _opened:
            content = memoryview(self.content)
            starts = (0, *self.ends)
            head, *buffers = (
                content[start:end]
                for start, end in zip(starts, self.ends, strict=False)
            )
            while len(_opened) >= N_OPENED:
                _opened.pop(next(iter(_opened)))
            _opened[self.key] = pickle.loads(head, buffers=buffers)
        return _opened[self.key]


def light(problem: Problem) -> Problem:
    """A problem without what a parcel holds."""
    return replace(problem.bare(), folds=(), score=None, loss=None)


def sent(problem: Problem, backend: Any) -> Parcel:
    """The parcel of a problem, made once for all its tasks.

    Parameters
    ----------
    problem : Problem
        With at least one fold, whose life is that of the parcel.
    backend : object
        joblib's backend: workers of the same machine map a file, those of a cluster
        get an array, which Dask and Ray hand on among themselves.
    """
    first = problem.folds[0]
    if first not in _sent:
        _sent[first] = _packed(problem, backend)
    return _sent[first]


def _packed(problem: Problem, backend: Any) -> Parcel:
    buffers: list[pickle.PickleBuffer] = []
    told = {name: getattr(problem, name) for name in HEAVY}
    head = cloudpickle.dumps(told, protocol=5, buffer_callback=buffers.append)
    parts: Sequence[Any] = [head, *(buffer.raw() for buffer in buffers)]
    ends = tuple(int(end) for end in np.cumsum([len(part) for part in parts]))
    kind = type(backend).__name__
    if kind == "LokyBackend":
        content: Any = _mapped(problem.folds[0], ends[-1])
    else:
        content = np.empty(ends[-1], np.uint8)
    for part, end in zip(parts, ends, strict=True):
        content[end - len(part) : end] = np.frombuffer(part, np.uint8)
    key = joblib.hash(content)
    if kind == "RayBackend":
        import ray

        content = ray.put(content)
    elif kind == "DaskDistributedBackend":
        # The result of a task, not scattered: it is made again if workers die.
        content = backend.client.submit(np.asarray, content, key=f"sknas-{key}")
    return Parcel(key, content, ends)


def _mapped(owner: Fold, size: int) -> np.ndarray:
    """An array in a file that goes when its owner does; joblib sends its name."""
    with tempfile.NamedTemporaryFile(prefix="sknas-", delete=False) as file:
        path = Path(file.name)
    weakref.finalize(owner, path.unlink, missing_ok=True)
    return np.memmap(path, np.uint8, "w+", shape=(size,))
