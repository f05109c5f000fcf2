"""Relaxations: from the alphas of a choice to the weights of its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Dirichlet
from torch.nn import functional

from sknas.nets import MixtureWeights

MIN_CONCENTRATION = 1e-3  # samples of a Dirichlet become NaN below it


@dataclass(frozen=True)
class Relaxation:
    """A map from the alphas of a choice to the weights of its options.

    Parameters
    ----------
    sample : callable
        Maps alphas (n_options,) and a temperature to the weights of one step.
    mean : callable
        Maps alphas (n_options,) to positive weights without noise, (n_options,).
    """

    sample: Callable[[Tensor, float], MixtureWeights]
    mean: Callable[[Tensor], Tensor]


def softmax(alphas: Tensor) -> Tensor:
    """Return weights that sum to 1."""
    return torch.softmax(alphas, dim=0)


def gumbel(alphas: Tensor, temperature: float) -> MixtureWeights:
    """Return the softmax of alphas with Gumbel noise."""
    return MixtureWeights(_gumbel_softmax(alphas, temperature))


def gumbel_straight_through(alphas: Tensor, temperature: float) -> MixtureWeights:
    """Return weight 1 for one option, with the gradient of the Gumbel softmax."""
    soft = _gumbel_softmax(alphas, temperature)
    index = int(soft.argmax())
    hard = functional.one_hot(torch.tensor(index), len(alphas)).to(soft)
    return MixtureWeights(hard - soft.detach() + soft, computed=(index,))


def _gumbel_softmax(alphas: Tensor, temperature: float) -> Tensor:
    while True:
        noise = -torch.empty_like(alphas).exponential_().log()
        if torch.isfinite(noise).all():
            break
    return torch.softmax((functional.log_softmax(alphas, 0) + noise) / temperature, 0)


def concentration(alphas: Tensor) -> Tensor:
    """Return the parameters of a Dirichlet distribution."""
    return (functional.elu(alphas) + 1).clamp(min=MIN_CONCENTRATION)


def dirichlet(alphas: Tensor, temperature: float) -> MixtureWeights:
    """Return weights sampled from a Dirichlet distribution."""
    return MixtureWeights(
        Dirichlet(concentration(alphas), validate_args=False).rsample()
    )


def _dirichlet_mean(alphas: Tensor) -> Tensor:
    parameters = concentration(alphas)
    return parameters / parameters.sum()


def _deterministic(mean: Callable[[Tensor], Tensor]) -> Relaxation:
    return Relaxation(lambda alphas, temperature: MixtureWeights(mean(alphas)), mean)


RELAXATIONS = {
    "softmax": _deterministic(softmax),
    "gumbel": Relaxation(gumbel, softmax),
    "gumbel-st": Relaxation(gumbel_straight_through, softmax),
    "dirichlet": Relaxation(dirichlet, _dirichlet_mean),
    "sigmoid": _deterministic(torch.sigmoid),
}
