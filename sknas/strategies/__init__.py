"""What to try next."""

from sknas._history import History, Proposal, Trial
from sknas.strategies._base import Strategy
from sknas.strategies._bayesian import BayesianStrategy
from sknas.strategies._random import RandomStrategy

STRATEGIES = {"bayesian": BayesianStrategy, "random": RandomStrategy}

__all__ = [
    "STRATEGIES",
    "BayesianStrategy",
    "History",
    "Proposal",
    "RandomStrategy",
    "Strategy",
    "Trial",
]
