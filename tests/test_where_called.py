"""A fit with worker processes works wherever it is called from."""

import json
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from threadpoolctl import threadpool_info, threadpool_limits

from sknas import NASClassifier

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups, fork")

WAIT = 120  # seconds that a whole script may take, on a busy machine
WORKER_ENDED = re.compile(
    r"Process LokyProcess-\d+:\nTraceback \(most recent call last\):\n"
    r"(  File .*(multiprocessing/process|loky/process_executor)\.py.*\n    .*\n)+"
    r"KeyboardInterrupt\n"
)
TINY = {"max_trials": 3, "max_epochs": 3, "cv": 2}
X, CLASSES = load_iris(return_X_y=True)

# What each script begins with: the same fits as in this file, as text.
HEAD = f"""
import json, multiprocessing, os
from sklearn.datasets import load_iris
from sknas import NASClassifier
from sknas.strategies import RandomStrategy
from sknas.trainers import _workers

_workers.WORTH_WORKERS = _workers.ROOM_FOR_WORKERS = 0
X, CLASSES = load_iris(return_X_y=True)

def fit(n_jobs, seed=0):
    model = NASClassifier(n_jobs=n_jobs, random_state=seed, **{TINY!r})
    model.fit(X, CLASSES)
    scores = [list(trial.fold_scores) for trial in model.history_]
    n_workers = len(multiprocessing.active_children())
    return model.predict_proba(X).tolist(), scores, n_workers
"""
TELL = "print(json.dumps(fit(2)), flush=True)\n"


def fit(n_jobs=None, seed=0):
    return NASClassifier(n_jobs=n_jobs, random_state=seed, **TINY).fit(X, CLASSES)


def told(model):
    """What the scripts tell of a model."""
    scores = [list(trial.fold_scores) for trial in model.history_]
    return model.predict_proba(X).tolist(), scores


def fit_and_tell(n_jobs=None, seed=0):
    """Also how many processes it started, for a process that had none before."""
    before = len(multiprocessing.active_children())
    model = fit(n_jobs, seed)
    return *told(model), len(multiprocessing.active_children()) - before


@pytest.fixture(scope="module")
def alone():
    """What fits in one process, with seeds 0 and 1, tell."""
    return [told(fit(1, seed)) for seed in (0, 1)]


@pytest.fixture
def eager(monkeypatch):
    """Workers however short the work is."""
    monkeypatch.setattr("sknas._parallel.run.WORTH_WORKERS", 0)
    monkeypatch.setattr("sknas._parallel.run.ROOM_FOR_WORKERS", 0)


def check(outcome, alone, workers=None):
    """An outcome of a script is that of one process."""
    answers, scores, n_workers = outcome
    assert scores == alone[1]
    assert answers == alone[0]
    if workers is not None:
        assert (n_workers > 0) == workers


class Script:
    """A process of its own, with all it starts in one process group."""

    def __init__(self, folder, arguments, stdin=""):
        self.output, self.errors = folder / "output", folder / "errors"
        (folder / "input").write_text(stdin)
        # What a shell starts in the background ignores Ctrl-C, and all that it starts.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        # Files, as a worker that is left behind would keep a pipe open.
        with (
            (folder / "input").open() as given,
            self.output.open("w") as output,
            self.errors.open("w") as errors,
        ):
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=given,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )
        signal.signal(signal.SIGINT, before)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.is_there():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def is_there(self):
        """Whether any process of the group is left."""
        self.process.poll()
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def wait_for(self, is_met, seconds):
        """Whether something becomes true in time."""
        until = time.monotonic() + seconds
        while not is_met():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True

    def lines(self):
        return self.output.read_text().splitlines()

    def end(self, seconds=WAIT):
        """The lines it printed, after a quiet end that leaves nothing behind."""
        has_ended = self.wait_for(lambda: self.process.poll() is not None, seconds)
        errors = self.errors.read_text()
        assert has_ended, f"still running after {seconds} s\n{errors}"
        # A worker of loky that Ctrl-C of a terminal meets between two tasks says so.
        assert WORKER_ENDED.sub("", errors) == ""
        assert self.process.returncode == 0
        assert self.wait_for(lambda: not self.is_there(), 10), "a worker is left"
        return [json.loads(line) for line in self.lines()]


def write(folder, code):
    path = folder / "script.py"
    path.write_text(code)
    return path


# Ways to start Python


# As a notebook does: cell by cell in a __main__ that is no file, inside a loop.
NOTEBOOK = """
import __main__, asyncio, code, json, signal, sys
cells = json.loads(sys.stdin.read())
interpreter = code.InteractiveInterpreter(__main__.__dict__)
assert not hasattr(__main__, "__file__")
async def run():
    # asyncio would keep Ctrl-C for itself; ipykernel sets this handler for each cell.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for cell in cells:
        interpreter.runsource(cell, "<cell>", "exec")
asyncio.run(run())
"""


# Cohort after cohort; one network is trained again after Ctrl-C, without a worker.
INTERRUPTED = [
    """
class Told(RandomStrategy):
    def observe(self, trials):
        super().observe(trials)
        print(json.dumps("observed"), flush=True)

model = NASClassifier(
    strategy=Told(),
    max_trials=3_000,
    max_epochs=20,
    ensemble_size=1,
    cv=2,
    n_jobs=2,
    random_state=0,
)
""",
    "model.fit(X, CLASSES)\n",
    "told = [model.stop_reason_, model.n_trials_, model.score(X, CLASSES)]\n"
    "print(json.dumps(told))\n",
]


@pytest.mark.parametrize(
    ("is_file", "send"),
    [(True, os.killpg), (False, os.kill)],
    ids=["script-terminal", "notebook-kill"],
)
def test_code_without_guard_and_ctrl_c(tmp_path, alone, is_file, send):
    # A terminal sends the signal to the workers too.
    cells = [HEAD, TELL, *INTERRUPTED]
    arguments = [write(tmp_path, "".join(cells))] if is_file else ["-c", NOTEBOOK]
    with Script(tmp_path, arguments, json.dumps(cells)) as script:
        n_ahead = 2  # the outcome of the first fit, and a cohort of the second
        is_ahead = script.wait_for(lambda: len(script.lines()) >= n_ahead, WAIT)
        assert is_ahead, script.errors.read_text()
        time.sleep(0.3)
        send(script.process.pid, signal.SIGINT)
        outcome, *_, (reason, n_trials, score) = script.end(seconds=15)
    check(outcome, alone[0], workers=True)
    assert reason == "interrupted"
    assert 0 < n_trials < 3_000
    assert score > 0.8


# Inside other people's processes


POOLS = """
from concurrent.futures import ProcessPoolExecutor

def tell(outcome):
    print(json.dumps(outcome), flush=True)

def in_pool(method, *all_n_jobs):
    with multiprocessing.get_context(method).Pool(1) as pool:
        for n_jobs in all_n_jobs:
            tell(pool.apply(fit, (n_jobs,)))

def in_executor(*all_n_jobs):
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        for n_jobs in all_n_jobs:
            tell(executor.submit(fit, n_jobs).result())

def in_fork(n_jobs):
    process = os.fork()
    if process == 0:
        tell(fit(n_jobs))
        os._exit(0)
    os.waitpid(process, 0)

if __name__ == "__main__":
"""

# What runs, and how many fits it tells of. The parent used torch before, as `fit` does,
# and in the second case it has workers of its own.
INSIDE = {
    "torch": (
        "fit(1); in_pool('fork', None, 2); in_executor(2); in_fork(None); "
        "in_pool('spawn', 2)",
        5,
    ),
    "workers": ("fit(2); in_pool('fork', None); in_executor(2); in_fork(None)", 3),
}


@pytest.mark.parametrize("where", INSIDE)
def test_inside_a_process(tmp_path, alone, where):
    main, n_fits = INSIDE[where]
    path = write(tmp_path, HEAD + POOLS + "    " + main)
    # joblib says so where a daemonic process asks for workers, and takes none.
    quiet = ["-W", "ignore:Loky-backed parallel loops"]
    with Script(tmp_path, [*quiet, path]) as script:
        outcomes = script.end()
    assert len(outcomes) == n_fits
    for outcome in outcomes:
        check(outcome, alone[0])


def test_inside_workers_of_joblib(eager, alone):
    outcomes = joblib.Parallel(n_jobs=2)(
        joblib.delayed(fit_and_tell)(None, seed) for seed in (0, 1)
    )
    for outcome, expected in zip(outcomes, alone, strict=True):
        check(outcome, expected, workers=False)
    model = NASClassifier(random_state=0, **TINY)
    parallel = cross_val_score(model, X, CLASSES, cv=2, n_jobs=2, error_score="raise")
    model.set_params(n_jobs=1)
    np.testing.assert_array_equal(parallel, cross_val_score(model, X, CLASSES, cv=2))


# In this process


def state():
    return {
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "numpy": [str(part) for part in np.random.get_state()],  # noqa: NPY002
        "python": random.getstate(),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "interop": torch.get_num_interop_threads(),
        "dtype": torch.get_default_dtype(),
        "blas": blas_threads(),
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
    }


def blas_threads():
    return [
        library["num_threads"]
        for library in threadpool_info()
        if library["user_api"] == "blas"
    ]


def test_workers_leave_this_process_as_found(eager, alone):
    before = state()
    answers, scores = told(fit(2))
    assert state() == before
    assert (answers, scores) == alone[0]
    assert multiprocessing.active_children()


def test_workers_of_two_threads(eager, alone):
    before = state()
    with ThreadPoolExecutor(2) as pool:
        models = list(pool.map(fit, (2, 2), (0, 1)))
    after = state()
    for name in ("signals", "threads", "dtype", "torch", "environment"):
        assert after[name] == before[name]
    assert [told(model) for model in models] == alone


def test_fits_that_overlap_give_back_the_threads_of_blas():
    inside = [threading.Event(), threading.Event()]
    first_is_done = threading.Event()
    waits_for = [inside[1], first_is_done]

    def run(place):
        def score(model, X, y):
            if not inside[place].is_set():
                inside[place].set()
                assert waits_for[place].wait(60)
            return model.score(X, y)

        NASClassifier(n_jobs=1, scoring=score, **TINY).fit(X, CLASSES)

    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        first, second = (threading.Thread(target=run, args=(i,)) for i in (0, 1))
        first.start()
        assert inside[0].wait(60)
        second.start()
        first.join()
        first_is_done.set()
        second.join()
        assert blas_threads() == before
