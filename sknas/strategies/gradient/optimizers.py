"""Steps down a gradient: of logits, of weights, and of logits one step ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from sknas._training.isolation import random_state, set_random_state

MOMENTUM, MEMORY, EPSILON = 0.9, 0.9, 1e-8
ARCH_BETAS = (0.5, 0.999)  # of Adam on logits
ARCH_TRAVEL = 3.0  # about how far a logit can come in a search
MAX_ARCH_LR = 0.05
STEEPER = {"adam": 1.0, "rmsprop": 1.0, "momentum": 10.0, "sgd": 100.0}
MAX_NORM = 5.0  # of the gradient of the weights
PERTURBATION = 0.01  # norm of the difference that a second derivative is taken over


def usual_arch_lr(kind: str, published: float, n_steps: int) -> float:
    """The rate of an architecture optimiser for a search of `n_steps`.

    Published rates are for searches of 20,000 steps: in short ones the logits would
    hardly move. Steps along the plain gradient, which is small, are longer.
    """
    short = min(ARCH_TRAVEL / max(n_steps, 1), MAX_ARCH_LR)
    return STEEPER[kind] * max(published, short)


class ArchOptimizer:
    """Moves logits by plain gradients, with momentum, or by their scale.

    Parameters
    ----------
    kind : {"adam", "sgd", "momentum", "rmsprop"}
        The rule.
    logits : Tensor of shape (A,)
        What is moved, in place.
    """

    def __init__(self, kind: str, logits: Tensor) -> None:
        self.kind = kind
        self.logits = logits
        self.mean = torch.zeros_like(logits, requires_grad=False)
        self.square = torch.zeros_like(logits, requires_grad=False)
        self.n_steps = 0

    @torch.no_grad()
    def step(self, gradient: Tensor, lr: float, weight_decay: float) -> None:
        """One step; weight decay is part of the gradient."""
        gradient = gradient + weight_decay * self.logits
        self.n_steps += 1
        self.logits.sub_(lr * self._direction(gradient))

    def _direction(self, gradient: Tensor) -> Tensor:
        if self.kind == "sgd":
            return gradient
        if self.kind == "momentum":
            return self.mean.mul_(MOMENTUM).add_(gradient)
        if self.kind == "rmsprop":
            self.square.lerp_(gradient.square(), 1 - MEMORY)
            return gradient / (self.square.sqrt() + EPSILON)
        first, second = ARCH_BETAS
        self.mean.lerp_(gradient, 1 - first)
        self.square.lerp_(gradient.square(), 1 - second)
        mean = self.mean / (1 - first**self.n_steps)
        square = self.square / (1 - second**self.n_steps)
        return mean / (square.sqrt() + EPSILON)


class WeightOptimizer:
    """Moves the weights of a network: SGD with momentum, or AdamW.

    The functions, not the classes of `torch.optim`: those import torch's compiler.

    Parameters
    ----------
    parameters : sequence of Tensor
        What is moved, in place.
    is_adaptive : bool
        Whether by AdamW.
    """

    def __init__(self, parameters: Sequence[Tensor], is_adaptive: bool) -> None:
        self.parameters = list(parameters)
        self.is_adaptive = is_adaptive
        self.means = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.squares = [torch.zeros_like(m) for m in self.means] if is_adaptive else []
        self.counts = [torch.zeros((), device=p.device) for p in parameters]

    @property
    def velocities(self) -> list[Tensor]:
        """What SGD adds to a gradient, times its momentum; empty for AdamW."""
        return [] if self.is_adaptive else self.means

    @torch.no_grad()
    def step(
        self, gradients: Sequence[Tensor | None], lr: float, weight_decay: float
    ) -> None:
        """One step of the parameters that have a gradient."""
        used = [j for j, gradient in enumerate(gradients) if gradient is not None]
        parameters, means = self._of(self.parameters, used), self._of(self.means, used)
        slopes = clipped([g for g in gradients if g is not None])
        told: dict[str, Any] = {"lr": lr, "maximize": False}
        if self.is_adaptive:
            torch._foreach_mul_(parameters, 1 - lr * weight_decay)
            squares, counts = self._of(self.squares, used), self._of(self.counts, used)
            told |= {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.0}
            told |= {"amsgrad": False, "fused": True}
            adam(parameters, slopes, means, squares, [], counts, **told)
        else:
            told |= {"momentum": MOMENTUM, "weight_decay": weight_decay}
            told |= {"dampening": 0.0, "nesterov": False}
            buffers: list[Any] = [*means]
            sgd(parameters, slopes, buffers, **told)

    def _of(self, values: list[Tensor], used: list[int]) -> list[Tensor]:
        return [values[j] for j in used]


def clipped(gradients: list[Tensor]) -> list[Tensor]:
    """A gradient, shortened to `MAX_NORM`."""
    if not gradients:
        return []
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    factor = (MAX_NORM / norm.clamp(min=1e-12)).clamp(max=1)
    return list(torch._foreach_mul(gradients, factor))


def unrolled_gradient(
    arch_loss: Callable[[], Tensor],
    weight_loss: Callable[[], Tensor],
    logits: Tensor,
    parameters: Sequence[Tensor],
    lr: float,
    velocities: Sequence[Tensor] = (),
    weight_decay: float = 0.0,
) -> Tensor:
    """The gradient of the logits after one step of the weights.

    The weights take a step, the loss of the logits is taken there, and the product of
    its gradient with the mixed second derivative is a finite difference. The weights
    are then as they were, bit for bit.

    Parameters
    ----------
    arch_loss, weight_loss : callable
        The loss of the logits' rows and of the weights' rows, at the logits and
        parameters as they are.
    logits : Tensor of shape (A,)
        The gradient is theirs.
    parameters : sequence of Tensor
        The weights.
    lr : float
        Rate of the step ahead.
    velocities : sequence of Tensor, default=()
        What SGD remembers of each parameter.
    weight_decay : float, default=0.0
        Of the weights.

    References
    ----------
    Liu, Simonyan, Yang: DARTS: Differentiable Architecture Search. arXiv:1806.09055,
    section 2.3.
    """
    state = random_state(logits.device)
    before = [parameter.detach().clone() for parameter in parameters]
    slopes = _gradients(weight_loss(), parameters)
    with torch.no_grad():
        for j, (parameter, slope) in enumerate(zip(parameters, slopes, strict=True)):
            ahead = slope + weight_decay * parameter
            if velocities:
                ahead = ahead + MOMENTUM * velocities[j]
            parameter.sub_(lr * ahead)
    direct, *towards = _gradients(arch_loss(), [logits, *parameters])
    after = random_state(logits.device)
    norm = torch.stack([part.norm() for part in towards]).norm()
    size = PERTURBATION / norm.clamp(min=1e-12)
    sides = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for p, old, part in zip(parameters, before, towards, strict=True):
                p.copy_(old + sign * size * part)
        set_random_state(logits.device, state)  # the same chance on both sides
        sides += _gradients(weight_loss(), [logits])
    with torch.no_grad():
        for parameter, old in zip(parameters, before, strict=True):
            parameter.copy_(old)
    set_random_state(logits.device, after)  # no later step draws these numbers again
    return direct - lr * (sides[0] - sides[1]) / (2 * size)


def power_step(
    gradient: Callable[[Tensor], Tensor], at: Tensor, towards: Tensor
) -> tuple[float, Tensor]:
    """One product with a Hessian, of two gradients.

    Repeated, its direction is that of the eigenvalue that is largest in size.

    Parameters
    ----------
    gradient : callable
        Point (A,) -> gradient (A,).
    at : Tensor of shape (A,)
        Where the Hessian is taken.
    towards : Tensor of shape (A,)
        A direction.

    Returns
    -------
    value : float
        The eigenvalue, as far as the direction is right.
    towards : Tensor of shape (A,)
        A better direction, of length 1.
    """
    towards = towards / towards.norm().clamp(min=1e-12)
    above = gradient(at + PERTURBATION * towards)
    below = gradient(at - PERTURBATION * towards)
    product = (above - below) / (2 * PERTURBATION)
    value, norm = float(towards @ product), product.norm()
    if torch.isfinite(norm) and norm >= 1e-12:
        towards = product / norm
    return value, towards


def _gradients(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(inputs), allow_unused=True)
    pairs = zip(found, inputs, strict=True)
    return [torch.zeros_like(x) if g is None else g for g, x in pairs]
