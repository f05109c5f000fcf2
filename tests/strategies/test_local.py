"""Local search climbs, and restarts at local optima."""

import numpy as np
import pytest

import sknas
from sknas._history import Trial
from sknas._problem import Problem
from sknas.spaces import DictSpace
from sknas.strategies import LocalStrategy

GRID = DictSpace({"x": (0, 30), "y": (0, 30)})
WIDE = DictSpace({f"x{j}": (0, 9) for j in range(5)})


def hill(a):
    return -abs(a["x"] - 20) - abs(a["y"] - 5)


def steps(strategy, score, n=60, space=GRID, seed=0):
    """Run a search one trial at a time.

    Returns
    -------
    list of (Trial or None, Trial)
        The current trial before each step, and the trial of the step.
    """
    strategy.setup(space, Problem(), np.random.default_rng(seed))
    log = []
    for number in range(n):
        before = strategy.current_
        (proposal,) = strategy.propose(1)
        trial = Trial(
            type(proposal)(proposal.architecture, number=number),
            score=score(proposal.architecture),
        )
        strategy.observe([trial])
        log.append((before, trial))
    return log


def test_search_starts_from_the_best_initial_trial():
    log = steps(LocalStrategy(n_starting=4), hill, 5)
    assert [before for before, _ in log[:4]] == [None] * 4
    scores = [trial.score for _, trial in log[:4]]
    strategy = LocalStrategy(n_starting=4)
    log = steps(strategy, hill, 5)
    start = max(scores)
    assert strategy.current_.score >= start


def test_search_moves_to_the_first_better_neighbour():
    log = steps(LocalStrategy(), lambda a: -sum(a.values()), 40, WIDE)
    for before, trial in log[6:]:
        if before is None:
            continue
        here, there = before.architecture, trial.architecture
        assert 1 <= sum(here[name] != there[name] for name in here) <= 2
    log = steps(LocalStrategy(), hill)
    bests = [before.score for before, _ in log if before is not None]
    climbs = np.diff(bests)
    assert (climbs >= 0).sum() > 0.9 * len(climbs)  # except at restarts
    assert max(bests) > -5


def test_search_restarts_at_a_local_optimum():
    space = DictSpace({"x": (0, 100)})
    strategy = LocalStrategy(n_starting=2)
    log = steps(strategy, lambda a: float(a["x"] == 50) + 0.001 * a["x"], 80, space)
    restarts = [
        number
        for number in range(3, 80)
        if log[number][0] is None and log[number - 1][0] is not None
    ]
    assert restarts


def test_failed_neighbours_count_as_worse():
    strategy = LocalStrategy(n_starting=1)
    strategy.setup(GRID, Problem(), np.random.default_rng(0))
    (first,) = strategy.propose(1)
    strategy.observe([Trial(first, score=0.0)])
    for _ in range(8):  # two choices, four neighbours each
        (proposal,) = strategy.propose(1)
        assert strategy.current_ is not None
        strategy.observe([Trial(proposal, status="failed")])
    strategy.propose(1)
    assert strategy.current_ is None


@pytest.mark.parametrize("n_starting", [0, 1.5])
def test_wrong_parameters_raise_an_error(n_starting):
    with pytest.raises(ValueError, match="'n_starting' parameter of LocalStrategy"):
        sknas.search(hill, GRID, strategy=LocalStrategy(n_starting), max_trials=2)
