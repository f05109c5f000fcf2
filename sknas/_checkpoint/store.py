"""What a search has done, kept on disk, so that another can go on from it."""

from __future__ import annotations

import json
import math
import os
import re
import time
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sknas._history import Architecture, Proposal, Trial
from sknas._problem import Store
from sknas.exceptions import CheckpointError

LINES = "journal.jsonl"
DROPPED = "dropped"  # key of lines that name what is not needed any more
TORN = b" torn"  # marks a line that was cut off
# What reading a file ends in that is not ours.
FOREIGN = (ValueError, TypeError, LookupError, AttributeError, EOFError, RuntimeError)
TYPE = "$"  # names what a dict stands for, in what is written


class FileStore(Store):
    """Keeps values in a folder: a line each, and a file where there are tensors.

    A line is its CRC-32, a space, and JSON; it is on disk when `put` returns. A line
    that was cut off at the end, as a killed process leaves it, is passed over and its
    value computed again. The file of a value is written before its line, which holds
    the CRC-32 of the file. Reading runs no code: files are read by torch's
    ``weights_only`` form.

    Parameters
    ----------
    folder : Path
        Where it is kept.
    records : mapping of str to type
        Dataclasses that values may hold beside `Trial` and `Proposal`, by name.

    Raises
    ------
    CheckpointError
        If a line in the middle or a file is damaged, or a file would run code.
    """

    def __init__(self, folder: Path, records: Mapping[str, type] | None = None) -> None:
        self.folder = folder
        self.records = {"Trial": Trial, "Proposal": Proposal, **(records or {})}
        self._lines: dict[str, dict[str, Any]] = {}
        self._dropped: set[str] = set()
        self._read()
        self._sweep()
        self._before = self.seconds
        self._started = time.monotonic()

    def get(self, key: str) -> Any:
        line = self._lines.get(key)
        if line is None:
            return None
        if "file" in line:
            return self._read_file(key, line)
        try:
            return self._restored(line["value"])
        except FOREIGN as error:
            raise CheckpointError(
                f"The value of {key!r} in {str(self.folder / LINES)!r} is not read, "
                f"{_why(error)}: sknas did not write it; begin with another folder."
            ) from error

    def _read_file(self, key: str, line: dict[str, Any]) -> Any:
        """The value of a line that names a file, None if it was dropped."""
        path = self.folder / line["file"]
        try:
            content = path.read_bytes()
        except OSError as error:
            if key in self._dropped:
                return None
            raise CheckpointError(
                f"The file {str(path)!r} of a checkpoint can't be read, "
                f"{error.strerror}: restore it, or begin with another folder."
            ) from error
        if zlib.crc32(content) != line["crc"]:
            raise CheckpointError(
                f"The file {str(path)!r} of a checkpoint is damaged: its content is "
                "not what was written; restore it, or begin with another folder."
            )
        try:
            if not content.startswith(b"PK"):  # torch would read it, and warn
                raise UnpicklingError
            packed = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
            return self._restored(packed)
        except UnpicklingError:
            reason = "it holds more than tensors"
        except FOREIGN as error:
            reason = _why(error)
        raise CheckpointError(
            f"The file {str(path)!r} of a checkpoint is not read, {reason}: sknas did "
            "not write it; begin with another folder."
        )

    def put(self, key: str, value: Any) -> None:
        try:
            self._put(key, _packed(value))
        except OSError as error:
            raise CheckpointError(
                f"The checkpoint {str(self.folder)!r} can't be written, {error}: what "
                "was done before is there; make room and call fit again."
            ) from error

    def _put(self, key: str, packed: Any) -> None:
        line: dict[str, Any] = {"key": key}
        if _has_tensors(packed):
            line |= self._write_file(key, packed)
        else:
            line["value"] = packed
        self.seconds = self._before + time.monotonic() - self._started
        self._write_line(line | {"seconds": round(self.seconds, 3)})
        before = self._lines.get(key, {}).get("file")
        if before not in (None, line.get("file")):
            (self.folder / before).unlink(missing_ok=True)
        self._lines[key] = line
        self._dropped.discard(key)

    def drop(self, key: str) -> None:
        held = [other for other, line in self._lines.items() if "file" in line]
        keys = [k for k in held if k == key or k.startswith(f"{key}:")]
        keys = [k for k in keys if k not in self._dropped]
        if not keys:
            return
        # Told first: a file that is only missing is damage.
        self._put(DROPPED, keys)
        self._dropped.update(keys)
        for name in keys:
            (self.folder / self._lines[name]["file"]).unlink(missing_ok=True)

    def _write_file(self, key: str, packed: Any) -> dict[str, Any]:
        buffer = BytesIO()
        torch.save(packed, buffer)
        content = buffer.getvalue()
        crc = zlib.crc32(content)
        # A name of its own: the file of an older line stays what that line says.
        name = f"{re.sub('[^0-9a-z]+', '-', key)[:60]}-{crc:08x}.pt"
        part = self.folder / f"{name}.part"
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # before the line that names it
        os.replace(part, self.folder / name)
        return {"file": name, "crc": crc}

    def _write_line(self, line: dict[str, Any]) -> None:
        text = json.dumps(line)
        with (self.folder / LINES).open("a", encoding="utf-8") as file:
            file.write(f"{zlib.crc32(text.encode()):08x} {text}\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> None:
        """Read all lines; one that was cut off at the end is marked and passed over."""
        path = self.folder / LINES
        content = path.read_bytes() if path.exists() else b""
        *lines, rest = content.split(b"\n")
        if rest:
            # Nothing is deleted: what is there of the line stays.
            is_whole = _checked(rest) is not None
            with path.open("ab") as file:
                file.write(b"\n" if is_whole else TORN + b"\n")
            lines.append(rest if is_whole else rest + TORN)
        for number, text in enumerate(lines, 1):
            line = _checked(text)
            if line is not None:
                if Path(line.get("file", LINES)).name != line.get("file", LINES):
                    raise CheckpointError(
                        f"Line {number} of {str(path)!r} names a file outside of its "
                        "folder, and sknas did not write it; begin with another folder."
                    )
                self._take(line)
                self.seconds = max(self.seconds, line["seconds"])
            elif not text.endswith(TORN):
                raise CheckpointError(
                    f"Line {number} of {str(path)!r} is damaged: it is not what was "
                    "written; restore the file, or begin with another folder."
                )

    def _sweep(self) -> None:
        """Remove files that no line names: a killed process left them half-way."""
        named = {
            line.get("file")
            for key, line in self._lines.items()
            if key not in self._dropped
        }
        for path in self.folder.glob("*.pt*"):
            if path.name not in named:
                path.unlink(missing_ok=True)

    def _take(self, line: dict[str, Any]) -> None:
        """Know what a line says."""
        self._lines[line["key"]] = line
        self._dropped.discard(line["key"])
        if line["key"] == DROPPED and isinstance(line.get("value"), list):
            self._dropped.update(map(str, line["value"]))

    def _restored(self, packed: Any) -> Any:
        """A value from what `_packed` made of it."""
        if isinstance(packed, list):
            return [self._restored(part) for part in packed]
        if not isinstance(packed, dict):
            return packed
        name = packed.get(TYPE)
        if name is None:
            return {key: self._restored(part) for key, part in packed.items()}
        if name == "array":
            return packed["tensor"].numpy()
        if name == "tuple":
            return tuple(self._restored(part) for part in packed["parts"])
        if name == "Architecture":
            return Architecture(packed["choices"])
        told = {key: self._restored(part) for key, part in packed.items()}
        del told[TYPE]
        return self.records[name](**told)


def _why(error: Exception) -> str:
    """The first line of what an error says."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _checked(text: bytes) -> dict[str, Any] | None:
    """A line's content, None if it is not what was written."""
    crc, _, content = text.partition(b" ")
    if crc != f"{zlib.crc32(content):08x}".encode():
        return None
    try:
        line = json.loads(content)
        is_ours = isinstance(line["key"], str) and 0 <= line["seconds"] < math.inf
        return line if is_ours and isinstance(line.get("file", ""), str) else None
    except FOREIGN:
        return None


def _packed(value: Any) -> Any:
    """A value in dicts, lists, numbers, words and tensors, without its classes."""
    if isinstance(value, Tensor):
        is_view = value.untyped_storage().nbytes() > value.nbytes
        return value.detach().clone() if is_view else value.detach()
    if isinstance(value, np.ndarray):
        return {TYPE: "array", "tensor": torch.from_numpy(np.ascontiguousarray(value))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Architecture):
        return {TYPE: "Architecture", "choices": dict(value)}
    if is_dataclass(value):
        told = {f.name: _packed(getattr(value, f.name)) for f in fields(value)}
        return {TYPE: type(value).__name__, **told}
    if isinstance(value, Mapping):
        return {str(key): _packed(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return {TYPE: "tuple", "parts": [_packed(part) for part in value]}
    if isinstance(value, list):
        return [_packed(part) for part in value]
    return value


def _has_tensors(packed: Any) -> bool:
    if isinstance(packed, dict):
        return any(_has_tensors(part) for part in packed.values())
    if isinstance(packed, list):
        return any(_has_tensors(part) for part in packed)
    return isinstance(packed, Tensor)
