"""Numbers, seeds and the initial design of a search."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sknas._history import Architecture, History, Origin, Proposal
from sknas._problem import TaskSpec
from sknas.spaces import Space


def initial_design(
    space: Space,
    task: TaskSpec | None,
    feasible: Callable[[Architecture], bool],
) -> list[Proposal]:
    """Return the default architecture and the known ones that are feasible."""
    default, known = Origin.DEFAULT, Origin.KNOWN
    proposals = [
        Proposal(architecture, origin=known if index else default)
        for index, architecture in enumerate(space.portfolio(task))
    ]
    return [p for p in proposals if feasible(p.architecture)]


def next_number(history: History) -> int:
    """Return the largest number plus one: trials that never started leave gaps."""
    return 1 + max((trial.proposal.number for trial in history), default=-1)


def trial_seed(seed: int, number: int) -> int:
    """Return the seed of a trial, a function of its number alone."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
