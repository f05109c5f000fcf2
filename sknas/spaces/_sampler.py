"""Drawing architectures that were not proposed before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np

from sknas._history import Architecture
from sknas.spaces._base import Space

PATIENCE = 1_000  # draws without a new architecture after which no more are made
MAX_LISTED = 200_000  # architectures listed at most
N_RECENT, N_NEAR = 8, 20  # architectures that neighbours are drawn of, and how many


class UnseenSampler:
    """Draws feasible architectures of a space, each at most once.

    Parameters
    ----------
    space : Space
        Where to draw.
    feasible : callable
        Whether an architecture keeps the constraints.
    rng : numpy.random.Generator
        Draws.

    Examples
    --------
    >>> import numpy as np
    >>> from sknas.spaces import DictSpace, UnseenSampler
    >>> space = DictSpace({"size": (1, 3)})
    >>> sampler = UnseenSampler(space, lambda a: True, np.random.default_rng(0))
    >>> sorted(architecture["size"] for architecture in sampler.draw(5))
    [1, 2, 3]
    """

    def __init__(
        self,
        space: Space,
        feasible: Callable[[Architecture], bool],
        rng: np.random.Generator,
    ) -> None:
        self.space = space
        self.feasible = feasible
        self.rng = rng
        self._seen: set[str] = set()
        self._recent: deque[Architecture] = deque(maxlen=N_RECENT)

    def mark(self, architectures: Iterable[Architecture]) -> None:
        """Architectures not to be drawn any more."""
        marked = list(architectures)
        self.mark_keys(a.key for a in marked)
        self._recent.extend(marked[-N_RECENT:])

    def _is_own(self, architecture: Architecture) -> bool:
        """Whether the space knows its values: others have no neighbours."""
        choices = self.space.choices
        return all(
            name in choices and choices[name].contains(value)
            for name, value in architecture.items()
        )

    def mark_keys(self, keys: Iterable[str]) -> None:
        """The same, by their keys."""
        self._seen.update(keys)

    def new(self, architectures: Iterable[Architecture]) -> list[Architecture]:
        """Those of some architectures that are new, feasible or not; no repeats."""
        by_key = {a.key: a for a in architectures}
        return [a for key, a in by_key.items() if key not in self._seen]

    def unseen(
        self, architectures: Iterable[Architecture], most: int | None = None
    ) -> list[Architecture]:
        """The first of some architectures that are new and feasible, no repeats.

        After `most` of them no more are asked about: that may mean to build them.
        """
        return list(islice(filter(self.feasible, self.new(architectures)), most))

    def draw(self, n: int) -> list[Architecture]:
        """Up to `n` new architectures; fewer where no more are found."""
        drawn: dict[str, Architecture] = {}
        misses = 0
        while len(drawn) < n and misses < PATIENCE:
            tried = self.space.sample(n - len(drawn), self.rng)
            fresh = [a for a in self.unseen(tried) if a.key not in drawn]
            drawn |= {a.key: a for a in fresh}
            misses = 0 if fresh else misses + len(tried)
        for here in reversed(self._recent):  # where hardly any draw is feasible
            if len(drawn) < n and self._is_own(here):
                near = self.space.neighbours(here, N_NEAR, self.rng)
                near = [a for a in near if a.key not in drawn]
                drawn |= {a.key: a for a in self.unseen(near, n - len(drawn))}
        if len(drawn) < n and self.space.is_finite:
            drawn |= {a.key: a for a in self._listed(n - len(drawn), set(drawn))}
        return list(drawn.values())

    def is_over(self) -> bool:
        """Whether all of a space was drawn.

        Returns
        -------
        bool
            False for an infinite space, and for one that is too large to be listed.
        """
        if not self.space.is_finite:
            return False
        for number, architecture in enumerate(self.space.enumerate()):
            if number == MAX_LISTED or self.unseen([architecture]):
                return False
        return True

    def _listed(self, n: int, drawn: set[str]) -> list[Architecture]:
        """What random draws missed, found by listing the space."""
        left: list[Architecture] = []
        for number, architecture in enumerate(self.space.enumerate()):
            if number == MAX_LISTED or len(left) == n:
                break
            if architecture.key not in drawn and self.unseen([architecture]):
                left.append(architecture)
        return left
