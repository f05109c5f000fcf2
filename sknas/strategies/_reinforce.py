"""Search by policy gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sknas._history import Architecture, Proposal, Trial, Value
from sknas._problem import Problem
from sknas._validation import check_integer, check_positive
from sknas.spaces import Categorical, Choice, Space, UnseenSampler
from sknas.strategies._base import MAX_DRAWN, Strategy
from sknas.strategies.bayesian.warping import warp_losses

BETAS = (0.9, 0.999)  # of Adam
TRIES = 50  # draws for each new architecture, before it is taken from all over


class ReinforceStrategy(Strategy):
    """Learns the probability of each value of each choice from the scores.

    Draws that break the constraints are rejected before they cost anything, and the
    gradient is that of the probability among those that keep them, so that good
    architectures at the edge of what is allowed are found. Ranges of numbers are cut
    into values.

    Parameters
    ----------
    lr : float, default=0.1
        Learning rate of the logits.
    n_values : int, default=8
        Values a range is cut into, at most; no more than 100,000.
    n_estimating : int, default=256
        Draws that estimate how much of the space keeps the constraints; no more than
        100,000.

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
        self.space_, self.problem_, self.rng_ = space, problem, rng
        self.sampler_ = UnseenSampler(space, problem.feasible, rng)
        self.choices_ = dict(space.choices)
        self.values_ = {n: cut(c, self.n_values) for n, c in self.choices_.items()}
        self.logits_ = {
            n: first_logits(c, v)
            for (n, c), v in zip(
                self.choices_.items(), self.values_.values(), strict=True
            )
        }
        self.adam_ = {n: np.zeros((2, len(v))) for n, v in self.values_.items()}
        self.n_steps_ = 0
        self.scores_: list[float] = []

    def propose(self, n: int) -> list[Proposal]:
        chosen: dict[str, Architecture] = {}
        for _ in range(TRIES):
            if len(chosen) == n:
                break
            for architecture in self.sampler_.unseen(self._drawn(n), n - len(chosen)):
                chosen.setdefault(architecture.key, architecture)
        new = list(chosen.values())
        self.sampler_.mark(new)
        others = self.sampler_.draw(n - len(new))
        self.sampler_.mark(others)
        return [Proposal(architecture) for architecture in new + others]

    def observe(self, trials: Sequence[Trial]) -> None:
        self.sampler_.mark(trial.architecture for trial in trials)
        scored = [trial for trial in trials if trial.score is not None]
        usual = self._usual_slope() if scored else {}
        # All of the policy as it is before the first step.
        slopes = [self._slope(trial.architecture) for trial in scored]
        for trial, own in zip(scored, slopes, strict=True):
            self._learn(own, trial.score or 0.0, usual)

    def probabilities(self) -> dict[str, np.ndarray]:
        """Of each value of each choice, where the choice is active."""
        shares = {n: np.exp(logit - logit.max()) for n, logit in self.logits_.items()}
        return {name: share / share.sum() for name, share in shares.items()}

    def _drawn(self, n: int) -> list[Architecture]:
        """`n` draws of the policy, allowed or not."""
        places = {
            name: self.rng_.choice(len(share), size=n, p=share).tolist()
            for name, share in self.probabilities().items()
        }
        drawn = []
        for row in range(n):
            values: dict[str, Value] = {}
            for name, choice in self.choices_.items():
                if choice.is_active(values):
                    values[name] = self.values_[name][places[name][row]]
            drawn.append(Architecture(values))
        return drawn

    def _learn(
        self, own: dict[str, np.ndarray], score: float, usual: dict[str, np.ndarray]
    ) -> None:
        """A step of Adam along the advantage times the gradient of the log-share."""
        self.n_steps_ += 1
        self.scores_.append(score)
        # By its place among all of them: one that went astray spoils no other.
        advantage = -warp_losses(self.scores_)[-1]
        for name, logits in self.logits_.items():
            gradient = advantage * (own[name] - usual[name])
            first, second = self.adam_[name]
            first += (1 - BETAS[0]) * (gradient - first)
            second += (1 - BETAS[1]) * (gradient**2 - second)
            unbiased = first / (1 - BETAS[0] ** self.n_steps_)
            scale = np.sqrt(second / (1 - BETAS[1] ** self.n_steps_)) + 1e-8
            logits += self.lr * unbiased / scale

    def _slope(self, architecture: Architecture) -> dict[str, np.ndarray]:
        """Gradient of the log-probability of an architecture by all logits."""
        slope = {}
        probabilities = self.probabilities()
        for name, values in self.values_.items():
            slope[name] = np.zeros(len(values))
            if name in architecture:
                slope[name] -= probabilities[name]
                choice = self.choices_[name]
                slope[name][nearest(choice, values, architecture[name])] += 1
        return slope

    def _usual_slope(self) -> dict[str, np.ndarray]:
        """The mean gradient among architectures that keep the constraints."""
        drawn = self._drawn(self.n_estimating)
        allowed = [a for a in drawn if self.problem_.feasible(a)]
        zeros = {name: np.zeros(len(v)) for name, v in self.values_.items()}
        if len(allowed) in (0, len(drawn)):  # among all of them it is zero
            return zeros
        slopes = [self._slope(architecture) for architecture in allowed]
        return {name: np.mean([s[name] for s in slopes], axis=0) for name in zeros}


def cut(choice: Choice, n: int) -> list[Value]:
    """All values of a choice that are drawn at all, or `n` of a range."""
    if isinstance(choice, Categorical):
        drawn = list(choice.drawn_values())
        if not choice.ordered or len(drawn) <= n:
            return drawn
        return [drawn[int(j)] for j in np.linspace(0, len(drawn) - 1, n).round()]
    if choice.n_values <= n:
        return list(choice.values())
    codes = np.linspace(0, 1, n)
    return list(dict.fromkeys(choice.decode(np.array([code])) for code in codes))


def first_logits(choice: Choice, values: list[Value]) -> np.ndarray:
    """Logits of the prior."""
    return np.log(weights_of(choice, values))


def weights_of(choice: Choice, values: Sequence[Value]) -> list[float]:
    """Prior weights of values, all alike where the choice has none."""
    given = choice.weights if isinstance(choice, Categorical) else None
    if given is None:
        return [1.0] * len(values)
    weights = dict(zip(choice.values(), given, strict=True))
    return [float(weights[value]) for value in values]


def nearest(choice: Choice, values: list[Value], value: Value) -> int:
    """The place of a value, or of the one whose code is nearest."""
    codes = np.array([choice.encode(v) for v in [*values, value]])
    return int(np.abs(codes[:-1] - codes[-1]).sum(axis=1).argmin())
