"""What a space is: choices, and a network for architectures."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import nn

from sknas._history import Architecture, Value
from sknas._problem import TaskSpec
from sknas._training.isolation import ONE_AT_A_TIME, one_thread
from sknas._validation import did_you_mean, reject
from sknas.exceptions import InvalidParameterError
from sknas.nets._supernet import Supernet
from sknas.spaces._choices import Choice, as_choice

Graph = tuple[Sequence[str], Sequence[tuple[int, int]]]

N_TIMED_ROWS, N_WARM, N_TIMED = 256, 5, 20  # of a latency


class Space(BaseEstimator, ABC):
    """What can be built: subclass it with `choices` and `build`, the rest follows.

    Examples
    --------
    >>> from torch import nn
    >>> from sknas.nets import Linear, TableInput
    >>> from sknas.spaces import Integer, Space
    >>> class OneLayer(Space):
    ...     @property
    ...     def choices(self):
    ...         return {"width": Integer(4, 64, log=True, default=16)}
    ...     def build(self, architectures, task):
    ...         (architecture,) = architectures
    ...         inputs = TableInput(1, task)
    ...         width = architecture["width"]
    ...         hidden = Linear(1, inputs.n_features, width)
    ...         output = Linear(1, width, task.n_outputs)
    ...         return nn.Sequential(inputs, hidden, nn.ReLU(), output)
    >>> OneLayer().default_architecture()
    Architecture(width=16)
    """

    # What constraints may bound: methods of an architecture and a task.
    costs: tuple[str, ...] = ("n_params", "latency")
    # What a row is to its networks: "table" or "image".
    reads: str = "table"

    def relative_cost(self, sides: tuple[int, int] | None) -> float:
        """About how long a step takes beside one of the usual networks for such rows.

        What fits into a `max_time` is planned by it, before the data are read through.

        Parameters
        ----------
        sides : (int, int) or None
            Height and width of an image, in pixels; None for tables.

        Returns
        -------
        float
            Above 0.
        """
        return 1.0

    @property
    @abstractmethod
    def choices(self) -> Mapping[str, Choice]:
        """Ordered names and choices; a condition names a choice before it."""

    @abstractmethod
    def build(self, architectures: Sequence[Architecture], task: TaskSpec) -> nn.Module:
        """Untrained networks of K architectures.

        Parameters
        ----------
        architectures : sequence of Architecture, of length K
            Points of this space. `sknas` trains spaces of the user one at a time.
        task : TaskSpec
            The layout of the encoded table and the outputs wanted.

        Returns
        -------
        nn.Module
            Maps (N, F), or (K, N, F), to (K, N, C): logits, or standardised targets.
        """

    def for_task(self, task: TaskSpec) -> Space:
        """This space without choices that mean nothing for a task."""
        return self

    def is_buildable(self, architecture: Architecture, task: TaskSpec) -> bool:
        """Whether a network can be built for a task; others are never proposed."""
        return True

    def portfolio(self, task: TaskSpec | None) -> list[Architecture]:
        """Architectures to start with, the default one first.

        `task` is None in `sknas.search`, where nothing is known of a table.
        """
        space = self if task is None else self.for_task(task)
        default = space.default_architecture()
        return [] if default is None else [default]

    def describe(self, architecture: Architecture) -> str:
        """An architecture in words."""
        return ", ".join(f"{name} {value}" for name, value in architecture.items())

    def graph(self, architecture: Architecture) -> Graph:
        """The operations of an architecture, and which feeds which.

        For surrogates that compare graphs; only spaces of graphs have it.

        Returns
        -------
        labels : list of str
            One a node.
        edges : list of (int, int)
            Places of a node and of one that it feeds.
        """
        raise NotImplementedError(f"{type(self).__name__} has no graphs.")

    def supernet(self, task: TaskSpec, partial_channels: int = 1) -> Supernet:
        """An untrained network that holds all architectures, for search by gradient.

        Parameters
        ----------
        task : TaskSpec
            The layout of the encoded rows and the outputs wanted.
        partial_channels : int, default=1
            One of so many channels goes through what is searched, where the network
            can leave channels out.

        Raises
        ------
        InvalidParameterError
            If the space has no such network.
        """
        raise InvalidParameterError(
            f"{type(self).__name__} has no relaxed network for search by gradient: "
            "take another strategy, or write its relaxed(task)."
        )

    def n_params(self, architecture: Architecture, task: TaskSpec) -> int:
        """Trained parameters of an architecture's network."""
        return count_params(lambda: self.build([architecture], task))

    def latency(self, architecture: Architecture, task: TaskSpec) -> float:
        """Seconds in which a network answers 256 rows, on one thread of the CPU."""
        with (
            ONE_AT_A_TIME,
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
            one_thread(),
        ):
            net = self.build([architecture], task).eval()
            rows = torch.zeros(N_TIMED_ROWS, *task.row_shape)
            seconds = []
            for _ in range(N_WARM + N_TIMED):
                started = time.perf_counter()
                net(rows)
                seconds.append(time.perf_counter() - started)
        return float(np.median(seconds[N_WARM:]))

    def structure(self, architecture: Architecture) -> Hashable:
        """What the costs of an architecture depend on; here all of it."""
        return architecture.key

    def check(self) -> None:
        """Refuse choices whose condition can never be met.

        Raises
        ------
        InvalidParameterError
            If a condition names no choice before its own, or values it can't take.
        """
        before: dict[str, Choice] = {}
        for name, choice in self.choices.items():
            if choice.when is not None:
                on, values = choice.when
                is_there = on in before and not isinstance(values, str)
                if not is_there or not any(before[on].contains(v) for v in values):
                    reject(
                        type(self).__name__,
                        f"{name}.when",
                        choice.when,
                        "a choice before it and a list of values it can take",
                    )
            before[name] = choice

    def default_architecture(self) -> Architecture | None:
        """The architecture of the choices' defaults; None if one has no default."""
        values: dict[str, Value] = {}
        for name, choice in self.choices.items():
            if choice.is_active(values):
                if not choice.contains(choice.default):
                    return None
                values[name] = choice.default
        return Architecture(values)

    def fill(self, given: Mapping[str, Value]) -> Architecture:
        """The architecture with some choices given, the others at their defaults.

        Choices that are given but not active are left out.

        Raises
        ------
        InvalidParameterError
            If a choice is unknown or has no such value.
        """
        choices = self.choices
        for name in given:
            if name not in choices:
                allowed = f"a mapping with choices of {list(choices)}"
                question = did_you_mean(name, choices)
                reject(type(self).__name__, "given", dict(given), allowed, question)
        filled: dict[str, Value] = {}
        for name, choice in choices.items():
            if choice.is_active(filled):
                value = given.get(name, choice.default)
                if not choice.contains(value):
                    reject(type(self).__name__, name, value, f"a value of {choice!r}")
                filled[name] = value
        return Architecture(filled)

    def sample(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """Draw `n` architectures, each choice by its prior; repeats may occur."""
        choices = self.choices
        drawn = []
        for _ in range(n):
            values: dict[str, Value] = {}
            for name, choice in choices.items():
                if choice.is_active(values):
                    values[name] = choice.sample(rng)
            drawn.append(Architecture(values))
        return drawn

    def encode(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """Architectures as rows of numbers in [0, 1], of shape (n, d).

        Ordered choices take one column, others one a value; choices of one value take
        none, and an inactive choice is constant.
        """
        choices = self.choices
        rows = []
        for architecture in architectures:
            row: list[float] = []
            for name, choice in choices.items():
                if choice.n_columns and name in architecture:
                    row += choice.encode(architecture[name])
                else:
                    row += [inactive_code(choice)] * choice.n_columns
            rows.append(row)
        width = sum(choice.n_columns for choice in choices.values())
        return np.array(rows, dtype=float).reshape(len(rows), width)

    def decode(self, codes: np.ndarray) -> list[Architecture]:
        """The architectures nearest to rows of numbers (n, d)."""
        choices = self.choices
        decoded = []
        for row in np.asarray(codes, dtype=float):
            values: dict[str, Value] = {}
            at = 0
            for name, choice in choices.items():
                code = row[at : at + choice.n_columns]
                at += choice.n_columns
                if choice.is_active(values):
                    values[name] = choice.decode(code)
            decoded.append(Architecture(values))
        return decoded

    def neighbours(
        self, architecture: Architecture, n: int, rng: np.random.Generator
    ) -> list[Architecture]:
        """Draw `n` architectures that differ in one choice, or sometimes in two."""
        choices = self.choices
        free = [n for n, value in architecture.items() if choices[n].can_change(value)]
        near = []
        for _ in range(n if free else 0):
            values = dict(architecture)
            n_changes = 1 + (len(free) > 1 and rng.random() < 0.3)
            for place in rng.choice(len(free), size=n_changes, replace=False):
                name = free[place]
                values[name] = choices[name].neighbour(values[name], rng)
            # Choices may have become active, others not active any more.
            complete: dict[str, Value] = {}
            for name, choice in choices.items():
                if choice.is_active(complete):
                    known = name in values
                    complete[name] = values[name] if known else choice.sample(rng)
            near.append(Architecture(complete))
        return near

    def enumerate(self) -> Iterator[Architecture]:
        """All architectures of a finite space that are ever drawn, in order."""
        choices = self.choices
        names = list(choices)

        def extend(values: dict[str, Value], at: int) -> Iterator[Architecture]:
            if at == len(names):
                yield Architecture(values)
                return
            choice = choices[names[at]]
            if not choice.is_active(values):
                yield from extend(values, at + 1)
                return
            for value in choice.drawn_values():
                yield from extend(values | {names[at]: value}, at + 1)

        yield from extend({}, 0)

    @property
    def is_finite(self) -> bool:
        """Whether there are finitely many architectures."""
        return all(np.isfinite(choice.n_values) for choice in self.choices.values())


class DictSpace(Space):
    """A space of named choices alone, for `sknas.search`; it builds no network.

    Parameters
    ----------
    given : mapping of str to Choice, list or tuple
        The choices, in full or in short form: see `sknas.search`.

    Examples
    --------
    >>> from sknas.spaces import DictSpace
    >>> DictSpace({"kind": ["a", "b"], "size": (1, 9)}).is_finite
    True
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given

    @property
    def choices(self) -> Mapping[str, Choice]:
        return {name: as_choice(name, choice) for name, choice in self.given.items()}

    def build(self, architectures: Sequence[Architecture], task: TaskSpec) -> nn.Module:
        raise TypeError("A dict of choices builds no network, use a Space instead.")


def inactive_code(choice: Choice) -> float:
    """Each column of an inactive choice: as far from one value as from the others."""
    return 0.5 if choice.n_columns == 1 else 1 / max(choice.n_columns, 1)


def count_params(build: Callable[[], nn.Module]) -> int:
    """Trained parameters of what a function builds, without memory for them."""
    with ONE_AT_A_TIME, torch.random.fork_rng(devices=[]), torch.device("meta"):
        net = build()
    return sum(p.numel() for p in net.parameters() if p.requires_grad)
