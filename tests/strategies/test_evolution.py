"""Regularised evolution: age limits the population, tournaments choose parents."""

import numpy as np
import pytest

import sknas
from sknas._history import Proposal, Trial
from sknas._problem import Problem
from sknas.spaces import DictSpace
from sknas.strategies import EvolutionStrategy

SPACE = DictSpace({f"x{j}": (0, 9) for j in range(4)})


def value(a):
    return -sum(abs(v - 5) for v in a.values())


def set_up(strategy, seed=0):
    strategy.setup(SPACE, Problem(), np.random.default_rng(seed))
    return strategy


def trial(architecture, score, number=0):
    return Trial(Proposal(SPACE.fill(architecture), number=number), score=score)


def test_oldest_trials_leave_the_population():
    strategy = set_up(EvolutionStrategy(population_size=3))
    some = [{f"x{j}": n for j in range(4)} for n in range(5)]
    strategy.observe([trial(a, 10.0 - n, n) for n, a in enumerate(some)])
    values = [t.architecture["x0"] for t in strategy.population_]
    assert values == [2, 3, 4]  # although the oldest two are the best


def test_failed_trials_never_join_the_population():
    strategy = set_up(EvolutionStrategy())
    strategy.observe([Trial(Proposal(SPACE.fill({f"x{j}": 1 for j in range(4)})))])
    assert not strategy.population_


def test_children_differ_from_the_best_of_a_sample_in_one_or_two_choices():
    strategy = set_up(EvolutionStrategy(population_size=2, sample_size=2))
    best = {f"x{j}": 5 for j in range(4)}
    worst = {f"x{j}": 0 for j in range(4)}
    strategy.observe([trial(worst, -20.0), trial(best, 0.0, 1)])
    for proposal in strategy.propose(12):
        changed = [n for n, v in proposal.architecture.items() if v != best[n]]
        assert 1 <= len(changed) <= 2


def test_parents_are_random_with_a_sample_of_one():
    strategy = set_up(EvolutionStrategy(population_size=2, sample_size=1))
    low, high = ({f"x{j}": n for j in range(4)} for n in (0, 9))
    strategy.observe([trial(low, 0.0), trial(high, 1.0, 1)])
    means = [np.mean(list(p.architecture.values())) for p in strategy.propose(30)]
    assert min(means) < 3 and max(means) > 6


def test_evolution_beats_random_search():
    def found(strategy):
        return np.mean(
            [
                sknas.search(
                    value, SPACE, strategy=strategy, max_trials=80, random_state=seed
                ).best.score
                for seed in range(6)
            ]
        )

    assert found("evolution") > found("random") + 1


@pytest.mark.parametrize(
    ("params", "name"),
    [({"population_size": 1}, "population_size"), ({"sample_size": 0}, "sample_size")],
)
def test_wrong_parameters_raise_an_error(params, name):
    with pytest.raises(ValueError, match=f"'{name}' parameter of EvolutionStrategy"):
        sknas.search(value, SPACE, strategy=EvolutionStrategy(**params), max_trials=2)
