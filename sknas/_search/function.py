"""Search with a Python function instead of networks: `sknas.search`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sknas._history import (
    Architecture,
    Cause,
    History,
    Proposal,
    Status,
    Trial,
)
from sknas._problem import Problem, RunContext
from sknas._resolve import draw_seed, find_part
from sknas._search.constraints import make_feasible
from sknas._search.loop import Search
from sknas._search.proposals import initial_design
from sknas._search.reevaluate import TOP_K
from sknas._training.isolation import fault_of
from sknas._training.settings import DefaultSettings
from sknas._validation import check_integer, check_positive, reject
from sknas.spaces import DictSpace, Space
from sknas.strategies import STRATEGIES, Strategy
from sknas.trainers import Trainer


def search(
    objective: Callable[[Mapping[str, Any]], float],
    space: Space | Mapping[str, Any],
    *,
    strategy: str | Strategy = "bayesian",
    max_trials: int,
    max_time: float | None = None,
    constraints: Mapping[str, float] | Callable[[Architecture], bool] | None = None,
    noisy: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> History:
    """Maximise a function of named choices.

    Parameters
    ----------
    objective : callable
        Gets an architecture, a mapping from names to plain Python values, and returns
        a score, greater is better. An exception or NaN is a failed trial.
    space : Space or mapping of str to list, tuple or Choice
        The choices. A list is categorical; ``(low, high)`` is a range of integers if
        both are int, else of reals; ``(low, high, "log")`` the same on a logarithmic
        scale; a `Choice` may have a condition.
    strategy : str or Strategy, default="bayesian"
        Proposes architectures: "bayesian", "evolution", "local", "reinforce", "random",
        or an object of `sknas.strategies`.
    max_trials : int
        Maximum number of architectures to evaluate.
    max_time : float or None, default=None
        Seconds after which neither an evaluation nor a call of `constraints` starts.
    constraints : mapping of str to float, callable or None, default=None
        Upper bounds of numeric choices, or a function that returns True for each
        architecture that is allowed.
    noisy : bool, default=False
        True if scores of the same architecture vary. The 5 that the strategy ranks
        highest are then evaluated once more at the end, beyond `max_trials`, and the
        one with the best mean is recommended; `History.best` has that mean as score.
    random_state : int, RandomState or None, default=None
        Seeds the strategy.

    Returns
    -------
    History
        All trials; `History.best` is the recommended one.

    Raises
    ------
    InvalidParameterError
        If a parameter is invalid.

    Examples
    --------
    >>> import sknas
    >>> history = sknas.search(
    ...     lambda a: -((a["x"] - 2.0) ** 2) + (a["shape"] == "round"),
    ...     {"x": (-5.0, 5.0), "shape": ["round", "square"]},
    ...     max_trials=25, random_state=0,
    ... )
    >>> history.best.architecture["shape"]
    'round'
    """
    caller_name = "search"
    if not callable(objective):
        reject(caller_name, "objective", objective, "callable")
    if not isinstance(space, Space):
        if not isinstance(space, Mapping) or not space:
            reject(caller_name, "space", space, "a Space or a dict of choices")
        space = DictSpace(space)
    n_trials = check_integer(caller_name, "max_trials", max_trials, 1)
    max_time = check_positive(caller_name, "max_time", max_time, optional=True)
    deadline = None if max_time is None else time.monotonic() + max_time
    seed = draw_seed(random_state)
    feasible = make_feasible(caller_name, constraints, space, None)
    problem = Problem(feasible=feasible, seed=seed)
    settings = DefaultSettings()

    def as_called(architecture: Mapping[str, Any]) -> float:
        """Call the objective under the settings of the caller, not of the search."""
        with settings.suspended():
            return objective(architecture)

    search = Search(
        space=space,
        strategy=find_part(caller_name, "strategy", strategy, STRATEGIES, Strategy),
        trainer=FunctionTrainer(as_called),
        problem=problem,
        context=RunContext(deadline=deadline),
        max_trials=n_trials,
        deadline=lambda history: deadline,
        n_reevaluated=TOP_K if noisy else 0,
    )
    with settings:
        return search.run(initial_design(space, None, feasible, deadline))


class FunctionTrainer(Trainer):
    """Scores proposals by a Python function.

    Parameters
    ----------
    objective : callable
        Architecture -> score.
    """

    n_proposals = 1  # so that each proposal is based on all earlier scores
    truncates_trainings = False

    def __init__(self, objective: Callable[[Mapping[str, Any]], float]) -> None:
        self.objective = objective

    def setup(self, space: Space, problem: Problem, context: RunContext) -> None:
        self.context_ = context

    def train(self, proposals: Sequence[Proposal]) -> list[Trial]:
        trials: list[Trial] = []
        for proposal in proposals:
            if self.context_.seconds_left <= 0:
                left = proposals[len(trials) :]
                return trials + [_not_started(p, Cause.OUT_OF_TIME) for p in left]
            try:
                trials.append(self._score(proposal))
            except KeyboardInterrupt:
                left = proposals[len(trials) :]
                trials += [_not_started(p, Cause.INTERRUPTED) for p in left]
                break
        return trials

    def _score(self, proposal: Proposal) -> Trial:
        started = time.monotonic()
        try:
            score = float(self.objective(proposal.architecture))
        except Exception as error:
            fault = fault_of(error)
            return Trial(
                proposal,
                status=Status.FAILED,
                cause=fault.cause,
                reason=str(fault),
                seconds=time.monotonic() - started,
            )
        return Trial(proposal, score=score, seconds=time.monotonic() - started)


def _not_started(proposal: Proposal, cause: Cause) -> Trial:
    return Trial(proposal, status=Status.STOPPED, cause=cause, reason=cause.value)
