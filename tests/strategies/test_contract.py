"""Every strategy keeps the contract of a strategy."""

import numpy as np
import pytest
from sklearn.base import clone

import sknas
from sknas._history import Proposal, Trial
from sknas._problem import Problem
from sknas.spaces import Categorical, DictSpace, Integer, Real
from sknas.strategies import STRATEGIES, BayesianStrategy, RandomStrategy
from sknas.strategies._bayesian import ACQUISITIONS, SURROGATES

ALL = [cls() for cls in STRATEGIES.values()]
ALL += [BayesianStrategy(surrogate=s, n_initial_points=4) for s in SURROGATES]
ALL += [BayesianStrategy(acquisition=a, n_initial_points=4) for a in ACQUISITIONS]

SPACE = DictSpace(
    {
        "kind": Categorical(["a", "b", "c"]),
        "depth": Integer(1, 6),
        "rate": Real(1e-4, 1.0, log=True, when=("kind", ("a", "b"))),
    }
)


def value(architecture):
    """Best at kind a, depth 4, rate 0.01."""
    score = -abs(architecture["depth"] - 4) - (architecture["kind"] != "a")
    return score - abs(np.log10(architecture.get("rate", 1.0)) + 2)


def run(strategy, n_batches=6, seed=0, space=SPACE, feasible=lambda a: True):
    strategy = clone(strategy)
    strategy.setup(space, Problem(feasible=feasible), np.random.default_rng(seed))
    trials = []
    for _ in range(n_batches):
        for proposal in strategy.propose(4):
            number = len(trials)
            is_bad = number % 5 == 3  # failed trials are part of life
            status, score = ("failed", None) if is_bad else ("ok", 0.0)
            if not is_bad:
                score = value(proposal.architecture)
            trials.append(Trial(proposal, status=status, score=score))
        strategy.observe(trials[-4:])
    return trials


def ids(strategy):
    return repr(strategy)


@pytest.mark.parametrize("strategy", ALL, ids=ids)
def test_proposals_are_new_valid_and_plain(strategy):
    trials = run(strategy)
    assert len(trials) == 24
    keys = [trial.architecture.key for trial in trials]
    assert len(set(keys)) == len(keys)
    for trial in trials:
        architecture = trial.architecture
        assert SPACE.fill(architecture) == architecture
        assert {type(v) for v in architecture.values()} <= {str, int, float}


@pytest.mark.parametrize("strategy", ALL, ids=ids)
def test_same_seed_same_proposals(strategy):
    first, again, other = run(strategy), run(strategy), run(strategy, seed=1)
    assert [t.architecture.key for t in first] == [t.architecture.key for t in again]
    assert [t.architecture.key for t in first] != [t.architecture.key for t in other]


@pytest.mark.parametrize("strategy", ALL, ids=ids)
def test_state_stays_in_the_clone(strategy):
    before = dict(vars(strategy))
    sknas.search(value, SPACE, strategy=strategy, max_trials=9, random_state=0)
    assert vars(strategy) == before


@pytest.mark.parametrize("strategy", ALL, ids=ids)
def test_infeasible_architectures_are_never_proposed(strategy):
    trials = run(strategy, feasible=lambda a: a["depth"] <= 2)
    assert {trial.architecture["depth"] for trial in trials} == {1, 2}


@pytest.mark.parametrize("strategy", ALL, ids=ids)
def test_finite_space_is_listed_whole_and_then_ends(strategy):
    space = DictSpace({"a": Integer(0, 4), "b": Categorical(["x", "y"])})
    strategy = clone(strategy)
    strategy.setup(space, Problem(), np.random.default_rng(0))
    seen = []
    while proposals := strategy.propose(4):
        trials = [Trial(p, score=float(p.architecture["a"])) for p in proposals]
        strategy.observe(trials)
        seen += [p.architecture.key for p in proposals]
    assert sorted(seen) == sorted(a.key for a in space.enumerate())


@pytest.mark.parametrize("strategy", ALL, ids=ids)
def test_what_others_tried_is_not_proposed_again(strategy):
    space = DictSpace({"a": Integer(0, 5)})
    strategy = clone(strategy)
    strategy.setup(space, Problem(), np.random.default_rng(0))
    given = list(space.enumerate())[:4]
    strategy.observe([Trial(Proposal(a), score=1.0) for a in given])
    proposed = [p.architecture for p in strategy.propose(6)]
    assert {a["a"] for a in proposed} == {4, 5}


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_every_surrogate_beats_random_search(surrogate):
    space = {"x": (-1.0, 1.0), "y": (-1.0, 1.0), "z": ["a", "b", "c"]}

    def bowl(a):
        return -((a["x"] - 0.3) ** 2) - (a["y"] + 0.5) ** 2 - 0.3 * (a["z"] != "b")

    def regret(strategy):
        found = [
            sknas.search(
                bowl, space, strategy=strategy, max_trials=32, random_state=seed
            ).best.score
            for seed in range(5)
        ]
        return -np.mean(found)

    assert regret(BayesianStrategy(surrogate)) < 0.8 * regret(RandomStrategy())


@pytest.mark.parametrize(
    "params, message",
    [
        (
            {"surrogate": "gpp"},
            "must be one of 'gp', 'rf', 'et', 'gbrt', got 'gpp'; did",
        ),
        ({"acquisition": "ucb"}, "must be one of 'ei', 'pi', 'lcb', 'gp_hedge', got"),
        ({"n_initial_points": 0}, "'n_initial_points' parameter of Bayesian.* >= 1"),
        ({"n_draws": 0.5}, "'n_draws' parameter of BayesianStrategy must be"),
    ],
)
def test_wrong_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        sknas.search(value, SPACE, strategy=BayesianStrategy(**params), max_trials=2)
