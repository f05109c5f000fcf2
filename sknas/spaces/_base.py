"""The contract of a space: choices, and a network for each architecture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from torch import nn

from sknas._history import Architecture, Value
from sknas._problem import TaskSpec
from sknas._validation import did_you_mean, reject
from sknas.exceptions import InvalidParameterError
from sknas.nets._supernet import Supernet
from sknas.spaces._choices import Choice, as_choice, has_values
from sknas.spaces._costs import count_params, measure_latency

Graph = tuple[Sequence[str], Sequence[tuple[int, int]]]

# Attributes that describe the networks of `build`.
BUILD_ATTRS = ("can_build_batches", "has_supernet", "measures_memory", "cost_free")
P_SECOND_CHANGE = 0.3  # probability that a neighbour differs in two choices


class Space(BaseEstimator, ABC):
    """A search space. Subclasses define `choices` and `build`; the rest has defaults.

    A space declares what else it can do by class attributes. A class that overrides
    `build` starts from the defaults of `can_build_batches`, `has_supernet`,
    `measures_memory` and `cost_free`, as its networks are not those of its parent.

    Attributes
    ----------
    reads : {"table", "image"}, default="table"
        Kind of rows that the networks read.
    costs : tuple of str, default=("n_params", "latency")
        Names of methods (architecture, task) -> cost that constraints may bound.
    builds_networks : bool, default=True
        False for a space of choices only, whose `build` raises.
    can_build_batches : bool, default=False
        True if `build_batch` builds several architectures as one network.
    has_supernet : bool, default=False
        True if `supernet` builds a network for search by gradient.
    has_graph : bool, default=False
        True if `graph` describes architectures as graphs.
    measures_memory : bool, default=False
        True if a network may be built and run once more before its training, to measure
        the memory it takes; if False, only the memory of its weights is estimated.
    cost_free : tuple of str, default=()
        Choices that no cost depends on, such as a learning rate.

    Examples
    --------
    >>> from torch import nn
    >>> from sknas.nets import Linear, TableInput
    >>> from sknas.spaces import Integer, Space
    >>> class OneLayer(Space):
    ...     @property
    ...     def choices(self):
    ...         return {"width": Integer(4, 64, log=True, default=16)}
    ...     def build(self, architecture, task):
    ...         inputs = TableInput(1, task)  # (N, F) -> (1, N, n_features)
    ...         width = architecture["width"]
    ...         hidden = Linear(1, inputs.n_features, width)
    ...         output = Linear(1, width, task.n_outputs)
    ...         return nn.Sequential(inputs, hidden, nn.ReLU(), output)
    >>> space = OneLayer()
    >>> space.default_architecture()
    Architecture(width=16)
    >>> space.encode([space.fill({"width": 32})])
    array([[0.75]])
    """

    reads: str = "table"
    costs: tuple[str, ...] = ("n_params", "latency")
    builds_networks: bool = True
    can_build_batches: bool = False
    has_supernet: bool = False
    has_graph: bool = False
    measures_memory: bool = False
    cost_free: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

        def depth(name: str) -> int:
            """Return the index of the base that defines an attribute."""
            return next(j for j, base in enumerate(cls.__mro__) if name in vars(base))

        for name in BUILD_ATTRS:
            if depth("build") < depth(name):
                setattr(cls, name, vars(Space)[name])

    def relative_cost(self, sides: tuple[int, int] | None) -> float:
        """Estimate the duration of a training step, relative to a default network.

        A search with `max_time` plans its budget by it, before the data are read.

        Parameters
        ----------
        sides : (int, int) or None
            Height and width of an image, in pixels; None for tables.

        Returns
        -------
        float
            Positive; 1 for the default network of `TableSpace` or `ImageSpace`.
        """
        return 1.0

    @property
    @abstractmethod
    def choices(self) -> Mapping[str, Choice]:
        """Names and choices, in order; a condition names an earlier choice."""

    @abstractmethod
    def build(self, architecture: Architecture, task: TaskSpec) -> nn.Module:
        """Build the untrained network of an architecture.

        A network that is loaded from a file is built again: all that a training changes
        must be in its `state_dict`.

        Parameters
        ----------
        architecture : Architecture
            A point of this space.
        task : TaskSpec
            The layout of the encoded rows and the number of outputs.

        Returns
        -------
        nn.Module
            Maps rows (N, F), or images (N, channels, height, width), to (1, N, C):
            logits, or standardised targets. In training there may be outputs of M
            copies of the rows, (1, M * N, C).
        """

    def batch_key(self, architecture: Architecture) -> Hashable:
        """Return a key; architectures with equal keys can be built as one network."""
        raise NotImplementedError(f"{type(self).__name__} builds no batches.")

    def batch_load(self, architecture: Architecture) -> tuple[int, int]:
        """Return how often a network copies each row, and the width of its layers.

        They bound how many architectures are built as one network.
        """
        return 1, 1

    def batch_order(self, architecture: Architecture) -> tuple[Any, ...]:
        """Return a key that sorts the architectures of a batch.

        A batch may compute neighbours together, such as those of one activation.
        """
        return ()

    def layout(self, architecture: Architecture, tasks: Sequence[TaskSpec]) -> Any:
        """Return a layout of features that fits several tasks, such as folds."""
        return None

    def features(
        self, architecture: Architecture, task: TaskSpec, layout: Any
    ) -> nn.Module:
        """Build the features that the networks of a batch read.

        Returns
        -------
        nn.Module
            Maps rows (N, F) to features (N, D). It has no parameters: the features of
            all rows may be computed once, before a training.
        """
        return nn.Identity()

    def build_batch(
        self,
        architectures: Sequence[Architecture],
        task: TaskSpec,
        layout: Any = None,
    ) -> nn.Module:
        """Build the untrained networks of K architectures as one network.

        Parameters
        ----------
        architectures : sequence of Architecture, of length K
            Points of this space with the same `batch_key`.
        task : TaskSpec
            The layout of the encoded rows and the number of outputs.
        layout : object, default=None
            The layout of the features; None for that of `task` alone.

        Returns
        -------
        nn.Module
            Maps features (N, D), or (G, N, D) with G a divisor of K, to (K, N, C):
            logits, or standardised targets. Network k reads table k modulo G. The
            first axis of all parameters and buffers is K. Random numbers are those of
            `sknas.nets.Dropout`, so that networks are trained as they would be alone.
        """
        raise NotImplementedError(f"{type(self).__name__} builds no batches.")

    def for_task(self, task: TaskSpec) -> Space:
        """Return the space without choices that do not apply to a task."""
        return self

    def is_buildable(self, architecture: Architecture, task: TaskSpec) -> bool:
        """Return True if the network can be built; others are never proposed."""
        return True

    def portfolio(self, task: TaskSpec | None) -> list[Architecture]:
        """Return known architectures to start a search with, the default one first.

        `task` is None in `sknas.search`, which has no data.
        """
        space = self if task is None else self.for_task(task)
        default = space.default_architecture()
        return [] if default is None else [default]

    def describe(self, architecture: Architecture) -> str:
        """Describe an architecture in words."""
        return ", ".join(f"{name} {value}" for name, value in architecture.items())

    def graph(self, architecture: Architecture) -> Graph:
        """Describe an architecture as a graph, for surrogates that compare graphs.

        Returns
        -------
        labels : list of str
            Operation of each node.
        edges : list of (int, int)
            Indices of a node and of a node that reads its output.
        """
        raise NotImplementedError(f"{type(self).__name__} has no graphs.")

    def supernet(self, task: TaskSpec, partial_channels: int = 1) -> Supernet:
        """Build an untrained network that holds all options, for search by gradient.

        Parameters
        ----------
        task : TaskSpec
            The layout of the encoded rows and the number of outputs.
        partial_channels : int, default=1
            1 / `partial_channels` of the channels go through the mixtures, if the
            supernet supports it.

        Raises
        ------
        InvalidParameterError
            If the space has no supernet.
        """
        raise InvalidParameterError(
            f"{type(self).__name__} has no supernet for search by gradient: "
            "use another strategy, or define `supernet` and set `has_supernet = True`."
        )

    def n_params(self, architecture: Architecture, task: TaskSpec) -> int:
        """Count the trained parameters of a network, without allocating them."""
        if self.can_build_batches:  # without features, which take longer to build
            return count_params(lambda: self.build_batch([architecture], task))
        return count_params(lambda: self.build(architecture, task))

    def latency(self, architecture: Architecture, task: TaskSpec) -> float:
        """Measure the median seconds of a network for 256 rows, on one CPU thread."""
        return measure_latency(lambda: self.build(architecture, task), task.row_shape)

    def structure(self, architecture: Architecture) -> Hashable:
        """Return a key; architectures with equal keys have the same costs."""
        if not self.cost_free:
            return architecture.key
        return frozenset(i for i in architecture.items() if i[0] not in self.cost_free)

    def check(self) -> None:
        """Check that the condition of each choice can be met.

        Raises
        ------
        InvalidParameterError
            If a condition does not name an earlier choice, or none of its values.
        """
        before: dict[str, Choice] = {}
        for name, choice in self.choices.items():
            if choice.when is not None:
                on, values = choice.when
                is_known = on in before and not isinstance(values, str)
                if not is_known or not any(before[on].contains(v) for v in values):
                    reject(
                        type(self).__name__,
                        f"{name}.when",
                        choice.when,
                        "the name of an earlier choice and a list of its values",
                    )
            before[name] = choice

    def default_architecture(self) -> Architecture | None:
        """Return the architecture of all defaults; None if a choice has no default."""
        choices = self.choices
        architecture = assemble(choices, lambda _, choice: choice.default)
        return architecture if has_values(choices, architecture) else None

    def fill(self, given: Mapping[str, Value]) -> Architecture:
        """Return the architecture of the given values, and defaults for other choices.

        Values of inactive choices are left out.

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

        def value_of(name: str, choice: Choice) -> Value:
            value = given.get(name, choice.default)
            if not choice.contains(value):
                reject(type(self).__name__, name, value, f"a value of {choice!r}")
            return value

        return assemble(choices, value_of)

    def sample(self, n: int, rng: np.random.Generator) -> list[Architecture]:
        """Draw `n` architectures, each choice from its prior; repeats may occur."""
        choices = self.choices
        return [
            assemble(choices, lambda _, choice: choice.sample(rng)) for _ in range(n)
        ]

    def encode(self, architectures: Sequence[Architecture]) -> np.ndarray:
        """Encode architectures as rows of numbers in [0, 1], of shape (n, d).

        An ordered or two-valued choice takes one column, any other a column per value,
        and a choice of one value none. An inactive choice has a constant code.
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
        """Return the architectures nearest to codes of shape (n, d)."""
        choices = self.choices
        ends = np.cumsum([choice.n_columns for choice in choices.values()], dtype=int)

        def decoded(row: np.ndarray) -> Architecture:
            parts = dict(zip(choices, np.split(row, ends), strict=False))
            return assemble(choices, lambda name, choice: choice.decode(parts[name]))

        return [decoded(row) for row in np.asarray(codes, dtype=float)]

    def neighbours(
        self, architecture: Architecture, n: int, rng: np.random.Generator
    ) -> list[Architecture]:
        """Draw `n` architectures that differ in one choice or, less often, in two."""
        choices = self.choices
        names = [n for n, value in architecture.items() if choices[n].can_change(value)]

        def value_of(name: str, choice: Choice) -> Value:
            return values[name] if name in values else choice.sample(rng)

        neighbours = []
        for _ in range(n if names else 0):
            values = dict(architecture)
            n_changes = 1 + (len(names) > 1 and rng.random() < P_SECOND_CHANGE)
            for index in rng.choice(len(names), size=n_changes, replace=False):
                name = names[index]
                values[name] = choices[name].neighbour(values[name], rng)
            # A change may activate other choices, which are drawn, or deactivate them.
            neighbours.append(assemble(choices, value_of))
        return neighbours

    def enumerate(self) -> Iterator[Architecture]:
        """Yield all architectures of a finite space that can be drawn, in order."""
        choices = self.choices
        names = list(choices)

        def extend(values: dict[str, Value], index: int) -> Iterator[Architecture]:
            if index == len(names):
                yield Architecture(values)
                return
            name = names[index]
            if not choices[name].is_active(values):
                yield from extend(values, index + 1)
                return
            for value in choices[name].drawn_values():
                yield from extend(values | {name: value}, index + 1)

        yield from extend({}, 0)

    @property
    def is_finite(self) -> bool:
        """True if there are finitely many architectures."""
        return all(np.isfinite(choice.n_values) for choice in self.choices.values())


class DictSpace(Space):
    """A space of named choices for `sknas.search`; it builds no networks.

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

    builds_networks = False

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given

    @property
    def choices(self) -> Mapping[str, Choice]:
        return {name: as_choice(name, choice) for name, choice in self.given.items()}

    def build(self, architecture: Architecture, task: TaskSpec) -> nn.Module:
        raise TypeError("A dict of choices builds no network, use a Space instead.")


def assemble(
    choices: Mapping[str, Choice], value_of: Callable[[str, Choice], Value]
) -> Architecture:
    """Return the architecture with a value of each active choice, set in order."""
    values: dict[str, Value] = {}
    for name, choice in choices.items():
        if choice.is_active(values):
            values[name] = value_of(name, choice)
    return Architecture(values)


def inactive_code(choice: Choice) -> float:
    """Return the code of an inactive choice, which is equally far from all values."""
    return 0.5 if choice.n_columns == 1 else 1 / max(choice.n_columns, 1)
