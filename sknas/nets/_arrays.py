"""Networks without tensors, so that they can be kept as plain arrays."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class Values:
    """A parameter or a buffer of a network.

    Parameters
    ----------
    array : ndarray
        Its values.
    stride : tuple of int
        How they lay in memory: results depend on it in their last bits.
    is_parameter, is_trained : bool
        What it is, and whether it has a gradient.
    """

    array: np.ndarray
    stride: tuple[int, ...]
    is_parameter: bool
    is_trained: bool


def taken_out(module: nn.Module) -> tuple[nn.Module, list[Values]]:
    """A copy of a network that holds numbers of values, and these values."""
    tensors = [*module.parameters(), *module.buffers()]
    numbers = {id(tensor): number for number, tensor in enumerate(tensors)}
    # What copy finds in its memory it need not copy.
    shell = copy.deepcopy(module, numbers)
    return shell, [
        Values(
            tensor.detach().cpu().numpy(),
            tuple(tensor.stride()),
            isinstance(tensor, nn.Parameter),
            tensor.requires_grad,
        )
        for tensor in tensors
    ]


def put_back(shell: nn.Module, values: list[Values]) -> None:
    """Let a copy hold the values again, the same where it held the same."""
    tensors = [_tensor(value) for value in values]
    for part in shell.modules():
        for held in (part._parameters, part._buffers):
            for name, number in held.items():
                held[name] = None if number is None else tensors[number]  # type: ignore


def _tensor(value: Values) -> torch.Tensor:
    array = torch.as_tensor(value.array)
    tensor = torch.empty_strided(array.shape, value.stride, dtype=array.dtype)
    tensor.copy_(array)
    if not value.is_parameter:
        return tensor
    return nn.Parameter(tensor, requires_grad=value.is_trained)
