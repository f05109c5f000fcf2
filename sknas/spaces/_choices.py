"""Choices: the named dimensions of a space."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sknas._history import Value
from sknas._validation import as_float, short_repr
from sknas.exceptions import InvalidParameterError

When = tuple[str, Sequence[Value]]
MAX_INTEGER = 2**53  # floats hold all integers up to it
NEIGHBOUR_STD = 0.1  # standard deviation of a neighbour's position in a range


class Choice(ABC):
    """One named dimension of a space: a `Categorical`, an `Integer` or a `Real`.

    Attributes
    ----------
    default : value or None
        The value of a space's default architecture.
    when : (name, values) or None
        The choice is active only if an earlier choice of the space, `name`, is active
        with one of `values`.
    weights : sequence of float or None, default=None
        Prior probability of each of the `values`, up to a factor.

    Examples
    --------
    >>> from sknas.spaces import Categorical, Choice
    >>> isinstance(Categorical(["relu", "silu"]), Choice)
    True
    """

    default: Value
    when: When | None
    weights: Sequence[float] | None = None

    @property
    @abstractmethod
    def n_values(self) -> float:
        """Number of different values, infinite for a real range."""

    @property
    @abstractmethod
    def n_columns(self) -> int:
        """Number of columns of the code; 0 for a choice of one value."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Value:
        """Draw a value."""

    @abstractmethod
    def encode(self, value: Value) -> list[float]:
        """Encode a value as numbers in [0, 1]."""

    @abstractmethod
    def decode(self, code: np.ndarray) -> Value:
        """Return the value nearest to a code."""

    @abstractmethod
    def contains(self, value: Value) -> bool:
        """Return True if a value is allowed."""

    @abstractmethod
    def neighbour(self, value: Value, rng: np.random.Generator) -> Value:
        """Draw another value near a value; a real range may repeat it."""

    def drawn_values(self) -> Sequence[Value]:
        """Return the values of a finite choice that can be drawn.

        Returns
        -------
        sequence of value
            In order, without values of weight 0.
        """
        return self.values()

    def grid(self, n: int) -> list[Value]:
        """Return all values that can be drawn, or `n` of a long range."""
        if self.n_columns > 1 or self.n_values <= n:
            return list(self.drawn_values())
        codes = np.linspace(0, 1, n)
        return list(dict.fromkeys(self.decode(np.array([code])) for code in codes))

    @property
    def is_numeric(self) -> bool:
        """True if all values are numbers; bools are not."""
        return True

    def can_change(self, value: Value) -> bool:
        """Return True if `neighbour` can draw another value."""
        return self.n_values > 1

    def values(self) -> Sequence[Value]:
        """Return all values of a finite choice, in order."""
        raise NotImplementedError(f"{self!r} has infinitely many values.")

    def is_active(self, architecture: Mapping[str, Value]) -> bool:
        """Return True if the choice is active, given the choices before it."""
        if self.when is None:
            return True
        name, values = self.when
        return name in architecture and architecture[name] in values

    def __repr__(self) -> str:
        inside = ", ".join(
            f"{name}={value!r}"
            for name, value in vars(self).items()
            if value is not None and not name.startswith("_")
        )
        return f"{type(self).__name__}({inside})"


class Categorical(Choice):
    """A choice among listed values.

    Parameters
    ----------
    options : sequence of bool, int, float, str or None
        The values; at least one.
    ordered : bool, default=False
        True if values next to each other are similar, such as sizes.
    weights : sequence of float or None, default=None
        Prior probability of each value, up to a factor; equal if None.
    default : value or None, default=None
        The value of a space's default architecture.
    when : (name, values) or None, default=None
        The condition under which the choice is active, see `Choice`.

    Examples
    --------
    >>> from sknas.spaces import Categorical
    >>> width = Categorical([32, 64, 128], ordered=True, default=64)
    >>> width.encode(128), width.contains(96)
    ([1.0], False)
    """

    def __init__(
        self,
        options: Sequence[Value],
        *,
        ordered: bool = False,
        weights: Sequence[float] | None = None,
        default: Value = None,
        when: When | None = None,
    ) -> None:
        self.options = [plain(value) for value in options]
        if not all(isinstance(o, int | float | str | None) for o in self.options):
            raise InvalidParameterError(
                "The options of a Categorical must be bool, int, float, str or None, "
                f"got {short_repr(self.options)}; name other objects by strings."
            )
        if not self.options:
            raise InvalidParameterError("A Categorical must have at least one option.")
        self.ordered = ordered
        self.weights = None if weights is None else self._odds(weights)
        self.default = plain(default)
        self.when = when
        # bool is an int in Python: the key tells True from 1.
        indexed = reversed([*enumerate(self.options)])
        self._indices = {(type(option), option): j for j, option in indexed}
        odds = np.array(self.weights or [1.0], dtype=float)
        cumulative = np.cumsum(odds / odds.max())
        self._cumulative = (cumulative / cumulative[-1]).tolist()
        _check_default(self)

    def _odds(self, given: Sequence[float]) -> list[float]:
        """Check the weights and return them as plain numbers."""
        weights = [plain(w) for w in given] if isinstance(given, Iterable) else []
        are_odds = all(_is_number(w) and 0 <= w < math.inf for w in weights)
        if not (len(weights) == len(self.options) and are_odds and any(weights)):
            raise InvalidParameterError(
                f"The weights of a Categorical must be {len(self.options)} numbers "
                f">= 0, one per option and not all zero, got {short_repr(given)}."
            )
        return weights

    @property
    def is_numeric(self) -> bool:
        return all(_is_number(value) for value in self.options)

    @property
    def n_values(self) -> float:
        return len(self.options)

    @property
    def n_columns(self) -> int:
        if len(self.options) == 1:
            return 0
        return 1 if self.ordered or len(self.options) == 2 else len(self.options)

    def _index(self, value: Value) -> int:
        return self._indices[type(value), value]

    def contains(self, value: Value) -> bool:
        return isinstance(value, Hashable) and (type(value), value) in self._indices

    def values(self) -> Sequence[Value]:
        return self.options

    def drawn_values(self) -> Sequence[Value]:
        weights = self.weights or [1.0] * len(self.options)
        return [o for o, w in zip(self.options, weights, strict=True) if w > 0]

    def grid(self, n: int) -> list[Value]:
        drawn = list(self.drawn_values())
        if not self.ordered or len(drawn) <= n:
            return drawn
        return [drawn[int(j)] for j in np.linspace(0, len(drawn) - 1, n).round()]

    def sample(self, rng: np.random.Generator) -> Value:
        if self.weights is None:
            return self.options[int(rng.integers(len(self.options)))]
        return self.options[bisect_right(self._cumulative, rng.random())]

    def encode(self, value: Value) -> list[float]:
        index = self._index(value)
        if self.n_columns == 1:
            return [index / (len(self.options) - 1)]
        return [float(j == index) for j in range(self.n_columns)]

    def decode(self, code: np.ndarray) -> Value:
        if not self.n_columns:
            return self.options[0]
        if self.n_columns > 1:
            return self.options[int(np.argmax(code))]
        last = len(self.options) - 1
        return self.options[int(np.clip(round(float(code[0]) * last), 0, last))]

    def neighbour(self, value: Value, rng: np.random.Generator) -> Value:
        others = self._others(value)
        if self.ordered:
            index = self._index(value)
            below = [j for j in others if j < index]
            above = [j for j in others if j > index]
            others = below[-1:] + above[:1]
        return self.options[others[int(rng.integers(len(others)))]] if others else value

    def can_change(self, value: Value) -> bool:
        return bool(self._others(value))

    def _others(self, value: Value) -> list[int]:
        """Return the indices of the other values that can be drawn."""
        index = self._index(value)
        weights = self.weights or [1.0] * len(self.options)
        return [j for j, weight in enumerate(weights) if weight > 0 and j != index]


class _Range(Choice):
    """A range of numbers, on a linear or a logarithmic scale.

    A position in the range is a number from 0 (low bound) to 1 (high bound).
    """

    _types: type | tuple[type, ...]

    def __init__(
        self,
        low: float,
        high: float,
        *,
        log: bool = False,
        default: Value = None,
        when: When | None = None,
    ) -> None:
        if not (_is_number(low) and _is_number(high)):
            raise InvalidParameterError(
                f"The bounds of a range must be numbers, got low={short_repr(low)} and "
                f"high={short_repr(high)}."
            )
        if not low < high:
            raise InvalidParameterError(
                f"The bounds of a range must ascend, got low={low!r} and high={high!r}."
            )
        if log and low <= 0:
            raise InvalidParameterError(
                f"The low bound of a log range must be > 0, got {low!r}."
            )
        self.low, self.high = self._checked(plain(low), plain(high), log)
        self.log = log
        self.default = plain(default)
        self.when = when
        _check_default(self)

    def _checked(self, low: Any, high: Any, log: bool) -> tuple[Any, Any]:
        """Check the bounds and return them."""
        first, last = as_float(low), as_float(high)
        if not math.isfinite(last / first if log else last - first):
            raise InvalidParameterError(
                "The bounds of a range must be finite, and not too far apart for a "
                f"float, got low={short_repr(low)} and high={short_repr(high)}."
            )
        return low, high

    @property
    def n_columns(self) -> int:
        return 1

    def contains(self, value: Value) -> bool:
        is_number = isinstance(value, self._types) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high

    def _position(self, value: Any) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def _value_at(self, position: float) -> float:
        position = min(max(position, 0.0), 1.0)
        if self.log:
            return self.low * (self.high / self.low) ** position
        return self.low + position * (self.high - self.low)

    def _moved(self, value: Any, rng: np.random.Generator) -> float:
        """Draw a position near that of a value, reflected at the bounds."""
        position = abs(self._position(value) + NEIGHBOUR_STD * rng.standard_normal())
        return 1 - abs(1 - position)

    def sample(self, rng: np.random.Generator) -> Value:
        return self.decode(rng.random(1))

    def encode(self, value: Value) -> list[float]:
        return [self._position(value)]


class Integer(_Range):
    """An integer of a range, both bounds included.

    Parameters
    ----------
    low, high : int
        The bounds.
    log : bool, default=False
        True for a logarithmic scale.
    default : int or None, default=None
        The value of a space's default architecture.
    when : (name, values) or None, default=None
        The condition under which the choice is active, see `Choice`.

    Examples
    --------
    >>> from sknas.spaces import Integer
    >>> width = Integer(8, 512, log=True)
    >>> width.encode(64)
    [0.5]
    """

    _types = int

    def _checked(self, low: Any, high: Any, log: bool) -> tuple[Any, Any]:
        for bound in (low, high):
            if not abs(bound) <= MAX_INTEGER or bound != int(bound):
                raise InvalidParameterError(
                    "The bounds of an Integer must be whole and at most 2**53 in size, "
                    f"got low={short_repr(low)} and high={short_repr(high)}."
                )
        return int(low), int(high)

    @property
    def n_values(self) -> float:
        return self.high - self.low + 1

    def values(self) -> Sequence[Value]:
        return range(int(self.low), int(self.high) + 1)

    def sample(self, rng: np.random.Generator) -> Value:
        if not self.log:
            return int(rng.integers(int(self.low), int(self.high) + 1))
        # Half a step beyond each bound, so that bounds are drawn like other integers.
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        drawn = round(math.exp(low + rng.random() * (high - low)))
        return min(max(drawn, int(self.low)), int(self.high))

    def decode(self, code: np.ndarray) -> Value:
        return round(self._value_at(float(code[0])))

    def neighbour(self, value: Value, rng: np.random.Generator) -> Value:
        drawn = round(self._value_at(self._moved(value, rng)))
        if drawn == value:
            step = 1 if rng.random() < 0.5 else -1
            drawn += step if self.low <= drawn + step <= self.high else -step
        return drawn


class Real(_Range):
    """A number of a range, rounded to six digits, or more if the range is narrow.

    Parameters
    ----------
    low, high : float
        The bounds.
    log : bool, default=False
        True for a logarithmic scale.
    default : float or None, default=None
        The value of a space's default architecture.
    when : (name, values) or None, default=None
        The condition under which the choice is active, see `Choice`.

    Examples
    --------
    >>> from sknas.spaces import Categorical, Real
    >>> optimizer = Categorical(["adamw", "sgd"])
    >>> momentum = Real(0.0, 0.99, when=("optimizer", ["sgd"]))
    >>> momentum.is_active({"optimizer": "adamw"})
    False
    """

    _types = (int, float)

    @property
    def n_values(self) -> float:
        return math.inf

    def decode(self, code: np.ndarray) -> Value:
        value = float(f"{self._value_at(float(code[0])):.{self._n_digits}g}")
        return min(max(value, self.low), self.high)

    @property
    def _n_digits(self) -> int:
        """Significant digits: about six of the difference between the bounds."""
        largest = max(abs(self.low), abs(self.high))
        return 6 + max(0, int(math.log10(largest / (self.high - self.low))))

    def neighbour(self, value: Value, rng: np.random.Generator) -> Value:
        return self.decode(np.array([self._moved(value, rng)]))


def _check_default(choice: Choice) -> None:
    """Check that a default is one of the values."""
    if choice.default is not None and not choice.contains(choice.default):
        raise InvalidParameterError(
            "The default of a choice must be one of its values, got "
            f"{choice.default!r} for {choice!r}."
        )


def has_values(choices: Mapping[str, Choice], values: Mapping[str, Value]) -> bool:
    """Return True if there are choices of the given names that have the values."""
    return all(n in choices and choices[n].contains(v) for n, v in values.items())


def as_choice(name: str, given: Any) -> Choice:
    """Return the choice that a short form stands for.

    Parameters
    ----------
    name : str
        Name of the choice, for messages.
    given : Choice, list or tuple
        A list is a `Categorical`; ``(low, high)`` an `Integer` if both are int, else a
        `Real`; ``(low, high, "log")`` the same on a logarithmic scale.

    Returns
    -------
    Choice
        `given` itself, or the choice it stands for.

    Raises
    ------
    InvalidParameterError
        If it is none of these.

    Examples
    --------
    >>> from sknas.spaces import as_choice
    >>> as_choice("lr", (1e-4, 1e-1, "log"))
    Real(low=0.0001, high=0.1, log=True)
    """
    if isinstance(given, Choice):
        return given
    if isinstance(given, list) and given:
        return Categorical(given)
    is_range = isinstance(given, tuple) and len(given) in (2, 3)
    is_range = is_range and all(_is_number(bound) for bound in given[:2])
    if is_range and given[2:] in ((), ("log",)):
        low, high = (plain(bound) for bound in given[:2])
        whole = isinstance(low, int) and isinstance(high, int)
        return (Integer if whole else Real)(low, high, log=len(given) == 3)
    raise InvalidParameterError(
        f"The choice {name!r} must be a list of values, (low, high), "
        f"(low, high, 'log') or a Choice, got {given!r}."
    )


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating)
    return number and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """Return a numpy scalar as a Python value, which JSON can hold."""
    return value.item() if isinstance(value, np.generic) else value
