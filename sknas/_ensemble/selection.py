"""Greedy selection of the trials that predict together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sknas._ensemble.calibration import apply_temperature, fit_temperature
from sknas._history import History, Trial
from sknas._problem import Problem
from sknas._scoring.folds import score_many

N_ROUNDS = 40  # members drawn, with replacement


GREEDY_SHARE = 0.05  # of the time left that choosing members may take, with a refit


CHOOSING_SHARE = 0.5  # and without one


GREEDY_LOSS_SHARE = 0.5  # weight of the loss beside the score, in their deviations


PATIENCE = 10  # draws without a better score after which no more are made


@dataclass(frozen=True, eq=False)
class Selection:
    """What an ensemble is to be made of.

    Parameters
    ----------
    trials : tuple of Trial
        The heaviest first.
    weights, temperatures : tuple of float
        One a trial.
    temperature : float, default=1.0
        Of the weighted mean.
    """

    trials: tuple[Trial, ...]
    weights: tuple[float, ...] = (1.0,)
    temperatures: tuple[float, ...] = (1.0,)
    temperature: float = 1.0

    @property
    def has_networks(self) -> bool:
        """Whether the networks of the folds are at hand."""
        return all(trial.networks for trial in self.trials)

    def kept(self, places: Sequence[int]) -> Selection:
        """The same without the trials at other places."""
        return replace(
            self,
            trials=tuple(self.trials[place] for place in places),
            weights=tuple(self.weights[place] for place in places),
            temperatures=tuple(self.temperatures[place] for place in places),
        )


def choose_members(history: History, problem: Problem, size: int) -> Selection:
    """Trials to combine and their weights, by greedy selection.

    The probabilities of each trial are calibrated first. Starts from the best trial and
    adds, again and again and with replacement, the trial whose out-of-fold predictions
    improve the score of the mean most; the best prefix of at most `size` different
    trials wins, and is calibrated again.

    Parameters
    ----------
    history : History
        With out-of-fold predictions; a trial without them is never combined.
    problem : Problem
        Its score judges.
    size : int
        Most different trials.

    References
    ----------
    Caruana, Niculescu-Mizil, Executor, Ksikes: Ensemble Selection from Libraries of
    Models. ICML 2004.
    """
    best = history.best
    assert problem.task is not None and problem.loss is not None
    kind, mean_loss = problem.task.kind, problem.loss
    usable = [t for t in history.succeeded if t.predictions is not None]
    if best.predictions is None:
        return Selection((best,))
    if size == 1:
        usable = [best]
    library = np.stack([np.asarray(t.predictions) for t in usable])  # (trials, N, C)
    rows = np.flatnonzero(~np.isnan(library).any(axis=(0, 2)))
    library = library[:, rows]

    def loss(predictions: np.ndarray) -> float:
        return float(mean_loss(predictions, rows))

    # A refit needs what is left of the time, networks of the folds are there.
    share = CHOOSING_SHARE if best.networks else GREEDY_SHARE
    until = time.monotonic() + share * problem.seconds_left
    temperatures = [
        fit_temperature(predicted, loss, kind) if time.monotonic() < until else 1.0
        for predicted in library
    ]
    library = np.stack(
        [
            apply_temperature(p, t, kind)
            for p, t in zip(library, temperatures, strict=True)
        ]
    )
    counts = _greedy(library, rows, problem, size, until)
    chosen = np.flatnonzero(counts)
    by_weight = chosen[np.argsort(-counts[chosen], kind="stable")]
    weights = counts / counts.sum()
    mean = np.tensordot(weights, library, axes=1)  # (N, C)
    return Selection(
        tuple(usable[place] for place in by_weight),
        tuple(float(weights[place]) for place in by_weight),
        tuple(temperatures[place] for place in by_weight),
        fit_temperature(mean, loss, kind),
    )


def _greedy(
    library: np.ndarray, rows: np.ndarray, problem: Problem, size: int, until: float
) -> np.ndarray:
    """How often each trial is drawn; what is found by `until` is taken."""
    value = _value(library, rows, problem)
    counts = np.zeros(len(library))
    total = np.zeros(library.shape[1:])
    best_value, best_counts = -np.inf, np.eye(len(library))[0]
    for n_drawn in range(1, N_ROUNDS + 1):
        is_full = np.count_nonzero(counts) >= size
        open_to = [j for j in range(len(library)) if counts[j] or not is_full]
        if n_drawn == 1:
            open_to = [0]  # the best trial is always in
        values = value((total + library[open_to]) / n_drawn)
        place = open_to[int(np.argmax(values))]
        total = total + library[place]
        counts = counts.copy()
        counts[place] += 1
        if values.max() > best_value:
            best_value, best_counts = values.max(), counts
        elif n_drawn - best_counts.sum() >= PATIENCE:
            break
        if time.monotonic() > until:
            break
    return best_counts


def _value(
    library: np.ndarray, rows: np.ndarray, problem: Problem
) -> Callable[[np.ndarray], np.ndarray]:
    """What predictions (K, N, C) are worth: the score, and a share of the loss.

    Scores such as accuracy have steps, on which a greedy search gets stuck; the loss
    has none. Both are measured by how much they vary between the trials.
    """
    loss = problem.loss
    assert loss is not None
    scores = score_many(problem, library, rows)
    losses = loss(library, rows)
    of_score = 1 / (np.nanstd(scores) or 1.0) if np.isfinite(scores).any() else 0.0
    of_loss = GREEDY_LOSS_SHARE / (np.std(losses) or 1.0)

    def value(predictions: np.ndarray) -> np.ndarray:
        scored = np.zeros(len(predictions))
        if of_score:
            scored = score_many(problem, predictions, rows) * of_score
        return np.nan_to_num(scored, nan=-np.inf) - of_loss * loss(predictions, rows)

    return value
