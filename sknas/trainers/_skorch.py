"""The reference trainer: one network after another, through skorch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sknas._budget import alone_seconds
from sknas._history import INTERRUPTED, OUT_OF_MEMORY, OUT_OF_TIME, Proposal, Trial
from sknas._problem import Problem
from sknas._scoring.folds import score_networks
from sknas._training.isolation import failure_reason, free_memory, isolated
from sknas._validation import reject
from sknas.spaces import DictSpace, Space
from sknas.trainers._group import BestSnapshot, TrialState, stopped
from sknas.trainers._memory_free import bytes_free, too_large
from sknas.trainers._memory_need import bytes_needed
from sknas.trainers._schedule import Schedule
from sknas.trainers._skorch_net import (
    Checkpoint,
    TensorNet,
    TrainedNetwork,
    to_inference_net,
    train_network,
    training_of,
)
from sknas.trainers._successive_halving import CohortTrainer, Schedules


@dataclass(eq=False)
class Single:
    """A unit of one member, and where the network of each fold stands.

    Parameters
    ----------
    members : list of Member
        The one that is trained.
    step : int, default=0
        Steps that are done.
    is_cut : bool, default=False
        Whether time ended first.
    checkpoints : tuple of Checkpoint or None
        One a fold; None before the first step.
    """

    members: list[TrialState]
    step: int = 0
    is_cut: bool = False
    checkpoints: tuple[Checkpoint, ...] | None = None

    def kept(self, places: Sequence[int]) -> Single:
        """The unit itself: it is dropped whole, or not at all."""
        return self


class SkorchTrainer(CohortTrainer):
    """Trains each network by itself, in any space, for tables and images.

    At points of the schedule where the learning rate is zero the weaker trials of a
    cohort are dropped, the others go on; a trial that was dropped keeps its score and
    the rung it reached. The number of epochs is chosen jointly over the folds among
    these points, by the score on their validation rows. On a CPU networks are spread
    over worker processes of one thread.

    Parameters
    ----------
    halving : bool, default=True
        Whether weaker trials are dropped on the way.

    References
    ----------
    Tietz, Fan, Nouri, Bossan: skorch: A scikit-learn compatible neural network library
    that wraps PyTorch. 2017.
    Jamieson, Talwalkar: Non-stochastic Best Arm Identification and Hyperparameter
    Optimization. arXiv:1502.07943.

    Examples
    --------
    >>> from sknas import NASClassifier
    >>> from sknas.trainers import SkorchTrainer
    >>> search = NASClassifier(trainer=SkorchTrainer())
    """

    n_proposals = 8
    records = (BestSnapshot, Checkpoint, TrialState, Single)

    def setup(self, space: Space) -> None:
        if isinstance(space, DictSpace):
            allowed = "a Space that builds networks, which a dict of choices does not"
            reject("SkorchTrainer", "search_space", space, allowed)
        super().setup(space)

    @property
    def _advance(self) -> Callable[..., list[Any]]:
        return advance_single

    def _units(
        self, proposals: Sequence[Proposal], problem: Problem, schedules: Schedules
    ) -> list[Any]:
        return [Single([TrialState(proposal)]) for proposal in proposals]

    def _seconds(
        self, unit: Any, schedule: Schedule, n_steps: int, problem: Problem
    ) -> float:
        assert problem.task is not None
        (member,) = unit.members
        if unit.step:
            return n_steps * member.seconds / unit.step
        batch_size = member.proposal.architecture.get("batch_size", 256)
        task = problem.task
        n_pixels = None if task.image is None else math.prod(task.image.shape[1:])
        seconds = alone_seconds(batch_size, task.n_columns, n_pixels)
        return n_steps * len(problem.folds) * seconds

    def rebuilt(self, trial: Trial, problem: Problem) -> tuple[TensorNet, ...]:
        assert trial.networks is not None
        nets = []
        with isolated(0, "cpu"):
            for fold, state in zip(problem.folds, trial.networks, strict=True):
                module = self.space_.build([trial.architecture], fold.task)
                module.load_state_dict(state)
                nets.append(to_inference_net(module, trial.architecture, fold.task))
        return tuple(nets)


def advance_single(
    unit: Single, space: Space, problem: Problem, schedule: Schedule, rung: int
) -> list[Single]:
    """Train a unit up to a rung; whatever goes wrong becomes a reason.

    Where memory runs out it is trained again, with each batch in two halves.
    """
    if problem.seconds_left <= 0:
        return [stopped(unit, OUT_OF_TIME)]
    started = time.monotonic()
    (member,) = unit.members
    if not (unit.step or member.is_halved):
        needed = bytes_needed(space, member.proposal.architecture, problem)
        free = bytes_free(problem.device)
        if needed > free:
            return [stopped(unit, too_large(needed, free))]
    starts = unit.checkpoints or (None,) * len(problem.folds)
    rungs_left = len(schedule.rungs) - 1 - rung
    trained: list[TrainedNetwork] = []
    reason = ""
    try:
        for fold, start in zip(problem.folds, starts, strict=True):
            told = {"rungs_left": rungs_left, "is_halved": member.is_halved}
            training = training_of(member.proposal, space, fold, problem, **told)
            trained.append(train_network(training, fold.train, fold.valid.x, start))
            if trained[-1].is_cut:
                reason = OUT_OF_TIME
                break
        member = (
            member if reason else _with_snapshots(member, trained, problem, schedule)
        )
    except KeyboardInterrupt:
        reason = INTERRUPTED
    except Exception as error:
        reason = failure_reason(error)
    # Outside of the handler: the error holds on to all that filled the memory.
    if reason == OUT_OF_MEMORY and not member.is_halved:
        trained.clear()
        free_memory(problem.device)
        again = replace(unit, members=[replace(member, is_halved=True)])
        return advance_single(again, space, problem, schedule, rung)
    seconds = member.seconds + time.monotonic() - started
    member = replace(member, seconds=seconds, reason=reason)
    if reason:
        return [Single([member], unit.step, True)]
    checkpoints = tuple(network.checkpoint for network in trained)
    return [Single([member], schedule.rungs[rung], False, checkpoints)]


def _with_snapshots(
    member: TrialState,
    trained: Sequence[TrainedNetwork],
    problem: Problem,
    schedule: Schedule,
) -> TrialState:
    """The member with the scores of a rung, at the best of all points so far."""
    best = member.best
    for snapshots in zip(*(network.snapshots for network in trained), strict=True):
        scores = score_networks(problem, [look.output[None] for look in snapshots])
        value = scores.value(0)
        if np.isfinite(value) and (best is None or value >= best.value):
            best = BestSnapshot(
                value=value,
                share=snapshots[0].share,
                step=round(snapshots[0].share * schedule.n_steps),
                score=float(scores.mean[0]),
                loss=float(scores.loss[0]),
                fold_scores=tuple(scores.scores[0].tolist()),
                predictions=scores.predictions(0),
                networks=tuple(look.state for look in snapshots),
                n_params=trained[0].n_params,
            )
    if best is None:
        return member
    return replace(
        member,
        best=best,
        rung_scores=(*member.rung_scores, best.score),
        rung_losses=(*member.rung_losses, best.loss),
    )
