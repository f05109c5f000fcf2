"""From a history to what predicts: choose, weigh and refit the winners."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from sknas._history import Architecture, History, Trial
from sknas._problem import Fold, Problem, Rows
from sknas.exceptions import SearchFailedError
from sknas.spaces import Space
from sknas.trainers import TensorNet, TrainedNetwork, Training, train_network
from sknas.trainers._network import evaluate, failure_reason
from sknas.trainers._workers import run_tasks

N_ROUNDS = 40  # members drawn, with replacement
GREEDY_SHARE = 0.05  # of the time left that choosing members may take
LOSS_SHARE = 0.5  # weight of the loss beside the score, in their deviations
PATIENCE = 10  # draws without a better score after which no more are made
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
        Where it was trained.
    """

    members: tuple[Member, ...]
    restore: Callable[[np.ndarray], np.ndarray]
    device: str
    _copies: dict[Any, list[torch.nn.Module]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def place(self) -> str:
        """The device to predict on: the CPU where a loaded one's GPU is missing."""
        is_there = torch.cuda.is_available() or not self.device.startswith("cuda")
        return self.device if is_there else "cpu"

    def modules(self, dtype: np.dtype) -> list[torch.nn.Module]:
        """The members' networks in a precision, ready to `predict`."""
        kind = torch.float64 if dtype == np.float64 else torch.float32
        plain = [member.network.module_ for member in self.members]
        if kind == torch.float32 and self.place == "cpu":
            return plain
        if (kind, self.place) not in self._copies:
            copies = [copy.deepcopy(m).to(self.place, kind) for m in plain]
            self._copies[kind, self.place] = copies
        return self._copies[kind, self.place]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copies": {}}

    def predict(self, modules: list[torch.nn.Module], x: np.ndarray) -> np.ndarray:
        """Predictions (N, C) for encoded rows (N, F): weighted mean of the members."""
        rows = torch.from_numpy(x).to(self.place)
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
    best = history.best
    usable = [t for t in history.succeeded if t.predictions is not None]
    if size == 1 or len(usable) < 2 or best.predictions is None:
        return [(best, 1.0)]
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
    # Between search and refit there is little time; what is found by then is taken.
    until = time.monotonic() + GREEDY_SHARE * problem.seconds_left
    value = _value(library, rows, problem)
    counts = np.zeros(len(library))
    total = np.zeros(library.shape[1:])
    best_value, best_counts = -np.inf, np.eye(len(library))[0]
    for n_drawn in range(1, N_ROUNDS + 1):
        is_full = np.count_nonzero(counts) >= size
        open_to = [j for j in range(len(library)) if counts[j] or not is_full]
        if n_drawn == 1:
            open_to = [0]  # the best trial is always in
        values = [value((total + library[j]) / n_drawn) for j in open_to]
        place = open_to[int(np.argmax(values))]
        total = total + library[place]
        counts = counts.copy()
        counts[place] += 1
        if max(values) > best_value:
            best_value, best_counts = max(values), counts
        elif n_drawn - best_counts.sum() >= PATIENCE:
            break
        if time.monotonic() > until:
            break
    return best_counts


def _value(
    library: np.ndarray, rows: np.ndarray, problem: Problem
) -> Callable[[np.ndarray], float]:
    """What predictions are worth: the score, and a share of the loss.

    Scores such as accuracy have steps, on which a greedy search gets stuck; the loss
    has none. Both are measured by how much they vary between the trials.
    """
    score, loss = problem.score, problem.loss
    assert score is not None and loss is not None
    scores = np.array([score(p, rows) for p in library])
    losses = np.array([loss(p, rows) for p in library])
    of_score = 1 / (np.nanstd(scores) or 1.0) if np.isfinite(scores).any() else 0.0
    of_loss = LOSS_SHARE / (np.std(losses) or 1.0)

    def value(predictions: np.ndarray) -> float:
        scored = score(predictions, rows) * of_score if of_score else 0.0
        return float(np.nan_to_num(scored, nan=-np.inf)) - of_loss * loss(
            predictions, rows
        )

    return value


def refit_seconds(trial: Trial) -> float:
    """About how long a trial's network takes to train again, in one process."""
    return trial.stop * float(np.mean(trial.fold_seconds or (0.0,)))


@dataclass(frozen=True, eq=False)
class Refitted:
    """What came of a refit: what predicts, what failed, whether Ctrl-C ended it."""

    ensemble: Ensemble
    failures: tuple[str, ...] = ()
    is_interrupted: bool = False


def refit(
    chosen: list[tuple[Trial, float]],
    spare: list[Trial],
    space: Space,
    problem: Problem,
) -> Refitted:
    """Train the chosen trials on all rows, the heaviest first.

    Members for which there is no time are left out; the first is always there, its
    learning rate brought down in time. Where none can be trained, the spare trials
    take their place, one by one. Ctrl-C ends with what there is.

    Parameters
    ----------
    chosen : list of (Trial, float)
        Trials and weights.
    spare : list of Trial
        Others, the best first.
    space : Space
        Builds their networks.
    problem : Problem
        Holds all rows, encoded.

    Raises
    ------
    SearchFailedError
        If no network can be trained.
    """
    full = problem.full
    assert full is not None
    planned = _in_time(chosen, problem)
    trainings = [_training(trial, space, problem, full) for trial, _ in planned]
    tasks = [(training, full.train) for training in trainings]
    seconds = sum(refit_seconds(trial) for trial, _ in planned)
    outcomes: list[TrainedNetwork | str] = []
    is_interrupted = False
    try:
        for outcome in run_tasks(_train_or_tell, tasks, problem, seconds):
            outcomes.append(outcome)
    except KeyboardInterrupt:
        is_interrupted = True
        if not any(isinstance(outcome, TrainedNetwork) for outcome in outcomes):
            hurried = replace(trainings[0], deadline=time.monotonic() + HURRY)
            outcomes = [_train_or_tell(hurried, full.train)]
    members = _members(planned, outcomes)
    for trial in spare:
        if members:
            break
        outcomes.append(
            _train_or_tell(_training(trial, space, problem, full), full.train)
        )
        members = _members([(trial, 1.0)], outcomes[-1:])
    failures = tuple(outcome for outcome in outcomes if isinstance(outcome, str))
    if not members:
        raise SearchFailedError(
            f"No network could be trained on all rows: {'; '.join(failures)}."
        )
    ensemble = Ensemble(members, full.restore, problem.device)
    return Refitted(ensemble, failures, is_interrupted)


def _train_or_tell(training: Training, rows: Rows) -> TrainedNetwork | str:
    """A trained network, or why there is none."""
    try:
        return train_network(training, rows)
    except Exception as error:
        return failure_reason(error)


def _members(
    planned: list[tuple[Trial, float]], outcomes: list[TrainedNetwork | str]
) -> tuple[Member, ...]:
    """Members of what was trained to the end, or at least the first one."""
    members: list[Member] = []
    for (trial, weight), outcome in zip(planned, outcomes, strict=False):
        if isinstance(outcome, str) or (members and outcome.is_cut):
            continue
        members.append(Member(trial.architecture, outcome.net, weight))
    total = sum(member.weight for member in members)
    return tuple(replace(m, weight=m.weight / total) for m in members)


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
