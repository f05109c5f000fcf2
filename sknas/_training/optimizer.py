"""Batches, schedules and optimisers, shared by everything that trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from sknas._training.schedules import coslog, flat_cos
from sknas._validation import check_word

MAX_NORM = 1.0  # of the whole gradient of a network, where it is clipped
DEFAULT_LR = 1e-3  # of spaces without a choice of it
SLOW = ("bias", "share", "frequency", "phase", "mixing", "shift")
SLOW_RATE = 0.1  # of these, beside weights with one input (arXiv:2407.04491)


OPTIMIZERS = ("adamw", "rmsprop", "momentum", "sgd")


@dataclass(frozen=True)
class Recipe:
    """How weights start and how they are trained.

    Parameters
    ----------
    start : {"uniform", "normal", "fitted"}
        Where weights start, see `sknas.nets.initialize_weights`.
    is_ntk : bool
        Whether the learning rate of a weight falls with the root of its layer's
        inputs, so that one rate suits all widths; biases then learn at a tenth.
    is_annealed : bool
        Whether the learning rate follows `coslog`, and weight decay and dropout fade
        by `flat_cos`; else all are constant.
    beta2 : float
        Memory of Adam's second moment.
    is_clipped : bool
        Whether the gradient of each network has at most the norm `MAX_NORM`.
    """

    start: str
    is_ntk: bool
    is_annealed: bool
    beta2: float
    is_clipped: bool


# beta2 = 0.95 measured better than 0.999 on short trainings (arXiv:2407.04491).
RECIPES = {
    "fitted": Recipe("fitted", True, True, 0.95, False),
    "normal": Recipe("normal", True, True, 0.95, False),
    "uniform": Recipe("uniform", False, True, 0.95, False),
    "constant": Recipe("uniform", False, False, 0.999, True),
}


def find_recipe(architecture: Mapping[str, Any]) -> Recipe:
    """The recipe of an architecture; steps along plain gradients are clipped."""
    recipe = RECIPES[architecture.get("recipe", "uniform")]
    is_steep = architecture.get("optimizer") in ("momentum", "sgd")
    return replace(recipe, is_clipped=True) if is_steep else recipe


class Optimizer:
    """Trains K networks side by side, each at its own rates.

    A rule of torch makes steps at a learning rate of 1 on stand-ins of the
    parameters; each network then takes its own share of them. So any rule whose
    steps are proportional to its rate serves, and what a network does is the same
    alone and among others.

    Parameters
    ----------
    net : nn.Module
        Its parameters have the network axis first, if there are several.
    architectures : sequence of mapping
        Training choices of each of the K networks, all of the same optimiser; K = 1
        for a module of any kind.

    Attributes
    ----------
    is_decaying : bool
        Whether some network has weight decay.

    References
    ----------
    Loshchilov, Hutter: Decoupled Weight Decay Regularization. arXiv:1711.05101.
    """

    def __init__(
        self, net: nn.Module, architectures: Sequence[Mapping[str, Any]]
    ) -> None:
        recipe = find_recipe(architectures[0])
        self.recipe = recipe
        self.k = len(architectures)
        named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
        self.parameters = [parameter for _, parameter in named]
        self.rates = [_rates(name, p, architectures) for name, p in named]
        losses = [a.get("weight_decay", 0.0) * peak_rate(a) for a in architectures]
        self.is_decaying = any(losses)
        self.decayed = [
            (parameter, _by_network(losses, parameter))
            for name, parameter in named
            if is_decayed(name, parameter)
        ]
        self.steps = [torch.zeros_like(p) for p in self.parameters]
        self.kind = architectures[0].get("optimizer", "adamw")
        check_word("Architecture", "optimizer", self.kind, OPTIMIZERS)
        self.states = [_first_state(self.kind, p) for p in self.parameters]
        self.share, self.fade = 1.0, 1.0

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def prepare(self, progress: float, cycles: int) -> None:
        """Set the rates at a share of the training, for a number of `coslog` cycles."""
        if self.recipe.is_annealed:
            self.share = coslog(progress, cycles)
            self.fade = flat_cos(progress)

    @torch.no_grad()
    def step(self) -> None:
        """Decay the weights, then step along the gradients."""
        strength = self.share * self.fade
        if self.is_decaying and strength:
            for parameter, decay in self.decayed:
                parameter.mul_((1 - strength * decay).clamp_(min=0))
        if self.recipe.is_clipped:
            self._clip()
        torch._foreach_zero_(self.steps)
        used = [j for j, p in enumerate(self.parameters) if p.grad is not None]
        grads = [self.parameters[j].grad for j in used]
        steps, states = [self.steps[j] for j in used], [self.states[j] for j in used]
        _take_steps(self.kind, self.recipe, steps, grads, states)
        for j in used:
            self.parameters[j].addcmul_(self.steps[j], self.rates[j], value=self.share)

    def _clip(self) -> None:
        """Shorten the gradient of each network to `MAX_NORM`."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        squares = [g.square().reshape(self.k, -1).sum(dim=1) for g in grads]
        norms = torch.stack(squares).sum(dim=0).sqrt()  # (K,)
        factor = (MAX_NORM / norms.clamp(min=1e-12)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(_by_network(factor, grad))

    def moments(self) -> list[dict[str, Tensor]]:
        """What is remembered of each parameter."""
        return [dict(state) for state in self.states]

    def load_moments(self, moments: list[dict[str, Tensor]]) -> None:
        """Go on from what another one remembered of the same networks."""
        self.states = [
            {name: tensor.to(parameter.device, copy=True) for name, tensor in m.items()}
            for m, parameter in zip(moments, self.parameters, strict=True)
        ]


def _rates(
    name: str, parameter: Tensor, architectures: Sequence[Mapping[str, Any]]
) -> Tensor:
    """Learning rates of a parameter, (K, 1, ...)."""
    kind = name.rpartition(".")[2]
    rates = []
    for architecture in architectures:
        rate = peak_rate(architecture)
        if kind == "input_scale":
            rate = rate * architecture.get("scale_speed", 1.0)
        elif find_recipe(architecture).is_ntk:
            if kind == "weight" and parameter.ndim >= 2:
                rate = rate / math.sqrt(max(parameter.shape[-2], 1))
            elif kind in SLOW:
                rate = rate * SLOW_RATE
        rates.append(rate)
    return _by_network(rates, parameter)


def peak_rate(architecture: Mapping[str, Any]) -> float:
    """The peak learning rate of an architecture."""
    names = ("ntk_lr", "lr", "sgd_lr")
    return float(
        next((architecture[n] for n in names if n in architecture), DEFAULT_LR)
    )


def _by_network(values: Sequence[float] | Tensor, parameter: Tensor) -> Tensor:
    """Numbers of K networks in the form (K, 1, ...) of a parameter."""
    told: Any = {"dtype": parameter.dtype, "device": parameter.device}
    numbers = torch.as_tensor(values, **told)
    if len(numbers) == 1:  # of a parameter of any shape
        return numbers[0]
    return numbers.view(-1, *[1] * (parameter.ndim - 1))


def is_decayed(name: str, parameter: Tensor) -> bool:
    """Whether a parameter decays: matrices do, biases, scales and embeddings don't."""
    return name.rpartition(".")[2] == "weight" and parameter.ndim >= 2


def _first_state(kind: str, parameter: Tensor) -> dict[str, Tensor]:
    """What a rule remembers before its first step."""
    if kind == "adamw":
        # Adam's fused form wants the count where the parameter is.
        n_steps = torch.zeros((), device=parameter.device)
        names = ("exp_avg", "exp_avg_sq")
        return {"step": n_steps} | {n: torch.zeros_like(parameter) for n in names}
    if kind == "rmsprop":
        return {"step": torch.zeros(()), "square_avg": torch.zeros_like(parameter)}
    # Zeros are where a velocity starts anyway: the first step is the gradient.
    return (
        {"momentum_buffer": torch.zeros_like(parameter)} if kind == "momentum" else {}
    )


def _take_steps(
    kind: str,
    recipe: Recipe,
    steps: list[Tensor],
    grads: list[Any],
    states: list[dict[str, Tensor]],
) -> None:
    """Add steps at a learning rate of 1 to `steps`, and bring `states` up to date.

    The functions, not the classes of `torch.optim`: those import the compiler of
    torch at their first step, more than a second in each worker process.
    """

    def of(name: str) -> list[Any]:
        return [state.get(name) for state in states]

    told: dict[str, Any] = {"lr": 1.0, "weight_decay": 0.0, "maximize": False}
    if kind == "adamw":
        told |= {"beta1": 0.9, "beta2": recipe.beta2, "eps": 1e-8, "amsgrad": False}
        means, squares, counts = of("exp_avg"), of("exp_avg_sq"), of("step")
        adam(steps, grads, means, squares, [], counts, fused=True, **told)
    elif kind == "rmsprop":
        told |= {"alpha": 0.95, "eps": 1e-8, "momentum": 0.0, "centered": False}
        rmsprop(steps, grads, of("square_avg"), [], [], of("step"), **told)
    else:
        momentum = 0.9 if kind == "momentum" else 0.0
        told |= {"momentum": momentum, "dampening": 0.0, "nesterov": momentum > 0}
        sgd(steps, grads, of("momentum_buffer"), **told)
