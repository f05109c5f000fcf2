"""Workers on the machine of the search: their temporary files and their end."""

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

POLL_INTERVAL = 0.3  # seconds between two checks that the parent is alive


@dataclass(frozen=True)
class ParentProcess:
    """The process that searches, for its workers on the same machine.

    Parameters
    ----------
    pid : int
        Process id.
    folder : str
        Its temporary files, removed when it ends.
    n_devices : int, default=0
        GPUs to spread work over; 0 if all work is on one device.
    """

    pid: int
    folder: str
    n_devices: int = 0


_folders: dict[int, str] = {}  # by process id: a fork has a folder of its own


def worker_folder() -> str:
    """Return the temporary folder of this process, created on first use."""
    pid = os.getpid()
    if not os.path.isdir(_folders.get(pid, "")):  # it may have been cleaned up
        root = os.environ.get("JOBLIB_TEMP_FOLDER")
        if root:
            os.makedirs(root, exist_ok=True)
        _folders[pid] = tempfile.mkdtemp(prefix="sknas-", dir=root)
        atexit.register(remove, pid, _folders[pid])
    return _folders[pid]


def remove(pid: int, path: str) -> None:
    """Remove a file or folder if this process is `pid`, not a fork of it."""
    if os.getpid() == pid:
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # raised for a folder, which is gone by now
            os.unlink(path)


@cache
def exit_with_parent(pid: int, folder: str) -> None:
    """Exit as soon as the parent process dies, even in the middle of a task.

    Ctrl-C in a terminal reaches workers, too. They ignore it: a worker interrupted
    while it sends a result would leave the parent waiting for the rest.
    """

    def watch() -> None:
        while os.getppid() == pid:
            time.sleep(POLL_INTERVAL)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, name="sknas-watch", daemon=True).start()
