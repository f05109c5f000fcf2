"""Training of one network, through skorch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from sknas._history import Architecture, Proposal
from sknas._problem import Fold, Problem, Rows, RunContext, TaskSpec
from sknas._training.batches import Batches, count_batches
from sknas._training.isolation import isolated
from sknas._training.optimizer import Optimizer, find_recipe
from sknas._training.schedules import Length, cycle_ends, n_cycles, training_length
from sknas._training.seeds import random_state, set_random_state
from sknas.nets import InitializedModule
from sknas.spaces import Space
from sknas.trainers._batches import N_STARTING, half_precision
from sknas.trainers._group import NetworkState, State
from sknas.trainers._inference_net import prepare_inference, to_inference_net, wrap
from sknas.trainers._snapshot import Snapshot, state_of

if TYPE_CHECKING:
    from sknas.trainers._skorch_net import TensorNet
else:  # for typing.get_type_hints, without skorch
    TensorNet = Any


@dataclass(frozen=True, eq=False)
class Training:
    """The settings of the training of one network.

    Parameters
    ----------
    space : Space
        Builds the network.
    architecture : Architecture
        The network and its training choices. Defaults of choices that a space does not
        have: AdamW at 1e-3, no weight decay, the default batch size.
    task : TaskSpec
        Layout of the rows and the kind of target.
    n_steps : int
        Steps of a full training at the default batch size.
    max_epochs : int or None
        Upper bound of epochs.
    seed : int
        Seeds parameters, dropout and the order of batches.
    device : str
        Where to train.
    deadline : float or None
        End of the training on the monotonic clock, in seconds.
    stop : float, default=1.0
        Share of the schedule after which to stop.
    rungs_left : int or None, default=None
        Rungs that are left when the training stops; None to stop after a share.
    precision : torch.dtype or None, default=None
        Precision of products in training; None for that of the parameters.
    n_micro_batches : int, default=1
        Parts of each batch, more than one if memory ran out.
    is_final : bool, default=False
        True to anneal the learning rate to zero by the deadline, if that comes before
        the end of the schedule. False for networks that are compared.
    """

    space: Space
    architecture: Mapping[str, Any]
    task: TaskSpec
    n_steps: int
    max_epochs: int | None
    seed: int
    device: str = "cpu"
    deadline: float | None = None
    stop: float = 1.0
    rungs_left: int | None = None
    precision: torch.dtype | None = None
    n_micro_batches: int = 1
    is_final: bool = False


def make_training(
    proposal: Proposal,
    space: Space,
    fold: Fold,
    problem: Problem,
    context: RunContext,
    **changes: Any,
) -> Training:
    """Return how to train a proposal on a fold: images in half precision, if faster."""
    is_image = fold.task.image is not None
    return Training(
        space=space,
        architecture=dict(proposal.architecture),
        task=fold.task,
        n_steps=problem.n_steps,
        max_epochs=problem.max_epochs,
        seed=proposal.seed,
        device=context.device,
        deadline=context.deadline,
        precision=half_precision(problem, context.device) if is_image else None,
        **changes,
    )


@dataclass(eq=False)
class TrainedNetwork:
    """The outcome of a training.

    Parameters
    ----------
    net : TensorNet
        The trained network, on the CPU, without its optimiser.
    snapshots : list of Snapshot
        The network at each step where the learning rate was zero.
    is_truncated : bool
        True if the deadline ended the training.
    n_params : int
        Trained parameters.
    state : NetworkState
        Where a longer training can start from.
    build_seconds : float, default=0.0
        Seconds to build the network.
    """

    net: TensorNet
    snapshots: list[Snapshot]
    is_truncated: bool
    n_params: int
    state: NetworkState
    build_seconds: float = 0.0


def train_network(
    training: Training,
    train: Rows,
    valid_x: np.ndarray | None = None,
    start: NetworkState | None = None,
) -> TrainedNetwork:
    """Train one network.

    Parameters
    ----------
    training : Training
        How to train.
    train : Rows
        Rows to train on.
    valid_x : ndarray of shape (N, F) or None, default=None
        Rows to evaluate in snapshots.
    start : NetworkState or None, default=None
        The state that the same training reached with an earlier stop.

    Returns
    -------
    TrainedNetwork
        The network and its snapshots.

    Raises
    ------
    DivergedError
        If the loss or an output becomes infinite or NaN.
    """
    with isolated(training.seed, training.device):
        return _train(training, train, valid_x, start)


def restore_network(training: Training, state: State) -> TrainedNetwork:
    """Return the outcome of a training that ended with these parameters."""
    architecture = Architecture(training.architecture)
    net = to_inference_net(training.space, architecture, training.task)
    net.module_.load_state_dict(state)
    n_params = _count(net.module_)
    return TrainedNetwork(net, [], False, n_params, NetworkState(0, state, []))


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _train(
    training: Training,
    train: Rows,
    valid_x: np.ndarray | None,
    start: NetworkState | None,
) -> TrainedNetwork:
    # skorch is imported by the first training, not by sknas.
    from sknas.trainers._skorch_net import LRSchedule, ValidationSnapshots, fit_steps

    device, total = training.device, float(train.weight.sum())
    length = _length(training, total)
    x, y, weight = (
        torch.tensor(array, device=device) for array in (train.x, train.y, train.weight)
    )
    due, last = _stops(training, length)
    n_taken = 0 if start is None else start.n_snapshots
    watched = x[:0] if valid_x is None else torch.tensor(valid_x, device=device)
    due = [] if valid_x is None else due[n_taken:]
    validation = ValidationSnapshots(watched, due, length.n_steps)
    final_share = training.stop if training.is_final else None
    schedule = LRSchedule(length, last, training.deadline, final_share)
    started = time.monotonic()
    net = _make_net(training, x, [validation, schedule], start)
    build_seconds = time.monotonic() - started
    weight = (weight / weight.mean()).to(torch.float32)
    batch_size = training.architecture.get("batch_size", 256)
    n_batches = count_batches(len(train), total, batch_size)
    batches = Batches((x, y, weight), n_batches, training.seed, net.step)
    net.max_epochs = -(-length.n_steps // len(batches))
    fit_steps(net, batches, last)
    state = NetworkState(
        net.step,
        state_of(net.module_),
        net.optimizer_.state_dict(),
        random_state(device),
        n_taken + len(validation.snapshots),
    )
    is_truncated, n_params = net.step < last, _count(net.module_)
    prepare_inference(net)
    return TrainedNetwork(
        net, validation.snapshots, is_truncated, n_params, state, build_seconds
    )


def _length(training: Training, total: float) -> Length:
    """Return the length of a training on rows of a total weight."""
    return training_length(
        training.task.n_rows,
        total,
        training.n_steps,
        training.architecture.get("batch_size", 256),
        training.max_epochs,
        is_image=training.task.image is not None,
    )


def _stops(training: Training, length: Length) -> tuple[list[int], int]:
    """Return the steps of the snapshots, and the last step."""
    # One step per cycle, not distinct ones: all folds have as many, however small.
    steps = cycle_ends(length.n_steps, n_cycles(length.planned))
    if training.rungs_left is None:
        last = max(1, round(training.stop * length.n_steps))
        return [step for step in steps if step <= last], last
    steps = steps[: max(1, len(steps) - training.rungs_left)]
    return steps, steps[-1]


def _make_net(
    training: Training,
    x: Tensor,
    callbacks: Sequence[Any],
    start: NetworkState | None,
) -> TensorNet:
    """Return a skorch net ready to train, initialised or as it was at `start`."""
    architecture = Architecture(training.architecture)
    net = wrap(
        training.space,
        architecture,
        training.task,
        callbacks=callbacks,
        device=training.device,
    )
    net.precision = training.precision
    net.n_micro_batches = training.n_micro_batches
    if start is not None:
        net.module_.load_state_dict(start.parameters)
    elif isinstance(net.module_, InitializedModule):
        net.module_.initialize(find_recipe(architecture).init, x[:N_STARTING])
    net.optimizer_ = Optimizer(net.module_, [architecture])
    if start is not None:
        assert start.rng is not None
        net.step = start.step
        net.optimizer_.load_state_dict(start.optimizer)
        set_random_state(training.device, start.rng)
    return net
