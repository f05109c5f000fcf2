"""Interfaces by which networks declare initialisation and half precision."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class InitializedModule(nn.Module, ABC):
    """A network whose first weights depend on training rows.

    Other networks start with the weights that they were built with.
    """

    @abstractmethod
    def initialize(self, init: str, rows: Tensor) -> None:
        """Draw the first weights by torch's global generator.

        Parameters
        ----------
        init : {"uniform", "normal", "fitted"}
            Initialisation of the architecture's recipe.
        rows : Tensor of shape (N, ...)
            Training rows as the network reads them.
        """


class HalfPrecisionModule(nn.Module, ABC):
    """A network that can multiply in a lower precision than its parameters have.

    Other networks of a batch are trained in single precision.
    """

    @property
    @abstractmethod
    def reads_half(self) -> bool:
        """True if its features may have the lower precision, too."""

    @abstractmethod
    def set_precision(self, precision: torch.dtype | None) -> None:
        """Set the precision of matrix products; None for that of the parameters."""
