"""Trainers, which train and score the proposals of a strategy."""

from sknas.trainers._base import Trainer
from sknas.trainers._population import PopulationTrainer
from sknas.trainers._skorch import SkorchTrainer
from sknas.trainers._skorch_net import TensorNet, to_inference_net
from sknas.trainers._train_network import TrainedNetwork, Training, train_network

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
