"""A search that was broken off goes on, and ends where it would have ended."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
import zlib
from collections import Counter
from functools import partial
from importlib.metadata import version
from operator import itemgetter
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score, f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, KFold

from sknas import NASClassifier, NASRegressor
from sknas._checkpoint import fingerprint as _fingerprint
from sknas._checkpoint import folder as _checkpoint
from sknas._checkpoint.store import LINES, FileStore
from sknas._ensemble import refit as _ensemble
from sknas._history import Architecture, Proposal, Trial
from sknas._problem import NullStore, Problem
from sknas._search.loop import Search
from sknas.exceptions import CheckpointError, InvalidParameterError, SearchWarning
from sknas.spaces import CellSpace, ImageSpace, TableSpace
from sknas.strategies import STRATEGIES, GradientStrategy
from sknas.trainers import SkorchTrainer, _skorch
from sknas.trainers import _loop as _unit

DIGITS = load_digits()
IMAGES = DIGITS.images[:90].astype(np.uint8)
TABLE = DIGITS.data[:204, 18:26].astype(np.float32)  # enough for two rungs


class Small(TableSpace):
    """Small networks of two widths, none known before."""

    points = ({},)


SPACES = {
    "table": Small(
        depth=(1, 1),
        width=(8, 16),  # as many shapes as are trained apart
        block=("plain",),
        activation=("relu", "silu"),
        normalisation=("none",),
        packing=(1,),
        numeric_scale=("robust",),
        numeric_embedding=("none",),
        recipe=("fitted",),
        optimizer=("adamw",),
        batch_size=(256,),
    ),
    "image": ImageSpace(stages=(1, 2), blocks=(1,), channels=(8,), kernel_size=(3,)),
    "cell": CellSpace(
        operation=("none", "skip", "conv_1", "conv_3"), cells=(1,), channels=(8,)
    ),
}


class Killed(BaseException):
    """As SIGKILL: nothing in the search hears of it."""


def search(strategy="bayesian", inputs="table", kind=NASClassifier, **parameters):
    """A tiny search, and the X and y for it."""
    if strategy == "gradient":
        parameters.setdefault("strategy", GradientStrategy(n_epochs=2))
        inputs = "cell" if inputs == "image" else inputs
    usual = {
        "strategy": strategy,
        "max_trials": 7,
        "max_epochs": None if inputs == "table" else 4,
        "search_space": SPACES[inputs],
        "cv": 2,
        "n_jobs": 1,
        "random_state": 0,
    }
    X = TABLE if inputs == "table" else IMAGES
    y = DIGITS.target[: len(X)]
    y = y % 3 if kind is NASClassifier else y / 3
    return kind(**{**usual, **parameters}), X, y


class Trainings:
    """Counts trainings from rung to rung, and ends a fit at one of its writes."""

    def __init__(self, monkeypatch):
        self.done, self.n_puts, self.kill_at = [], 0, None
        for module, name in ((_unit, "advance"), (_skorch, "advance_single")):
            self._count(monkeypatch, module, name)
        put = FileStore.put

        def killing(store, key, value):
            put(store, key, value)
            self.n_puts += 1
            if self.n_puts == self.kill_at:
                raise Killed

        monkeypatch.setattr(FileStore, "put", killing)

    def _count(self, monkeypatch, module, name):
        real = getattr(module, name)

        def counted(unit, space, problem, plan, rung):
            numbers = tuple(m.proposal.number for m in unit.members)
            self.done.append((problem.seed, rung, numbers))
            return real(unit, space, problem, plan, rung)

        monkeypatch.setattr(module, name, counted)
        for user in ("_population", "_skorch"):
            caller_name = sys.modules[f"sknas.trainers.{user}"]
            if hasattr(caller_name, name):
                monkeypatch.setattr(caller_name, name, counted)

    def fit(self, model, X, y, kill_at=None):
        """The fitted model, or None if it was killed."""
        self.n_puts, self.kill_at = 0, kill_at
        try:
            return model.fit(X, y)
        except Killed:
            return None


@pytest.fixture
def trainings(monkeypatch):
    return Trainings(monkeypatch)


def told(model, X):
    """All that two searches must agree on."""
    trials = [
        (t.proposal, t.status, t.score, t.loss, t.fold_scores, t.rung_scores, t.stop)
        for t in model.history_
    ]
    predicted = model.predict_proba if hasattr(model, "classes_") else model.predict
    return trials, model.best_architecture_, predicted(X).tobytes()


# Going on


@pytest.mark.parametrize("inputs", ["table", "image"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_again_and_again_it_ends_as_unbroken(
    strategy, inputs, trainings, tmp_path
):
    model, X, y = search(strategy, inputs)
    unbroken = told(model.fit(X, y), X)
    once = list(trainings.done)
    trainings.done.clear()
    model.set_params(checkpoint=tmp_path)
    n_kills = 0
    while trainings.fit(model, X, y, kill_at=5 + n_kills % 3) is None:
        n_kills += 1
        assert n_kills < 60
    assert n_kills > 2
    assert told(model, X) == unbroken
    # What was written down is not trained again: no rung is there twice.
    assert sorted(trainings.done) == sorted(once)


@pytest.mark.parametrize("kill_at", (1, 7, 12, 25))
def test_killed_at_any_write_it_ends_as_unbroken(kill_at, trainings, tmp_path):
    model, X, y = search(max_trials=5)
    unbroken = told(model.fit(X, y), X)
    once = len(trainings.done)
    trainings.done.clear()
    model.set_params(checkpoint=tmp_path)
    trainings.fit(model, X, y, kill_at)
    assert told(model.fit(X, y), X) == unbroken
    assert len(trainings.done) == once


@pytest.mark.parametrize(
    "parameters",
    [
        {"trainer": SkorchTrainer(), "max_trials": 4},
        {"kind": NASRegressor},
        {"ensemble_size": 1, "max_trials": 16},
        {"max_time": 60.0, "max_epochs": 220},
        {"scoring": "roc_auc_ovr", "constraints": {"n_params": 100_000}},
        {"cv": KFold(3, shuffle=True, random_state=1), "n_jobs": 2},
    ],
    ids=lambda parameters: "-".join(parameters),
)
def test_other_searches_go_on_too(parameters, trainings, tmp_path):
    model, X, y = search(**parameters)
    unbroken = told(model.fit(X, y), X)
    model.set_params(checkpoint=tmp_path)
    assert trainings.fit(model, X, y, kill_at=12) is None
    trainings.done.clear()
    assert trainings.fit(model, X, y, kill_at=5) is None
    assert told(model.fit(X, y), X) == unbroken
    assert len(set(trainings.done)) == len(trainings.done)


def test_a_finished_search_is_read_and_not_trained(trainings, tmp_path):
    model, X, y = search(checkpoint=tmp_path)
    first = told(model.fit(X, y), X)
    trainings.done.clear()
    assert told(model.fit(X, y), X) == first
    assert not trainings.done


def test_networks_of_all_rows_are_not_trained_again(trainings, tmp_path, monkeypatch):
    # Half of the rows train each fold: the answer is trained on all of them.
    model, X, y = search(max_trials=4)
    unbroken = told(model.fit(X, y), X)
    n_members = len(model.ensemble_)
    count, real = [], _ensemble._train_or_tell

    def counted(*arguments):
        count.append(1)
        return real(*arguments)

    monkeypatch.setattr(_ensemble, "_train_or_tell", counted)
    model.set_params(checkpoint=tmp_path)
    assert trainings.fit(model, X, y, kill_at=10_000) is not None
    n_puts = trainings.n_puts
    assert len(count) == n_members > 1
    folder = tmp_path / "again"
    model.set_params(checkpoint=folder)
    assert trainings.fit(model, X, y, kill_at=n_puts - n_members + 1) is None
    assert told(model.fit(X, y), X) == unbroken
    assert len(count) == 2 * n_members


def test_networks_that_are_there_need_no_time(tmp_path, monkeypatch):
    model, X, y = search(max_trials=4, max_time=60.0, max_epochs=5)
    model.set_params(checkpoint=tmp_path)
    first = told(model.fit(X, y), X)
    assert len(model.ensemble_) > 1
    monkeypatch.setattr(_ensemble, "SAFE", 0.0)  # as if all time had gone
    assert told(model.fit(X, y), X) == first


@pytest.mark.parametrize(
    ("there", "places"), [((0, 2), [0, 2]), ((2,), [0, 2]), ((), [0]), ((0,), [0])]
)
def test_members_that_are_there_are_kept_beside_one_that_is_not(there, places):
    class Holding(NullStore):
        def get(self, key):
            return True if key in {f"refit:{number}:1.0" for number in there} else None

    trials = tuple(
        Trial(Proposal(Architecture({}), number=j), stop=1.0, fold_seconds=(9.0,))
        for j in range(3)
    )
    chosen = _ensemble.Selection(trials, (0.5, 0.3, 0.2), (1.0, 2.0, 3.0))
    problem = Problem(store=Holding(), deadline=time.monotonic() + 5)
    trainings = [SimpleNamespace(seed=j, stop=1.0) for j in range(3)]
    assert _ensemble._in_time(chosen, trainings, problem) == places
    assert chosen.kept([0, 2]).temperatures == (1.0, 3.0)


def test_a_search_without_a_seed_goes_on_with_the_one_it_had(trainings, tmp_path):
    model, X, y = search(random_state=None, checkpoint=tmp_path)
    assert trainings.fit(model, X, y, kill_at=12) is None
    first = told(model.fit(X, y), X)
    assert told(model.fit(X, y), X) == first


def test_time_before_a_kill_counts(trainings, tmp_path, monkeypatch):
    model, X, y = search(checkpoint=tmp_path, max_time=30.0, max_trials=None)
    assert trainings.fit(model, X, y, kill_at=12) is None
    # As if the first sitting had taken all the time there is.
    real = FileStore._read

    def late(store):
        real(store)
        store.seconds = 29.9

    monkeypatch.setattr(FileStore, "_read", late)
    started = time.monotonic()
    model.fit(X, y)
    assert time.monotonic() - started < 10
    assert model.stop_reason_ == "max_time"
    assert model.score(X, y) > 0.5


def test_time_for_second_scores_is_a_share_of_all_sittings(tmp_path):
    store = FileStore(tmp_path)
    store.seconds = 40.0
    again = Search(
        space=SPACES["table"],
        strategy=STRATEGIES["random"](),
        trainer=SkorchTrainer(),
        problem=Problem(store=store),
        seed=0,
        max_trials=0,
        deadline=lambda history: None,
    )
    again.run()
    assert time.monotonic() - again.begun > 40.0


def test_ctrl_c_keeps_what_is_done_and_a_second_fit_goes_on(trainings, tmp_path):
    model, X, y = search()
    unbroken = told(model.fit(X, y), X)
    model.set_params(checkpoint=tmp_path)
    real, calls = FileStore.put, []

    def interrupting(store, key, value):
        real(store, key, value)
        calls.append(key)
        if key.startswith("trial:3"):
            raise KeyboardInterrupt

    FileStore.put = interrupting
    try:
        model.fit(X, y)
    finally:
        FileStore.put = real
    assert model.stop_reason_ == "interrupted"
    assert told(model.fit(X, y), X) == unbroken
    assert told(model.fit(X, y), X) == unbroken  # as it is read, too


@pytest.mark.parametrize("at", [3])
def test_ctrl_c_in_a_training_leaves_no_half_done_trial(
    at, trainings, tmp_path, monkeypatch
):
    model, X, y = search()
    unbroken = told(model.fit(X, y), X)
    real, calls = _unit._Training.run, []

    def interrupted(training, rung):
        calls.append(rung)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(training, rung)

    model.set_params(checkpoint=tmp_path)
    monkeypatch.setattr(_unit._Training, "run", interrupted)
    assert model.fit(X, y).stop_reason_ == "interrupted"
    for _ in range(2):  # gone on with, and read
        assert told(model.fit(X, y), X) == unbroken


# What lies in the folder


def test_every_trial_is_on_disk_before_it_is_announced(tmp_path, monkeypatch):
    model, X, y = search(checkpoint=tmp_path)
    numbers = []

    def show(progress, history):
        (path,) = tmp_path.glob(f"*/{LINES}")
        written = path.read_text()
        numbers.extend(t.proposal.number for t in history)
        for trial in history:
            assert f'"key": "trial:{trial.proposal.number}"' in written

    monkeypatch.setattr("sknas._search.progress.Progress.show", show)
    model.fit(X, y)
    assert set(numbers) == set(range(7))
    (path,) = tmp_path.glob(f"*/{LINES}")
    lines = [text.partition(" ")[2] for text in path.read_text().splitlines()]
    keys = [json.loads(line)["key"] for line in lines]
    assert sum(key.startswith("trial:") for key in keys) == 7


def test_the_folder_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("sknas._search.loop.N_KEPT", 5)
    model, X, y = search(checkpoint=tmp_path, max_trials=40)
    model.fit(X, y)
    files = list(tmp_path.glob("*/*.pt"))
    # The networks of the best trials are left, and those that predict, and none of the
    # states of a cohort.
    kinds = Counter(path.name.partition("-")[0] for path in files)
    assert kinds == {"networks": 5, "refit": len(model.ensemble_)}


def test_each_search_has_a_folder_of_its_own(tmp_path):
    model, X, y = search(checkpoint=tmp_path, max_trials=2, max_epochs=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SearchWarning)
        grid = GridSearchCV(model, {"max_epochs": [1, 2]}, cv=2, n_jobs=2).fit(X, y)
    assert len(list(tmp_path.iterdir())) == 2 * 2 + 1
    again = GridSearchCV(model, {"max_epochs": [1, 2]}, cv=2).fit(X, y)
    assert again.best_score_ == grid.best_score_
    assert len(list(tmp_path.iterdir())) == 2 * 2 + 1


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"max_trials": 3}, "max_trials"),
        ({"scoring": "balanced_accuracy"}, "scoring"),
        ({"strategy": GradientStrategy("gdas", n_epochs=1)}, "strategy"),
        ({"cv": 3}, "cv"),
        ({"random_state": 1}, "random_state"),
    ],
)
def test_a_warning_names_once_what_differs(changes, differs, tmp_path):
    model, X, y = search(checkpoint=tmp_path, max_trials=2, max_epochs=1)
    model.fit(X, y)
    model.set_params(n_jobs=2, verbose=0).fit(X, y)  # these change nothing
    text = rf"a new one is begun; of the 1 there, the nearest differs in {differs}\.$"
    with pytest.warns(SearchWarning, match=text) as caught:
        model.set_params(**changes).fit(X, y)
    assert caught[0].filename == __file__
    model.fit(X, y)  # its own is there now
    X[0, 0] += 1
    try:
        with pytest.warns(SearchWarning, match=r"of the 2 there, .* differs in X\.$"):
            model.fit(X, y)
    finally:
        X[0, 0] -= 1


def test_data_are_told_apart(tmp_path):
    model, X, y = search()
    model._check_parameters(X)

    def parts(X, y, weight=None, groups=None):
        data, *_ = model._read_training_data(X, y, weight, groups)
        return _fingerprint.describe_search(model, data, model._target.classes_, "cpu")

    def differing(*other):
        here, there = parts(X, y), parts(*other)
        return {name for name in here if here[name] != there[name]}

    assert differing(X.copy(), y.tolist()) == set()
    assert differing(X[::-1], y[::-1]) == set()  # the order of rows has no say
    assert differing(X * np.float32(1.001), y) == {"X", "rows"}
    assert differing(X, 2 - y) == {"y", "rows"}
    assert differing(X, y + 1) == {"classes"}  # a scorer may ask for one by its name
    assert "rows" in differing(X, np.roll(y, 1))  # the same values, in other places
    assert differing(X, y, np.linspace(1, 2, len(y))) == {"sample_weight", "rows"}
    assert "groups" in differing(X, y, None, np.arange(len(y)) // 2)


def test_parameters_are_told_in_words_that_last():
    text = _fingerprint._text

    def scorer(estimator, X, y):
        return 0.0

    def other(estimator, X, y):
        return 1.0 + len(X)

    strategy = GradientStrategy("gdas")
    for value in (scorer, strategy, KFold(3), {"n_params": 5}, np.arange(3), None):
        assert "0x" not in text(value)
        assert text(value) == text(value)
    assert text(scorer) != text(other)
    assert text(KFold(3)) != text(KFold(4))

    def bounded(n):
        return lambda a: a["n"] < n

    pairs = [
        (make_scorer(f1_score), make_scorer(accuracy_score)),
        (make_scorer(f1_score), make_scorer(f1_score, average="macro")),
        (lambda a: a["n"] < 1_000, lambda a: a["n"] < 2_000),
        (lambda a: len(a), lambda a: sum(a)),
        (bounded(3), bounded(4)),
        (partial(f1_score, average="macro"), partial(f1_score, average="micro")),
        (lambda a, n=3: n, lambda a, n=4: n),
    ]

    class Judge:
        def good(self, estimator, X, y):
            return 1.0

        def bad(self, estimator, X, y):
            return -1.0

    def space_of(n_outputs):
        class Own(TableSpace):
            n_hidden = n_outputs

            def build(self, architectures, task):
                return n_outputs

        return Own()

    pairs += [
        (Judge().good, Judge().bad),
        (space_of(3), space_of(4)),
        (SPACES["table"], TableSpace(**SPACES["table"].get_params())),
        (itemgetter(1), itemgetter(2)),
    ]
    words = np.array(["one", "two"], dtype=object)
    pairs.append((words, np.array(["one", "three"], dtype=object)))
    assert text(words) == text(pickle.loads(pickle.dumps(words)))
    for one, other in pairs:
        assert text(one) != text(other)
        assert "0x" not in text(one)
    assert text(bounded(3)) == text(bounded(3))
    assert text(strategy) != text(GradientStrategy("darts"))


def made(code, **others):
    """The scorer that some code defines, as in a module or a cell of a notebook."""
    space = {"__name__": "mine", **others}
    exec(code, space)
    return space["scorer"]


CALLS_ITSELF = """
def scorer(estimator, X, y):
    return other(y) * {}

def other(y):
    return scorer(None, None, y) if len(y) else 0.0
"""
DECORATES = """
import functools
def decorated(function):
    @functools.wraps(function)
    def outer(*arguments):
        return function(*arguments)
    return outer

@decorated
def scorer(estimator, X, y, k={}):
    return k
"""
IN_A_CLOSURE = """
def make(k):
    inner = lambda y, p: k * (y == p).mean()
    def outer(estimator, X, y):
        return inner(y, estimator.predict(X))
    return outer
scorer = make({})
"""
OF_A_CLASS = """
import numpy as np
from abc import ABC
from functools import cached_property
def held(k):
    return lambda self: k
class Judge(ABC):
    {0}
    def __call__(self, estimator, X, y):
        return super().__repr__()
scorer = Judge{1}
"""
FITTED = """
from sklearn.dummy import DummyRegressor
k = DummyRegressor().fit([[0]], [{}])
"""
OF_ITS_MODULE = """
import numpy as np
import torch
from threading import Lock
LOCK = Lock()
{0}
def scorer(estimator, X, y):
    return [{1} for _ in y]
"""


@pytest.mark.parametrize(
    ("code", "one", "other"),
    [
        (IN_A_CLOSURE, ["1"], ["-1"]),
        (DECORATES, ["1"], ["-1"]),
        (CALLS_ITSELF, ["1"], ["-1"]),
        (OF_A_CLASS, ["def m(self, k=1): ...", "()"], ["def m(self, k=2): ...", "()"]),
        (OF_A_CLASS, ["def m(_, *, k=1): ...", "()"], ["def m(_, *, k=2): ...", "()"]),
        (OF_A_CLASS, ["m = held(1)", "()"], ["m = held(-1)", "()"]),
        (OF_A_CLASS, ["m = held(1)", ""], ["m = held(-1)", ""]),
        (OF_A_CLASS, ["m = property(held(1))", "()"], ["m = property(held(2))", "()"]),
        (OF_A_CLASS, ["_k = 1", "()"], ["_k = 2", "()"]),
        (OF_A_CLASS, ["k = np.eye(2)", "()"], ["k = np.eye(3)", "()"]),
        (OF_ITS_MODULE, ["k = 1", "k"], ["k = 2", "k"]),
        (OF_ITS_MODULE, ["k = 1", "(lambda: k)()"], ["k = 2", "(lambda: k)()"]),
        (OF_ITS_MODULE, ["k = lambda: 1", "k()"], ["k = lambda: 2", "k()"]),
        (OF_ITS_MODULE, ["k = {'a', 'b'}", "k"], ["k = {'a', 'c'}", "k"]),
        (OF_ITS_MODULE, ["k = {1: 2}", "k"], ["k = {'1': 2}", "k"]),
        (OF_ITS_MODULE, ["k = np.ones(9)", "k"], ["k = np.zeros(9)", "k"]),
        (OF_ITS_MODULE, ["k = np.array(1)", "k"], ["k = np.array(2)", "k"]),
        (OF_ITS_MODULE, ["k = torch.ones(9)", "k"], ["k = torch.zeros(9)", "k"]),
        (
            OF_ITS_MODULE,
            ["class K:\n  def m(self): return 1", "K().m()"],
            ["class K:\n  def m(self): return 2", "K().m()"],
        ),
        (
            OF_ITS_MODULE,
            ["class K(int): ...", "K()"],
            ["class K(float): ...", "K()"],
        ),
        (OF_ITS_MODULE, ["", "(lambda *, a, b: a)"], ["", "(lambda *, b, a: b)"]),
        (OF_ITS_MODULE, ["k = {1: 2}.get", "k(1)"], ["k = {1: 3}.get", "k(1)"]),
        (OF_ITS_MODULE, [FITTED.format(1), "k"], [FITTED.format(2), "k"]),
    ],
)
def test_what_code_uses_tells_searches_apart(code, one, other):
    text = _fingerprint._text
    here, there = made(code.format(*one)), made(code.format(*other))
    assert text(here) == text(made(code.format(*one)))
    assert text(here) == text(cloudpickle.loads(cloudpickle.dumps(here)))
    assert text(here) != text(there)


def test_a_number_that_code_counts_up_is_not_what_it_does():
    text = _fingerprint._text
    code = "k = 0\ndef scorer(estimator, X, y):\n  global k\n  k += 1\n  return 0.0\n"
    scorer = made(code)
    before = text(scorer)
    scorer(None, None, None)
    assert text(scorer) == before


def test_what_stands_beside_a_lock_is_told():
    text = _fingerprint._text
    code = OF_ITS_MODULE.format("def k(lock=LOCK): return {}", "k(LOCK)")
    assert text(made(code.format(1))) == text(made(code.format(1)))
    assert text(made(code.format(1))) != text(made(code.format(2)))
    # Some versions of Python keep a lock in it.
    code = OF_A_CLASS.format("m = cached_property(held({}))", "()")
    assert text(made(code.format(1))) != text(made(code.format(2)))


def test_scorers_that_hold_others_do_not_share_a_search(tmp_path):
    scores = []
    for k in (1, -1):
        scorer = made(IN_A_CLOSURE.format(k))
        model, X, y = search(
            scoring=scorer, checkpoint=tmp_path, max_trials=2, max_epochs=1
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SearchWarning)
            scores.append(model.fit(X, y).best_score_)
    assert len(list(tmp_path.iterdir())) == 2
    assert scores[1] <= 0 <= scores[0] != scores[1]


def test_what_code_does_not_use_changes_nothing():
    code = "def scorer(estimator, X, y):\n  return y.mean() + helper(y) + sqrt(4)\n"
    helper = made("def scorer(y): return 0.0")
    text = _fingerprint._text(made(code, helper=helper, sqrt=np.sqrt))
    others = {"helper": helper, "sqrt": np.sqrt, "__file__": "elsewhere", "unused": 1}
    assert text == _fingerprint._text(made(code, mean=3, **others))
    # As it is where another module imports it, or in a script.
    assert text == _fingerprint._text(made(code, **{**others, "__name__": "__main__"}))


def test_a_long_chain_of_code_is_told_to_its_end():
    chain = "".join(f"def f{i}(y): return f{i + 1}(y)\n" for i in range(1_000))
    chain += "def scorer(estimator, X, y): return f0(y)\nf1000 = lambda y: {}"
    one, other = (_fingerprint._text(made(chain.format(k))) for k in (1, 2))
    assert one != other


def test_libraries_are_told_by_name_and_not_followed(monkeypatch):
    code = "k = {}\ndef scorer(estimator, X, y):\n  return k\n"
    for module, is_followed in ((torch.__name__, False), ("mine", True)):
        one, other = (made(code.format(k), __name__=module) for k in (1, 2))
        assert (_fingerprint._text(one) != _fingerprint._text(other)) == is_followed
    # One that is installed and that the list does not name.
    monkeypatch.setattr(_fingerprint, "LIBRARIES", ())
    one, other = (made(code.format(k), __name__=torch.__name__) for k in (1, 2))
    assert _fingerprint._text(one) == _fingerprint._text(other)
    assert _fingerprint._text(torch.nn.Linear) == "torch.nn.modules.linear.Linear"


def test_an_empty_cell_is_told():
    def scorer(estimator, X, y):
        return later(y)

    empty = _fingerprint._text(scorer)

    def later(y):
        return 0.0

    assert empty != _fingerprint._text(scorer)


TOLD = """
import sys, torch
import numpy as np
from sknas._checkpoint import fingerprint as _fingerprint
WORDS = {"one", "two", "three", "four"}
TENSOR = torch.arange(3.0)
class Judge:
    words = frozenset(WORDS)
    def good(self, y, k=object, other=lambda y: y in {"five", "six", "seven"}):
        return [TENSOR, super().__repr__()]
JUDGE = Judge()
def helper(y):
    return JUDGE.good(y) if y in WORDS else scorer(None, None, y)
def scorer(estimator, X, y):
    return helper(np.mean(y))
"""


def test_code_is_told_the_same_in_another_process(tmp_path):
    (tmp_path / "kept.py").write_text(TOLD)
    found = []
    for seed, code in (
        ("1", TOLD),
        ("2", TOLD),
        ("3", "import sys; from kept import _fingerprint, scorer"),
    ):
        code += "\nsys.stdout.write(_fingerprint._text(scorer))"
        paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": paths}
        command = [sys.executable, "-c", code]
        found.append(subprocess.check_output(command, env=environment, text=True))
    scorer = cloudpickle.loads(cloudpickle.dumps(made(TOLD)))
    assert [_fingerprint._text(scorer)] * 3 == found


def test_versions_tell_searches_apart(monkeypatch):
    model, X, y = search()
    model._check_parameters(X)
    data, *_ = model._read_training_data(X, y, None, None)

    def parts():
        return _fingerprint.describe_search(model, data, model._target.classes_, "cpu")

    usual = parts()
    for package in ("sknas", "torch", "scikit-learn", "numpy", "skorch"):
        assert f"{package} {version(package)}" in usual["versions"].split(", ")
    real = _fingerprint.version
    for package in ("scikit-learn", "numpy", "skorch"):
        changed = {package: "0.0"}
        monkeypatch.setattr(
            _fingerprint, "version", lambda name, c=changed: c.get(name, real(name))
        )
        assert _fingerprint.differences(usual, parts()) == ["versions"]


def test_a_living_process_keeps_others_out(tmp_path):
    model, X, y = search(checkpoint=tmp_path, max_trials=2, max_epochs=1)
    model.fit(X, y)
    (own,) = tmp_path.iterdir()
    code = (
        "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]);"
        "lock.acquire(); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, own / "lock"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match="is under way in another process"):
            model.fit(X, y)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    model.fit(X, y)  # taken over from the dead one


def test_damage_is_told_and_nothing_is_deleted(tmp_path):
    model, X, y = search(checkpoint=tmp_path, max_trials=2, max_epochs=1)
    model.fit(X, y)
    (path,) = tmp_path.glob(f"*/{LINES}")
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"key"', '"kex"')
    path.write_text("".join(lines))
    with pytest.raises(CheckpointError, match=r"^Line 3 of .* is damaged"):
        model.fit(X, y)
    assert path.read_text() == "".join(lines)


@pytest.mark.parametrize("checkpoint", [3, True, b"folder", ["a"]])
def test_what_is_no_folder_is_refused(checkpoint):
    model, X, y = search(checkpoint=checkpoint)
    with pytest.raises(InvalidParameterError, match="'checkpoint' parameter"):
        model.fit(X, y)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    model, X, y = search(checkpoint=tmp_path / "file" / "folder")
    with pytest.raises(InvalidParameterError, match="can be made and written to"):
        model.fit(X, y)


class Trap:
    """Runs code where a pickle of it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_somebody_elses_weights_run_no_code(write, tmp_path):
    model, X, y = search(max_trials=2, max_epochs=2, checkpoint=tmp_path)
    model.fit(X, y)
    mark, crcs = tmp_path / "mark", {}
    for path in tmp_path.glob("*/*.pt"):
        with path.open("wb") as file:
            write(Trap(mark), file)
        crcs[path.name] = zlib.crc32(path.read_bytes())
    (store,) = tmp_path.glob(f"*/{LINES}")
    written = ""
    for text in store.read_text().splitlines():  # with checksums that fit
        line = json.loads(text.partition(" ")[2])
        if line.get("file") in crcs:
            line["crc"] = crcs[line["file"]]
        text = json.dumps(line)
        written += f"{zlib.crc32(text.encode()):08x} {text}\n"
    store.write_text(written)
    with pytest.raises(CheckpointError, match=r"^The file .*\.pt' .* is not read, it "):
        model.fit(X, y)
    assert not mark.exists()
    assert store.read_text() == written
    assert {path.name for path in tmp_path.glob("*/*.pt")} == crcs.keys()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[1, 2]", b'{"of": "others"}', pickle.dumps([]), None],
    ids=range(7),
)
def test_headers_of_others_are_passed_over_with_a_warning(content, tmp_path):
    other = tmp_path / "folder" / _checkpoint.HEADER
    if content is None:
        other.mkdir(parents=True)
    else:
        other.parent.mkdir()
        other.write_bytes(content)
    model, X, y = search(max_trials=2, max_epochs=1, checkpoint=tmp_path)
    with pytest.warns(SearchWarning, match=r"json' .* is passed over") as caught:
        model.fit(X, y)
    assert len(caught) == 1 and str(other) in str(caught[0].message)
    assert content is None or other.read_bytes() == content
    model.fit(X, y)  # it is said once


def test_nothing_is_written_without_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, X, y = search(max_trials=2, max_epochs=1)
    model.fit(X, y)
    assert not list(tmp_path.iterdir())


# Real processes

SCRIPT = """
import sys
import numpy as np
from sklearn.datasets import load_digits
from sknas import NASClassifier

X, y = load_digits(return_X_y=True)
model = NASClassifier(
    max_trials=18, max_epochs=10, cv=2, n_jobs=1, random_state=0, checkpoint=sys.argv[1]
)
print("begun", flush=True)
model.fit(X[:300], y[:300])
print(model.stop_reason_, model.predict_proba(X).tobytes().hex()[:64], flush=True)
"""


def begun(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, folder], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    return process


def n_lines(folder):
    return sum(
        len(p.read_bytes().splitlines()) for p in Path(folder).glob(f"*/{LINES}")
    )


def ended(process):
    with process.stdout:
        said = process.stdout.read().split()
    process.wait(60)
    return said


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_process_that_is_killed_and_one_that_is_asked_to_end(tmp_path):
    folder = tmp_path / "searches"
    for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        process, before = begun(folder), n_lines(folder)
        until = time.monotonic() + 60
        while n_lines(folder) < before + 4 and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(number)
        assert ended(process) == []
        assert process.returncode == status
    model = NASClassifier(max_trials=18, max_epochs=10, cv=2, n_jobs=1, random_state=0)
    model.fit(DIGITS.data[:300], DIGITS.target[:300])
    predicted = model.predict_proba(DIGITS.data).tobytes().hex()[:64]
    assert ended(begun(folder)) == ["max_trials", predicted]
