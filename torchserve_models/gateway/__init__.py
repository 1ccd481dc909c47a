"""What nginx in front of TorchServe cannot do itself: translated routes, Open Inference metadata, the API's docs."""

from torchserve_models import handlers_path  # noqa: F401
