"""A sampler of architectures that have not been proposed before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np

from sknas._history import Architecture
from sknas.spaces._base import Space
from sknas.spaces._choices import has_values

MAX_MISSES = 1_000  # maximum number of consecutive draws without a new architecture
MAX_LISTED = 200_000  # maximum number of architectures enumerated in a finite space
N_RECENT = 8  # latest architectures whose neighbours may be drawn
N_NEIGHBOURS = 20  # neighbours of each latest architecture


class UnseenSampler:
    """Draws feasible architectures of a space, each at most once.

    Parameters
    ----------
    space : Space
        The space to draw from.
    feasible : callable
        Returns True for an architecture that meets the constraints.
    rng : numpy.random.Generator
        Source of randomness.

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
        """Exclude architectures from future draws."""
        marked = list(architectures)
        self.mark_keys(a.key for a in marked)
        self._recent.extend(marked[-N_RECENT:])

    def mark_keys(self, keys: Iterable[str]) -> None:
        """Exclude architectures from future draws, by their keys."""
        self._seen.update(keys)

    def new(self, architectures: Iterable[Architecture]) -> list[Architecture]:
        """Return the architectures that are not excluded, without repeats."""
        by_key = {a.key: a for a in architectures}
        return [a for key, a in by_key.items() if key not in self._seen]

    def unseen(
        self, architectures: Iterable[Architecture], most: int | None = None
    ) -> list[Architecture]:
        """Return up to `most` architectures that are new and feasible.

        Constraints are not evaluated beyond that number, as that may build networks.
        """
        return list(islice(filter(self.feasible, self.new(architectures)), most))

    def fill_up(self, chosen: list[Architecture], n: int) -> list[Architecture]:
        """Add draws to some architectures up to `n`, and exclude all of them."""
        self.mark(chosen)
        drawn = self.draw(n - len(chosen))
        self.mark(drawn)
        return chosen + drawn

    def draw(self, n: int) -> list[Architecture]:
        """Draw up to `n` new architectures; fewer if no more are found."""
        drawn: dict[str, Architecture] = {}
        misses = 0
        while len(drawn) < n and misses < MAX_MISSES:
            sampled = self.space.sample(n - len(drawn), self.rng)
            new = [a for a in self.unseen(sampled) if a.key not in drawn]
            drawn |= {a.key: a for a in new}
            misses = 0 if new else misses + len(sampled)
        # If hardly any sample is feasible, neighbours of recent ones may be.
        for recent in reversed(self._recent):
            if len(drawn) < n and has_values(self.space.choices, recent):
                near = self.space.neighbours(recent, N_NEIGHBOURS, self.rng)
                near = [a for a in near if a.key not in drawn]
                drawn |= {a.key: a for a in self.unseen(near, n - len(drawn))}
        if len(drawn) < n and self.space.is_finite:
            drawn |= {a.key: a for a in self._listed(n - len(drawn), set(drawn))}
        return list(drawn.values())

    def is_over(self) -> bool:
        """Return True if all architectures of the space were drawn.

        Returns
        -------
        bool
            False for an infinite space, and for one that is too large to enumerate.
        """
        if not self.space.is_finite:
            return False
        return all(
            number < MAX_LISTED and not self.unseen([architecture])
            for number, architecture in enumerate(self.space.enumerate())
        )

    def _listed(self, n: int, drawn: set[str]) -> list[Architecture]:
        """Return new architectures that draws missed, by enumerating the space."""
        listed = islice(self.space.enumerate(), MAX_LISTED)
        missed = (a for a in listed if a.key not in drawn and self.unseen([a]))
        return list(islice(missed, n))
