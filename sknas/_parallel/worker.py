"""Worker processes on the machine that searches: they end with it, each has a GPU."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

POLL = 0.3  # seconds between two looks at whether the parent lives


@dataclass(frozen=True)
class ParentProcess:
    """The process that searches, as its workers on the same machine know it.

    Parameters
    ----------
    process : int
        Its number.
    folder : str
        Where its files are; they are gone when it ends.
    n_devices : int, default=0
        GPUs to spread work over; 0 where all work is on one device.
    """

    process: int
    folder: str
    n_devices: int = 0


_folders: dict[int, str] = {}  # by process: a fork has one of its own


def worker_folder() -> str:
    """The folder of this process, made when it is first asked for."""
    process = os.getpid()
    if not os.path.isdir(_folders.get(process, "")):  # or somebody has tidied up
        root = os.environ.get("JOBLIB_TEMP_FOLDER")
        if root:
            os.makedirs(root, exist_ok=True)
        _folders[process] = tempfile.mkdtemp(prefix="sknas-", dir=root)
        atexit.register(remove, process, _folders[process])
    return _folders[process]


def remove(process: int, path: str) -> None:
    """Remove what a process has written; its forks leave it alone."""
    if os.getpid() == process:
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # a folder, which is gone by now
            os.unlink(path)


@cache
def end_with(process: int, folder: str) -> None:
    """From now on, end this process as soon as its parent is gone, in midst of work.

    Ctrl-C of a terminal, which workers get as well, is left to the parent: a worker
    that it met in the middle of an answer would let the parent wait for the rest.
    """

    def watch() -> None:
        while os.getppid() == process:
            time.sleep(POLL)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, name="sknas-watch", daemon=True).start()


@cache
def claim_device(folder: str, n_devices: int) -> str:
    """A GPU that no other worker of the same process has, until this one ends."""
    for number in range(n_devices if fcntl else 0):
        # Never closed: the lock lasts as long as this process.
        file = os.open(Path(folder, f"cuda-{number}"), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
        else:
            return f"cuda:{number}"
    return f"cuda:{os.getpid() % n_devices}"  # some are still held by workers that end
