"""Training of a supernet: weights and alphas in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sknas._checkpoint import keys
from sknas._problem import Store
from sknas._training.seeds import random_state, set_random_state
from sknas.nets import MixtureWeights, Supernet
from sknas.nets._supernet import Mix
from sknas.strategies.gradient.alphas import Alphas
from sknas.strategies.gradient.optimizers import (
    TensorOptimizer,
    arch_optimizer,
    default_arch_lr,
    power_step,
    unrolled_gradient,
    weight_optimizer,
)
from sknas.strategies.gradient.presets import Preset
from sknas.strategies.gradient.progress import SearchProgress, TimeBudget
from sknas.strategies.gradient.records import SearchRecords
from sknas.strategies.gradient.regularizers import REGULARISERS
from sknas.strategies.gradient.relaxations import RELAXATIONS
from sknas.strategies.gradient.split import BilevelSplit, Forward, endless

N_RECORDS = 100  # records of the shares in a search
STEPS_PER_EIGENVALUE, MAX_EIGENVALUES = 100, 5
N_POWER_STEPS = 4  # steps of the power iteration for an eigenvalue
SECONDS_APART = 10.0  # minimum time between two saved states


class SupernetTrainer:
    """Trains the weights and the alphas of a supernet in turn.

    Each step updates the alphas by the loss on their rows, then the weights by the loss
    on theirs. The state is kept in a store every few seconds; a trainer that loads it
    goes on as if it had never stopped.

    Parameters
    ----------
    net : Supernet
        The untrained supernet.
    settings : Preset
        Settings of the training.
    split : BilevelSplit
        Rows of the weights and of the alphas.
    budget : TimeBudget
        Length of the training.
    store : Store
        Keeps the state.
    is_adaptive : bool
        True if weights are trained by AdamW, False if by SGD with momentum.
    arch_lr : float or None
        Learning rate of the alphas; None for one that suits the number of steps.
    derive : callable or None, default=None
        Maps the shares of all choices to an architecture; once it no longer changes,
        the alphas are frozen. None to train them to the end.

    Attributes
    ----------
    records : SearchRecords
        Records of the training.
    """

    def __init__(
        self,
        net: Supernet,
        settings: Preset,
        split: BilevelSplit,
        budget: TimeBudget,
        store: Store,
        *,
        is_adaptive: bool,
        arch_lr: float | None,
        derive: Callable[[dict[str, np.ndarray]], Any] | None = None,
    ) -> None:
        self.net, self.settings, self.split, self.budget = net, settings, split, budget
        self.store, self.is_adaptive = store, is_adaptive
        self.arch_lr, self.derive = arch_lr, derive
        net.dropout = settings.dropout
        device = str(split.x.device)
        self.alphas = Alphas(net.choices, RELAXATIONS[settings.relaxation], device)
        self.regulariser = REGULARISERS[settings.regulariser]
        self.arch_optimizer = arch_optimizer(
            settings.arch_optimizer, self.alphas.vector
        )
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self.optimizer = weight_optimizer(self.parameters, is_adaptive)
        size = settings.batch_size
        self.weight_batches = split.batches(split.weight_rows, size)
        self.arch_batches = split.batches(split.arch_rows, size)
        self._weight_rows = endless(self.weight_batches)
        self._arch_rows = endless(self.arch_batches)
        n_alphas = len(self.alphas.vector)
        self.records = SearchRecords(np.empty((0, n_alphas), np.float32))
        self._direction = torch.randn(n_alphas).to(device)
        self._stage = 0
        self._results: list[Any] = []
        self._n_results = 0
        self._saved_at = time.monotonic()
        self._devices = ("cpu", device)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the training changes."""
        return {
            "net": self.net.state_dict(),
            "alphas": self.alphas.state_dict(),
            "arch_optimizer": self.arch_optimizer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "budget": self.budget.state_dict(),
            "records": vars(self.records),
            "weight_batch": self.weight_batches.step,
            "arch_batch": self.arch_batches.step,
            "direction": self._direction,
            "stage": self._stage,
            "results": self._results,
            "random": [random_state(device) for device in self._devices],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of another trainer, and of torch's random numbers."""
        self.net.load_state_dict(state["net"])
        self.alphas.load_state_dict(state["alphas"])
        self.arch_optimizer.load_state_dict(state["arch_optimizer"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.budget.load_state_dict(state["budget"])
        self.records = SearchRecords(**state["records"])
        self.weight_batches.step = state["weight_batch"]
        self.arch_batches.step = state["arch_batch"]
        self._direction.copy_(state["direction"])
        self._stage = state["stage"]
        self._results = state["results"]
        for device, random in zip(self._devices, state["random"], strict=True):
            set_random_state(device, random)

    def once(self, compute: Callable[[], Any]) -> Any:
        """Return the result of a function, or that in the loaded state if it has one.

        Results are identified by the order of the calls.
        """
        self._n_results += 1
        if self._n_results > len(self._results):
            self._results.append(compute())
            self._save_if_due()
        return self._results[self._n_results - 1]

    def _save_if_due(self) -> None:
        """Keep the state, unless the last one is recent."""
        if time.monotonic() - self._saved_at >= SECONDS_APART:
            key = keys.supernet_state(self.settings.batch_size)
            self.store.put(key, self.state_dict())
            self._saved_at = time.monotonic()

    def run(self) -> bool:
        """Train to the end of the budget; return False if a loss is not finite."""
        self.net.train()
        if not self.records.entropies:
            self.records.add(self.alphas)
        while self.budget.progress < 1:
            progress = self._progress()
            self._enter_stage(progress.stage)
            lr = self._lr(progress.fraction)
            if self._is_warm(progress) and not self.records.is_converged:
                with self._frozen_buffers():
                    self._move_alphas(progress, lr)
            if not self._move_weights(progress, lr):
                return False
            self.budget.step += 1
            self._observe(progress)
            self._save_if_due()
        return True

    def _is_warm(self, progress: SearchProgress) -> bool:
        """Return True if the alphas are trained at this point of a stage."""
        return progress.stage_fraction >= self.settings.warmup

    def _observe(self, progress: SearchProgress) -> None:
        """Add due records after a step; `progress` is that before the step."""
        records, fraction = self.records, self.budget.progress
        if int(fraction * N_RECORDS) >= len(records.entropies):
            records.add(self.alphas)
            # Alphas that have not moved in the last stage yet have not converged.
            is_last = progress.stage == progress.n_stages - 1
            if self.derive is not None and is_last and self._is_warm(progress):
                derived = self.derive(self.alphas.shares())
                records.check_convergence(derived, progress.fraction)
        if int(fraction * self._n_eigenvalues) > len(records.eigenvalues):
            with self._frozen_buffers():
                records.eigenvalues.append(self._hessian_eigenvalue())

    @property
    def _n_eigenvalues(self) -> int:
        if self.settings.relaxation == "gumbel-st":
            return 0  # an eigenvalue needs all options at once
        n = self.budget.n_steps // STEPS_PER_EIGENVALUE
        return min(max(n, 1), MAX_EIGENVALUES)

    def _progress(self) -> SearchProgress:
        fraction = self.budget.progress
        n_stages = len(self.settings.stages)
        stage = min(int(fraction * n_stages), n_stages - 1)
        arch_lr = self.arch_lr
        if arch_lr is None:
            kind, published = self.settings.arch_optimizer, self.settings.arch_lr
            n_moving = (1 - self.settings.warmup) * self.budget.expected_steps
            arch_lr = default_arch_lr(kind, published, round(n_moving))
        return SearchProgress(
            fraction, stage, n_stages, fraction * n_stages - stage, arch_lr
        )

    def _enter_stage(self, stage: int) -> None:
        """Prune options at the start of a new stage."""
        if stage > self._stage:
            self._stage = stage
            self.alphas.prune(self.settings.stages[stage])

    def _lr(self, fraction: float) -> float:
        first, last = self.settings.lr, min(self.settings.last_lr, self.settings.lr)
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * fraction))

    def _sample(
        self, progress: SearchProgress, is_weight_step: bool
    ) -> dict[str, MixtureWeights]:
        first, last = self.settings.temperature
        temperature = first + (last - first) * progress.fraction
        sampled = self.alphas.sample(self.alphas.vector, temperature)
        for name, weights in sampled.items():
            choice = self.net.choices[name]
            weights = self.regulariser.in_all_steps(weights, choice, progress)
            if is_weight_step:
                weights = self.regulariser.in_weight_steps(weights, choice, progress)
            sampled[name] = weights
        return sampled

    def _weight_loss(self, rows: Tensor, progress: SearchProgress) -> Tensor:
        weights = self._sample(progress, True)
        return self.split.loss(self.forward_with(weights), rows)

    def _arch_loss(self, rows: Tensor, progress: SearchProgress) -> Tensor:
        weights = self._sample(progress, False)
        loss = self.split.loss(self.forward_with(weights), rows)
        active = self.alphas.split_active(self.alphas.vector)
        return loss + self.regulariser.penalty(active, progress)

    @contextmanager
    def _frozen_buffers(self) -> Iterator[None]:
        """Restore the running statistics: only steps of the weights update them."""
        before = [buffer.clone() for buffer in self.net.buffers()]
        try:
            yield
        finally:
            for buffer, value in zip(self.net.buffers(), before, strict=True):
                buffer.copy_(value)

    def _move_alphas(self, progress: SearchProgress, lr: float) -> None:
        rows, vector = next(self._arch_rows), self.alphas.vector
        if self.settings.order == 1:
            (gradient,) = torch.autograd.grad(self._arch_loss(rows, progress), vector)
        else:
            rows_ahead = next(self._weight_rows)
            gradient = unrolled_gradient(
                lambda: self._arch_loss(rows, progress),
                lambda: self._weight_loss(rows_ahead, progress),
                vector,
                self.parameters,
                lr,
                self.optimizer.velocities,
                self.settings.weight_decay,
            )
        if torch.isfinite(gradient).all():
            decay = self.settings.arch_weight_decay
            self.arch_optimizer.step([gradient], progress.arch_lr, decay)

    def _move_weights(self, progress: SearchProgress, lr: float) -> bool:
        """Make a step of the weights; return False if the loss is not finite."""
        loss = self._weight_loss(next(self._weight_rows), progress)
        return self._descend(loss, self.optimizer, lr)

    def _descend(self, loss: Tensor, optimizer: TensorOptimizer, lr: float) -> bool:
        """Make a step down a loss; return False if it is not finite."""
        if not torch.isfinite(loss):
            return False
        gradients = torch.autograd.grad(loss, optimizer.tensors, allow_unused=True)
        optimizer.step(gradients, lr, self.settings.weight_decay)
        return True

    def _hessian_eigenvalue(self) -> float:
        """Return the dominant eigenvalue of the Hessian on one batch of alphas' rows.

        References
        ----------
        Zela, Elsken, Saikia, Marrakchi, Brox, Hutter: Understanding and Robustifying
        Differentiable Architecture Search. arXiv:1909.09656.
        """
        rows = self.split.arch_rows[: self.settings.batch_size]
        device = rows.device
        state = random_state(device)

        def gradient(at: Tensor) -> Tensor:
            set_random_state(device, state)  # the same dropout each time
            at = at.detach().requires_grad_()
            loss = self.split.loss(self.forward_with(self.alphas.mean(at)), rows)
            return torch.autograd.grad(loss, at)[0]

        at = self.alphas.vector.detach()
        for _ in range(N_POWER_STEPS):
            value, self._direction = power_step(gradient, at, self._direction)
            # Each step takes as long as a training step.
            if self.budget.seconds_left <= 0:
                break
        return value

    def forward_with(self, weights: Mix) -> Forward:
        """Return the supernet as a function of rows, with given weights of options."""
        return lambda x: self.net(x, weights)

    def tune(self, weights: Mix, budget: TimeBudget, lr: float) -> bool:
        """Train the weights of the supernet with fixed weights of its options.

        Return False if a loss is not finite.
        """
        forward = self.forward_with(weights)
        return self._train(self.net, forward, self.optimizer, budget, lr)

    def fit(self, net: nn.Module, budget: TimeBudget) -> None:
        """Train another network on the rows of the weights."""
        parameters = [p for p in net.parameters() if p.requires_grad]
        optimizer = weight_optimizer(parameters, self.is_adaptive)
        self._train(net, net, optimizer, budget, None)

    def _train(
        self,
        net: nn.Module,
        forward: Forward,
        optimizer: TensorOptimizer,
        budget: TimeBudget,
        lr: float | None,
    ) -> bool:
        """Train at a fixed rate, or along the schedule of the search if it is None.

        Return False if a loss is not finite.
        """
        net.train()
        is_finite = True
        while is_finite and budget.progress < 1:
            loss = self.split.loss(forward, next(self._weight_rows))
            rate = self._lr(budget.progress) if lr is None else lr
            is_finite = self._descend(loss, optimizer, rate)
            budget.step += 1
        return is_finite
