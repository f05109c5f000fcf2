"""Keep the results of a search in a store, and replay them when it is resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sknas._checkpoint import keys
from sknas._history import Cause, History, Proposal, StopReason, Trial
from sknas._problem import Store


class Recorder:
    """Keeps the decisions and trials of a search, or replays them.

    A resumed search makes the same calls in the same order, so that the strategy
    reaches the state it had. Decisions that depended on the clock, and results that
    took time, are read from the store.

    Parameters
    ----------
    store : Store
        Where results are kept.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._index = 0  # index of the current batch

    @property
    def seconds(self) -> float:
        """Seconds that earlier runs of this search took."""
        return self.store.seconds

    @property
    def is_replaying(self) -> bool:
        """True if the store holds the current batch."""
        return self._batch is not None

    @property
    def _batch(self) -> dict[str, Any] | None:
        batch: dict[str, Any] | None = self.store.get(keys.batch(self._index))
        return batch

    def size(self, decide: Callable[[], int | StopReason]) -> int | StopReason:
        """Return the size of the next batch, or why there is none."""
        end = self.store.get(keys.end(self._index))
        if end is not None:
            return StopReason(end)
        batch = self._batch
        size: int | StopReason = decide() if batch is None else batch["n"]
        return self.end(size) if isinstance(size, StopReason) else size

    def end(self, stop_reason: StopReason) -> StopReason:
        """Keep the stop reason, and return it."""
        self.store.put(keys.end(self._index), stop_reason)
        return stop_reason

    def proposals(self, size: int, proposals: list[Proposal]) -> list[Proposal]:
        """Keep the proposals of a batch, or return those in the store."""
        batch = self._batch
        if batch is not None:
            stored: list[Proposal] = batch["proposals"]
            return stored
        if proposals:
            key = keys.batch(self._index)
            self.store.put(key, {"n": size, "proposals": proposals})
        return proposals

    def trials(self, train: Callable[[], list[Trial]]) -> list[Trial]:
        """Return the trials of the batch: those in the store, or new ones."""
        trials = self._stored_trials()
        if not trials:
            trials = train()
            # An interrupted batch is resumed from the states that its trainer kept.
            if not any(trial.cause == Cause.INTERRUPTED for trial in trials):
                self._keep_batch([trial for trial in trials if trial.has_started])
        self._index += 1
        return trials

    def keep(self, trial: Trial) -> None:
        """Keep a trial, its networks and predictions first."""
        number = trial.proposal.number
        if trial.cause == Cause.INTERRUPTED or not trial.has_started:
            return
        if self.store.get(keys.trial(number)) == trial.without_arrays():
            return
        if trial.networks is not None or trial.predictions is not None:
            arrays = {"networks": trial.networks, "predictions": trial.predictions}
            self.store.put(keys.networks(number), arrays)
        self.store.put(keys.trial(number), trial.without_arrays())

    def drop_networks(self, before: History, after: History) -> None:
        """Delete the networks of trials that no longer have any."""
        for old, new in zip(before, after, strict=True):
            if old.networks is not None and new.networks is None:
                self.store.drop(keys.networks(old.proposal.number))

    def _keep_batch(self, trials: list[Trial]) -> None:
        for trial in trials:
            self.keep(trial)
        numbers = [trial.proposal.number for trial in trials]
        self.store.put(keys.done(self._index), numbers)
        self.store.drop(keys.COHORT)  # the trainer's state is no longer needed

    def _stored_trials(self) -> list[Trial]:
        trials = []
        for number in self.store.get(keys.done(self._index)) or ():
            trial: Trial = self.store.get(keys.trial(number))
            arrays = self.store.get(keys.networks(number)) or {}
            trials.append(replace(trial, **arrays))
        return trials
