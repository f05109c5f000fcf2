"""The search loop on functions: bounds, repeats, failures and noise."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import sknas
from sknas import search
from sknas._history import History, Origin, Proposal, Trial
from sknas._problem import Problem, RunContext, TaskSpec
from sknas._search.constraints import make_feasible
from sknas._search.function import FunctionTrainer
from sknas._search.loop import N_WITH_NETWORKS, Search
from sknas._search.reevaluate import n_reevaluated
from sknas.exceptions import InvalidParameterError, SearchWarning
from sknas.spaces import (
    Architecture,
    Categorical,
    DictSpace,
    Integer,
    Real,
    TableSpace,
    UnseenSampler,
)
from sknas.strategies import STRATEGIES, RandomStrategy, Strategy
from sknas.trainers import Trainer

LINE = {"x": (0, 50)}


def height(architecture):
    return -abs(architecture["x"] - 20)


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"gradient"}))
def test_strategies_find_the_best_integer(strategy):
    history = search(height, LINE, strategy=strategy, max_trials=51, random_state=0)
    assert history.best.architecture == {"x": 20}
    assert len(history) == 51
    assert history.stop_reason == "max_trials"


def test_objective_gets_plain_python_values():
    space = {
        "size": (1, 8),
        "rate": (1e-3, 1.0, "log"),
        "kind": [np.str_("a"), "b"],
        "flag": [True, False],
        "width": (np.int64(2), np.int64(4)),
        "extra": Real(0.0, 1.0, when=("flag", (True,))),
    }
    kinds = set()

    def objective(architecture):
        kinds.update((name, type(v)) for name, v in architecture.items())
        assert ("extra" in architecture) == architecture["flag"]
        assert 1e-3 <= architecture["rate"] <= 1.0
        return 0.0

    search(objective, space, strategy="random", max_trials=20, random_state=0)
    assert kinds == {
        ("size", int), ("rate", float), ("kind", str), ("flag", bool),
        ("width", int), ("extra", float),
    }  # fmt: skip


def test_exhausted_space_ends_the_search_without_repeats():
    seen = []
    history = search(
        lambda a: seen.append(a.key) or 0.0,
        {"a": [1, 2, 3], "b": ["x", "y"]},
        max_trials=100,
        random_state=0,
    )
    assert history.stop_reason == "space_exhausted"
    assert len(seen) == len(set(seen)) == 6


def test_search_continues_after_failed_trials():
    def objective(architecture):
        if architecture["x"] % 3 == 0:
            raise ZeroDivisionError("three")
        return float("nan") if architecture["x"] % 3 == 1 else 1.0

    history = search(objective, LINE, max_trials=30, random_state=0)
    reasons = {trial.reason for trial in history if trial.status == "failed"}
    assert reasons == {"ZeroDivisionError: three", "the score is NaN or infinite"}
    assert all(t.score is None for t in history if t.status == "failed")
    assert history.best.architecture["x"] % 3 == 2


def test_max_time_ends_the_search():
    started = time.monotonic()
    history = search(
        lambda a: time.sleep(0.05) or 0.0,
        {"x": (0.0, 1.0)},
        strategy="random",
        max_trials=1000,
        max_time=0.5,
    )
    assert history.stop_reason == "max_time"
    assert 5 <= len(history) <= 14
    assert time.monotonic() - started < 1.5


def test_ctrl_c_returns_the_finished_trials():
    calls = []

    def objective(architecture):
        calls.append(architecture)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return 0.0

    history = search(objective, LINE, max_trials=30, random_state=0)
    assert history.stop_reason == "interrupted"
    assert [t.status for t in history] == ["ok"] * 5 + ["stopped"] * (len(history) - 5)


def test_noisy_top_k_are_reevaluated_and_the_best_mean_wins():
    rng = np.random.default_rng(0)
    again = []

    def objective(architecture):
        again.append(architecture["x"])
        return -abs(architecture["x"] - 20) / 50 + rng.normal(scale=0.1)

    history = search(objective, LINE, max_trials=25, noisy=True, random_state=0)
    rescored = [t for t in history if t.proposal.origin == "re-score"]
    assert len(history) == len(again) == 30
    assert len(rescored) == 5
    assert [t.proposal.number for t in history] == list(range(30))
    means = {
        t.architecture.key: np.mean(
            [u.score for u in history if u.architecture == t.architecture]
        )
        for t in rescored
    }
    assert history.best.architecture.key == max(means, key=means.get)


@pytest.mark.parametrize(
    "constraints", [{"x": 10}, lambda a: a["x"] <= 10], ids=["dict", "callable"]
)
def test_rejected_architectures_are_not_trials(constraints):
    tried = []
    history = search(
        lambda a: tried.append(a["x"]) or height(a),
        LINE,
        max_trials=30,
        constraints=constraints,
        random_state=0,
    )
    assert max(tried) == 10 == history.best.architecture["x"]
    assert history.stop_reason == "space_exhausted"


def test_same_seed_same_history():
    space = {"x": (0.0, 1.0), "y": (1, 100, "log")}
    runs = [
        search(lambda a: a["x"] - a["y"], space, max_trials=20, random_state=seed)
        for seed in (3, 3, np.random.RandomState(3), 4)
    ]
    keys = [[trial.architecture.key for trial in history] for history in runs]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    seeds = {trial.proposal.seed for trial in runs[0]}
    assert len(seeds) == 20


class Stubborn(Strategy):
    """Propose the same two architectures forever."""

    def setup(self, space, problem, rng):
        self.sampler_ = UnseenSampler(space, problem.feasible, rng)

    def propose(self, n):
        return [Proposal(Architecture({"x": x})) for x in (1, 2)]

    def observe(self, trials):
        pass


def test_search_ends_if_the_strategy_only_repeats_itself():
    history = search(height, LINE, strategy=Stubborn(), max_trials=30)
    assert [t.architecture["x"] for t in history] == [1, 2]
    assert history.stop_reason == "strategy_done"


def test_choices_with_defaults_start_with_the_default():
    space = {"x": Integer(0, 50, default=7), "kind": Categorical(["a"], default="a")}
    history = search(height, space, max_trials=3, random_state=0)
    assert history[0].architecture == {"x": 7, "kind": "a"}
    assert history[0].proposal.origin == "default"
    assert {t.proposal.origin for t in history.trials[1:]} == {"proposed"}


class Empty(Trainer):
    """Return no trials."""

    def setup(self, space, problem, context):
        pass

    def train(self, proposals):
        return []


class Nan(Empty):
    """Return scores that are NaN."""

    def train(self, proposals):
        return [Trial(p, score=float("nan")) for p in proposals]


def run_with(trainer, **changes):
    settings = {
        "space": DictSpace(LINE),
        "strategy": STRATEGIES["random"](),
        "trainer": trainer,
        "problem": Problem(),
        "context": RunContext(),
        "max_trials": 3,
        "deadline": lambda history: None,
    }
    return Search(**settings | changes).run()


class Counting(Empty):
    """Record the number of proposals in each batch."""

    n_proposals = 7

    def __init__(self, seen=None):
        self.seen = seen

    def __sklearn_clone__(self):
        return self

    def train(self, proposals):
        self.seen.append([p.number for p in proposals])
        arrays = {"predictions": np.ones((1, 1)), "networks": ({},)}
        return [
            Trial(replace(p, rung=p.number % 2), score=float(p.number), **arrays)
            for p in proposals
        ]


@pytest.mark.parametrize(
    ("n_proposals", "expected"), [(None, [7, 7, 6]), (16, [16, 4])]
)
def test_batches_have_the_size_the_trainer_asks_for(n_proposals, expected):
    trainer = Counting([])
    run_with(trainer, max_trials=20, n_proposals=n_proposals)
    assert list(map(len, trainer.seen)) == expected
    assert [n for given in trainer.seen for n in given] == list(range(20))
    assert Empty.n_proposals == 4


def test_initial_design_is_split_into_the_same_batches():
    trainer, space = Counting([]), DictSpace(LINE)
    search = Search(
        space=space,
        strategy=STRATEGIES["random"](),
        trainer=trainer,
        problem=Problem(),
        context=RunContext(),
        max_trials=None,
        deadline=lambda history: 0.0 if len(history) > 15 else None,
        n_proposals=5,
    )
    first = [Proposal(Architecture({"x": x})) for x in range(12)]
    history = search.run(first)
    assert trainer.seen == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11],
        [*range(12, 17)],
    ]
    assert [t.architecture["x"] for t in history.trials[:12]] == list(range(12))


def test_history_keeps_arrays_of_a_bounded_number_of_trials():
    history = run_with(Counting([]), max_trials=40)
    kept = {t.proposal.number for t in history if t.networks is not None}
    assert kept == {t.proposal.number for t in history if t.predictions is not None}
    assert kept == {t.proposal.number for t in history.succeeded[:N_WITH_NETWORKS]}
    assert len(kept) == N_WITH_NETWORKS == 25


def test_a_trainer_that_loses_proposals_raises():
    with pytest.raises(
        RuntimeError, match=r"Empty\.train must return a trial for each"
    ):
        run_with(Empty())


def test_nan_score_is_a_failed_trial_for_any_trainer():
    history = run_with(Nan())
    assert {t.status for t in history} == {"failed"}
    assert {t.reason for t in history} == {"the score is NaN or infinite"}


def test_search_ends_if_the_constraints_reject_all_proposals():
    problem = Problem(feasible=lambda a: a["x"] > 10)
    history = run_with(Nan(), strategy=Stubborn(), problem=problem)
    assert (len(history), history.stop_reason) == (0, "strategy_done")


def test_an_infinite_space_is_never_exhausted():
    history = search(
        lambda a: a["x"],
        {"x": (0.0, 1.0)},
        strategy="random",
        max_trials=20,
        constraints=lambda a: a["x"] < 0.01,
        random_state=0,
    )
    assert history.stop_reason == "max_trials"
    nothing = search(
        lambda a: 0.0, {"x": (0.0, 1.0)}, max_trials=2, constraints=lambda a: False
    )
    assert (len(nothing), nothing.stop_reason) == (0, "strategy_done")


@pytest.mark.parametrize(
    "strategy", ["bayesian", "evolution", "local", "random", "reinforce"]
)
def test_neighbours_are_proposed_if_constraints_reject_most_draws(strategy):
    """One in 2,000 architectures satisfies the constraint, as does the default one."""
    history = search(
        lambda a: sum(a.values()),
        {name: Real(0.0, 1.0, default=0.1) for name in "abcd"},
        strategy=strategy,
        max_trials=20,
        constraints=lambda a: max(a.values()) < 0.15,
        random_state=0,
    )
    assert (len(history), history.stop_reason) == (20, "max_trials")


def test_space_too_large_to_list_is_not_reported_exhausted(monkeypatch):
    monkeypatch.setattr("sknas.spaces._sampler.MAX_LISTED", 50)
    history = search(
        lambda a: 0.0,
        {"a": (1, 100), "b": (1, 100)},
        max_trials=5,
        constraints=lambda a: a["a"] == 57 and a["b"] == 33,
        random_state=1,
    )
    assert history.stop_reason == "strategy_done"


def test_slow_best_trial_does_not_end_the_search_early():
    def objective(architecture):
        slow = len(done) == 0
        done.append(architecture)
        time.sleep(0.4 if slow else 0.01)
        return float(slow)

    done = []
    history = search(
        objective, {"x": (0.0, 1.0)}, strategy="random", max_trials=1_000, max_time=0.7
    )
    assert len(history) > 1 and history.stop_reason == "max_time"


@pytest.mark.parametrize("seed", range(4))
def test_constraint_that_raises_for_some_architectures_loses_no_trials(seed):
    def allowed(architecture):
        if architecture["kind"] == "b":
            raise KeyError("depth")
        return True

    space = {"kind": ["a", "b"], "x": (0, 50)}
    with pytest.warns(
        SearchWarning, match="of 'constraints' raised KeyError"
    ) as options:
        history = search(
            lambda a: a["x"],
            space,
            max_trials=20,
            constraints=allowed,
            random_state=seed,
        )
    assert len(options) == 1 and len(history) == 20
    assert {trial.architecture["kind"] for trial in history} == {"a"}


def test_strings_and_booleans_are_not_bounds():
    space = {"a": [1, 2, 3], "b": [1, "x"], "c": [True, False], "d": (0, 4)}
    with pytest.raises(ValueError, match=r"a dict of bounds of \['a', 'd'\]"):
        search(lambda a: 0.0, space, max_trials=1, constraints={"b": 1})


def test_ordered_choices_are_searched_by_their_order():
    sizes = [2**j for j in range(12)]
    history = search(
        lambda a: -abs(sizes.index(a["size"]) - 9) - abs(sizes.index(a["other"]) - 2),
        {name: Categorical(sizes, ordered=True) for name in ("size", "other")},
        max_trials=40,
        random_state=0,
    )
    assert history.best.score >= -1


def test_values_of_weight_zero_are_never_tried():
    space = {"x": Categorical(["a", "b", "c"], weights=[1, 0, 2])}
    history = search(lambda a: 0.0, space, max_trials=5)
    assert {trial.architecture["x"] for trial in history} == {"a", "c"}
    assert history.stop_reason == "space_exhausted"


def test_a_space_of_networks_can_be_searched_by_a_function():
    history = search(
        lambda a: a["depth"], TableSpace(), max_trials=4, constraints={"width": 128}
    )
    assert max(t.architecture["width"] for t in history) <= 128
    assert history[0].proposal.origin == "default"


@pytest.mark.parametrize("noisy", [True, False])
def test_no_trial_starts_after_max_time(noisy):
    started, begun = time.monotonic(), []

    def objective(a):
        begun.append(time.monotonic() - started)
        time.sleep(0.2)
        return 0.0

    history = search(
        objective, LINE, strategy="random", max_trials=99, max_time=0.5, noisy=noisy
    )
    assert len(begun) == len(history) and max(begun) < 0.55
    assert time.monotonic() - started < 0.9


def test_history_survives_json():
    history = search(height, LINE, max_trials=6, random_state=0)
    assert History.from_json(history.to_json()) == history
    frame = history.to_frame()
    assert list(frame["param_x"]) == [t.architecture["x"] for t in history]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"objective": 3}, "'objective' parameter of search must be callable, got 3"),
        ({"space": {}}, "'space' parameter of search must be a Space or a dict"),
        (
            {"space": {"x": (3, 1)}},
            "bounds of a range must ascend, got low=3 and high=1",
        ),
        ({"space": {"x": 3}}, "choice 'x' must be a list of values, .* got 3"),
        (
            {"max_trials": 0},
            "'max_trials' parameter of search must be an int >= 1, got 0",
        ),
        (
            {"max_time": -1},
            "'max_time' parameter of search must be a finite number > 0",
        ),
        ({"strategy": "bayes"}, "'reinforce', got 'bayes'; did you mean 'bayesian'"),
        ({"constraints": 3}, "'constraints' parameter of search must be a dict of bou"),
        ({"constraints": {"y": 1}}, r"a dict of bounds of \['x'\], got {'y': 1}"),
        ({"constraints": {"x": "a"}}, r"constraints\['x'\].* must be a finite number"),
        (
            {"space": {"x": [print]}},
            "options of a Categorical must be bool, int, float",
        ),
        (
            {"space": {"x": Integer(0, 1, when=("y", (1,)))}},
            "'x.when' parameter of DictSpace must be the name of an earlier choice and",
        ),
    ],
)
def test_wrong_arguments(change, message):
    given = {"objective": height, "space": LINE, "max_trials": 2} | change
    with pytest.raises(InvalidParameterError, match=message):
        sknas.search(given.pop("objective"), given.pop("space"), **given)


def test_one_reevaluation_does_not_change_the_best_trial():
    """With time for one re-evaluation only, the best first score is recommended."""
    history = search(lambda a: -abs(a["x"] - 3.0), LINE, max_trials=9, random_state=0)
    best = history.best
    again = Trial(
        Proposal(best.architecture, origin=Origin.RESCORE, number=len(history)),
        score=-99.0,
    )
    assert history.extended([again]).best == best
    other = history.succeeded[1].architecture
    second = Trial(
        Proposal(other, origin=Origin.RESCORE, number=len(history) + 1), score=50.0
    )
    both = history.extended([again, second])
    assert both.best.architecture.key == other.key
    first = history.succeeded[1].score
    assert both.best.score == pytest.approx((first + 50.0) / 2)


def test_top_k_are_reevaluated_once_if_a_previous_search_did_so_too():
    """After a warm start, the top k of the previous search have two trials each."""
    options = {"space": DictSpace({"x": (0, 99)}), "max_trials": 12}
    options |= {"context": RunContext()}
    options |= {"strategy": RandomStrategy(), "deadline": lambda history: None}
    options |= {"trainer": FunctionTrainer(lambda a: float(a["x"])), "n_reevaluated": 3}
    previous = Search(problem=Problem(seed=0), **options).run()
    options["max_trials"] = 20
    found = Search(problem=Problem(seed=1), previous=previous, **options).run()
    again = [t.architecture.key for t in found if t.proposal.origin == Origin.RESCORE]
    later = again[3:]
    assert len(later) == len(set(later)) == 3


def test_functions_are_scored_one_proposal_at_a_time():
    asked = []

    class Watched(RandomStrategy):
        def propose(self, n):
            asked.append(n)
            return super().propose(n)

    found = search(lambda a: a["x"], LINE, strategy=Watched(), max_trials=5)
    assert len(found) == 5 and set(asked) == {1}


@pytest.mark.parametrize(("seconds", "expected"), [(None, 1), (60.0, 4)])
def test_first_batch_mixes_default_and_proposals_without_initial_design(
    seconds, expected
):
    """With a deadline, the default is trained in one batch with the first proposals."""
    sizes = []

    class Unprimed(RandomStrategy):
        needs_initial_design = False

    class Watched(FunctionTrainer):
        n_proposals = 4

        def train(self, proposals):
            sizes.append([p.origin for p in proposals])
            return super().train(proposals)

    space, end = DictSpace({"x": (0, 99)}), time.monotonic() + (seconds or 0)
    search = Search(
        space=space,
        strategy=Unprimed(),
        trainer=Watched(lambda a: float(a["x"])),
        problem=Problem(),
        context=RunContext(),
        max_trials=6,
        deadline=lambda history: end if seconds else None,
    )
    found = search.run([Proposal(space.fill({"x": 5}), origin="default")])
    assert len(found) == 6 and len(sizes[0]) == expected
    assert [t.proposal.origin for t in found] == ["default", *["proposed"] * 5]
    assert [t.proposal.number for t in found] == list(range(6))


def test_the_top_k_come_from_the_highest_rung():
    """Trials that successive halving dropped are not re-evaluated."""

    class Rungs(FunctionTrainer):
        n_proposals = 8

        def __init__(self, objective=None):
            super().__init__(objective)

        def train(self, proposals):
            trials = super().train(proposals)
            return [
                replace(t, proposal=replace(t.proposal, rung=int(t.score < 50)))
                for t in trials
            ]

    found = Search(
        space=DictSpace({"x": (0, 99)}),
        strategy=RandomStrategy(),
        trainer=Rungs(lambda a: float(a["x"])),
        problem=Problem(),
        context=RunContext(),
        max_trials=32,
        deadline=lambda history: None,
        n_reevaluated=3,
    ).run()
    again = [t for t in found if t.proposal.origin == Origin.RESCORE]
    tops = sorted((t.score for t in list(found)[:32] if t.proposal.rung), reverse=True)[
        :3
    ]
    assert [t.score for t in again] == tops and max(tops) < 50
    assert len({t.proposal.seed for t in found}) == len(found)


def test_ctrl_c_ends_the_reevaluations():
    asked = []

    def objective(a):
        asked.append(a)
        if len(asked) == 14:
            raise KeyboardInterrupt
        return float(a["x"])

    history = search(objective, LINE, max_trials=12, noisy=True, random_state=0)
    assert history.stop_reason == "interrupted" and len(asked) == 14
    assert len(history) == 13 and history.best.score is not None


def test_time_is_reserved_for_reevaluations():
    """The last share of the time is reserved."""
    history = search(
        lambda a: time.sleep(0.05) or float(a["x"]),
        DictSpace({"x": (0, 999)}),
        strategy="random",
        max_trials=999,
        max_time=2.0,
        noisy=True,
        random_state=0,
    )
    again = [t for t in history if t.proposal.origin == Origin.RESCORE]
    assert 2 <= len(again) <= 5 and history.stop_reason == "max_time"


@pytest.mark.parametrize(
    ("max_trials", "expected"), [(3, 0), (13, 0), (14, 2), (16, 2), (99, 5), (None, 5)]
)
def test_number_of_reevaluations_is_a_share_of_the_trials(max_trials, expected):
    assert n_reevaluated(max_trials, 1) == expected
    assert n_reevaluated(max_trials, None) == n_reevaluated(max_trials, 2) == 0


def test_costs_are_measured_once_for_each_structure(monkeypatch):
    space = TableSpace()
    task = TaskSpec("binary", 2, 100, 3)
    measured = []
    monkeypatch.setattr(
        TableSpace, "latency", lambda self, a, t: measured.append(a) or a["depth"]
    )
    feasible = make_feasible("NASClassifier", {"latency": 2}, space, task)
    drawn = space.sample(300, np.random.default_rng(0))
    assert [feasible(a) for a in drawn] == [a["depth"] <= 2 for a in drawn]
    structures = {space.structure(a) for a in drawn}
    assert len(measured) == len(structures) < 300


def test_network_that_cannot_be_built_is_a_failed_trial():
    class Broken(TableSpace):
        def build(self, architecture, task):
            raise RuntimeError("no")

    task = TaskSpec("binary", 2, 100, 3)
    feasible = make_feasible("NASClassifier", {"n_params": 10}, Broken(), task)
    assert feasible(Broken().default_architecture())


def test_latency_is_measured_on_256_rows():
    edges = np.tile(np.linspace(-2, 2, 49, dtype=np.float32), (30, 1))
    space, task = TableSpace(), TaskSpec("binary", 2, 100, 30, edges=edges)
    before = torch.get_num_threads()
    small = space.fill({"depth": 1, "width": 32})
    large = space.fill({"depth": 4, "width": 256})
    assert 0 < space.latency(small, task) < space.latency(large, task) < 1
    assert torch.get_num_threads() == before
