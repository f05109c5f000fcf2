"""Policy gradient with rejection sampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sknas._history import Architecture, Proposal, Trial, Value
from sknas._problem import Problem
from sknas._validation import check_integer, check_positive
from sknas.spaces import Choice, Space, UnseenSampler
from sknas.spaces._base import assemble
from sknas.strategies._base import MAX_DRAWN, Strategy
from sknas.strategies.bayesian.warping import warp_losses

BETAS = (0.9, 0.999)  # decay rates of Adam's two moments
MAX_BATCHES = 50  # policy samples before the rest is drawn from the prior


class ReinforceStrategy(Strategy):
    """Learn the probability of each value of each choice by policy gradient.

    Infeasible samples are rejected before training. The gradient is that of the
    probability conditional on feasibility, so that good architectures at the border of
    the feasible region are found. Numeric ranges are discretised.

    Parameters
    ----------
    lr : float, default=0.1
        Learning rate of Adam, which updates the logits.
    n_values : int, default=8
        Maximum number of values a range is discretised into, up to 100,000.
    n_estimating : int, default=256
        Number of samples that estimate the probability of feasibility, up to 100,000.

    References
    ----------
    Yang, Bender, Le, Liu, Lu, Gordon, Kiddon, Le, Tan, et al.: TabNAS: Rejection
    Sampling for Neural Architecture Search on Tabular Datasets. arXiv:2204.07615.
    Williams: Simple Statistical Gradient-Following Algorithms for Connectionist
    Reinforcement Learning. Machine Learning 8, 1992.

    Examples
    --------
    >>> import sknas
    >>> history = sknas.search(
    ...     lambda a: a["x"] + a["y"], {"x": (1, 9), "y": (1, 9)}, strategy="reinforce",
    ...     constraints=lambda a: a["x"] * a["y"] <= 20, max_trials=40, random_state=0,
    ... )
    >>> history.best.score >= 10
    True
    """

    def __init__(
        self, lr: float = 0.1, n_values: int = 8, n_estimating: int = 256
    ) -> None:
        self.lr = lr
        self.n_values = n_values
        self.n_estimating = n_estimating

    def setup(self, space: Space, problem: Problem, rng: np.random.Generator) -> None:
        caller_name = type(self).__name__
        check_positive(caller_name, "lr", self.lr)
        check_integer(caller_name, "n_values", self.n_values, 2, MAX_DRAWN)
        check_integer(caller_name, "n_estimating", self.n_estimating, 1, MAX_DRAWN)
        self.rng_ = rng
        self.sampler_ = UnseenSampler(space, problem.feasible, rng)
        self.choices_ = dict(space.choices)
        self.values_ = {
            name: choice.grid(self.n_values) for name, choice in self.choices_.items()
        }
        self.logits_ = {
            name: np.log(prior_weights(self.choices_[name], values))
            for name, values in self.values_.items()
        }
        self.adam_ = {n: np.zeros((2, len(v))) for n, v in self.values_.items()}
        self.n_steps_ = 0
        self.scores_: list[float] = []

    def propose(self, n: int) -> list[Proposal]:
        chosen: dict[str, Architecture] = {}
        for _ in range(MAX_BATCHES):
            if len(chosen) == n:
                break
            unseen = self.sampler_.unseen(self._sample(n), n - len(chosen))
            chosen |= {architecture.key: architecture for architecture in unseen}
        filled = self.sampler_.fill_up(list(chosen.values()), n)
        return [Proposal(architecture) for architecture in filled]

    def observe(self, trials: Sequence[Trial]) -> None:
        self.sampler_.mark(trial.architecture for trial in trials)
        scored = [(t.architecture, t.score) for t in trials if t.score is not None]
        baseline = self._feasible_gradient() if scored else {}
        # Compute all gradients before the first step, at the policy of the batch.
        gradients = [self._log_prob_gradient(a) for a, _ in scored]
        for gradient, (_, score) in zip(gradients, scored, strict=True):
            self._step(gradient, score, baseline)

    def probabilities(self) -> dict[str, np.ndarray]:
        """Return the probability of each value of each choice, where it is active."""
        odds = {n: np.exp(logit - logit.max()) for n, logit in self.logits_.items()}
        return {name: values / values.sum() for name, values in odds.items()}

    def _sample(self, n: int) -> list[Architecture]:
        """Sample `n` architectures from the policy, feasible or not."""
        indices = {
            name: self.rng_.choice(len(p), size=n, p=p).tolist()
            for name, p in self.probabilities().items()
        }

        def sampled(row: int) -> Architecture:
            return assemble(
                self.choices_, lambda name, _: self.values_[name][indices[name][row]]
            )

        return [sampled(row) for row in range(n)]

    def _step(
        self,
        gradient: dict[str, np.ndarray],
        score: float,
        baseline: dict[str, np.ndarray],
    ) -> None:
        """Take an Adam step along advantage * (gradient - baseline)."""
        self.n_steps_ += 1
        self.scores_.append(score)
        # Warping keeps an outlier from dominating the other scores.
        advantage = -warp_losses(self.scores_)[-1]
        for name, logits in self.logits_.items():
            ascent = advantage * (gradient[name] - baseline[name])
            first, second = self.adam_[name]
            first += (1 - BETAS[0]) * (ascent - first)
            second += (1 - BETAS[1]) * (ascent**2 - second)
            unbiased = first / (1 - BETAS[0] ** self.n_steps_)
            scale = np.sqrt(second / (1 - BETAS[1] ** self.n_steps_)) + 1e-8
            logits += self.lr * unbiased / scale

    def _log_prob_gradient(self, architecture: Architecture) -> dict[str, np.ndarray]:
        """Return the gradient of an architecture's log-probability in the logits."""
        gradient = {}
        probabilities = self.probabilities()
        for name, values in self.values_.items():
            gradient[name] = np.zeros(len(values))
            if name in architecture:
                gradient[name] -= probabilities[name]
                choice = self.choices_[name]
                gradient[name][nearest_index(choice, values, architecture[name])] += 1
        return gradient

    def _feasible_gradient(self) -> dict[str, np.ndarray]:
        """Estimate the gradient of the log-probability of being feasible."""
        sampled = self._sample(self.n_estimating)
        feasible = [a for a in sampled if self.sampler_.feasible(a)]
        zeros = {name: np.zeros(len(v)) for name, v in self.values_.items()}
        if len(feasible) in (0, len(sampled)):
            return zeros
        gradients = [self._log_prob_gradient(a) for a in feasible]
        return {name: np.mean([g[name] for g in gradients], axis=0) for name in zeros}


def prior_weights(choice: Choice, values: Sequence[Value]) -> list[float]:
    """Return the prior weights of values of a choice, equal if it has none."""
    if choice.weights is None:
        return [1.0] * len(values)
    weights = dict(zip(choice.values(), choice.weights, strict=True))
    return [float(weights[value]) for value in values]


def nearest_index(choice: Choice, values: list[Value], value: Value) -> int:
    """Return the index of the value whose code is nearest to that of `value`."""
    codes = np.array([choice.encode(v) for v in [*values, value]])
    return int(np.abs(codes[:-1] - codes[-1]).sum(axis=1).argmin())
