"""The estimator that a scorer is called with: it returns stored predictions.

A search has the predictions of its networks for the validation rows, and scores them
many times. The estimator looks rows up by content, as `predict` reads them, and refuses
others: a stored answer for rows that were changed would be wrong without a word.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zlib
from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import _safe_indexing

from sknas._data.containers import read_container, set_data_tags
from sknas._data.deduplicate import hash_rows
from sknas._data.reader import RawRows, Reader

OTHER_ROWS = (
    "it predicts rows that it was not given, and a search has predictions of the "
    "validation rows only: score rows of X unchanged, in any order or in part, and "
    "try changed rows, as in a permutation importance, after fit"
)
NEW_FIT = (
    "it clones or fits the estimator, and a search has stored predictions only: score "
    "the predictions of the estimator it is given, and cross-validate after fit"
)


class RefusedError(ValueError):
    """Raised if a scorer asks for what stored predictions can't answer."""


@dataclass(eq=False)
class UserRows:
    """Rows of X as the user gave them, for scorers that read X.

    Parameters
    ----------
    X : array-like or data frame of N rows
        In the container and with the dtypes of the user.
    hashes : ndarray of shape (N,), default=()
        A hash of each row as `reader` reads it.
    reader : Reader or None, default=None
        Reads rows; None if nothing reads X, so that it need not be recognised.
    attributes : dict of str to object, default={}
        What the estimator that searches has learnt about X, such as `n_features_in_`.

    Attributes
    ----------
    refusal : str
        Why the latest scorer was refused, empty if it was not.
    """

    X: Any
    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    reader: Reader | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    refusal: str = ""

    def __post_init__(self) -> None:
        self._digest: Any = None
        self._digests: dict[bytes, Any] = {}  # of the rows of folds, taken many times

    def take(self, rows: np.ndarray) -> UserRows:
        """Return some of the rows, to be given to a scorer."""
        part = replace(self, X=_safe_indexing(self.X, rows), hashes=self.hashes[rows])
        if self.reader is not None:
            key = _hash(rows.tobytes())
            if key not in self._digests:
                self._digests[key] = _digest(part.X)
            part._digest = self._digests[key]
        return part

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without digests: another process has other objects."""
        return vars(self) | {"_digest": None, "_digests": {}}

    def find(self, estimator: BaseEstimator, X: Any) -> slice | np.ndarray:
        """Return where the rows of X are among these rows.

        Raises
        ------
        RefusedError
            If they are not.
        """
        # Scorers of scikit-learn pass X on, others might have changed it in place.
        if X is self.X and (self.reader is None or self._is_unchanged()):
            return slice(None)
        if self.reader is None:
            self.refuse(OTHER_ROWS)
        X = self.reader.check(estimator, read_container("X", X), reset=False)
        raw = self.reader.read(X)
        hashes = row_hashes(raw)
        if np.array_equal(hashes, self.hashes):
            return slice(None)
        order = np.argsort(self.hashes, kind="stable")
        found = np.searchsorted(self.hashes, hashes, sorter=order)
        indices = order[np.minimum(found, len(order) - 1)]
        if not np.array_equal(self.hashes[indices], hashes):
            self.refuse(OTHER_ROWS)
        return indices

    def refuse(self, reason: str) -> NoReturn:
        """Raise an error, and keep its reason in case the scorer catches it."""
        self.refusal = reason
        raise RefusedError(reason)

    def _is_unchanged(self) -> bool:
        return self._digest is not None and _digest(self.X) == self._digest


def row_hashes(rows: RawRows) -> np.ndarray:
    """Return a hash of each row (N,), the same in single and in double precision."""
    columns = []
    for key in rows.keys:
        if key.dtype.kind == "f":
            key = key.astype(np.float64)
            key[np.isnan(key)] = np.nan  # NaNs may differ in their bits
        columns.append(key)
    return hash_rows(columns, len(rows))


class _CellPickler(pickle.Pickler):
    """Writes the cells of arrays of objects as addresses.

    Cells are never changed in place, and the rows of the user keep them alive.
    """

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is np.ndarray and obj.dtype == object:
            return tuple, ((obj.shape, obj.tobytes()),)
        return NotImplemented


def _digest(X: Any) -> Any:
    """Return a digest of an object, None if there is none."""
    buffers: list[pickle.PickleBuffer] = []
    rest = io.BytesIO()
    try:
        _CellPickler(rest, 5, buffer_callback=buffers.append).dump(X)
    except Exception:  # attributes of a container may be any object
        return None
    return _hash(rest.getvalue()), [zlib.crc32(buffer.raw()) for buffer in buffers]


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


class StoredPredictor(BaseEstimator, ABC):
    """A fitted estimator that returns stored predictions.

    It has the methods and the attributes of the estimator that searches, but not its
    parameters.
    """

    public_name: ClassVar[str]  # of the estimator that searches, for messages
    _predictions: np.ndarray
    _rows: UserRows

    @classmethod
    def of(cls, predictions: np.ndarray, classes: Any, rows: UserRows) -> Self:
        """Return an estimator with predictions (N, C) for N rows."""
        estimator = cls()
        estimator._predictions, estimator._rows = predictions, rows
        estimator.__dict__.update(rows.attributes)
        if classes is not None:
            estimator.__dict__["classes_"] = copy(classes)
        return estimator

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_clone__(self) -> NoReturn:
        self._rows.refuse(NEW_FIT)

    def fit(self, X: Any, y: Any, **options: Any) -> NoReturn:
        """Refuse to be fitted."""
        self._rows.refuse(NEW_FIT)

    @abstractmethod
    def predict(self, X: Any) -> np.ndarray:
        """Return the stored labels or values of rows."""

    def _of_rows(self, X: Any) -> np.ndarray:
        """Return the predictions of rows as a copy, which the scorer may change."""
        return self._predictions[self._rows.find(self, X)].copy()

    def __sklearn_tags__(self) -> Any:
        return set_data_tags(super().__sklearn_tags__())


class StoredClassifier(ClassifierMixin, StoredPredictor):
    """A classifier that returns stored predictions."""

    public_name = "NASClassifier"
    classes_: Any

    def predict(self, X: Any) -> np.ndarray:
        """Return labels (N,), or 0 or 1 for each label (N, C)."""
        return labels(self._of_rows(X), self.classes_)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities (N, C) in double precision."""
        probabilities = self._of_rows(X).astype(np.float64)
        if isinstance(self.classes_, list):  # one probability per label
            return probabilities
        # Rows must sum to 1 in double precision, too.
        return probabilities / probabilities.sum(axis=1, keepdims=True)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class StoredRegressor(RegressorMixin, StoredPredictor):
    """A regressor that returns stored predictions."""

    public_name = "NASRegressor"

    def predict(self, X: Any) -> np.ndarray:
        """Return values (N,) or (N, C)."""
        values = self._of_rows(X)
        return values[:, 0] if values.shape[1] == 1 else values


def labels(probabilities: np.ndarray, classes: Any) -> np.ndarray:
    """Return the most probable class of each row, or 0 or 1 for each label."""
    if isinstance(classes, list):
        return (probabilities > 0.5).astype(int)
    return classes[probabilities.argmax(axis=1)]
