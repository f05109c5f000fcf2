"""How a proposal gets its score."""

from sknas.trainers._base import Trainer
from sknas.trainers._population import PopulationTrainer
from sknas.trainers._skorch import SkorchTrainer
from sknas.trainers._skorch_net import (
    TensorNet,
    TrainedNetwork,
    Training,
    train_network,
)

TRAINERS = {"population": PopulationTrainer, "skorch": SkorchTrainer}

__all__ = [
    "TRAINERS",
    "PopulationTrainer",
    "SkorchTrainer",
    "TensorNet",
    "TrainedNetwork",
    "Trainer",
    "Training",
    "train_network",
]
