"""Records of a search: architectures, proposals, trials and their history."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

MAX_REASONS = 5  # different reasons that a message lists
Value = Any  # bool, int, float, str or None, as in JSON


class Status(StrEnum):
    """Outcome of a trial; a "stopped" one ran out of time or was interrupted."""

    OK = "ok"
    STOPPED = "stopped"
    FAILED = "failed"


class Origin(StrEnum):
    """Source of an architecture."""

    DEFAULT = "default"  # the default architecture of the space
    KNOWN = "known"  # a published or proven architecture
    PROPOSED = "proposed"  # proposed by the strategy
    RESCORE = "re-score"  # one of the top k, evaluated once more


class StopReason(StrEnum):
    """Reason for the end of a search."""

    MAX_TRIALS = "max_trials"
    MAX_TIME = "max_time"
    SPACE_EXHAUSTED = "space_exhausted"
    STRATEGY_DONE = "strategy_done"
    INTERRUPTED = "interrupted"


class Cause(StrEnum):
    """Cause of an early end or a missing score; its value is a message for people."""

    OUT_OF_TIME = "out of time"
    INTERRUPTED = "interrupted"
    OUT_OF_MEMORY = "out of memory"
    DIVERGED = "the loss became infinite or NaN"
    UNDEFINED_SCORE = "the score is NaN or infinite"
    WORKER_LOST = "its worker process died, twice or more"
    ERROR = "an error was raised"


@dataclass(frozen=True)
class Fault:
    """Cause and message of a training without a result.

    Parameters
    ----------
    cause : Cause
        Cause of the fault.
    message : str, default=""
        Message for people; that of the cause if empty.
    """

    cause: Cause
    message: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cause", Cause(self.cause))

    def __str__(self) -> str:
        return self.message or self.cause.value

    @property
    def is_pause(self) -> bool:
        """True if the clock or the user ended the training, not an error of its own."""
        return self.cause in (Cause.OUT_OF_TIME, Cause.INTERRUPTED)


class Architecture(Mapping[str, Value]):
    """A point of a space: what to build, with its training choices.

    An immutable mapping from the names of the active choices to plain Python
    values. Two architectures are the same if their keys are equal.

    Parameters
    ----------
    choices : mapping of str to bool, int, float, str or None
        Names and values, in the order of the space.

    Examples
    --------
    >>> from sknas.spaces import Architecture
    >>> small = Architecture({"depth": 1, "width": 32})
    >>> small["width"], small
    (32, Architecture(depth=1, width=32))
    """

    __slots__ = ("_choices", "_key")

    def __init__(self, choices: Mapping[str, Value]) -> None:
        self._choices = dict(choices)
        self._key: str | None = None

    def __getitem__(self, name: str) -> Value:
        return self._choices[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)

    def __hash__(self) -> int:
        return hash(frozenset(self._choices.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Architecture, (self._choices,)

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self.items())
        return f"Architecture({inside})"

    @property
    def key(self) -> str:
        """Canonical text: the same for the same choices in any order."""
        if self._key is None:
            self._key = json.dumps(self._choices, sort_keys=True)
        return self._key


@dataclass(frozen=True)
class Proposal:
    """An architecture, and how long to train it.

    Parameters
    ----------
    architecture : Architecture
        What to train.
    rung : int, default=0
        Rung to train to, or in a trial the rung that was reached. Longer trainings have
        higher rungs.
    origin : Origin, default="proposed"
        Source of the architecture: "default", "known", "proposed" or "re-score".
    number : int, default=0
        Number of the trial in the search, from 0.
    seed : int, default=0
        Seeds everything random in the training.
    """

    architecture: Architecture
    rung: int = 0
    origin: Origin = Origin.PROPOSED
    number: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "origin", Origin(self.origin))


@dataclass(frozen=True)
class Trial:
    """A proposal and its outcome.

    Parameters
    ----------
    proposal : Proposal
        The proposal; its rung is the one that was reached.
    status : Status, default="ok"
        "ok", "failed", or "stopped" if time ran out, or the user interrupted, before
        there was a score.
    score : float or None, default=None
        Validation score, greater is better; None if there is none.
    loss : float or None, default=None
        Validation loss, which orders trials of the same score.
    fold_scores, fold_seconds, score_seconds : tuple of float, default=()
        One value per fold: score, seconds of training, seconds of scoring.
    stop : float, default=1.0
        Share of the planned training after which the score was best.
    n_epochs : int, default=0
        Epochs up to that point.
    n_params : int, default=0
        Trained parameters of the network.
    seconds, build_seconds : float, default=0.0
        Seconds of training and scoring, and of building networks the last time, all
        folds together.
    reason : str, default=""
        Message for people: why there is no score, or what was unusual.
    cause : Cause or None, default=None
        Why the training ended early, or why it, or a snapshot of it, has no score.
    n_micro_batches : int, default=1
        Parts in which each batch was trained, more than one where memory ran out.
    rung_scores : tuple of float, default=()
        Best score up to each rung that was reached, NaN if there was none.
    predictions : ndarray of shape (n_rows, n_outputs) or None, default=None
        Out-of-fold predictions, NaN for rows that no fold validates; not in the JSON.
    networks : tuple of dict or None, default=None
        State dict of the network of each fold; not in the JSON.
    """

    proposal: Proposal
    status: Status = Status.OK
    score: float | None = None
    loss: float | None = None
    fold_scores: tuple[float, ...] = ()
    fold_seconds: tuple[float, ...] = ()
    score_seconds: tuple[float, ...] = ()
    stop: float = 1.0
    n_epochs: int = 0
    n_params: int = 0
    seconds: float = 0.0
    build_seconds: float = 0.0
    reason: str = ""
    cause: Cause | None = None
    n_micro_batches: int = 1
    rung_scores: tuple[float, ...] = ()
    predictions: np.ndarray | None = field(default=None, repr=False, compare=False)
    networks: tuple[Any, ...] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status", Status(self.status))
        if self.cause is not None:
            object.__setattr__(self, "cause", Cause(self.cause))

    @property
    def architecture(self) -> Architecture:
        """Architecture of the proposal."""
        return self.proposal.architecture

    @property
    def has_started(self) -> bool:
        """False for a trial that was stopped before its training began."""
        return self.status != Status.STOPPED or self.seconds > 0

    def without_arrays(self) -> Trial:
        """Return the trial without predictions and networks."""
        if self.predictions is None and self.networks is None:
            return self
        return replace(self, predictions=None, networks=None)

    @property
    def order(self) -> tuple[float, float, float, float]:
        """Sort key, the best first: highest rung, best score, lowest loss, earliest."""
        failed = float("inf")
        score = failed if self.score is None else -self.score
        loss = failed if self.loss is None else self.loss
        return (-self.proposal.rung, score, loss, self.proposal.number)


@dataclass(frozen=True)
class History:
    """All trials of a search, in the order of their numbers.

    Parameters
    ----------
    trials : tuple of Trial
        The trials.
    stop_reason : StopReason or None, default=None
        Why the search ended: "max_trials", "max_time", "space_exhausted",
        "strategy_done" or "interrupted"; None while it goes on.
    """

    trials: tuple[Trial, ...] = ()
    stop_reason: StopReason | None = None

    def __post_init__(self) -> None:
        if self.stop_reason is not None:
            object.__setattr__(self, "stop_reason", StopReason(self.stop_reason))

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials)

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, number: int) -> Trial:
        return self.trials[number]

    def extended(self, trials: Iterable[Trial]) -> History:
        """Return the history with more trials at its end."""
        return replace(self, trials=(*self.trials, *trials))

    @property
    def succeeded(self) -> list[Trial]:
        """Trials with a score, the best first."""
        scored = [t for t in self if t.status == Status.OK]
        return sorted(scored, key=lambda t: t.order)

    @property
    def best(self) -> Trial:
        """The trial with the best score, which is recommended.

        If the top k were re-evaluated, it is the one with the best mean score, and its
        `score` is that mean.
        """
        succeeded = self.succeeded
        if not succeeded:
            raise ValueError("No trial succeeded: `to_frame` shows the reasons.")
        top = succeeded[0].proposal.rung
        scores: dict[str, list[float]] = {}
        for trial in succeeded:
            if trial.proposal.rung == top:
                scores.setdefault(trial.architecture.key, []).append(-trial.order[1])
        means = {key: float(np.mean(s)) for key, s in scores.items() if len(s) > 1}
        if len(means) < 2:  # there is nothing to compare a single mean with
            firsts = [t for t in succeeded if t.proposal.origin != Origin.RESCORE]
            return (firsts or succeeded)[0]
        winner = max(means, key=lambda key: means[key])
        of_winner = [t for t in succeeded if t.architecture.key == winner]
        rescored = [t for t in of_winner if t.proposal.origin == Origin.RESCORE]
        return replace((rescored or of_winner)[0], score=means[winner])

    def without_predictions(self, keep: int = 0) -> History:
        """Return the history with the arrays of only the best `keep` trials."""
        best = {id(trial) for trial in self.succeeded[:keep]}
        trials = (t if id(t) in best else t.without_arrays() for t in self.trials)
        return replace(self, trials=tuple(trials))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per trial: outcome, then choices as ``param_<name>``."""
        columns = ("status", "score", "loss", "n_epochs", "n_params", "seconds")
        rows = []
        for trial in self:
            row: dict[str, Any] = {"number": trial.proposal.number}
            row["origin"] = trial.proposal.origin.value
            row["rung"] = trial.proposal.rung
            row |= {name: getattr(trial, name) for name in columns}
            row["status"] = trial.status.value
            row["reason"] = trial.reason
            row |= {f"param_{name}": v for name, v in trial.architecture.items()}
            rows.append(row)
        return pd.DataFrame(rows)

    def to_json(self) -> str:
        """Return the history as JSON, which `from_json` reads."""
        trials = []
        for trial in self.without_predictions():
            arrays = ("predictions", "networks")
            record = {k: v for k, v in vars(trial).items() if k not in arrays}
            proposal = dict(vars(trial.proposal))
            proposal["architecture"] = dict(trial.architecture)
            trials.append(record | {"proposal": proposal})
        return json.dumps({"trials": trials, "stop_reason": self.stop_reason})

    @classmethod
    def from_json(cls, text: str) -> History:
        """Return the history that `to_json` wrote."""
        content = json.loads(text)
        trials = []
        for record in content["trials"]:
            proposal = record.pop("proposal")
            proposal["architecture"] = Architecture(proposal["architecture"])
            for name in _TUPLES:
                record[name] = tuple(record[name])
            trials.append(Trial(Proposal(**proposal), **record))
        return cls(tuple(trials), content["stop_reason"] or None)


_TUPLES = ("fold_scores", "fold_seconds", "score_seconds", "rung_scores")


def count_reasons(trials: Iterable[Trial]) -> str:
    """Return the reasons of trials, the most common first."""
    reasons = Counter(trial.reason for trial in trials).most_common()
    shown = [f"{n} x {reason}" for reason, n in reasons[:MAX_REASONS]]
    others = sum(n for _, n in reasons[MAX_REASONS:])
    return "; ".join([*shown, f"{others} x others"] if others else shown)
