"""The training of a network: the Lightning module, the loop with selection and refit."""

from deshi.training.module import TrainingModule, count_parameters
from deshi.training.trainer import Trained, Training

__all__ = ["Trained", "Training", "TrainingModule", "count_parameters"]
