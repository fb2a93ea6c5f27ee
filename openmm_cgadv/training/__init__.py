"""Adversarial training of the potential, the friction and the memory."""

from .adversarial import TrainedParameters, TrainingDiverged, train

__all__ = ["TrainedParameters", "TrainingDiverged", "train"]
