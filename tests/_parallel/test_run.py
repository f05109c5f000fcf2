"""What workers are sent, how tasks are tried again, and who is a worker."""

import io
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
from cohorts import make_problem
from joblib.parallel import get_active_backend

from sknas._history import OUT_OF_TIME
from sknas._parallel import executors as _crews
from sknas._parallel import payload as _parcel
from sknas._parallel import run as _workers
from sknas._parallel import worker as _home
from sknas._parallel.executors import (
    WORKER_LOST,
    Executor,
    JoblibExecutor,
    WorkerDiedError,
    find_executor,
)
from sknas._parallel.payload import execute, make_task, pack, read_result, unpack
from sknas._problem import Problem


@pytest.fixture
def problem():
    return make_problem("binary")


def test_a_removed_folder_of_rows_is_made_again(problem):
    executor = JoblibExecutor(2, get_active_backend()[0])
    payload = executor.sent(problem)
    assert executor.sent(problem) is payload
    shutil.rmtree(_home.worker_folder())
    again = executor.sent(problem)
    assert again is not payload and again.is_there


def test_a_folder_for_files_that_is_not_there_yet_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("JOBLIB_TEMP_FOLDER", str(tmp_path / "new" / "folder"))
    monkeypatch.setattr(_home, "_folders", {})
    folder = _home.worker_folder()
    assert Path(folder).parent == tmp_path / "new" / "folder"
    assert Path(folder).is_dir()


# Tasks that are tried again


class Fragile(Executor):
    """Two workers that are played: they begin tasks in their order, as real ones do.

    Parameters
    ----------
    n_lives : dict of int to int
        How often a task kills its worker before it has a result.
    """

    key = "here"

    def __init__(self, n_lives):
        super().__init__(2)
        self.n_lives, self.batches, self.done = dict(n_lives), [], []
        self.n_ended = 0

    def send(self, problem):
        raise AssertionError("nothing has to be sent")

    def results(self, function, problem, tasks):
        tasks = list(tasks)
        self.batches.append([place for place, _ in tasks])
        while tasks:
            under_way = [place for place, _ in tasks[:2]]
            for place in under_way:
                if self.n_lives.get(place, 0):
                    self.n_lives[place] -= 1
                    raise WorkerDiedError
            # The second of two is done before the first.
            is_second = len(under_way) == 2 and len(self.done) % 2 == 0
            place, task = tasks.pop(int(is_second))
            self.done.append(place)
            yield place, function(problem, *task)
        self.n_ended += 1


def square(problem, number):
    return number**2


def insist(executor, n=5, problem=None):
    left = {place: (place,) for place in range(n)}
    return list(_workers._insisting(square, left, problem or Problem(), executor))


def test_results_come_in_order_and_each_task_is_done_once():
    executor = Fragile({})
    assert insist(executor) == [0, 1, 4, 9, 16]
    assert executor.batches == [[0, 1, 2, 3, 4]]
    assert executor.done == [1, 0, 3, 2, 4]


def test_a_result_is_there_as_soon_as_those_before_it():
    executor = Fragile({})
    left = {place: (place,) for place in range(3)}
    results = _workers._insisting(square, left, Problem(), executor)
    assert next(results) == 0
    assert executor.done == [1, 0]


def test_whoever_has_all_results_has_ended_the_crew():
    executor = Fragile({0: 1})
    left = {place: (place,) for place in range(3)}
    results = _workers._insisting(square, left, Problem(), executor)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert executor.batches == [[0, 1, 2], [0], [1], [2]]
    assert executor.n_ended == 3


def test_what_was_under_way_is_tried_again_alone():
    executor = Fragile({2: 1})
    assert insist(executor) == [0, 1, 4, 9, 16]
    # 1 was done before; 0 and 2 were under way, 3 and 4 had not begun.
    assert executor.batches == [[0, 1, 2, 3, 4], [0], [2], [3, 4]]
    assert sorted(executor.done) == [0, 1, 2, 3, 4]


def test_what_kills_its_worker_again_is_given_up_and_nothing_else():
    executor = Fragile({0: 9})
    assert insist(executor) == [WORKER_LOST, 1, 4, 9, 16]
    assert executor.batches == [[0, 1, 2, 3, 4], [0], [1], [2, 3, 4]]
    assert executor.n_lives[0] == 7


def test_all_may_kill_their_workers():
    assert insist(Fragile({place: 9 for place in range(4)})) == [WORKER_LOST] * 4 + [16]


def test_no_worker_is_started_where_there_is_no_time_for_it():
    problem = Problem(deadline=time.monotonic() + 5)
    executor = Fragile({1: 1})
    assert insist(executor, problem=problem) == [OUT_OF_TIME] * 5
    assert len(executor.batches) == 1


def test_what_cannot_be_pickled_is_an_error():
    problem = Problem(n_jobs=2, folds=make_problem("binary").folds)
    with pytest.raises(TypeError, match="lock"):
        list(_workers.run_tasks(square, [(threading.Lock(),)] * 2, problem, 1e9))


# What is sent


def test_arrays_of_a_parcel_are_views_that_nobody_writes_to(problem):
    file = io.BytesIO()
    spans = pack(problem, file)
    data = np.frombuffer(file.getbuffer(), np.uint8)
    heavy = unpack(spans, data)
    for fold, sent in zip(problem.folds, heavy["folds"], strict=True):
        np.testing.assert_array_equal(fold.train.x, sent.train.x)
        np.testing.assert_array_equal(fold.valid.y, sent.valid.y)
        assert sent.task.kind == fold.task.kind
        assert np.shares_memory(sent.train.x, data)
        assert not sent.train.x.flags.writeable
        assert sent.train.x.ctypes.data % 4 == data.ctypes.data % 4
    rows = np.arange(3)
    predictions = np.full((3, 2), 0.5)
    assert heavy["loss"](predictions, rows) == problem.loss(predictions, rows)


def test_a_parcel_is_made_once_for_all_rungs(problem):
    executor = JoblibExecutor(2, joblib.parallel.get_active_backend()[0])
    payload = executor.sent(problem)
    assert executor.sent(replace(problem, deadline=7.0, seed=3)) is payload
    assert find_executor(4).sent(problem) is payload
    # Other workers, another score and other rows need one of their own.
    assert Fragile({}).key != executor.key
    other = replace(problem, score=lambda *told: 0.0)
    assert executor.sent(other) is not payload
    assert executor.sent(make_problem("binary")) is not payload


def test_a_call_is_light_and_its_parcel_a_file(problem):
    executor = find_executor(2)
    payload = executor.sent(problem)
    assert os.path.getsize(payload.data) > 10_000
    call = make_task(square, problem, (3,), payload, executor.parent)
    assert len(pickle.dumps(call)) < 5_000
    assert read_result(execute(replace(call, parent=None), payload.data)) == 9


def test_the_file_of_a_parcel_goes_with_its_problem():
    problem = make_problem("binary")
    path = find_executor(2).sent(problem).data
    assert os.path.exists(path)
    _home.remove(os.getpid() + 1, path)  # as a fork would
    assert os.path.exists(path)
    del problem
    assert not os.path.exists(path)


def test_a_worker_opens_a_parcel_once_and_keeps_two(problem, monkeypatch):
    opened = []

    def counted(spans, data):
        opened.append(spans)
        return unpack(spans, data)

    monkeypatch.setattr(_parcel, "unpack", counted)
    monkeypatch.setattr(_parcel, "_opened", {})
    executor = find_executor(2)
    problems = [problem, make_problem("binary"), make_problem("binary")]

    def ask(number):
        payload = executor.sent(problems[number])
        call = make_task(square, problems[number], (number,), payload)
        assert read_result(execute(call, payload.data)) == number**2
        return len(opened)

    assert [ask(number) for number in (0, 0, 1, 0, 2, 0, 1)] == [1, 1, 2, 2, 3, 3, 4]


def seconds_left(problem):
    return problem.seconds_left


def test_a_deadline_is_told_by_the_time_of_day(problem, monkeypatch):
    payload = find_executor(2).sent(problem)
    calls = [
        make_task(seconds_left, replace(problem, deadline=deadline), (), payload)
        for deadline in (time.monotonic() + 30, None)
    ]
    # Another machine, whose clock began at another time.
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    bounded, endless = (read_result(execute(call, payload.data)) for call in calls)
    assert bounded == pytest.approx(30, abs=1)
    assert endless == float("inf")


def n_threads(problem):
    return torch.get_num_threads()


def test_a_worker_uses_one_thread(problem):
    payload = find_executor(2).sent(problem)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        call = make_task(n_threads, problem, (), payload)
        assert read_result(execute(call, payload.data)) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_tensors_come_back_on_the_cpu():
    class Elsewhere(torch.Tensor):
        device = torch.device("cuda")

        def cpu(self):
            return torch.ones(2)

    told = {"state": torch.zeros(2).as_subclass(Elsewhere)}
    assert torch.equal(read_result(_parcel._dumped(told))["state"], torch.ones(2))


# Several GPUs


CLAIM = """
import runpy, sys
claim_device = runpy.run_path(sys.argv[1])["claim_device"]
print(claim_device(sys.argv[2], 2), claim_device(sys.argv[2], 2), flush=True)
sys.stdin.read()
"""


def test_each_worker_has_a_gpu_of_its_own(tmp_path):
    def worker():
        return subprocess.Popen(
            [sys.executable, "-c", CLAIM, _home.__file__, tmp_path],
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
        assert claim(third) == claims[0]  # that of the one that is gone
        third.communicate()
    finally:
        first.kill()
        second.communicate()


def where(problem, folder):
    """Which process this is, and its device, as soon as another one is there too."""
    (folder / str(os.getpid())).touch()
    until = time.monotonic() + 100
    while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return os.getpid(), problem.device


def test_tasks_are_spread_over_the_gpus(problem, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    told = replace(problem, device="cuda", n_jobs=4)
    places = set(_workers.run_tasks(where, [(tmp_path,)] * 8, told, 1e9))
    assert {device for _, device in places} == {"cuda:0", "cuda:1"}
    assert len(places) == len({process for process, _ in places}) == 2


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
    problem = Problem(device=device, n_jobs=n_jobs)
    assert _workers.count_useful_workers(problem, 8) == useful
    assert _workers.count_useful_workers(problem, 1) == 1


# Who is a worker


def test_joblib_is_asked_for_the_number():
    n_cores = joblib.cpu_count()
    assert _workers.count_workers(None) == _workers.count_workers(-1) == n_cores
    assert _workers.count_workers(3) == 3
    with joblib.parallel_config(n_jobs=5):
        assert _workers.count_workers(None) == 5
        assert _workers.count_workers(3) == 3
    with joblib.parallel_config(backend="multiprocessing", n_jobs=3):
        assert _workers.count_workers(None) == 3
    with joblib.parallel_config(backend="sequential"):
        assert _workers.count_workers(3) == 1


def test_threads_get_one():
    with joblib.parallel_config(backend="threading", n_jobs=4):
        assert _workers.count_workers(None) == _workers.count_workers(3) == 1
    inside = joblib.Parallel(2, prefer="threads")(
        joblib.delayed(_workers.count_workers)(n) for n in (None, 2)
    )
    assert inside == [1, 1]


def test_a_child_gets_one():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_workers.count_workers, (4,)) == 1


class DaskDistributedBackend(joblib.parallel.ParallelBackendBase):
    """A cluster of four, which tells of them whatever it is asked for."""

    nesting_level = 0

    def effective_n_jobs(self, n_jobs):
        return 4

    def apply_async(self, func, callback=None):
        raise AssertionError("nothing is to be done")


def test_a_cluster_is_used_as_far_as_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    backend = DaskDistributedBackend()
    with joblib.parallel_config(backend=backend):
        assert _workers.count_workers(None) == _workers.count_workers(-1) == 4
        assert _workers.count_workers(2) == 2
        assert _workers.count_workers(8) == 4
        # A worker of a cluster has a GPU of its own.
        assert _workers.count_useful_workers(Problem(device="cuda", n_jobs=4), 8) == 4
    with joblib.parallel_config(backend=backend, n_jobs=3):
        assert _workers.count_workers(None) == 3
    assert DaskDistributedBackend.__name__ == _crews.DASK
