"""Isolation of torch's global state, and recovery when memory runs out."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from sknas._history import Cause, Fault
from sknas._training.seeds import set_seed
from sknas._training.settings import DefaultSettings

T = TypeVar("T")

# torch's global RNG is per process: hold this lock while forking it, so that other
# threads don't draw from it.
RNG_LOCK = threading.RLock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one CPU thread, and restore the number of threads on exit.

    Networks of this size gain little from more threads, and on a busy machine threads
    that wait for each other made predictions ten times slower. torch keeps the number
    separately for each Python thread.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@contextmanager
def isolated(seed: int, device: str) -> Iterator[None]:
    """Seed torch, and use default settings and one thread; restore everything on exit.

    Fits in several threads are serialised by `RNG_LOCK`. More than one thread would
    change the order of summation, and with it the last bits of the results.
    """
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with (
        RNG_LOCK,
        DefaultSettings(),
        torch.random.fork_rng(devices=devices),
        one_thread(),
    ):
        set_seed(seed, device)
        yield


def run_with_memory_retry(attempts: Sequence[Callable[[], T]], device: str) -> T:
    """Return the result of the first attempt that does not run out of memory.

    Parameters
    ----------
    attempts : sequence of callable
        Called in order, each less demanding than the one before. An attempt must not
        keep references to its tensors anywhere that outlives its call.
    device : str
        Its memory is freed between two attempts.

    Raises
    ------
    Exception
        Any other error of an attempt, and whatever the last attempt raises.
    """
    *earlier, last = attempts
    for attempt in earlier:
        try:
            return attempt()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Retry outside the except block: the exception still references the tensors.
        free_memory(device)
    return last()


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error means that memory ran out."""
    is_known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_known or "can't allocate memory" in str(error)


def free_memory(device: str) -> None:
    """Collect garbage, and return cached blocks of a GPU to its driver."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


class DivergedError(ArithmeticError):
    """Raised when the loss or the output of a network is no longer finite."""


def fault_of(error: Exception) -> Fault:
    """Return an error as the fault of a training."""
    if isinstance(error, DivergedError):
        return Fault(Cause.DIVERGED)
    if is_out_of_memory(error):
        return Fault(Cause.OUT_OF_MEMORY)
    return Fault(Cause.ERROR, f"{type(error).__name__}: {error}")
