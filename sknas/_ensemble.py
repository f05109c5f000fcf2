"""From a history to what predicts: choose, weigh and refit the winners."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from sknas._calibration import fit_temperature, tempered
from sknas._checks import warn_user
from sknas._history import (
    IN_HALVES,
    OUT_OF_MEMORY,
    Architecture,
    History,
    Trial,
)
from sknas._isolation import free_memory, one_thread
from sknas._problem import Fold, Problem
from sknas._scoring import score_many
from sknas.exceptions import SearchFailedError
from sknas.spaces import Space
from sknas.trainers import (
    TensorNet,
    TrainedNetwork,
    Training,
    train_network,
)
from sknas.trainers._cohort import CohortTrainer
from sknas.trainers._network import (
    evaluate,
    failure_reason,
    restored,
    training_of,
)
from sknas.trainers._workers import run_tasks

N_ROUNDS = 40  # members drawn, with replacement
GREEDY_SHARE = 0.05  # of the time left that choosing members may take, with a refit
CHOOSING_SHARE = 0.5  # and without one
GREEDY_LOSS_SHARE = 0.5  # weight of the loss beside the score, in their deviations
PATIENCE = 10  # draws without a better score after which no more are made
SAFE = 0.8  # share of the time left that a refit is planned for
HURRY = 1.0  # seconds that the first member gets after Ctrl-C


@dataclass(frozen=True, eq=False)
class Member:
    """An architecture of an ensemble, and its networks.

    Parameters
    ----------
    architecture : Architecture
        What it is.
    networks : tuple of TensorNet
        skorch nets over encoded rows: one of each fold, or one of all rows.
    places : tuple of int
        The encoding that each network reads.
    weight : float
        Its share of the answer.
    temperature : float, default=1.0
        What calibrates its probabilities.
    """

    architecture: Architecture
    networks: tuple[TensorNet, ...]
    places: tuple[int, ...]
    weight: float
    temperature: float = 1.0

    @property
    def network(self) -> TensorNet:
        """The first of its networks."""
        return self.networks[0]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Weighted networks, with the encodings that they read.

    Parameters
    ----------
    members : tuple of Member
        The heaviest first; their weights sum to 1.
    encodings : tuple of (encoder, callable)
        How rows are encoded, and how outputs (N, C) of networks become predictions.
    kind : {"binary", "multiclass", "multilabel", "regression"}
        What is predicted.
    device : str
        Where it was trained.
    temperature : float, default=1.0
        What calibrates its probabilities.
    is_single : bool, default=True
        Whether single precision can hold predictions.
    """

    members: tuple[Member, ...]
    encodings: tuple[tuple[Any, Callable[[np.ndarray], np.ndarray]], ...]
    kind: str
    device: str
    temperature: float = 1.0
    is_single: bool = True
    _copies: dict[Any, list[list[nn.Module]]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.members)

    @property
    def place(self) -> str:
        """The device to predict on: the CPU where a loaded one's GPU is missing."""
        is_there = torch.cuda.is_available() or not self.device.startswith("cuda")
        return self.device if is_there else "cpu"

    def _modules(self, dtype: np.dtype) -> list[list[nn.Module]]:
        """The networks of each member in a precision, ready to predict."""
        kind = torch.float64 if dtype == np.float64 else torch.float32
        plain = [[net.module_ for net in member.networks] for member in self.members]
        if kind == torch.float32 and self.place == "cpu":
            return plain
        if (kind, self.place) not in self._copies:
            self._copies[kind, self.place] = [
                [copy.deepcopy(module).to(self.place, kind) for module in modules]
                for modules in plain
            ]
        return self._copies[kind, self.place]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copies": {}}

    def predict(self, samples: Any) -> np.ndarray:
        """Predictions (N, C) for rows that were read: the members' weighted mean."""
        total: Any = 0.0
        for place, (encoder, restore) in enumerate(self.encodings):
            x = encoder.transform(samples)
            rows = torch.tensor(x, device=self.place)  # images may be the user's own
            modules = self._modules(x.dtype)
            for member, own in zip(self.members, modules, strict=True):
                if place in member.places:
                    module = own[member.places.index(place)]
                    with one_thread():
                        answer = restore(evaluate(module, rows))
                    answer = tempered(answer, member.temperature, self.kind)
                    total = total + member.weight / len(own) * answer
        is_double = x.dtype == np.float64 or not self.is_single
        precision = np.float64 if is_double else np.float32
        return tempered(total, self.temperature, self.kind).astype(precision)


@dataclass(frozen=True, eq=False)
class Chosen:
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

    def kept(self, places: Sequence[int]) -> Chosen:
        """The same without the trials at other places."""
        return replace(
            self,
            trials=tuple(self.trials[place] for place in places),
            weights=tuple(self.weights[place] for place in places),
            temperatures=tuple(self.temperatures[place] for place in places),
        )


def choose_members(history: History, problem: Problem, size: int) -> Chosen:
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
    Caruana, Niculescu-Mizil, Crew, Ksikes: Ensemble Selection from Libraries of
    Models. ICML 2004.
    """
    best = history.best
    assert problem.task is not None and problem.loss is not None
    kind, mean_loss = problem.task.kind, problem.loss
    usable = [t for t in history.succeeded if t.predictions is not None]
    if best.predictions is None:
        return Chosen((best,))
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
        [tempered(p, t, kind) for p, t in zip(library, temperatures, strict=True)]
    )
    counts = _greedy(library, rows, problem, size, until)
    chosen = np.flatnonzero(counts)
    by_weight = chosen[np.argsort(-counts[chosen], kind="stable")]
    weights = counts / counts.sum()
    mean = np.tensordot(weights, library, axes=1)  # (N, C)
    return Chosen(
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


def refit_seconds(trial: Trial) -> float:
    """About how long a trial's network takes to train again, in one process."""
    return trial.stop * float(np.mean(trial.fold_seconds or (0.0,)))


def gather(chosen: Chosen, trainer: CohortTrainer, problem: Problem) -> Ensemble:
    """The networks of the folds of the chosen trials, as an ensemble."""
    places = tuple(range(len(problem.folds)))
    members = []
    for trial, weight, temperature in zip(
        chosen.trials, chosen.weights, chosen.temperatures, strict=True
    ):
        networks = trainer.rebuilt(trial, problem)
        members.append(
            Member(trial.architecture, networks, places, weight, temperature)
        )
    return _ensemble(members, problem.folds, problem, chosen.temperature)


def _ensemble(
    members: Sequence[Member],
    folds: Sequence[Fold],
    problem: Problem,
    temperature: float,
) -> Ensemble:
    encodings = tuple((fold.encoder, fold.restore) for fold in folds)
    kind, is_single = folds[0].task.kind, all(fold.is_single for fold in folds)
    return Ensemble(
        tuple(members), encodings, kind, problem.device, temperature, is_single
    )


@dataclass(frozen=True, eq=False)
class Refitted:
    """What came of a refit: what predicts, what failed, whether Ctrl-C ended it."""

    ensemble: Ensemble
    failures: tuple[str, ...] = ()
    is_interrupted: bool = False


def refit(
    chosen: Chosen, spare: list[Trial], space: Space, problem: Problem
) -> Refitted:
    """Train the chosen trials on all rows, the heaviest first.

    Members for which there is no time are left out; the first is always there, its
    learning rate brought down in time. Where none can be trained, the spare trials
    take their place, one by one. Ctrl-C ends with what there is.

    Parameters
    ----------
    chosen : Chosen
        Trials, weights and temperatures.
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
    trainings = [_training(trial, space, problem, full) for trial in chosen.trials]
    places = _in_time(chosen, trainings, problem)
    trainings = [trainings[place] for place in places]
    planned = chosen.kept(places)
    on_all = replace(problem, folds=(full,))
    seconds = sum(refit_seconds(trial) for trial in planned.trials)
    outcomes: list[TrainedNetwork | str] = []
    is_interrupted = False
    try:
        for outcome in _outcomes(trainings, on_all, seconds):
            outcomes.append(outcome)
    except KeyboardInterrupt:
        is_interrupted = True
        if not any(isinstance(outcome, TrainedNetwork) for outcome in outcomes):
            hurried = replace(trainings[0], deadline=time.monotonic() + HURRY)
            outcomes = [
                _train_or_tell(replace(on_all, deadline=hurried.deadline), hurried)
            ]
    members = _members(planned, outcomes)
    for trial in spare:
        if members:
            break
        training = _training(trial, space, problem, full)
        outcomes.append(_train_or_tell(on_all, training))
        members = _members(Chosen((trial,)), outcomes[-1:])
    _warn_of_halves(outcomes)
    failures = tuple(outcome for outcome in outcomes if isinstance(outcome, str))
    if not members:
        raise SearchFailedError(
            f"No network could be trained on all rows: {'; '.join(failures)}."
        )
    ensemble = _ensemble(members, [full], problem, chosen.temperature)
    return Refitted(ensemble, failures, is_interrupted)


def _outcomes(
    trainings: Sequence[Training], problem: Problem, seconds: float
) -> Iterator[TrainedNetwork | str]:
    """What becomes of trainings, in order; what the journal holds is done already."""
    journal = problem.journal
    keys = [_key(training) for training in trainings]
    states = [journal.get(key) for key in keys]
    left = zip(trainings, states, strict=True)
    tasks = [(training,) for training, state in left if state is None]
    fresh = iter(run_tasks(_train_or_tell, tasks, problem, seconds))
    for training, key, state in zip(trainings, keys, states, strict=True):
        if state is not None:
            yield restored(training, state)
            continue
        outcome = next(fresh)
        if isinstance(outcome, TrainedNetwork) and not outcome.is_cut:
            journal.put(key, outcome.checkpoint.state)
        yield outcome


def _key(training: Training) -> str:
    """Names a network of all rows in a journal."""
    return f"refit:{training.seed}:{training.stop}"


def _train_or_tell(problem: Problem, training: Training) -> TrainedNetwork | str:
    """A network trained on the one fold of a problem, or why there is none.

    Where memory runs out it is trained again, with each batch in two halves.
    """
    (full,) = problem.folds
    # Its deadline is on the clock of the machine that trains it.
    training = replace(
        training,
        device=problem.device,
        deadline=training.deadline and problem.deadline,
    )
    try:
        return train_network(training, full.train)
    except Exception as error:
        reason = failure_reason(error)
    # Outside of the handler: the error holds on to all that filled the memory.
    if reason != OUT_OF_MEMORY or training.is_halved:
        return reason
    free_memory(training.device)
    return _train_or_tell(problem, replace(training, is_halved=True))


def _warn_of_halves(outcomes: list[TrainedNetwork | str]) -> None:
    nets = [o.net for o in outcomes if isinstance(o, TrainedNetwork)]
    n_halved = sum(net.n_parts > 1 for net in nets)
    if n_halved:
        warn_user(
            f"{n_halved} of {len(nets)} networks were trained on all rows in halves of "
            "a batch, as memory ran out."
        )


def _members(
    planned: Chosen, outcomes: list[TrainedNetwork | str]
) -> tuple[Member, ...]:
    """Members of what was trained to the end, or at least the first one."""
    members: list[Member] = []
    for trial, weight, temperature, outcome in zip(
        planned.trials, planned.weights, planned.temperatures, outcomes, strict=False
    ):
        if isinstance(outcome, str) or (members and outcome.is_cut):
            continue
        nets = (outcome.net,)
        members.append(Member(trial.architecture, nets, (0,), weight, temperature))
    total = sum(member.weight for member in members)
    return tuple(replace(m, weight=m.weight / total) for m in members)


def _in_time(
    chosen: Chosen, trainings: Sequence[Training], problem: Problem
) -> list[int]:
    """Places of the members there is time for, at least one.

    Those in the journal take none.
    """
    left = SAFE * problem.seconds_left
    places: list[int] = []
    seconds = 0.0
    for place, training in enumerate(trainings):
        if problem.journal.get(_key(training)) is None:
            usual = refit_seconds(chosen.trials[place])
            seconds += usual / (problem.n_jobs if places else 1)
            if places and seconds >= left:
                continue
        places.append(place)
    return places


def _training(trial: Trial, space: Space, problem: Problem, full: Fold) -> Training:
    told = {"stop": trial.stop, "is_halved": trial.reason == IN_HALVES}
    return training_of(trial.proposal, space, full, problem, is_final=True, **told)
