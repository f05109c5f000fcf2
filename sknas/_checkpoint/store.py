"""The format of a checkpoint on disk: a store in a folder, as a log and files.

Other parts of the format stand in `folder` (names, header and lock), `fingerprint` (the
header), `keys` (names of the values) and `records` (values as plain data).
"""

from __future__ import annotations

import json
import math
import os
import re
import time
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from sknas._checkpoint.keys import DROPPED
from sknas._checkpoint.records import has_tensors, pack, unpack
from sknas._history import Proposal, Trial
from sknas._problem import Store
from sknas.exceptions import CheckpointError

LOG = "journal.jsonl"
TRUNCATED = b" truncated"  # marks a line that a killed process did not finish
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
    """Keeps values in a folder: entries of a log, and a file per value with tensors.

    A line of the log is a CRC-32, a space, and an entry as JSON; it is on disk when
    `put` returns. A last line that is truncated is skipped, and its value computed
    again. The file of a value is written before the entry, which holds its CRC-32.
    Reading runs no code: files are in torch's ``weights_only`` form.

    Parameters
    ----------
    folder : Path
        Where values are kept.
    records : mapping of str to type
        Dataclasses by name that values may hold, besides `Trial` and `Proposal`.

    Raises
    ------
    CheckpointError
        If a line that is not the last or a file is damaged, or a file would run code.
    """

    def __init__(self, folder: Path, records: Mapping[str, type] | None = None) -> None:
        self.folder = folder
        self.records = {"Trial": Trial, "Proposal": Proposal, **(records or {})}
        self._entries: dict[str, dict[str, Any]] = {}
        self._read_log()
        self._remove_orphans()
        self._earlier_seconds = self.seconds
        self._started = time.monotonic()

    def get(self, key: str) -> Any:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if "file" in entry:
            return self._read_file(entry)
        try:
            return unpack(entry["value"], self.records)
        except PARSE_ERRORS as error:
            where = f"The value of {key!r} in {str(self.folder / LOG)!r}"
            raise _foreign(f"{where} can't be read, {_first_line(error)}") from error

    def _read_file(self, entry: dict[str, Any]) -> Any:
        path = self.folder / entry["file"]
        name = f"The file {str(path)!r} of a checkpoint"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise _damaged(f"{name} can't be read, {error.strerror}") from error
        if zlib.crc32(content) != entry["crc"]:
            raise _damaged(f"{name} is damaged, its checksum has changed")
        try:
            if not content.startswith(b"PK"):  # torch would read it with a warning
                raise UnpicklingError
            packed = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
            return unpack(packed, self.records)
        except UnpicklingError:
            reason = "it holds more than tensors"
        except PARSE_ERRORS as error:
            reason = _first_line(error)
        raise _foreign(f"{name} is refused, {reason}")

    def put(self, key: str, value: Any) -> None:
        packed = pack(value)
        entry: dict[str, Any] = {"key": key}
        try:
            if has_tensors(packed):
                entry |= self._write_file(key, packed)
            else:
                entry["value"] = packed
            self.seconds = self._earlier_seconds + time.monotonic() - self._started
            self._append(entry | {"seconds": round(self.seconds, 3)})
            old_file = self._entries.get(key, {}).get("file")
            if old_file not in (None, entry.get("file")):
                (self.folder / old_file).unlink(missing_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"The checkpoint {str(self.folder)!r} can't be written, {error}: "
                "earlier results are kept; free some space and call fit again."
            ) from error
        self._entries[key] = entry

    def drop(self, key: str) -> None:
        keys = [
            name
            for name, entry in self._entries.items()
            if (name == key or name.startswith(f"{key}:")) and "file" in entry
        ]
        if not keys:
            return
        # Log first: a file that is missing without an entry counts as damage.
        self.put(DROPPED, keys)
        for name in keys:
            (self.folder / self._entries.pop(name)["file"]).unlink(missing_ok=True)

    def _write_file(self, key: str, packed: Any) -> dict[str, Any]:
        buffer = BytesIO()
        torch.save(packed, buffer)
        content = buffer.getvalue()
        crc = zlib.crc32(content)
        # The name is new, so that the file of an earlier entry stays intact.
        name = f"{re.sub('[^0-9a-z]+', '-', key)[:60]}-{crc:08x}.pt"
        partial = self.folder / f"{name}.part"
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.folder / name)
        return {"file": name, "crc": crc}

    def _append(self, entry: dict[str, Any]) -> None:
        text = json.dumps(entry)
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(f"{zlib.crc32(text.encode()):08x} {text}\n")
            file.flush()
            os.fsync(file.fileno())

    def _read_log(self) -> None:
        """Read all entries; mark and skip a last line that is truncated."""
        path = self.folder / LOG
        content = path.read_bytes() if path.exists() else b""
        *lines, rest = content.split(b"\n")
        if rest:
            # Nothing is deleted: the rest of the line stays.
            is_whole = _parse(rest) is not None
            with path.open("ab") as file:
                file.write(b"\n" if is_whole else TRUNCATED + b"\n")
            lines.append(rest if is_whole else rest + TRUNCATED)
        for number, line in enumerate(lines, 1):
            entry = _parse(line)
            if entry is not None:
                if Path(entry.get("file", LOG)).name != entry.get("file", LOG):
                    where = f"Line {number} of {str(path)!r}"
                    raise _foreign(f"{where} names a file outside of its folder")
                self._apply(entry)
            elif not line.endswith(TRUNCATED):
                where = f"Line {number} of {str(path)!r}"
                raise _damaged(f"{where} is damaged, its checksum has changed")

    def _apply(self, entry: dict[str, Any]) -> None:
        """Update the state of the store with an entry of the log."""
        key = entry["key"]
        self.seconds = max(self.seconds, entry["seconds"])
        self._entries[key] = entry
        if key == DROPPED and isinstance(entry.get("value"), list):
            for name in map(str, entry["value"]):
                self._entries.pop(name, None)

    def _remove_orphans(self) -> None:
        """Remove files without an entry, which a killed process left."""
        named = {entry.get("file") for entry in self._entries.values()}
        for path in self.folder.glob("*.pt*"):
            if path.name not in named:
                path.unlink(missing_ok=True)


def _damaged(what: str) -> CheckpointError:
    return CheckpointError(f"{what}: restore the file, or use another folder.")


def _foreign(what: str) -> CheckpointError:
    return CheckpointError(f"{what}: sknas did not write it; use another folder.")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line, None if it is damaged or not of this format."""
    crc, _, content = line.partition(b" ")
    if crc != f"{zlib.crc32(content):08x}".encode():
        return None
    try:
        entry = json.loads(content)
        is_entry = isinstance(entry["key"], str) and 0 <= entry["seconds"] < math.inf
        return entry if is_entry and isinstance(entry.get("file", ""), str) else None
    except PARSE_ERRORS:
        return None
