"""Which estimator of this process ran a search, to tell that two are one model."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from typing import Any

from sknas._validation import warn_user

_owners: dict[tuple[str, int], weakref.ref[Any]] = {}  # of searches that ended


def warn_of_shared_search(
    estimator: Any, fingerprint: Mapping[str, str], seed: int
) -> None:
    """Warn if another estimator without a `random_state` ran this very search."""
    if estimator.checkpoint is None or estimator.random_state is not None:
        return
    owner = _owners.get(_key(fingerprint, seed))
    if owner is not None and owner() is not estimator:
        name = type(estimator).__name__
        warn_user(
            f"checkpoint={str(estimator.checkpoint)!r} holds this search already, as "
            f"another {name} of this process ran it, so both are the same model; give "
            "each its own 'random_state' or 'checkpoint' to search anew."
        )


def note_owner(estimator: Any, fingerprint: Mapping[str, str], seed: int) -> None:
    """Remember who ran a search to its end; the first one stays its owner."""
    if estimator.checkpoint is not None:
        key = _key(fingerprint, seed)
        _owners.setdefault(key, weakref.ref(estimator))


def _key(fingerprint: Mapping[str, str], seed: int) -> tuple[str, int]:
    """Return the key of a search; its seed differs from folder to folder."""
    return json.dumps(dict(fingerprint), sort_keys=True), seed
