"""Find the fastest batch size and number of workers."""

from torchserve_models import handlers_path  # noqa: F401
from torchserve_models.tuning.errors import TuningError
from torchserve_models.tuning.sweep import tune

__all__ = ["TuningError", "tune"]
