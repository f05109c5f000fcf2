"""A history as the columns of ``cv_results_``."""

from __future__ import annotations

from typing import Any

import numpy as np

from sknas._history import History, Trial


def cv_results(history: History) -> dict[str, Any]:
    """The history as columns, named and shaped as in ``GridSearchCV.cv_results_``.

    Parameters
    ----------
    history : History
        The trials to list, one row each.

    Returns
    -------
    dict of str to ndarray or list
        ``params``, a masked ``param_<name>`` column a choice, ``split<i>_test_score``,
        ``mean_test_score``, ``std_test_score``, ``rank_test_score``, fit times, and
        ``status``, ``rung``, ``origin``, ``n_epochs``, ``n_params``, ``seconds``,
        ``reason``.
    """
    trials = list(history)
    n_folds = max((len(t.fold_seconds or t.fold_scores) for t in trials), default=0)
    splits = np.full((len(trials), n_folds), np.nan)
    seconds = np.full((len(trials), n_folds), np.nan)
    scoring = np.full((len(trials), n_folds), np.nan)
    for row, trial in enumerate(trials):
        splits[row, : len(trial.fold_scores)] = trial.fold_scores
        seconds[row, : len(trial.fold_seconds)] = trial.fold_seconds
        scoring[row, : len(trial.score_seconds)] = trial.score_seconds
    results: dict[str, Any] = {
        "mean_fit_time": _row_statistic(np.mean, seconds),
        "std_fit_time": _row_statistic(np.std, seconds),
        "mean_score_time": _row_statistic(np.mean, scoring),
        "std_score_time": _row_statistic(np.std, scoring),
        "params": [dict(t.architecture) for t in trials],
        **_parameter_columns(trials),
    }
    for fold in range(n_folds):
        results[f"split{fold}_test_score"] = splits[:, fold]
    scores = [np.nan if t.score is None else t.score for t in trials]
    results["mean_test_score"] = np.array(scores, dtype=float)
    results["std_test_score"] = _row_statistic(np.std, splits)
    places = sorted(range(len(trials)), key=lambda row: _place(trials[row]))
    rank = np.empty(len(trials), dtype=np.int32)
    rank[places] = np.arange(1, len(trials) + 1)
    results["rank_test_score"] = rank
    results["status"] = np.array([t.status for t in trials], dtype=object)
    results["rung"] = np.array([t.proposal.rung for t in trials], dtype=int)
    results["origin"] = np.array([t.proposal.origin for t in trials], dtype=object)
    results["n_epochs"] = np.array([t.n_epochs for t in trials], dtype=int)
    results["n_params"] = np.array([t.n_params for t in trials], dtype=int)
    results["seconds"] = np.array([t.seconds for t in trials], dtype=float)
    results["reason"] = np.array([t.reason for t in trials], dtype=object)
    return results


def _place(trial: Trial) -> tuple[bool, tuple[float, ...]]:
    """Sorts trials from the best to those without a score."""
    return trial.status != "ok", trial.order


def _row_statistic(statistic: Any, values: np.ndarray) -> np.ndarray:
    """Mean or deviation of each row's known values, NaN where there are none."""
    known = [row[~np.isnan(row)] for row in values]
    # Scores may be squares of huge targets, or infinite.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array([statistic(row) if len(row) else np.nan for row in known])


def _parameter_columns(trials: list[Trial]) -> dict[str, np.ma.MaskedArray]:
    """One masked object column a choice: masked where the choice is not active."""
    names = dict.fromkeys(name for t in trials for name in t.architecture)
    columns = {}
    for name in names:
        column = np.ma.masked_all(len(trials), dtype=object)
        for row, trial in enumerate(trials):
            if name in trial.architecture:
                column[row] = trial.architecture[name]
        columns[f"param_{name}"] = column
    return columns
