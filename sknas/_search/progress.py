"""The progress bar of a search."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from sknas._history import History


class Progress:
    """A bar of trials or seconds, with the best score and the remaining time.

    A search goes on without its bar if the stream of errors is missing, as in services
    of Windows, or can't be written to.

    Parameters
    ----------
    verbose : int
        0 for no bar.
    max_trials : int or None
        Length of the bar in trials.
    max_time : float or None
        Length of the bar in seconds, without `max_trials`.
    """

    def __init__(
        self, verbose: int, max_trials: int | None, max_time: float | None
    ) -> None:
        self.counts_trials = max_trials is not None
        total = max_trials if max_trials is not None else max_time
        unit = "trial" if self.counts_trials else "s"
        self.started = time.monotonic()
        self.bar: Any = None
        if verbose and sys.stderr is not None:
            from tqdm.auto import tqdm  # needed for this alone

            shape = "{desc}: {percentage:3.0f}%|{bar:20}| {n:.0f}/{total:.0f} " + unit
            shape += " [{elapsed}<{remaining}{postfix}]"
            # With a delay, the bar does not write before it can be stopped.
            self.bar = tqdm(total=total, desc="search", bar_format=shape, delay=1e-9)
            self._draw(lambda bar: bar.refresh())

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._draw(lambda bar: bar.close())

    def show(self, history: History) -> None:
        """Show the trials so far."""
        self._draw(lambda bar: self._show(bar, history))

    def note(self, text: str) -> None:
        """Show the step that follows the trials, such as the refit."""
        self._draw(lambda bar: bar.set_description_str(text))

    def _show(self, bar: Any, history: History) -> None:
        elapsed = time.monotonic() - self.started
        done = len(history) if self.counts_trials else elapsed
        bar.n = min(done, bar.total)
        if history.succeeded:
            bar.set_postfix_str(f"best={history.best.score:.4f}", refresh=False)
        bar.refresh()

    def _draw(self, change: Callable[[Any], object]) -> None:
        """Change the bar, and drop it if that fails."""
        if self.bar is None:
            return
        try:
            change(self.bar)
        except Exception:  # a pipe that was closed, or any stream of the user
            self.bar.disable = True  # or its destructor would write
            self.bar = None
