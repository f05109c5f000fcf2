"""A clock that slow calls of a user's code advance, so that tests need not wait."""

import time

REAL = time.monotonic


class Clock:
    """The monotonic clock, and the seconds of the slow calls so far."""

    def __init__(self):
        self.passed = 0.0
        self.calls = []  # when each call started

    def __call__(self):
        return REAL() + self.passed

    def spend(self, seconds):
        """Let a call take some seconds."""
        self.calls.append(self())
        self.passed += seconds
