"""What a search tried and what came of it: frozen records of plain Python values."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

Value = Any  # bool, int, float, str or None: what JSON keeps

# Reasons of trials without a score that others ask for.
OUT_OF_TIME = "out of time"
INTERRUPTED = "interrupted"
OUT_OF_MEMORY = "out of memory"
RESCORE = "re-score"  # origin of a trial that scores an architecture again
DIVERGED = "the loss became infinite or NaN"
UNDEFINED = "the score is NaN or infinite"
# Of a trial that has a score, and that others may ask for.
IN_HALVES = f"trained in halves of a batch: {OUT_OF_MEMORY}"


class Architecture(Mapping[str, Value]):
    """A point of a space: what to build, with its training choices.

    An immutable mapping from the names of the active choices to plain Python
    values. Two architectures are the same if their `key` is.

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
    """An architecture and how far to train it.

    Parameters
    ----------
    architecture : Architecture
        What to train.
    rung : int, default=0
        Number of the rung to train to, and in a trial the one that was reached; longer
        trainings have higher ones, and where there is one length only it is 0.
    origin : {"default", "known", "proposed", "re-score"}
        Where the architecture comes from: the space's default, its portfolio, the
        strategy, or a leader that is scored once more.
    number : int, default=0
        Number of the trial in the search, from 0.
    seed : int, default=0
        Seeds everything random in the training.
    """

    architecture: Architecture
    rung: int = 0
    origin: str = "proposed"
    number: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Trial:
    """A proposal and its outcome.

    Parameters
    ----------
    proposal : Proposal
        What was tried.
    status : {"ok", "stopped", "failed"}
        "stopped": time ran out, or the user interrupted, before it had a score.
    score : float or None
        Validation score, greater is better; None without one.
    loss : float or None
        Validation loss, which orders trials of the same score.
    fold_scores, fold_seconds, score_seconds : tuple of float
        One value a fold: its score, seconds of training and of scoring.
    stop : float, default=1.0
        Share of the planned training after which the score was best.
    n_epochs : int, default=0
        Epochs up to there.
    n_params : int, default=0
        Trained parameters of the network.
    seconds : float, default=0.0
        Seconds of training and scoring, all folds together.
    reason : str, default=""
        Why there is no score, or what was unusual on the way to it.
    rung_scores : tuple of float, default=()
        The best score up to each rung that was reached.
    predictions : ndarray of shape (n_rows, n_outputs) or None
        Out-of-fold predictions, NaN where no fold validated; kept out of the JSON.
    networks : tuple of dict or None
        The parameters of the network of each fold, as tensors by name; kept out of the
        JSON.
    """

    proposal: Proposal
    status: str = "ok"
    score: float | None = None
    loss: float | None = None
    fold_scores: tuple[float, ...] = ()
    fold_seconds: tuple[float, ...] = ()
    score_seconds: tuple[float, ...] = ()
    stop: float = 1.0
    n_epochs: int = 0
    n_params: int = 0
    seconds: float = 0.0
    reason: str = ""
    rung_scores: tuple[float, ...] = ()
    predictions: np.ndarray | None = field(default=None, repr=False, compare=False)
    networks: tuple[Any, ...] | None = field(default=None, repr=False, compare=False)

    @property
    def architecture(self) -> Architecture:
        """The architecture that was tried."""
        return self.proposal.architecture

    def without_arrays(self) -> Trial:
        """The trial without its predictions and networks."""
        if self.predictions is None and self.networks is None:
            return self
        return replace(self, predictions=None, networks=None)

    @property
    def order(self) -> tuple[float, float, float, float]:
        """Sorts trials from the best: highest rung, score, lowest loss, earliest."""
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
    stop_reason : str, default=""
        Why the search ended: "max_trials", "max_time", "space_exhausted",
        "strategy_done" or "interrupted".
    """

    trials: tuple[Trial, ...] = ()
    stop_reason: str = ""

    def __iter__(self) -> Iterator[Trial]:
        return iter(self.trials)

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, number: int) -> Trial:
        return self.trials[number]

    def extended(self, trials: Iterable[Trial]) -> History:
        """A history with more trials at its end."""
        return replace(self, trials=(*self.trials, *trials))

    @property
    def succeeded(self) -> list[Trial]:
        """Trials with a score, the best first."""
        scored = [t for t in self if t.status == "ok"]
        return sorted(scored, key=lambda t: t.order)

    @property
    def best(self) -> Trial:
        """The recommended trial.

        The one with the best score; where architectures were scored again, the one
        with the best mean among those, and with that mean as its score.
        """
        succeeded = self.succeeded
        if not succeeded:
            raise ValueError("No trial of this history succeeded, so none is best.")
        top = succeeded[0].proposal.rung
        scores: dict[str, list[float]] = {}
        for trial in succeeded:
            if trial.proposal.rung == top:
                scores.setdefault(trial.architecture.key, []).append(-trial.order[1])
        means = {key: float(np.mean(s)) for key, s in scores.items() if len(s) > 1}
        if len(means) < 2:  # a second score alone says nothing
            firsts = [t for t in succeeded if t.proposal.origin != RESCORE]
            return (firsts or succeeded)[0]
        winner = max(means, key=lambda key: means[key])
        of_winner = [t for t in succeeded if t.architecture.key == winner]
        again = [t for t in of_winner if t.proposal.origin == RESCORE]
        return replace((again or of_winner)[0], score=means[winner])

    def without_predictions(self, keep: int = 0) -> History:
        """The history free of arrays, but for those of the best `keep` trials."""
        best = {id(trial) for trial in self.succeeded[:keep]}
        trials = (t if id(t) in best else t.without_arrays() for t in self.trials)
        return replace(self, trials=tuple(trials))

    def to_frame(self) -> pd.DataFrame:
        """One row a trial: its outcome, then its choices as ``param_<name>``."""
        columns = ("status", "score", "loss", "n_epochs", "n_params", "seconds")
        rows = []
        for trial in self:
            row: dict[str, Any] = {"number": trial.proposal.number}
            row["origin"] = trial.proposal.origin
            row["rung"] = trial.proposal.rung
            row |= {name: getattr(trial, name) for name in columns}
            row["reason"] = trial.reason
            row |= {f"param_{name}": v for name, v in trial.architecture.items()}
            rows.append(row)
        return pd.DataFrame(rows)

    def to_json(self) -> str:
        """The history as JSON; `from_json` reads it back."""
        trials = []
        for trial in self.without_predictions():
            kept_out = ("predictions", "networks")
            record = {k: v for k, v in vars(trial).items() if k not in kept_out}
            proposal = dict(vars(trial.proposal))
            proposal["architecture"] = dict(trial.architecture)
            trials.append(record | {"proposal": proposal})
        return json.dumps({"trials": trials, "stop_reason": self.stop_reason})

    @classmethod
    def from_json(cls, text: str) -> History:
        """Read what `to_json` wrote."""
        content = json.loads(text)
        trials = []
        for record in content["trials"]:
            proposal = record.pop("proposal")
            proposal["architecture"] = Architecture(proposal["architecture"])
            for name in _TUPLES:
                record[name] = tuple(record[name])
            trials.append(Trial(Proposal(**proposal), **record))
        return cls(tuple(trials), content["stop_reason"])


_TUPLES = ("fold_scores", "fold_seconds", "score_seconds", "rung_scores")


def count_reasons(trials: Iterable[Trial]) -> str:
    """The reasons of trials without a score, the commonest first."""
    reasons = Counter(trial.reason for trial in trials if trial.status != "ok")
    return "; ".join(f"{n} x {reason}" for reason, n in reasons.most_common())
