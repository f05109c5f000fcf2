"""From a history to what predicts: choose, weigh and refit the winners."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from sknas._history import Architecture, History, Trial
from sknas._problem import Fold, Problem
from sknas.spaces import Space
from sknas.trainers import TensorNet, TrainedNetwork, Training, train_network
from sknas.trainers._network import evaluate
from sknas.trainers._workers import run_tasks

N_CANDIDATES = 25  # best trials that may enter an ensemble
N_ROUNDS = 40  # members drawn, with replacement
SAFE = 0.8  # share of the time left that a refit is planned for
HURRY = 1.0  # seconds that the first member gets after Ctrl-C


@dataclass(frozen=True, eq=False)
class Member:
    """A network of an ensemble.

    Parameters
    ----------
    architecture : Architecture
        What it is.
    network : TensorNet
        A skorch net over encoded rows, trained on all rows.
    weight : float
        Its share of the answer.
    """

    architecture: Architecture
    network: TensorNet
    weight: float


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Weighted networks over one encoding.

    Parameters
    ----------
    members : tuple of Member
        The heaviest first; their weights sum to 1.
    restore : callable
        Network output (N, C) -> predictions (N, C).
    device : str
        Where to predict.
    """

    members: tuple[Member, ...]
    restore: Callable[[np.ndarray], np.ndarray]
    device: str

    def __len__(self) -> int:
        return len(self.members)

    def modules(self, dtype: np.dtype) -> list[torch.nn.Module]:
        """The members' networks in a precision, ready to `predict`."""
        kind = torch.float64 if dtype == np.float64 else torch.float32
        return [
            copy.deepcopy(m.network.module_).to(self.device, kind) for m in self.members
        ]

    def predict(self, modules: list[torch.nn.Module], x: np.ndarray) -> np.ndarray:
        """Predictions (N, C) for encoded rows (N, F): weighted mean of the members."""
        rows = torch.from_numpy(x).to(self.device)
        answers = [
            member.weight * self.restore(evaluate(module, rows))
            for member, module in zip(self.members, modules, strict=True)
        ]
        return np.sum(answers, axis=0)


def choose_members(
    history: History, problem: Problem, size: int
) -> list[tuple[Trial, float]]:
    """Trials to combine and their weights, by greedy selection.

    Starts from the best trial and adds, again and again and with replacement, the
    trial whose out-of-fold predictions improve the score of the mean most; the best
    prefix of at most `size` different trials wins.

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
    Caruana, Niculescu-Mizil, Crew, Ksikes: Ensemble Selection from Libraries of
    Models. ICML 2004.
    """
    candidates = history.succeeded[:N_CANDIDATES]
    usable = [t for t in candidates if t.predictions is not None]
    if size == 1 or len(usable) < 2 or candidates[0].predictions is None:
        return [(candidates[0], 1.0)]
    library = np.stack([np.asarray(t.predictions) for t in usable])  # (trials, N, C)
    rows = np.flatnonzero(~np.isnan(library).any(axis=(0, 2)))
    counts = _greedy(library[:, rows], rows, problem, size)
    chosen = np.flatnonzero(counts)
    by_weight = chosen[np.argsort(-counts[chosen], kind="stable")]
    return [(usable[place], counts[place] / counts.sum()) for place in by_weight]


def _greedy(
    library: np.ndarray, rows: np.ndarray, problem: Problem, size: int
) -> np.ndarray:
    """How often each trial is drawn."""
    assert problem.score is not None
    counts = np.zeros(len(library))
    total = np.zeros(library.shape[1:])
    best_score, best_counts = -np.inf, counts
    for n_drawn in range(1, N_ROUNDS + 1):
        is_full = np.count_nonzero(counts) >= size
        open_to = [j for j in range(len(library)) if counts[j] or not is_full]
        if n_drawn == 1:
            open_to = [0]  # the best trial is always in
        scores = [problem.score((total + library[j]) / n_drawn, rows) for j in open_to]
        if not np.isfinite(scores).any():
            break
        place = open_to[int(np.nanargmax(scores))]
        total = total + library[place]
        counts = counts.copy()
        counts[place] += 1
        if np.nanmax(scores) > best_score:
            best_score, best_counts = float(np.nanmax(scores)), counts
    if not best_counts.any():
        best_counts[0] = 1
    return best_counts


def refit_seconds(trial: Trial) -> float:
    """About how long a trial's network takes to train again, in one process."""
    return trial.stop * float(np.mean(trial.fold_seconds or (0.0,)))


def refit(
    chosen: list[tuple[Trial, float]], space: Space, problem: Problem
) -> Ensemble:
    """Train the chosen trials on all rows, the heaviest first.

    Members for which there is no time are left out; the first is always there, its
    learning rate brought down in time. Ctrl-C ends with what there is.

    Parameters
    ----------
    chosen : list of (Trial, float)
        Trials and weights.
    space : Space
        Builds their networks.
    problem : Problem
        Holds all rows, encoded.
    """
    full = problem.full
    assert full is not None
    planned = _in_time(chosen, problem)
    trainings = [_training(trial, space, problem, full) for trial, _ in planned]
    tasks = [(training, full.train) for training in trainings]
    seconds = sum(refit_seconds(trial) for trial, _ in planned)
    trained: list[TrainedNetwork] = []
    try:
        for network in run_tasks(train_network, tasks, problem, seconds):
            trained.append(network)
    except KeyboardInterrupt:
        if not trained:
            hurried = replace(trainings[0], deadline=time.monotonic() + HURRY)
            trained.append(train_network(hurried, full.train))
    members = [
        Member(trial.architecture, network.net, weight)
        for place, ((trial, weight), network) in enumerate(
            zip(planned, trained, strict=False)
        )
        if place == 0 or not network.is_cut
    ]
    total = sum(member.weight for member in members)
    shares = tuple(replace(m, weight=m.weight / total) for m in members)
    return Ensemble(shares, full.restore, problem.device)


def _in_time(
    chosen: list[tuple[Trial, float]], problem: Problem
) -> list[tuple[Trial, float]]:
    """The members there is time for, at least one."""
    left = SAFE * problem.seconds_left
    planned, seconds = chosen[:1], refit_seconds(chosen[0][0])
    for trial, weight in chosen[1:]:
        seconds += refit_seconds(trial) / problem.n_jobs
        if seconds < left:
            planned.append((trial, weight))
    return planned


def _training(trial: Trial, space: Space, problem: Problem, full: Fold) -> Training:
    return Training(
        space=space,
        architecture=dict(trial.architecture),
        task=full.task,
        n_steps=problem.n_steps,
        max_epochs=problem.max_epochs,
        seed=trial.proposal.seed,
        device=problem.device,
        deadline=problem.deadline,
        stop=trial.stop,
        is_final=True,
    )
