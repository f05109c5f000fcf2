"""The training choices that all spaces of this package share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sknas._budget import defaults_for
from sknas._problem import TaskSpec
from sknas._training.optimizer import OPTIMIZERS
from sknas.spaces._choices import Choice, When
from sknas.spaces._parametrized import ParametrizedSpace

ADAPTIVE = ("optimizer", ("adamw", "rmsprop"))  # step sizes are near the lr
NOT_ADAPTIVE = ("optimizer", ("momentum", "sgd"))  # step sizes grow with gradients
TRAINING_LIMITS: dict[str, tuple[float, float]] = {
    "lr": (1e-8, 1.0),
    "sgd_lr": (1e-8, 10.0),
    "batch_size": (1, 1_000_000),
    "weight_decay": (0.0, 10.0),
    "label_smoothing": (0.0, 0.9),
}
TRAINING = ("optimizer", *TRAINING_LIMITS)
MAX_SHIFT_SHARE = 1 / 8  # maximum shift, relative to the shorter side of an image
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


def training_choices(
    space: ParametrizedSpace,
    *,
    lr: float,
    sgd_lr: float,
    batch_size: int,
    weight_decay: float,
    lr_when: When = ADAPTIVE,
) -> dict[str, Choice]:
    """Return the training choices of a space, with the given defaults."""
    return {
        "optimizer": space._categorical("optimizer", OPTIMIZERS, "adamw"),
        "lr": space._log_range("lr", lr, when=lr_when),
        "sgd_lr": space._log_range("sgd_lr", sgd_lr, when=NOT_ADAPTIVE),
        "batch_size": space._ordered("batch_size", batch_size),
        "weight_decay": space._ordered("weight_decay", weight_decay),
        "label_smoothing": space._ordered("label_smoothing", 0.0),
    }


def training_for_task(space: ParametrizedSpace, task: TaskSpec) -> dict[str, Any]:
    """Return the parameters of a space that a task changes, for `set_params`.

    Batch sizes are those near the default of the task. Labels are only smoothed for
    scores that read one class per row. Shifts are small relative to the images.
    """
    default = defaults_for(task.image is not None).batch_size(task.n_rows)
    is_single = task.n_rows <= default  # one batch has all rows
    near = (default,) if is_single else (default // 2, default, 2 * default)
    sizes = space._values("batch_size")
    nearest = min(sizes, key=lambda size: abs(size - default))
    changes: dict[str, Any] = {
        "batch_size": tuple(s for s in sizes if s in near) or (nearest,)
    }
    if task.kind not in ("binary", "multiclass") or task.probabilistic:
        changes["label_smoothing"] = (0.0,)
    if task.image is not None:
        shifts = space._values("shift")
        limit = min(task.image.shape[1:]) * MAX_SHIFT_SHARE
        changes["shift"] = [s for s in shifts if s <= limit] or [min(shifts)]
    return changes


def describe_training(architecture: Mapping[str, Any]) -> list[str]:
    """Describe the training choices of an architecture in words."""
    a = architecture
    lr = a.get("ntk_lr", a.get("lr", a.get("sgd_lr")))
    words = [
        f"trained by {TITLES[a['optimizer']]} at a learning rate of {lr:.2g}, "
        f"batches of {a['batch_size']}, weight decay {a['weight_decay']:g}"
    ]
    if a["label_smoothing"]:
        words.append(f"label smoothing {a['label_smoothing']:g}")
    return words
