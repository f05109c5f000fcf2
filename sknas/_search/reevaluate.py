"""Re-evaluation of the top k: the best of many noisy scores is partly luck."""

from __future__ import annotations

from collections.abc import Sequence

from sknas._history import Architecture, History, Origin, Proposal, StopReason
from sknas._search.proposals import trial_seed
from sknas.strategies import Strategy

TOP_K = 5  # architectures that are scored once more
TIME_SHARE = 0.15  # share of the time, or of an estimator's trials, to re-evaluate


def n_reevaluated(max_trials: int | None, ensemble_size: int | None) -> int:
    """Return the number of architectures that an estimator re-evaluates.

    A single winner is chosen partly by noise, so the top k are scored again; an
    ensemble averages the noise out. It is 0 instead of 1: one architecture alone has
    none to be compared with.
    """
    if ensemble_size != 1:
        return 0
    n = TOP_K if max_trials is None else int(TIME_SHARE * max_trials)
    return min(n, TOP_K) if n > 1 else 0


def top_k(strategy: Strategy, history: History, k: int) -> list[Architecture]:
    """Return the `k` best architectures of the highest rung, if it has two or more."""
    if not k or history.stop_reason == StopReason.INTERRUPTED:
        return []
    succeeded = history.succeeded
    top = [t for t in succeeded if t.proposal.rung == succeeded[0].proposal.rung]
    if len(top) < 2:
        return []
    ranked = {t.architecture.key: t.architecture for t in strategy.rank(top)}
    return list(ranked.values())[:k]


def rescore_proposals(
    architectures: Sequence[Architecture], first_number: int, seed: int
) -> list[Proposal]:
    """Return proposals that score architectures once more, with seeds of their own."""
    return [
        Proposal(a, origin=Origin.RESCORE, number=n, seed=trial_seed(seed, n))
        for n, a in enumerate(architectures, start=first_number)
    ]
