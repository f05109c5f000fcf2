"""Training of one network, through skorch."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.utils import get_map_location
from torch import Tensor, nn

from sknas._budget import Length, training_length
from sknas._history import DIVERGED, Architecture, Proposal
from sknas._problem import Fold, Problem, Rows, TaskSpec
from sknas._training.batches import Batches, n_parts
from sknas._training.isolation import (
    DivergedError,
    isolated,
    random_state,
    set_random_state,
)
from sknas._training.loss import WeightedLoss
from sknas._training.optimizer import Optimizer, find_recipe
from sknas._training.schedules import cycle_ends, n_cycles
from sknas.nets import Dropout, TableModule, initialize_weights
from sknas.nets._arrays import from_numpy_shell, to_numpy_shell
from sknas.nets._microbatch import micro_batches
from sknas.spaces import Space
from sknas.trainers._batches import N_STARTING, half_precision

OWN_MODULES, KEPT = ("module_", "criterion_"), "kept_modules"
ROWS_AT_ONCE = 1_024
PIXELS_AT_ONCE = 2**19  # of images; a map of 64 channels of them is 128 MiB


class _TrainingEnd(Exception):  # noqa: N818 - an end is no error
    """Leaves skorch's loop in the middle of an epoch."""


class TensorNet(NeuralNet):
    """A skorch net over tensors that lie in memory.

    The module answers (K, N, C). Batches come from `Batches`, the learning rate from a
    `Conductor`; callbacks and hooks of skorch work as always, but nothing is recorded
    for each batch.
    """

    precision: torch.dtype | None = None  # of products in training
    n_parts = 1  # that each batch is taken in

    @property
    def _default_callbacks(self) -> list[Any]:
        return []

    def __getstate__(self) -> dict[str, Any]:
        # Not that of skorch, which is a pickle inside: this one holds arrays, so that
        # a file that runs no code can keep it.
        state = self.__dict__.copy()
        if self.initialized_:
            del state["module"], state["criterion"]  # they are module_ and criterion_
            state[KEPT] = {
                name: to_numpy_shell(state.pop(name)) for name in OWN_MODULES
            }
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if KEPT in state:
            # As in skorch, a net whose GPU is missing is loaded on the CPU.
            place = get_map_location(state["device"])
            state["device"] = str(place)
            for name, shell in state.pop(KEPT).items():
                state[name] = state[name.rstrip("_")] = from_numpy_shell(shell).to(
                    place
                )
        self.__dict__.update(state)

    def get_dataset(self, X: Any, y: Any = None) -> Any:
        return X if y is None else super().get_dataset(X, y)

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        return dataset if training else super().get_iterator(dataset, training)

    def initialize_optimizer(self, triggered_directly: Any = None) -> TensorNet:
        self.optimizer_ = Optimizer(self.module_, [self.optimizer])
        return self

    def get_loss(
        self, y_pred: Tensor, y_true: Any, X: Any = None, training: bool = False
    ) -> Tensor:
        y, weight = y_true
        return self.criterion_(y_pred, y, weight)

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        self.optimizer_.zero_grad(set_to_none=True)
        n_rows = len(batch[0])
        losses, answers = [], []
        for part in micro_batches(self.module_, n_rows, self.n_parts):
            x, y, weight = (tensor[part] for tensor in batch)
            with self._precision():
                answers.append(self.infer(x, **fit_params))
            loss = self.get_loss(answers[-1], (y, weight), X=x, training=True)
            losses.append(loss * (len(x) / n_rows))
            losses[-1].backward()
        self.optimizer_.step()
        return {"loss": torch.stack(losses).sum(), "y_pred": torch.cat(answers, dim=1)}

    def _precision(self) -> Any:
        """Products in half precision, where the training asks for it."""
        if self.precision is None:
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, self.precision)

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **params: Any
    ) -> None:
        if iterator is None:
            return
        losses = []
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **params)
            losses.append(step["loss"].detach())
            self.notify("on_batch_end", batch=batch, training=training, **step)
        self.history.record(f"{prefix}_loss", float(torch.stack(losses).mean()))


class Conductor(Callback):
    """Sets the learning rate of each step, looks at annealed networks, and ends.

    Parameters
    ----------
    training : Training
        How to train.
    valid_x : Tensor or None
        Rows to answer wherever the learning rate is zero.
    length : Length
        Steps and batches.
    start : Checkpoint or None, default=None
        What was done before.
    """

    def __init__(
        self,
        training: Training,
        valid_x: Tensor | None,
        length: Length,
        start: Checkpoint | None = None,
    ) -> None:
        self.training = training
        self.valid_x = valid_x
        self.n_batches = length.n_batches
        self.n_steps = length.n_steps
        self.cycles = n_cycles(length.planned)
        # A point for each cycle, so that all folds have as many, however small.
        points = cycle_ends(self.n_steps, self.cycles)
        if training.rungs_left is None:
            self.last = max(1, round(training.stop * self.n_steps))
            self.points = [point for point in points if point <= self.last]
        else:
            self.points = points[: max(1, len(points) - training.rungs_left)]
            self.last = self.points[-1]
        self.step = 0 if start is None else start.step
        self.n_snapshots = 0 if start is None else start.n_snapshots
        self.snapshots: list[Snapshot] = []
        self.is_cut = False
        self.started = time.monotonic()

    def on_train_begin(self, net: TensorNet, **kwargs: Any) -> None:
        net._set_training(True)  # once, not each batch as skorch does
        self.dropouts = [m for m in net.module_.modules() if isinstance(m, Dropout)]

    def on_batch_begin(self, net: TensorNet, **kwargs: Any) -> None:
        # Half a step on: neither the first nor the last step is at rate 0.
        progress = (self.step + 0.5) / self.n_steps
        deadline = self.training.deadline
        if self.training.is_final and deadline is not None:
            passed = time.monotonic() - self.started
            share = passed / max(deadline - self.started, 1e-9)
            progress = max(progress, self.training.stop * min(share, 1.0))
        net.optimizer_.prepare(progress, self.cycles)
        for dropout in self.dropouts:
            dropout.strength = net.optimizer_.fade

    def on_batch_end(self, net: TensorNet, **kwargs: Any) -> None:
        self.step += 1
        self.take_due_snapshots(net)
        deadline = self.training.deadline
        self.is_cut = deadline is not None and time.monotonic() > deadline
        if self.step >= self.last or self.is_cut:
            if not torch.isfinite(kwargs["loss"]):
                raise DivergedError(DIVERGED)
            raise _TrainingEnd

    def on_epoch_end(self, net: TensorNet, **kwargs: Any) -> None:
        if not np.isfinite(net.history[-1, "train_loss"]):
            raise DivergedError(DIVERGED)

    def take_due_snapshots(self, net: TensorNet) -> None:
        """Look at the network once for each annealed point that is reached."""
        if self.valid_x is None:
            return
        while (
            self.points[self.n_snapshots :]
            and self.step >= self.points[self.n_snapshots]
        ):
            self._look(net, self.valid_x)
            self.n_snapshots += 1

    def _look(self, net: TensorNet, valid_x: Tensor) -> None:
        net._set_training(False)
        output = evaluate(net.module_, valid_x, net.n_parts)
        net._set_training(True)
        if not np.isfinite(output).all():
            raise DivergedError(DIVERGED)
        n_epochs = -(-self.step // self.n_batches)
        state = state_of(net.module_)
        self.snapshots.append(
            Snapshot(self.step / self.n_steps, n_epochs, output, state)
        )


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of parameters and statistics, on the CPU."""
    state = module.state_dict()
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A network where the learning rate was zero.

    Parameters
    ----------
    share : float
        Share of the schedule that was done.
    n_epochs : int
        Epochs that were begun.
    output : ndarray of shape (N, C)
        Answers to the validation rows.
    state : dict of str to Tensor
        Parameters and statistics.
    """

    share: float
    n_epochs: int
    output: np.ndarray
    state: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All that a training needs to go on as if it had never stopped.

    Parameters
    ----------
    step : int
        Steps that were done.
    state : dict of str to Tensor
        Parameters and statistics.
    moments : list of dict
        What the optimiser remembers.
    random : Tensor
        The state of torch's generator on the device of the training.
    n_snapshots : int
        Annealed points at which the network was looked at.
    """

    step: int
    state: dict[str, Tensor]
    moments: list[dict[str, Tensor]]
    random: Tensor
    n_snapshots: int


@dataclass(frozen=True, eq=False)
class Training:
    """How to train an architecture.

    Parameters
    ----------
    space : Space
        Builds the network.
    architecture : Architecture
        What to build, and the training choices. Choices a space does not have take
        these values: AdamW at 1e-3, no weight decay, the default batch size.
    task : TaskSpec
        Layout of the rows and the kind of target.
    n_steps : int
        Steps of a full training at the default batch size.
    max_epochs : int or None
        Bound of epochs.
    seed : int
        Seeds weights, dropout and the order of batches.
    device : str
        Where to train.
    deadline : float or None
        End of the time on the monotonic clock, in seconds.
    stop : float, default=1.0
        Share of the schedule after which to stop.
    rungs_left : int or None, default=None
        Annealed points that are left where to stop; None to stop at a share.
    precision : torch.dtype or None, default=None
        Of products in training, where it is not that of the weights.
    is_halved : bool, default=False
        Whether each batch is taken in two halves, as memory ran out.
    is_final : bool, default=False
        Whether the schedule gives way to the deadline, so that a network for which
        the time is short ends with a learning rate of zero all the same. Networks to
        be compared never do.
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
    is_halved: bool = False
    is_final: bool = False


def training_of(
    proposal: Proposal, space: Space, fold: Fold, problem: Problem, **changes: Any
) -> Training:
    """How to train a proposal on a fold; tables as the reference says, images fast."""
    is_image = fold.task.image is not None
    return Training(
        space=space,
        architecture=dict(proposal.architecture),
        task=fold.task,
        n_steps=problem.n_steps,
        max_epochs=problem.max_epochs,
        seed=proposal.seed,
        device=problem.device,
        deadline=problem.deadline,
        precision=half_precision(problem) if is_image else None,
        **changes,
    )


@dataclass(eq=False)
class TrainedNetwork:
    """What came of a training.

    Parameters
    ----------
    net : TensorNet
        The trained network, on the CPU, its optimiser dropped.
    looks : list of Look
        The network wherever the learning rate was zero.
    is_cut : bool
        Whether the time ran out first.
    n_params : int
        Trained parameters.
    checkpoint : Checkpoint
        To go on from.
    """

    net: TensorNet
    snapshots: list[Snapshot]
    is_cut: bool
    n_params: int
    checkpoint: Checkpoint


def train_network(
    training: Training,
    train: Rows,
    valid_x: np.ndarray | None = None,
    start: Checkpoint | None = None,
) -> TrainedNetwork:
    """Train one network.

    Parameters
    ----------
    training : Training
        How to train.
    train : Rows
        What to train on.
    valid_x : ndarray of shape (N, F) or None, default=None
        Rows to answer on the way.
    start : Checkpoint or None, default=None
        Where the same training, with an earlier stop, ended.

    Returns
    -------
    TrainedNetwork
        The network, and its answers on the way.

    Raises
    ------
    DivergedError
        If loss or answers become infinite or NaN.
    """
    with isolated(training.seed, training.device):
        return _train(training, train, valid_x, start)


def restored(training: Training, state: dict[str, Tensor]) -> TrainedNetwork:
    """What came of a training that ended in a state, without another one."""
    with isolated(0, "cpu"):
        architecture = Architecture(training.architecture)
        module = training.space.build([architecture], training.task)
        module.load_state_dict(state)
    n_params = sum(p.numel() for p in module.parameters() if p.requires_grad)
    end = Checkpoint(0, state, [], random_state("cpu"), 0)
    net = to_inference_net(module, architecture, training.task)
    return TrainedNetwork(net, [], False, n_params, end)


def _train(
    training: Training,
    train: Rows,
    valid_x: np.ndarray | None,
    start: Checkpoint | None,
) -> TrainedNetwork:
    architecture, task, device = training.architecture, training.task, training.device
    batch_size = architecture.get("batch_size", 256)
    total = float(train.weight.sum())
    length = training_length(
        task.n_rows,
        total,
        training.n_steps,
        batch_size,
        training.max_epochs,
        is_image=task.image is not None,
    )
    x, y, weight = (
        torch.tensor(array, device=device) for array in (train.x, train.y, train.weight)
    )
    module = _started(training, x, start)
    watched = None if valid_x is None else torch.tensor(valid_x, device=device)
    conductor = Conductor(training, watched, length, start)
    net = _make_net(training, module, conductor)
    if start is not None:
        net.optimizer_.load_moments(start.moments)
        set_random_state(device, start.random)
    weight = (weight / weight.mean()).to(torch.float32)
    parts = n_parts(len(train), total, batch_size)
    batches = Batches((x, y, weight), parts, training.seed, conductor.step)
    net.max_epochs = -(-length.n_steps // len(batches))
    net.notify("on_train_begin", X=batches, y=None)
    conductor.take_due_snapshots(net)  # a very short training may be there already
    try:
        if conductor.step < conductor.last:
            net.fit_loop(batches)
    except _TrainingEnd:
        pass  # fit_loop itself lets Ctrl-C through, fit would not
    moments = net.optimizer_.moments()
    n_params = sum(p.numel() for p in module.parameters() if p.requires_grad)
    is_cut = conductor.step < conductor.last
    checkpoint = Checkpoint(
        conductor.step,
        state_of(module),
        moments,
        random_state(device),
        conductor.n_snapshots,
    )
    return TrainedNetwork(
        _at_rest(net), conductor.snapshots, is_cut, n_params, checkpoint
    )


def _started(training: Training, x: Tensor, start: Checkpoint | None) -> nn.Module:
    """The network on its device, at its first weights or those of a checkpoint."""
    architecture = training.architecture
    module = training.space.build([Architecture(architecture)], training.task)
    module.to(training.device)
    if start is not None:
        module.load_state_dict(start.state)
    elif isinstance(module, TableModule):
        recipe = find_recipe(architecture)
        initialize_weights(module.net, recipe.start, module.features(x[:N_STARTING]))
    return module


def _make_net(training: Training, module: nn.Module, conductor: Conductor) -> TensorNet:
    """A skorch net around a module, ready to train."""
    told = {"callbacks": [("conductor", conductor)], "device": training.device}
    net = _wrapped(module, training.architecture, training.task, **told)
    net.precision = training.precision
    net.n_parts = 1 + training.is_halved
    return net


def to_inference_net(
    module: nn.Module, architecture: Mapping[str, Any], task: TaskSpec
) -> TensorNet:
    """A trained module as a skorch net on the CPU, ready to predict."""
    return _at_rest(_wrapped(module, architecture, task))


def _wrapped(
    module: nn.Module, architecture: Mapping[str, Any], task: TaskSpec, **told: Any
) -> TensorNet:
    smoothing = architecture.get("label_smoothing", 0.0)
    return TensorNet(
        module,
        criterion=WeightedLoss(task.kind, (smoothing,)),
        optimizer=architecture,
        train_split=None,
        verbose=0,
        **told,
    ).initialize()


def _at_rest(net: TensorNet) -> TensorNet:
    """Drop what only training needs; a net on the CPU loads on any machine."""
    net.optimizer_ = None  # type: ignore[assignment]
    if net.callbacks_:
        net.set_params(callbacks=None)
    net.callbacks_ = []
    net.module_.to("cpu").eval()
    net.device = "cpu"
    return net


@torch.no_grad()
def evaluate(module: nn.Module, x: Tensor, n_parts: int = 1) -> np.ndarray:
    """Answers (N, C) of one network to rows (N, ...), a bounded number at a time.

    That number is the smaller the more parts a batch is taken in.
    """
    n_rows = max(1, rows_at_once(x.shape[1:]) // n_parts)
    parts = [module(part)[0] for part in x.split(n_rows)]
    return torch.cat(parts).cpu().numpy()


def rows_at_once(shape: Sequence[int]) -> int:
    """Rows of a shape that are answered at once."""
    if len(shape) == 1:
        return ROWS_AT_ONCE
    # Maps of images have many channels.
    return max(1, min(ROWS_AT_ONCE, PIXELS_AT_ONCE // math.prod(shape)))
