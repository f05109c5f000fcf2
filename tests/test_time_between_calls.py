"""`max_time` is a bound whatever the user's code costs: one call may run over."""

import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from clock import Clock
from cohorts import make_problem
from fits import problem_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scorers import FunctionScorer
from sklearn.model_selection import KFold
from torch import nn

from sknas import NASClassifier, search
from sknas._ensemble.selection import choose_members
from sknas._history import Proposal
from sknas._problem import RunContext
from sknas.exceptions import SearchFailedError, SearchWarning
from sknas.nets import Linear, TableInput
from sknas.spaces import Categorical, Space, TableSpace
from sknas.trainers import PopulationTrainer, SkorchTrainer

ROWS = np.random.default_rng(0).normal(size=(90, 3))
CLASSES = (ROWS[:, 0] > 0).astype(int)
STRATEGIES = ["bayesian", "evolution", "local", "random", "reinforce"]


class Widths(Space):
    """One hidden layer, built and priced as slowly as `on_build` and `on_cost`."""

    costs = (*Space.costs, "price")

    def __init__(self, on_build=None, on_cost=None):
        self.on_build, self.on_cost = on_build, on_cost

    @property
    def choices(self):
        return {"width": Categorical(tuple(range(2, 40)), default=2)}

    def build(self, architecture, task):
        if self.on_build is not None:
            self.on_build()
        inputs, width = TableInput(1, task), architecture["width"]
        layers = [Linear(1, inputs.n_features, width), nn.ReLU()]
        return nn.Sequential(inputs, *layers, Linear(1, width, task.n_outputs))

    def price(self, architecture, task):
        if self.on_cost is not None:
            self.on_cost()
        return 1.0


def slow_scorer(on_call):
    def score(estimator, X, y):
        on_call()
        return float(np.mean(estimator.predict(X) == y))

    return score


def spending_scorer(estimator, X, y):
    """Take half a second of a clock of the test."""
    time.monotonic.spend(0.5)
    return float(np.mean(estimator.predict(X) == y))


def slow_constraint(on_call):
    def is_allowed(architecture):
        on_call()
        return True

    return is_allowed


# By the part of the user's code: parameters of the estimator.
USER_CODE = {
    "scorer": lambda call: {"scoring": slow_scorer(call)},
    "constraint": lambda call: {"constraints": slow_constraint(call)},
    "build": lambda call: {"search_space": Widths(on_build=call)},
    "cost": lambda call: {
        "search_space": Widths(on_cost=call),
        "constraints": {"price": 2},
    },
}
SPACES = {
    "population": TableSpace(depth=(1, 1), width=(32,), packing=(1,)),
    "skorch": Widths(),
    "gradient": TableSpace(),
}


def fit(clock, part, seconds, max_time, **parameters):
    """Fit with slow code in a part; return the estimator, its seconds and warnings."""
    parameters = USER_CODE[part](lambda: clock.spend(seconds)) | parameters
    defaults = {"n_jobs": 1, "random_state": 0, "max_epochs": 3}
    estimator = NASClassifier(max_time=max_time, **(defaults | parameters))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        started = clock()
        estimator.fit(ROWS, CLASSES)
        taken = clock() - started
    deadline = np.inf if max_time is None else started + max_time
    n_late = sum(call > deadline for call in clock.calls)
    return estimator, taken, n_late, [str(warning.message) for warning in caught]


def check(found, part, seconds, max_time):
    """Check that a fit kept to its time, and is usable."""
    estimator, taken, n_late, messages = found
    # The network that is returned must be built, however slow that is.
    extra = seconds if part == "build" else 0
    assert taken <= 1.1 * max_time + 2 + seconds + extra, (taken, n_late, messages)
    assert part == "build" or not n_late
    assert estimator.predict(ROWS).shape == CLASSES.shape
    if np.isnan(estimator.best_score_):
        (message,) = messages
        assert "too short to validate one network" in message
    else:
        assert not messages


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.mark.parametrize("space", ["population", "skorch"])
@pytest.mark.parametrize("seconds", [0.1, 0.5, 2.0])
def test_a_slow_scorer_is_not_called_after_the_deadline(clock, space, seconds):
    found = fit(clock, "scorer", seconds, 5, search_space=SPACES[space])
    check(found, "scorer", seconds, 5)
    assert np.isfinite(found[0].best_score_)
    assert found[0].stop_reason_ == "max_time"


@pytest.mark.parametrize("part", USER_CODE)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_slow_code_in_any_part_with_any_strategy(clock, part, strategy):
    check(fit(clock, part, 0.5, 5, strategy=strategy), part, 0.5, 5)


@pytest.mark.parametrize("part", ["scorer", "constraint"])
def test_slow_code_in_a_search_by_gradient(clock, part):
    parameters = {"strategy": "gradient", "search_space": SPACES["gradient"]}
    check(fit(clock, part, 0.5, 5, **parameters), part, 0.5, 5)


@pytest.mark.parametrize("seconds", [0.3, 4.0])
def test_a_single_member_is_chosen_and_trained_in_time(clock, seconds):
    parameters = {"search_space": SPACES["population"], "ensemble_size": 1}
    check(fit(clock, "scorer", seconds, 5, **parameters), "scorer", seconds, 5)


@pytest.mark.parametrize("max_trials", [None, 1])
def test_too_slow_to_score_one_fold_gives_the_default_network(clock, max_trials):
    parameters = {"search_space": SPACES["skorch"], "max_trials": max_trials}
    found = fit(clock, "scorer", 9.0, 5, **parameters)
    check(found, "scorer", 9.0, 5)
    assert np.isnan(found[0].best_score_)
    assert len(clock.calls) == 1


def test_a_single_trial_that_is_late_is_no_failure(clock):
    found = fit(clock, "build", 2.0, 1, max_trials=1)
    check(found, "build", 2.0, 1)
    assert np.isnan(found[0].best_score_)


def test_members_that_are_slow_to_build_are_left_out(clock, monkeypatch):
    """The first is built, the others only if they are quick."""
    sizes, seconds, later = [], [0.0], [0.0]

    def choose(*arguments):
        seconds[0] = later[0]
        return choose_members(*arguments)

    monkeypatch.setattr("sknas._ensemble.build.choose_members", choose)
    for later[0] in (0.0, 2.0):
        seconds[0], n_built = 0.0, len(clock.calls)
        space = Widths(on_build=lambda: clock.spend(seconds[0]))
        parameters = {"search_space": space, "max_time": 5, "max_trials": 4}
        parameters |= {"max_epochs": 3, "n_jobs": 1, "cv": 3, "random_state": 0}
        estimator = NASClassifier(**parameters).fit(ROWS, CLASSES)
        assert len(clock.calls) > n_built
        sizes.append(len(estimator.ensemble_))
        weights = [member.weight for member in estimator.ensemble_.members]
        assert np.isclose(sum(weights), 1)
    assert sizes[0] > sizes[1] == 1


@pytest.mark.parametrize("part", USER_CODE)
def test_without_max_time_the_clock_decides_nothing(clock, part):
    """Fits of slow and of quick code are equal, with as many calls of it."""
    fitted, n_calls = [], []
    for seconds in (0.0, 50.0):
        clock.calls.clear()
        estimator, *_, messages = fit(clock, part, seconds, None, max_trials=3)
        assert not messages
        fitted.append(estimator)
        n_calls.append(len(clock.calls))
    quick, slow = fitted
    assert n_calls[0] == n_calls[1] > 0
    assert quick.best_score_ == slow.best_score_
    np.testing.assert_array_equal(quick.predict_proba(ROWS), slow.predict_proba(ROWS))


def test_a_quick_scorer_changes_no_plan(clock):
    """A scorer of the library and the same one as a function give the same plan."""
    plans = []
    for scoring in ("balanced_accuracy", slow_scorer(lambda: clock.spend(0.001))):
        estimator = NASClassifier(max_time=20, scoring=scoring)
        _, problem = problem_of(estimator, ROWS, CLASSES)
        plans.append((len(problem.folds), problem.n_steps, problem.scores_rungs))
    assert plans[0] == plans[1]
    assert plans[0][-1]


def test_a_resumed_search_keeps_its_plan(clock, tmp_path):
    """The first call of a scorer decides the plan; it is not measured again."""
    parameters = {"scoring": spending_scorer, "checkpoint": tmp_path}
    parameters["search_space"] = SPACES["skorch"]
    first, *_ = fit(clock, "scorer", 0.5, 5, **parameters)
    n_calls = len(clock.calls)
    again, *_ = fit(clock, "scorer", 0.5, 5, **parameters)
    assert len(clock.calls) == n_calls
    assert again.n_trials_ == first.n_trials_
    assert again.best_score_ == first.best_score_
    np.testing.assert_array_equal(again.predict(ROWS), first.predict(ROWS))


def test_no_constraint_is_evaluated_twice_for_an_architecture(clock):
    asked = []

    def is_allowed(architecture):
        asked.append(architecture.key)
        return True

    parameters = {"search_space": Widths(), "strategy": "random", "max_trials": 4}
    NASClassifier(**parameters, constraints=is_allowed, max_epochs=2).fit(ROWS, CLASSES)
    assert len(asked) == len(set(asked))


def test_constraints_that_allow_nothing_in_time_are_reported(clock):
    def refuse(architecture):
        clock.spend(2.0)
        return False

    estimator = NASClassifier(Widths(), max_time=5, constraints=refuse)
    message = (
        "^No architecture that keeps the constraints was found before the end of "
        "max_time=5 seconds: give more time, or loosen 'constraints'.$"
    )
    with pytest.raises(SearchFailedError, match=message):
        estimator.fit(ROWS, CLASSES)
    assert clock.passed <= 5 * 1.1 + 2 + 2


def test_constraints_that_only_fail_in_time_are_reported_with_their_error(clock):
    def fail(architecture):
        clock.spend(2.0)
        return architecture["no such choice"]

    estimator = NASClassifier(Widths(), max_time=5, constraints=fail)
    message = (
        "found, as the function of 'constraints' raised KeyError: .*no such choice.* "
        "before the end of max_time=5 seconds: fix the function, or give more time.$"
    )
    with pytest.raises(SearchFailedError, match=message):
        estimator.fit(ROWS, CLASSES)


@pytest.mark.parametrize("noisy", [False, True])
def test_the_objective_of_a_function_is_not_called_after_the_deadline(clock, noisy):
    def objective(architecture):
        clock.spend(1.5)
        return -abs(architecture["x"])

    space, started = {"x": (-1.0, 1.0)}, clock()
    history = search(objective, space, max_trials=99, max_time=5, noisy=noisy)
    assert history.stop_reason == "max_time"
    assert clock() - started <= 5 * 1.1 + 2 + 1.5
    assert all(call <= started + 5 for call in clock.calls)


@pytest.mark.parametrize("space", ["population", "skorch"])
def test_trials_scored_before_the_deadline_keep_their_scores(clock, space):
    """In a cohort, trials are scored one after another: the first are comparable."""
    task_space, problem = SPACES[space], make_problem(n_folds=3)
    score, context = problem.scorer.score, RunContext(deadline=clock() + 5)

    def slow(predictions, rows, weight=None):
        clock.spend(1.5)
        return score(predictions, rows, weight).value

    problem = replace(problem, scorer=FunctionScorer(slow), scores_rungs=False)
    trainer = (PopulationTrainer if space == "population" else SkorchTrainer)()
    trainer.setup(task_space.for_task(problem.task), problem, context)
    drawn = task_space.sample(4, np.random.default_rng(0))
    asked = [Proposal(a, number=n, seed=n) for n, a in enumerate(drawn)]
    trials = trainer.train(asked)
    assert sorted(t.status for t in trials) == ["ok", "stopped", "stopped", "stopped"]
    for trial in trials:
        assert len(trial.fold_scores) == (3 if trial.status == "ok" else 0)
        assert trial.status == "ok" or trial.cause == "out of time"
    assert len(clock.calls) in (3, 4)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_slow_code_with_any_parameters(data):
    def draw(*values):
        return data.draw(st.sampled_from(values))

    part, max_time = draw(*USER_CODE), draw(1, 2, 5, 10, 20)
    # A build of half of the time leaves none for the fit.
    seconds = draw(*(s for s in (0.05, 0.2, 0.5, 1, 2, 4) if s <= max_time / 4))
    parameters = {
        "strategy": draw(*STRATEGIES),
        "ensemble_size": draw(None, 1, 3),
        "cv": draw("auto", 3, KFold(4)),
        "max_trials": draw(None, 1, 3, 30),
    }
    if part in ("scorer", "constraint"):
        space = draw(*SPACES)
        parameters["search_space"] = SPACES[space]
        if space == "gradient":
            parameters["strategy"] = "gradient"
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(time, "monotonic", clock)
        found = fit(clock, part, seconds, max_time, **parameters)
    check(found, part, seconds, max_time)


@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_a_scorer_that_sleeps(seconds):
    """Without a clock of the test."""
    estimator = NASClassifier(
        SPACES["population"],
        scoring=slow_scorer(lambda: time.sleep(seconds)),
        max_time=2,
        random_state=0,
    )
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SearchWarning)  # the time may be too short
        estimator.fit(ROWS, CLASSES)
    assert time.monotonic() - started <= 1.1 * 2 + 2 + seconds
    assert estimator.predict(ROWS).shape == CLASSES.shape
