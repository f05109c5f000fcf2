"""How far a training is."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


@dataclass
class TimeBudget:
    """How far a training is: by its steps, or by its seconds if they are shorter.

    Parameters
    ----------
    n_steps : int
        Steps to make.
    seconds : float
        Time to make them in, from now on.
    step : int
        Steps that are made.
    """

    n_steps: int
    seconds: float
    step: int = 0
    started: float = field(default_factory=lambda: time.monotonic())

    @property
    def progress(self) -> float:
        """The share that is done, from 0 to 1."""
        is_bounded = self.seconds < math.inf
        passed = 1 - self.seconds_left / max(self.seconds, 1e-9) if is_bounded else 0.0
        return min(max(self.step / max(self.n_steps, 1), passed), 1.0)

    @property
    def seconds_left(self) -> float:
        """Of its time."""
        return self.seconds - self.used

    @property
    def used(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started

    @used.setter
    def used(self, seconds: float) -> None:
        self.started = time.monotonic() - seconds

    @property
    def expected(self) -> int:
        """Steps that it will come to, as far as one can tell."""
        progress = self.progress
        if self.step == 0 or self.step / max(self.n_steps, 1) >= progress:
            return self.n_steps
        return max(1, int(self.step / progress))
