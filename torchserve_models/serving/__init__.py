"""Run TorchServe: start it with the requested models, watch its workers, report readiness, and stop it.

from torchserve_models import serving
with serving.start(["resnet-50"], weights="starter", run_dir=folder, store=folder) as server:
    httpx.post(f"{server.inference}/predictions/resnet-50", content=photo)
"""

from torchserve_models import handlers_path  # noqa: F401
from torchserve_models.serving.errors import RunError
from torchserve_models.serving.run_config.ports import Ports
from torchserve_models.serving.server import Server, start

__all__ = ["Ports", "RunError", "Server", "start"]
