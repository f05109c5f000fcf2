"""The ensemble: weighted networks, with the encoders of the rows they read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sknas._ensemble.calibration import apply_temperature
from sknas._history import Architecture
from sknas._training.isolation import one_thread
from sknas.trainers._snapshot import evaluate

if TYPE_CHECKING:
    from sknas.trainers import TensorNet
else:  # for typing.get_type_hints, without skorch
    TensorNet = Any


@dataclass(frozen=True, eq=False)
class Member:
    """An architecture of an ensemble, and its networks.

    Parameters
    ----------
    architecture : Architecture
        The architecture of all its networks.
    networks : tuple of TensorNet
        skorch nets over encoded rows: one per fold, or one trained on all rows.
    encoding_indices : tuple of int
        Index of the encoding that each network reads.
    weight : float
        Share in the weighted mean.
    temperature : float, default=1.0
        Calibrates the probabilities of its networks.
    """

    architecture: Architecture
    networks: tuple[TensorNet, ...]
    encoding_indices: tuple[int, ...]
    weight: float
    temperature: float = 1.0

    @property
    def network(self) -> TensorNet:
        """The first network."""
        return self.networks[0]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Weighted mean of networks.

    Parameters
    ----------
    members : tuple of Member
        Sorted by weight, the largest first; the weights sum to 1.
    encodings : tuple of (encoder, callable)
        Encoders of rows, each with the function that turns outputs (N, C) of a network
        into predictions.
    kind : {"binary", "multiclass", "multilabel", "regression"}
        Kind of the target.
    device : str
        Device of the training.
    temperature : float, default=1.0
        Calibrates the probabilities of the weighted mean.
    is_single : bool, default=True
        True if single precision can hold the predictions.
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
    def predict_device(self) -> str:
        """The device of the training, or the CPU if there is no such GPU."""
        is_there = torch.cuda.is_available() or not self.device.startswith("cuda")
        return self.device if is_there else "cpu"

    def _modules(self, dtype: np.dtype) -> list[list[nn.Module]]:
        """Return the networks of each member in a precision, on the device."""
        precision = torch.float64 if dtype == np.float64 else torch.float32
        device = self.predict_device
        plain = [[net.module_ for net in member.networks] for member in self.members]
        if precision == torch.float32 and device == "cpu":
            return plain
        if (precision, device) not in self._copies:
            self._copies[precision, device] = [
                [copy.deepcopy(module).to(device, precision) for module in modules]
                for modules in plain
            ]
        return self._copies[precision, device]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copies": {}}

    def predict(self, rows: Any) -> np.ndarray:
        """Predict with the weighted mean of the members.

        Parameters
        ----------
        rows : RawRows
            N rows that were read but not encoded.

        Returns
        -------
        ndarray of shape (N, C)
            Probabilities or target values.
        """
        total: Any = 0.0
        for index, (encoder, restore) in enumerate(self.encodings):
            array = encoder.transform(rows)
            # A copy, since images may be the user's own array.
            x = torch.tensor(array, device=self.predict_device)
            modules = self._modules(array.dtype)
            for member, networks in zip(self.members, modules, strict=True):
                if index in member.encoding_indices:
                    network = networks[member.encoding_indices.index(index)]
                    with one_thread():
                        predicted = restore(evaluate(network, x))
                    predicted = apply_temperature(
                        predicted, member.temperature, self.kind
                    )
                    total = total + member.weight / len(networks) * predicted
        is_double = array.dtype == np.float64 or not self.is_single
        precision = np.float64 if is_double else np.float32
        return apply_temperature(total, self.temperature, self.kind).astype(precision)
