"""The folder of a checkpoint: one subfolder per search, with a header and a lock."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sknas._checkpoint.fingerprint import DATA, PREVIOUS, differences
from sknas._checkpoint.store import PARSE_ERRORS, FileStore
from sknas._problem import NullStore, Store
from sknas._validation import reject, warn_user
from sknas.exceptions import CheckpointError

HEADER, LOCK = "search.json", "lock"
_warned: set[tuple[str, ...]] = set()  # subjects of the warnings issued so far


def find_folder(caller_name: str, given: Any) -> Path | None:
    """Return the folder of a checkpoint, absolute and with "~" expanded.

    Raises
    ------
    InvalidParameterError
        If it is no path, is empty, or names an environment variable.
    """
    if given is None:
        return None
    refuse = partial(reject, caller_name, "checkpoint", given)
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str) or not text:
        refuse("a folder or None")
    if os.path.expandvars(text) != text:
        advice = "give os.path.expandvars(checkpoint)"
        refuse("a folder without environment variables", advice)
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        advice = f"give {'./' + text!r} for a folder of this name"
        refuse("a folder of a known user", advice)
    return Path(expanded).absolute()


@contextmanager
def open_checkpoint(
    caller_name: str,
    folder: Path | None,
    fingerprint: Mapping[str, str],
    records: Sequence[type] = (),
) -> Iterator[Store]:
    """Open the store of a search, in a subfolder named after its fingerprint.

    Parameters
    ----------
    caller_name : str
        Name of the estimator, for messages.
    folder : Path or None
        Where searches are kept, as of `find_folder`; None keeps nothing.
    fingerprint : mapping of str to str
        Everything that the trials depend on, as text.
    records : sequence of type, default=()
        Dataclasses that the trainer keeps.

    Raises
    ------
    InvalidParameterError
        If the folder can't be made.
    CheckpointError
        If a living process uses the same search, or a file is damaged.
    """
    if folder is None:
        yield NullStore()
        return
    text = json.dumps(dict(fingerprint), sort_keys=True)
    path = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        allowed = "a folder that can be made and written to"
        reject(caller_name, "checkpoint", str(folder), allowed, str(error))
    # The operating system releases the lock of a process that has ended.
    lock = FileLock(path / LOCK)
    try:
        acquired = lock.acquire(timeout=0)
    except Timeout:
        raise CheckpointError(
            f"Another process is running the search in {str(path)!r}, or another "
            f"thread of this one; wait for its end, or give {caller_name} another "
            "'checkpoint' or 'random_state'."
        ) from None
    with acquired:
        if not (path / HEADER).exists():
            _warn_of_new_search(folder, path, fingerprint)
            partial = path / f"{HEADER}.part"
            content = json.dumps(dict(fingerprint), indent=1)
            partial.write_text(content, encoding="utf-8")
            os.replace(partial, path / HEADER)
        with closing(FileStore(path, {cls.__name__: cls for cls in records})) as store:
            yield store


def _warn_of_new_search(
    folder: Path, path: Path, fingerprint: Mapping[str, str]
) -> None:
    """Warn once how a new search differs from the most similar one in the folder."""
    headers = [p for p in sorted(folder.glob(f"*/{HEADER}")) if p.parent != path]
    searches = [s for s in map(_read_header, headers) if s is not None]
    if not searches:
        return
    names = min((differences(fingerprint, other) for other in searches), key=len)
    # A warm start is expected to differ in its previous search alone.
    if (str(folder), *names) in _warned or names == [PREVIOUS]:
        return
    _warned.add((str(folder), *names))
    warn_user(
        f"checkpoint={str(folder)!r} holds no search of this data with these "
        f"parameters, so a new one starts; of the {len(searches)} there, the most "
        f"similar one differs in {', '.join(names)}."
    )


def _read_header(path: Path) -> dict[str, str] | None:
    """Return the fingerprint in a header; None, with a warning, if there is none."""
    try:
        header = dict(json.loads(path.read_text(encoding="utf-8")))
        if {*DATA, "versions"} <= header.keys():
            return header
        reason = "it is not the header of a search"
    except (OSError, *PARSE_ERRORS) as error:
        reason = f"{type(error).__name__}: {error}"
    if (str(path),) not in _warned:
        _warned.add((str(path),))
        warn_user(
            f"The file {str(path)!r} of a checkpoint is ignored, since it is damaged "
            f"or sknas did not write it ({reason}); nothing is deleted."
        )
    return None
