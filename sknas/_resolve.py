"""Resolve the parameters of an estimator into the parts of a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from sklearn.base import clone
from sklearn.utils import check_random_state

from sknas._data.image import ImageReader
from sknas._data.reader import Reader, n_dimensions
from sknas._data.table_reader import TableReader
from sknas._parallel.run import count_workers
from sknas._problem import TaskSpec
from sknas._scoring.scorer import find_scorer
from sknas._validation import check_word, is_word, reject
from sknas.spaces import SPACES, Space
from sknas.strategies import STRATEGIES, Strategy
from sknas.trainers import TRAINERS, Trainer


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a search, resolved from the parameters of an estimator.

    Parameters
    ----------
    caller_name : str
        Name of the estimator, for messages.
    space : Space
        Architectures to search.
    strategy : Strategy
        Proposes architectures.
    trainer : Trainer
        Trains and scores them.
    reader : Reader
        Reads X, not fitted yet.
    scorer : callable
        A scikit-learn scorer.
    device : str
        Where networks are trained.
    n_jobs : int
        Worker processes that may be used.
    """

    caller_name: str
    space: Space
    strategy: Strategy
    trainer: Trainer
    reader: Reader
    scorer: Callable[..., float]
    device: str
    n_jobs: int

    def for_task(self, task: TaskSpec | None) -> Parts:
        """Return the parts, with only the choices of the space that affect a task."""
        return self if task is None else replace(self, space=self.space.for_task(task))


def resolve(estimator: Any, X: Any) -> Parts:
    """Resolve the parameters of an estimator.

    Parameters
    ----------
    estimator : BaseNAS
        Estimator whose parameters are words or objects.
    X : array-like
        Decides what "auto" means.

    Raises
    ------
    InvalidParameterError
        If a parameter is neither a known word nor a suitable object.
    """
    name = type(estimator).__name__
    strategy = find_part(name, "strategy", estimator.strategy, STRATEGIES, Strategy)
    space = _find_space(estimator, strategy, X)
    space.check()
    # Keyword arguments are evaluated in order: the first wrong parameter is reported.
    return Parts(
        caller_name=name,
        space=space,
        strategy=strategy,
        reader=_make_reader(estimator, space),
        trainer=_find_trainer(estimator, space),
        scorer=find_scorer(name, estimator.scoring, estimator._is_classifier),
        device=_find_device(name, estimator.device),
        n_jobs=count_workers(estimator.n_jobs),
    )


def find_part(
    caller_name: str, name: str, given: Any, known: Mapping[str, type], role: type
) -> Any:
    """Return the object of a role that is given, as itself or as a word.

    Raises
    ------
    InvalidParameterError
        If `given` is neither an object of the role nor a known word.
    """
    if isinstance(given, role):
        return given
    if isinstance(given, str):
        return known[check_word(caller_name, name, given, known)]()
    words = ", ".join(map(repr, known))
    reject(caller_name, name, given, f"one of {words} or a {role.__name__} object")


def copy_part(name: str, part: Any) -> Any:
    """Return an unfitted copy of a part, so that the user's object is unchanged."""
    try:
        return clone(part)
    except TypeError as error:
        allowed = "an object whose parameters can be copied"
        reject("search", name, part, allowed, str(error))


def draw_seed(random_state: Any) -> int:
    """Draw the seed from which all randomness of a search derives."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def _find_space(estimator: Any, strategy: Strategy, X: Any) -> Space:
    auto = "table"
    if estimator.image_shape is not None or n_dimensions(X) in (3, 4):
        auto = strategy.auto_image_space
    known = {"auto": SPACES[auto], **SPACES}
    name = type(estimator).__name__
    return find_part(name, "search_space", estimator.search_space, known, Space)


def _make_reader(estimator: Any, space: Space) -> Reader:
    """Return a reader of tables or of images, as the space needs."""
    name = type(estimator).__name__
    reads = check_word(type(space).__name__, "reads", space.reads, ("table", "image"))
    columns = estimator.categorical_features
    if reads == "image":
        if columns is not None and not is_word(columns, "from_dtype"):
            allowed = "'from_dtype' or None for images"
            reject(name, "categorical_features", columns, allowed)
        return ImageReader(name, estimator.image_shape, estimator.channel_axis)
    if estimator.image_shape is not None:
        reject(name, "image_shape", estimator.image_shape, "None for a table")
    if not is_word(estimator.channel_axis, "auto"):
        reject(name, "channel_axis", estimator.channel_axis, "'auto' for a table")
    return TableReader(name, columns)


def _find_trainer(estimator: Any, space: Space) -> Trainer:
    auto = TRAINERS["population" if space.can_build_batches else "skorch"]
    known = {"auto": auto, **TRAINERS}
    name = type(estimator).__name__
    return find_part(name, "trainer", estimator.trainer, known, Trainer)


def _find_device(caller_name: str, given: Any) -> str:
    if is_word(given, "auto"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(given)
    except (RuntimeError, TypeError, ValueError):
        device = torch.device("meta")  # not in `known`
    known = ["cpu"]
    if torch.cuda.is_available():
        known += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if str(device) not in known:
        allowed = "'auto' or a device of this machine: " + " or ".join(known)
        reject(caller_name, "device", given, allowed)
    return str(given)
