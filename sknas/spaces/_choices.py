"""Choices: the named dimensions of a space."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sknas._history import Value
from sknas._validation import as_float, brief
from sknas.exceptions import InvalidParameterError

When = tuple[str, Sequence[Value]]
LARGEST_INTEGER = 2**53  # up to which floats hold all integers


class Choice(ABC):
    """One named decision; final kinds: `Categorical`, `Integer`, `Real`.

    Attributes
    ----------
    default : value or None
        The value of a space's default architecture.
    when : (name, values) or None
        The choice is active only where the choice `name`, which stands before it, is
        active with one of `values`.

    Examples
    --------
    >>> from sknas.spaces import Categorical, Choice
    >>> isinstance(Categorical(["relu", "silu"]), Choice)
    True
    """

    default: Value
    when: When | None

    @property
    @abstractmethod
    def n_values(self) -> float:
        """Number of different values, infinite for a real range."""

    @property
    @abstractmethod
    def n_columns(self) -> int:
        """Columns of its encoding; none for a choice of one value."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Value:
        """Draw a value."""

    @abstractmethod
    def encode(self, value: Value) -> list[float]:
        """A value as numbers in [0, 1]."""

    @abstractmethod
    def decode(self, code: np.ndarray) -> Value:
        """The value nearest to a code."""

    @abstractmethod
    def contains(self, value: Value) -> bool:
        """Whether a value is allowed."""

    @abstractmethod
    def neighbour(self, value: Value, rng: np.random.Generator) -> Value:
        """Draw a value near another one; not the same where values are few."""

    def drawn_values(self) -> Sequence[Value]:
        """All values of a finite choice that are ever drawn.

        Returns
        -------
        sequence of value
            In order, without those of weight 0.
        """
        return self.values()

    @property
    def is_numeric(self) -> bool:
        """Whether all values are numbers; True and False are none."""
        return True

    def can_change(self, value: Value) -> bool:
        """Whether there is a value near another one."""
        return self.n_values > 1

    def values(self) -> Sequence[Value]:
        """All values of a finite choice, in order."""
        raise NotImplementedError(f"{self!r} has infinitely many values.")

    def is_active(self, architecture: Mapping[str, Value]) -> bool:
        """Whether the choice is there, given the choices before it."""
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
    """One of some values.

    Parameters
    ----------
    options : sequence of bool, int, float, str or None
        The values; at least one.
    ordered : bool, default=False
        Whether values next to each other are alike, as sizes are.
    weights : sequence of float or None, default=None
        Prior probability of each value when drawn, up to a factor; equal if None.
    default : value or None, default=None
        The value of a space's default architecture.
    when : (name, values) or None, default=None
        The condition under which the choice is there, see `Choice`.

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
        self.options = [_plain(value) for value in options]
        if not all(
            isinstance(o, bool | int | float | str | None) for o in self.options
        ):
            raise InvalidParameterError(
                "The options of a Categorical must be bool, int, float, str or None, "
                f"got {brief(self.options)}: name other objects by words."
            )
        if not self.options:
            raise InvalidParameterError("The options of a Categorical must not be [].")
        self.ordered = ordered
        self.weights = None if weights is None else self._odds(weights)
        self.default = _plain(default)
        self.when = when
        # bool is an int in Python: True must not be found as 1.
        self._places = {
            (type(o), o): j for j, o in reversed([*enumerate(self.options)])
        }
        odds = np.array(self.weights or [1.0], dtype=float)
        shares = np.cumsum(odds / odds.max())
        self._shares = (shares / shares[-1]).tolist()
        _check_default(self)

    def _odds(self, given: Sequence[float]) -> list[float]:
        """The weights as plain numbers, after a check of them."""
        weights = [_plain(w) for w in given] if isinstance(given, Iterable) else []
        are_odds = all(_is_number(w) and 0 <= w < math.inf for w in weights)
        if not (len(weights) == len(self.options) and are_odds and any(weights)):
            raise InvalidParameterError(
                f"The weights of a Categorical must be {len(self.options)} numbers "
                f">= 0, one an option, not all zero, got {brief(given)}."
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

    def _place(self, value: Value) -> int:
        return self._places[type(value), value]

    def contains(self, value: Value) -> bool:
        return isinstance(value, Hashable) and (type(value), value) in self._places

    def values(self) -> Sequence[Value]:
        return self.options

    def drawn_values(self) -> Sequence[Value]:
        weights = self.weights or [1.0] * len(self.options)
        return [o for o, w in zip(self.options, weights, strict=True) if w > 0]

    def sample(self, rng: np.random.Generator) -> Value:
        if self.weights is None:
            return self.options[int(rng.integers(len(self.options)))]
        return self.options[bisect_right(self._shares, rng.random())]

    def encode(self, value: Value) -> list[float]:
        place = self._place(value)
        if self.n_columns == 1:
            return [place / (len(self.options) - 1)]
        return [float(j == place) for j in range(self.n_columns)]

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
            place = self._place(value)
            below, above = (
                [j for j in others if j < place],
                [j for j in others if j > place],
            )
            others = below[-1:] + above[:1]
        return self.options[others[int(rng.integers(len(others)))]] if others else value

    def can_change(self, value: Value) -> bool:
        return bool(self._others(value))

    def _others(self, value: Value) -> list[int]:
        """Places of the other values; one that is never drawn is no neighbour."""
        place = self._place(value)
        weights = self.weights or [1.0] * len(self.options)
        return [j for j, weight in enumerate(weights) if weight > 0 and j != place]


class _Range(Choice):
    """A range of numbers, on a linear or a logarithmic scale."""

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
                f"The bounds of a range must be numbers, got low={brief(low)} and "
                f"high={brief(high)}."
            )
        if not low < high:
            raise InvalidParameterError(
                f"The bounds of a range must ascend, got low={low!r} and high={high!r}."
            )
        if log and low <= 0:
            raise InvalidParameterError(
                f"The low bound of a log range must be > 0, got {low!r}."
            )
        self.low, self.high = self._bounds(_plain(low), _plain(high), log)
        self.log = log
        self.default = _plain(default)
        self.when = when
        _check_default(self)

    def _bounds(self, low: Any, high: Any, log: bool) -> tuple[Any, Any]:
        """The bounds, after a check that is that of the kind of range."""
        last, first = as_float(high), as_float(low)
        apart = last / first if log else last - first
        if not math.isfinite(apart):
            raise InvalidParameterError(
                "The bounds of a range must be finite, and not too far apart for a "
                f"float, got low={brief(low)} and high={brief(high)}."
            )
        return low, high

    @property
    def n_columns(self) -> int:
        return 1

    def _share(self, value: Any) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def _near(self, value: Any, rng: np.random.Generator) -> float:
        """A share of the range near that of a value, reflected at the bounds."""
        share = abs(self._share(value) + 0.1 * rng.standard_normal())
        return 1 - abs(1 - share)

    def _at(self, share: float) -> float:
        share = min(max(share, 0.0), 1.0)
        if self.log:
            return self.low * (self.high / self.low) ** share
        return self.low + share * (self.high - self.low)

    def sample(self, rng: np.random.Generator) -> Value:
        return self.decode(rng.random(1))

    def encode(self, value: Value) -> list[float]:
        return [self._share(value)]


class Integer(_Range):
    """An integer of a range, both bounds included.

    Parameters
    ----------
    low, high : int
        The bounds.
    log : bool, default=False
        Whether factors rather than differences are alike.
    default : int or None, default=None
        The value of a space's default architecture.
    when : (name, values) or None, default=None
        The condition under which the choice is there, see `Choice`.

    Examples
    --------
    >>> from sknas.spaces import Integer
    >>> width = Integer(8, 512, log=True)
    >>> width.encode(64)
    [0.5]
    """

    def _bounds(self, low: Any, high: Any, log: bool) -> tuple[Any, Any]:
        for bound in (low, high):
            if not abs(bound) <= LARGEST_INTEGER or bound != int(bound):
                raise InvalidParameterError(
                    "The bounds of an Integer must be whole and at most 2**53 in size, "
                    f"got low={brief(low)} and high={brief(high)}."
                )
        return int(low), int(high)

    @property
    def n_values(self) -> float:
        return self.high - self.low + 1

    def values(self) -> Sequence[Value]:
        return range(int(self.low), int(self.high) + 1)

    def contains(self, value: Value) -> bool:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        return is_integer and self.low <= value <= self.high

    def sample(self, rng: np.random.Generator) -> Value:
        if not self.log:  # every integer alike, the bounds too
            return int(rng.integers(int(self.low), int(self.high) + 1))
        # Each integer is the middle of what is rounded to it, the bounds too.
        low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
        drawn = round(math.exp(low + rng.random() * (high - low)))
        return min(max(drawn, int(self.low)), int(self.high))

    def decode(self, code: np.ndarray) -> Value:
        return round(self._at(float(code[0])))

    def neighbour(self, value: Value, rng: np.random.Generator) -> Value:
        near = round(self._at(self._near(value, rng)))
        if near == value:
            step = 1 if rng.random() < 0.5 else -1
            near += step if self.low <= near + step <= self.high else -step
        return near


class Real(_Range):
    """A number of a range, kept to six digits, or more where the range is narrow.

    Parameters
    ----------
    low, high : float
        The bounds.
    log : bool, default=False
        Whether factors rather than differences are alike.
    default : float or None, default=None
        The value of a space's default architecture.
    when : (name, values) or None, default=None
        The condition under which the choice is there, see `Choice`.

    Examples
    --------
    >>> from sknas.spaces import Categorical, Real
    >>> optimizer = Categorical(["adamw", "sgd"])
    >>> momentum = Real(0.0, 0.99, when=("optimizer", ["sgd"]))
    >>> momentum.is_active({"optimizer": "adamw"})
    False
    """

    @property
    def n_values(self) -> float:
        return math.inf

    def contains(self, value: Value) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= value <= self.high

    def decode(self, code: np.ndarray) -> Value:
        value = float(f"{self._at(float(code[0])):.{self._n_digits}g}")
        return min(max(value, self.low), self.high)

    @property
    def _n_digits(self) -> int:
        """Significant digits: six, or about as many of the width of the range."""
        largest = max(abs(self.low), abs(self.high))
        return 6 + max(0, int(math.log10(largest / (self.high - self.low))))

    def neighbour(self, value: Value, rng: np.random.Generator) -> Value:
        return self.decode(np.array([self._near(value, rng)]))


def _check_default(choice: Choice) -> None:
    """Refuse a default that is none of the values."""
    if choice.default is not None and not choice.contains(choice.default):
        raise InvalidParameterError(
            "The default of a choice must be one of its values, got "
            f"{choice.default!r} for {choice!r}."
        )


def as_choice(name: str, given: Any) -> Choice:
    """A choice from its short form.

    Parameters
    ----------
    name : str
        Its name, for messages.
    given : Choice, list or tuple
        A list is categorical; ``(low, high)`` an integer range if both are int, else
        a real one; ``(low, high, "log")`` the same on a logarithmic scale.

    Returns
    -------
    Choice
        The choice in full.

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
        low, high = (_plain(bound) for bound in given[:2])
        whole = isinstance(low, int) and isinstance(high, int)
        return (Integer if whole else Real)(low, high, log=len(given) == 3)
    raise InvalidParameterError(
        f"The choice {name!r} must be a list of values, (low, high), "
        f"(low, high, 'log') or a Choice, got {given!r}."
    )


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating)
    return number and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """numpy scalars as Python values, so that hashing and JSON agree everywhere."""
    return value.item() if isinstance(value, np.generic) else value
