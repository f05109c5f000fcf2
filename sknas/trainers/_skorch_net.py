"""A skorch net over tensors, with callbacks for its learning rate and snapshots."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from itertools import chain
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from skorch.utils import get_map_location
from torch import Tensor, nn

from sknas._history import Cause
from sknas._training.isolation import DivergedError, isolated
from sknas._training.schedules import Length, n_cycles
from sknas.nets import Dropout
from sknas.nets._microbatch import micro_batches
from sknas.trainers._snapshot import Snapshot, evaluate, state_of


class TrainingEnd(Exception):  # noqa: N818 - an end is no error
    """Leaves skorch's loop in the middle of an epoch."""


class TensorNet(NeuralNet):
    """A skorch net over tensors in memory.

    The module returns outputs (K, N, C). Batches come from `Batches`, and the learning
    rate from `LRSchedule`. Callbacks and hooks of skorch work as always, but nothing is
    recorded for each batch.

    Attributes
    ----------
    precision : torch.dtype or None
        Precision of products in training; None for that of the parameters.
    n_micro_batches : int
        Parts in which each batch is trained.
    step : int
        Steps that were done.
    """

    precision: torch.dtype | None = None
    n_micro_batches = 1
    step = 0
    optimizer_: Any

    @property
    def _default_callbacks(self) -> list[Any]:
        return []

    def __getstate__(self) -> dict[str, Any]:
        # skorch's own state is a pickle of a pickle. This one holds arrays, so that a
        # file format that runs no code can keep it.
        state = self.__dict__.copy()
        if self.initialized_:
            arrays, dtypes = to_arrays(self.module_), dtypes_of(self.module_)
            state |= {"module_": arrays, "dtypes": dtypes, "criterion_": None}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.initialized_:
            arrays, dtypes = self.module_, self.__dict__.pop("dtypes")
            dtypes = {name: getattr(torch, dtype) for name, dtype in dtypes.items()}
            # Waits for trainings of other threads: a module draws its first parameters.
            with isolated(0, "cpu"):
                self.initialize_module().initialize_criterion()
                module = self.module_
                for name, t in chain(module.named_parameters(), module.named_buffers()):
                    t.data = t.data.to(dtypes.get(name, t.dtype))
                # torch.tensor copies: the array may map a read-only file.
                loaded = {
                    n: torch.tensor(a, dtype=dtypes[n]) if n in dtypes else a
                    for n, a in arrays.items()
                }
                module.load_state_dict(loaded)
            # As in skorch, a net whose GPU is missing is loaded on the CPU.
            self.device = str(get_map_location(state["device"]))
            self.module_.to(self.device).eval()
            self.criterion_.to(self.device)

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        return dataset.X if training else super().get_iterator(dataset, training)

    def initialize_optimizer(self, triggered_directly: Any = None) -> TensorNet:
        self.optimizer_ = None  # made for a training, once the first weights are known
        return self

    def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        self.optimizer_.zero_grad()
        n_rows = len(batch[0])
        losses, outputs = [], []
        for part in micro_batches(self.module_, n_rows, self.n_micro_batches):
            x, y, weight = (tensor[part] for tensor in batch)
            with self._autocast():
                outputs.append(self.infer(x, **fit_params))
            loss = self.criterion_(outputs[-1], y, weight)
            losses.append(loss * (len(x) / n_rows))
            losses[-1].backward()
        self.optimizer_.step()
        self.step += 1
        return {"loss": torch.stack(losses).sum(), "y_pred": torch.cat(outputs, dim=1)}

    def _autocast(self) -> Any:
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
        mean = float(torch.stack(losses).mean())
        self.history.record(f"{prefix}_loss", mean)
        if not math.isfinite(mean):
            raise DivergedError(Cause.DIVERGED)


def fit_steps(net: TensorNet, batches: Any, last: int) -> None:
    """Train a net up to a step, unless its callbacks end the training before."""
    net.notify("on_train_begin", X=batches, y=None)
    try:
        if net.step < last:
            net.fit_loop(batches)
    except TrainingEnd:
        pass  # fit_loop lets Ctrl-C through, which fit would not


class LRSchedule(Callback):
    """Sets the learning rate and the dropout of each step, and ends the training.

    Parameters
    ----------
    length : Length
        Steps of the schedule.
    last : int
        Step after which to stop.
    deadline : float or None, default=None
        End of the training on the monotonic clock, in seconds.
    final_share : float or None, default=None
        Share of the schedule that is reached by the deadline, if not before; None not
        to hurry.
    """

    def __init__(
        self,
        length: Length,
        last: int,
        deadline: float | None = None,
        final_share: float | None = None,
    ) -> None:
        self.last, self.deadline, self.final_share = last, deadline, final_share
        self.n_steps, self.cycles = length.n_steps, n_cycles(length.planned)
        self.started = time.monotonic()

    def on_train_begin(self, net: TensorNet, **kwargs: Any) -> None:
        net._set_training(True)  # once, not for each batch as skorch does
        self.dropouts = [m for m in net.module_.modules() if isinstance(m, Dropout)]

    def on_batch_begin(self, net: TensorNet, **kwargs: Any) -> None:
        # Evaluate the schedule mid-step, so neither end has a zero learning rate.
        progress = (net.step + 0.5) / self.n_steps
        if self.final_share is not None and self.deadline is not None:
            passed = time.monotonic() - self.started
            share = passed / max(self.deadline - self.started, 1e-9)
            progress = max(progress, self.final_share * min(share, 1.0))
        net.optimizer_.prepare(progress, self.cycles)
        for dropout in self.dropouts:
            dropout.set_strength(net.optimizer_.regularisation_multiplier)

    def on_batch_end(self, net: TensorNet, **kwargs: Any) -> None:
        is_late = self.deadline is not None and time.monotonic() > self.deadline
        if net.step < self.last and not is_late:
            return
        if not torch.isfinite(kwargs["loss"]):
            raise DivergedError(Cause.DIVERGED)
        raise TrainingEnd


class ValidationSnapshots(Callback):
    """Evaluates the network at the ends of the cycles of the learning rate.

    Parameters
    ----------
    x : Tensor
        Rows to evaluate.
    due : list of int
        Steps after which to take a snapshot.
    n_steps : int
        Steps of the schedule.
    """

    def __init__(self, x: Tensor, due: list[int], n_steps: int) -> None:
        self.x, self.due, self.n_steps = x, due, n_steps
        self.snapshots: list[Snapshot] = []

    def on_train_begin(self, net: TensorNet, **kwargs: Any) -> None:
        # Two cycles of a very short training may end after the same step.
        self._take_due(net)

    def on_batch_end(self, net: TensorNet, **kwargs: Any) -> None:
        self._take_due(net)

    def _take_due(self, net: TensorNet) -> None:
        while self.due and net.step >= self.due[0]:
            self.due = self.due[1:]
            self.snapshots.append(self._take(net))

    def _take(self, net: TensorNet) -> Snapshot:
        started = time.monotonic()
        net._set_training(False)
        output = evaluate(net.module_, self.x, net.n_micro_batches)
        net._set_training(True)
        if not np.isfinite(output).all():
            raise DivergedError(Cause.DIVERGED)
        share, state = net.step / self.n_steps, state_of(net.module_)
        return Snapshot(share, output, state, time.monotonic() - started)


def to_arrays(module: nn.Module) -> dict[str, Any]:
    """Return the state of a module with arrays in place of tensors."""
    return {
        # NumPy has no bfloat16; float32 holds its values exactly.
        name: (t.float() if t.dtype == torch.bfloat16 else t).cpu().contiguous().numpy()
        if isinstance(t, Tensor)
        else t
        for name, t in module.state_dict().items()
    }


def dtypes_of(module: nn.Module) -> dict[str, str]:
    """Return the names of the dtypes of the tensors of a module."""
    tensors = dict(module.named_buffers()) | module.state_dict()
    return {
        name: str(t.dtype).removeprefix("torch.")
        for name, t in tensors.items()
        if isinstance(t, Tensor)
    }
