"""Snapshots of a training, from which it resumes as if it had never stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from sknas._checkpoint import keys
from sknas._problem import Store
from sknas._training.seeds import random_state, set_random_state

SECONDS_APART = 10.0  # minimum time between two snapshots
TENSOR = "packed tensor"  # key of the placeholder of a packed tensor


class Stateful(Protocol):
    """An object with a state made of dicts, lists, tensors and plain values."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


class Snapshots:
    """Snapshots of a training in a store, one every few seconds.

    After an interruption the code of the training runs from its start. Objects get the
    state of the snapshot as soon as they are tracked, and so does torch's random state;
    steps that are run `once` return the result of the snapshot.

    Parameters
    ----------
    store : Store
        Store of the snapshots.
    device : str
        Device of the training.
    batch_size : int
        Rows of a batch; a snapshot of another batch size is ignored.

    Attributes
    ----------
    seconds : float
        Time that the training took up to the snapshot, in seconds.
    """

    def __init__(self, store: Store, device: str, batch_size: int) -> None:
        self.store, self.batch_size = store, batch_size
        self.devices = ("cpu", device)
        loaded = store.get(keys.SUPERNET_STATE)
        if loaded is None or loaded["batch_size"] != batch_size:
            loaded = {"seconds": 0.0, "results": [], "state": pack({})}
        self.seconds: float = loaded["seconds"]
        self._results: list[Any] = loaded["results"]
        self._loaded: dict[str, Any] = unpack(loaded["state"])
        self._n_results = 0
        self._tracked: dict[str, Stateful] = {}
        self._started = self._last = time.monotonic()

    def track(self, name: str, thing: Stateful) -> None:
        """Add an object to the snapshots, and load its state from the last one."""
        self._tracked[name] = thing
        if name not in self._loaded:
            return
        thing.load_state_dict(self._loaded.pop(name))
        # Constructing the objects has drawn numbers: restore the random state, too.
        for device, state in zip(self.devices, self._loaded["random"], strict=True):
            set_random_state(device, state)

    def untrack(self, *names: str) -> None:
        """Remove objects from the snapshots."""
        for name in names:
            del self._tracked[name]

    def once(self, compute: Callable[[], Any]) -> Any:
        """Return the result of a function, or that in the snapshot if it has one.

        Results are identified by the order of the calls.
        """
        self._n_results += 1
        if self._n_results > len(self._results):
            self._results.append(compute())
            self.save_if_due()
        return self._results[self._n_results - 1]

    def save_if_due(self) -> None:
        """Make a snapshot, unless the last one is recent."""
        now = time.monotonic()
        if now - self._last < SECONDS_APART:
            return
        state = {name: thing.state_dict() for name, thing in self._tracked.items()}
        state["random"] = [random_state(device) for device in self.devices]
        snapshot = {
            "seconds": self.seconds + now - self._started,
            "batch_size": self.batch_size,
            "results": self._results,
            "state": pack(state),
        }
        self.store.put(keys.SUPERNET_STATE, snapshot)
        self._last = time.monotonic()


def pack(state: Any) -> dict[str, Any]:
    """Join all tensors of a state that have the same type and device.

    Writing thousands of small tensors would take seconds.
    """
    tensors: dict[str, list[Tensor]] = {}

    def packed(part: Any) -> Any:
        if isinstance(part, Tensor):
            kind = f"{part.dtype} {part.device}"
            tensors.setdefault(kind, []).append(part.detach().flatten())
            return {TENSOR: kind, "shape": list(part.shape)}
        if isinstance(part, dict):
            return {name: packed(value) for name, value in part.items()}
        return [packed(value) for value in part] if isinstance(part, list) else part

    tree = packed(state)
    return {"tree": tree, "tensors": {k: torch.cat(v) for k, v in tensors.items()}}


def unpack(state: dict[str, Any]) -> Any:
    """Return the state that `pack` has joined."""
    offsets = dict.fromkeys(state["tensors"], 0)

    def unpacked(part: Any) -> Any:
        if isinstance(part, list):
            return [unpacked(value) for value in part]
        if not isinstance(part, dict):
            return part
        if TENSOR not in part:
            return {name: unpacked(value) for name, value in part.items()}
        kind, size = part[TENSOR], torch.Size(part["shape"])
        offset = offsets[kind]
        offsets[kind] += size.numel()
        # A copy, since torch reads a random state from the start of its storage.
        return state["tensors"][kind][offset : offsets[kind]].view(size).clone()

    return unpacked(state["tree"])
