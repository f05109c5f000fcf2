"""What to try next."""

from sknas._history import Proposal, Trial
from sknas.strategies._base import Strategy
from sknas.strategies._bayesian import BayesianStrategy
from sknas.strategies._random import RandomStrategy

STRATEGIES = {"bayesian": BayesianStrategy, "random": RandomStrategy}

__all__ = [
    "STRATEGIES",
    "BayesianStrategy",
    "Proposal",
    "RandomStrategy",
    "Strategy",
    "Trial",
]
