"""Networks that hold plain arrays instead of tensors, to be kept in a file."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class Values:
    """A parameter or a buffer of a network.

    Parameters
    ----------
    array : ndarray
        Its values, as bytes: numpy does not know all types of torch.
    dtype : str
        Their type in torch.
    shape, stride : tuple of int
        How they lay in memory: results depend on it in their last bits.
    is_parameter, is_trained : bool
        What it is, and whether it has a gradient.
    """

    array: np.ndarray
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    is_parameter: bool
    is_trained: bool


def to_numpy_shell(module: nn.Module) -> nn.Module:
    """A copy of a network that holds values wherever it held tensors."""
    tensors = [*module.parameters(), *module.buffers()]
    # What copy finds in its memory it does not copy.
    return copy.deepcopy(module, {id(tensor): _values(tensor) for tensor in tensors})


def from_numpy_shell(shell: nn.Module) -> nn.Module:
    """A network that holds the tensors again, the same where it held the same."""
    held: list[Any] = []
    for part in shell.modules():
        held += [*part._parameters.values(), *part._buffers.values()]
    tensors = {id(value): _tensor(value) for value in held if value is not None}
    return copy.deepcopy(shell, tensors)


def _values(tensor: torch.Tensor) -> Values:
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return Values(
        content.numpy(),
        str(tensor.dtype).partition(".")[2],
        tuple(tensor.shape),
        # Of what is no view: values that are repeated are written once each.
        tuple(torch.empty_like(tensor, device="meta").stride()),
        isinstance(tensor, nn.Parameter),
        tensor.requires_grad,
    )


def _tensor(value: Values) -> torch.Tensor:
    plain = torch.empty(value.shape, dtype=getattr(torch, value.dtype))
    # A copy: the array may be a part of a file that can't be written to.
    plain.flatten().view(torch.uint8).copy_(torch.tensor(value.array))
    tensor = torch.empty_strided(value.shape, value.stride, dtype=plain.dtype)
    tensor.copy_(plain)
    if not value.is_parameter:
        return tensor
    return nn.Parameter(tensor, requires_grad=value.is_trained)
