"""Training that leaves torch as it was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sknas._optim import ONE_AT_A_TIME


@contextmanager
def isolated(seed: int, device: str) -> Iterator[None]:
    """Seed torch, use one thread and single precision; leave all as it was.

    torch has one random state and one thread count a process; the lock keeps fits in
    different threads from drawing each other's numbers. More than one thread gained
    nothing on networks of this size and changes the order of sums.
    """
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with (
        ONE_AT_A_TIME,
        torch.random.fork_rng(devices=devices),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        n_threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        try:
            torch.manual_seed(seed)
            yield
        finally:
            torch.set_num_threads(n_threads)
            torch.set_default_dtype(dtype)
