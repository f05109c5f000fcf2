"""The contract of a strategy, run over every strategy."""

import time
from dataclasses import replace

import numpy as np
import pytest
from outside import OutsideStrategy
from sklearn.base import clone

import sknas
from sknas._history import Proposal, Trial
from sknas._problem import Problem, RunContext
from sknas.spaces import Architecture, Categorical, DictSpace, Integer, Real
from sknas.strategies import (
    STRATEGIES,
    BayesianStrategy,
    GradientStrategy,
    RandomStrategy,
)
from sknas.strategies.bayesian.gaussian_process import GaussianProcess
from sknas.strategies.bayesian.strategy import (
    ACQUISITION_NAMES,
    BATCHES,
    SURROGATES,
    _best_and_latest,
)

# Gradient search needs a supernet, and has its own tests.
ALL = [cls() for cls in STRATEGIES.values() if cls is not GradientStrategy]
ALL += [BayesianStrategy(surrogate=s, n_initial_points=4) for s in SURROGATES]
ALL += [BayesianStrategy(acquisition=a, n_initial_points=4) for a in ACQUISITION_NAMES]
ALL += [BayesianStrategy(batch=b, n_initial_points=4) for b in BATCHES]
ALL += [OutsideStrategy()]
SLOW = ("deep-ensemble", "et")  # surrogates whose proposals take seconds
PARAMS = [
    pytest.param(s, marks=pytest.mark.slow) if vars(s).get("surrogate") in SLOW else s
    for s in ALL
]


class Chain(DictSpace):
    """A space whose choices form a chain of nodes, for graph surrogates."""

    has_graph = True

    def graph(self, architecture):
        labels = [f"{name}={value}" for name, value in architecture.items()]
        return labels, [(j, j + 1) for j in range(len(labels) - 1)]


SPACE = Chain(
    {
        "kind": Categorical(["a", "b", "c"]),
        "depth": Integer(1, 6),
        "rate": Real(1e-4, 1.0, log=True, when=("kind", ("a", "b"))),
    }
)


def value(architecture):
    """Return the score of an architecture: best at kind a, depth 4, rate 0.01."""
    score = -abs(architecture["depth"] - 4) - (architecture["kind"] != "a")
    return score - abs(np.log10(architecture.get("rate", 1.0)) + 2)


def run(strategy, n_batches=6, seed=0, space=SPACE, feasible=lambda a: True):
    strategy = clone(strategy)
    strategy.setup(space, Problem(feasible=feasible), np.random.default_rng(seed))
    trials = []
    for _ in range(n_batches):
        for proposal in strategy.propose(4):
            number = len(trials)
            is_bad = number % 5 == 3  # some trials fail
            status, score = ("failed", None) if is_bad else ("ok", 0.0)
            if not is_bad:
                score = value(proposal.architecture)
            trials.append(Trial(proposal, status=status, score=score))
        strategy.observe(trials[-4:])
    return trials


def ids(strategy):
    return repr(strategy)


@pytest.mark.parametrize("strategy", PARAMS, ids=ids)
def test_proposals_are_new_valid_and_serialisable(strategy):
    trials = run(strategy)
    assert len(trials) == 24
    keys = [trial.architecture.key for trial in trials]
    assert len(set(keys)) == len(keys)
    for trial in trials:
        architecture = trial.architecture
        assert SPACE.fill(architecture) == architecture
        assert {type(v) for v in architecture.values()} <= {str, int, float}


@pytest.mark.parametrize("strategy", PARAMS, ids=ids)
def test_same_seed_same_proposals(strategy):
    first, again, other = run(strategy), run(strategy), run(strategy, seed=1)
    assert [t.architecture.key for t in first] == [t.architecture.key for t in again]
    assert [t.architecture.key for t in first] != [t.architecture.key for t in other]


@pytest.mark.parametrize("strategy", PARAMS, ids=ids)
def test_a_search_does_not_change_other_clones(strategy):
    before = dict(vars(strategy))
    sknas.search(value, SPACE, strategy=strategy, max_trials=9, random_state=0)
    assert vars(strategy) == before


@pytest.mark.parametrize("strategy", PARAMS, ids=ids)
def test_infeasible_architectures_are_never_proposed(strategy):
    trials = run(strategy, feasible=lambda a: a["depth"] <= 2)
    assert {trial.architecture["depth"] for trial in trials} == {1, 2}


@pytest.mark.parametrize("strategy", PARAMS, ids=ids)
def test_finite_space_is_proposed_completely(strategy):
    space = Chain({"a": Integer(0, 4), "b": Categorical(["x", "y"])})
    strategy = clone(strategy)
    strategy.setup(space, Problem(), np.random.default_rng(0))
    seen = []
    while proposals := strategy.propose(4):
        trials = [Trial(p, score=float(p.architecture["a"])) for p in proposals]
        strategy.observe(trials)
        seen += [p.architecture.key for p in proposals]
    assert sorted(seen) == sorted(a.key for a in space.enumerate())


@pytest.mark.parametrize("strategy", PARAMS, ids=ids)
def test_observed_architectures_are_not_proposed_again(strategy):
    space = Chain({"a": Integer(0, 5)})
    strategy = clone(strategy)
    strategy.setup(space, Problem(), np.random.default_rng(0))
    architectures = list(space.enumerate())[:4]
    strategy.observe([Trial(Proposal(a), score=1.0) for a in architectures])
    proposed = [p.architecture for p in strategy.propose(6)]
    assert {a["a"] for a in proposed} == {4, 5}


# "wl" compares graphs, and a dict has none.
COMPARED_SURROGATES = sorted({*SURROGATES} - {"hamming", "wl"})


@pytest.mark.parametrize(
    "surrogate",
    [
        "hamming",
        *(pytest.param(s, marks=pytest.mark.slow) for s in COMPARED_SURROGATES),
    ],
)
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
            "must be one of 'hamming', 'gp', 'rf', 'et', .*, got 'gpp'; did",
        ),
        ({"acquisition": "ucb"}, "must be one of 'ei', 'pi', 'lcb', 'eips', .*, got"),
        (
            {"batch": "lie"},
            "'batch' parameter of Bayes.* 'liar', 'thompson', got 'lie'",
        ),
        ({"n_initial_points": 0}, "'n_initial_points' parameter of Bayesian.* >= 1"),
        ({"n_draws": 0.5}, "'n_draws' parameter of BayesianStrategy must be"),
    ],
)
def test_wrong_parameters_raise_an_error(params, message):
    with pytest.raises(ValueError, match=message):
        sknas.search(value, SPACE, strategy=BayesianStrategy(**params), max_trials=2)


def test_graph_surrogate_needs_a_space_with_graphs():
    strategy = BayesianStrategy(surrogate="wl")
    with pytest.raises(ValueError, match=r"'surrogate' parameter .* no graph.*'wl'"):
        sknas.search(value, dict(SPACE.given), strategy=strategy, max_trials=2)


@pytest.mark.parametrize("strategy", PARAMS, ids=ids)
def test_rank_sorts_successful_trials(strategy):
    strategy = clone(strategy)
    strategy.setup(SPACE, Problem(), np.random.default_rng(0))
    trials = run(strategy)
    ranked = strategy.rank(trials)
    assert sorted(t.architecture.key for t in ranked) == sorted(
        t.architecture.key for t in trials if t.status == "ok"
    )
    best = max(t.score for t in trials if t.status == "ok")
    assert ranked[0].score > best - 2
    assert strategy.rank([t for t in trials if t.status != "ok"]) == []


def test_surrogate_ranks_a_lucky_score_lower():
    """A bad architecture scored best by luck; its neighbours reveal it."""
    space = DictSpace({f"x{j}": Integer(0, 3) for j in range(4)})
    rng = np.random.default_rng(0)
    drawn = {a.key: a for a in space.sample(60, rng)}
    architectures = list(drawn.values())
    true = [-sum(a.values()) for a in architectures]
    lucky = int(np.argsort(true)[5])  # one of the worst
    scores = [t + 20 * (j == lucky) for j, t in enumerate(true)]
    trials = [
        Trial(Proposal(a, number=j), score=score)
        for j, (a, score) in enumerate(zip(architectures, scores, strict=True))
    ]
    for strategy, is_fooled in ((RandomStrategy(), True), (BayesianStrategy(), False)):
        strategy.setup(space, Problem(), rng)
        first = strategy.rank(trials)[0].architecture
        assert (first.key == architectures[lucky].key) is is_fooled


@pytest.mark.parametrize("batch", BATCHES)
def test_batch_is_diverse(batch, monkeypatch):
    """Proposals are further apart than those of highest utility in one model."""
    space = DictSpace({"x": Real(0.0, 1.0), "y": Real(0.0, 1.0)})
    architectures = space.sample(12, np.random.default_rng(1))
    trials = [
        Trial(Proposal(a), score=-((a["x"] - 0.5) ** 2) - (a["y"] - 0.5) ** 2)
        for a in architectures
    ]

    def median_apart():
        strategy = BayesianStrategy(batch=batch)
        strategy.setup(space, Problem(), np.random.default_rng(0))
        strategy.observe(trials)
        codes = space.encode([p.architecture for p in strategy.propose(6)])
        apart = np.abs(codes[:, None] - codes[None]).sum(axis=2)
        return np.median(apart[np.triu_indices(6, 1)])

    spread = median_apart()
    monkeypatch.setattr(GaussianProcess, "fantasise", lambda self, x, y: self)
    batch = "liar"
    assert spread > 1.5 * median_apart()


def test_eips_prefers_short_trainings():
    """Of two equally good architectures, the faster one is proposed first."""
    space = DictSpace({"x": Integer(0, 20), "slow": Categorical([False, True])})

    def first(acquisition, seed):
        strategy = BayesianStrategy(acquisition=acquisition, n_initial_points=4)
        strategy.setup(space, Problem(), np.random.default_rng(seed))
        architectures = [a for a in space.enumerate() if a["x"] % 5 == 0]
        strategy.observe(
            [
                Trial(
                    Proposal(a, number=j),
                    score=-abs(a["x"] - 12.0),
                    seconds=100.0 if a["slow"] else 1.0,
                )
                for j, a in enumerate(architectures)
            ]
        )
        return strategy.propose(1)[0].architecture

    chosen = [first("eips", seed) for seed in range(6)]
    assert not any(a["slow"] for a in chosen)
    assert all(8 <= a["x"] <= 16 for a in chosen)


def test_cost_weight_ends_before_the_deadline(monkeypatch):
    space = DictSpace({"x": Integer(0, 20)})
    strategy = BayesianStrategy(acquisition="eips")
    now = time.monotonic()
    strategy.attach(RunContext(deadline=now + 100))
    strategy.setup(space, Problem(), np.random.default_rng(0))
    trials = [
        Trial(Proposal(a), score=0.0, seconds=float(a["x"] + 1))
        for a in space.enumerate()
    ]
    codes = space.encode([t.architecture for t in trials])
    useless = [
        replace(trial, seconds=seconds)
        for trial, seconds in zip(trials, [np.inf, 0.0] * 10 + [1.0], strict=True)
    ]
    assert strategy._cost_weight(trials, codes, 0) is not None
    assert strategy._cost_weight(trials, codes, 1) is None
    assert strategy._cost_weight(useless, codes, 0) is None
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert strategy._cost_weight(trials, codes, 0) is None


def at_rung(architecture, rung, score, number, origin="proposed"):
    """Return a trial that reached a rung, with scores that rise by 0.1 per rung."""
    scores = tuple(score - 0.1 * (rung - r) for r in range(rung + 1))
    proposal = Proposal(architecture, rung=rung, number=number, origin=origin)
    return Trial(proposal, score=score, rung_scores=scores)


def test_trials_of_a_higher_rung_are_ranked_first():
    space = DictSpace({"x": Integer(0, 40)})
    strategy = BayesianStrategy()
    strategy.setup(space, Problem(), np.random.default_rng(0))
    architectures = list(space.enumerate())
    trials = [at_rung(a, j % 3, float(a["x"]), j) for j, a in enumerate(architectures)]
    rungs = [t.proposal.rung for t in strategy.rank(trials)]
    assert rungs == sorted(rungs, reverse=True)
    tops = [t.architecture["x"] for t in strategy.rank(trials)[:5]]
    assert min(tops) > 25


def test_few_trials_are_compared_at_the_rung_all_reached():
    """Small sets of trials need fewer scores per rung."""
    strategy = BayesianStrategy()
    strategy.setup(
        DictSpace({"x": Integer(0, 100)}), Problem(), np.random.default_rng(0)
    )
    trials = [
        # The ranking at the first rung is the reverse of that at the last.
        replace(
            at_rung(Architecture({"x": x}), 3, float(x), j),
            rung_scores=(-float(x), 0.0, 0.0, float(x)),
        )
        for j, x in enumerate((5, 20, 40, 60, 80, 95))
    ]
    ranked = [trial.architecture["x"] for trial in strategy.rank(trials)]
    assert ranked[0] >= 80 and ranked[-1] <= 20
    strategy.observe(trials)
    assert np.median([p.architecture["x"] for p in strategy.propose(4)]) > 60


def test_initial_design_is_larger_if_trials_are_dropped():
    """Before 27 trials, half of a batch is near the portfolio; later, few are."""
    space = DictSpace({f"x{j}": Integer(0, 30) for j in range(4)})
    rng = np.random.default_rng(0)
    drawn = space.sample(30, rng)
    known = space.fill({f"x{j}": 15 for j in range(4)})

    def near(proposals):
        n_changes = [
            sum(p.architecture[n] != known[n] for n in known) for p in proposals
        ]
        return sum(n <= 2 for n in n_changes)

    strategy = BayesianStrategy()
    strategy.setup(space, Problem(), rng)
    strategy.observe([at_rung(known, 1, 0.0, 0, "known")])
    strategy.observe([at_rung(a, 0, 1.0, j + 1) for j, a in enumerate(drawn[:20])])
    assert near(strategy.propose(10)) == 5
    scores = [-float(sum(a.values())) for a in drawn]
    strategy.observe(
        [
            at_rung(a, 1, s, j + 40)
            for j, (a, s) in enumerate(zip(drawn, scores, strict=True))
        ]
    )
    sums = [sum(p.architecture.values()) for p in strategy.propose(10)]
    median = np.median(scores)
    assert sum(-s > median for s in sums) >= 6  # the model chooses eight
    assert max(sums) > min(-median, 50)  # a fifth comes from the prior


def test_surrogate_is_used_early_if_no_trial_is_dropped():
    """If no trial is dropped, all have the same rung."""
    space = DictSpace({f"x{j}": Integer(0, 30) for j in range(4)})
    strategy = BayesianStrategy()
    strategy.setup(space, Problem(), np.random.default_rng(0))
    drawn = space.sample(12, np.random.default_rng(0))
    strategy.observe(
        [at_rung(a, 3, float(sum(a.values())), j) for j, a in enumerate(drawn)]
    )
    sums = [sum(p.architecture.values()) for p in strategy.propose(8)]
    assert min(sums) > np.median([sum(a.values()) for a in drawn])


def test_surrogate_is_fitted_to_a_subset_of_many_trials(monkeypatch):
    space = DictSpace({"x": Integer(0, 10_000)})
    strategy = BayesianStrategy()
    strategy.setup(space, Problem(), np.random.default_rng(0))
    architectures = space.sample(1_000, np.random.default_rng(1))
    unique = list({a.key: a for a in architectures}.values())
    trials = [
        Trial(Proposal(a, number=j), score=-abs(a["x"] - 5_000.0))
        for j, a in enumerate(unique)
    ]
    strategy.observe(trials)
    subset = _best_and_latest(trials)
    assert len(subset) == 300 and subset[0].score == max(t.score for t in trials)
    started = time.monotonic()
    assert len(strategy.propose(8)) == 8
    fitted = []
    monkeypatch.setattr(
        "sknas.strategies.bayesian.strategy.warp_losses",
        lambda scores: fitted.append(scores) or np.zeros(len(scores)),
    )
    strategy.rank(trials)
    latest = {t.score for t in trials[-100:]}
    assert len(fitted[0]) == 300 and latest <= set(fitted[0])
    monkeypatch.undo()
    ranked = strategy.rank(trials)
    assert len(ranked) == len(trials) and time.monotonic() - started < 20


def test_feasibility_is_checked_only_for_likely_proposals():
    """A check may build and time a network."""
    checked = []

    def feasible(a):
        checked.append(a)
        return a["depth"] <= 3

    strategy = BayesianStrategy(n_initial_points=4)
    strategy.setup(SPACE, Problem(feasible=feasible), np.random.default_rng(0))
    architectures = [
        a for a in SPACE.sample(30, np.random.default_rng(1)) if a["depth"] <= 3
    ]
    strategy.observe([Trial(Proposal(a), score=value(a)) for a in architectures[:10]])
    checked.clear()
    proposals = strategy.propose(4)
    assert len(proposals) == 4 and len(checked) < 40


def test_search_goes_on_if_all_trials_fail():
    for strategy in ALL:
        strategy = clone(strategy)
        strategy.setup(SPACE, Problem(), np.random.default_rng(0))
        for _ in range(4):
            proposals = strategy.propose(4)
            assert len(proposals) == 4
            strategy.observe([Trial(p, status="failed") for p in proposals])


@pytest.mark.parametrize("strategy", PARAMS, ids=ids)
def test_search_goes_on_if_all_scores_are_equal(strategy):
    strategy = clone(strategy)
    strategy.setup(SPACE, Problem(), np.random.default_rng(0))
    for _ in range(4):
        proposals = strategy.propose(4)
        assert len(proposals) == 4
        strategy.observe([Trial(p, score=1.0) for p in proposals])
