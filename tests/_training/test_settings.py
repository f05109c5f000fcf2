"""The caller's settings of libraries have no effect, and stay as they are."""

import os
import pickle
import subprocess
import sys
import threading
import warnings
from contextlib import ExitStack

import numpy as np
import pandas as pd
import pytest
import torch
from library_settings import EFFECTIVE, SETTINGS, state
from torch import nn

import sknas
from sknas import NASClassifier, NASRegressor
from sknas._training.settings import DefaultSettings
from sknas.exceptions import SearchWarning, UnseenValuesWarning
from sknas.spaces import TableSpace

TINY = {"max_trials": 2, "max_epochs": 2, "cv": 2, "n_jobs": 1, "random_state": 0}

rng = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "number": np.where(rng.random(60) < 0.1, np.nan, rng.normal(size=60)),
        "flag": rng.random(60) < 0.5,
        "word": rng.choice(["a", "b", "c"], 60),
        "level": pd.Categorical(rng.choice(["low", "high"], 60)),
    }
)
CLASSES = rng.choice(["yes", "no"], 60)
VALUES = rng.normal(size=(60, 2))
IMAGES = rng.integers(0, 256, size=(30, 8, 8)).astype(np.uint8)

KINDS = {
    "table": (NASClassifier(**TINY), TABLE, CLASSES),
    "values": (NASRegressor(trainer="skorch", ensemble_size=1, **TINY), TABLE, VALUES),
    "table, by gradient": (NASClassifier(strategy="gradient", **TINY), TABLE, CLASSES),
    "images": (NASClassifier(**TINY), IMAGES, CLASSES[:30]),
    "images, by gradient": (
        NASClassifier(strategy="gradient", **TINY),
        IMAGES,
        CLASSES[:30],
    ),
}


def fit(kind):
    estimator, X, y = KINDS[kind]
    return copy(estimator).fit(X, y)


def copy(estimator):
    return type(estimator)(**estimator.get_params(deep=False))


def answers(model, kind):
    """Return what a model answers, and how it came to be, as bytes and text."""
    X = KINDS[kind][1]
    method = getattr(model, "predict_proba", model.predict)
    scores = [trial.fold_scores for trial in model.history_]
    return method(X).tobytes(), model.predict(X).tolist(), str(scores)


@pytest.fixture(scope="module")
def expected():
    """Return a function that gives the model of a kind and its answers."""
    known = {}

    def find(kind):
        if kind not in known:
            model = fit(kind)
            known[kind] = model, answers(model, kind)
        return known[kind]

    return find


def check(kind, name, expected):
    """Assert equal answers of what is fitted, loaded and asked inside a setting."""
    model, wanted = expected(kind)
    content = pickle.dumps(model)
    with SETTINGS[name]():
        before = state()
        fitted = fit(kind)
        assert state() == before
        assert answers(fitted, kind) == wanted
        loaded = pickle.loads(pickle.dumps(pickle.loads(content)))
        assert answers(model, kind) == answers(loaded, kind) == wanted
        assert state() == before
    assert answers(fitted, kind) == answers(loaded, kind) == wanted


@pytest.mark.parametrize("name", EFFECTIVE)
def test_a_setting_of_the_caller_has_no_effect(name, expected):
    check("table", name, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_has_no_effect_on_any_kind_of_fit(name, expected):
    for kind in KINDS:
        check(kind, name, expected)


@pytest.mark.parametrize("kind", ["values", "images"])
def test_all_settings_together_have_no_effect(kind, expected):
    left_out = ("within device meta", "joblib processes")
    with ExitStack() as stack:
        for name in SETTINGS:
            if name not in left_out:
                stack.enter_context(SETTINGS[name]())
        before = state()
        assert answers(fit(kind), kind) == expected(kind)[1]
        assert state() == before


# ------------------------------------------------------------------------- user's code


SEEN = []


class WatchingSpace(TableSpace):
    """Builds networks as always, and notes the settings."""

    def build(self, architecture, task):
        SEEN.append(torch.get_default_dtype())
        return super().build(architecture, task)


def test_code_that_fit_calls_runs_under_default_settings():
    seen = []

    def score(model, X, y):
        seen.append((torch.get_default_dtype(), torch.is_grad_enabled()))
        return np.mean(model.predict(X) == y)

    SEEN.clear()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            model = NASClassifier(WatchingSpace(), scoring=score, **TINY)
            model.fit(TABLE, CLASSES)
    finally:
        torch.set_default_dtype(torch.float32)
    assert set(seen) == {(torch.float32, True)}
    assert set(SEEN) == {torch.float32}


def test_the_objective_of_a_search_runs_under_the_settings_of_its_caller():
    space = {"x": (-5.0, 5.0), "shape": ["round", "square"]}

    def objective(architecture):
        seen.append((torch.empty(0).device.type, np.geterr()["under"]))
        return -(architecture["x"] ** 2)

    histories = []
    for under, device in (("ignore", None), ("raise", "meta")):
        seen = []
        torch.set_default_device(device)
        with np.errstate(under=under):
            history = sknas.search(objective, space, max_trials=12, random_state=0)
        torch.set_default_device(None)
        assert set(seen) == {(device or "cpu", under)}
        histories.append([(dict(t.architecture), t.score) for t in history])
    assert histories[0] == histories[1]


# ---------------------------------------------------------------------------- threads


def test_the_last_thread_restores_the_settings_of_the_process():
    is_inside, may_leave = threading.Event(), threading.Event()

    def work():
        with DefaultSettings():
            is_inside.set()
            assert may_leave.wait(10)

    other = threading.Thread(target=work)
    torch.set_default_dtype(torch.float64)
    try:
        with DefaultSettings():
            other.start()
            assert is_inside.wait(10)
        assert torch.get_default_dtype() == torch.float32  # the other one needs it
        may_leave.set()
        other.join(10)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_settings_are_restored_after_an_error():
    with SETTINGS["double"](), SETTINGS["autocast"](), SETTINGS["numpy raises"]():
        before = state()
        with pytest.raises(KeyError), DefaultSettings():
            assert state() != before
            raise KeyError
        assert state() == before


def test_half_precision_inside_reads_the_latest_weights():
    layer, x = nn.Linear(2, 1, bias=False), torch.ones(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)  # the caller's context keeps these weights
        with DefaultSettings():
            for weight in (1.0, 2.0):
                layer.weight.data.fill_(weight)
                with torch.autocast("cpu", torch.bfloat16):
                    assert layer(x).item() == 2 * weight


# --------------------------------------------------------------------------- warnings


def test_a_warning_of_a_library_is_no_error_inside():
    def score(model, X, y):
        warnings.warn("an old function", FutureWarning, stacklevel=1)
        return np.mean(model.predict(X) == y)

    model = NASClassifier(scoring=score, **TINY)
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        warnings.simplefilter("error")
        model.fit(TABLE, CLASSES)
    assert {str(warning.message) for warning in caught} <= {"an old function"}
    assert {trial.status for trial in model.history_} == {"ok"}


class FailingSpace(TableSpace):
    """Can't build networks without hidden layers."""

    def build(self, architecture, task):
        if architecture["depth"] == 0:
            raise RuntimeError("no layer")
        return super().build(architecture, task)


@pytest.mark.parametrize("category", [Warning, UserWarning, SearchWarning])
def test_our_warning_that_is_an_error_comes_when_the_work_is_done(category):
    model = NASClassifier(FailingSpace(), **TINY)
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error", category)
        with pytest.raises(SearchWarning, match="1 of 2 trials failed"):
            model.fit(TABLE, CLASSES)
    assert model.predict(TABLE).shape == (60,)
    assert model.search_time_ > 0


def test_our_warning_before_the_search_is_an_error_at_once(tmp_path):
    NASClassifier(checkpoint=tmp_path, **TINY).fit(TABLE, CLASSES)
    model = NASClassifier(checkpoint=tmp_path, **{**TINY, "random_state": 1})
    with pytest.raises(SearchWarning, match="a new one starts"):
        model.fit(TABLE, CLASSES)
    assert not hasattr(model, "ensemble_")


def test_a_warning_of_predict_that_is_an_error_is_one_each_time():
    model = NASClassifier(**TINY).fit(TABLE, CLASSES)
    strange = TABLE.assign(word="never seen")
    for _ in range(2):
        with pytest.raises(UnseenValuesWarning, match="'word'"):
            model.predict(strange)
    with pytest.warns(UnseenValuesWarning) as caught:
        model.predict(strange)
        model.predict(strange)
    assert [warning.filename for warning in caught] == [__file__]


# ------------------------------------------------------------------- another process

SCRIPT = """
import hashlib, multiprocessing, os, sys, tempfile
import numpy as np, torch
from sknas import NASClassifier
if sys.argv[1] == "changed":
    multiprocessing.set_start_method("spawn")
    sys.setrecursionlimit(400)
    torch.set_num_threads(2)
rng = np.random.default_rng(0)
X, y = rng.normal(size=(60, 4)).astype(object), rng.choice(["u", "v"], 60)
X[:, 3] = rng.choice(["a", "b", "c"], 60)
os.chdir(tempfile.mkdtemp())
model = NASClassifier(max_trials=3, max_epochs=2, random_state=0, checkpoint="run")
model.fit(X, y)
os.chdir(tempfile.mkdtemp())
print(hashlib.sha256(model.predict_proba(X).tobytes()).hexdigest())
"""


@pytest.mark.process
def test_ways_to_start_python_have_no_effect():
    found = []
    for word, seed, flags in (("plain", "0", []), ("changed", "7", ["-W", "error"])):
        threads = str(len(found) + 1)
        environment = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
        command = [sys.executable, *flags, "-c", SCRIPT, word]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert found[0] == found[1]
