"""The reference trainer: one network after another, through skorch."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sknas._budget import IMAGE_COST, TABLE_COST
from sknas._history import Proposal, Trial
from sknas._problem import Problem, RunContext
from sknas._scoring.folds import score_networks
from sknas._validation import reject
from sknas.spaces import Space
from sknas.trainers._advance import advance_all
from sknas.trainers._base import Trainer
from sknas.trainers._group import RECORDS, NetworkGroup, TrialState
from sknas.trainers._inference_net import to_inference_net
from sknas.trainers._schedule import Schedule
from sknas.trainers._snapshot import Snapshot
from sknas.trainers._successive_halving import successive_halving
from sknas.trainers._train_network import TrainedNetwork, make_training, train_network

if TYPE_CHECKING:
    from sknas.trainers._skorch_net import TensorNet
else:  # for typing.get_type_hints, without skorch
    TensorNet = Any


class SkorchTrainer(Trainer):
    """Trains each network by itself, in any space, for tables and images.

    At the rungs, where the learning rate is zero, the weaker trials are dropped, and
    keep their score and the rung they reached; the others go on. The number of epochs
    is chosen jointly over the folds, by the score on their validation rows. On a CPU
    the trials are spread over worker processes of one thread.

    Parameters
    ----------
    halving : bool, default=True
        True to drop weaker trials at the rungs.

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
    keeps_networks = True
    records = RECORDS

    def __init__(self, halving: bool = True) -> None:
        self.halving = halving

    def setup(self, space: Space, problem: Problem, context: RunContext) -> None:
        if not space.builds_networks:
            allowed = "a Space that builds networks, which a dict of choices does not"
            reject("SkorchTrainer", "search_space", space, allowed)
        self.space_ = space
        self.problem_ = problem
        self.context_ = context

    def train(self, proposals: Sequence[Proposal]) -> list[Trial]:
        advance = partial(
            advance_all,
            train=train_alone,
            estimate=self._estimate_seconds,
            space=self.space_,
            problem=self.problem_,
            context=self.context_,
        )
        groups = []
        for proposal in proposals:
            schedule = Schedule.of(proposal.architecture, self.problem_)
            state = TrialState(proposal, schedule)
            groups.append(NetworkGroup([state], is_stacked=False))
        trials = successive_halving(
            groups,
            advance,
            len(self.problem_.folds),
            self.context_,
            halving=self.halving,
        )
        return [trials[proposal.number] for proposal in proposals]

    def _estimate_seconds(self, group: NetworkGroup, n_steps: int) -> float:
        """Estimate the seconds of some steps on all folds, in one process."""
        task = self.problem_.task
        assert task is not None
        (trial,) = group.trials
        if group.step:
            return n_steps * trial.seconds / group.step
        batch_size = trial.proposal.architecture.get("batch_size", 256)
        n_pixels = None if task.image is None else math.prod(task.image.shape[1:])
        cost = TABLE_COST if task.image is None else IMAGE_COST
        seconds = cost.seconds(batch_size, task.n_columns, n_pixels)
        return n_steps * len(self.problem_.folds) * seconds

    def to_networks(self, trial: Trial) -> tuple[TensorNet, ...]:
        assert trial.networks is not None
        nets = []
        for fold, state in zip(self.problem_.folds, trial.networks, strict=True):
            net = to_inference_net(self.space_, trial.architecture, fold.task)
            net.module_.load_state_dict(state)
            nets.append(net)
        return tuple(nets)


def train_alone(
    group: NetworkGroup, rung: int, space: Space, problem: Problem, context: RunContext
) -> None:
    """Train the only trial of a group in place, one fold after another."""
    (trial,) = group.trials
    starts = group.networks or (None,) * len(problem.folds)
    trained: list[TrainedNetwork] = []
    for fold, start in zip(problem.folds, starts, strict=True):
        training = make_training(
            trial.proposal,
            space,
            fold,
            problem,
            context,
            rungs_left=len(group.schedule.rungs) - 1 - rung,
            n_micro_batches=trial.n_micro_batches,
        )
        trained.append(train_network(training, fold.train, fold.valid.x, start))
        if trained[-1].is_truncated:
            return
    trial.build_seconds = sum(network.build_seconds for network in trained)
    by_step = list(zip(*(network.snapshots for network in trained), strict=True))
    for snapshots in by_step if problem.scores_rungs else by_step[-1:]:
        _score(trial, snapshots, trained[0].n_params, problem, context)
    group.step = group.schedule.rungs[rung]
    group.networks = tuple(network.state for network in trained)


def _score(
    trial: TrialState,
    snapshots: Sequence[Snapshot],
    n_params: int,
    problem: Problem,
    context: RunContext,
) -> None:
    """Score the snapshots of all folds at one point of the schedule."""
    started = time.monotonic()
    outputs = [snapshot.output[None] for snapshot in snapshots]
    scores = score_networks(problem, outputs, context.deadline)
    states = tuple(snapshot.state for snapshot in snapshots)
    trial.update_best(scores, 0, snapshots[0].share, n_params, lambda: states)
    trial.score_seconds += time.monotonic() - started
    trial.score_seconds += sum(snapshot.seconds for snapshot in snapshots)
