"""Training of a relaxed network: weights and logits in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sknas._training.isolation import random_state, set_random_state
from sknas.nets import MixtureWeights, Supernet
from sknas.strategies.gradient.alphas import Alphas
from sknas.strategies.gradient.optimizers import (
    ArchOptimizer,
    WeightOptimizer,
    power_step,
    unrolled_gradient,
    usual_arch_lr,
)
from sknas.strategies.gradient.presets import Preset
from sknas.strategies.gradient.regularizers import REGULARISERS, SearchProgress
from sknas.strategies.gradient.relaxations import RELAXATIONS
from sknas.strategies.gradient.resume import Snapshots
from sknas.strategies.gradient.split import Answer, BilevelSplit, endless
from sknas.strategies.gradient.time_budget import TimeBudget

N_RECORDS = 100  # of the weights of options, in a search
STEPS_A_LOOK, MAX_SNAPSHOTS = 100, 5  # at the sharpness
PRODUCTS = 4  # with the Hessian, in a look
SETTLED_FROM, SETTLED_FOR = 0.5, 0.1  # shares of a search

# What a training changes: attributes of its parts, and its own.
OF_PARTS: dict[str, tuple[str, ...]] = {
    "net": (),
    "logits": ("flat", "kept"),
    "arch_optimizer": ("mean", "square", "n_steps"),
    "optimizer": ("means", "squares", "counts"),
    "clock": ("step", "used"),
    "weight_batches": ("step",),
    "arch_batches": ("step",),
}
OWN = (
    "records",
    "entropies",
    "sharpnesses",
    "is_settled",
    "_towards",
    "_stage",
    "_derived",
    "_same_since",
)


class SupernetTrainer:
    """Trains the weights of a relaxed network and the logits of its options.

    In each step the logits go down the loss of their rows, then the weights down the
    loss of theirs.

    Parameters
    ----------
    net : Relaxed
        The network, untrained.
    settings : Preset
        How to train it.
    halves : Halves
        Its rows.
    clock : Clock
        How long.
    snapshots : Snapshots
        Keep what it came to, and tell what it had come to before.
    is_adaptive : bool
        Whether the weights are moved by AdamW, not by SGD.
    arch_lr : float or None
        The rate of the logits; None for one that suits the length.
    derive : callable or None, default=None
        Shares of all decisions -> what is derived of them; once that no longer
        changes, the logits are left alone. None to move them to the end.

    Attributes
    ----------
    records : ndarray of shape (n_records, A)
        The shares of the options of all decisions on the way.
    entropies, sharpnesses : list of float
        How undecided the shares are at each record, and the dominant eigenvalue of
        the Hessian of the logits at each look.
    """

    def __init__(
        self,
        net: Supernet,
        settings: Preset,
        halves: BilevelSplit,
        clock: TimeBudget,
        snapshots: Snapshots,
        *,
        is_adaptive: bool,
        arch_lr: float | None,
        derive: Callable[[dict[str, np.ndarray]], Any] | None = None,
    ) -> None:
        self.net, self.settings, self.halves, self.clock = net, settings, halves, clock
        self.snapshots, self.arch_lr, self.derive = snapshots, arch_lr, derive
        net.dropout = settings.dropout
        relaxation = RELAXATIONS[settings.relaxation]
        device = str(halves.x.device)
        self.logits = Alphas(net.decisions, relaxation, device)
        self.regulariser = REGULARISERS[settings.regulariser]
        self.arch_optimizer = ArchOptimizer(settings.arch_optimizer, self.logits.flat)
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self.optimizer = WeightOptimizer(self.parameters, is_adaptive)
        size = settings.batch_size
        self.weight_batches = halves.batches(halves.weight_rows, size)
        self.arch_batches = halves.batches(halves.arch_rows, size)
        self._weight_rows = endless(self.weight_batches)
        self._arch_rows = endless(self.arch_batches)
        self.records = np.empty((0, len(self.logits.flat)), np.float32)
        self.entropies: list[float] = []
        self.sharpnesses: list[float] = []
        self._towards = torch.randn(len(self.logits.flat)).to(device)
        self._stage = 0
        self._derived: Any = None
        self._same_since = 0.0
        self.is_settled = False
        for name, attributes in OF_PARTS.items():
            snapshots.follow(name, getattr(self, name), *attributes)
        snapshots.follow("training", self, *OWN)

    def run(self) -> bool:
        """Train to the end of the clock, or until a loss is not finite: then False."""
        self.net.train()
        if not len(self.records):
            self._record()
        while self.clock.progress < 1:
            moment = self._moment()
            self._enter(moment.stage)
            lr = self._lr(moment.progress)
            if moment.stage_progress >= self.settings.warmup and not self.is_settled:
                with self._still():
                    self._move_logits(moment, lr)
            if not self._move_weights(moment, lr):
                return False
            self.clock.step += 1
            progress = self.clock.progress
            if int(progress * N_RECORDS) >= len(self.records):
                self._record()
                self._settle(moment)
            if int(progress * self._n_snapshots) > len(self.sharpnesses):
                with self._still():
                    self._look()
            self.snapshots.offer()
        return True

    @property
    def trajectory(self) -> dict[str, np.ndarray]:
        """The records of each decision, (n_records, n_options)."""
        sizes = [len(decision.options) for decision in self.net.decisions.values()]
        parts = np.split(self.records, np.cumsum(sizes)[:-1], axis=1)
        return dict(zip(self.net.decisions, parts, strict=True))

    @property
    def _n_snapshots(self) -> int:
        if self.settings.relaxation == "gumbel-st":
            return 0  # a look computes all options at once
        return min(max(self.clock.n_steps // STEPS_A_LOOK, 1), MAX_SNAPSHOTS)

    def _moment(self) -> SearchProgress:
        progress = self.clock.progress
        n_stages = len(self.settings.kept)
        stage = min(int(progress * n_stages), n_stages - 1)
        arch_lr = self.arch_lr
        if arch_lr is None:
            kind, published = self.settings.arch_optimizer, self.settings.arch_lr
            n_moving = (1 - self.settings.warmup) * self.clock.expected
            arch_lr = usual_arch_lr(kind, published, round(n_moving))
        return SearchProgress(
            progress, stage, n_stages, progress * n_stages - stage, arch_lr
        )

    def _enter(self, stage: int) -> None:
        """Drop options where a new stage begins."""
        if stage > self._stage:
            self._stage = stage
            self.logits.keep(self.settings.kept[stage])

    def _lr(self, progress: float) -> float:
        first, last = self.settings.lr, min(self.settings.last_lr, self.settings.lr)
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress))

    def _temperature(self, progress: float) -> float:
        first, last = self.settings.temperature
        return first + (last - first) * progress

    def _weights(
        self, flat: Tensor, moment: SearchProgress, is_weight_step: bool
    ) -> dict[str, MixtureWeights]:
        drawn = self.logits.drawn(flat, self._temperature(moment.progress))
        for name, weights in drawn.items():
            decision = self.net.decisions[name]
            weights = self.regulariser.mixed(weights, decision, moment)
            if is_weight_step:
                weights = self.regulariser.trained(weights, decision, moment)
            drawn[name] = weights
        return drawn

    def _weight_loss(self, rows: Tensor, moment: SearchProgress) -> Tensor:
        weights = self._weights(self.logits.flat, moment, True)
        return self.halves.loss(lambda x: self.net(x, weights), rows)

    def _arch_loss(self, rows: Tensor, moment: SearchProgress) -> Tensor:
        flat = self.logits.flat
        weights = self._weights(flat, moment, False)
        loss = self.halves.loss(lambda x: self.net(x, weights), rows)
        # Options that were dropped have a say in nothing.
        left = [
            logits[self.logits.kept[name]]
            for name, logits in self.logits.split(flat).items()
        ]
        return loss + self.regulariser.penalty(left, moment)

    @contextmanager
    def _still(self) -> Iterator[None]:
        """Leave running statistics as the steps of the weights made them."""
        before = [buffer.clone() for buffer in self.net.buffers()]
        try:
            yield
        finally:
            for buffer, value in zip(self.net.buffers(), before, strict=True):
                buffer.copy_(value)

    def _move_logits(self, moment: SearchProgress, lr: float) -> None:
        rows, flat = next(self._arch_rows), self.logits.flat
        if self.settings.order == 1:
            (gradient,) = torch.autograd.grad(self._arch_loss(rows, moment), flat)
        else:
            ahead = next(self._weight_rows)
            gradient = unrolled_gradient(
                lambda: self._arch_loss(rows, moment),
                lambda: self._weight_loss(ahead, moment),
                flat,
                self.parameters,
                lr,
                self.optimizer.velocities,
                self.settings.weight_decay,
            )
        if torch.isfinite(gradient).all():
            decay = self.settings.arch_weight_decay
            self.arch_optimizer.step(gradient, moment.arch_lr, decay)

    def _move_weights(self, moment: SearchProgress, lr: float) -> bool:
        """Whether the loss was finite, and the weights were moved."""
        loss = self._weight_loss(next(self._weight_rows), moment)
        return self._descend(loss, self.optimizer, lr)

    def _descend(self, loss: Tensor, optimizer: WeightOptimizer, lr: float) -> bool:
        """Whether a loss was finite, and weights took a step down."""
        if not torch.isfinite(loss):
            return False
        gradients = torch.autograd.grad(loss, optimizer.parameters, allow_unused=True)
        optimizer.step(gradients, lr, self.settings.weight_decay)
        return True

    def _record(self) -> None:
        shares = np.concatenate(list(self.logits.shares().values()))
        self.records = np.vstack([self.records, shares])
        self.entropies.append(self.logits.entropy())

    def _settle(self, moment: SearchProgress) -> None:
        """Leave the logits alone once what is derived of them stays the same."""
        is_last = self._stage == len(self.settings.kept) - 1
        # Logits that have not moved yet in this stage say nothing.
        is_moving = moment.stage_progress >= self.settings.warmup
        if self.derive is None or not (is_last and is_moving):
            return
        derived = self.derive(self.logits.shares())
        if derived != self._derived:
            self._derived, self._same_since = derived, moment.progress
        since = max(self._same_since, SETTLED_FROM)
        self.is_settled = moment.progress - since >= SETTLED_FOR

    def _look(self) -> None:
        """Measure how sharp the loss is at the logits, on one batch of their rows."""
        rows = self.halves.arch_rows[: self.settings.batch_size]
        device = rows.device
        state = random_state(device)

        def gradient(at: Tensor) -> Tensor:
            set_random_state(device, state)  # the same numbers are dropped each time
            at = at.detach().requires_grad_()
            weights = self.logits.expected(at)
            loss = self.halves.loss(lambda x: self.net(x, weights), rows)
            return torch.autograd.grad(loss, at)[0]

        at = self.logits.flat.detach()
        for _ in range(PRODUCTS):
            value, self._towards = power_step(gradient, at, self._towards)
            if self.clock.seconds_left <= 0:  # each takes as long as a step
                break
        self.sharpnesses.append(value)

    def answer(self, weights: Mapping[str, MixtureWeights]) -> Answer:
        """The network at some weights of its options."""
        return lambda x: self.net(x, weights)

    def tune(
        self, weights: Mapping[str, MixtureWeights], clock: TimeBudget, lr: float
    ) -> bool:
        """Train the network's own weights, those of the options fixed.

        False if a loss was not finite.
        """
        return self._train(self.net, self.answer(weights), self.optimizer, clock, lr)

    def fit(self, net: nn.Module, clock: TimeBudget) -> None:
        """Train another network on the rows of the weights."""
        parameters = [p for p in net.parameters() if p.requires_grad]
        optimizer = WeightOptimizer(parameters, self.optimizer.is_adaptive)
        self.snapshots.follow("fitted", net)
        self.snapshots.follow("moments", optimizer, *OF_PARTS["optimizer"])
        self._train(net, net, optimizer, clock, None)
        self.snapshots.forget("fitted", "moments")

    def _train(
        self,
        net: nn.Module,
        answer: Answer,
        optimizer: WeightOptimizer,
        clock: TimeBudget,
        lr: float | None,
    ) -> bool:
        """Train a network at a rate, or at those of a search; False as `tune` does."""
        net.train()
        self.snapshots.follow("part", clock, "step")
        is_finite = True
        while is_finite and clock.progress < 1:
            loss = self.halves.loss(answer, next(self._weight_rows))
            rate = self._lr(clock.progress) if lr is None else lr
            is_finite = self._descend(loss, optimizer, rate)
            clock.step += 1
            self.snapshots.offer()
        self.snapshots.forget("part")
        return is_finite
