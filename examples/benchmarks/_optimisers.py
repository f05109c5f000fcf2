"""Strategies of sknas and optimisers of others, with one ask-and-tell interface."""

from functools import partial
from tempfile import TemporaryDirectory

import numpy as np

from sknas._problem import Problem
from sknas.strategies import (
    BayesianStrategy,
    EvolutionStrategy,
    LocalStrategy,
    RandomStrategy,
    ReinforceStrategy,
    Trial,
)


class Ours:
    """A strategy of sknas.

    Parameters
    ----------
    table : Table
        The table to search.
    seed : int
        Seed of the strategy.
    strategy : Strategy
        The strategy.
    by_score : bool, default=False
        True to recommend the best score instead of the strategy's first rank.
    """

    def __init__(self, table, seed, strategy, by_score=False):
        self.strategy = strategy
        self.strategy.setup(table.space, Problem(), np.random.default_rng(seed))
        self.trials = []
        self.by_score = by_score

    def ask(self, n):
        self.proposals = self.strategy.propose(n)
        return [proposal.architecture for proposal in self.proposals]

    def tell(self, asked, scores):
        trials = [
            Trial(replace_number(p, len(self.trials) + j), score=score)
            for j, (p, score) in enumerate(zip(self.proposals, scores, strict=True))
        ]
        self.strategy.observe(trials)
        self.trials += trials

    def recommend(self):
        if self.by_score:
            return min(self.trials, key=lambda t: t.order).architecture
        return self.strategy.rank(self.trials)[0].architecture


def replace_number(proposal, number):
    """Return the proposal with a number."""
    return type(proposal)(proposal.architecture, number=number)


class Other:
    """An optimiser of another package; the best score is recommended."""

    def tell(self, asked, scores):
        if not hasattr(self, "observed"):
            self.observed = []
        self.observed += zip(scores, asked, strict=True)
        self.learn(scores)

    def recommend(self):
        return max(self.observed, key=lambda pair: pair[0])[1]


class Skopt(Other):
    """scikit-optimize's own Optimizer, at its defaults."""

    def __init__(self, table, seed, estimator):
        from skopt import Optimizer
        from skopt.space import Categorical, Integer

        self.table = table
        dimensions = [
            Categorical(values, name=name)
            if isinstance(values[0], str)
            else Integer(0, len(values) - 1, name=name)
            for name, values in table.choices.items()
        ]
        self.optimizer = Optimizer(dimensions, estimator, random_state=seed)

    def ask(self, n):
        self.points = self.optimizer.ask(n) if n > 1 else [self.optimizer.ask()]
        return [
            {
                name: point[j] if isinstance(values[0], str) else values[int(point[j])]
                for j, (name, values) in enumerate(self.table.choices.items())
            }
            for point in self.points
        ]

    def learn(self, scores):
        losses = [-score for score in scores]
        self.optimizer.tell(self.points, losses)


class Optuna(Other):
    """A sampler of Optuna, at its defaults."""

    def __init__(self, table, seed, name):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = getattr(optuna.samplers, name)(seed=seed)
        self.study = optuna.create_study(direction="maximize", sampler=sampler)
        self.table = table

    def ask(self, n):
        self.trials = [self.study.ask() for _ in range(n)]
        return [
            {
                name: trial.suggest_categorical(name, values)
                if isinstance(values[0], str)
                else values[trial.suggest_int(name, 0, len(values) - 1)]
                for name, values in self.table.choices.items()
            }
            for trial in self.trials
        ]

    def learn(self, scores):
        for trial, score in zip(self.trials, scores, strict=True):
            self.study.tell(trial, score)


class Smac(Other):
    """SMAC3's facade for small budgets of evaluations, at its defaults."""

    def __init__(self, table, seed):
        from ConfigSpace import Categorical, ConfigurationSpace, Integer
        from smac import HyperparameterOptimizationFacade as Facade
        from smac import Scenario

        self.table = table
        space = ConfigurationSpace(seed=seed)
        for name, values in table.choices.items():
            is_text = isinstance(values[0], str)
            space.add(
                Categorical(name, values)
                if is_text
                else Integer(name, (0, len(values) - 1))
            )
        self.folder = TemporaryDirectory()
        scenario = Scenario(
            space,
            n_trials=80,  # sizes its initial design
            seed=seed,
            output_directory=self.folder.name,
            deterministic=True,
        )
        self.facade = Facade(scenario, lambda config, seed=0: 0.0, logging_level=False)

    def ask(self, n):
        self.infos = [self.facade.ask() for _ in range(n)]
        return [
            {
                name: info.config[name]
                if isinstance(values[0], str)
                else values[info.config[name]]
                for name, values in self.table.choices.items()
            }
            for info in self.infos
        ]

    def learn(self, scores):
        from smac.runhistory.dataclasses import TrialValue

        for info, score in zip(self.infos, scores, strict=True):
            self.facade.tell(info, TrialValue(cost=-score))


def ours(cls, by_score=False, **parameters):
    """Return a function that makes a strategy of sknas."""
    return lambda table, seed: Ours(table, seed, cls(**parameters), by_score)


OPTIMISERS = {
    "random": ours(RandomStrategy),
    "local": ours(LocalStrategy),
    "evolution": ours(EvolutionStrategy),
    "reinforce": ours(ReinforceStrategy),
    "bayesian": ours(BayesianStrategy),
    "bayesian, best score": ours(BayesianStrategy, by_score=True),
    "bayesian, thompson": ours(BayesianStrategy, acquisition="thompson"),
    "bayesian, thompson batch": ours(BayesianStrategy, batch="thompson"),
    "bayesian, gp_hedge": ours(BayesianStrategy, acquisition="gp_hedge"),
    "bayesian, gp": ours(BayesianStrategy, surrogate="gp"),
    "bayesian, rf": ours(BayesianStrategy, surrogate="rf"),
    "bayesian, et": ours(BayesianStrategy, surrogate="et"),
    "bayesian, gbrt": ours(BayesianStrategy, surrogate="gbrt"),
    "bayesian, deep-ensemble": ours(BayesianStrategy, surrogate="deep-ensemble"),
    "bayesian, wl": ours(BayesianStrategy, surrogate="wl"),
    "skopt gp": partial(Skopt, estimator="GP"),
    "skopt forest": partial(Skopt, estimator="RF"),
    "optuna tpe": partial(Optuna, name="TPESampler"),
    "optuna gp": partial(Optuna, name="GPSampler"),
    "smac": Smac,
}
# `sknas.search` for noisy scores, which runs its own loop.
SEARCHED = "bayesian, scored again"
NAMES = (*OPTIMISERS, SEARCHED)
# Fewer seeds: more than 0.1 s per proposal, or three searches.
SLOW = (
    SEARCHED,
    "bayesian, gp",
    "bayesian, rf",
    "bayesian, et",
    "bayesian, gbrt",
    "bayesian, deep-ensemble",
    "skopt gp",
    "skopt forest",
    "optuna gp",
    "smac",
)
BATCHED = ("bayesian", "bayesian, thompson batch", "evolution")
TIMED = ("bayesian", "skopt gp", "skopt forest", "optuna tpe", "optuna gp")
