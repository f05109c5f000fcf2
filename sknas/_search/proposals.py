"""Numbers, seeds and the initial design of a search."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from sknas._history import Architecture, History, Origin, Proposal
from sknas._problem import TaskSpec
from sknas.spaces import Space

MAX_TIME_SHARE = 0.1  # share of the time for the constraints of known architectures


def initial_design(
    space: Space,
    task: TaskSpec | None,
    feasible: Callable[[Architecture], bool],
    deadline: float | None = None,
) -> list[Proposal]:
    """Return the default architecture and the known ones that are feasible.

    Constraints that are slow are not evaluated after a small share of the time until
    the deadline, or after all of it if nothing is feasible.
    """
    default, known = Origin.DEFAULT, Origin.KNOWN
    proposals = [
        Proposal(architecture, origin=known if index else default)
        for index, architecture in enumerate(space.portfolio(task))
    ]
    started, found = time.monotonic(), list[Proposal]()
    for proposal in proposals:
        if deadline is not None and time.monotonic() >= (
            started + MAX_TIME_SHARE * (deadline - started) if found else deadline
        ):
            break
        if feasible(proposal.architecture):
            found.append(proposal)
    return found


def next_number(history: History) -> int:
    """Return the largest number plus one: trials that never started leave gaps."""
    return 1 + max((trial.proposal.number for trial in history), default=-1)


def trial_seed(seed: int, number: int) -> int:
    """Return the seed of a trial, a function of its number alone."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
