"""Records of a search by gradient, and its convergence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sknas.nets import MixedChoice
from sknas.strategies.gradient.alphas import Alphas

# Fractions of a search: it has converged once the derived architecture has not changed
# for `CONVERGED_FOR`, counted from `CONVERGED_FROM` on.
CONVERGED_FROM, CONVERGED_FOR = 0.5, 0.1


@dataclass
class SearchRecords:
    """Records of a search by gradient.

    Parameters
    ----------
    shares : ndarray of shape (n_records, A)
        Shares of the options of all choices.
    entropies : list of float
        Mean entropy of the choices at each record.
    eigenvalues : list of float
        Dominant eigenvalue of the Hessian of the alphas, from time to time.
    derived : object, default=None
        Architecture that was derived last.
    same_since : float, default=0.0
        Fraction of the search since which it has been the same.
    is_converged : bool, default=False
        True if the search has converged.
    """

    shares: np.ndarray
    entropies: list[float] = field(default_factory=list)
    eigenvalues: list[float] = field(default_factory=list)
    derived: Any = None
    same_since: float = 0.0
    is_converged: bool = False

    def add(self, alphas: Alphas) -> None:
        """Add a record of shares and entropy."""
        shares = np.concatenate(list(alphas.shares().values()))
        self.shares = np.vstack([self.shares, shares])
        self.entropies.append(alphas.entropy())

    def check_convergence(self, derived: Any, fraction: float) -> None:
        """Update `is_converged` by what is derived at a fraction of the search."""
        if derived != self.derived:
            self.derived, self.same_since = derived, fraction
        since = max(self.same_since, CONVERGED_FROM)
        self.is_converged = fraction - since >= CONVERGED_FOR

    def trajectory(self, choices: Mapping[str, MixedChoice]) -> dict[str, np.ndarray]:
        """Return the shares of each choice, (n_records, n_options)."""
        sizes = [len(choice.options) for choice in choices.values()]
        parts = np.split(self.shares, np.cumsum(sizes)[:-1], axis=1)
        return dict(zip(choices, parts, strict=True))
