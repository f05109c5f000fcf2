"""Search strategies, which propose the architectures to try next."""

from sknas._history import History, Proposal, Trial
from sknas.strategies._base import Strategy
from sknas.strategies._evolution import EvolutionStrategy
from sknas.strategies._local import LocalStrategy
from sknas.strategies._random import RandomStrategy
from sknas.strategies._reinforce import ReinforceStrategy
from sknas.strategies.bayesian.strategy import BayesianStrategy
from sknas.strategies.gradient.strategy import GradientStrategy

STRATEGIES = {
    "bayesian": BayesianStrategy,
    "evolution": EvolutionStrategy,
    "gradient": GradientStrategy,
    "local": LocalStrategy,
    "random": RandomStrategy,
    "reinforce": ReinforceStrategy,
}

__all__ = [
    "STRATEGIES",
    "BayesianStrategy",
    "EvolutionStrategy",
    "GradientStrategy",
    "History",
    "LocalStrategy",
    "Proposal",
    "RandomStrategy",
    "ReinforceStrategy",
    "Strategy",
    "Trial",
]
