"""The alphas of a supernet: one number per option of each choice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sknas.nets import MixedChoice, MixtureWeights
from sknas.strategies.gradient.relaxations import Relaxation

INITIAL_STD = 1e-3  # standard deviation of the alphas before the search
MIN_ACTIVE = 2  # minimum number of options that pruning leaves


class Alphas:
    """The alphas in one flat tensor, and the options that are still active.

    Parameters
    ----------
    choices : mapping of str to MixedChoice
        The choices of the supernet.
    relaxation : Relaxation
        How alphas become weights.
    device : str
        Device of the tensor.

    Attributes
    ----------
    vector : Tensor of shape (A,)
        The alphas of all options of all choices.
    active : dict of str to list of int
        Indices of the options that were not pruned.
    """

    def __init__(
        self, choices: Mapping[str, MixedChoice], relaxation: Relaxation, device: str
    ) -> None:
        self.choices = choices
        self.relaxation = relaxation
        sizes = [len(choice.options) for choice in choices.values()]
        initial = INITIAL_STD * torch.randn(sum(sizes))
        self.vector = initial.to(device).requires_grad_()
        self.active = {
            name: list(range(size)) for name, size in zip(choices, sizes, strict=True)
        }

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the alphas of each choice, (n_options,)."""
        parts = vector.split([len(choice.options) for choice in self.choices.values()])
        return dict(zip(self.choices, parts, strict=True))

    def split_active(self, vector: Tensor) -> list[Tensor]:
        """Return the alphas of the active options of each choice, (n_active,)."""
        return [
            alphas[self.active[name]] for name, alphas in self.split(vector).items()
        ]

    def sample(self, vector: Tensor, temperature: float) -> dict[str, MixtureWeights]:
        """Return the weights of all choices for one step."""
        return self._weights(vector, lambda a: self.relaxation.sample(a, temperature))

    def mean(self, vector: Tensor) -> dict[str, MixtureWeights]:
        """Return the weights of all choices without noise."""
        return self._weights(vector, lambda a: MixtureWeights(self.relaxation.mean(a)))

    def _weights(
        self, vector: Tensor, weigh: Callable[[Tensor], MixtureWeights]
    ) -> dict[str, MixtureWeights]:
        weights = {}
        for name, alphas in self.split(vector).items():
            active = self.active[name]
            weights[name] = _scatter(weigh(alphas[active]), active, len(alphas))
        return weights

    def shares(self) -> dict[str, np.ndarray]:
        """Return the mean weight of each option, (n_options,); 0 for pruned ones."""
        with torch.no_grad():
            weights = self.mean(self.vector)
        return {name: w.values.cpu().numpy() for name, w in weights.items()}

    def prune(self, share: float) -> None:
        """Drop all but the best `share` of the options of each staged choice."""
        for name, shares in self.shares().items():
            if not self.choices[name].is_staged:
                continue
            n = max(math.ceil(share * len(shares)), min(MIN_ACTIVE, len(shares)))
            best = np.argsort(-shares, kind="stable")[:n]
            self.active[name] = sorted(best.tolist())

    def entropy(self) -> float:
        """Return the mean entropy of the choices: 1 if uniform, 0 if one-hot."""
        values = []
        for name, shares in self.shares().items():
            n_active = len(self.active[name])
            if n_active > 1:
                p = shares / shares.sum()
                p = p[p > 0]
                values.append(-(p * np.log(p)).sum() / math.log(n_active))
        return float(np.mean(values)) if values else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the alphas and the active options."""
        return {"vector": self.vector, "active": self.active}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Copy the alphas and active options of another search."""
        self.vector.copy_(state["vector"])
        self.active = state["active"]


def _scatter(weights: MixtureWeights, active: list[int], n: int) -> MixtureWeights:
    """Return the weights of the active options as those of all n options."""
    if len(active) == n:
        return weights
    values = weights.values.new_zeros(n)
    index = torch.tensor(active, device=values.device)
    values = values.index_put((index,), weights.values)
    return MixtureWeights(values, tuple(active[j] for j in weights.indices))
