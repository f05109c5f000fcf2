"""Snapshots of a network in training: its parameters and its outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sknas.trainers._group import State

MAX_ROWS = 1_024  # rows that are evaluated at once
MAX_PIXELS = 2**19  # pixels evaluated at once; a map of 64 channels of them is 128 MiB


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A network at a step where the learning rate is zero.

    Parameters
    ----------
    share : float
        Share of the schedule that was done.
    output : ndarray of shape (N, C)
        Output for the validation rows.
    state : dict of str to Tensor
        Parameters and buffers.
    seconds : float
        Seconds of the evaluation.
    """

    share: float
    output: np.ndarray
    state: State
    seconds: float


def state_of(module: nn.Module) -> State:
    """Return a copy of parameters and buffers, on the CPU."""
    state = module.state_dict()
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


@torch.no_grad()
def evaluate(module: nn.Module, x: Tensor, n_micro_batches: int = 1) -> np.ndarray:
    """Return the outputs (N, C) of one network, a bounded number of rows at a time."""
    n_rows = max(1, max_rows(x.shape[1:]) // n_micro_batches)
    parts = [module(part)[0] for part in x.split(n_rows)]
    return torch.cat(parts).cpu().numpy()


def max_rows(shape: Sequence[int]) -> int:
    """Return how many rows of a shape are evaluated at once."""
    if len(shape) == 1:
        return MAX_ROWS
    # Maps of images have many channels.
    return max(1, min(MAX_ROWS, MAX_PIXELS // math.prod(shape)))
