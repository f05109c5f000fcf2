"""Networks that hold NumPy arrays instead of tensors, to be stored in a file."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A parameter or a buffer of a network, as a NumPy array.

    Parameters
    ----------
    array : ndarray
        The values as bytes: NumPy does not have all dtypes of torch.
    dtype : str
        Name of the torch dtype.
    shape, stride : tuple of int
        Memory layout: the last bits of results depend on it.
    is_parameter : bool
        True for a parameter, False for a buffer.
    is_trained : bool
        True if it requires a gradient.
    """

    array: np.ndarray
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    is_parameter: bool
    is_trained: bool


def to_numpy_shell(module: nn.Module) -> nn.Module:
    """Return a copy of a network with a `StoredTensor` in place of each tensor."""
    tensors = [*module.parameters(), *module.buffers()]
    # deepcopy returns an object's entry in its memo as the copy.
    return copy.deepcopy(module, {id(tensor): _store(tensor) for tensor in tensors})


def from_numpy_shell(shell: nn.Module) -> nn.Module:
    """Return a copy of a shell with its tensors; shared ones are shared again."""
    stored: list[Any] = []
    for module in shell.modules():
        stored += [*module._parameters.values(), *module._buffers.values()]
    tensors = {id(value): _restore(value) for value in stored if value is not None}
    return copy.deepcopy(shell, tensors)


def _store(tensor: torch.Tensor) -> StoredTensor:
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return StoredTensor(
        content.numpy(),
        str(tensor.dtype).partition(".")[2],
        tuple(tensor.shape),
        # Strides of a copy: the stored values of an expanded view are repeated.
        tuple(torch.empty_like(tensor, device="meta").stride()),
        isinstance(tensor, nn.Parameter),
        tensor.requires_grad,
    )


def _restore(stored: StoredTensor) -> torch.Tensor:
    contiguous = torch.empty(stored.shape, dtype=getattr(torch, stored.dtype))
    # torch.tensor copies: the array may be a memory map of a read-only file.
    contiguous.flatten().view(torch.uint8).copy_(torch.tensor(stored.array))
    tensor = torch.empty_strided(stored.shape, stored.stride, dtype=contiguous.dtype)
    tensor.copy_(contiguous)
    if not stored.is_parameter:
        return tensor
    return nn.Parameter(tensor, requires_grad=stored.is_trained)
