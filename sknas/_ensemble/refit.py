"""From a history to what predicts: choose, weigh and refit the winners."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sknas._ensemble.predictor import Ensemble, Member
from sknas._ensemble.selection import Selection
from sknas._history import IN_HALVES, OUT_OF_MEMORY, Trial
from sknas._parallel.run import run_tasks
from sknas._problem import Fold, Problem
from sknas._training.isolation import failure_reason, free_memory
from sknas._validation import warn_user
from sknas.exceptions import SearchFailedError
from sknas.spaces import Space
from sknas.trainers import TrainedNetwork, Training, train_network
from sknas.trainers._skorch_net import restored, training_of
from sknas.trainers._successive_halving import CohortTrainer

SAFE = 0.8  # share of the time left that a refit is planned for
HURRY = 1.0  # seconds that the first member gets after Ctrl-C


def refit_seconds(trial: Trial) -> float:
    """About how long a trial's network takes to train again, in one process."""
    return trial.stop * float(np.mean(trial.fold_seconds or (0.0,)))


def build_from_folds(
    chosen: Selection, trainer: CohortTrainer, problem: Problem
) -> Ensemble:
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
class RefitResult:
    """What came of a refit: what predicts, what failed, whether Ctrl-C ended it."""

    ensemble: Ensemble
    failures: tuple[str, ...] = ()
    is_interrupted: bool = False


def refit(
    chosen: Selection, fallbacks: list[Trial], space: Space, problem: Problem
) -> RefitResult:
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
    for trial in fallbacks:
        if members:
            break
        training = _training(trial, space, problem, full)
        outcomes.append(_train_or_tell(on_all, training))
        members = _members(Selection((trial,)), outcomes[-1:])
    _warn_of_halves(outcomes)
    failures = tuple(outcome for outcome in outcomes if isinstance(outcome, str))
    if not members:
        raise SearchFailedError(
            f"No network could be trained on all rows: {'; '.join(failures)}."
        )
    ensemble = _ensemble(members, [full], problem, chosen.temperature)
    return RefitResult(ensemble, failures, is_interrupted)


def _outcomes(
    trainings: Sequence[Training], problem: Problem, seconds: float
) -> Iterator[TrainedNetwork | str]:
    """What becomes of trainings, in order; what the journal holds is done already."""
    store = problem.store
    keys = [_key(training) for training in trainings]
    states = [store.get(key) for key in keys]
    left = zip(trainings, states, strict=True)
    tasks = [(training,) for training, state in left if state is None]
    fresh = iter(run_tasks(_train_or_tell, tasks, problem, seconds))
    for training, key, state in zip(trainings, keys, states, strict=True):
        if state is not None:
            yield restored(training, state)
            continue
        outcome = next(fresh)
        if isinstance(outcome, TrainedNetwork) and not outcome.is_cut:
            store.put(key, outcome.checkpoint.state)
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
    planned: Selection, outcomes: list[TrainedNetwork | str]
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
    chosen: Selection, trainings: Sequence[Training], problem: Problem
) -> list[int]:
    """Places of the members there is time for, at least one.

    Those in the journal take none.
    """
    left = SAFE * problem.seconds_left
    places: list[int] = []
    seconds = 0.0
    for place, training in enumerate(trainings):
        if problem.store.get(_key(training)) is None:
            usual = refit_seconds(chosen.trials[place])
            seconds += usual / (problem.n_jobs if places else 1)
            if places and seconds >= left:
                continue
        places.append(place)
    return places


def _training(trial: Trial, space: Space, problem: Problem, full: Fold) -> Training:
    told = {"stop": trial.stop, "is_halved": trial.reason == IN_HALVES}
    return training_of(trial.proposal, space, full, problem, is_final=True, **told)
