"""MLServer with adaptive batching and one parallel worker: https://docs.seldon.ai/mlserver/user-guide/adaptive-batching."""

import base64
import json
from collections.abc import Mapping

from benchmarks.systems.base import free_port
from benchmarks.systems.peer import Peer, Stage
from torchserve_models.loadgen import post_request


class MlServer(Peer):
    name = "mlserver"
    title = "MLServer, adaptive batching"
    path = "/v2/models/resnet-50/infer"

    def commands(self, stage: Stage) -> list[list[str]]:
        return [[str(stage.bin / "mlserver"), "start", "."]]

    def environment(self, stage: Stage) -> Mapping[str, str]:
        return serving_environment(stage)

    def request(self, image: bytes) -> bytes:
        data = base64.b64encode(image).decode()
        tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [data]}
        body = {"inputs": [tensor | {"parameters": {"content_type": "base64"}}]}
        return post_request(self.path, json.dumps(body).encode(), "application/json")


def serving_environment(stage: Stage) -> dict[str, str]:
    """Its ports and the folder of its metrics."""
    ports = {"HTTP": stage.port, "GRPC": free_port(), "METRICS": free_port()}
    folder = {"PROMETHEUS_MULTIPROC_DIR": str(stage.folder), "MLSERVER_METRICS_DIR": str(stage.folder)}
    return folder | {f"MLSERVER_{name}_PORT": str(port) for name, port in ports.items()}
