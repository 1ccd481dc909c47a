"""Helpers that run nginx and the gateway with API keys in front of a fake TorchServe."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import httpx

from tests.faults.edge import Answer, FakeServer, Received
from torchserve_models.client import Endpoints
from torchserve_models.client._stubs import inference_pb2 as inference
from torchserve_models.client._stubs import open_inference_grpc_pb2 as open_inference
from torchserve_models.gateway.keys.api_key import ApiKey
from torchserve_models.gateway.keys.key_file import KeyFile
from torchserve_models.gateway.nginx.config import NginxConfig
from torchserve_models.gateway.settings import GatewaySettings
from torchserve_models.gateway.supervision.edge_supervisor import EdgeSupervisor

SCOPES = {
    "all": ("inference",),
    "images": ("inference:images",),
    "management": ("management",),
    "metrics": ("metrics",),
}
SETTINGS = GatewaySettings(image_model="images", summarizers={"t5": "texts", "bart": "other"})
TORCHSERVE = "/org.pytorch.serve.grpc"


def answer(request: Received) -> Answer:
    """Respond like TorchServe: with a list of models, or with the number of bytes of a body."""
    if request.target.startswith("/models"):
        return Answer(body=b'{"models": []}')
    return Answer(body=b"%d bytes" % len(request.body))


class Keyed:
    """A running edge, and the keys of its file by the names in SCOPES."""

    def __init__(self, running: EdgeSupervisor, file: KeyFile, torchserve: FakeServer):
        self.running, self.file, self.torchserve = running, file, torchserve
        self.texts: dict[str, str] = {}

    def create(self, name: str, *scopes: str, **options) -> ApiKey:
        key, self.texts[name] = ApiKey.create(name, scopes, **options)
        self.file.add(key)
        return key

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.texts[name]}"} if name else {}

    def client(self, name: str = "") -> httpx.Client:
        return httpx.Client(base_url=self.running.url, timeout=30, headers=self.headers(name))


@contextmanager
def keyed_edge(folder: Path, settings: GatewaySettings = SETTINGS, **changes: object) -> Iterator[Keyed]:
    file = KeyFile(folder / "keys.json")
    with FakeServer(answer) as torchserve:
        at = f"http://{torchserve.address}"
        config = NginxConfig(
            **dict.fromkeys(("http", "grpc", "gateway", "internal"), "127.0.0.1:0"),
            endpoints=Endpoints(inference=at, management=at, metrics=at, health="http://127.0.0.1:9"),
            **{"open_management": True, **changes},  # type: ignore[arg-type]
        )
        with EdgeSupervisor(config, replace(settings, key_file=file.path)) as running:
            keyed = Keyed(running, file, torchserve)
            for name, scopes in SCOPES.items():
                keyed.create(name, *scopes)
            yield keyed


def error(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert body["code"] == response.status_code
    assert body["error"] == body["message"]
    return response.status_code, body["type"]


def call(keyed: Keyed, path: str, message: object, name: str) -> grpc.StatusCode:
    """Call a gRPC method and return its status."""
    metadata = [(key.lower(), value) for key, value in keyed.headers(name).items()]
    with grpc.insecure_channel(keyed.running.config.grpc) as channel:
        method = channel.unary_unary(path, request_serializer=lambda sent: sent.SerializeToString())
        try:
            method(message, metadata=metadata, timeout=30)
        except grpc.RpcError as failure:
            return failure.code()
    return grpc.StatusCode.OK


ROUTES = [
    ("POST", "/predictions/images", {"all", "images"}),
    ("POST", "/predictions/images/1.0?top_k=1", {"all", "images"}),
    ("POST", "/predictions/texts", {"all"}),
    ("POST", "/predictions/x/../images", {"all", "images"}),
    ("POST", "/predictions/images%3fa", {"all"}),
    ("POST", "/predict", {"all", "images"}),
    ("POST", "/predict/image_classes/", {"all", "images"}),
    ("POST", "/v1/models/images:predict", {"all", "images"}),
    ("POST", "/v2/models/images/infer", {"all", "images"}),
    ("POST", "/v2/models/images/versions/1.0/infer", {"all", "images"}),
    ("POST", "/v2/models/texts/infer", {"all"}),
    ("POST", "/model", {"all", "images"}),
    ("POST", "/predict/text_summarize", {"all"}),
    ("POST", "/predict/text_summarize?model=bart", {"all"}),
    ("GET", "/v1/models", {"all", "images"}),
    ("GET", "/v2/models/images", {"all", "images"}),
    ("GET", "/v2/models/texts/versions/1.0", {"all"}),
    ("GET", "/models", {"management"}),
    ("POST", "/models?url=x.mar", {"management"}),
    ("PUT", "/models/images?min_worker=2", {"management"}),
    ("GET", "/metrics", {"metrics"}),
    ("GET", "/edge/metrics", {"metrics"}),
]

PREDICTION = inference.PredictionsRequest(model_name="images", input={"data": b"x"})
OPEN_INFERENCE = {
    "ModelInfer": (open_inference.ModelInferRequest, "model_name"),
    "ModelMetadata": (open_inference.ModelMetadataRequest, "name"),
}
METHODS = [
    (f"{service}/{method}", create(**{field: model}), allowed)
    for service, methods in {
        f"{TORCHSERVE}.inference.InferenceAPIsService": {
            "Predictions": (partial(inference.PredictionsRequest, input={"data": b"x"}), "model_name"),
            "StreamPredictions": (partial(inference.PredictionsRequest, input={"data": b"x"}), "model_name"),
        },
        f"{TORCHSERVE}.openinference.GRPCInferenceService": OPEN_INFERENCE,
        "/inference.GRPCInferenceService": OPEN_INFERENCE,
    }.items()
    for method, (create, field) in methods.items()
    for model, allowed in (("images", {"all", "images"}), ("texts", {"all"}))
]
