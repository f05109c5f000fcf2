"""Weighted networks, with the encodings that they read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from sknas._ensemble.calibration import apply_temperature
from sknas._history import Architecture
from sknas._training.isolation import one_thread
from sknas.trainers import TensorNet
from sknas.trainers._skorch_net import evaluate


@dataclass(frozen=True, eq=False)
class Member:
    """An architecture of an ensemble, and its networks.

    Parameters
    ----------
    architecture : Architecture
        What it is.
    networks : tuple of TensorNet
        skorch nets over encoded rows: one of each fold, or one of all rows.
    places : tuple of int
        The encoding that each network reads.
    weight : float
        Its share of the answer.
    temperature : float, default=1.0
        What calibrates its probabilities.
    """

    architecture: Architecture
    networks: tuple[TensorNet, ...]
    places: tuple[int, ...]
    weight: float
    temperature: float = 1.0

    @property
    def network(self) -> TensorNet:
        """The first of its networks."""
        return self.networks[0]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Weighted networks, with the encodings that they read.

    Parameters
    ----------
    members : tuple of Member
        The heaviest first; their weights sum to 1.
    encodings : tuple of (encoder, callable)
        How rows are encoded, and how outputs (N, C) of networks become predictions.
    kind : {"binary", "multiclass", "multilabel", "regression"}
        What is predicted.
    device : str
        Where it was trained.
    temperature : float, default=1.0
        What calibrates its probabilities.
    is_single : bool, default=True
        Whether single precision can hold predictions.
    """

    members: tuple[Member, ...]
    encodings: tuple[tuple[Any, Callable[[np.ndarray], np.ndarray]], ...]
    kind: str
    device: str
    temperature: float = 1.0
    is_single: bool = True
    _copies: dict[Any, list[list[nn.Module]]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def place(self) -> str:
        """The device to predict on: the CPU where a loaded one's GPU is missing."""
        is_there = torch.cuda.is_available() or not self.device.startswith("cuda")
        return self.device if is_there else "cpu"

    def _modules(self, dtype: np.dtype) -> list[list[nn.Module]]:
        """The networks of each member in a precision, ready to predict."""
        kind = torch.float64 if dtype == np.float64 else torch.float32
        plain = [[net.module_ for net in member.networks] for member in self.members]
        if kind == torch.float32 and self.place == "cpu":
            return plain
        if (kind, self.place) not in self._copies:
            self._copies[kind, self.place] = [
                [copy.deepcopy(module).to(self.place, kind) for module in modules]
                for modules in plain
            ]
        return self._copies[kind, self.place]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copies": {}}

    def predict(self, samples: Any) -> np.ndarray:
        """Predictions (N, C) for rows that were read: the members' weighted mean."""
        total: Any = 0.0
        for place, (encoder, restore) in enumerate(self.encodings):
            x = encoder.transform(samples)
            rows = torch.tensor(x, device=self.place)  # images may be the user's own
            modules = self._modules(x.dtype)
            for member, own in zip(self.members, modules, strict=True):
                if place in member.places:
                    module = own[member.places.index(place)]
                    with one_thread():
                        answer = restore(evaluate(module, rows))
                    answer = apply_temperature(answer, member.temperature, self.kind)
                    total = total + member.weight / len(own) * answer
        is_double = x.dtype == np.float64 or not self.is_single
        precision = np.float64 if is_double else np.float32
        return apply_temperature(total, self.temperature, self.kind).astype(precision)
