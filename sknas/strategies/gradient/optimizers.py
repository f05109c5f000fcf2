"""Optimisers of alphas and weights, and second-order derivatives of their losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sknas._training.optimizer import State, initial_state, make_step
from sknas._training.seeds import random_state, set_random_state

MOMENTUM = 0.9
MAX_ALPHA_CHANGE = 3.0  # approximate distance that an alpha can move in a search
MAX_ARCH_LR = 0.05
MAX_NORM = 5.0  # norm to which the gradient of the weights is clipped
PERTURBATION_NORM = 0.01  # length of the step of a finite difference
# Update rule of each optimiser of the alphas, with the options of `make_step`.
ARCH_RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("adamw", {"beta1": 0.5, "beta2": 0.999}),
    "rmsprop": ("rmsprop", {"alpha": 0.9}),
    "momentum": ("momentum", {"momentum": MOMENTUM, "nesterov": False}),
    "sgd": ("sgd", {}),
}
# Plain gradients are small, so SGD needs a larger rate.
LR_MULTIPLIERS = {"adam": 1.0, "rmsprop": 1.0, "momentum": 10.0, "sgd": 100.0}


def default_arch_lr(kind: str, published: float, n_steps: int) -> float:
    """Return the learning rate of the alphas for a search of `n_steps`.

    Published rates are for searches of 20,000 steps; in a short search the alphas would
    hardly move.
    """
    short = min(MAX_ALPHA_CHANGE / max(n_steps, 1), MAX_ARCH_LR)
    return LR_MULTIPLIERS[kind] * max(published, short)


class TensorOptimizer:
    """Updates tensors by one rule at one learning rate.

    Parameters
    ----------
    tensors : sequence of Tensor
        Tensors that are updated in place.
    rule : str
        A key of `sknas._training.optimizer.OPTIMIZERS`.
    max_norm : float or None, default=None
        Norm to which the whole gradient is clipped.
    is_decoupled : bool, default=False
        True if weight decay is not added to the gradient.
    **options
        Options of the rule, see `sknas._training.optimizer.make_step`.
    """

    def __init__(
        self,
        tensors: Sequence[Tensor],
        rule: str,
        *,
        max_norm: float | None = None,
        is_decoupled: bool = False,
        **options: Any,
    ) -> None:
        self.tensors = list(tensors)
        self.rule, self.options = rule, options
        self.max_norm, self.is_decoupled = max_norm, is_decoupled
        self.states = [initial_state(rule, tensor) for tensor in self.tensors]

    @property
    def velocities(self) -> list[Tensor]:
        """Momentum buffers; empty for a rule without them."""
        name = "momentum_buffer"
        return [state[name] for state in self.states if name in state]

    @torch.no_grad()
    def step(
        self, gradients: Sequence[Tensor | None], lr: float, weight_decay: float
    ) -> None:
        """Update the tensors that have a gradient."""
        used = [j for j, gradient in enumerate(gradients) if gradient is not None]
        tensors = [self.tensors[j] for j in used]
        states = [self.states[j] for j in used]
        slopes = [gradient for gradient in gradients if gradient is not None]
        if self.max_norm is not None:
            slopes = clip_gradient(slopes, self.max_norm)
        if self.is_decoupled:
            torch._foreach_mul_(tensors, 1 - lr * weight_decay)
            weight_decay = 0.0
        options = {"lr": lr, "weight_decay": weight_decay} | self.options
        make_step(self.rule, tensors, slopes, states, **options)

    def state_dict(self) -> list[State]:
        """Return the state of the update rule, one dict for each tensor."""
        return self.states

    @torch.no_grad()
    def load_state_dict(self, states: list[State]) -> None:
        """Copy the state of another optimiser of the same tensors."""
        for state, loaded in zip(self.states, states, strict=True):
            for name, tensor in state.items():
                tensor.copy_(loaded[name])


def arch_optimizer(kind: str, alphas: Tensor) -> TensorOptimizer:
    """Return the optimiser of the alphas; `kind` is a key of `ARCH_RULES`."""
    rule, options = ARCH_RULES[kind]
    return TensorOptimizer([alphas], rule, **options)


def weight_optimizer(
    parameters: Sequence[Tensor], is_adaptive: bool
) -> TensorOptimizer:
    """Return the optimiser of weights: AdamW if adaptive, else SGD with momentum."""
    rule, options = ("adamw", {}) if is_adaptive else ARCH_RULES["momentum"]
    return TensorOptimizer(
        parameters, rule, max_norm=MAX_NORM, is_decoupled=is_adaptive, **options
    )


def clip_gradient(gradients: list[Tensor], max_norm: float) -> list[Tensor]:
    """Return a gradient scaled down to a norm of at most `max_norm`."""
    if not gradients:
        return []
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    factor = (max_norm / norm.clamp(min=1e-12)).clamp(max=1)
    return list(torch._foreach_mul(gradients, factor))


def unrolled_gradient(
    arch_loss: Callable[[], Tensor],
    weight_loss: Callable[[], Tensor],
    alphas: Tensor,
    parameters: Sequence[Tensor],
    lr: float,
    velocities: Sequence[Tensor] = (),
    weight_decay: float = 0.0,
) -> Tensor:
    """Return the gradient of the alphas after one step of the weights.

    With w' = w - lr * (gradient of `weight_loss`), the gradient of ``arch_loss(w')``
    has a second term, a mixed second derivative of `weight_loss` times the gradient at
    w'; a finite difference approximates it. Afterwards the weights are restored bit for
    bit.

    Parameters
    ----------
    arch_loss, weight_loss : callable
        Compute the loss of the alphas' rows and of the weights' rows, at the current
        alphas and parameters.
    alphas : Tensor of shape (A,)
        Variable of the gradient.
    parameters : sequence of Tensor
        The weights.
    lr : float
        Learning rate of the step ahead.
    velocities : sequence of Tensor, default=()
        Momentum buffer of each parameter.
    weight_decay : float, default=0.0
        Weight decay of the weights.

    References
    ----------
    Liu, Simonyan, Yang: DARTS: Differentiable Architecture Search. arXiv:1806.09055,
    section 2.3.
    """
    state = random_state(alphas.device)
    before = [parameter.detach().clone() for parameter in parameters]
    slopes = _gradients(weight_loss(), parameters)
    with torch.no_grad():
        for j, (parameter, slope) in enumerate(zip(parameters, slopes, strict=True)):
            ahead = slope + weight_decay * parameter
            if velocities:
                ahead = ahead + MOMENTUM * velocities[j]
            parameter.sub_(lr * ahead)
    direct, *direction = _gradients(arch_loss(), [alphas, *parameters])
    after = random_state(alphas.device)
    norm = torch.stack([part.norm() for part in direction]).norm()
    size = PERTURBATION_NORM / norm.clamp(min=1e-12)

    def shifted(sign: float) -> Tensor:
        """Return the gradient of `weight_loss` with shifted weights, (A,)."""
        with torch.no_grad():
            for p, old, part in zip(parameters, before, direction, strict=True):
                p.copy_(old + sign * size * part)
        set_random_state(alphas.device, state)  # the same noise on both sides
        return _gradients(weight_loss(), [alphas])[0]

    difference = shifted(1.0) - shifted(-1.0)
    with torch.no_grad():
        for parameter, old in zip(parameters, before, strict=True):
            parameter.copy_(old)
    set_random_state(alphas.device, after)  # later steps draw new numbers
    return direct - lr * difference / (2 * size)


def power_step(
    gradient: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor
) -> tuple[float, Tensor]:
    """Make one step of the power iteration for the dominant eigenvalue of a Hessian.

    The product of the Hessian with the direction is a difference of two gradients.

    Parameters
    ----------
    gradient : callable
        Maps a point (A,) to the gradient (A,).
    at : Tensor of shape (A,)
        Point of the Hessian.
    direction : Tensor of shape (A,)
        Approximate eigenvector.

    Returns
    -------
    eigenvalue : float
        Estimate, which converges to the eigenvalue of largest magnitude.
    direction : Tensor of shape (A,)
        Better approximation of the eigenvector, of length 1.
    """
    direction = direction / direction.norm().clamp(min=1e-12)
    above = gradient(at + PERTURBATION_NORM * direction)
    below = gradient(at - PERTURBATION_NORM * direction)
    product = (above - below) / (2 * PERTURBATION_NORM)
    eigenvalue, norm = float(direction @ product), product.norm()
    if torch.isfinite(norm) and norm >= 1e-12:
        direction = product / norm
    return eigenvalue, direction


def _gradients(loss: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(inputs), allow_unused=True)
    pairs = zip(found, inputs, strict=True)
    return [torch.zeros_like(x) if g is None else g for g, x in pairs]
