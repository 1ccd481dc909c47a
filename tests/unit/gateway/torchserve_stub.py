"""A fake TorchServe with models that may be busy, broken or absent."""

from typing import Any

import httpx

from tests.unit.client.fake_torchserve import FakeTorchServe, Refused

INPUT = {"name": "image", "datatype": "BYTES", "shape": [-1]}


class TorchServeStub(FakeTorchServe):
    """A fake TorchServe. `failing`: errors of predictions, by model. `tasks`: metadata, by model."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[str, Refused | Exception] = {}
        self.tasks: dict[str, Any] = {"images": "image-classification", "texts": "summarization"}
        self.waiting = 0
        self.describing: Exception | None = None

    def handle_rest(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v2":
            return httpx.Response(200, json={"name": "Torchserve", "version": "0.12.0", "extenstion": []})
        parts = request.url.path.split("/")
        failure = self.failing.get(parts[2]) if parts[1] == "predictions" else None
        if parts[1] == "models" and self.describing:
            failure = self.describing
        if isinstance(failure, Refused):
            return httpx.Response(failure.value["code"], json=failure.value)
        if failure:
            raise failure
        return super().handle_rest(request)

    def describe(self, model: str, version: str, customized: bool) -> list[dict[str, Any]]:
        versions = super().describe(model, version, customized)
        queue = {"remainingCapacity": 0, "pendingRequests": self.waiting}
        metadata = {"task": self.tasks.get(model), "inputs": [INPUT], "outputs": [], "parameters": []}
        extra = {"customizedMetadata": metadata} if customized else {}
        # The first of the two versions is the default; the other one needs no worker.
        none = {"minWorkers": 0, "workers": []}
        return [
            entry | {"jobQueueStatus": queue} | extra | (none if entry["modelVersion"] == "2.0" else {})
            for entry in versions
        ]

    def _native(self, model: str, request: httpx.Request) -> Any:
        if b'"num_beams":1' in request.content:  # the question, whose parameters the simple model has not
            return [{"summary_text": "yes"}]
        return super()._native(model, request)
