"""Classes that folds do not train or validate, and what a user is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from sknas._data.coverage import Blocks, class_codes
from sknas._data.prepare import Data
from sknas._data.target import TargetReader
from sknas._problem import Fold, Rows
from sknas._validation import reject, short_repr, warn_user

MIN_HOLDOUT_ROWS = 5  # rows of a class of which a hold-out validates its share
MAX_NAMED = 3  # classes that a message names
MAX_RARE_SHARE = 0.05  # share of the rows below which a class may never be predicted


@dataclass(frozen=True, eq=False)
class RareClasses:
    """The classes of a target, and which of them the folds train and validate.

    Parameters
    ----------
    names : list of str of length K
        Each class, or value of a label, with its number of rows.
    counts : ndarray of shape (K,)
        Number of rows, by their weights.
    n_blocks : ndarray of shape (K,)
        Number of rows, or groups, that can be on different sides of a split.
    trained, validated : ndarray of bool of shape (n_folds, K)
        True if a fold trains or validates a class.
    n_valid : ndarray of shape (n_folds,)
        Number of rows that each fold validates.
    is_custom : bool
        True if the user gave the folds.
    is_grouped : bool
        True if the user gave groups, of which folds are made.
    is_left_out : ndarray of bool of shape (K,)
        True for a class with rows to which `class_weight` gives no weight.
    """

    names: list[str]
    counts: np.ndarray
    n_blocks: np.ndarray
    trained: np.ndarray
    validated: np.ndarray
    n_valid: np.ndarray
    is_custom: bool
    is_grouped: bool
    is_left_out: np.ndarray

    @classmethod
    def of(cls, folds: Sequence[Fold], data: Data, target: TargetReader) -> RareClasses:
        """Count the rows and folds of each class of a classifier."""
        labels = _labels(target)

        def count(y: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
            codes = class_codes(y)
            if weight is not None:
                weight = np.repeat(weight, codes.shape[1])
            return np.bincount(codes.ravel(), weight, minlength=len(labels))

        def has(rows: Rows) -> np.ndarray:
            return count(rows.y[rows.weight > 0]) > 0  # a class weight may be 0

        counts = count(data.y, data.weight)
        n_blocks = count(data.y, np.maximum(data.weight, 1) // 1)
        names = [
            f"{label} ({_counted(n, 'row')})"
            for label, n in zip(labels, counts, strict=True)
        ]
        is_grouped = data.groups is not None and data.splits is None
        if is_grouped:
            n_blocks = Blocks.of(data.y, data.groups).n_blocks
            names = [
                f"{name[:-1]} in {_counted(n, 'group')})"
                for name, n in zip(names, n_blocks, strict=True)
            ]
        return cls(
            names,
            counts,
            n_blocks,
            np.array([has(fold.train) for fold in folds]),
            np.array([has(fold.valid) for fold in folds]),
            np.array([len(fold.valid) for fold in folds]),
            data.splits is not None,
            is_grouped,
            (counts > 0) & (count(data.y, data.loss_weight) == 0),
        )

    @property
    def never_validated(self) -> Any:
        """True for the classes that no fold validates, (K,)."""
        return ~self.validated.any(axis=0)

    def reject_scoring(self, caller_name: str, scoring: Any) -> NoReturn:
        """Raise the error for a score that is undefined without some classes."""
        is_lacking = self.never_validated & ~self.is_left_out
        why, action = "which no fold validates", f"give {self._remedy}, merge classes"
        if not is_lacking.any():
            is_lacking = self.is_left_out
            why, action = "which 'class_weight' leaves out", "give it a weight above 0"
        names = self._list(is_lacking)
        other = "'neg_log_loss'"
        if names.startswith("value"):
            action, other = "drop the label", "'average_precision'"
        allowed = f"defined without {names}, {why}"
        advice = f"{action}, or take another score, such as {other}"
        reject(caller_name, "scoring", scoring, allowed, advice)

    @property
    def _remedy(self) -> str:
        """What folds need to validate each class."""
        if self.is_custom:
            return "other splits"
        return "more groups" if self.is_grouped else "more rows"

    def warn(self) -> None:
        """Warn once of classes that folds leave out, or of which there are few rows."""
        n_folds, n_classes = self.validated.shape
        # A label may be constant: then there is nothing to learn.
        is_there = (self.counts > 0) & ~self.is_left_out
        is_validated = ~self.never_validated
        # A fold of few rows, as of leave-one-out, can't have all classes.
        is_large = self.n_valid >= n_classes
        is_skipped = is_validated & ~self.validated[is_large].all(axis=0)
        least = n_folds if n_folds > 1 else MIN_HOLDOUT_ROWS
        is_few = is_validated & ~is_skipped & (self.n_blocks < least)
        listed = [
            ("no fold validates", is_there & ~is_validated),
            ("some folds do not train", is_there & ~self.trained.all(axis=0)),
            ("some folds do not validate", is_skipped),
        ]
        if is_large.all() and not self.is_custom:
            listed.append(("there are few rows of", is_few))
        parts = [f"{text} {self._list(each)}" for text, each in listed if each.any()]
        if parts:
            advice = self._remedy + " of them" * (not self.is_custom)
            warn_user(
                f"Scores say little about some classes: {'; '.join(parts)}. Give "
                f"{advice}, or merge them with others."
            )

    def warn_if_unlearnt(self, scores: Sequence[float | None], dummy: float) -> None:
        """Warn if all trials score like a model that never predicts a rare class."""
        is_rare = self.counts < MAX_RARE_SHARE * self.counts.sum()
        is_rare &= ~self.never_validated
        values = np.array(scores, dtype=float)
        if len(values) and is_rare.any() and _are_all(values, dummy):
            warn_user(
                f"All trials score {dummy:.3g}, like a model that always predicts the "
                f"most frequent class, and never {self._list(is_rare)}. Take a scoring "
                "of probabilities, such as 'average_precision' or 'neg_log_loss', or "
                "class_weight='balanced'."
            )

    def _list(self, is_named: Any) -> str:
        """Return the names of some classes, those with the fewest rows first."""
        chosen = np.flatnonzero(is_named)
        chosen = chosen[np.argsort(self.counts[chosen], kind="stable")]
        named = [self.names[code] for code in chosen[:MAX_NAMED]]
        n_others = len(chosen) - len(named)
        return ", ".join(named) + (f" and {n_others} more" if n_others else "")


def _labels(target: TargetReader) -> list[str]:
    """Return the name of each class, or of both values of each label."""
    if target.kind_ == "multilabel":
        labels = range(target.n_outputs_)
        return [
            f"value {value} of label {label}" for label in labels for value in (0, 1)
        ]
    return [f"class {short_repr(label)}" for label in target.classes_.tolist()]


def _are_all(values: np.ndarray, value: float) -> bool:
    return bool((np.abs(values - value) < 1e-9).all())


def _counted(count: float, noun: str) -> str:
    """Return a number with its noun, such as "1 row" or "2.5 rows"."""
    return f"{count:.6g} {noun}{'' if count == 1 else 's'}"
