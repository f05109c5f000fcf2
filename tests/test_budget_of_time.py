"""Searches that end early, and trials that fail."""

import _thread
import gc
import signal
import threading
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_classification, make_regression
from torch import nn

from sknas import NASClassifier, NASRegressor
from sknas import _base as base
from sknas._ensemble.build import EnsembleBuilder
from sknas._ensemble.selection import choose_members
from sknas.exceptions import SearchFailedError, SearchWarning
from sknas.nets import Linear, TableInput
from sknas.spaces import Categorical, Space, TableSpace
from sknas.strategies import RandomStrategy

KINDS = [NASClassifier, NASRegressor]
ROWS = np.random.default_rng(0).normal(size=(60, 3))
CLASSES = (ROWS[:, 0] > 0).astype(int)


class Widths(Space):
    """One hidden layer; calls `on_build` with its width before building it."""

    def __init__(self, widths=(2, 4, 8), on_build=None):
        self.widths = widths
        self.on_build = on_build

    @property
    def choices(self):
        return {"width": Categorical(self.widths, default=self.widths[0])}

    def build(self, architecture, task):
        width = architecture["width"]
        inputs = TableInput(1, task)
        layers = [Linear(1, inputs.n_features, width), nn.ReLU()]
        net = nn.Sequential(inputs, *layers, Linear(1, width, task.n_outputs))
        made = self.on_build(width) if self.on_build is not None else None
        return net if made is None else nn.Sequential(net, made)


class Calls:
    """Count calls, and call `action` at call number `at`."""

    def __init__(self, at=None, action=None):
        self.at, self.action, self.n = at, action, 0

    def __call__(self, *args, **kwargs):
        self.n += 1
        if self.n == self.at:
            self.action()


def interrupt():
    raise KeyboardInterrupt


def counting_scorer(calls):
    def score(estimator, X, y):
        calls()
        return float(np.mean(estimator.predict(X) == y))

    return score


def small(on_build=None, widths=(2, 4, 8), kind=NASClassifier, **parameters):
    defaults = {"max_epochs": 2, "cv": 2, "n_jobs": 1, "random_state": 0}
    space = Widths(widths, on_build)
    return kind(space, **{"strategy": RandomStrategy(), **defaults, **parameters})


def fit_through(estimator):
    """Fit; an uncaught interrupt fails the test instead of ending pytest."""
    try:
        return estimator.fit(ROWS, CLASSES)
    except KeyboardInterrupt:
        pytest.fail("fit did not catch the interrupt.")


def is_usable(estimator, X=ROWS):
    """Return True if a fitted estimator predicts finite numbers for all rows."""
    predictions = estimator.predict(X)
    if hasattr(estimator, "predict_proba"):
        sums = estimator.predict_proba(X).sum(axis=1)
        np.testing.assert_allclose(sums, 1, atol=1e-6)
    return predictions.shape == (len(X),) and bool(np.isfinite(predictions).all())


# Time


@pytest.fixture(autouse=True, scope="module")
def warm():
    """Train once, as torch first loads modules for about a second."""
    small(max_trials=1).fit(ROWS, CLASSES)


@pytest.mark.parametrize("kind", KINDS)
def test_max_time_alone_bounds_the_whole_fit(kind):
    make = make_classification if kind is NASClassifier else make_regression
    X, y = make(1_000, 5, n_informative=3, random_state=0)
    # Small networks, so that even a busy machine trains a cohort in time.
    space = TableSpace(depth=(0, 1), width=(32,), packing=(1,))
    started = time.monotonic()
    estimator = kind(space, max_time=3, random_state=0).fit(X, y)
    seconds = time.monotonic() - started
    assert seconds < 3 * 1.1 + 2
    assert estimator.stop_reason_ == "max_time"
    assert 0 < estimator.search_time_ <= seconds
    assert is_usable(estimator, X)


def test_first_bound_reached_ends_the_search():
    estimator = small(max_trials=2, max_time=60).fit(ROWS, CLASSES)
    assert (estimator.n_trials_, estimator.stop_reason_) == (2, "max_trials")


@pytest.mark.parametrize("kind", KINDS)
def test_too_short_time_gives_the_default_network(kind):
    make = make_classification if kind is NASClassifier else make_regression
    X, y = make(4_000, 30, random_state=0)
    started = time.monotonic()
    estimator = kind(max_time=0.05, random_state=0)
    with pytest.warns(SearchWarning, match=r"max_time=0\.05 seconds is too") as caught:
        estimator.fit(X, y)
    assert time.monotonic() - started < 2
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert estimator.stop_reason_ == "max_time"
    assert np.isnan(estimator.best_score_)
    default = kind(max_trials=1, max_epochs=1, random_state=0).fit(X, y)
    assert estimator.best_architecture_ == default.best_architecture_
    assert set(estimator.cv_results_["status"]) <= {"stopped"}
    assert estimator.n_trials_ == len(estimator.history_)
    assert np.isnan(estimator.baseline_scores_["default"])
    assert is_usable(estimator, X)


def test_slow_trial_is_stopped_at_the_deadline():
    calls = Calls(5, lambda: time.sleep(2))
    estimator = small(calls, widths=range(1, 40), max_time=1.5).fit(ROWS, CLASSES)
    last = estimator.history_[-1]
    assert (last.status, last.reason) == ("stopped", "out of time")
    assert estimator.stop_reason_ == "max_time"
    assert estimator.best_score_ > 0


# Ctrl-C


HOOKS = {
    "build": lambda calls: {"on_build": calls},
    "scorer": lambda calls: {"scoring": counting_scorer(calls)},
}


def n_calls_until_selection(hooks, calls, monkeypatch):
    """Return the calls before the members of a search of one trial are selected."""
    noted = []

    def choose(*arguments):
        noted.append(calls.n)
        return choose_members(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("sknas._ensemble.build.choose_members", choose)
        small(**hooks, max_trials=1).fit(ROWS, CLASSES)
    (n,) = noted
    return n


@pytest.mark.parametrize("hook", HOOKS)
def test_interrupt_at_any_call_returns_the_best_trial_so_far(hook, monkeypatch):
    make, calls = HOOKS[hook], Calls()
    # A network is built twice, to count its parameters and to train it. The baselines
    # are scored before the first trial.
    n_first = n_calls_until_selection(make(calls), calls, monkeypatch)
    calls.n = 0
    small(**make(calls), max_trials=3).fit(ROWS, CLASSES)
    assert calls.n > n_first
    for at in range(1, calls.n + 1):
        estimator = small(**make(Calls(at, interrupt)), max_trials=3)
        if at <= n_first:
            with pytest.raises(KeyboardInterrupt):
                estimator.fit(ROWS, CLASSES)
            assert not hasattr(estimator, "ensemble_")
            continue
        fit_through(estimator)
        assert estimator.stop_reason_ == "interrupted", at
        scores = estimator.cv_results_["mean_test_score"]
        assert estimator.best_score_ == np.nanmax(scores)
        assert is_usable(estimator)


def test_interrupt_at_any_score_of_a_population_returns_the_best_trial():
    # Two rungs: there is no network until the first one ends.
    space = TableSpace(depth=(1, 1), width=(32,), packing=(1,), activation=("relu",))
    rows, calls = np.random.default_rng(0).normal(size=(90, 3)), Calls()
    y = (rows[:, 0] > 0).astype(int)

    def fit(calls):
        estimator = NASClassifier(
            space,
            RandomStrategy(),
            max_trials=3,
            max_epochs=200,
            scoring=counting_scorer(calls),
            cv=3,
            n_jobs=1,
            random_state=0,
        )
        try:
            return estimator.fit(rows, y)
        except KeyboardInterrupt:
            assert not hasattr(estimator, "ensemble_")
            return None

    assert fit(calls).stop_reason_ == "max_trials"
    call_numbers = np.linspace(1, calls.n, 9).astype(int)
    fitted = [fit(Calls(at, interrupt)) for at in call_numbers]
    has_result = [estimator is not None for estimator in fitted]
    assert has_result == sorted(has_result)
    assert not has_result[0] and has_result[-1]
    for estimator in filter(None, fitted):
        assert estimator.stop_reason_ == "interrupted"
        assert np.isfinite(estimator.best_score_)
        assert is_usable(estimator, rows)


@pytest.fixture
def ctrl_c():
    """Enable Ctrl-C, which background processes ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    # A KeyboardInterrupt is lost in a callback of the garbage collector, and other
    # libraries of the tests have registered some.
    callbacks = gc.callbacks.copy()
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = callbacks
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05])
@pytest.mark.parametrize(
    "send", [_thread.interrupt_main, lambda: signal.raise_signal(signal.SIGINT)]
)
def test_a_real_signal_ends_the_search(send, delay):
    timer = threading.Timer(delay, send)
    estimator = NASClassifier(
        # During the second trial: each network is built twice per fold.
        search_space=Widths(range(1, 200), Calls(2 * 5 + 1, timer.start)),
        max_time=60,
        max_epochs=60,
        n_jobs=1,
        random_state=0,
    )
    handler = signal.getsignal(signal.SIGINT)
    try:
        started = time.monotonic()
        fit_through(estimator)
        assert time.monotonic() - started < 20
    finally:
        timer.cancel()
    assert estimator.stop_reason_ == "interrupted"
    assert signal.getsignal(signal.SIGINT) is handler
    assert is_usable(estimator)


# Failures


class Times(nn.Module):
    """Multiplies by a trained number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return x * self.factor


def fail_by_width(width):
    """Fail in a different way at each width except 2 and 3."""
    if width == 4:
        raise MemoryError
    if width == 5:
        raise RuntimeError("no such layer")
    if width == 6:
        return Times(float("nan"))
    if width == 7:
        return Times(float("inf"))
    if width == 8:
        raise torch.OutOfMemoryError("CUDA out of memory")
    return None


REASONS = {
    2: "",
    3: "",
    4: "out of memory",
    5: "RuntimeError: no such layer",
    6: "the loss became infinite or NaN",
    7: "the loss became infinite or NaN",
    8: "out of memory",
}


@pytest.mark.parametrize("kind", KINDS)
def test_failed_trials_have_a_reason_and_the_search_continues(kind):
    y = CLASSES if kind is NASClassifier else ROWS[:, 0]
    estimator = small(fail_by_width, (4, 2, 5, 6, 7, 8, 3), kind, max_trials=7)
    with pytest.warns(SearchWarning) as caught:
        estimator.fit(ROWS, y)
    assert [str(warning.message) for warning in caught] == [
        "5 of 7 trials failed: 2 x out of memory; 2 x the loss became infinite or NaN; "
        "1 x RuntimeError: no such layer."
    ]
    assert caught[0].filename == __file__
    results = pd.DataFrame(estimator.cv_results_).set_index("param_width")
    assert results["reason"].to_dict() == REASONS
    failed = results["reason"] != ""
    assert (results["status"] == np.where(failed, "failed", "ok")).all()
    assert results["mean_test_score"].isna().equals(failed)
    assert results.loc[failed, "rank_test_score"].min() == 3
    assert estimator.best_architecture_["width"] in (2, 3)
    assert is_usable(estimator)


def test_single_diverged_network_gives_no_warning():
    estimator = small(fail_by_width, (2, 6, 3), max_trials=3).fit(ROWS, CLASSES)
    assert sorted(estimator.cv_results_["status"]) == ["failed", "ok", "ok"]


@pytest.mark.parametrize("bound", [{"max_trials": 10}, {"max_time": 5.0}])
def test_search_without_a_successful_trial_raises_and_counts_the_reasons(bound):
    estimator = small(fail_by_width, (4, 5, 8), **bound)
    with pytest.raises(SearchFailedError) as caught:
        estimator.fit(ROWS, CLASSES)
    assert str(caught.value) == (
        "None of 3 trials succeeded, 2 x out of memory; 1 x RuntimeError: no such "
        "layer."
    )


def test_failures_until_the_deadline_are_reported_as_failures():
    def fail(width):
        time.sleep(0.02)
        raise RuntimeError("no such layer")

    estimator = small(fail, tuple(range(1, 500)), max_time=1.0)
    with pytest.raises(SearchFailedError, match=r"\d+ x RuntimeError: no such layer"):
        estimator.fit(ROWS, CLASSES)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (lambda: float("nan"), "no score: the scorer returned NaN"),
        (lambda: fail_by_width(5), "no score: RuntimeError: no such layer"),
    ],
)
def test_a_scorer_that_fails_or_is_nan_fails_the_trial(trouble, reason):
    built = [0]

    def score(estimator, X, y):
        return trouble() if built[-1] == 2 else 0.5

    estimator = small(built.append, (2, 4), scoring=score, max_trials=2)
    with pytest.warns(SearchWarning, match=f"^1 of 2 trials failed: 1 x {reason}.$"):
        estimator.fit(ROWS, CLASSES)
    assert (estimator.best_score_, estimator.best_architecture_["width"]) == (0.5, 4)


def test_a_network_that_fails_at_the_refit_is_replaced_by_the_next_best():
    total = Calls()
    small(total, max_trials=3, ensemble_size=1).fit(ROWS, CLASSES)
    at_refit = total.n  # the refitted network is built last

    def fail():
        raise RuntimeError("no such layer")

    estimator = small(Calls(at_refit, fail), max_trials=3, ensemble_size=1)
    with pytest.warns(SearchWarning, match="RuntimeError: no such layer"):
        estimator.fit(ROWS, CLASSES)
    assert is_usable(estimator)


# The end of a space


@pytest.mark.parametrize("strategy", ["bayesian", "random"])
def test_exhausted_space_has_each_architecture_once(strategy):
    estimator = small(widths=tuple(range(2, 14)), strategy=strategy, max_trials=50)
    estimator.fit(ROWS, CLASSES)
    widths = [a["width"] for a in estimator.cv_results_["params"]]
    assert sorted(widths) == list(range(2, 14))
    assert estimator.stop_reason_ == "space_exhausted"


def test_constraints_of_a_finite_space_hold():
    estimator = small(
        widths=(2, 4, 8), max_trials=9, constraints=lambda a: a["width"] < 8
    )
    estimator.fit(ROWS, CLASSES)
    assert {a["width"] for a in estimator.cv_results_["params"]} == {2, 4}
    assert estimator.stop_reason_ == "space_exhausted"
    estimator.set_params(constraints={"n_params": 1})
    with pytest.raises(SearchFailedError, match="No architecture that keeps the"):
        estimator.fit(ROWS, CLASSES)


@pytest.mark.parametrize("is_resumed", [False, True])
def test_time_is_left_after_a_slow_encoding(is_resumed, tmp_path, monkeypatch):
    """The reserve for the ensemble is counted from the end of the encoding."""
    seconds_left, plain = [], base.split_rows

    def slow(*arguments):
        time.sleep(1.0)
        return plain(*arguments)

    class Watched(EnsembleBuilder):
        def __init__(self, size, max_time, parts, problem, context):
            super().__init__(size, max_time, parts, problem, context)
            seconds_left.append(context.seconds_left)

    monkeypatch.setattr(base, "EnsembleBuilder", Watched)
    model = NASClassifier(max_time=0.5, n_jobs=1, random_state=0)
    model.set_params(checkpoint=tmp_path if is_resumed else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SearchWarning)  # the time may be too short
        if is_resumed:
            model.fit(ROWS, CLASSES)
        monkeypatch.setattr(base, "split_rows", slow)
        model.fit(ROWS, CLASSES)
    assert 0.15 < seconds_left[-1] <= 0.5
