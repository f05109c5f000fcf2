"""Networks that are trained together, and their trials so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sknas._history import Architecture, Cause, Fault, Proposal, Status, Trial
from sknas._scoring.folds import FoldScores
from sknas.trainers._schedule import Schedule

IN_MICRO_BATCHES = f"trained in micro-batches: {Cause.OUT_OF_MEMORY.value}"
UNSCORED_SNAPSHOT = "a snapshot has no score"
State = dict[str, Tensor]  # tensors by name


@dataclass(frozen=True, eq=False)
class BestSnapshot:
    """The networks of a trial at the snapshot with the best score.

    Parameters
    ----------
    value : float
        Compares snapshots, greater is better.
    share : float
        Share of the schedule that was done.
    step : int
        Steps that were done.
    score, loss : float
        Means over the folds.
    fold_scores : tuple of float
        The score of each fold.
    predictions : ndarray of shape (N, C)
        Predictions of the validated rows, NaN for others.
    networks : tuple of dict
        Parameters and buffers of the network of each fold.
    n_params : int
        Trained parameters of one network.
    """

    value: float
    share: float
    step: int
    score: float
    loss: float
    fold_scores: tuple[float, ...]
    predictions: np.ndarray
    networks: tuple[State, ...]
    n_params: int


@dataclass(eq=False)
class TrialState:
    """A trial in training.

    Parameters
    ----------
    proposal : Proposal
        The architecture and its seed.
    schedule : Schedule
        Its steps, rungs and snapshots.
    best : BestSnapshot or None, default=None
        The best snapshot so far.
    rung_scores : tuple of float, default=()
        The best score up to each rung that was reached, NaN if there was none.
    seconds, score_seconds, build_seconds : float, default=0.0
        Seconds so far, those of them for scores, and those to build networks the last
        time, on all folds together.
    fault : Fault or None, default=None
        Why the training ended early.
    score_reason : str, default=""
        Why the last snapshot without a score has none.
    last_scores : tuple of float, default=()
        The last score of each fold.
    n_micro_batches : int, default=1
        Parts of each batch, more than one if memory ran out.
    """

    proposal: Proposal
    schedule: Schedule
    best: BestSnapshot | None = None
    rung_scores: tuple[float, ...] = ()
    seconds: float = 0.0
    score_seconds: float = 0.0
    build_seconds: float = 0.0
    fault: Fault | None = None
    score_reason: str = ""
    last_scores: tuple[float, ...] = ()
    n_micro_batches: int = 1

    @property
    def value(self) -> float:
        """Ranks trials, greater is better; -inf before the first snapshot."""
        return -np.inf if self.best is None else self.best.value

    @property
    def is_interrupted(self) -> bool:
        """True if Ctrl-C ended the training."""
        return self.fault is not None and self.fault.cause == Cause.INTERRUPTED

    def update_best(
        self,
        scores: FoldScores,
        index: int,
        share: float,
        n_params: int,
        networks: Callable[[], tuple[State, ...]],
    ) -> None:
        """Replace the best snapshot, unless the new one has a lower value.

        A trial without scores of all folds in time ends with its earlier snapshots.
        """
        mean, value = scores.means[index], scores.value(index)
        if scores.late[index]:
            self.fault = Fault(Cause.OUT_OF_TIME)
            return
        if scores.finite[index]:
            self.score_reason = mean.reason.rstrip(".") or self.score_reason
        self.last_scores = tuple(scores.by_fold[index].tolist())
        if not np.isfinite(value) or value < self.value:
            return
        self.best = BestSnapshot(
            value=value,
            share=share,
            step=round(share * self.schedule.n_steps),
            score=mean.value,
            loss=float(scores.loss[index]),
            fold_scores=self.last_scores,
            predictions=scores.predictions(index),
            networks=networks(),
            n_params=n_params,
        )

    def finish_rung(self, fault: Fault | None, seconds: float) -> TrialState:
        """Return the trial at a rung, or at the fault for which it was not reached."""
        fault, scores = self.fault or fault, self.rung_scores
        if fault is None:
            scores = (*scores, np.nan if self.best is None else self.best.score)
        seconds += self.seconds
        return replace(self, fault=fault, rung_scores=scores, seconds=seconds)

    def to_trial(self, n_folds: int) -> Trial:
        """Return the trial as it stands."""
        seconds: dict[str, Any] = {
            "fold_seconds": (self.seconds / n_folds,) * n_folds,
            "score_seconds": (self.score_seconds / n_folds,) * n_folds,
            "seconds": self.seconds,
            "build_seconds": self.build_seconds,
        }
        best = self.best
        if best is None or not np.isfinite(self.rung_scores).any():
            why = self.score_reason or "the scorer returned NaN"
            undefined = Fault(Cause.UNDEFINED_SCORE, f"no score: {why}")
            fault = self.fault or undefined
            status = Status.STOPPED if fault.is_pause else Status.FAILED
            return Trial(
                self.proposal,
                status=status,
                fold_scores=() if self.fault else self.last_scores,
                cause=fault.cause,
                reason=str(fault),
                **seconds,
            )
        # The search must learn of Ctrl-C, although an earlier rung has left a score.
        cause, reason = (
            (Cause.INTERRUPTED, str(self.fault))
            if self.is_interrupted
            else self._peculiarity()
        )
        return Trial(
            replace(self.proposal, rung=len(self.rung_scores) - 1),
            score=best.score,
            loss=best.loss,
            fold_scores=best.fold_scores,
            stop=best.share,
            n_epochs=-(-best.step // self.schedule.n_batches),
            n_params=best.n_params,
            rung_scores=self.rung_scores,
            predictions=best.predictions,
            networks=best.networks,
            n_micro_batches=self.n_micro_batches,
            cause=cause,
            reason=reason,
            **seconds,
        )

    def _peculiarity(self) -> tuple[Cause | None, str]:
        """Return what was unusual about a training with a score."""
        if self.score_reason:
            return Cause.UNDEFINED_SCORE, f"{UNSCORED_SNAPSHOT}: {self.score_reason}"
        return None, IN_MICRO_BATCHES if self.n_micro_batches > 1 else ""


@dataclass(frozen=True, eq=False)
class NetworkState:
    """The state from which a training resumes as if it had never stopped.

    The state of a stack of K networks has the network axis first in all tensors.

    Parameters
    ----------
    step : int
        Steps that were done.
    parameters : dict of str to Tensor
        Parameters and buffers.
    optimizer : list of dict of str to Tensor
        The state of the optimiser, one dict for each parameter.
    rng : Tensor or None, default=None
        The state of torch's generator on the device of the training; None for a stack,
        which seeds each step.
    n_snapshots : int, default=0
        Snapshots that were taken; not counted for a stack.
    """

    step: int
    parameters: State
    optimizer: list[State]
    rng: Tensor | None = None
    n_snapshots: int = 0

    def take(self, indices: Sequence[int], n_trials: int) -> NetworkState:
        """Return the networks of some of the trials of a stack."""

        def take(tensor: Tensor) -> Tensor:
            if not tensor.ndim:  # a count of steps
                return tensor.clone()
            return tensor.unflatten(0, (n_trials, -1))[list(indices)].flatten(0, 1)

        return replace(
            self,
            parameters={name: take(tensor) for name, tensor in self.parameters.items()},
            optimizer=[{n: take(t) for n, t in s.items()} for s in self.optimizer],
        )

    def join(self, other: NetworkState) -> NetworkState:
        """Return this stack followed by another one of the same step."""

        def join(one: State, two: State) -> State:
            return {n: torch.cat([t, two[n]]) if t.ndim else t for n, t in one.items()}

        pairs = zip(self.optimizer, other.optimizer, strict=True)
        return replace(
            self,
            parameters=join(self.parameters, other.parameters),
            optimizer=[join(one, two) for one, two in pairs],
        )


@dataclass(eq=False)
class NetworkGroup:
    """Trials whose networks are trained together, from rung to rung.

    Parameters
    ----------
    trials : list of TrialState
        Trials of the same schedule.
    step : int, default=0
        Steps of the schedule that were done.
    is_stacked : bool, default=True
        True if the networks of all trials and folds are trained as one stack, ordered
        by trial, then by fold. Else there is one trial, whose folds are trained one
        after another.
    networks : tuple of NetworkState, default=()
        The stack, or one state per fold; empty before the first step.
    """

    trials: list[TrialState]
    step: int = 0
    is_stacked: bool = True
    networks: tuple[NetworkState, ...] = ()

    @property
    def schedule(self) -> Schedule:
        """The schedule of all trials."""
        return self.trials[0].schedule

    @property
    def architectures(self) -> list[Architecture]:
        """The architecture of each trial."""
        return [trial.proposal.architecture for trial in self.trials]

    @property
    def n_micro_batches(self) -> int:
        """Parts of each batch."""
        return max(trial.n_micro_batches for trial in self.trials)

    def take(self, indices: Sequence[int]) -> NetworkGroup:
        """Return a group of some of the trials."""
        if list(indices) == list(range(len(self.trials))):
            return self
        networks = tuple(s.take(indices, len(self.trials)) for s in self.networks)
        return replace(
            self, trials=[self.trials[i] for i in indices], networks=networks
        )

    def join(self, other: NetworkGroup) -> NetworkGroup:
        """Return the trials of both groups, stacks of the same step, as one group."""
        pairs = zip(self.networks, other.networks, strict=True)
        networks = tuple(one.join(two) for one, two in pairs)
        return replace(self, trials=[*self.trials, *other.trials], networks=networks)

    def split(self) -> list[NetworkGroup]:
        """Return groups that need less memory: of fewer trials, or in micro-batches."""
        n = len(self.trials)
        if n == 1:
            return [replace(self, trials=[replace(self.trials[0], n_micro_batches=2)])]
        return [self.take(range(n // 2)), self.take(range(n // 2, n))]

    def finish_rung(self, fault: Fault | None, seconds: float = 0.0) -> NetworkGroup:
        """Return the group after a training of some seconds, shared by its trials."""
        share = seconds / len(self.trials)
        return replace(self, trials=[t.finish_rung(fault, share) for t in self.trials])


# Dataclasses of groups that a checkpoint keeps.
RECORDS = (BestSnapshot, Fault, NetworkGroup, NetworkState, Schedule, TrialState)
