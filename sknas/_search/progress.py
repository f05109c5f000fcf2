"""The progress bar of a search."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from sknas._history import History


class Progress:
    """A bar of trials or seconds, with the best score and the remaining time.

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
        if verbose:
            from tqdm.auto import tqdm  # needed for this alone

            shape = "{desc}: {percentage:3.0f}%|{bar:20}| {n:.0f}/{total:.0f} " + unit
            shape += " [{elapsed}<{remaining}{postfix}]"
            self.bar = tqdm(total=total, desc="search", bar_format=shape)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, history: History) -> None:
        """Show the trials so far."""
        if self.bar is None:
            return
        elapsed = time.monotonic() - self.started
        done = len(history) if self.counts_trials else elapsed
        self.bar.n = min(done, self.bar.total)
        if history.succeeded:
            self.bar.set_postfix_str(f"best={history.best.score:.4f}", refresh=False)
        self.bar.refresh()

    def note(self, text: str) -> None:
        """Show the step that follows the trials, such as the refit."""
        if self.bar is not None:
            self.bar.set_description_str(text)
