"""GPUs of this machine: their number, and locks by which each worker claims one."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

_held: list[FileLock] = []  # a lock that is garbage-collected would be released


def count_gpus(device: str) -> int:
    """Return the number of GPUs to use: all visible ones, unless one is named."""
    if device == "cpu":
        return 0
    return torch.cuda.device_count() if device == "cuda" else 1


@cache
def claim_device(folder: str, n_devices: int) -> str:
    """Return a GPU that no other worker of the same parent has claimed.

    Parameters
    ----------
    folder : str
        Folder of the parent, in which each GPU has a lock file.
    n_devices : int
        Number of GPUs.
    """
    for number in range(n_devices):
        lock = FileLock(Path(folder, f"cuda-{number}"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        _held.append(lock)
        return f"cuda:{number}"
    # Workers that are about to end may still hold the others.
    return f"cuda:{os.getpid() % n_devices}"
