"""Local search climbs, and starts anew."""

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
    """Proposals one by one, with the current architecture before each."""
    strategy.setup(space, Problem(), np.random.default_rng(seed))
    told = []
    for number in range(n):
        before = strategy.current_
        (proposal,) = strategy.propose(1)
        trial = Trial(
            type(proposal)(proposal.architecture, number=number),
            score=score(proposal.architecture),
        )
        strategy.observe([trial])
        told.append((before, trial))
    return told


def test_it_starts_from_the_best_of_some():
    told = steps(LocalStrategy(n_starting=4), hill, 5)
    assert [before for before, _ in told[:4]] == [None] * 4
    scores = [trial.score for _, trial in told[:4]]
    strategy = LocalStrategy(n_starting=4)
    told = steps(strategy, hill, 5)
    start = max(scores)
    assert strategy.current_.score >= start


def test_it_moves_to_the_first_better_neighbour():
    told = steps(LocalStrategy(), lambda a: -sum(a.values()), 40, WIDE)
    for before, trial in told[6:]:
        if before is None:
            continue
        here, there = before.architecture, trial.architecture
        assert 1 <= sum(here[name] != there[name] for name in here) <= 2
    told = steps(LocalStrategy(), hill)
    bests = [before.score for before, _ in told if before is not None]
    climbs = np.diff(bests)
    assert (climbs >= 0).sum() > 0.9 * len(climbs)  # but for a new start
    assert max(bests) > -5


def test_at_the_top_it_starts_anew():
    space = DictSpace({"x": (0, 100)})
    strategy = LocalStrategy(n_starting=2)
    told = steps(strategy, lambda a: float(a["x"] == 50) + 0.001 * a["x"], 80, space)
    restarts = [
        number
        for number in range(3, 80)
        if told[number][0] is None and told[number - 1][0] is not None
    ]
    assert restarts


def test_failed_neighbours_count_as_worse():
    strategy = LocalStrategy(n_starting=1)
    strategy.setup(GRID, Problem(), np.random.default_rng(0))
    (first,) = strategy.propose(1)
    strategy.observe([Trial(first, score=0.0)])
    for _ in range(8):  # two choices, four tries of each
        (proposal,) = strategy.propose(1)
        assert strategy.current_ is not None
        strategy.observe([Trial(proposal, status="failed")])
    strategy.propose(1)
    assert strategy.current_ is None


@pytest.mark.parametrize("n_starting", [0, 1.5])
def test_wrong_parameters(n_starting):
    with pytest.raises(ValueError, match="'n_starting' parameter of LocalStrategy"):
        sknas.search(hill, GRID, strategy=LocalStrategy(n_starting), max_trials=2)
