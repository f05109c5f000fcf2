"""Values of a store on disk and damaged files."""

import json
import pickle
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sknas._checkpoint.records import CLASS
from sknas._checkpoint.store import LOG, TRUNCATED, FileStore
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


def assert_same(a, b):
    assert repr(a) == repr(b)


@pytest.fixture
def store(tmp_path):
    return FileStore(tmp_path)


def lines(folder):
    return (folder / LOG).read_bytes().splitlines(keepends=True)


def filled(folder, n):
    store = FileStore(folder)
    for number in range(n):
        store.put(f"k{number}", number)
    return store


@pytest.mark.parametrize("name", VALUES)
def test_values_are_read_by_another_store(store, tmp_path, name):
    store.put("key", VALUES[name])
    assert_same(FileStore(tmp_path).get("key"), VALUES[name])
    assert_same(store.get("key"), VALUES[name])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.rand(3, 4, dtype=torch.float64),
        torch.rand(2, 2).to(torch.bfloat16),
        torch.tensor(3),
        torch.rand(100, 100)[7:8],
        torch.arange(6).reshape(2, 3).T,
    ],
    ids=["double", "half", "count", "view", "transposed"],
)
def test_tensors_are_read_bit_for_bit(tmp_path, tensor):
    records = {"Record": Record}
    record = Record("name", tensor, ({"state": tensor},))
    FileStore(tmp_path, records).put("rung:0:1,2", [record])
    (found,) = FileStore(tmp_path, records).get("rung:0:1,2")
    assert found.name == "name"
    assert found.tensor.dtype == tensor.dtype
    assert torch.equal(found.tensor, tensor)
    assert torch.equal(found.parts[0]["state"], tensor)
    (path,) = tmp_path.glob("*.pt")
    assert path.stat().st_size < 3_500  # a view is written without its base


def test_trials_are_read_with_their_arrays(tmp_path):
    predictions = np.array([[0.1, np.nan], [0.3, 0.4]])
    trial = Trial(Proposal(Architecture({})), score=1.0, predictions=predictions)
    FileStore(tmp_path).put("trial:0", trial)
    found = FileStore(tmp_path).get("trial:0")
    np.testing.assert_array_equal(found.predictions, predictions)
    assert found.predictions.dtype == np.float64


def test_later_values_replace_earlier_ones(store, tmp_path):
    store.put("key", torch.zeros(2))
    store.put("key", torch.ones(2))
    assert torch.equal(FileStore(tmp_path).get("key"), torch.ones(2))
    assert len(list(tmp_path.glob("*.pt"))) == 1  # the earlier file is gone
    store.put("key", torch.ones(2))
    assert torch.equal(FileStore(tmp_path).get("key"), torch.ones(2))
    store.put("key", 3)
    assert FileStore(tmp_path).get("key") == 3
    assert not list(tmp_path.glob("*.pt"))


def test_later_value_does_not_replace_values_with_longer_keys(store, tmp_path):
    for value in (0, 1):
        store.put("rung", torch.full((2,), value))
        store.put("rung:1", torch.ones(2))
    store.put("rung", torch.full((2,), 2))
    assert FileStore(tmp_path).get("rung:1") is not None


def test_only_dropped_values_are_removed(store, tmp_path):
    store.put("a", torch.zeros(2))
    store.put("b", torch.ones(2))
    store.drop("a")
    store.drop("never there")
    again = FileStore(tmp_path)
    assert again.get("a") is None
    assert again.get("b") is not None
    assert len(list(tmp_path.glob("*.pt"))) == 1


def test_values_are_dropped_by_the_prefix_of_their_keys(store):
    for key in ("cohort:1:a", "cohort:1:b", "cohort:12:a", "other"):
        store.put(key, torch.zeros(2))
    store.drop("cohort:1")
    found = [store.get(key) is None for key in ("cohort:1:a", "cohort:1:b")]
    assert found == [True, True]
    assert store.get("cohort:12:a") is not None
    assert store.get("other") is not None


@pytest.mark.parametrize(
    "value",
    [
        {CLASS: "Nothing"},
        {CLASS: "Trial", "nothing": 1},
        {CLASS: "tuple"},
        {CLASS: "Architecture", "choices": 3},
    ],
    ids=str,
)
def test_unknown_types_of_values_are_an_error(store, value):
    store._append({"key": "key", "value": value, "seconds": 1.0})
    with pytest.raises(
        CheckpointError, match=r"of 'key' in .* can't be read, \w+: .*; "
    ):
        FileStore(store.folder).get("key")


def test_seconds_are_finite(store):
    store._append({"key": "key", "value": 1, "seconds": float("inf")})
    with pytest.raises(CheckpointError, match=r"Line 1 .* is damaged"):
        FileStore(store.folder)


def test_value_of_an_unknown_key_is_none(store):
    assert store.get("key") is None


def test_null_store_stores_nothing():
    store = NullStore()
    store.put("key", 1)
    store.drop("key")
    assert store.get("key") is None


@pytest.mark.parametrize("n_left", range(1, 12))
def test_truncated_last_line_is_ignored_also_after_later_writes(tmp_path, n_left):
    filled(tmp_path, 3)
    whole = (tmp_path / LOG).read_bytes()
    truncated = whole[: len(whole) - n_left]
    (tmp_path / LOG).write_bytes(truncated)
    is_whole = n_left == 1  # only the line feed is missing
    store = FileStore(tmp_path)
    assert store.get("k1") == 1
    assert store.get("k2") == (2 if is_whole else None)
    store.put("k2", 22)
    again = FileStore(tmp_path)
    assert [again.get(f"k{j}") for j in range(3)] == [0, 1, 22]
    assert (
        (tmp_path / LOG).read_bytes().startswith(truncated)
    )  # the truncated line stays in the file
    assert (TRUNCATED in (tmp_path / LOG).read_bytes()) != is_whole


@pytest.mark.parametrize("damaged", [1, 2, 3])
def test_damage_is_an_error_with_its_line(tmp_path, damaged):
    filled(tmp_path, 3)
    all_lines = lines(tmp_path)
    all_lines[damaged - 1] = all_lines[damaged - 1].replace(b"k", b"q")
    (tmp_path / LOG).write_bytes(b"".join(all_lines))
    before = (tmp_path / LOG).read_bytes()
    with pytest.raises(CheckpointError, match=rf"^Line {damaged} of .* is damaged"):
        FileStore(tmp_path)
    assert (tmp_path / LOG).read_bytes() == before


def test_a_damaged_file_is_an_error(store, tmp_path):
    store.put("key", torch.zeros(100))
    (path,) = tmp_path.glob("*.pt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"file .* is damaged"):
        FileStore(tmp_path).get("key")


def test_a_missing_file_is_an_error_unless_it_was_dropped(store, tmp_path):
    for key in ("a", "b"):
        store.put(key, torch.ones(3) if key == "a" else torch.zeros(3))
    store.drop("b")
    store.drop("b")
    assert (tmp_path / LOG).read_text().count('"dropped"') == 1
    again = FileStore(tmp_path)
    assert again.get("b") is None
    again.put("b", torch.zeros(3))
    assert torch.equal(FileStore(tmp_path).get("b"), torch.zeros(3))
    (file,) = tmp_path.glob("a-*.pt")
    file.unlink()
    for one in (store, again, FileStore(tmp_path)):
        with pytest.raises(
            CheckpointError, match=r"a-\w+.pt' of a checkpoint can't be"
        ):
            one.get("a")


def test_partial_files_of_a_killed_process_are_removed(store, tmp_path):
    store.put("a", torch.ones(3))
    (kept,) = tmp_path.glob("*.pt")
    for name in ("b-00000000.pt", "c-00000000.pt.part"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "mine.txt").write_text("of the user")
    assert torch.equal(FileStore(tmp_path).get("a"), torch.ones(3))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {kept.name, LOG, "mine.txt"}


def test_files_that_would_run_code_are_refused(store, tmp_path):
    # An untrusted checkpoint with correct checksums.
    store.put("key", torch.zeros(2))
    (path,) = tmp_path.glob("*.pt")
    path.unlink()
    line = next(iter(store._entries.values()))
    torch.save({"value": pytest.raises}, path)
    line["crc"] = zlib.crc32(path.read_bytes())
    with pytest.raises(CheckpointError, match="it holds more than tensors"):
        store.get("key")


@pytest.mark.parametrize(
    "content", [b"", b"{}", pickle.dumps([1]), b"PK\x03\x04" + 40 * b"x"], ids=len
)
def test_foreign_files_are_refused(store, content):
    store.put("key", torch.zeros(2))
    line = next(iter(store._entries.values()))
    (store.folder / line["file"]).write_bytes(content)
    line["crc"] = zlib.crc32(content)
    with pytest.raises(CheckpointError, match=rf"file .*{line['file']}.* is refused"):
        store.get("key")


def test_unknown_records_are_refused(store):
    store.put("key", {"$": "Trap", "tensor": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"is refused, KeyError: 'Trap'"):
        store.get("key")


OTHER_LINES = ["", "no json", "[]", "3", "{}", '{"key": "a"}', 9_999 * "["]
OTHER_LINES += [
    '{"key": [], "seconds": 0}',
    '{"key": "a", "seconds": "x"}',
    '{"key": "a", "seconds": 0, "file": 3}',
]


@pytest.mark.parametrize("text", OTHER_LINES, ids=range(len(OTHER_LINES)))
def test_foreign_lines_are_an_error(tmp_path, text):
    crc = f"{zlib.crc32(text.encode()):08x}"
    (tmp_path / LOG).write_text(f"{crc} {text}\n")
    with pytest.raises(CheckpointError, match=r"^Line 1 of .* is damaged"):
        FileStore(tmp_path)


def test_files_outside_of_the_folder_are_not_touched(store, tmp_path):
    # An untrusted checkpoint with correct checksums.
    other = tmp_path / "other.pt"
    other.write_bytes(b"precious")
    folder = tmp_path / "own"
    folder.mkdir()
    line = {"key": "cohort:0:0", "file": str(other), "crc": 0, "seconds": 0.0}
    text = json.dumps(line)
    crc = f"{zlib.crc32(text.encode()):08x}"
    (folder / LOG).write_text(f"{crc} {text}\n")
    with pytest.raises(CheckpointError, match=r"^Line 1 .* names a file outside"):
        FileStore(folder)
    assert other.read_bytes() == b"precious"


def test_a_full_disk_is_an_error(store, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sknas._checkpoint.store.os.fsync", full)
    with pytest.raises(CheckpointError, match=r"can't be written, .*No space left"):
        store.put("key", 1)


def test_seconds_of_earlier_runs_are_added(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("sknas._checkpoint.store.time.monotonic", lambda: now[0])
    first = FileStore(tmp_path)
    now[0] = 107.0
    first.put("a", 1)
    assert first.seconds == 7.0
    now[0] = 1000.0  # the time between two runs
    second = FileStore(tmp_path)
    assert second.seconds == 7.0
    now[0] = 1003.0
    second.put("b", 1)
    assert FileStore(tmp_path).seconds == 10.0
