"""The format of a checkpoint on disk: a store in a database of SQLite.

Other parts of the format stand in `folder` (names, header and lock), `fingerprint` (the
header), `keys` (names of the values) and `records` (values as plain data).
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from sknas._checkpoint.records import has_tensors, pack, unpack
from sknas._history import Proposal, Trial
from sknas._problem import Store
from sknas.exceptions import CheckpointError

DATABASE = "search.db"
TABLE = (
    "CREATE TABLE entries (key TEXT, part INTEGER, content BLOB, seconds REAL, "
    "checksum INTEGER, PRIMARY KEY (key, part))"
)
NEW_DATABASE = f"""
PRAGMA page_size = 65536;  -- large values are written in a third of the time
PRAGMA auto_vacuum = FULL;  -- the file shrinks when values are deleted
PRAGMA journal_mode = WAL;  -- waits for the disk once per transaction, not four times
{TABLE};
"""
SETTINGS = """
PRAGMA locking_mode = EXCLUSIVE;  -- without shared memory: network folders have none
PRAGMA synchronous = FULL;  -- a transaction is on disk when it returns
PRAGMA secure_delete = OFF;  -- some builds of SQLite overwrite what is deleted
"""
PART_SIZE = 2**20  # bytes in a row: SQLite copies rows, and allows at most 1 GB
ZIP = b"PK"  # torch's files begin so, and no JSON does
# Errors that data raise if sknas did not write them.
PARSE_ERRORS = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    EOFError,
    RuntimeError,
)


class FileStore(Store):
    """Keeps values in a database, as JSON or, if they hold tensors, in torch's format.

    A value is on disk when `put` returns, and a killed process leaves no half of one.
    Each row has a checksum, since neither SQLite nor torch detects a changed byte.
    Reading runs no code: tensors are read with ``weights_only``.

    Parameters
    ----------
    folder : Path
        Where the database is; one store at a time may use it.
    records : mapping of str to type
        Dataclasses by name that values may hold, besides `Trial` and `Proposal`.

    Raises
    ------
    CheckpointError
        If the database is damaged, in use or of another program.
    """

    def __init__(self, folder: Path, records: Mapping[str, type] | None = None) -> None:
        self.path = folder / DATABASE
        self.records = {"Trial": Trial, "Proposal": Proposal, **(records or {})}
        self._lock, self._process = threading.Lock(), os.getpid()
        with self._reading():
            self._connection = sqlite3.connect(self.path, check_same_thread=False)
        try:
            self._open()
        except BaseException:  # Ctrl-C, too
            self.close()
            raise
        self._earlier_seconds = self.seconds
        self._started = time.monotonic()

    def close(self) -> None:
        """Close the database, so that another store may use it."""
        if os.getpid() != self._process:
            # In a forked child, SQLite would delete the log that the parent writes,
            # also when Python frees the connection: one more reference prevents both.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
            return
        with self._lock:
            self._connection.close()

    def get(self, key: str) -> Any:
        query = "SELECT * FROM entries WHERE key = ? ORDER BY part"
        with self._reading():
            rows = self._connection.execute(query, (key,)).fetchall()
        for row in rows:
            self._check(*row)
        content = b"".join(row[2] for row in rows)
        if not content:
            return None
        try:
            return unpack(_parse(content), self.records)
        except UnpicklingError:
            reason = "it holds more than tensors"
        except PARSE_ERRORS as error:
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        where = f"The value of {key!r} in {str(self.path)!r}"
        raise _foreign(f"{where} is refused, {reason}")

    def put(self, key: str, value: Any) -> None:
        content = _to_bytes(pack(value))
        self.seconds = self._earlier_seconds + time.monotonic() - self._started
        starts = range(0, len(content), PART_SIZE)
        rows = [(key, i, content[i : i + PART_SIZE], self.seconds) for i in starts]
        with self._writing() as database:
            database.execute("DELETE FROM entries WHERE key = ?", (key,))
            database.executemany(
                "INSERT INTO entries VALUES (?, ?, ?, ?, ?)",
                ((*row, _checksum(*row)) for row in rows),
            )

    def drop(self, key: str) -> None:
        with self._writing() as database:
            database.execute(
                "DELETE FROM entries WHERE key = ? OR substr(key, 1, ?) = ?",
                (key, len(key) + 1, f"{key}:"),
            )

    def _open(self) -> None:
        """Check all that the database holds; create its table if it is new."""
        # No variable holds a cursor: an exception would keep it, and the database open.
        execute = self._connection.execute
        with self._reading():
            self._connection.executescript(SETTINGS)
            problems = execute("PRAGMA integrity_check(1)").fetchall()
            schema = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
            tables = execute(schema).fetchall()
        if problems != [("ok",)]:
            raise _damaged(f"The checkpoint {str(self.path)!r} is damaged")
        if not tables:
            with self._writing() as database:
                database.executescript(NEW_DATABASE)
        elif tables != [(TABLE,)]:
            raise _foreign(f"The checkpoint {str(self.path)!r} has other tables")
        self.seconds = 0.0
        with self._reading():
            for row in execute("SELECT * FROM entries"):
                self._check(*row)
                self.seconds = max(self.seconds, row[3])

    def _check(
        self, key: str, part: int, content: Any, seconds: Any, checksum: Any
    ) -> None:
        has_types = isinstance(content, bytes) and isinstance(seconds, float)
        is_entry = has_types and 0 <= seconds < math.inf
        if not is_entry or _checksum(key, part, content, seconds) != checksum:
            where = f"The value of {key!r} in {str(self.path)!r}"
            raise _damaged(f"{where} is damaged, its checksum has changed")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise CheckpointError(
                f"The checkpoint {str(self.path)!r} can't be read, {error}: end other "
                "programs that use the file, restore it, or use another folder."
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Commit all changes or none."""
        try:
            with self._lock, self._connection:
                yield self._connection
        except sqlite3.Error as error:
            raise CheckpointError(
                f"The checkpoint {str(self.path)!r} can't be written, {error}: "
                "earlier results are kept; free some space and call fit again."
            ) from error


def _to_bytes(packed: Any) -> memoryview:
    if not has_tensors(packed):
        return memoryview(json.dumps(packed).encode())
    buffer = BytesIO()
    torch.save(packed, buffer)
    return memoryview(buffer.getvalue())


def _parse(content: bytes) -> Any:
    if not content.startswith(ZIP):
        return json.loads(content)
    return torch.load(BytesIO(content), map_location="cpu", weights_only=True)


def _checksum(key: str, part: int, content: bytes | memoryview, seconds: float) -> int:
    return zlib.crc32(content, zlib.crc32(f"{key} {part} {seconds}".encode()))


def _damaged(what: str) -> CheckpointError:
    return CheckpointError(f"{what}: restore the file, or use another folder.")


def _foreign(what: str) -> CheckpointError:
    return CheckpointError(f"{what}: sknas did not write it; use another folder.")
