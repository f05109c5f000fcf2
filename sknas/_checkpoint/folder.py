"""A folder in which searches are kept, and how one finds its own there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sknas._checkpoint.fingerprint import DATA, differences
from sknas._checkpoint.store import FOREIGN, FileStore
from sknas._problem import NullStore, Store
from sknas._validation import reject, warn_user
from sknas.exceptions import CheckpointError

HEADER, LOCK = "search.json", "lock"
_warned: set[tuple[str, ...]] = set()  # of what, in this process


def open_checkpoint(
    stack: ExitStack,
    caller_name: str,
    folder: Any,
    parts: Mapping[str, str],
    records: Sequence[type] = (),
) -> Store:
    """The journal of a search, in a subfolder named after what it depends on.

    Parameters
    ----------
    stack : ExitStack
        Frees the search for other processes in the end.
    owner : str
        Name of the estimator, for messages.
    folder : str, Path or None
        Where searches are kept; None keeps nothing.
    parts : mapping of str to str
        All that a search depends on, as text: the name of the subfolder is a digest.
    records : sequence of type, default=()
        Dataclasses of a trainer that are kept.

    Raises
    ------
    CheckpointError
        If a living process uses the same search, or what it wrote is damaged.
    """
    if folder is None:
        return NullStore()
    name = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    own = Path(folder) / name
    try:
        own.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # no name of a folder has a zero byte
        allowed = "a folder that can be made and written to"
        reject(caller_name, "checkpoint", str(folder), allowed, str(error))
    # The system frees the lock of a process that has ended, however it did.
    lock = FileLock(own / LOCK)
    try:
        stack.enter_context(lock.acquire(timeout=0))
    except Timeout:
        raise CheckpointError(
            f"The search in {str(own)!r} is under way in another process; wait for "
            f"its end, or give {caller_name} another 'checkpoint'."
        ) from None
    if not (own / HEADER).exists():
        _warn_of_others(Path(folder), own, parts)
        _write_header(own, parts)
    return FileStore(own, {cls.__name__: cls for cls in records})


def _write_header(own: Path, parts: Mapping[str, str]) -> None:
    part = own / f"{HEADER}.part"
    part.write_text(json.dumps(dict(parts), indent=1), encoding="utf-8")
    os.replace(part, own / HEADER)


def _warn_of_others(folder: Path, own: Path, parts: Mapping[str, str]) -> None:
    """Say once in what the searches that are there differ from a new one."""
    paths = [path for path in sorted(folder.glob(f"*/{HEADER}")) if path.parent != own]
    headers = [_read_header(path) for path in paths]
    found = [header for header in headers if header is not None]
    if not found:
        return
    nearest = min((differences(parts, other) for other in found), key=len)
    told = (str(folder), *nearest)
    # One that goes on from another differs in that alone, as it should.
    if told in _warned or nearest == ["begun_from"]:
        return
    _warned.add(told)
    warn_user(
        f"checkpoint={str(folder)!r} holds no search of this data with these "
        f"parameters, so a new one is begun; of the {len(found)} there, the nearest "
        f"differs in {', '.join(nearest)}."
    )


def _read_header(path: Path) -> dict[str, str] | None:
    """What a search depends on; None, with a warning, where that is not told."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if {*DATA, "versions"} <= dict(told).keys():
            return dict(told)
        reason = "it does not tell of the data of a search"
    except (OSError, *FOREIGN) as error:
        reason = f"{type(error).__name__}: {error}"
    if (str(path),) not in _warned:
        _warned.add((str(path),))
        warn_user(
            f"The file {str(path)!r} of a checkpoint is passed over, since it is "
            f"damaged or sknas did not write it ({reason}); nothing is deleted."
        )
    return None
