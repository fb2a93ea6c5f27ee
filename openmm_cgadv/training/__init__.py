"""Adversarial training of the potential, the friction and the memory."""

from .adversarial import AdversarialTraining
from .loop import TrainingDiverged, train
from .parameters import TrainedPairParameters, TrainedParameters, from_arrays

__all__ = [
    "AdversarialTraining", "TrainedPairParameters", "TrainedParameters", "TrainingDiverged", "from_arrays", "train",
]  # fmt: skip
