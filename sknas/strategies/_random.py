"""Random search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sknas._history import Proposal, Trial
from sknas._problem import Problem
from sknas.spaces import Space, UnseenSampler
from sknas.strategies._base import Strategy


class RandomStrategy(Strategy):
    """Sample architectures from the prior of the space, without repeats.

    References
    ----------
    Bergstra, Bengio: Random Search for Hyper-Parameter Optimization. Journal of
    Machine Learning Research 13, 2012.
    Li, Talwalkar: Random Search and Reproducibility for Neural Architecture Search.
    arXiv:1902.07638.

    Examples
    --------
    >>> import sknas
    >>> history = sknas.search(
    ...     lambda a: -((a["x"] - 3) ** 2), {"x": (0, 9)}, strategy="random",
    ...     max_trials=10, random_state=0,
    ... )
    >>> history.best.architecture
    Architecture(x=3)
    """

    def setup(self, space: Space, problem: Problem, rng: np.random.Generator) -> None:
        self.sampler_ = UnseenSampler(space, problem.feasible, rng)

    def propose(self, n: int) -> list[Proposal]:
        return [Proposal(architecture) for architecture in self.sampler_.fill_up([], n)]

    def observe(self, trials: Sequence[Trial]) -> None:
        self.sampler_.mark(trial.architecture for trial in trials)
