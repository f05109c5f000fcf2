"""Tasks in worker processes: payloads, retries, GPUs, and the number of workers."""

import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from cohorts import make_context, make_problem
from joblib.parallel import get_active_backend
from scorers import FunctionScorer

from sknas._history import Cause, Fault
from sknas._parallel import devices as devices_module
from sknas._parallel import executors as executors_module
from sknas._parallel import payload as payload_module
from sknas._parallel import run as run_module
from sknas._parallel import worker as worker_module
from sknas._parallel.executors import (
    Executor,
    JoblibExecutor,
    WorkerDiedError,
    find_executor,
)
from sknas._parallel.payload import execute, make_task, read_result, unpack
from sknas._problem import Problem, Rows


@pytest.fixture
def problem():
    return make_problem("binary")


def test_a_payload_whose_folder_was_removed_is_sent_again(problem):
    executor = JoblibExecutor(2, get_active_backend()[0])
    payload = executor.find_payload(problem, make_context())
    assert executor.find_payload(problem, make_context()) is payload
    shutil.rmtree(worker_module.worker_folder())
    again = executor.find_payload(problem, make_context())
    assert again is not payload and again.exists


def test_a_missing_temporary_folder_is_created(tmp_path, monkeypatch):
    monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(tmp_path / "new" / "folder"))
    monkeypatch.setattr(worker_module, "_folders", {})
    folder = worker_module.worker_folder()
    assert Path(folder).parent == tmp_path / "new" / "folder"
    assert Path(folder).is_dir()


# ---------------------------------------------------------------------------- retries


class Fragile(Executor):
    """Two simulated workers that start tasks in order, like real ones.

    Parameters
    ----------
    n_lives : dict of int to int
        How often a task kills its worker before it returns a result, by index.
    """

    key = "fragile"

    def __init__(self, n_lives):
        super().__init__(2)
        self.n_lives, self.batches, self.done = dict(n_lives), [], []
        self.n_ended = 0

    def send(self, problem, context):
        raise AssertionError("no payload is expected")

    def results(self, function, problem, context, tasks):
        tasks = list(tasks)
        self.batches.append([index for index, _ in tasks])
        while tasks:
            under_way = [index for index, _ in tasks[:2]]
            for index in under_way:
                if self.n_lives.get(index, 0):
                    self.n_lives[index] -= 1
                    raise WorkerDiedError
            # The second of two tasks finishes before the first.
            is_second = len(under_way) == 2 and len(self.done) % 2 == 0
            index, task = tasks.pop(int(is_second))
            self.done.append(index)
            yield index, function(problem, context, *task)
        self.n_ended += 1


def square(problem, context, number):
    return number**2


def run(executor, n=5, **changes):
    return list(iterate(executor, n, **changes))


def iterate(executor, n, **changes):
    left = {index: (index,) for index in range(n)}
    context = make_context(**changes)
    return run_module._run_with_retries(square, left, Problem(), context, executor)


def test_results_come_in_order_and_each_task_runs_once():
    executor = Fragile({})
    assert run(executor) == [0, 1, 4, 9, 16]
    assert executor.batches == [[0, 1, 2, 3, 4]]
    assert executor.done == [1, 0, 3, 2, 4]


def test_results_are_yielded_as_soon_as_all_earlier_ones_are():
    executor = Fragile({})
    results = iterate(executor, 3)
    assert next(results) == 0
    assert executor.done == [1, 0]


def test_the_last_result_comes_after_the_executor_has_ended():
    executor = Fragile({0: 1})
    results = iterate(executor, 3)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert executor.batches == [[0, 1, 2], [0], [1], [2]]
    assert executor.n_ended == 3


def test_running_tasks_are_retried_one_at_a_time():
    executor = Fragile({2: 1})
    assert run(executor) == [0, 1, 4, 9, 16]
    # Task 1 was done, 0 and 2 were running, 3 and 4 had not started.
    assert executor.batches == [[0, 1, 2, 3, 4], [0], [2], [3, 4]]
    assert sorted(executor.done) == [0, 1, 2, 3, 4]


def test_only_a_task_that_kills_its_worker_twice_is_given_up():
    executor = Fragile({0: 9})
    assert run(executor) == [Fault(Cause.WORKER_LOST), 1, 4, 9, 16]
    assert executor.batches == [[0, 1, 2, 3, 4], [0], [1], [2, 3, 4]]
    assert executor.n_lives[0] == 7


class Blaming(Fragile):
    """A cluster that gives up the tasks of a dead worker, and goes on with others.

    A task that kills its worker takes the next one with it: it waited there.
    """

    def results(self, function, problem, context, tasks):
        tasks = list(tasks)
        self.batches.append([index for index, _ in tasks])
        while tasks:
            index, task = tasks.pop(0)
            if self.n_lives.get(index, 0):
                self.n_lives[index] -= 1
                for lost in [index, *(i for i, _ in tasks[:1])]:
                    yield lost, Fault(Cause.WORKER_LOST)
                del tasks[:1]
            else:
                yield index, function(problem, context, *task)


def test_a_task_that_a_cluster_gives_up_is_retried_alone():
    executor = Blaming({1: 9})
    assert run(executor) == [0, Fault(Cause.WORKER_LOST), 4, 9, 16]
    assert executor.batches == [[0, 1, 2, 3, 4], [1], [2]]


def test_several_tasks_may_kill_their_workers():
    assert run(Fragile({index: 9 for index in range(4)})) == [
        Fault(Cause.WORKER_LOST)
    ] * 4 + [16]


def test_no_worker_is_started_shortly_before_the_deadline():
    executor = Fragile({1: 1})
    results = run(executor, deadline=time.monotonic() + 5)
    assert results == [Fault(Cause.OUT_OF_TIME)] * 5
    assert len(executor.batches) == 1


@pytest.mark.process
def test_arguments_that_cannot_be_pickled_are_an_error():
    problem, context = make_problem("binary"), make_context(n_jobs=2)
    tasks = [(threading.Lock(),)] * 2
    with pytest.raises(TypeError, match="lock"):
        list(run_module.run_tasks(square, tasks, problem, context, 1e9))


# ---------------------------------------------------------------------------- payloads


def is_mapped(array):
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


def send(problem, backend="loky"):
    with joblib.parallel_config(backend=backend):
        return find_executor(2).find_payload(problem, make_context())


class RemoteBackend(joblib.parallel.ParallelBackendBase):
    """Workers that may be on other machines."""

    def effective_n_jobs(self, n_jobs):
        return n_jobs

    def apply_async(self, func, callback=None):
        raise AssertionError("no task is expected")


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", RemoteBackend()])
def test_arrays_of_a_payload_are_read_only_views(problem, backend):
    is_file = isinstance(backend, str)
    payload = send(problem, backend)
    shared = unpack(payload.data)
    for fold, sent in zip(problem.folds, shared["folds"], strict=True):
        assert sent.task.kind == fold.task.kind
        for name in ("x", "y", "weight"):
            array, given = getattr(sent.train, name), getattr(fold.train, name)
            assert array.tobytes() == given.tobytes() and array.dtype == given.dtype
            assert not array.flags.writeable
            assert array.flags.aligned
            assert is_mapped(array) == is_file
            assert np.shares_memory(array, given) != is_file
    rows = np.arange(3)
    predictions = np.full((3, 2), 0.5)
    assert shared["loss"](predictions, rows) == problem.loss(predictions, rows)


def test_a_payload_holds_functions_of_a_script_and_empty_arrays(problem):
    empty = Rows(np.zeros((0, 7), np.float32), np.zeros(0, int), np.zeros(0))
    folds = tuple(replace(fold, valid=empty) for fold in problem.folds)
    scorer = FunctionScorer(lambda predictions, rows, weight: float(len(rows)))
    shared = unpack(send(replace(problem, folds=folds, scorer=scorer)).data)
    assert shared["scorer"].score(None, np.arange(3)).value == 3.0
    assert shared["folds"][0].valid.x.shape == (0, 7)


def test_a_payload_is_sent_once_for_all_rungs(problem):
    executor = JoblibExecutor(2, joblib.parallel.get_active_backend()[0])
    payload = executor.find_payload(problem, make_context())
    context = make_context(deadline=7.0)
    assert executor.find_payload(replace(problem, seed=3), context) is payload
    assert find_executor(4).find_payload(problem, make_context()) is payload
    # Other workers, another scorer or other rows need another payload.
    assert Fragile({}).key != executor.key
    other = replace(problem, scorer=FunctionScorer(lambda *_: 0.0))
    assert executor.find_payload(other, context) is not payload
    assert executor.find_payload(make_problem("binary"), context) is not payload


def test_a_task_is_small_and_its_payload_a_file(problem):
    executor = find_executor(2)
    payload = executor.find_payload(problem, make_context())
    assert os.path.getsize(payload.data) > 10_000
    task = make_task(square, problem, make_context(), (3,), executor.parent)
    assert len(pickle.dumps(task)) < 5_000
    assert read_result(execute(replace(task, parent=None), payload.data)) == 9


def test_the_file_of_a_payload_is_removed_with_its_problem():
    problem = make_problem("binary")
    path = send(problem).data
    assert os.path.exists(path)
    worker_module.remove(os.getpid() + 1, path)  # as in a forked process
    assert os.path.exists(path)
    del problem
    assert not os.path.exists(path)


def test_a_worker_unpacks_a_payload_once_and_keeps_two(problem):
    unpack.cache_clear()
    problems = [problem, make_problem("binary"), make_problem("binary")]

    def ask(number):
        task = make_task(square, problems[number], make_context(), (number,))
        assert read_result(execute(task, send(problems[number]).data)) == number**2
        return unpack.cache_info().misses

    assert [ask(number) for number in (0, 0, 1, 0, 2, 0, 1)] == [1, 1, 2, 2, 3, 3, 4]


def test_a_payload_is_the_same_whenever_a_cluster_hands_it_out(problem):
    """Ray makes a new object for each task."""
    data = send(problem, RemoteBackend()).data
    assert unpack(data) is unpack(pickle.loads(pickle.dumps(data)))
    assert unpack(data) is not unpack(
        send(make_problem("binary"), RemoteBackend()).data
    )


def seconds_left(problem, context):
    return context.seconds_left


def test_a_deadline_is_sent_as_wall_clock_time(problem, monkeypatch):
    payload = send(problem)
    tasks = [
        make_task(seconds_left, problem, make_context(deadline=deadline), ())
        for deadline in (time.monotonic() + 30, None)
    ]
    # Another machine, whose monotonic clock has another start.
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    bounded, endless = (read_result(execute(task, payload.data)) for task in tasks)
    assert bounded == pytest.approx(30, abs=1)
    assert endless == float("inf")


def n_threads(problem, context):
    return torch.get_num_threads()


def test_a_worker_uses_one_thread(problem):
    payload = send(problem)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        task = make_task(n_threads, problem, make_context(), ())
        assert read_result(execute(task, payload.data)) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_tensors_come_back_on_the_cpu():
    class Elsewhere(torch.Tensor):
        device = torch.device("cuda")

        def cpu(self):
            return torch.ones(2)

    state = {"weight": torch.zeros(2).as_subclass(Elsewhere)}
    sent = read_result(payload_module._dump(state))
    assert torch.equal(sent["weight"], torch.ones(2))


# -------------------------------------------------------------------------------- GPUs


CLAIM = """
import runpy, sys
claim_device = runpy.run_path(sys.argv[1])["claim_device"]
print(claim_device(sys.argv[2], 2), claim_device(sys.argv[2], 2), flush=True)
sys.stdin.read()
"""


@pytest.mark.process
def test_each_worker_claims_another_gpu(tmp_path):
    def worker():
        return subprocess.Popen(
            [sys.executable, "-c", CLAIM, devices_module.__file__, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def claim(process):
        return process.stdout.readline().split()

    first, second = worker(), worker()
    try:
        claims = [claim(first), claim(second)]
        assert sorted(claims) == [["cuda:0"] * 2, ["cuda:1"] * 2]
        first.kill()
        first.communicate()
        third = worker()
        assert claim(third) == claims[0]  # the GPU of the worker that ended
        third.communicate()
    finally:
        first.kill()
        second.communicate()


def where(problem, context, folder):
    """Wait for a second worker, then return the process id and the device."""
    (folder / str(os.getpid())).touch()
    until = time.monotonic() + 100
    while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return os.getpid(), context.device


@pytest.mark.process
def test_tasks_are_spread_over_the_gpus(problem, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    context = make_context(device="cuda", n_jobs=4)
    tasks = [(tmp_path,)] * 8
    workers = set(run_module.run_tasks(where, tasks, problem, context, 1e9))
    assert {device for _, device in workers} == {"cuda:0", "cuda:1"}
    assert len(workers) == len({process for process, _ in workers}) == 2


@pytest.mark.parametrize(
    ("device", "n_gpus", "n_jobs", "useful"),
    [
        ("cpu", 0, 2, 2),
        ("cuda", 1, 2, 1),
        ("cuda", 3, 8, 3),
        ("cuda", 3, 2, 2),
        ("cuda", 3, 1, 1),
        ("cuda:1", 3, 2, 1),
    ],
)
def test_one_process_serves_a_gpu(monkeypatch, device, n_gpus, n_jobs, useful):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    context = make_context(device=device, n_jobs=n_jobs)
    assert run_module.count_useful_workers(context, 8) == useful
    assert run_module.count_useful_workers(context, 1) == 1


@pytest.mark.parametrize(
    ("seconds_left", "pace", "n_workers"),
    [
        *((5, 1.0, 1), (14, 1.0, 2), (14, 0.5, 1), (40, 0.5, 2), (40, 0.2, 1)),
        *((400, 0.01, 2), (None, 0.01, 2)),
    ],
)
def test_a_busy_machine_needs_more_time_for_workers(
    monkeypatch, seconds_left, pace, n_workers
):
    monkeypatch.setattr(run_module, "_pace", lambda: pace)
    deadline = None if seconds_left is None else time.monotonic() + seconds_left
    context = make_context(n_jobs=2, deadline=deadline)
    assert run_module.count_workers_in_time(context, 8) == n_workers
    if n_workers == 1:  # in this process
        tasks = [(number,) for number in range(3)]
        results = run_module.run_tasks(square, tasks, make_problem(), context, 1e9)
        assert list(results) == [0, 1, 4]


def test_the_pace_is_the_share_of_a_core(monkeypatch):
    assert 0 < run_module._pace() <= 1
    real = time.monotonic
    started = real()
    # A machine on which everything takes four times as long.
    monkeypatch.setattr(time, "monotonic", lambda: started + 4 * (real() - started))
    assert run_module._pace() <= 0.3


def wait(problem, context, seconds):
    time.sleep(seconds)
    return seconds


@pytest.mark.process
def test_workers_are_not_awaited_after_the_deadline(problem, monkeypatch):
    monkeypatch.setattr(run_module, "_has_room", lambda context: True)
    monkeypatch.setattr(executors_module, "WAIT_TIME", 0.5)
    context = make_context(n_jobs=2, deadline=time.monotonic() + 4)
    started = time.monotonic()
    tasks = [(0.0,), (60.0,), (60.0,)]
    results = list(run_module.run_tasks(wait, tasks, problem, context, 1e9))
    assert time.monotonic() - started < 15
    assert results[1:] == [Fault(Cause.OUT_OF_TIME)] * 2
    assert results[0] in (0.0, Fault(Cause.OUT_OF_TIME))  # on a busy machine


# ------------------------------------------------------------------- number of workers


def test_joblib_determines_the_number_of_workers():
    n_cores = joblib.cpu_count()
    assert run_module.count_workers(None) == run_module.count_workers(-1) == n_cores
    assert run_module.count_workers(3) == 3
    with joblib.parallel_config(n_jobs=5):
        assert run_module.count_workers(None) == 5
        assert run_module.count_workers(3) == 3
    with joblib.parallel_config(backend="multiprocessing", n_jobs=3):
        assert run_module.count_workers(None) == 3
    with joblib.parallel_config(backend="sequential"):
        assert run_module.count_workers(3) == 1


def test_threads_use_one_worker():
    with joblib.parallel_config(backend="threading", n_jobs=4):
        assert run_module.count_workers(None) == run_module.count_workers(3) == 1
    inside = joblib.Parallel(2, prefer="threads")(
        joblib.delayed(run_module.count_workers)(n) for n in (None, 2)
    )
    assert inside == [1, 1]


def test_child_process_uses_one_worker():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(run_module.count_workers, (4,)) == 1


class DaskDistributedBackend(joblib.parallel.ParallelBackendBase):
    """A cluster of four workers, which ignores `n_jobs` as Dask does."""

    nesting_level = 0

    def effective_n_jobs(self, n_jobs):
        return 4

    def apply_async(self, func, callback=None):
        raise AssertionError("no task is expected")


def test_at_most_n_jobs_workers_of_a_cluster_are_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    backend = DaskDistributedBackend()
    context = make_context(device="cuda", n_jobs=4)
    with joblib.parallel_config(backend=backend):
        assert run_module.count_workers(None) == run_module.count_workers(-1) == 4
        assert run_module.count_workers(2) == 2
        assert run_module.count_workers(8) == 4
        # A cluster assigns GPUs to its workers.
        assert run_module.count_useful_workers(context, 8) == 4
    with joblib.parallel_config(backend=backend, n_jobs=3):
        assert run_module.count_workers(None) == 3
    assert DaskDistributedBackend.__name__ == executors_module.DASK
