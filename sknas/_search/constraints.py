"""What may be tried: constraints as a question about an architecture."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np

from sknas._history import Architecture
from sknas._problem import TaskSpec
from sknas._validation import as_float, brief, did_you_mean, reject, warn_user
from sknas.spaces import Space

MAX_FAILED = 20  # answers that a function of the user may owe before it gives one


def make_feasible(
    caller_name: str, constraints: Any, space: Space, task: TaskSpec | None
) -> Callable[[Architecture], bool]:
    """Whether an architecture can be built and keeps the constraints of a user.

    Parameters
    ----------
    owner : str
        Whose parameter they are, for messages.
    constraints : mapping of str to float, callable or None
        Upper bounds, or the answer itself.
    space : Space
        Where the architectures come from.
    task : TaskSpec or None
        What networks are built for, whose costs are bounded; without one the numbers
        of the architecture are.

    Raises
    ------
    InvalidParameterError
        If the constraints are none.
    """
    keeps = _keeps(caller_name, constraints, space, task)
    if task is None:
        return keeps
    # What can't be built has no costs to bound.
    return lambda a: space.is_buildable(a, task) and keeps(a)


def _keeps(
    caller_name: str, constraints: Any, space: Space, task: TaskSpec | None
) -> Callable[[Architecture], bool]:
    """Whether an architecture keeps the constraints, after a check of them."""
    if constraints is None:
        return lambda architecture: True
    if callable(constraints):
        return _Answer(caller_name, constraints)
    if not isinstance(constraints, Mapping):
        reject(
            caller_name,
            "constraints",
            constraints,
            "a dict of bounds, a callable or None",
        )
    known = _known(space, task)
    for name, bound in constraints.items():
        if name not in known:
            allowed = f"a dict of bounds of {known}"
            question = did_you_mean(name, known)
            reject(caller_name, "constraints", dict(constraints), allowed, question)
        number = float("nan") if isinstance(bound, bool) else as_float(bound)
        is_cost = task is not None  # of a network: above zero
        if not np.isfinite(number) or (is_cost and number <= 0):
            allowed = "a finite number" + " > 0" * is_cost
            reject(caller_name, f"constraints[{name!r}]", bound, allowed)
    return _Bounds(constraints, space, task)


def _known(space: Space, task: TaskSpec | None) -> list[str]:
    """What may be bounded: numbers of an architecture, or costs of its network."""
    if task is not None:
        return list(space.costs)
    return [name for name, choice in space.choices.items() if choice.is_numeric]


class _Answer:
    """What a function of the user says of an architecture."""

    def __init__(self, caller_name: str, allows: Callable[[Architecture], Any]) -> None:
        self.caller_name, self.allows = caller_name, allows
        self.failures: list[tuple[Architecture, Exception]] = []
        self.has_answered = self.has_warned = False

    def __call__(self, architecture: Architecture) -> bool:
        try:
            answer = bool(self.allows(architecture))
        except Exception as error:
            if not self.has_warned:
                self.failures.append((architecture, error))
            if self.has_answered or len(self.failures) < MAX_FAILED:
                self._warn()
                return False
            allowed = "a function of an architecture that returns True or False"
            advice = f"it ended in {type(error).__name__}: {brief(error)}"
            reject(self.caller_name, "constraints", self.allows, allowed, advice)
        self.has_answered = True
        self._warn()
        return answer

    def _warn(self) -> None:
        """Say once what it failed for, as soon as it has answered for others."""
        if self.has_answered and self.failures and not self.has_warned:
            architecture, error = self.failures[0]
            self.failures, self.has_warned = [], True
            warn_user(
                "The function of 'constraints' ended in "
                f"{type(error).__name__}: {brief(error)} for "
                f"{brief(dict(architecture))}: this and others like it are left out; "
                "mend the function if they are allowed."
            )


class _Bounds:
    """Upper bounds, asked in their order; what was measured is kept."""

    def __init__(
        self, bounds: Mapping[str, float], space: Space, task: TaskSpec | None
    ) -> None:
        self.bounds, self.space, self.task = dict(bounds), space, task
        self.measured: dict[tuple[str, Hashable], float] = {}

    def __call__(self, architecture: Architecture) -> bool:
        return all(
            self._cost(name, architecture) <= most for name, most in self.bounds.items()
        )

    def _cost(self, name: str, architecture: Architecture) -> float:
        if self.task is None:
            return architecture.get(name, -np.inf)
        # A cost that a space of the user adds may depend on anything.
        is_usual = name in Space.costs
        structure = self.space.structure(architecture) if is_usual else architecture.key
        key = name, structure
        if key not in self.measured:
            try:
                cost = getattr(self.space, name)(architecture, self.task)
            except Exception:  # what can't be built fails where it is trained
                cost = -np.inf
            self.measured[key] = cost
        return self.measured[key]
