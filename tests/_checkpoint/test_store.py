"""Values of a store on disk and damaged files."""

import gc
import os
import pickle
import random
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from sknas._checkpoint import store as store_module
from sknas._checkpoint.records import CLASS
from sknas._checkpoint.store import DATABASE, TABLE, FileStore
from sknas._history import Architecture, Proposal, Trial
from sknas._problem import NullStore
from sknas.exceptions import CheckpointError


@dataclass(eq=False)
class Record:
    name: str
    tensor: torch.Tensor
    parts: tuple = ()


VALUES = {
    "number": 0.1 + 0.2,
    "nan and infinity": [float("nan"), float("inf"), None, True],
    "nested": {"a": ["b", ("c", 1)]},
    "trial": Trial(
        Proposal(Architecture({"width": 3, "act": "relu"}), number=7, seed=2**40),
        score=1 / 3,
        rung_scores=(0.25, 1 / 7),
    ),
}
LARGE = torch.arange(800_000.0)  # several rows


def assert_same(a, b):
    assert repr(a) == repr(b)


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "search"
    folder.mkdir()
    with closing(FileStore(folder, {"Record": Record})) as store:
        yield store


def killed(store):
    """Return a folder with what a killed process leaves at this moment."""
    folder = store.path.parent.parent / f"killed {random.random()}"
    return shutil.copytree(store.path.parent, folder)


def read(folder, key):
    with closing(FileStore(folder, {"Record": Record})) as store:
        return store.get(key)


def insert(folder, key, content, seconds=1.0):
    """Write any content with a correct checksum, as for an untrusted checkpoint."""
    row = (key, 0, content, seconds)
    checked = content if isinstance(content, bytes) else b""
    checksum = store_module._checksum(key, 0, checked, seconds)
    with closing(sqlite3.connect(folder / DATABASE)) as database, database:
        database.execute("DELETE FROM entries")
        database.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", (*row, checksum))


@pytest.mark.parametrize("name", VALUES)
def test_values_are_on_disk_when_put_returns(store, name):
    store.put("key", VALUES[name])
    assert_same(read(killed(store), "key"), VALUES[name])
    assert_same(store.get("key"), VALUES[name])
    store.close()
    assert_same(read(store.path.parent, "key"), VALUES[name])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(3, 4, dtype=torch.float64),
        torch.rand(2, 2).to(torch.bfloat16),
        torch.tensor(3),
        torch.rand(1000, 1000)[7:8, :100],
        torch.arange(6).reshape(2, 3).T,
        LARGE,
    ],
    ids=["double", "half", "count", "view", "transposed", "large"],
)
def test_tensors_are_read_bit_for_bit(store, tensor):
    record = Record("name", tensor, ({"state": tensor},))
    store.put("rung:0:1,2", [record])
    (found,) = read(killed(store), "rung:0:1,2")
    assert found.name == "name"
    assert found.tensor.dtype == tensor.dtype
    assert torch.equal(found.tensor, tensor)
    assert torch.equal(found.parts[0]["state"], tensor)
    # A view is written without its base.
    assert store.path.stat().st_size < 2 * tensor.nbytes + 500_000


def test_trials_are_read_with_their_arrays(store):
    predictions = np.array([[0.1, np.nan], [0.3, 0.4]])
    trial = Trial(Proposal(Architecture({})), score=1.0, predictions=predictions)
    store.put("trial:0", trial)
    found = store.get("trial:0")
    np.testing.assert_array_equal(found.predictions, predictions)
    assert found.predictions.dtype == np.float64


def test_later_values_replace_earlier_ones(store):
    for value in (torch.zeros(2), LARGE, torch.ones(2), torch.ones(2)):
        store.put("key", value)
        assert torch.equal(read(killed(store), "key"), value)
    store.put("key", 3)
    assert read(killed(store), "key") == 3


def test_later_value_does_not_replace_values_with_longer_keys(store):
    store.put("rung:1", torch.ones(2))
    for value in (0, 1):
        store.put("rung", torch.full((2,), value))
    assert torch.equal(store.get("rung:1"), torch.ones(2))


def test_values_are_dropped_by_the_prefix_of_their_keys(store):
    dropped = ("cohort:1", "cohort:1:a", "cohort:1:b")
    kept = ("cohort:12:a", "cohort", "cohort_1:a", "Cohort:1:a", "other")
    for key in (*dropped, *kept):
        store.put(key, torch.zeros(2))
    store.drop("cohort:1")
    store.drop("never there")
    with closing(FileStore(killed(store))) as again:
        assert [again.get(key) for key in dropped] == [None] * 3
        assert None not in [again.get(key) for key in kept]


def test_dropped_and_replaced_values_leave_the_disk(store):
    store.put("kept", 1)
    for _ in range(3):
        store.put("dropped", LARGE)
    store.drop("dropped")
    store.close()
    assert [path.name for path in store.path.parent.iterdir()] == [DATABASE]
    assert store.path.stat().st_size < 500_000 < LARGE.nbytes


def test_an_interrupted_put_keeps_the_earlier_value(store, monkeypatch):
    store.put("key", 1)
    real, n_rows = store_module._checksum, []

    def interrupted(*row):
        n_rows.append(row)
        if len(n_rows) == 3:
            raise KeyboardInterrupt
        return real(*row)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(store_module, "_checksum", interrupted)
        store.put("key", LARGE)
    assert store.get("key") == 1
    store.put("other", 2)
    assert read(killed(store), "key") == 1


def test_a_database_needs_no_shared_memory(store):
    store.put("key", 1)
    with closing(FileStore(killed(store))) as again:
        assert again.get("key") == 1
        for folder in (store.path.parent, again.path.parent):
            names = {path.name for path in folder.iterdir()}
            assert names == {DATABASE, f"{DATABASE}-wal"}  # there is no file "-shm"


def test_a_second_store_of_a_folder_is_refused(store, monkeypatch):
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0))
    with pytest.raises(CheckpointError, match=r"can't be read, database is locked: "):
        FileStore(store.path.parent)
    store.put("key", 1)


def test_an_interrupted_opening_leaves_the_database_free(store, monkeypatch):
    store.put("key", 1)
    store.close()
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0))
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_checksum", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt) as retained:
            FileStore(store.path.parent)
    assert read(store.path.parent, "key") == 1
    del retained


def test_several_threads_may_use_a_store(store):
    values = {f"{i}": [i] for i in range(20)}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(store.put, values, values.values()))
        assert list(pool.map(store.get, values)) == list(values.values())
    folder = killed(store)
    assert [read(folder, key) for key in values] == list(values.values())


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_that_closes_the_store_has_no_effect(store):
    store.put("a", 1)
    child = os.fork()
    if child == 0:
        store.close()
        vars(store).clear()
        gc.collect()  # as at the end of Python
        os._exit(0)
    os.waitpid(child, 0)
    store.put("b", 2)
    folder = killed(store)
    assert [read(folder, key) for key in "ab"] == [1, 2]


def test_value_of_an_unknown_key_is_none(store):
    assert store.get("key") is None


def test_null_store_stores_nothing():
    store = NullStore()
    store.put("key", 1)
    store.drop("key")
    assert store.get("key") is None


def test_seconds_of_earlier_runs_are_added(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("sknas._checkpoint.store.time.monotonic", lambda: now[0])
    with closing(FileStore(tmp_path)) as first:
        now[0] = 107.0
        first.put("a", 1)
        assert first.seconds == 7.0
    now[0] = 1000.0  # the time between two runs
    with closing(FileStore(tmp_path)) as second:
        assert second.seconds == 7.0
        now[0] = 1003.0
        second.put("b", 1)
    with closing(FileStore(tmp_path)) as third:
        assert third.seconds == 10.0


# Damage


@pytest.fixture
def filled(store):
    """Return the path of a closed database, and the values in it."""
    values = {f"key:{n}": {"score": n / 7} for n in range(5)} | {"big": torch.rand(999)}
    for key, value in values.items():
        store.put(key, value)
    store.close()
    return store.path, values


def test_a_changed_byte_is_an_error_or_has_no_effect(filled):
    path, values = filled
    content = path.read_bytes()
    used = [index for index, byte in enumerate(content) if byte]
    rng, n_errors = random.Random(0), 0
    for _ in range(60):
        changed = bytearray(content)
        changed[rng.choice(used)] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            with closing(FileStore(path.parent)) as store:
                found = {key: store.get(key) for key in values}
        except CheckpointError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            n_errors += 1
        else:
            assert_same(found, values)
    assert n_errors > 40


def test_a_changed_value_is_an_error_that_names_it(filled):
    path, values = filled
    before = path.read_bytes()
    for old, new in ((b'"score": 0.0', b'"score": 1.0'), (b"data/0", b"data/1")):
        damaged = before.replace(old, new, 1)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"value of '.*is damaged, its check"):
            FileStore(path.parent)
        assert path.read_bytes() == damaged != before
    path.write_bytes(before)
    assert_same(read(path.parent, "key:3"), values["key:3"])


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_a_truncated_database_is_an_error(filled, share):
    path, _ = filled
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"db' (can't be read|is damaged)"):
        FileStore(path.parent)
    assert len(path.read_bytes()) == int(share * len(content))


def test_values_before_damage_of_the_log_are_kept(store):
    for number in range(4):
        store.put(f"key:{number}", number)
    folder = killed(store)
    log = folder / f"{DATABASE}-wal"
    log.write_bytes(log.read_bytes()[:-1000])
    with closing(FileStore(folder)) as again:
        assert [again.get(f"key:{number}") for number in range(4)] == [0, 1, 2, None]


def test_a_full_disk_is_an_error_and_keeps_earlier_values(store):
    store.put("key", 1)
    (n_pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {n_pages + 1}")
    for key in ("key", "other"):
        with pytest.raises(
            CheckpointError, match=r"can't be written, .*full: earlier results are kept"
        ):
            store.put(key, LARGE)
    assert store.get("key") == read(killed(store), "key") == 1


# Foreign files


@pytest.mark.parametrize(
    "content", [b"{}", pickle.dumps([1]), 5_000 * b"x", None], ids=range(4)
)
def test_a_file_that_is_no_database_is_an_error(content, tmp_path):
    path = tmp_path / DATABASE
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"search.db' can't be read, \w+ .*: "):
        FileStore(tmp_path)
    assert content is None or path.read_bytes() == content


@pytest.mark.parametrize(
    "statements",
    [
        "CREATE TABLE other (a)",
        f"{TABLE}; CREATE TRIGGER t AFTER INSERT ON entries BEGIN SELECT 1; END",
        "CREATE VIEW entries AS SELECT 'key', 0, x'33', 1.0, 0",
    ],
)
def test_a_database_of_another_program_is_an_error(statements, tmp_path):
    with closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        database.executescript(statements)
    with pytest.raises(CheckpointError, match=r"other tables: sknas did not write it"):
        FileStore(tmp_path)


@pytest.mark.parametrize(
    ("content", "seconds"),
    [
        ("text", 1.0),
        (None, 1.0),
        (3, 1.0),
        (b"3", "x"),
        (b"3", None),
        (b"3", float("inf")),
        (b"3", -1.0),
    ],
)
def test_rows_of_other_types_are_an_error(filled, content, seconds):
    path, _ = filled
    insert(path.parent, "key", content, seconds)
    with pytest.raises(CheckpointError, match=r"^The value of 'key' in .* is damaged"):
        FileStore(path.parent)


@pytest.mark.parametrize(
    "content",
    [b"{", 9_999 * b"[", pickle.dumps([1]), b"PK\x03\x04" + 40 * b"x"],
    ids=range(4),
)
def test_values_of_another_format_are_refused(filled, content):
    path, _ = filled
    insert(path.parent, "key", content)
    with pytest.raises(CheckpointError, match=r"^The value of 'key' .* is refused, \w"):
        read(path.parent, "key")


def test_values_that_would_run_code_are_refused(filled):
    path, _ = filled
    buffer = BytesIO()
    torch.save({"value": pytest.raises}, buffer)
    insert(path.parent, "key", buffer.getvalue())
    with pytest.raises(CheckpointError, match="is refused, it holds more than tensors"):
        read(path.parent, "key")


@pytest.mark.parametrize(
    "value",
    [
        {CLASS: "Nothing"},
        {CLASS: "Trial", "nothing": 1},
        {CLASS: "tuple"},
        {CLASS: "Architecture", "choices": 3},
        {CLASS: "Trap", "tensor": torch.zeros(2)},
    ],
    ids=lambda value: value[CLASS],
)
def test_unknown_types_of_values_are_an_error(store, value):
    store.put("key", value)
    with pytest.raises(
        CheckpointError, match=r"of 'key' in .* is refused, \w+: .*: sknas did not"
    ):
        store.get("key")
