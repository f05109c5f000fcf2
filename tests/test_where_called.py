"""Fits with worker processes in scripts, notebooks, child processes and threads."""

import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import joblib
import numpy as np
import pytest
import torch
from library_settings import SETTINGS
from library_settings import state as settings_of_libraries
from scripts import HEAD, TINY, WAIT, Script, write
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from threadpoolctl import threadpool_info, threadpool_limits

from sknas import NASClassifier

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name != "posix", reason="process groups, fork"),
]

X, CLASSES = load_iris(return_X_y=True)

PRINT_FIT = "print(json.dumps(fit(2)), flush=True)\n"


def fit(n_jobs=None, seed=0):
    return NASClassifier(n_jobs=n_jobs, random_state=seed, **TINY).fit(X, CLASSES)


def result_of(model):
    """Return probabilities and fold scores of a model, as the scripts print them."""
    scores = [list(trial.fold_scores) for trial in model.history_]
    return model.predict_proba(X).tolist(), scores


def fit_and_count_workers(n_jobs=None, seed=0):
    """Fit, and also count the worker processes that the fit starts."""
    before = len(multiprocessing.active_children())
    model = fit(n_jobs, seed)
    return *result_of(model), len(multiprocessing.active_children()) - before


@pytest.fixture(scope="module")
def single_process():
    """Results of fits in one process, for seeds 0 and 1."""
    return [result_of(fit(1, seed)) for seed in (0, 1)]


@pytest.fixture
def eager(monkeypatch):
    """Start workers even for short work."""
    monkeypatch.setattr("sknas._parallel.run.WORTH_WORKERS", 0)
    monkeypatch.setattr("sknas._parallel.run.ROOM_FOR_WORKERS", 0)


def check(outcome, single_process, workers=None):
    """Assert that a script gives the result of a fit in one process."""
    answers, scores, n_workers = outcome
    assert scores == single_process[1]
    assert answers == single_process[0]
    if workers is not None:
        assert (n_workers > 0) == workers


# Ways to start Python


# A notebook: cells run in a __main__ without a file, inside an event loop.
NOTEBOOK = """
import __main__, asyncio, code, json, signal, sys
cells = json.loads(sys.stdin.read())
interpreter = code.InteractiveInterpreter(__main__.__dict__)
assert not hasattr(__main__, "__file__")
async def run():
    # asyncio would handle Ctrl-C itself; ipykernel sets this handler for each cell.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for cell in cells:
        interpreter.runsource(cell, "<cell>", "exec")
asyncio.run(run())
"""


# Random search until Ctrl-C; then the refit trains one network without workers.
INTERRUPTED = [
    """
class PrintingStrategy(RandomStrategy):
    def observe(self, trials):
        super().observe(trials)
        print(json.dumps("observed"), flush=True)

model = NASClassifier(
    strategy=PrintingStrategy(),
    max_trials=3_000,
    max_epochs=20,
    ensemble_size=1,
    cv=2,
    n_jobs=2,
    random_state=0,
)
""",
    "model.fit(X, CLASSES)\n",
    "result = [model.stop_reason_, model.n_trials_, model.score(X, CLASSES)]\n"
    "print(json.dumps(result))\n",
]


@pytest.mark.parametrize(
    ("is_file", "send"),
    [(True, os.killpg), (False, os.kill)],
    ids=["script-terminal", "notebook-kill"],
)
def test_unguarded_code_uses_workers_and_stops_on_ctrl_c(
    tmp_path, single_process, is_file, send
):
    # A terminal also sends the signal to the workers.
    cells = [HEAD, PRINT_FIT, *INTERRUPTED]
    arguments = [write(tmp_path, "".join(cells))] if is_file else ["-c", NOTEBOOK]
    with Script(tmp_path, arguments, json.dumps(cells)) as script:
        n_ahead = 2  # lines: one for the first fit, one for a cohort of the second
        is_ahead = script.wait_for(lambda: len(script.lines()) >= n_ahead, WAIT)
        assert is_ahead, script.errors.read_text()
        time.sleep(0.3)
        send(script.process.pid, signal.SIGINT)
        outcome, *_, (reason, n_trials, score) = script.end(seconds=15)
    check(outcome, single_process[0], workers=True)
    assert reason == "interrupted"
    assert 0 < n_trials < 3_000
    assert score > 0.8


# Inside other people's processes


POOLS = """
from concurrent.futures import ProcessPoolExecutor

def report(outcome):
    print(json.dumps(outcome), flush=True)

def in_pool(method, *all_n_jobs):
    with multiprocessing.get_context(method).Pool(1) as pool:
        for n_jobs in all_n_jobs:
            report(pool.apply(fit, (n_jobs,)))

def in_executor(*all_n_jobs):
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        for n_jobs in all_n_jobs:
            report(executor.submit(fit, n_jobs).result())

def in_fork(n_jobs):
    process = os.fork()
    if process == 0:
        report(fit(n_jobs))
        os._exit(0)
    os.waitpid(process, 0)

if __name__ == "__main__":
"""

# The code to run, and the number of fits that it reports. The parent has already used
# torch, as `fit` does; in the second case it also has its own workers.
INSIDE = {
    "torch": (
        "fit(1); in_pool('fork', None, 2); in_executor(2); in_fork(None); "
        "in_pool('spawn', 2)",
        5,
    ),
    "workers": ("fit(2); in_pool('fork', None); in_executor(2); in_fork(None)", 3),
}


@pytest.mark.parametrize("where", INSIDE)
def test_fits_in_child_processes_agree_with_one_process(
    tmp_path, single_process, where
):
    main, n_fits = INSIDE[where]
    path = write(tmp_path, HEAD + POOLS + "    " + main)
    # joblib warns if a daemonic process asks for workers, and starts none.
    quiet = ["-W", "ignore:Loky-backed parallel loops"]
    with Script(tmp_path, [*quiet, path]) as script:
        outcomes = script.end()
    assert len(outcomes) == n_fits
    for outcome in outcomes:
        check(outcome, single_process[0])


def test_fits_in_joblib_workers_start_no_workers(eager, single_process):
    outcomes = joblib.Parallel(n_jobs=2)(
        joblib.delayed(fit_and_count_workers)(None, seed) for seed in (0, 1)
    )
    for outcome, expected in zip(outcomes, single_process, strict=True):
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


def test_workers_leave_global_state_unchanged(eager, single_process):
    before = state()
    answers, scores = result_of(fit(2))
    assert state() == before
    assert (answers, scores) == single_process[0]
    assert multiprocessing.active_children()


def test_fits_with_workers_in_two_threads_agree_with_one_process(eager, single_process):
    before = state()
    with ThreadPoolExecutor(2) as pool:
        models = list(pool.map(fit, (2, 2), (0, 1)))
    after = state()
    for name in ("signals", "threads", "dtype", "torch", "environment"):
        assert after[name] == before[name]
    assert [result_of(model) for model in models] == single_process


@pytest.mark.parametrize("backend", ["loky", "multiprocessing"])
def test_settings_of_the_caller_have_no_effect_in_workers(
    eager, single_process, backend
):
    # Workers of "multiprocessing" are forks, which have the settings of the caller.
    names = ["numpy raises", "device meta", "double", "medium precision", "warnings"]
    with ExitStack() as stack:
        for name in [*names, "pandas output", "autocast", "deterministic"]:
            stack.enter_context(SETTINGS[name]())
        before = settings_of_libraries()
        with joblib.parallel_config(backend=backend):
            assert result_of(fit(2)) == single_process[0]
        assert settings_of_libraries() == before


def test_overlapping_fits_restore_the_number_of_blas_threads():
    inside = [threading.Event(), threading.Event()]
    first_is_done = threading.Event()
    waits_for = [inside[1], first_is_done]
    have_overlapped = []

    def run(index):
        def is_allowed(architecture):
            if not inside[index].is_set():
                inside[index].set()
                have_overlapped.append(waits_for[index].wait(60))
            return True

        NASClassifier(n_jobs=1, constraints=is_allowed, **TINY).fit(X, CLASSES)

    with threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        first, second = (threading.Thread(target=run, args=(i,)) for i in (0, 1))
        first.start()
        assert inside[0].wait(60)
        second.start()
        first.join()
        first_is_done.set()
        second.join()
        assert have_overlapped == [True, True]
        assert blas_threads() == before
