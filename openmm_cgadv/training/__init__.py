"""Adversarial training of the potential, the friction and the memory."""

from .adversarial import AdversarialTraining, TrainedParameters, TrainingDiverged, train

__all__ = ["AdversarialTraining", "TrainedParameters", "TrainingDiverged", "train"]
