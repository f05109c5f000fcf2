"""From the logits of a decision to the weights of its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Dirichlet
from torch.nn import functional

from sknas.nets import MixtureWeights

MIN_CONCENTRATION = 1e-3  # below it draws of a Dirichlet become NaN


@dataclass(frozen=True)
class Relaxation:
    """How options are weighed.

    Parameters
    ----------
    draw : callable
        Logits (n_options,) and a temperature -> the weights of one step.
    mean : callable
        Logits -> what the options count without chance, positive.
    """

    draw: Callable[[Tensor, float], MixtureWeights]
    mean: Callable[[Tensor], Tensor]


def softmax(logits: Tensor) -> Tensor:
    """Shares that sum to 1."""
    return torch.softmax(logits, dim=0)


def gumbel(logits: Tensor, temperature: float) -> MixtureWeights:
    """Shares of logits with Gumbel noise."""
    return MixtureWeights(_gumbel(logits, temperature))


def gumbel_straight_through(logits: Tensor, temperature: float) -> MixtureWeights:
    """One option with weight 1, with the gradient of its shares."""
    shares = _gumbel(logits, temperature)
    place = int(shares.argmax())
    hard = functional.one_hot(torch.tensor(place), len(logits)).to(shares)
    return MixtureWeights(hard - shares.detach() + shares, computed=(place,))


def _gumbel(logits: Tensor, temperature: float) -> Tensor:
    while True:
        noise = -torch.empty_like(logits).exponential_().log()
        if torch.isfinite(noise).all():
            break
    return torch.softmax((functional.log_softmax(logits, 0) + noise) / temperature, 0)


def concentration(logits: Tensor) -> Tensor:
    """The parameters of a Dirichlet distribution."""
    return (functional.elu(logits) + 1).clamp(min=MIN_CONCENTRATION)


def dirichlet(logits: Tensor, temperature: float) -> MixtureWeights:
    """Shares drawn from a Dirichlet distribution."""
    return MixtureWeights(
        Dirichlet(concentration(logits), validate_args=False).rsample()
    )


def _dirichlet_mean(logits: Tensor) -> Tensor:
    parameters = concentration(logits)
    return parameters / parameters.sum()


def _sure(mean: Callable[[Tensor], Tensor]) -> Relaxation:
    """A relaxation without chance."""
    return Relaxation(lambda logits, temperature: MixtureWeights(mean(logits)), mean)


RELAXATIONS = {
    "softmax": _sure(softmax),
    "gumbel": Relaxation(gumbel, softmax),
    "gumbel-st": Relaxation(gumbel_straight_through, softmax),
    "dirichlet": Relaxation(dirichlet, _dirichlet_mean),
    "sigmoid": _sure(torch.sigmoid),
}
