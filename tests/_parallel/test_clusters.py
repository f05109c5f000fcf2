"""Workers of every kind: what they are sent, what they answer, and how they end."""

import contextlib
import os
import signal
import sys
import time
from dataclasses import replace
from functools import partial
from multiprocessing import active_children

import cloudpickle
import dask
import distributed
import joblib
import numpy as np
import pytest
import ray as ray_package
import torch
from ray.util.joblib import register_ray
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from test_where_called import HEAD, Script, write
from torch import nn

from sknas import NASClassifier
from sknas._checkpoint.store import FileStore
from sknas._history import OUT_OF_TIME
from sknas._parallel import executors as _crews
from sknas._parallel import run as _workers
from sknas._problem import Problem
from sknas.exceptions import SearchWarning
from sknas.nets import Linear, TableInput
from sknas.spaces import Integer, Space

# Clusters start slowly: all tests of them share those of one process.
pytestmark = pytest.mark.xdist_group("clusters")
X, Y = load_iris(return_X_y=True)
CLUSTER = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}


def search(n_jobs=None, **parameters):
    usual = {"max_trials": 4, "max_epochs": 6, "cv": 2, "random_state": 0}
    return NASClassifier(n_jobs=n_jobs, **{**usual, **parameters})


def told(model):
    scores = [(t.architecture.key, t.fold_scores) for t in model.history_]
    weights = [
        tensor.tolist()
        for member in model.ensemble_.members
        for net in member.networks
        for tensor in net.module_.state_dict().values()
    ]
    return scores, weights, model.predict_proba(X).tobytes()


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Workers however short the work is."""
    monkeypatch.setattr(_workers, "WORTH_WORKERS", 0)
    monkeypatch.setattr(_workers, "ROOM_FOR_WORKERS", 0)


@pytest.fixture(scope="module")
def alone():
    """What one process answers, from an ensemble and from one network."""
    return told(search(1).fit(X, Y)), told(search(1, ensemble_size=1).fit(X, Y))


@pytest.fixture(scope="module", autouse=True)
def by_value():
    """Workers of a cluster know nothing of this file."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def dask_cluster():
    with (
        # A task is given up as soon as two workers have died of it.
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(processes=True, **CLUSTER) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def ray_cluster():
    before = dict(os.environ)
    ray_package.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    register_ray()
    yield ray_package
    ray_package.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(params=["loky", "dask", "ray"])
def workers(request):
    """Two workers, where `n_jobs` is left open."""
    if request.param != "loky":
        request.getfixturevalue(f"{request.param}_cluster")
    told = {"n_jobs": 2} if request.param == "loky" else {}
    with joblib.parallel_config(backend=request.param, **told):
        yield request.param


# The same answer everywhere


def test_the_answer_is_the_same_on_every_backend(workers, alone):
    assert _workers.count_workers(None) == 2
    assert told(search().fit(X, Y)) == alone[0]
    assert told(search(ensemble_size=1).fit(X, Y)) == alone[1]


class Killed(BaseException):
    """As SIGKILL: nothing in the search hears of it."""


def test_a_search_with_workers_goes_on(workers, alone, tmp_path, monkeypatch):
    real, keys = FileStore.put, []

    def killing(store, key, value):
        real(store, key, value)
        keys.append(key)
        if len(keys) == 4:
            raise Killed

    model = search(checkpoint=tmp_path)
    monkeypatch.setattr(FileStore, "put", killing)
    with pytest.raises(Killed):
        model.fit(X, Y)
    assert told(model.fit(X, Y)) == alone[0]
    done = [key for key in keys if key.startswith(("cohort:", "trial:"))]
    assert len(set(done)) == len(done)


def test_more_processes_than_cores_serve_all_rungs_and_searches(alone):
    processes = []
    for _ in range(2):
        assert told(search(4).fit(X, Y)) == alone[0]
        own = [p for p in active_children() if p.name.startswith("LokyProcess")]
        processes.append({process.pid for process in own})
    assert processes[0] == processes[1]
    assert len(processes[0]) == 4


def test_workers_leave_ctrl_c_to_their_parent(alone):
    """One that it met in the middle of an answer would let the parent wait."""

    def fit():
        assert told(search(2).fit(X, Y)) == alone[0]
        own = [p for p in active_children() if p.name.startswith("LokyProcess")]
        return {process.pid for process in own}

    processes = fit()
    for process in processes:
        os.kill(process, signal.SIGINT)
    assert fit() == processes


@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
def test_other_backends_of_joblib(backend, alone):
    with joblib.parallel_config(backend=backend, n_jobs=2):
        assert told(search().fit(X, Y)) == alone[0]


# Workers of a cluster start none


def test_searches_inside_a_dask_cluster(dask_cluster):
    with joblib.parallel_config(backend="dask"):
        grid = GridSearchCV(search(max_trials=1), {"max_epochs": [2, 6]}, cv=2)
        grid.fit(X, Y)
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()
    count = partial(dask_cluster.submit, _workers.count_workers)
    assert [count(n_jobs).result() for n_jobs in (None, 2, -1)] == [1, 1, 1]


@pytest.mark.usefixtures("ray_cluster")  # the process may know of another cluster
def test_searches_inside_a_dask_cluster_of_threads():
    """They would wait for the threads that they have themselves."""
    single = {**CLUSTER, "n_workers": 1, "threads_per_worker": 2}
    with (
        distributed.LocalCluster(processes=False, **single) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        scores = cross_val_score(search(), X, Y, cv=2, error_score="raise")
    expected = cross_val_score(search(1), X, Y, cv=2)
    np.testing.assert_array_equal(scores, expected)


def test_searches_inside_a_ray_cluster(ray_cluster):
    count = ray_cluster.remote(_workers.count_workers)
    assert ray_cluster.get([count.remote(n) for n in (None, 2)]) == [1, 1]


# What is sent


class Counted:
    """Rows that write down where they are unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return count, (self.path,)


def count(path):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    return Counted(path)


def process_number(problem, *ballast):
    assert isinstance(problem.folds[0], Counted)
    time.sleep(0.05)
    return os.getpid()


def test_rows_are_opened_once_by_each_worker(workers, tmp_path):
    path = tmp_path / "opened"
    problem = Problem(folds=(Counted(path),), n_jobs=2)
    seen = []
    for _ in range(2):  # rungs
        # Networks may be large: Dask would warn of that.
        tasks = [(np.zeros(2_000_000),)] + 5 * [()]
        seen += _workers.run_tasks(process_number, tasks, problem, 1.0)
    assert len(seen) == 12
    opened = [int(line) for line in path.read_text().splitlines()]
    assert len(opened) == len(set(opened))
    assert set(seen) <= set(opened)
    assert os.getpid() not in opened


def test_what_is_left_early_leaves_workers_ready(workers, tmp_path):
    problem = Problem(folds=(Counted(tmp_path / "opened"),), n_jobs=2)
    results = _workers.run_tasks(process_number, 8 * [()], problem, 1.0)
    assert next(results) != os.getpid()
    results.close()
    assert len(list(_workers.run_tasks(process_number, 3 * [()], problem, 1.0))) == 3


# How they end


class Deadly(Space):
    """Layers, of which some end the process that builds them.

    Parameters
    ----------
    flag : str
        A file that says that a process has died.
    home : int
        A process that does not.
    width : int
        Networks of this width end each process; 0 for none.
    """

    def __init__(self, flag="", parent=0, width=0):
        self.flag, self.parent, self.width = flag, parent, width

    @property
    def choices(self):
        return {"width": Integer(3, 6, default=3)}

    def build(self, architectures, task):
        (architecture,) = architectures
        is_meta = torch.empty(0).is_meta
        if not is_meta and os.getpid() != self.parent and task.image is None:
            first = self.flag and not os.path.exists(self.flag)
            if first or architecture["width"] == self.width:
                if self.flag:
                    open(self.flag, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
        inputs = TableInput(1, task)
        hidden = Linear(1, inputs.n_features, architecture["width"])
        output = Linear(1, architecture["width"], task.n_outputs)
        return nn.Sequential(inputs, hidden, nn.ReLU(), output)


@pytest.fixture(scope="module")
def undisturbed():
    return told(search(1, search_space=Deadly("", os.getpid())).fit(X, Y))


@pytest.mark.parametrize("workers", ["loky", "dask"], indirect=True)
def test_a_worker_that_dies_once_costs_nothing(workers, undisturbed, tmp_path):
    space = Deadly(str(tmp_path / "died"), os.getpid())
    model = search(search_space=space).fit(X, Y)
    assert (tmp_path / "died").exists()
    assert told(model) == undisturbed


@pytest.mark.parametrize("is_sent", [True, False])
def test_a_cluster_without_workers_is_not_waited_for(is_sent, monkeypatch, tmp_path):
    monkeypatch.setattr(_crews, "GRACE", 0.1)
    problem = Problem(folds=(Counted(tmp_path / "opened"),), n_jobs=2)
    threads = {**CLUSTER, "n_workers": int(is_sent), "processes": False}
    with (
        distributed.LocalCluster(**threads) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = _crews.DaskExecutor(2, client)
        if is_sent:
            executor.sent(problem)
            cluster.scale(0)
            cluster.sync(cluster._correct_state)
        late = replace(problem, deadline=time.monotonic() + 0.5)
        left = dict(enumerate(3 * [()]))
        started = time.monotonic()
        results = list(_workers._insisting(process_number, left, late, executor))
    assert len(results) == 3
    assert set(results) <= {OUT_OF_TIME, _crews.WORKER_LOST}
    assert time.monotonic() - started < 5


def test_a_worker_that_always_dies_costs_its_trial_alone(workers, undisturbed):
    space = Deadly("", os.getpid(), width=4)
    with pytest.warns(
        SearchWarning, match=f"1 of 4 trials failed: 1 x {_crews.WORKER_LOST}"
    ):
        model = search(search_space=space).fit(X, Y)
    widths = [t.architecture["width"] for t in model.history_]
    assert sorted(widths) == [3, 4, 5, 6]
    for trial in model.history_:
        is_lost = trial.architecture["width"] == 4
        assert trial.status == ("failed" if is_lost else "ok")
        assert trial.reason == (_crews.WORKER_LOST if is_lost else "")
        if not is_lost:
            assert (trial.architecture.key, trial.fold_scores) in undisturbed[0]


ORPHANS = """
os.environ["JOBLIB_TEMP_FOLDER"] = {folder!r}
from sklearn.datasets import load_digits
X, y = load_digits(return_X_y=True)
NASClassifier(max_trials=4, cv=2, n_jobs=2, max_epochs=10_000).fit(X, y)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads /proc")
@pytest.mark.parametrize(
    ("seconds", "patience"), [(0.5, 60), (2, 30)], ids=["starting", "training"]
)
def test_workers_end_with_a_parent_that_is_killed(tmp_path, seconds, patience):
    """Those that start import all that they need first, then they end as well."""
    code = HEAD + ORPHANS.format(folder=str(tmp_path))
    with Script(tmp_path, [write(tmp_path, code)]) as script:
        pid = script.process.pid
        assert script.wait_for(lambda: busy(pid, seconds) >= 3, 90)  # two and itself
        assert list(tmp_path.glob("sknas-*/*"))
        os.kill(pid, signal.SIGKILL)
        script.process.wait()
        assert script.wait_for(lambda: busy(pid, 0) == 0, patience), "a worker is left"
        assert not list(tmp_path.glob("sknas-*"))


def busy(group, seconds):
    """Python processes of a group that live, and have been at work for some seconds."""
    n = 0
    for folder in os.listdir("/proc"):
        if folder.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{folder}/stat") as file:
                    told = file.read().rpartition(")")[2].split()
                with open(f"/proc/{folder}/cmdline") as file:
                    is_tracker = "resource_tracker" in file.read()
                state, of_group, ticks = told[0], int(told[2]), int(told[11])
                is_at_work = ticks >= seconds * os.sysconf("SC_CLK_TCK")
                is_one = of_group == group and state != "Z" and not is_tracker
                n += is_one and is_at_work
    return n
