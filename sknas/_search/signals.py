"""Handlers of Ctrl-C and SIGTERM during a fit."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stop(BaseException):
    """A second Ctrl-C, which no handler of KeyboardInterrupt catches."""


class Signals:
    """Handle signals: one Ctrl-C ends the search, two end the fit.

    Handlers are set in the main thread only, and only in place of Python's own: those
    of other libraries stay.

    Parameters
    ----------
    has_checkpoint : bool
        True if there is a checkpoint. SIGTERM then raises SystemExit, which releases
        its lock and ends the workers; finished results are already on disk. In a child
        process, SIGTERM is left alone.
    """

    def __init__(self, has_checkpoint: bool) -> None:
        self.has_checkpoint = has_checkpoint
        self._before: dict[int, Any] = {}
        self._n_stops = 0

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._replace(signal.SIGINT, signal.default_int_handler, self._interrupt)
        # A worker would pass SystemExit on to its parent.
        if self.has_checkpoint and multiprocessing.parent_process() is None:
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

    def _replace(self, number: int, default: Any, handler: Any) -> None:
        if signal.getsignal(number) == default:
            self._before[number] = signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._n_stops += 1
        raise KeyboardInterrupt if self._n_stops == 1 else Stop

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)
