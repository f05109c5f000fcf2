"""What a fit leaves to the next one that adds to it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sknas._budget import Budget
from sknas._checkpoint.fingerprint import differences
from sknas._history import History

# What may differ from the fit before: how long and by whom is searched, what is made
# of it, and chance, which goes on where it was.
FREE = (
    "begun_from",
    "constraints",
    "ensemble_size",
    "max_time",
    "max_trials",
    "random_state",
    "strategy",
)


@dataclass(frozen=True, eq=False)
class PreviousSearch:
    """A search that was made, to be gone on with.

    Parameters
    ----------
    parts : mapping of str to str
        What it depended on, as `describe_search` tells it.
    seed : int
        Its seed, which its folds depend on.
    budget : Budget
        How much was trained, and on how many folds.
    history : History
        Its trials, the best with their networks.
    """

    parts: Mapping[str, str]
    seed: int
    budget: Budget
    history: History

    @property
    def digest(self) -> str:
        """Tells this search from others of the same parts."""
        told = [(t.architecture.key, t.score, t.status) for t in self.history]
        return hashlib.sha256(repr((self.seed, told)).encode()).hexdigest()[:16]

    def check(self, caller_name: str, parts: Mapping[str, str]) -> None:
        """Refuse to go on with other data, or where scores mean something else.

        Raises
        ------
        ValueError
            If something differs on which the trials depend.
        """
        differing = [n for n in differences(parts, self.parts) if n not in FREE]
        if differing:
            raise ValueError(
                f"warm_start=True adds to the trials of the last fit of "
                f"{caller_name}, and this one differs in {', '.join(differing)}: "
                "give the same, or set warm_start=False to begin anew."
            )

    def bounded(self, budget: Budget) -> Budget:
        """Its own lengths and folds, and room for as many new trials as planned."""
        n_new = budget.n_trials
        n_trials = None if n_new is None else len(self.history) + n_new
        return replace(self.budget, n_trials=n_trials, n_proposals=budget.n_proposals)
