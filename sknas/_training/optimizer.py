"""The optimiser of K networks side by side, and recipes of training."""

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

from sknas._training.parameter_groups import LRGroup, collect_groups
from sknas._training.schedules import coslog, flat_cos
from sknas._validation import check_word

MAX_NORM = 1.0  # norm to which the gradient of each network is clipped
DEFAULT_LR = 1e-3  # peak learning rate of spaces without a choice of it
SLOW_LR_MULTIPLIER = 0.1  # factor on slow parameters, if NTK (arXiv:2407.04491)
RULE_OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {
        "beta1": 0.9,
        "beta2": 0.95,
        "eps": 1e-8,
        "amsgrad": False,
        "fused": True,
    },
    "rmsprop": {"alpha": 0.95, "eps": 1e-8, "momentum": 0.0, "centered": False},
    "momentum": {"momentum": 0.9, "dampening": 0.0, "nesterov": True},
    "sgd": {"momentum": 0.0, "dampening": 0.0, "nesterov": False},
}
OPTIMIZERS = tuple(RULE_OPTIONS)

State = dict[str, Tensor]  # state of an update rule for one parameter


@dataclass(frozen=True)
class Recipe:
    """Initialisation and training of weights.

    Parameters
    ----------
    init : {"uniform", "normal", "fitted"}
        Initialisation of the weights, see `sknas.nets.initialize_weights`.
    is_ntk : bool
        True if the learning rate of a weight is divided by the root of its layer's
        inputs, so that one rate suits all widths; biases then learn at a tenth.
    is_scheduled : bool
        True if the learning rate follows `coslog`, and weight decay and dropout follow
        `flat_cos`; else all are constant.
    beta2 : float
        Decay rate of Adam's second moment.
    is_clipped : bool
        True if the gradient of each network is clipped to the norm `MAX_NORM`.
    """

    init: str
    is_ntk: bool
    is_scheduled: bool
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
    """Return the recipe of an architecture; SGD always clips gradients."""
    recipe = RECIPES[architecture.get("recipe", "uniform")]
    is_sgd = architecture.get("optimizer") in ("momentum", "sgd")
    return replace(recipe, is_clipped=True) if is_sgd else recipe


class Optimizer:
    """Trains K networks side by side, each at its own rates.

    An update rule of torch makes steps at a learning rate of 1 on buffers as large as
    the parameters, and each network then moves by its own multiple of them. So the rule
    may be any whose steps are proportional to the learning rate, and a network is
    trained in the same way alone and among others.

    Parameters
    ----------
    net : nn.Module
        Its parameters have the network axis first, if there are several networks.
    architectures : sequence of mapping
        Training choices of each of the K networks, all of the same optimiser; K = 1
        for a module of any kind.

    Attributes
    ----------
    is_decaying : bool
        True if some network has weight decay.
    lr_multiplier, regularisation_multiplier : float
        Current factor on the learning rates, and on weight decay and dropout.

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
        grouped = [(p, g) for p, g in collect_groups(net).items() if p.requires_grad]
        self.parameters = [parameter for parameter, _ in grouped]
        self.rates = [_rates(group, p, architectures) for p, group in grouped]
        decays = [a.get("weight_decay", 0.0) * peak_rate(a) for a in architectures]
        self.is_decaying = any(decays)
        self.decayed = [
            (parameter, _by_network(decays, parameter))
            for parameter, group in grouped
            if group is LRGroup.WEIGHT
        ]
        self.steps = [torch.zeros_like(p) for p in self.parameters]
        self.kind = architectures[0].get("optimizer", "adamw")
        check_word("Architecture", "optimizer", self.kind, OPTIMIZERS)
        self.states = [initial_state(self.kind, p) for p in self.parameters]
        self.lr_multiplier, self.regularisation_multiplier = 1.0, 1.0

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def prepare(self, progress: float, cycles: int) -> None:
        """Set the multipliers at `progress` in [0, 1], with `cycles` of `coslog`."""
        if self.recipe.is_scheduled:
            self.lr_multiplier = coslog(progress, cycles)
            self.regularisation_multiplier = flat_cos(progress)

    @torch.no_grad()
    def step(self) -> None:
        """Decay the weights, then step along the gradients."""
        strength = self.lr_multiplier * self.regularisation_multiplier
        if self.is_decaying and strength:
            for parameter, decay in self.decayed:
                parameter.mul_((1 - strength * decay).clamp_(min=0))
        if self.recipe.is_clipped:
            self._clip()
        torch._foreach_zero_(self.steps)
        used = [j for j, p in enumerate(self.parameters) if p.grad is not None]
        grads = [self.parameters[j].grad for j in used]
        steps, states = [self.steps[j] for j in used], [self.states[j] for j in used]
        options = {"beta2": self.recipe.beta2} if self.kind == "adamw" else {}
        make_step(self.kind, steps, grads, states, lr=1.0, **options)
        for j in used:
            self.parameters[j].addcmul_(
                self.steps[j], self.rates[j], value=self.lr_multiplier
            )

    def _clip(self) -> None:
        """Clip the gradient of each network to `MAX_NORM`."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        squares = [g.square().reshape(self.k, -1).sum(dim=1) for g in grads]
        norms = torch.stack(squares).sum(dim=0).sqrt()  # (K,)
        factor = (MAX_NORM / norms.clamp(min=1e-12)).clamp(max=1.0)
        for grad in grads:
            grad.mul_(_by_network(factor, grad))

    def state_dict(self) -> list[State]:
        """Return the state of the update rule, one dict for each parameter."""
        return [dict(state) for state in self.states]

    def load_state_dict(self, states: list[State]) -> None:
        """Copy the state of another optimiser of the same networks."""
        self.states = [
            {name: t.to(parameter.device, copy=True) for name, t in state.items()}
            for state, parameter in zip(states, self.parameters, strict=True)
        ]


def _rates(
    group: LRGroup, parameter: Tensor, architectures: Sequence[Mapping[str, Any]]
) -> Tensor:
    """Return the peak learning rates of a parameter, (K, 1, ...)."""
    rates = []
    for architecture in architectures:
        rate = peak_rate(architecture)
        if group is LRGroup.INPUT_SCALE:
            rate = rate * architecture.get("scale_speed", 1.0)
        elif find_recipe(architecture).is_ntk:
            if group is LRGroup.WEIGHT:
                rate = rate / math.sqrt(max(parameter.shape[-2], 1))
            elif group is LRGroup.SLOW:
                rate = rate * SLOW_LR_MULTIPLIER
        rates.append(rate)
    return _by_network(rates, parameter)


def peak_rate(architecture: Mapping[str, Any]) -> float:
    """Return the peak learning rate of an architecture."""
    names = ("ntk_lr", "lr", "sgd_lr")
    return float(
        next((architecture[n] for n in names if n in architecture), DEFAULT_LR)
    )


def _by_network(values: Sequence[float] | Tensor, parameter: Tensor) -> Tensor:
    """Return one number per network in a shape (K, 1, ...) to multiply `parameter`."""
    options: Any = {"dtype": parameter.dtype, "device": parameter.device}
    numbers = torch.as_tensor(values, **options)
    if len(numbers) == 1:  # parameters of one network may have any shape
        return numbers[0]
    return numbers.view(-1, *[1] * (parameter.ndim - 1))


def initial_state(kind: str, parameter: Tensor) -> State:
    """Return the state of an update rule of `OPTIMIZERS` before its first step."""
    if kind == "adamw":
        # Fused Adam needs the count on the device of the parameter.
        n_steps = torch.zeros((), device=parameter.device)
        names = ("exp_avg", "exp_avg_sq")
        return {"step": n_steps} | {n: torch.zeros_like(parameter) for n in names}
    if kind == "rmsprop":
        return {"step": torch.zeros(()), "square_avg": torch.zeros_like(parameter)}
    # As in torch, the first step is the gradient.
    return (
        {"momentum_buffer": torch.zeros_like(parameter)} if kind == "momentum" else {}
    )


def make_step(
    kind: str,
    parameters: list[Tensor],
    grads: list[Any],
    states: list[State],
    **options: Any,
) -> None:
    """Step along the gradients and update `states`, in place.

    This calls the functions of `torch.optim`, because its classes import torch's
    compiler at their first step, which takes over a second in each worker process.

    Parameters
    ----------
    kind : {"adamw", "rmsprop", "momentum", "sgd"}
        The update rule.
    parameters, grads, states : list
        Lists of one length; states as `initial_state` returns them.
    **options
        torch's arguments of the rule (lr, weight_decay, beta2, nesterov, ...) that
        differ from `RULE_OPTIONS`.
    """

    def of(name: str) -> list[Any]:
        return [state.get(name) for state in states]

    options = {"weight_decay": 0.0, "maximize": False} | RULE_OPTIONS[kind] | options
    if kind == "adamw":
        means, squares, counts = of("exp_avg"), of("exp_avg_sq"), of("step")
        adam(parameters, grads, means, squares, [], counts, **options)
    elif kind == "rmsprop":
        rmsprop(parameters, grads, of("square_avg"), [], [], of("step"), **options)
    else:
        sgd(parameters, grads, of("momentum_buffer"), **options)
