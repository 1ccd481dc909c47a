"""Who else summarizes over HTTP: FastAPI as in the tutorials, MLServer and LitServe with their batching."""

import json
from collections.abc import Mapping
from pathlib import Path

from benchmarks import environments
from benchmarks.systems.base import Workplace
from benchmarks.systems.mlserver import serving_environment
from benchmarks.systems.peer import Spawned, Stage
from benchmarks.texts.models import TextModel
from benchmarks.texts.systems import TextServer, target
from benchmarks.texts.workloads import Asked, probe
from torchserve_models.loadgen import Target, post_request


class TextPeer(Spawned, TextServer):
    """Its files are in benchmarks/peers/text-NAME; its packages are those of the peer for images."""

    path = "/predict"
    packaged = ""

    def __init__(self, model: TextModel) -> None:
        super().__init__(model)
        self.files = self.files or f"text-{self.name}"

    @property
    def runs_in(self) -> str:
        return f"text-{self.name}"

    def packages(self, place: Workplace) -> Path:
        return environments.ready(self.packaged or self.name, place.root / "venvs")

    def target(self, place: Workplace, port: int) -> Target:  # noqa: ARG002
        return target(self, port, [probe(self.model)])

    def request(self, asked: Asked) -> bytes:
        """The client puts the prefix before the text, as T5's model card has it."""
        body = {"text": self.model.prefix + asked.text, "parameters": asked.parameters}
        return post_request(self.path, json.dumps(body).encode(), "application/json")


class FastApi(TextPeer):
    """`async def`, so one request at a time. An endpoint that blocks for seconds must not cost idle connections."""

    packaged = "fastapi"
    files = "text-fastapi"
    warm = 1

    def __init__(self, model: TextModel, name: str, precision: str, dtype: str) -> None:
        super().__init__(model)
        self.name, self.title, self._dtype = name, f"FastAPI, generate(), {precision}", dtype

    def commands(self, stage: Stage) -> list[list[str]]:
        command = [str(stage.bin / "uvicorn"), "app:app", "--host", "127.0.0.1", "--port", str(stage.port)]
        return [[*command, "--timeout-keep-alive", "900"]]

    def environment(self, stage: Stage) -> Mapping[str, str]:  # noqa: ARG002
        return {"DTYPE": self._dtype}


class MlServer(TextPeer):
    name = "mlserver"
    title = "MLServer, adaptive batching"
    path = "/v2/models/summarizer/infer"

    def commands(self, stage: Stage) -> list[list[str]]:
        return [[str(stage.bin / "mlserver"), "start", "."]]

    def environment(self, stage: Stage) -> Mapping[str, str]:
        return serving_environment(stage)

    def request(self, asked: Asked) -> bytes:
        columns = {"text": self.model.prefix + asked.text, "parameters": json.dumps(asked.parameters)}
        tensor = {"shape": [1, 1], "datatype": "BYTES", "parameters": {"content_type": "str"}}
        body = {"inputs": [{"name": name, "data": [value], **tensor} for name, value in columns.items()]}
        return post_request(self.path, json.dumps(body).encode(), "application/json")


class LitServe(TextPeer):
    name = "litserve"
    title = "LitServe, batching"

    def commands(self, stage: Stage) -> list[list[str]]:
        return [[str(stage.bin / "python"), "app.py"]]
