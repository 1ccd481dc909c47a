"""Runs TorchServe: starts it with the models asked for, watches its workers, tells the truth about it, ends it.

import serving
with serving.start(["resnet-50"], weights="starter", run_dir=folder, store=folder) as server:
    httpx.post(f"{server.inference}/predictions/resnet-50", content=photo)
"""

from serving.errors import RunError
from serving.ports import Ports
from serving.server import Server, start

__all__ = ["Ports", "RunError", "Server", "start"]
