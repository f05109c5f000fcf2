"""Training of a relaxed network: weights and logits in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sknas._isolation import random_state, set_random_state
from sknas.nets import Relaxed, Weights
from sknas.strategies._descent import (
    ArchOptimizer,
    WeightOptimizer,
    dominant_eigenvalue,
    unrolled_gradient,
    usual_arch_lr,
)
from sknas.strategies._halves import Answer, Halves
from sknas.strategies._logits import Logits
from sknas.strategies._presets import Preset
from sknas.strategies._regularisers import REGULARISERS, Moment
from sknas.strategies._relaxations import RELAXATIONS

N_RECORDS = 100  # of the weights of options, in a search
STEPS_A_LOOK, MAX_LOOKS = 100, 5  # at the sharpness
SETTLED_FROM, SETTLED_FOR = 0.5, 0.1  # shares of a search


@dataclass
class Clock:
    """How far a training is: by its steps, or by its seconds if they are shorter.

    Parameters
    ----------
    n_steps : int
        Steps to make.
    seconds : float
        Time to make them in, from now on.
    step : int
        Steps that are made.
    """

    n_steps: int
    seconds: float
    step: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def progress(self) -> float:
        """The share that is done, from 0 to 1."""
        is_bounded = self.seconds < math.inf
        passed = 1 - self.seconds_left / max(self.seconds, 1e-9) if is_bounded else 0.0
        return min(max(self.step / max(self.n_steps, 1), passed), 1.0)

    @property
    def seconds_left(self) -> float:
        """Of its time."""
        return self.started + self.seconds - time.monotonic()

    @property
    def expected(self) -> int:
        """Steps that it will come to, as far as one can tell."""
        progress = self.progress
        if self.step == 0 or self.step / max(self.n_steps, 1) >= progress:
            return self.n_steps
        return max(1, int(self.step / progress))


class Bilevel:
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
    is_adaptive : bool
        Whether the weights are moved by AdamW, not by SGD.
    arch_lr : float or None
        The rate of the logits; None for one that suits the length.
    derive : callable or None, default=None
        Shares of all decisions -> what is derived of them; once that no longer
        changes, the logits are left alone. None to move them to the end.

    Attributes
    ----------
    records : list of dict
        The shares of all decisions on the way.
    entropies, sharpnesses : list of float
        How undecided the shares are at each record, and the dominant eigenvalue of
        the Hessian of the logits at each look.
    """

    def __init__(
        self,
        net: Relaxed,
        settings: Preset,
        halves: Halves,
        clock: Clock,
        *,
        is_adaptive: bool,
        arch_lr: float | None,
        derive: Callable[[dict[str, np.ndarray]], Any] | None = None,
    ) -> None:
        self.net, self.settings, self.halves, self.clock = net, settings, halves, clock
        self.arch_lr, self.derive = arch_lr, derive
        net.dropout = settings.dropout
        relaxation = RELAXATIONS[settings.relaxation]
        device = str(halves.x.device)
        self.logits = Logits(net.decisions, relaxation, device)
        self.regulariser = REGULARISERS[settings.regulariser]
        self.arch_optimizer = ArchOptimizer(settings.arch_optimizer, self.logits.flat)
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self.optimizer = WeightOptimizer(self.parameters, is_adaptive)
        size = settings.batch_size
        self.weight_batches = halves.batches(halves.weight_rows, size)
        self.arch_batches = halves.batches(halves.arch_rows, size)
        self.records: list[dict[str, np.ndarray]] = []
        self.entropies: list[float] = []
        self.sharpnesses: list[float] = []
        self._towards = torch.randn(len(self.logits.flat)).to(device)
        self._stage = 0
        self._derived: Any = None
        self._same_since = 0.0
        self.is_settled = False

    def run(self) -> None:
        """Train to the end of the clock, or until the loss is not finite any more."""
        self.net.train()
        self._record()
        while self.clock.progress < 1:
            moment = self._moment()
            self._enter(moment.stage)
            lr = self._lr(moment.progress)
            if moment.stage_progress >= self.settings.warmup and not self.is_settled:
                self._move_logits(moment, lr)
            if not self._move_weights(moment, lr):
                break
            self.clock.step += 1
            progress = self.clock.progress
            if int(progress * N_RECORDS) >= len(self.records):
                self._record()
                self._settle(moment)
            if int(progress * self._n_looks) > len(self.sharpnesses):
                self._look()

    @property
    def _n_looks(self) -> int:
        if self.settings.relaxation == "gumbel-st":
            return 0  # a look computes all options at once
        return min(max(self.clock.n_steps // STEPS_A_LOOK, 1), MAX_LOOKS)

    def _moment(self) -> Moment:
        progress = self.clock.progress
        n_stages = len(self.settings.kept)
        stage = min(int(progress * n_stages), n_stages - 1)
        arch_lr = self.arch_lr
        if arch_lr is None:
            kind, published = self.settings.arch_optimizer, self.settings.arch_lr
            n_moving = (1 - self.settings.warmup) * self.clock.expected
            arch_lr = usual_arch_lr(kind, published, round(n_moving))
        return Moment(progress, stage, n_stages, progress * n_stages - stage, arch_lr)

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
        self, flat: Tensor, moment: Moment, is_weight_step: bool
    ) -> dict[str, Weights]:
        drawn = self.logits.drawn(flat, self._temperature(moment.progress))
        for name, weights in drawn.items():
            decision = self.net.decisions[name]
            weights = self.regulariser.mixed(weights, decision, moment)
            if is_weight_step:
                weights = self.regulariser.trained(weights, decision, moment)
            drawn[name] = weights
        return drawn

    def _weight_loss(self, rows: Tensor, moment: Moment) -> Tensor:
        weights = self._weights(self.logits.flat, moment, True)
        return self.halves.loss(lambda x: self.net(x, weights), rows)

    def _arch_loss(self, rows: Tensor, moment: Moment) -> Tensor:
        flat = self.logits.flat
        weights = self._weights(flat, moment, False)
        loss = self.halves.loss(lambda x: self.net(x, weights), rows)
        logits = list(self.logits.split(flat).values())
        return loss + self.regulariser.penalty(logits, moment)

    def _move_logits(self, moment: Moment, lr: float) -> None:
        rows, flat = next(self.arch_batches), self.logits.flat
        if self.settings.order == 1:
            (gradient,) = torch.autograd.grad(self._arch_loss(rows, moment), flat)
        else:
            ahead = next(self.weight_batches)
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

    def _move_weights(self, moment: Moment, lr: float) -> bool:
        """Whether the loss was finite, and the weights were moved."""
        loss = self._weight_loss(next(self.weight_batches), moment)
        return self._descend(loss, self.parameters, self.optimizer, lr)

    def _descend(
        self,
        loss: Tensor,
        parameters: Sequence[Tensor],
        optimizer: WeightOptimizer,
        lr: float,
    ) -> bool:
        """Whether a loss was finite, and parameters took a step down."""
        if not torch.isfinite(loss):
            return False
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        optimizer.step(gradients, lr, self.settings.weight_decay)
        return True

    def _record(self) -> None:
        self.records.append(self.logits.shares())
        self.entropies.append(self.logits.entropy())

    def _settle(self, moment: Moment) -> None:
        """Leave the logits alone once what is derived of them stays the same."""
        is_last = self._stage == len(self.settings.kept) - 1
        # Logits that have not moved yet in this stage say nothing.
        is_moving = moment.stage_progress >= self.settings.warmup
        if self.derive is None or not (is_last and is_moving):
            return
        derived = self.derive(self.records[-1])
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
        value, self._towards = dominant_eigenvalue(gradient, at, self._towards)
        self.sharpnesses.append(value)

    def answer(self, weights: Mapping[str, Weights]) -> Answer:
        """The network at some weights of its options."""
        return lambda x: self.net(x, weights)

    def tune(self, weights: Mapping[str, Weights], clock: Clock, lr: float) -> None:
        """Train the network's own weights, those of the options fixed."""
        self.net.train()
        answer, is_finite = self.answer(weights), True
        while is_finite and clock.progress < 1:
            loss = self.halves.loss(answer, next(self.weight_batches))
            is_finite = self._descend(loss, self.parameters, self.optimizer, lr)
            clock.step += 1

    def fit(self, net: nn.Module, clock: Clock) -> None:
        """Train another network on the rows of the weights."""
        parameters = [p for p in net.parameters() if p.requires_grad]
        optimizer = WeightOptimizer(parameters, self.optimizer.is_adaptive)
        is_finite = True
        net.train()
        while is_finite and clock.progress < 1:
            loss = self.halves.loss(net, next(self.weight_batches))
            lr = self._lr(clock.progress)
            is_finite = self._descend(loss, parameters, optimizer, lr)
            clock.step += 1
