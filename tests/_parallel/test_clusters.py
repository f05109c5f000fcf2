"""Workers of every backend: payloads, results, and how workers end."""

import contextlib
import os
import signal
import sys
import time
from functools import partial
from multiprocessing import active_children

import cloudpickle
import joblib
import numpy as np
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from scripts import HEAD, Script, write
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch import nn

from sknas import NASClassifier
from sknas._checkpoint.store import FileStore
from sknas._history import Cause, Fault
from sknas._parallel import executors as executors_module
from sknas._parallel import run as run_module
from sknas._problem import Problem, RunContext
from sknas.exceptions import SearchWarning
from sknas.nets import Linear, TableInput
from sknas.spaces import Integer, Space

# Clusters start slowly: run all tests in one process, on the same clusters.
pytestmark = pytest.mark.xdist_group("clusters")
X, Y = load_iris(return_X_y=True)
PROCESSES = pytest.param("loky", marks=pytest.mark.process)
DASK = pytest.param("dask", marks=pytest.mark.cluster)
RAY = pytest.param("ray", marks=pytest.mark.cluster)
CLUSTER = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}


def search(n_jobs=None, **parameters):
    usual = {"max_trials": 4, "max_epochs": 6, "cv": 2, "random_state": 0}
    return NASClassifier(n_jobs=n_jobs, **{**usual, **parameters})


def outcome(model):
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
    """Use workers even for short work."""
    monkeypatch.setattr(run_module, "WORTH_WORKERS", 0)
    monkeypatch.setattr(run_module, "ROOM_FOR_WORKERS", 0)


@pytest.fixture(scope="module")
def single_process():
    """Results of one process: of an ensemble, and of one network."""
    return outcome(search(1).fit(X, Y)), outcome(search(1, ensemble_size=1).fit(X, Y))


@pytest.fixture(scope="module", autouse=True)
def by_value():
    """Pickle the definitions of this file by value: a cluster can't import them."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def distributed():
    """Imported in a fixture: tests that need no cluster don't wait for it."""
    import distributed

    return distributed


@pytest.fixture(scope="module")
def dask_cluster(distributed):
    import dask

    with (
        # Dask gives up a task that has killed two workers.
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(processes=True, **CLUSTER) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def ray_cluster():
    import ray
    from ray.util.joblib import register_ray

    before = dict(os.environ)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    register_ray()
    yield ray
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(params=[PROCESSES, DASK, RAY])
def workers(request):
    """Two workers; clusters without a value of `n_jobs`."""
    if request.param != "loky":
        cluster = request.getfixturevalue(f"{request.param}_cluster")
    if request.param == "dask":  # a worker that an earlier test ended is started again
        cluster.wait_for_workers(2)
    options = {"n_jobs": 2} if request.param == "loky" else {}
    with joblib.parallel_config(backend=request.param, **options):
        yield request.param


# --------------------------------------------------------------- same result everywhere


def own_workers():
    own = [p for p in active_children() if p.name.startswith("LokyProcess")]
    return {process.pid for process in own}


@pytest.fixture
def ended_workers():
    """End the workers, so that no later test waits for them."""
    yield
    get_reusable_executor().shutdown(kill_workers=True)


@pytest.mark.usefixtures("ended_workers")
def test_two_processes_give_the_result_of_one():
    quick = {"max_trials": 2, "max_epochs": 2}
    one, two = (outcome(search(n, **quick).fit(X, Y)) for n in (1, 2))
    assert len(own_workers()) >= 2
    assert one == two


def test_the_result_is_the_same_on_every_backend(workers, single_process):
    assert run_module.count_workers(None) == 2
    assert outcome(search().fit(X, Y)) == single_process[0]
    assert outcome(search(ensemble_size=1).fit(X, Y)) == single_process[1]


class Killed(BaseException):
    """Ends a search without clean-up, like SIGKILL."""


def test_a_search_with_workers_is_resumed(
    workers, single_process, tmp_path, monkeypatch
):
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
    assert outcome(model.fit(X, Y)) == single_process[0]
    done = [key for key in keys if key.startswith(("cohort:", "trial:"))]
    assert len(set(done)) == len(done)


@pytest.mark.process
def test_more_processes_than_cores_serve_all_rungs_and_searches(single_process):
    processes = []
    for _ in range(2):
        assert outcome(search(4).fit(X, Y)) == single_process[0]
        processes.append(own_workers())
    assert processes[0] == processes[1]
    assert len(processes[0]) == 4


@pytest.mark.process
def test_workers_leave_ctrl_c_to_their_parent(single_process):
    """If a worker were interrupted while it sends a result, its parent would hang."""

    def fit():
        assert outcome(search(2).fit(X, Y)) == single_process[0]
        return own_workers()

    processes = fit()
    for process in processes:
        os.kill(process, signal.SIGINT)
    assert fit() == processes


@pytest.mark.process
@pytest.mark.parametrize("backend", ["threading", "multiprocessing"])
def test_other_backends_of_joblib(backend, single_process):
    with joblib.parallel_config(backend=backend, n_jobs=2):
        assert outcome(search().fit(X, Y)) == single_process[0]


# ----------------------------------------------------------------- nested searches


@pytest.mark.cluster
def test_searches_inside_a_dask_cluster(dask_cluster):
    with joblib.parallel_config(backend="dask"):
        grid = GridSearchCV(search(max_trials=1), {"max_epochs": [2, 6]}, cv=2)
        grid.fit(X, Y)
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()
    count = partial(dask_cluster.submit, run_module.count_workers)
    assert [count(n_jobs).result() for n_jobs in (None, 2, -1)] == [1, 1, 1]


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_cluster")  # the process may know of another cluster
def test_searches_inside_a_dask_cluster_of_threads(distributed):
    """The inner search would wait for the threads that it occupies itself."""
    single = {**CLUSTER, "n_workers": 1, "threads_per_worker": 2}
    with (
        distributed.LocalCluster(processes=False, **single) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        scores = cross_val_score(search(), X, Y, cv=2, error_score="raise")
    expected = cross_val_score(search(1), X, Y, cv=2)
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.cluster
def test_searches_inside_a_ray_cluster(ray_cluster):
    count = ray_cluster.remote(run_module.count_workers)
    assert ray_cluster.get([count.remote(n) for n in (None, 2)]) == [1, 1]


# ---------------------------------------------------------------------------- payloads


class Counted:
    """Rows that log the process that unpickles them."""

    def __init__(self, path, rows=None):
        self.path = path
        self.rows = np.arange(1000.0) if rows is None else rows

    def __reduce__(self):
        return count, (self.path, self.rows)


def count(path, rows):
    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")
    return Counted(path, rows)


def process_number(problem, context, *ballast):
    rows = problem.folds[0].rows
    assert rows.sum() == 499_500 and not rows.flags.writeable
    time.sleep(0.05)
    return os.getpid()


def test_each_worker_unpacks_the_rows_once(workers, tmp_path):
    path = tmp_path / "opened"
    problem, context = Problem(folds=(Counted(path),)), RunContext(n_jobs=2)
    seen = []
    for _ in range(2):  # two rungs
        # Networks may be large, and Dask warns about that by default.
        tasks = [(np.zeros(2_000_000),)] + 5 * [()]
        seen += run_module.run_tasks(process_number, tasks, problem, context, 1.0)
    assert len(seen) == 12
    opened = [int(line) for line in path.read_text().splitlines()]
    assert len(opened) == len(set(opened))
    assert set(seen) <= set(opened)
    assert os.getpid() not in opened


def test_results_that_are_closed_early_leave_the_workers_ready(workers, tmp_path):
    problem = Problem(folds=(Counted(tmp_path / "opened"),))
    given = problem, RunContext(n_jobs=2), 1.0
    results = run_module.run_tasks(process_number, 8 * [()], *given)
    assert next(results) != os.getpid()
    results.close()
    assert len(list(run_module.run_tasks(process_number, 3 * [()], *given))) == 3


# -------------------------------------------------------------------- workers that die


class Deadly(Space):
    """Layers, some of which kill the process that builds them.

    Parameters
    ----------
    flag : str
        A file that is created when the first process dies.
    parent : int
        Id of a process that is not killed.
    width : int
        Networks of this width kill each process; 0 for none.
    """

    def __init__(self, flag="", parent=0, width=0):
        self.flag, self.parent, self.width = flag, parent, width

    @property
    def choices(self):
        return {"width": Integer(3, 6, default=3)}

    def build(self, architecture, task):
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
    return outcome(search(1, search_space=Deadly("", os.getpid())).fit(X, Y))


@pytest.mark.parametrize("workers", [PROCESSES, DASK], indirect=True)
def test_worker_that_dies_once_does_not_change_the_result(
    workers, undisturbed, tmp_path
):
    space = Deadly(str(tmp_path / "died"), os.getpid())
    model = search(search_space=space).fit(X, Y)
    assert (tmp_path / "died").exists()
    assert outcome(model) == undisturbed


@pytest.mark.cluster
@pytest.mark.parametrize("is_sent", [True, False])
def test_search_does_not_wait_for_a_cluster_without_workers(
    is_sent, distributed, monkeypatch, tmp_path
):
    monkeypatch.setattr(executors_module, "GRACE_TIME", 0.1)
    problem, context = Problem(folds=(Counted(tmp_path / "opened"),)), RunContext()
    threads = {**CLUSTER, "n_workers": int(is_sent), "processes": False}
    with (
        distributed.LocalCluster(**threads) as cluster,
        distributed.Client(cluster) as client,
    ):
        executor = executors_module.DaskExecutor(2, client)
        if is_sent:
            executor.find_payload(problem, context)
            cluster.scale(0)
            cluster.sync(cluster._correct_state)
        left = dict(enumerate(3 * [()]))
        started = time.monotonic()
        late = RunContext(deadline=started + 0.5)
        results = list(
            run_module._run_with_retries(process_number, left, problem, late, executor)
        )
    assert len(results) == 3
    assert set(results) <= {Fault(Cause.OUT_OF_TIME), Fault(Cause.WORKER_LOST)}
    assert time.monotonic() - started < 5


def test_worker_that_always_dies_fails_only_its_trial(workers, undisturbed):
    space = Deadly("", os.getpid(), width=4)
    with pytest.warns(
        SearchWarning, match=f"1 of 4 trials failed: 1 x {Cause.WORKER_LOST}"
    ):
        model = search(search_space=space).fit(X, Y)
    widths = [t.architecture["width"] for t in model.history_]
    assert sorted(widths) == [3, 4, 5, 6]
    for trial in model.history_:
        is_lost = trial.architecture["width"] == 4
        assert trial.status == ("failed" if is_lost else "ok")
        assert trial.cause == (Cause.WORKER_LOST if is_lost else None)
        if not is_lost:
            assert (trial.architecture.key, trial.fold_scores) in undisturbed[0]


ORPHANS = """
os.environ["JOBLIB_TEMP_FOLDER"] = {folder!r}
from sklearn.datasets import load_digits
X, y = load_digits(return_X_y=True)
NASClassifier(max_trials=4, cv=2, n_jobs=2, max_epochs=10_000).fit(X, y)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads /proc")
@pytest.mark.process
@pytest.mark.parametrize(
    ("seconds", "patience"), [(0.5, 60), (2, 30)], ids=["starting", "training"]
)
def test_workers_end_with_a_parent_that_is_killed(tmp_path, seconds, patience):
    """Workers that are still starting finish their imports first."""
    code = HEAD + ORPHANS.format(folder=str(tmp_path))
    with Script(tmp_path, [write(tmp_path, code)]) as script:
        pid = script.process.pid
        assert script.wait_for(
            lambda: busy(pid, seconds) >= 3, 90
        )  # the parent and two workers
        assert list(tmp_path.glob("sknas-*/*"))
        os.kill(pid, signal.SIGKILL)
        script.process.wait()
        assert script.wait_for(lambda: busy(pid, 0) == 0, patience), "a worker is left"
        assert not list(tmp_path.glob("sknas-*"))


def busy(group, seconds):
    """Count live Python processes of a group that have used `seconds` of CPU time."""
    n = 0
    for folder in os.listdir("/proc"):
        if folder.isdigit():
            with contextlib.suppress(OSError):
                with open(f"/proc/{folder}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                with open(f"/proc/{folder}/cmdline") as file:
                    is_tracker = "resource_tracker" in file.read()
                state, of_group, ticks = fields[0], int(fields[2]), int(fields[11])
                is_at_work = ticks >= seconds * os.sysconf("SC_CLK_TCK")
                is_one = of_group == group and state != "Z" and not is_tracker
                n += is_one and is_at_work
    return n
