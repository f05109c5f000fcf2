"""Workers of every kind: what they are sent, what they answer, and how they end."""

import contextlib
import os
import pickle
import signal
import sys
import time
import warnings
from dataclasses import replace

import cloudpickle
import joblib
import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_val_score
from test_where_called import HEAD, Script, write
from torch import nn

from sknas import NASClassifier
from sknas._budget import plan_budget
from sknas._problem import Problem
from sknas.nets import Linear, TableInput
from sknas.spaces import Integer, Space
from sknas.trainers import _parcel, _workers

X, Y = load_iris(return_X_y=True)
# Of packages of clusters, which are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


def search(n_jobs=None, **parameters):
    usual = {"max_trials": 4, "max_epochs": 6, "cv": 2, "random_state": 0}
    return NASClassifier(n_jobs=n_jobs, **{**usual, **parameters})


def told(model):
    scores = [(t.architecture.key, t.fold_scores) for t in model.history_]
    return scores, model.predict_proba(X).tobytes()


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Workers however short the work is."""
    monkeypatch.setattr(_workers, "WORTH_WORKERS", 0)
    monkeypatch.setattr(_workers, "ROOM_FOR_WORKERS", 0)


@pytest.fixture(scope="module")
def alone():
    """What one process answers, from an ensemble and from one network."""
    return told(search(1).fit(X, Y)), told(search(1, ensemble_size=1).fit(X, Y))


@pytest.fixture(scope="module")
def dask():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    before = dict(os.environ)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
        )
        register_ray()
    yield ray
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


# The same answer everywhere


@pytest.mark.parametrize("n_jobs", [2, 4])
def test_processes_of_this_machine(n_jobs, alone):
    assert told(search(n_jobs).fit(X, Y)) == alone[0]
    assert told(search(n_jobs, ensemble_size=1).fit(X, Y)) == alone[1]


def test_threads_of_the_users_choice(alone):
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert told(search().fit(X, Y)) == alone[0]


def test_a_dask_cluster(dask, alone):
    from joblib._dask import DaskDistributedBackend  # noqa: F401 - registers itself

    with joblib.parallel_config(backend="dask"):
        assert told(search().fit(X, Y)) == alone[0]
        assert told(search(ensemble_size=1).fit(X, Y)) == alone[1]
        # Searches inside workers of the cluster use one process each.
        scores = cross_val_score(search(max_trials=1), X, Y, cv=2)
    assert len(scores) == 2


def test_dask_workers_get_the_rows_once(dask):
    def opened():
        from sknas.trainers import _parcel

        real, _parcel.n_opened = _parcel.pickle.loads, 0

        class Counting:
            def __getattr__(self, name):
                return getattr(pickle, name)

            def loads(self, *told, **buffers):
                _parcel.n_opened += 1
                return real(*told, **buffers)

        _parcel.pickle = Counting()

    def counted():
        from sknas.trainers import _parcel

        return _parcel.n_opened

    dask.run(opened)
    with joblib.parallel_config(backend="dask"):
        model = search(max_trials=18, max_epochs=60, cv=3).fit(X, Y)
    assert model.n_trials_ == 18
    assert max(dask.run(counted).values()) == 1


def test_a_dask_worker_that_dies_costs_nothing(dask, alone, tmp_path):
    space = Deadly(str(tmp_path / "died"), os.getpid())
    once = told(search(1, search_space=space).fit(X, Y))
    # Its workers know nothing of this file.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        with joblib.parallel_config(backend="dask"):
            model = search(search_space=space).fit(X, Y)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert (tmp_path / "died").exists()
    assert told(model) == once


def test_a_ray_cluster(ray, alone):
    with joblib.parallel_config(backend="ray"):
        assert told(search().fit(X, Y)) == alone[0]
        assert told(search(ensemble_size=1).fit(X, Y)) == alone[1]


# What is sent


def problem_of(n_rows):
    model = search()
    wide = np.random.default_rng(0).normal(size=(n_rows, 20))
    model._check_parameters(wide)
    data, seed, rows = model._read_training_data(wide, wide[:, 0] > 0, None, None)
    budget = plan_budget(n_rows, 4, None)
    return model._make_problem(data, budget, seed, rows, time.monotonic())[1]


@pytest.mark.parametrize("backend", ["LokyBackend", "MultiprocessingBackend"])
def test_the_rows_go_once_and_the_rest_is_small(backend):
    problem, backend = problem_of(5_000), type(backend, (), {})()
    parcel = _parcel.sent(problem, backend)
    later = replace(problem, deadline=7.0, seed=3)
    assert _parcel.sent(later, backend) is parcel
    assert parcel.content.nbytes > 1_000_000
    assert len(cloudpickle.dumps(_parcel.light(problem))) < 20_000
    heavy = parcel.opened()
    assert parcel.opened() is heavy  # it was there already
    for fold, sent in zip(problem.folds, heavy["folds"], strict=True):
        np.testing.assert_array_equal(fold.train.x, sent.train.x)
        np.testing.assert_array_equal(fold.valid.y, sent.valid.y)
        # Mapped, not copied.
        assert np.shares_memory(sent.train.x, parcel.content)


def test_a_file_of_rows_goes_with_them():
    problem = problem_of(100)
    parcel = _parcel.sent(problem, type("LokyBackend", (), {})())
    path = parcel.content.filename
    assert os.path.exists(path)
    assert len(pickle.dumps(path)) < 1_000
    del parcel, problem
    _parcel._opened.clear()
    assert not os.path.exists(path)


def test_a_deadline_is_told_by_the_time_of_day(monkeypatch):
    problem = problem_of(60)
    parcel = _parcel.sent(problem, None)
    found = []

    def look(problem):
        found.append(problem.seconds_left)

    box = parcel.key, parcel.content, parcel.ends
    # Another machine, whose clock began at another time.
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    for end in (time.time() + 30, float("inf")):
        _workers._work(look, _parcel.light(problem), *box, end, 0)
    assert found[0] == pytest.approx(30, abs=1)
    assert found[1] == float("inf")


@pytest.mark.parametrize(
    ("device", "n_gpus", "places", "useful"),
    [
        ("cpu", 0, ["cpu"], 2),
        ("cuda", 1, ["cuda"], 1),
        ("cuda", 3, ["cuda:0", "cuda:1", "cuda:2"], 3),
        ("cuda:1", 3, ["cuda:1"], 1),
    ],
)
def test_work_is_spread_over_all_gpus(monkeypatch, device, n_gpus, places, useful):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    problem = Problem(device=device, n_jobs=2)
    assert _workers.devices(problem) == places
    assert _workers.count_useful(problem, 8) == useful
    assert _workers.count_useful(problem, 1) == 1


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

    def __init__(self, flag="", home=0, width=0):
        self.flag, self.home, self.width = flag, home, width

    @property
    def choices(self):
        return {"width": Integer(3, 6, default=3)}

    def build(self, architectures, task):
        (architecture,) = architectures
        is_meta = torch.empty(0).is_meta
        if not is_meta and os.getpid() != self.home and task.image is None:
            first = self.flag and not os.path.exists(self.flag)
            if first or architecture["width"] == self.width:
                if self.flag:
                    open(self.flag, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
        inputs = TableInput(1, task)
        hidden = Linear(1, inputs.n_features, architecture["width"])
        output = Linear(1, architecture["width"], task.n_outputs)
        return nn.Sequential(inputs, hidden, nn.ReLU(), output)


def test_a_worker_that_dies_once_costs_nothing(tmp_path):
    space = Deadly(str(tmp_path / "died"), os.getpid())
    once = told(search(1, search_space=space).fit(X, Y))
    model = search(2, search_space=space).fit(X, Y)
    assert (tmp_path / "died").exists()
    assert told(model) == once


def test_a_worker_that_always_dies_costs_its_trial_alone():
    space = Deadly("", os.getpid(), width=4)
    model = search(2, search_space=space).fit(X, Y)
    widths = [t.architecture["width"] for t in model.history_]
    assert sorted(widths) == [3, 4, 5, 6]
    for trial in model.history_:
        is_lost = trial.architecture["width"] == 4
        assert trial.status == ("failed" if is_lost else "ok")
        assert trial.reason == (_workers.LOST if is_lost else "")


ORPHANS = """
from sklearn.datasets import load_digits
X, y = load_digits(return_X_y=True)
print("0", flush=True)
NASClassifier(max_trials=4, cv=2, n_jobs=2, max_epochs=10_000).fit(X, y)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    with Script(tmp_path, [write(tmp_path, HEAD + ORPHANS)]) as script:
        pid = script.process.pid
        assert script.wait_for(lambda: busy(pid) >= 3, 90)  # two workers and itself
        os.kill(pid, signal.SIGKILL)
        script.process.wait()
        assert script.wait_for(lambda: busy(pid) == 0, 30), "a worker is left"


def busy(group):
    """Processes of a group that live, and have been at work for 2 seconds."""
    n = 0
    for folder in os.listdir("/proc"):
        if folder.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{folder}/stat") as file:
                told = file.read().rpartition(")")[2].split()
                state, of_group, ticks = told[0], int(told[2]), int(told[11])
                is_at_work = ticks > 2 * os.sysconf("SC_CLK_TCK")
                n += of_group == group and state != "Z" and is_at_work
    return n
