"""The previous search of a warm start, to which it adds trials."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sknas._budget import Budget
from sknas._checkpoint.fingerprint import PREVIOUS, differences
from sknas._history import History

# Entries in which a warm start may differ from its previous search. The random state
# has no effect: the seed is that of the previous search.
CHANGEABLE = (
    PREVIOUS,
    "constraints",
    "ensemble_size",
    "max_time",
    "max_trials",
    "random_state",
    "strategy",
)


@dataclass(frozen=True, eq=False)
class PreviousSearch:
    """A finished search, to which trials are added.

    Parameters
    ----------
    fingerprint : mapping of str to str
        Everything that its trials depended on, as text.
    seed : int
        Its seed, on which its folds depend.
    budget : Budget
        Steps of its trainings, and its number of folds.
    history : History
        Its trials, the best with their networks.
    """

    fingerprint: Mapping[str, str]
    seed: int
    budget: Budget
    history: History

    @property
    def digest(self) -> str:
        """Text that differs between searches of the same fingerprint."""
        trials = [(t.architecture.key, t.score, t.status.value) for t in self.history]
        return hashlib.sha256(repr((self.seed, trials)).encode()).hexdigest()[:16]

    def check(self, caller_name: str, fingerprint: Mapping[str, str]) -> None:
        """Check that data and parameters keep old and new scores comparable.

        Raises
        ------
        ValueError
            If one of them differs that must not.
        """
        names = differences(fingerprint, self.fingerprint)
        differing = [name for name in names if name not in CHANGEABLE]
        if differing:
            raise ValueError(
                f"warm_start=True adds to the trials of the last fit of "
                f"{caller_name}, but this one differs in {', '.join(differing)}: "
                "give the same, or set warm_start=False to start anew."
            )

    def extended_budget(self, budget: Budget) -> Budget:
        """Return the previous budget, with as many new trials as planned."""
        n_new = budget.n_trials
        n_trials = None if n_new is None else len(self.history) + n_new
        return replace(self.budget, n_trials=n_trials, n_proposals=budget.n_proposals)
