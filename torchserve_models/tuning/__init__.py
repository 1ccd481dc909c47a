"""Finds the batch size and number of workers with which a model is fastest on this machine."""

from torchserve_models.tuning.errors import TuningError
from torchserve_models.tuning.sweep import tune

__all__ = ["TuningError", "tune"]
