"""Snapshots of a training, from which it goes on as if it had never stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sknas._problem import Store
from sknas._training.isolation import random_state, set_random_state

SECONDS_APART = 10.0
SNAPSHOT = "relaxing"  # its key in a journal


class Snapshots:
    """What a training has come to, put into a journal now and then.

    The code of the training runs from its beginning each time. Objects that it follows
    are set to what they were when the snapshot was made, with torch's random state, and
    what it computes once is answered by the snapshot.

    Parameters
    ----------
    journal : Journal
        Where it is kept.
    device : str
        Where the training draws numbers, beside the CPU.
    batch_size : int
        Rows of a batch: a snapshot of another size is passed over.

    Attributes
    ----------
    seconds : float
        How long the training took up to the snapshot.
    """

    def __init__(self, store: Store, device: str, batch_size: int) -> None:
        self.store, self.devices, self.batch_size = (
            store,
            ("cpu", device),
            batch_size,
        )
        told = store.get(SNAPSHOT)
        if told is None or told["batch_size"] != batch_size:
            told = {"seconds": 0.0, "answers": [], "followed": {}}
        self.seconds: float = told["seconds"]
        self._told = told
        self._answers: list[Any] = told["answers"]
        self._n_asked = 0
        self._followed: dict[str, tuple[Any, tuple[str, ...]]] = {}
        self._begun = self._last = time.monotonic()

    def follow(self, name: str, thing: Any, *attributes: str) -> None:
        """Keep attributes of an object, or the state of a module.

        Tensors are set in place, alone or in lists.
        """
        self._followed[name] = (thing, attributes)
        if name not in self._told["followed"]:
            return
        values = self._told["followed"].pop(name)
        for attribute, here in _state(thing, attributes).items():
            if _tensors(here):
                _fill(_tensors(here), values[attribute])
            else:
                setattr(thing, attribute, values[attribute])
        # Whatever was drawn to make the objects was drawn before the snapshot, too.
        for device, state in zip(self.devices, self._told["random"], strict=True):
            set_random_state(device, state)

    def forget(self, *names: str) -> None:
        """Keep some objects no longer."""
        for name in names:
            del self._followed[name]

    def once(self, compute: Callable[[], Any]) -> Any:
        """What a function answers, or did before the snapshot was made."""
        self._n_asked += 1
        if self._n_asked > len(self._answers):
            self._answers.append(compute())
            self.offer()
        return self._answers[self._n_asked - 1]

    def offer(self) -> None:
        """Make a snapshot, unless the last one is new."""
        now = time.monotonic()
        if now - self._last < SECONDS_APART:
            return
        told: dict[str, Any] = {"seconds": self.seconds + now - self._begun}
        told |= {"batch_size": self.batch_size, "answers": self._answers}
        told["followed"] = {}
        told["random"] = [random_state(device) for device in self.devices]
        for name, (thing, attributes) in self._followed.items():
            told["followed"][name] = {
                attribute: _joined(tensors) if (tensors := _tensors(value)) else value
                for attribute, value in _state(thing, attributes).items()
            }
        self.store.put(SNAPSHOT, told)
        self._last = time.monotonic()


def _state(thing: Any, attributes: Sequence[str]) -> dict[str, Any]:
    if isinstance(thing, nn.Module):
        return {"state": list(thing.state_dict().values())}
    return {attribute: getattr(thing, attribute) for attribute in attributes}


def _tensors(value: Any) -> list[Tensor]:
    """The tensors that a value is, none if it is something else."""
    values = value if isinstance(value, list) else [value]
    return values if all(isinstance(each, Tensor) for each in values) else []


def _joined(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Tensors as one of each type: to write thousands of small ones takes seconds."""
    kinds = dict.fromkeys(tensor.dtype for tensor in tensors)
    return {
        str(kind): torch.cat([t.detach().flatten() for t in tensors if t.dtype == kind])
        for kind in kinds
    }


@torch.no_grad()
def _fill(tensors: Sequence[Tensor], joined: Mapping[str, Tensor]) -> None:
    """Set tensors to what was joined."""
    for kind, values in joined.items():
        own = [tensor for tensor in tensors if str(tensor.dtype) == kind]
        parts = values.split([tensor.numel() for tensor in own])
        for tensor, part in zip(own, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))
