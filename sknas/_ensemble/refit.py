"""Train the selected architectures once more, on all rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from sknas._checkpoint import keys
from sknas._ensemble.predictor import Ensemble, Member
from sknas._ensemble.selection import Selection
from sknas._history import Fault, Trial
from sknas._parallel.run import run_tasks
from sknas._problem import Fold, Problem, RunContext
from sknas._training.isolation import fault_of, run_with_memory_retry
from sknas._validation import warn_user
from sknas.exceptions import SearchFailedError
from sknas.spaces import Space
from sknas.trainers import TrainedNetwork, Trainer, Training, train_network
from sknas.trainers._train_network import make_training, restore_network

PLANNED_SHARE = 0.8  # share of the time left that planned refits may take
LAST_SECONDS = 1.0  # seconds for the first member after Ctrl-C
BUILDING_TIME = 1.0  # seconds after the deadline in which networks may be built


@dataclass(frozen=True, eq=False)
class RefitResult:
    """The outcome of a refit.

    Parameters
    ----------
    ensemble : Ensemble
        The networks that were trained.
    failures : tuple of str
        Reasons of those that could not be trained.
    is_interrupted : bool, default=False
        True if Ctrl-C ended the refit.
    """

    ensemble: Ensemble
    failures: tuple[str, ...] = ()
    is_interrupted: bool = False


def refit_seconds(trial: Trial) -> float:
    """Estimate the seconds of training a trial's network again, in one process."""
    return trial.stop * float(np.mean(trial.fold_seconds or (0.0,)))


def build_from_folds(
    selection: Selection, trainer: Trainer, problem: Problem, context: RunContext
) -> Ensemble:
    """Return the fold networks of the selected trials as an ensemble.

    Members whose networks take too long to build are left out, but the first.
    """
    indices = tuple(range(len(problem.folds)))
    members: list[Member] = []
    seconds = 0.0
    for trial, weight, temperature in zip(
        selection.trials, selection.weights, selection.temperatures, strict=True
    ):
        if members and seconds > context.seconds_left + BUILDING_TIME:
            break
        started = time.monotonic()
        networks = trainer.to_networks(trial)
        seconds = time.monotonic() - started
        architecture = trial.architecture
        members.append(Member(architecture, networks, indices, weight, temperature))
    is_whole = len(members) == len(selection.trials)
    members = members if is_whole else list(_normalised(members))
    temperature = selection.temperature
    return _ensemble(members, problem.folds, context.device, temperature)


def refit(
    selection: Selection,
    fallbacks: list[Trial],
    space: Space,
    problem: Problem,
    context: RunContext,
) -> RefitResult:
    """Train the selected trials on all rows, the largest weight first.

    Members for which there is no time are left out. The first one is always trained,
    its learning rate annealed in the time that is left. If no member can be trained,
    the fallbacks are tried one by one. Ctrl-C ends the refit with the members so far.

    Parameters
    ----------
    selection : Selection
        Trials, weights and temperatures.
    fallbacks : list of Trial
        Other trials, the best first.
    space : Space
        Builds the networks.
    problem : Problem
        Holds all rows, encoded.
    context : RunContext
        The device, the workers, and the time that is left.

    Raises
    ------
    SearchFailedError
        If no network can be trained.
    """
    assert problem.full is not None
    trainings = [_training(t, space, problem, context) for t in selection.trials]
    indices = _in_time(selection, trainings, context)
    planned = selection.take(indices)
    full = replace(problem, folds=(problem.full,))
    outcomes, is_interrupted = _train_all(
        [trainings[i] for i in indices], planned, full, context
    )
    members = _members(planned, outcomes)
    for trial in fallbacks:
        if members:
            break
        training = _training(trial, space, problem, context)
        outcomes.append(_train_or_fault(full, context, training))
        members = _members(Selection((trial,)), outcomes[-1:])
    _warn_of_micro_batches(outcomes)
    failures = tuple(str(outcome) for outcome in outcomes if isinstance(outcome, Fault))
    if not members:
        raise SearchFailedError(
            f"No network could be trained on all rows: {'; '.join(failures)}."
        )
    ensemble = _ensemble(members, full.folds, context.device, selection.temperature)
    return RefitResult(ensemble, failures, is_interrupted)


def _training(
    trial: Trial, space: Space, problem: Problem, context: RunContext
) -> Training:
    assert problem.full is not None
    return make_training(
        trial.proposal,
        space,
        problem.full,
        problem,
        context,
        is_final=True,
        stop=trial.stop,
        n_micro_batches=trial.n_micro_batches,
    )


def _in_time(
    selection: Selection, trainings: Sequence[Training], context: RunContext
) -> list[int]:
    """Return the indices of the members there is time for, at least one.

    Members in the store take no time.
    """
    seconds_left = PLANNED_SHARE * context.seconds_left
    indices: list[int] = []
    seconds = 0.0
    for index, training in enumerate(trainings):
        if context.store.get(_key(training)) is None:
            expected = refit_seconds(selection.trials[index])
            seconds += expected / (context.n_jobs if index else 1)
            if index and seconds >= seconds_left:
                continue
        indices.append(index)
    return indices


def _train_all(
    trainings: Sequence[Training],
    planned: Selection,
    full: Problem,
    context: RunContext,
) -> tuple[list[TrainedNetwork | Fault], bool]:
    """Return the outcomes in order, and True if Ctrl-C ended the training."""
    outcomes: list[TrainedNetwork | Fault] = []
    seconds = sum(refit_seconds(trial) for trial in planned.trials)
    try:
        for outcome in _outcomes(trainings, full, context, seconds):
            outcomes.append(outcome)
    except KeyboardInterrupt:
        if not any(isinstance(outcome, TrainedNetwork) for outcome in outcomes):
            soon = time.monotonic() + LAST_SECONDS
            training = replace(trainings[0], deadline=soon)
            outcomes = [
                _train_or_fault(full, replace(context, deadline=soon), training)
            ]
        return outcomes, True
    return outcomes, False


def _outcomes(
    trainings: Sequence[Training], full: Problem, context: RunContext, seconds: float
) -> Iterator[TrainedNetwork | Fault]:
    """Yield the networks in order, those in the store without training them again."""
    store = context.store
    states = {key: store.get(key) for key in map(_key, trainings)}
    tasks = [(t,) for t in trainings if states[_key(t)] is None]
    trained = iter(run_tasks(_train_or_fault, tasks, full, context, seconds))
    for training in trainings:
        key = _key(training)
        if states[key] is not None:
            yield restore_network(training, states[key])
            continue
        outcome = next(trained)
        if isinstance(outcome, TrainedNetwork) and not outcome.is_truncated:
            store.put(key, outcome.state.parameters)
        yield outcome


def _key(training: Training) -> str:
    return keys.refit(training.seed, training.stop)


def _train_or_fault(
    full: Problem, context: RunContext, training: Training
) -> TrainedNetwork | Fault:
    """Train a network on the only fold; retry in micro-batches if memory runs out."""
    (fold,) = full.folds
    # The deadline of the context is on the clock of the machine that trains.
    training = replace(
        training,
        device=context.device,
        deadline=training.deadline and context.deadline,
    )
    trainings = [training, replace(training, n_micro_batches=2)]
    attempts = [
        partial(train_network, each, fold.train)
        for each in trainings[training.n_micro_batches - 1 :]
    ]
    try:
        return run_with_memory_retry(attempts, training.device)
    except Exception as error:
        return fault_of(error)


def _members(
    planned: Selection, outcomes: list[TrainedNetwork | Fault]
) -> tuple[Member, ...]:
    """Return the trained networks as members; only the first may be truncated."""
    members: list[Member] = []
    for trial, weight, temperature, outcome in zip(
        planned.trials, planned.weights, planned.temperatures, outcomes, strict=False
    ):
        if isinstance(outcome, Fault) or (members and outcome.is_truncated):
            continue
        nets = (outcome.net,)
        members.append(Member(trial.architecture, nets, (0,), weight, temperature))
    return _normalised(members)


def _normalised(members: Sequence[Member]) -> tuple[Member, ...]:
    """Return members whose weights sum to 1."""
    total = sum(member.weight for member in members)
    return tuple(replace(m, weight=m.weight / total) for m in members)


def _ensemble(
    members: Sequence[Member], folds: Sequence[Fold], device: str, temperature: float
) -> Ensemble:
    encodings = tuple((fold.encoder, fold.restore) for fold in folds)
    kind, is_single = folds[0].task.kind, all(fold.is_single for fold in folds)
    return Ensemble(tuple(members), encodings, kind, device, temperature, is_single)


def _warn_of_micro_batches(outcomes: list[TrainedNetwork | Fault]) -> None:
    nets = [o.net for o in outcomes if isinstance(o, TrainedNetwork)]
    n_split = sum(net.n_micro_batches > 1 for net in nets)
    if n_split:
        warn_user(
            f"{n_split} of {len(nets)} networks were trained on all rows in "
            "micro-batches, because memory ran out."
        )
