"""Costs of a network: trained parameters and latency."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from sknas._training.isolation import RNG_LOCK, one_thread

N_TIMED_ROWS = 256  # rows of a timed call
N_WARM_UP, N_TIMED = 5, 20  # number of calls before and during the measurement


def count_params(build: Callable[[], nn.Module]) -> int:
    """Count the trained parameters of a network, without allocating them."""
    with RNG_LOCK, torch.random.fork_rng(devices=[]), torch.device("meta"):
        net = build()
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def measure_latency(
    build: Callable[[], nn.Module], row_shape: tuple[int, ...]
) -> float:
    """Measure the median seconds of a network for 256 rows, on one CPU thread."""
    with (
        RNG_LOCK,
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
        one_thread(),
    ):
        net = build().eval()
        rows = torch.zeros(N_TIMED_ROWS, *row_shape)
        seconds = []
        for _ in range(N_WARM_UP + N_TIMED):
            started = time.perf_counter()
            net(rows)
            seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[N_WARM_UP:]))
