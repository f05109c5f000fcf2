"""Work with torch that leaves it as it was found."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sknas._history import OUT_OF_MEMORY


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread of the CPU, and as many as before in the end.

    Networks of this size gain little from more, and threads that wait for each other
    on a machine that is busy made predictions ten times as slow. torch counts them for
    each thread of Python by itself.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


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
            set_seed(seed, device)
            yield
        finally:
            torch.set_default_dtype(dtype)


def set_seed(seed: int, device: torch.device | str) -> None:
    """Seed the generators that work on a device draws from, and no other.

    `torch.manual_seed` seeds every device there could be, and writes down the stack
    for each one that is not in use yet: a fifth of the time of a small fit.
    """
    torch.default_generator.manual_seed(seed)
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def random_state(device: torch.device | str) -> Tensor:
    """The state of the generator that a device draws from."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.get_rng_state()


def set_random_state(device: torch.device | str, state: Tensor) -> None:
    """Let a device draw on from a state."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    is_told = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_told or "can't allocate memory" in str(error)


def free_memory(device: str) -> None:
    """Give back what is held of a device's memory without need."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


# torch has one random state a process: who sets it back keeps others from drawing.
ONE_AT_A_TIME = threading.RLock()


class DivergedError(ArithmeticError):
    """The loss or the output of a network is not finite any more."""


def failure_reason(error: Exception) -> str:
    """An error as the reason of a failed trial."""
    if isinstance(error, DivergedError):
        return str(error)
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    return f"{type(error).__name__}: {error}"
