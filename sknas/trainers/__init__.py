"""Trainers, which train and score the proposals of a strategy."""

from typing import TYPE_CHECKING, Any

from sknas.trainers._base import Trainer
from sknas.trainers._inference_net import to_inference_net
from sknas.trainers._population import PopulationTrainer
from sknas.trainers._skorch import SkorchTrainer
from sknas.trainers._train_network import TrainedNetwork, Training, train_network

if TYPE_CHECKING:
    from sknas.trainers._skorch_net import TensorNet

TRAINERS = {"population": PopulationTrainer, "skorch": SkorchTrainer}

__all__ = [
    "TRAINERS",
    "PopulationTrainer",
    "SkorchTrainer",
    "TensorNet",
    "TrainedNetwork",
    "Trainer",
    "Training",
    "to_inference_net",
    "train_network",
]


def __getattr__(name: str) -> Any:
    if name == "TensorNet":  # a class of skorch, which is imported when it is needed
        from sknas.trainers._skorch_net import TensorNet

        return TensorNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
