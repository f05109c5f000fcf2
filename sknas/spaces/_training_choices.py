"""Spaces whose parameters list the values that a search may take."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np

from sknas._budget import default_batch_size
from sknas._history import Architecture
from sknas._problem import TaskSpec
from sknas._validation import reject
from sknas.spaces._base import Space
from sknas.spaces._choices import Categorical, Choice, Real, When

MAX_SHIFT_SHARE = 1 / 8  # of the side of an image
TITLES = {
    "relu": "ReLU",
    "silu": "SiLU",
    "selu": "SELU",
    "gelu": "GELU",
    "mish": "Mish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "adamw": "AdamW",
    "rmsprop": "RMSprop",
    "momentum": "SGD with momentum",
    "sgd": "SGD",
}


@cache
def _defaults(space: type[Space]) -> dict[str, Any]:
    """The defaults of a space's parameters; to look at a signature takes long."""
    parameters = inspect.signature(space.__init__).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


class ListedSpace(Space):
    """A space whose parameters list values: one value alone fixes a choice."""

    # Least and greatest value of each parameter of numbers; int bounds are for ints.
    _limits: ClassVar[Mapping[str, tuple[float, float]]]
    # Prior probabilities of values, up to a factor; 1 where none is given.
    _prior: ClassVar[Mapping[str, Mapping[Any, float]]]

    def _values(self, name: str) -> list[Any]:
        values = getattr(self, name)
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            allowed = "a tuple or list of one value or more"
            reject(type(self).__name__, name, values, allowed)
        return [v.item() if isinstance(v, np.generic) else v for v in values]

    def _words(
        self, name: str, known: Any, default: Any, when: When | None = None
    ) -> Categorical:
        """A choice among words; the first one is the default if `default` is out."""
        values = self._values(name)
        if any(value not in known for value in values):
            reject(type(self).__name__, name, values, f"a choice of {tuple(known)!r}")
        return Categorical(
            values,
            default=default if default in values else values[0],
            weights=self._weights(name, values),
            when=when,
        )

    def _sizes(self, name: str, default: float, when: Any = None) -> Categorical:
        """A choice among numbers; the one nearest to `default` is the default."""
        values = self._values(name)
        low, high = self._limits[name]
        if not all(_is_within(v, low, high) for v in values):
            what = "ints" if isinstance(low, int) else "numbers"
            allowed = f"a choice of {what} from {low} to {high}"
            reject(type(self).__name__, name, values, allowed)
        near = min(values, key=lambda value: abs(value - default))
        values = sorted(values)
        weights = self._weights(name, values)
        return Categorical(
            values, ordered=True, default=near, weights=weights, when=when
        )

    def _counts(self, name: str, default: int) -> Categorical:
        """A choice among the ints between two bounds."""
        low, high = self._bounds(name)
        values = list(range(int(low), int(high) + 1))
        near = min(max(default, values[0]), values[-1])
        weights = self._weights(name, values)
        return Categorical(values, ordered=True, default=near, weights=weights)

    def _range(
        self, name: str, default: float, when: When | None = None
    ) -> Categorical | Real:
        """A range of numbers on a logarithmic scale, or the one value it has."""
        low, high = self._bounds(name)
        if low == high:
            return Categorical([low], default=low, when=when)
        near = min(max(default, low), high)
        return Real(low, high, log=True, default=near, when=when)

    def _bounds(self, name: str) -> tuple[float, float]:
        values = self._values(name)
        low, high = self._limits[name]
        are_within = len(values) == 2 and all(_is_within(v, low, high) for v in values)
        if not are_within or values[0] > values[1]:
            what = "ints" if isinstance(low, int) else "numbers"
            allowed = f"two ascending {what} from {low} to {high}"
            reject(type(self).__name__, name, values, allowed)
        return values[0], values[1]

    def _weights(self, name: str, values: Sequence[Any]) -> list[float] | None:
        """Prior weights of the values of a choice, None where all are alike.

        What the user lists is drawn evenly.
        """
        usual = _defaults(type(self)).get(name)
        if name not in self._prior or tuple(getattr(self, name)) != usual:
            return None
        return [self._prior[name].get(value, 1.0) for value in values]

    def _batch_sizes(self, task: TaskSpec) -> tuple[int, ...]:
        """Sizes near the default one of a task; one batch needs no choice."""
        n_rows = task.n_rows
        size = default_batch_size(n_rows, task.image is not None)
        sizes = self._values("batch_size")
        near = (size,) if n_rows <= size else (size // 2, size, 2 * size)
        nearest = min(sizes, key=lambda value: abs(value - size))
        return tuple(s for s in sizes if s in near) or (nearest,)

    def _known(
        self, points: Sequence[Mapping[str, Any]], task: TaskSpec | None
    ) -> list[Architecture]:
        """Those of some points that lie in the space, as the task wants them."""
        space = self if task is None else self.for_task(task)
        own, choices = self.choices, space.choices
        filled: dict[str, Architecture] = {}
        for point in points:
            # A known point that the space does not hold is left out.
            if all(n in own and own[n].contains(value) for n, value in point.items()):
                given = point if task is None else self._suited(point, task)
                # What means nothing for the task has a value that is near.
                near = {
                    name: _nearest(choices[name], value)
                    for name, value in given.items()
                    if name in choices
                }
                architecture = space.fill(near)
                filled.setdefault(architecture.key, architecture)
        return list(filled.values())

    def _shifts(self, task: TaskSpec) -> list[int]:
        """The moves, in pixels, that are small beside the images of a task."""
        assert task.image is not None
        shifts = list(self._values("shift"))
        most = min(task.image.shape[1:]) * MAX_SHIFT_SHARE
        return [shift for shift in shifts if shift <= most] or [min(shifts)]

    def _suited(self, point: Mapping[str, Any], task: TaskSpec) -> dict[str, Any]:
        """A known point with what depends on the task."""
        is_image = task.image is not None
        return {"batch_size": default_batch_size(task.n_rows, is_image), **point}


def possible(choices: Mapping[str, Choice]) -> dict[str, Choice]:
    """Those choices whose condition can hold, given the values there are."""
    kept: dict[str, Choice] = {}
    for name, choice in choices.items():
        if _can_be_met(choice.when, kept):
            kept[name] = choice
    return kept


def is_label_scored(task: TaskSpec) -> bool:
    """Whether the score reads labels of one class a row, which may be smoothed."""
    return task.kind in ("binary", "multiclass") and not task.probabilistic


def describe_training(architecture: Mapping[str, Any]) -> list[str]:
    """The training choices of an architecture in words."""
    a = architecture
    lr = a.get("ntk_lr", a.get("lr", a.get("sgd_lr")))
    words = [
        f"trained by {TITLES[a['optimizer']]} at a learning rate of {lr:.2g}, "
        f"batches of {a['batch_size']}, weight decay {a['weight_decay']:g}"
    ]
    if a["label_smoothing"]:
        words.append(f"label smoothing {a['label_smoothing']:g}")
    return words


def _can_be_met(when: When | None, choices: Mapping[str, Choice]) -> bool:
    """Whether a condition can hold, given the values that are left to choose from."""
    if when is None:
        return True
    name, values = when
    return name in choices and any(choices[name].contains(value) for value in values)


def _nearest(choice: Choice, value: Any) -> Any:
    """The value of a choice that is nearest to one that it may not have."""
    if choice.contains(value) or not isinstance(choice, Categorical):
        return value if choice.contains(value) else choice.default
    if not choice.ordered:
        return choice.default
    return min(choice.options, key=lambda option: abs(option - value))


def _is_within(value: Any, low: float, high: float) -> bool:
    """Whether a value is a number within bounds; an int if the bounds are ints."""
    kinds = int if isinstance(low, int) else int | float
    return isinstance(value, kinds) and value is not True and low <= value <= high
