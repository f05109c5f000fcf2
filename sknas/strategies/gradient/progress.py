"""Progress of a search by gradient, in steps and in seconds."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SearchProgress:
    """A point of a search.

    Parameters
    ----------
    fraction : float
        Fraction of the search that is done.
    stage, n_stages : int
        Index of the stage, and number of stages.
    stage_fraction : float
        Fraction of the stage that is done.
    arch_lr : float
        Learning rate of the alphas.
    """

    fraction: float
    stage: int
    n_stages: int
    stage_fraction: float
    arch_lr: float


@dataclass
class TimeBudget:
    """Length of a training: a number of steps, or fewer if the time runs out first.

    Parameters
    ----------
    n_steps : int
        Maximum number of steps.
    seconds : float
        Maximum time in seconds, from now on.
    step : int, default=0
        Number of steps done.
    """

    n_steps: int
    seconds: float
    step: int = 0
    started: float = field(default_factory=lambda: time.monotonic())

    @property
    def progress(self) -> float:
        """Fraction of the training that is done, from 0 to 1."""
        is_bounded = self.seconds < math.inf
        passed = 1 - self.seconds_left / max(self.seconds, 1e-9) if is_bounded else 0.0
        return min(max(self.step / max(self.n_steps, 1), passed), 1.0)

    @property
    def seconds_used(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def seconds_left(self) -> float:
        """Seconds until the end, negative after it."""
        return self.seconds - self.seconds_used

    @property
    def expected_steps(self) -> int:
        """Number of steps at the end, at the speed so far."""
        progress = self.progress
        if self.step == 0 or self.step / max(self.n_steps, 1) >= progress:
            return self.n_steps
        return max(1, int(self.step / progress))

    def state_dict(self) -> dict[str, float]:
        """Return the steps and seconds used."""
        return {"step": self.step, "seconds_used": self.seconds_used}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Continue from the steps and seconds of another budget."""
        self.step = int(state["step"])
        self.started = time.monotonic() - state["seconds_used"]
