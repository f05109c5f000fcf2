"""What Ctrl-C and the end of a machine mean to a fit."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stop(BaseException):
    """A second Ctrl-C: nothing that finishes quietly after the first may hold it."""


class Signals:
    """Ctrl-C once ends a search, twice ends the fit; SIGTERM ends the process.

    In the main thread alone, where Python hears of signals, and only in place of the
    handlers that Python itself sets: those of others stay. SIGTERM is left to the
    system in a child of another process.

    Parameters
    ----------
    is_kept : bool
        Whether the search is kept in a checkpoint. Then SIGTERM ends the process by
        SystemExit, which frees the checkpoint and ends workers; all that was done is
        on disk already.
    """

    def __init__(self, is_kept: bool) -> None:
        self.is_kept = is_kept
        self._before: dict[int, Any] = {}
        self._n_stops = 0

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._replace(signal.SIGINT, signal.default_int_handler, self._interrupt)
        # A worker would hand SystemExit on to the process that asked it.
        if self.is_kept and multiprocessing.parent_process() is None:
            self._replace(signal.SIGTERM, signal.SIG_DFL, self._terminate)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, Stop):
            raise KeyboardInterrupt from None

    def _replace(self, number: int, usual: Any, handler: Any) -> None:
        if signal.getsignal(number) == usual:
            self._before[number] = signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._n_stops += 1
        raise KeyboardInterrupt if self._n_stops == 1 else Stop

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)
