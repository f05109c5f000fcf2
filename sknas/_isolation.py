"""Work with torch that leaves it as it was found."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sknas._optim import ONE_AT_A_TIME


class _OneThread:
    """How many are inside of `one_thread`, and the threads there were before."""

    lock = threading.Lock()
    n_inside = 0
    n_threads = 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread of the CPU, and as many as before in the end.

    Networks of this size gain little from more, and threads that wait for each other
    on a machine that is busy made predictions ten times as slow. Several threads of
    Python may be inside at once: the last one to leave finds what the first one found.
    """
    with _OneThread.lock:
        if not _OneThread.n_inside:
            _OneThread.n_threads = torch.get_num_threads()
        _OneThread.n_inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _OneThread.lock:
            _OneThread.n_inside -= 1
            torch.set_num_threads(_OneThread.n_threads)


@contextmanager
def isolated(seed: int, device: str) -> Iterator[None]:
    """Seed torch, use one thread and single precision; leave all as it was.

    torch has one random state a process; the lock keeps fits in different threads from
    drawing each other's numbers. More threads would change the order of sums.
    """
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with (
        ONE_AT_A_TIME,
        torch.random.fork_rng(devices=devices),
        torch.inference_mode(False),
        torch.enable_grad(),
        one_thread(),
    ):
        dtype = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            torch.manual_seed(seed)
            yield
        finally:
            torch.set_default_dtype(dtype)
