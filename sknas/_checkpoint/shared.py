"""Warns of two estimators of this process that are one search, and thus one model."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Mapping
from typing import Any

from sknas._validation import warn_user

MAX_GONE = 100  # searches of estimators that are gone: a cell may be run again
_estimators: dict[tuple[str, int], weakref.ref[Any]] = {}  # by the search they ended


def warn_of_shared_search(
    estimator: Any, fingerprint: Mapping[str, str], seed: int
) -> None:
    """Warn if another estimator without a `random_state` ran this very search."""
    if estimator.checkpoint is None or estimator.random_state is not None:
        return
    first = _estimators.get(_key(fingerprint, seed))
    if first is not None and first() is not estimator:
        name = type(estimator).__name__
        warn_user(
            f"checkpoint={str(estimator.checkpoint)!r} holds this search already, as "
            f"another {name} of this process ran it, so both are the same model; give "
            "each its own 'random_state' or 'checkpoint' to search anew."
        )


def register_search(estimator: Any, fingerprint: Mapping[str, str], seed: int) -> None:
    """Remember which estimator ran a search to its end, the first while it exists."""
    if estimator.checkpoint is not None:
        key = _key(fingerprint, seed)
        if key not in _estimators or _estimators[key]() is None:
            _estimators[key] = weakref.ref(estimator)
        gone = [key for key, first in _estimators.items() if first() is None]
        for key in gone[:-MAX_GONE]:
            _estimators.pop(key, None)  # another thread may have done so


def _key(fingerprint: Mapping[str, str], seed: int) -> tuple[str, int]:
    """Return the key of a search; its seed differs from folder to folder."""
    text = json.dumps(dict(fingerprint), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest(), seed
