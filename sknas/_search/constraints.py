"""Constraints of the user, as a function of an architecture."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from sknas._history import Architecture
from sknas._problem import TaskSpec
from sknas._validation import as_float, did_you_mean, reject, short_repr, warn_user
from sknas.spaces import Space

MAX_FAILURES = 20  # calls of a user's function that may fail before one succeeds


def make_feasible(
    caller_name: str, constraints: Any, space: Space, task: TaskSpec | None
) -> Callable[[Architecture], bool]:
    """Return a function that is True for buildable architectures within constraints.

    Parameters
    ----------
    caller_name : str
        Name of the estimator or function, for messages.
    constraints : mapping of str to float, callable or None
        Upper bounds by name, or a function of an architecture.
    space : Space
        The architectures.
    task : TaskSpec or None
        With a task, bounds apply to costs of the network; without one, to numeric
        choices of the architecture.

    Raises
    ------
    InvalidParameterError
        If `constraints` has the wrong type, an unknown name or a bound that is not
        finite.
    """
    is_within = _make_constraint(caller_name, constraints, space, task)
    if task is None:
        return is_within
    return _Feasible(space, task, is_within)


def failure_of(feasible: Callable[[Architecture], bool]) -> str:
    """Return the first error of a user's function that never succeeded, else ""."""
    constraint = feasible.is_within if isinstance(feasible, _Feasible) else feasible
    if not isinstance(constraint, _UserConstraint) or not constraint.failures:
        return ""
    _, error = constraint.failures[0]
    return f"{type(error).__name__}: {short_repr(error)}"


def _make_constraint(
    caller_name: str, constraints: Any, space: Space, task: TaskSpec | None
) -> Callable[[Architecture], bool]:
    """Check the constraints and return them as a function of an architecture."""
    if constraints is None:
        return lambda architecture: True
    if callable(constraints):
        return _UserConstraint(caller_name, constraints)
    if not isinstance(constraints, Mapping):
        reject(
            caller_name,
            "constraints",
            constraints,
            "a dict of bounds, a callable or None",
        )
    known = _bounded_names(space, task)
    for name, bound in constraints.items():
        if name not in known:
            allowed = f"a dict of bounds of {known}"
            advice = did_you_mean(name, known)
            reject(caller_name, "constraints", dict(constraints), allowed, advice)
        number = float("nan") if isinstance(bound, bool) else as_float(bound)
        is_cost = task is not None  # costs of a network are above zero
        if not np.isfinite(number) or (is_cost and number <= 0):
            allowed = "a finite number" + " > 0" * is_cost
            reject(caller_name, f"constraints[{name!r}]", bound, allowed)
    return _Bounds(constraints, space, task)


def _bounded_names(space: Space, task: TaskSpec | None) -> list[str]:
    """Return the names that may be bounded: costs of a network, or numeric choices."""
    if task is not None:
        return list(space.costs)
    return [name for name, choice in space.choices.items() if choice.is_numeric]


class _Feasible:
    """Architectures that can be built and keep the constraints."""

    def __init__(
        self, space: Space, task: TaskSpec, is_within: Callable[[Architecture], bool]
    ) -> None:
        self.space, self.task, self.is_within = space, task, is_within

    def __call__(self, architecture: Architecture) -> bool:
        # An architecture that can't be built has no costs to bound.
        if not self.space.is_buildable(architecture, self.task):
            return False
        return self.is_within(architecture)


class _UserConstraint:
    """A function of the user that allows or refuses architectures."""

    def __init__(self, caller_name: str, allows: Callable[[Architecture], Any]) -> None:
        self.caller_name, self.allows = caller_name, allows
        self.failures: list[tuple[Architecture, Exception]] = []
        self.has_answered = self.has_warned = False
        self.allowed: set[str] = set()  # keys: the loop asks after the strategy again

    def __call__(self, architecture: Architecture) -> bool:
        if architecture.key in self.allowed:
            return True
        try:
            answer = bool(self.allows(architecture))
        except Exception as error:
            if not self.has_warned:
                self.failures.append((architecture, error))
            if self.has_answered or len(self.failures) < MAX_FAILURES:
                self._warn()
                return False
            allowed = "a function of an architecture that returns True or False"
            advice = f"it raised {type(error).__name__}: {short_repr(error)}"
            reject(self.caller_name, "constraints", self.allows, allowed, advice)
        self.has_answered = True
        self._warn()
        if answer:
            self.allowed.add(architecture.key)
        return answer

    def _warn(self) -> None:
        """Warn once of the first failure, as soon as another call has succeeded."""
        if self.has_answered and self.failures and not self.has_warned:
            architecture, error = self.failures[0]
            self.failures, self.has_warned = [], True
            warn_user(
                "The function of 'constraints' raised "
                f"{type(error).__name__}: {short_repr(error)} for "
                f"{short_repr(dict(architecture))}: this and others like it are not "
                "allowed; fix the function if they should be."
            )


class _Bounds:
    """Upper bounds of costs, checked in order; each cost is measured once."""

    def __init__(
        self, bounds: Mapping[str, float], space: Space, task: TaskSpec | None
    ) -> None:
        self.bounds, self.space, self.task = dict(bounds), space, task
        self.measured: dict[tuple[str, Hashable], float] = {}

    def __call__(self, architecture: Architecture) -> bool:
        return all(
            self._cost(name, architecture) <= bound
            for name, bound in self.bounds.items()
        )

    def _cost(self, name: str, architecture: Architecture) -> float:
        if self.task is None:
            return architecture.get(name, -np.inf)
        # Our costs depend on the structure; a user's cost may depend on any choice.
        is_ours = name in Space.costs
        structure = self.space.structure(architecture) if is_ours else architecture.key
        key = name, structure
        if key not in self.measured:
            try:
                cost = getattr(self.space, name)(architecture, self.task)
            except Exception:  # a network that can't be built fails when it is trained
                cost = -np.inf
            self.measured[key] = cost
        return self.measured[key]
