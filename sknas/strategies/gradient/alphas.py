"""The logits of all decisions of a relaxed network."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from sknas.nets import MixedChoice, MixtureWeights
from sknas.strategies.gradient.relaxations import Relaxation

FIRST_SPREAD = 1e-3  # of logits before the search
MIN_KEPT = 2  # options


class Alphas:
    """One flat tensor of logits, and which options are still there.

    Parameters
    ----------
    decisions : mapping of str to Decision
        What there is to decide.
    relaxation : Relaxation
        How logits become weights.
    device : str
        Where they are.

    Attributes
    ----------
    flat : Tensor of shape (A,)
        The logits of all options of all decisions.
    kept : dict of str to list of int
        Places of the options that were not dropped.
    """

    def __init__(
        self, decisions: Mapping[str, MixedChoice], relaxation: Relaxation, device: str
    ) -> None:
        self.decisions = decisions
        self.relaxation = relaxation
        sizes = [len(decision.options) for decision in decisions.values()]
        first = FIRST_SPREAD * torch.randn(sum(sizes))
        self.flat = first.to(device).requires_grad_()
        self.kept = {
            name: list(range(size)) for name, size in zip(decisions, sizes, strict=True)
        }

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """The logits of each decision, (n_options,)."""
        parts = flat.split([len(d.options) for d in self.decisions.values()])
        return dict(zip(self.decisions, parts, strict=True))

    def drawn(self, flat: Tensor, temperature: float) -> dict[str, MixtureWeights]:
        """Weights of all decisions for one step."""
        weights = {}
        for name, logits in self.split(flat).items():
            kept = self.kept[name]
            drawn = self.relaxation.draw(logits[kept], temperature)
            weights[name] = self._spread(drawn, kept, len(logits))
        return weights

    def expected(self, flat: Tensor) -> dict[str, MixtureWeights]:
        """Weights of all decisions without chance."""
        weights = {}
        for name, logits in self.split(flat).items():
            kept = self.kept[name]
            mean = MixtureWeights(self.relaxation.mean(logits[kept]))
            weights[name] = self._spread(mean, kept, len(logits))
        return weights

    def _spread(
        self, weights: MixtureWeights, kept: list[int], n: int
    ) -> MixtureWeights:
        """Weights of the options that are kept as those of all."""
        if len(kept) == n:
            return weights
        values = weights.values.new_zeros(n)
        index = torch.tensor(kept, device=values.device)
        values = values.index_put((index,), weights.values)
        return MixtureWeights(values, tuple(kept[place] for place in weights.places))

    def shares(self) -> dict[str, np.ndarray]:
        """What each option counts, (n_options,); those dropped count 0."""
        with torch.no_grad():
            weights = self.expected(self.flat)
        return {name: w.values.cpu().numpy() for name, w in weights.items()}

    def keep(self, share: float) -> None:
        """Drop all but the best share of the options of decisions made in stages."""
        for name, shares in self.shares().items():
            if not self.decisions[name].is_staged:
                continue
            n = max(math.ceil(share * len(shares)), min(MIN_KEPT, len(shares)))
            best = np.argsort(-shares, kind="stable")[:n]
            self.kept[name] = sorted(best.tolist())

    def entropy(self) -> float:
        """Mean entropy of the decisions, from 0 (all is decided) to 1 (nothing is)."""
        values = []
        for name, shares in self.shares().items():
            n_kept = len(self.kept[name])
            if n_kept > 1:
                p = shares / shares.sum()
                p = p[p > 0]
                values.append(-(p * np.log(p)).sum() / math.log(n_kept))
        return float(np.mean(values)) if values else 0.0
