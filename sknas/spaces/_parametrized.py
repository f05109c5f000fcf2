"""Spaces whose parameters list the values of their choices."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from sknas._budget import defaults_for
from sknas._history import Architecture
from sknas._problem import TaskSpec
from sknas._validation import reject
from sknas.spaces._base import Space
from sknas.spaces._choices import Categorical, Choice, Real, When, has_values, plain


@cache
def _default_parameters(space: type[Space]) -> dict[str, Any]:
    """Return the defaults of a space's parameters; reading a signature is slow."""
    parameters = inspect.signature(space.__init__).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


class ParametrizedSpace(Space):
    """A space whose parameters list the values that a search may take.

    A parameter with one value fixes its choice.
    """

    # Minimum and maximum of each numeric parameter; int bounds allow ints only.
    _limits: ClassVar[Mapping[str, tuple[float, float]]]
    # Prior weights of values, where they are not 1.
    _prior: ClassVar[Mapping[str, Mapping[Any, float]]] = {}

    def _values(self, name: str) -> list[Any]:
        """Return the values of a parameter as plain Python values."""
        values = getattr(self, name)
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            allowed = "a tuple or list of one value or more"
            reject(type(self).__name__, name, values, allowed)
        return [plain(value) for value in values]

    def _categorical(
        self, name: str, options: Any, default: Any, when: When | None = None
    ) -> Categorical:
        """Return an unordered choice; its default falls back to the first value."""
        values = self._values(name)
        if any(value not in options for value in values):
            reject(type(self).__name__, name, values, f"a choice of {tuple(options)!r}")
        return Categorical(
            values,
            default=default if default in values else values[0],
            weights=self._weights(name, values),
            when=when,
        )

    def _ordered(
        self, name: str, default: float, when: When | None = None
    ) -> Categorical:
        """Return a choice among numbers, by default the one nearest to `default`."""
        values = self._values(name)
        low, high = self._limits[name]
        if not all(_is_within(v, low, high) for v in values):
            numbers = "ints" if isinstance(low, int) else "numbers"
            allowed = f"a choice of {numbers} from {low} to {high}"
            reject(type(self).__name__, name, values, allowed)
        nearest = min(values, key=lambda value: abs(value - default))
        values = sorted(values)
        weights = self._weights(name, values)
        return Categorical(
            values, ordered=True, default=nearest, weights=weights, when=when
        )

    def _integers(self, name: str, default: int) -> Categorical:
        """Return a choice among the ints between two bounds."""
        low, high = self._bounds(name)
        values = list(range(int(low), int(high) + 1))
        nearest = min(max(default, values[0]), values[-1])
        weights = self._weights(name, values)
        return Categorical(values, ordered=True, default=nearest, weights=weights)

    def _log_range(
        self, name: str, default: float, when: When | None = None
    ) -> Categorical | Real:
        """Return a range of numbers on a logarithmic scale, or its only value."""
        low, high = self._bounds(name)
        if low == high:
            return Categorical([low], default=low, when=when)
        nearest = min(max(default, low), high)
        return Real(low, high, log=True, default=nearest, when=when)

    def _bounds(self, name: str) -> tuple[float, float]:
        """Return the bounds that a parameter gives."""
        values = self._values(name)
        low, high = self._limits[name]
        are_within = len(values) == 2 and all(_is_within(v, low, high) for v in values)
        if not are_within or values[0] > values[1]:
            numbers = "ints" if isinstance(low, int) else "numbers"
            allowed = f"two ascending {numbers} from {low} to {high}"
            reject(type(self).__name__, name, values, allowed)
        return values[0], values[1]

    def _weights(self, name: str, values: Sequence[Any]) -> list[float] | None:
        """Return the prior weights of values, None for equal ones.

        Values that the user lists have equal weights.
        """
        default = _default_parameters(type(self)).get(name)
        if name not in self._prior or tuple(getattr(self, name)) != default:
            return None
        return [self._prior[name].get(value, 1.0) for value in values]

    def _fill_known(
        self, known: Sequence[Mapping[str, Any]], task: TaskSpec | None
    ) -> list[Architecture]:
        """Return the known architectures that lie in this space, fitted to a task."""
        space = self if task is None else self.for_task(task)
        own, choices = self.choices, space.choices
        filled: dict[str, Architecture] = {}
        for given in known:
            if has_values(own, given):
                fitted = given if task is None else self._fit_known(given, task)
                # The space of the task may lack a value: take the nearest one.
                nearest = {
                    name: _nearest(choices[name], value)
                    for name, value in fitted.items()
                    if name in choices
                }
                architecture = space.fill(nearest)
                filled.setdefault(architecture.key, architecture)
        return list(filled.values())

    def _fit_known(self, given: Mapping[str, Any], task: TaskSpec) -> dict[str, Any]:
        """Return a known architecture with the choices that depend on a task."""
        defaults = defaults_for(task.image is not None)
        return {"batch_size": defaults.batch_size(task.n_rows), **given}


def drop_unreachable(choices: Mapping[str, Choice]) -> dict[str, Choice]:
    """Return the choices whose condition can hold."""
    usable: dict[str, Choice] = {}
    for name, choice in choices.items():
        if choice.when is not None:
            on, values = choice.when
            if on not in usable or not any(usable[on].contains(v) for v in values):
                continue
        usable[name] = choice
    return usable


def _nearest(choice: Choice, value: Any) -> Any:
    """Return the value of a choice that is nearest to another value."""
    if choice.contains(value):
        return value
    if not isinstance(choice, Categorical) or not choice.ordered:
        return choice.default
    return min(choice.options, key=lambda option: abs(option - value))


def _is_within(value: Any, low: float, high: float) -> bool:
    """Return True for a number within bounds; int bounds allow ints only."""
    kinds = int if isinstance(low, int) else int | float
    return isinstance(value, kinds) and value is not True and low <= value <= high
