"""The application behind nginx: compatibility routes, Open Inference metadata, readiness and API documentation."""

from torchserve_models import handlers_path  # noqa: F401
