"""An interrupted search is resumed with the same result."""

import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections import Counter
from contextlib import closing
from io import BytesIO
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, KFold

from sknas import NASClassifier, NASRegressor
from sknas._checkpoint import keys
from sknas._checkpoint.folder import HEADER, LOCK
from sknas._checkpoint.store import DATABASE, FileStore, _checksum
from sknas._ensemble import refit
from sknas._ensemble.selection import Selection
from sknas._history import Architecture, Proposal, Trial
from sknas._problem import NullStore, Problem, RunContext
from sknas._search.loop import Search
from sknas.exceptions import CheckpointError, InvalidParameterError, SearchWarning
from sknas.spaces import CellSpace, ImageSpace, TableSpace
from sknas.strategies import STRATEGIES, GradientStrategy
from sknas.trainers import SkorchTrainer, _population, _skorch
from sknas.trainers._loop import TrainingLoop

DIGITS = load_digits()
IMAGES = DIGITS.images[:90].astype(np.uint8)
TABLE = DIGITS.data[:204, 18:26].astype(np.float32)  # enough for two rungs


class Small(TableSpace):
    """Small networks of two widths, without an initial design."""

    points = ({},)


SPACES = {
    "table": Small(
        depth=(1, 1),
        width=(8, 16),  # two groups of networks
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
    """Like SIGKILL: the search doesn't catch it."""


def search(strategy="bayesian", inputs="table", kind=NASClassifier, **parameters):
    """Return a tiny search and its X and y."""
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
    """Counts trainings by rung, and can end a fit at one of its writes."""

    def __init__(self, monkeypatch):
        self.done, self.n_puts, self.kill_at = [], 0, None
        for module, name in ((_population, "train_stacked"), (_skorch, "train_alone")):
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

        def counted(group, rung, space, problem, context):
            numbers = tuple(trial.proposal.number for trial in group.trials)
            self.done.append((problem.seed, rung, numbers))
            real(group, rung, space, problem, context)

        monkeypatch.setattr(module, name, counted)

    def fit(self, model, X, y, kill_at=None):
        """Return the fitted model, or None if it was killed."""
        self.n_puts, self.kill_at = 0, kill_at
        try:
            return model.fit(X, y)
        except Killed:
            return None


@pytest.fixture
def trainings(monkeypatch):
    return Trainings(monkeypatch)


def result_of(model, X):
    """Return everything on which two equal searches must agree."""
    trials = [
        (t.proposal, t.status, t.score, t.loss, t.fold_scores, t.rung_scores, t.stop)
        for t in model.history_
    ]
    predicted = model.predict_proba if hasattr(model, "classes_") else model.predict
    return trials, model.best_architecture_, predicted(X).tobytes()


# Resumed searches


def with_slow(cases, quick):
    """Return the cases as parameters, all but the quick ones marked as slow."""
    return [
        pytest.param(*case, marks=[] if case in quick else pytest.mark.slow)
        for case in cases
    ]


@pytest.mark.parametrize(
    ("strategy", "inputs"),
    with_slow(
        product(STRATEGIES, ["table", "image"]),
        quick=[("bayesian", "table"), ("gradient", "image")],
    ),
)
def test_search_killed_several_times_has_the_same_result(
    strategy, inputs, trainings, tmp_path
):
    model, X, y = search(strategy, inputs)
    expected = result_of(model.fit(X, y), X)
    once = list(trainings.done)
    trainings.done.clear()
    model.set_params(checkpoint=tmp_path)
    n_kills = 0
    while trainings.fit(model, X, y, kill_at=5 + n_kills % 3) is None:
        n_kills += 1
        assert n_kills < 60
    assert n_kills > 2
    assert result_of(model, X) == expected
    # Stored networks are not trained again.
    assert sorted(trainings.done) == sorted(once)


@pytest.mark.parametrize(
    "kill_at", with_slow([(1,), (7,), (12,), (25,)], quick=[(1,), (12,)])
)
def test_search_killed_at_any_write_has_the_same_result(kill_at, trainings, tmp_path):
    model, X, y = search(max_trials=5)
    expected = result_of(model.fit(X, y), X)
    once = len(trainings.done)
    trainings.done.clear()
    model.set_params(checkpoint=tmp_path)
    trainings.fit(model, X, y, kill_at)
    assert result_of(model.fit(X, y), X) == expected
    assert len(trainings.done) == once


@pytest.mark.parametrize(
    "parameters",
    [
        {"trainer": SkorchTrainer(), "max_trials": 4},
        pytest.param({"kind": NASRegressor}, marks=pytest.mark.slow),
        {"ensemble_size": 1, "max_trials": 16},
        pytest.param({"max_time": 60.0, "max_epochs": 220}, marks=pytest.mark.slow),
        {"scoring": "roc_auc_ovr", "constraints": {"n_params": 100_000}},
        {"cv": KFold(3, shuffle=True, random_state=1), "n_jobs": 2},
    ],
    ids=lambda parameters: "-".join(parameters),
)
def test_other_searches_are_resumed(parameters, trainings, tmp_path):
    model, X, y = search(**parameters)
    expected = result_of(model.fit(X, y), X)
    model.set_params(checkpoint=tmp_path)
    assert trainings.fit(model, X, y, kill_at=12) is None
    trainings.done.clear()
    assert trainings.fit(model, X, y, kill_at=5) is None
    assert result_of(model.fit(X, y), X) == expected
    assert len(set(trainings.done)) == len(trainings.done)


def test_a_finished_search_is_read_without_training(trainings, tmp_path):
    model, X, y = search(checkpoint=tmp_path)
    first = result_of(model.fit(X, y), X)
    trainings.done.clear()
    assert result_of(model.fit(X, y), X) == first
    assert not trainings.done


def test_refitted_networks_are_not_trained_again(trainings, tmp_path, monkeypatch):
    # The folds train on half of the rows, so the ensemble is refitted on all rows.
    model, X, y = search(max_trials=4)
    expected = result_of(model.fit(X, y), X)
    n_members = len(model.ensemble_)
    count, real = [], refit._train_or_fault

    def counted(*arguments):
        count.append(1)
        return real(*arguments)

    monkeypatch.setattr(refit, "_train_or_fault", counted)
    model.set_params(checkpoint=tmp_path)
    assert trainings.fit(model, X, y, kill_at=10_000) is not None
    n_puts = trainings.n_puts
    assert len(count) == n_members > 1
    folder = tmp_path / "again"
    model.set_params(checkpoint=folder)
    assert trainings.fit(model, X, y, kill_at=n_puts - n_members + 1) is None
    assert result_of(model.fit(X, y), X) == expected
    assert len(count) == 2 * n_members


def test_networks_in_the_store_take_no_time(tmp_path, monkeypatch):
    model, X, y = search(max_trials=4, max_time=60.0, max_epochs=5)
    model.set_params(checkpoint=tmp_path)
    first = result_of(model.fit(X, y), X)
    assert len(model.ensemble_) > 1
    monkeypatch.setattr(refit, "PLANNED_SHARE", 0.0)  # as if no time were left
    assert result_of(model.fit(X, y), X) == first


@pytest.mark.parametrize(
    ("seeds", "indices"), [((0, 2), [0, 2]), ((2,), [0, 2]), ((), [0]), ((0,), [0])]
)
def test_short_time_keeps_stored_members_and_one_that_is_not_stored(seeds, indices):
    class Holding(NullStore):
        def get(self, key):
            return True if key in {keys.refit(seed, 1.0) for seed in seeds} else None

    trials = tuple(
        Trial(Proposal(Architecture({}), number=j), stop=1.0, fold_seconds=(9.0,))
        for j in range(3)
    )
    selection = Selection(trials, (0.5, 0.3, 0.2), (1.0, 2.0, 3.0))
    context = RunContext(store=Holding(), deadline=time.monotonic() + 5)
    trainings = [SimpleNamespace(seed=j, stop=1.0) for j in range(3)]
    assert refit._in_time(selection, trainings, context) == indices
    assert selection.take([0, 2]).temperatures == (1.0, 3.0)


def test_search_without_a_seed_stores_the_seed_it_draws(trainings, tmp_path):
    model, X, y = search(random_state=None, checkpoint=tmp_path)
    assert trainings.fit(model, X, y, kill_at=12) is None
    first = result_of(model.fit(X, y), X)
    assert result_of(model.fit(X, y), X) == first


def test_time_before_a_kill_counts_towards_max_time(trainings, tmp_path, monkeypatch):
    model, X, y = search(checkpoint=tmp_path, max_time=30.0, max_trials=None)
    assert trainings.fit(model, X, y, kill_at=12) is None
    # As if the first run had used all the time.
    real = FileStore._open

    def late(store):
        real(store)
        store.seconds = 29.9

    monkeypatch.setattr(FileStore, "_open", late)
    started = time.monotonic()
    model.fit(X, y)
    assert time.monotonic() - started < 10
    assert model.stop_reason_ == "max_time"
    assert model.score(X, y) > 0.5


def test_time_of_earlier_runs_counts_for_reevaluations():
    store = NullStore()
    store.seconds = 40.0
    again = Search(
        space=SPACES["table"],
        strategy=STRATEGIES["random"](),
        trainer=SkorchTrainer(),
        problem=Problem(),
        context=RunContext(store=store),
        max_trials=0,
        deadline=lambda history: None,
    )
    again.run()
    assert time.monotonic() - again._started > 40.0


def test_ctrl_c_keeps_finished_trials_and_a_second_fit_resumes(trainings, tmp_path):
    model, X, y = search()
    expected = result_of(model.fit(X, y), X)
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
    assert result_of(model.fit(X, y), X) == expected
    assert result_of(model.fit(X, y), X) == expected  # read from the store


@pytest.mark.parametrize("at", [3])
def test_ctrl_c_in_a_training_leaves_no_unfinished_trial(
    at, trainings, tmp_path, monkeypatch
):
    model, X, y = search()
    expected = result_of(model.fit(X, y), X)
    real, calls = TrainingLoop.run, []

    def interrupted(training, rung):
        calls.append(rung)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(training, rung)

    model.set_params(checkpoint=tmp_path)
    monkeypatch.setattr(TrainingLoop, "run", interrupted)
    assert model.fit(X, y).stop_reason_ == "interrupted"
    for _ in range(2):  # resumed, then read from the store
        assert result_of(model.fit(X, y), X) == expected


# Files of a checkpoint


def keys_in(folder, copy):
    """Return the keys of the only search in a folder, as if it were killed now."""
    (path,) = folder.glob(f"*/{DATABASE}")
    shutil.copytree(path.parent, copy, dirs_exist_ok=True)
    with closing(sqlite3.connect(copy / DATABASE)) as database:
        return [key for (key,) in database.execute("SELECT key FROM entries")]


def test_every_trial_is_on_disk_before_it_is_reported(tmp_path, monkeypatch):
    model, X, y = search(checkpoint=tmp_path / "searches")
    numbers = []

    def show(progress, history):
        on_disk = keys_in(tmp_path / "searches", tmp_path / f"copy {len(numbers)}")
        numbers.extend(t.proposal.number for t in history)
        assert {keys.trial(t.proposal.number) for t in history} <= {*on_disk}

    monkeypatch.setattr("sknas._search.progress.Progress.show", show)
    model.fit(X, y)
    assert set(numbers) == set(range(7))


def test_the_folder_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("sknas._search.loop.N_WITH_NETWORKS", 5)
    model, X, y = search(checkpoint=tmp_path / "searches", max_trials=40)
    model.fit(X, y)
    found = keys_in(tmp_path / "searches", tmp_path / "copy")
    # The networks of the best trials and of the ensemble, but no state of a cohort.
    kinds = Counter(key.partition(":")[0] for key in found)
    n_batches = kinds.pop("batch")
    assert kinds == {
        **{"seed": 1, "done": n_batches, "end": 1, "trial": 40},
        **{"networks": 5, "refit": len(model.ensemble_)},
    }
    # What is left of a search that has ended, without a log of changes.
    (folder,) = (tmp_path / "searches").iterdir()
    assert {path.name for path in folder.iterdir()} == {DATABASE, HEADER, LOCK}


@pytest.mark.process
def test_each_search_has_its_own_folder(tmp_path):
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
def test_one_warning_names_what_differs(changes, differs, tmp_path):
    model, X, y = search(checkpoint=tmp_path, max_trials=2, max_epochs=1)
    model.fit(X, y)
    model.set_params(n_jobs=2, verbose=0).fit(X, y)  # these parameters change no result
    text = rf"of the 1 there, the most similar one differs in {differs}\.$"
    with pytest.warns(SearchWarning, match=text) as caught:
        model.set_params(**changes).fit(X, y)
    assert caught[0].filename == __file__
    model.fit(X, y)  # its folder exists by now
    X[0, 0] += 1
    try:
        with pytest.warns(SearchWarning, match=r"of the 2 there, .* differs in X\.$"):
            model.fit(X, y)
    finally:
        X[0, 0] -= 1


def test_a_living_process_locks_its_search(tmp_path):
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
        with pytest.raises(
            CheckpointError, match="Another process is running the search in"
        ):
            model.fit(X, y)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    model.fit(X, y)  # the lock of a dead process is released


def test_damage_is_an_error_and_nothing_is_deleted(tmp_path):
    model, X, y = search(checkpoint=tmp_path, max_trials=2, max_epochs=1)
    first = result_of(model.fit(X, y), X)
    (path,) = tmp_path.glob(f"*/{DATABASE}")
    content = path.read_bytes()
    damaged = content.replace(b'"$": "Trial"', b'"$": "Tryal"', 1)
    path.write_bytes(damaged)
    with pytest.raises(
        CheckpointError, match=r"^The value of 'trial:\d' .* is damaged"
    ):
        model.fit(X, y)
    assert path.read_bytes() == damaged != content
    path.write_bytes(content)
    assert result_of(model.fit(X, y), X) == first


@pytest.mark.parametrize("checkpoint", [3, True, b"folder", ["a"]])
def test_values_that_are_not_a_folder_are_refused(checkpoint):
    model, X, y = search(checkpoint=checkpoint)
    with pytest.raises(InvalidParameterError, match="'checkpoint' parameter"):
        model.fit(X, y)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    model, X, y = search(checkpoint=tmp_path / "file" / "folder")
    with pytest.raises(InvalidParameterError, match="can be made and written to"):
        model.fit(X, y)


class Trap:
    """Runs code when a pickle of it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(
    ("write", "reason"),
    [(pickle.dump, r"\w+DecodeError: "), (torch.save, "it holds more than tensors")],
)
def test_untrusted_files_run_no_code(write, reason, tmp_path):
    model, X, y = search(max_trials=2, max_epochs=2, checkpoint=tmp_path)
    model.fit(X, y)
    (path,) = tmp_path.glob(f"*/{DATABASE}")
    mark, buffer = tmp_path / "mark", BytesIO()
    write(Trap(mark), buffer)
    content = buffer.getvalue()
    with closing(sqlite3.connect(path)) as database, database:
        rows = database.execute("SELECT key, seconds FROM entries").fetchall()
        for key, seconds in rows:  # with checksums that are correct
            if key.startswith("networks:"):
                checksum = _checksum(key, 0, content, seconds)
                changes = "SET content = ?, checksum = ? WHERE key = ?"
                database.execute(f"UPDATE entries {changes}", (content, checksum, key))
    written = path.read_bytes()
    with pytest.raises(CheckpointError, match=rf"^The value .* is refused, {reason}"):
        model.fit(X, y)
    assert not mark.exists()
    assert path.read_bytes() == written


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"[1, 2]", b'{"of": "others"}', pickle.dumps([]), None],
    ids=range(7),
)
def test_foreign_headers_are_ignored_with_a_warning(content, tmp_path):
    other = tmp_path / "folder" / HEADER
    if content is None:
        other.mkdir(parents=True)
    else:
        other.parent.mkdir()
        other.write_bytes(content)
    model, X, y = search(max_trials=2, max_epochs=1, checkpoint=tmp_path)
    with pytest.warns(SearchWarning, match=r"json' .* is ignored") as caught:
        model.fit(X, y)
    assert len(caught) == 1 and str(other) in str(caught[0].message)
    assert content is None or other.read_bytes() == content
    model.fit(X, y)  # warns once


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
from sknas._checkpoint.store import FileStore

X, y = load_digits(return_X_y=True)
model = NASClassifier(
    max_trials=18, max_epochs=10, cv=2, n_jobs=1, random_state=0, checkpoint=sys.argv[1]
)
put = FileStore.put
def printing(store, key, value):
    put(store, key, value)
    print("put", flush=True)
FileStore.put = printing
print("started", flush=True)
model.fit(X[:300], y[:300])
predicted = model.predict_proba(X).tobytes().hex()[:64]
print("ended", model.stop_reason_, predicted, flush=True)
"""


def start(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, folder], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n"
    return process


def output_of(process):
    """Return what a process says at its end."""
    with process.stdout:
        said = process.stdout.read().partition("ended")[2].split()
    process.wait(60)
    return said


@pytest.mark.process
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_searches_of_killed_or_terminated_processes_are_resumed(tmp_path):
    folder = tmp_path / "searches"
    for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        process = start(folder)
        for _ in range(4):
            assert process.stdout.readline() == "put\n"
        process.send_signal(number)
        assert output_of(process) == []
        assert process.returncode == status
    model = NASClassifier(max_trials=18, max_epochs=10, cv=2, n_jobs=1, random_state=0)
    model.fit(DIGITS.data[:300], DIGITS.target[:300])
    predicted = model.predict_proba(DIGITS.data).tobytes().hex()[:64]
    assert output_of(start(folder)) == ["max_trials", predicted]
