"""Adversarial training of the potential, the friction and its memory kernel."""

from .hyperparameters import Hyperparameters
from .parameters import TrainedParameters
from .trainer import train
from .training import AdversarialTraining

__all__ = [
    "AdversarialTraining",
    "Hyperparameters",
    "TrainedParameters",
    "train",
]
