"""Validation rows with which each fold trains and validates each class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array


def class_codes(y: np.ndarray) -> np.ndarray:
    """Return the classes of each row: its own, (N, 1), or one for each label, (N, L).

    Classes 2j and 2j + 1 are the values 0 and 1 of label j.
    """
    if y.ndim == 1:
        return y[:, None]
    return 2 * np.arange(y.shape[1]) + (y > 0)


@dataclass(frozen=True, eq=False)
class Blocks:
    """Rows, or groups of rows that are never split, and the classes of each.

    Parameters
    ----------
    of_row : ndarray of int of shape (N,)
        The block of each row.
    classes : csr_array of shape (B, K)
        1 where a block has a row of a class, else 0.
    """

    of_row: np.ndarray
    classes: csr_array

    @classmethod
    def of(cls, y: np.ndarray, groups: np.ndarray | None) -> Blocks:
        """Return one block per row, or one per group."""
        of_row = np.arange(len(y))
        if groups is not None:
            of_row = np.unique(groups, return_inverse=True)[1]
        codes = class_codes(y)
        n_classes = 2 * y.shape[1] if y.ndim == 2 else y.max() + 1
        pairs = np.repeat(of_row, codes.shape[1]), codes.ravel()
        ones, shape = np.ones(codes.size, dtype=np.int64), (of_row.max() + 1, n_classes)
        classes = csr_array((ones, pairs), shape=shape)
        classes.sum_duplicates()
        classes.data[:] = 1
        return cls(of_row, classes)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Number of rows of each block, (B,)."""
        return np.bincount(self.of_row)

    @cached_property
    def n_blocks(self) -> np.ndarray:
        """Number of blocks of each class, (K,)."""
        return self.classes.sum(axis=0)

    @cached_property
    def is_pinned(self) -> np.ndarray:
        """True for the blocks of a class that has no other block, (B,).

        Such a class can't be both trained and validated.
        """
        return self.classes @ (self.n_blocks == 1).astype(int) > 0

    @cached_property
    def _by_class(self) -> csr_array:
        return self.classes.T.tocsr()

    def classes_of(self, block: int) -> np.ndarray:
        """Return the classes of a block."""
        start, stop = self.classes.indptr[block : block + 2]
        return self.classes.indices[start:stop]

    def of_class(self, code: int) -> np.ndarray:
        """Return the blocks of a class."""
        start, stop = self._by_class.indptr[code : code + 2]
        return self._by_class.indices[start:stop]


def cover_classes(valid: np.ndarray, blocks: Blocks, seed: int) -> np.ndarray:
    """Return validation blocks with which each fold trains and validates each class.

    A fold is changed only if it lacks a class. If it would not train a class, a block
    of that class is no longer validated. If it does not validate a class, one more
    block is, unless a class would lack training rows then: the block that the fewest
    folds validate. Blocks may so be validated by several folds.

    Parameters
    ----------
    valid : ndarray of bool of shape (n_folds, B)
        True for the blocks that a fold validates, the others are trained on.
    blocks : Blocks
        The classes of each block.
    seed : int
        Decides among equal blocks.
    """
    valid = valid.copy()
    ties = np.random.default_rng(seed).permutation(valid.shape[1])
    for own in valid:
        _train_each_class(own, blocks, ties)
    n_folds = valid.sum(axis=0)
    for own in valid:
        _validate_each_class(own, blocks, n_folds, ties)
    return valid


def _train_each_class(own: np.ndarray, blocks: Blocks, ties: np.ndarray) -> None:
    """Stop validating blocks of classes that the fold does not train, in place."""
    n_trained = ~own @ blocks.classes
    for code in np.flatnonzero((n_trained == 0) & (blocks.n_blocks > 0)).tolist():
        members = blocks.of_class(code)
        if own[members].all():  # the block of another class may have one of this
            largest = np.lexsort((ties[members], -blocks.sizes[members]))[0]
            own[members[largest]] = False


def _validate_each_class(
    own: np.ndarray, blocks: Blocks, n_folds: np.ndarray, ties: np.ndarray
) -> None:
    """Validate a block of each class that the fold does not validate, in place.

    `n_folds` is the number of folds that validate each block, and is kept up to date.
    """
    n_validated = own @ blocks.classes
    n_trained = blocks.n_blocks - n_validated
    for code in np.flatnonzero((n_validated == 0) & (blocks.n_blocks > 1)).tolist():
        members = blocks.of_class(code)
        if own[members].any():  # the block of another class may have this one
            continue
        order = np.lexsort((ties[members], blocks.sizes[members], n_folds[members]))
        for block in members[order].tolist():
            codes = blocks.classes_of(block)
            if (n_trained[codes] > 1).all():
                own[block] = True
                n_folds[block] += 1
                n_trained[codes] -= 1
                break
