"""How a proposal gets its score."""

from sknas.trainers._base import Trainer
from sknas.trainers._network import TensorNet, TrainedNetwork, Training, train_network
from sknas.trainers._population import PopulationTrainer
from sknas.trainers._skorch import SkorchTrainer

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
