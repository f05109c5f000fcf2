"""The trials of a search as ``cv_results_``."""

from __future__ import annotations

from typing import Any

import numpy as np

from sknas._history import History, Status, Trial


def cv_results(history: History) -> dict[str, Any]:
    """Return a history as columns, named as in ``GridSearchCV.cv_results_``.

    Parameters
    ----------
    history : History
        The trials, one row each.

    Returns
    -------
    dict of str to ndarray or list
        ``params`` (the list), a masked ``param_<name>`` for each choice,
        ``split<i>_test_score``, ``mean_test_score``, ``std_test_score``,
        ``rank_test_score``, fit and score times in seconds, and ``status``, ``rung``,
        ``origin``, ``n_epochs``, ``n_params``, ``seconds`` and ``reason``.
    """
    trials = list(history)
    n_folds = max((len(t.fold_seconds or t.fold_scores) for t in trials), default=0)
    scores = _by_fold([t.fold_scores for t in trials], n_folds)
    fit_seconds = _by_fold([t.fold_seconds for t in trials], n_folds)
    score_seconds = _by_fold([t.score_seconds for t in trials], n_folds)
    means = np.array([np.nan if t.score is None else t.score for t in trials], float)
    deviations = _row_statistic(np.std, scores)
    origins = [t.proposal.origin.value for t in trials]
    return {
        "mean_fit_time": _row_statistic(np.mean, fit_seconds),
        "std_fit_time": _row_statistic(np.std, fit_seconds),
        "mean_score_time": _row_statistic(np.mean, score_seconds),
        "std_score_time": _row_statistic(np.std, score_seconds),
        "params": [dict(t.architecture) for t in trials],
        **_choice_columns(trials),
        **{f"split{fold}_test_score": scores[:, fold] for fold in range(n_folds)},
        "mean_test_score": means,
        "std_test_score": np.where(np.isnan(means), np.nan, deviations),
        "rank_test_score": _ranks(trials),
        "status": np.array([t.status.value for t in trials], dtype=object),
        "rung": np.array([t.proposal.rung for t in trials], dtype=int),
        "origin": np.array(origins, dtype=object),
        "n_epochs": np.array([t.n_epochs for t in trials], dtype=int),
        "n_params": np.array([t.n_params for t in trials], dtype=int),
        "seconds": np.array([t.seconds for t in trials], dtype=float),
        "reason": np.array([t.reason for t in trials], dtype=object),
    }


def _by_fold(values: list[tuple[float, ...]], n_folds: int) -> np.ndarray:
    """Return the values of each trial as a row, NaN where a fold has none."""
    table = np.full((len(values), n_folds), np.nan)
    for row, of_trial in enumerate(values):
        table[row, : len(of_trial)] = of_trial
    return table


def _ranks(trials: list[Trial]) -> np.ndarray:
    """Return the rank of each trial, 1 for the best; those without a score are last."""
    rows = range(len(trials))
    best_first = sorted(
        rows, key=lambda row: (trials[row].status != Status.OK, trials[row].order)
    )
    ranks = np.empty(len(trials), dtype=np.int32)
    ranks[best_first] = np.arange(1, len(trials) + 1)
    return ranks


def _row_statistic(statistic: Any, values: np.ndarray) -> np.ndarray:
    """Return a statistic of the finite values of each row, NaN where there are none."""
    known = [row[np.isfinite(row)] for row in values]
    # Scores of huge targets overflow when they are squared.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array([statistic(row) if len(row) else np.nan for row in known])


def _choice_columns(trials: list[Trial]) -> dict[str, np.ma.MaskedArray]:
    """Return a column of objects for each choice, masked where it is not active."""
    names = dict.fromkeys(name for t in trials for name in t.architecture)
    columns = {}
    for name in names:
        column = np.ma.masked_all(len(trials), dtype=object)
        for row, trial in enumerate(trials):
            if name in trial.architecture:
                column[row] = trial.architecture[name]
        columns[f"param_{name}"] = column
    return columns
