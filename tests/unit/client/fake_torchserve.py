"""A fake of TorchServe's REST API with two small models, "images" and "texts"."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import httpx

NO_WORKER = (
    'Model "{}" has no worker to serve inference request. Please use scale workers API to add workers.'
)
METRICS = b"""# HELP handler_requests_total Requests
# TYPE handler_requests_total counter
handler_requests_total{ModelName="images",Hostname="here",} 3.0
handler_requests_total{ModelName="texts",Hostname="here",} 4.0
# HELP handler_batch_size Batch
# TYPE handler_batch_size histogram
handler_batch_size_bucket{ModelName="images",le="+Inf",} 2.0
handler_batch_size_count{ModelName="images",} 2.0
handler_batch_size_sum{ModelName="images",} 3.0
"""


class Refused(Exception):
    """An error answer: code, type and message."""

    def __init__(self, code: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.value = {"code": code, "type": kind, "message": message}


def predict(model: str, payloads: list[bytes], parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the native JSON answer, whose values depend on every part of the request."""
    if model == "busy":
        raise Refused(503, "ServiceUnavailableException", NO_WORKER.format(model))
    if model == "dying":
        raise Refused(500, "InternalServerException", "Worker died.")
    if model not in ("images", "texts"):
        raise Refused(404, "ModelNotFoundException", f"Model not found: {model}")
    known = {"top_k": int, "min_length": int, "length_penalty": float, "truncation": bool, "strategy": str}
    for name, value in parameters.items():
        if name not in known or type(value) is not known[name]:
            raise Refused(400, "InvalidParameter", f"{name}={value!r} is no parameter")
    if model == "texts":
        note = json.dumps(parameters, sort_keys=True)
        return [{"summary_text": f"{p.decode()} {note}"} | _truncated(p) for p in payloads]
    if payloads[0].startswith(b"bad"):
        raise Refused(400, "InvalidImage", "these bytes are no image")
    scores = [0.5, 0.25, 0.125][: parameters.get("top_k", 3)]
    return [{"label": f"{len(payloads[0])} bytes, {score}", "score": score} for score in scores]


def _truncated(text: bytes) -> dict[str, bool]:
    return {"truncated": True} if len(text) > 100 else {}


def tensors(model: str, answer: list[dict[str, Any]]) -> list[dict[str, Any]]:
    size = len(answer)
    if model == "texts":
        return [
            {
                "name": "summary_text",
                "datatype": "BYTES",
                "shape": [size],
                "data": [a["summary_text"] for a in answer],
            },
            {
                "name": "truncated",
                "datatype": "BOOL",
                "shape": [size],
                "data": ["truncated" in a for a in answer],
            },
        ]
    return [
        {"name": "label", "datatype": "BYTES", "shape": [1, size], "data": [a["label"] for a in answer]},
        {"name": "score", "datatype": "FP32", "shape": [1, size], "data": [a["score"] for a in answer]},
    ]


@dataclass
class Version:
    """A registered version: its archive, the limits of its worker count, and its worker process ids."""

    url: str
    min_workers: int = 1
    max_workers: int = 1
    pids: list[int] = field(default_factory=lambda: [4711])


def description(model: str, name: str, version: Version, status: str, waiting: int) -> dict[str, Any]:
    workers = [
        {"id": str(9000 + index), "startTime": "2026-01-01T00:00:00.000Z", "status": status,
         "memoryUsage": 1048576, "pid": pid, "gpu": False, "gpuUsage": "N/A"}
        for index, pid in enumerate(version.pids)
    ]  # fmt: skip
    return {"modelName": model, "modelVersion": name, "modelUrl": version.url, "runtime": "python",
            "minWorkers": version.min_workers, "maxWorkers": version.max_workers, "batchSize": 8,
            "maxBatchDelay": 1, "responseTimeout": 60, "startupTimeout": 120, "deviceType": "cpu",
            "loadedAtStartup": True, "workers": workers,
            "jobQueueStatus": {"remainingCapacity": 99, "pendingRequests": waiting}}  # fmt: skip


class FakeTorchServe:
    """A fake TorchServe with a supervisor.

    Attributes:
        received: Calls in order: REST as (method, path with query), gRPC as the method's name.
        headers: Headers of each REST request.
        inputs: Input map of each gRPC prediction.
        metadata: Metadata of each gRPC prediction.
        state: Returns the supervisor's `/state`; None if no supervisor answers.
    """

    def __init__(self, status: str = "READY", models: int = 2) -> None:
        self.status = status
        self.loading = 0  # descriptions left that say that the workers still load
        self.queued = 0  # descriptions left that say that requests are queued
        self.dies_at_load = False  # the process of a new worker changes with each description
        self.registers_as: str | None = None  # name of the model in the archive, if not the file's
        self.registers_version: str | None = None  # version in the archive, if not the next one
        self.new_workers = 1
        self.takes_holds = False  # whether the supervisor knows POST /workers/PID/hold
        self.asked_to_hold: list[int] = []
        self.customized = 0  # describe calls that were sent to a worker
        self.failing_scales = 0  # scale calls left that are answered with 500, as TorchServe does in a race
        self.deaths: list[bool] = []  # whether the next predictions over gRPC end their worker
        self.state: Callable[[], Any] | None = None
        self.unready: int | None = None  # probes left that the supervisor answers with 503; None: 404
        self.on_readiness: Callable[[], Any] = lambda: None
        self.headers: list[httpx.Headers] = []
        self.inputs: list[dict[str, bytes]] = []
        self.metadata: list[dict[str, Any]] = []
        self.names = sorted(["images", "texts", *(f"model-{index}" for index in range(models - 2))])[:models]
        self.versions = {
            name: {version: Version(f"{name}.mar") for version in ("1.0", "2.0")} for name in self.names
        }
        self.defaults = dict.fromkeys(self.names, "1.0")
        self.received: list[Any] = []

    def handle_rest(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.received.append((request.method, request.url.raw_path.decode()))
        self.headers.append(request.headers)
        try:
            return self._route(request, path.split("/")[1:])
        except Refused as error:
            extra = (
                {"error": error.value["message"]}
                if path.startswith("/v2") and error.value["code"] < 404
                else {}
            )
            return httpx.Response(error.value["code"], json=extra | error.value)

    def _route(self, request: httpx.Request, path: list[str]) -> httpx.Response:
        query = {name: values[0] for name, values in parse_qs(request.url.query.decode()).items()}
        match request.method, path:
            case "GET", ["ping"]:
                return httpx.Response(200, json={"status": "Healthy"})
            case "GET", ["v2", "health", what]:
                return httpx.Response(200, json={what: True})
            case "GET", ["metrics"]:
                return httpx.Response(200, content=METRICS)
            case "POST", ["predictions", model, *_]:
                return httpx.Response(200, json=self._native(model, request))
            case "POST", ["v2", "models", model, "infer"]:
                return httpx.Response(200, json=self._open_inference(model, request))
            case "GET", ["models"]:
                return httpx.Response(200, json=self.page(int(query["limit"]), int(query["next_page_token"])))
            case "GET", ["models", model, *version]:
                return httpx.Response(200, json=self.describe(model, "".join(version), "customized" in query))
            case "GET", ["readyz", *_] if self.unready is not None:
                self.on_readiness()
                self.unready -= 1
                ready = self.unready < 0
                return httpx.Response(200 if ready else 503, json={"ready": ready})
            case "GET", ["state"] if self.state:
                return httpx.Response(200, json=self.state())
            case "POST", ["workers", pid, "hold"] if self.takes_holds:
                self.asked_to_hold.append(int(pid))
                return httpx.Response(202, json={"held": True})
            case "PUT", ["models", model, version, "set-default"]:
                return httpx.Response(200, json={"status": self.set_default(model, version)})
            case "PUT", ["models", model, *version]:
                assert query["synchronous"] == "false"
                workers = (int(query["min_worker"]), int(query["max_worker"]))
                return httpx.Response(202, json={"status": self.scale(model, "".join(version), workers)})
            case "POST", ["models"]:
                assert query["synchronous"] == "false"
                return httpx.Response(
                    202, json={"status": self.register(query["url"], query.get("model_name"))}
                )
            case "DELETE", ["models", model, *version]:
                return httpx.Response(200, json={"status": self.unregister(model, "".join(version))})
        raise Refused(
            404, "ResourceNotFoundException", "Requested resource is not found, please refer to API document."
        )

    def _native(self, model: str, request: httpx.Request) -> Any:
        if request.headers["content-type"] != "application/json":
            return predict(model, [request.content], {})
        message = json.loads(request.content)
        inputs = message["inputs"] if isinstance(message["inputs"], list) else [message["inputs"]]
        payloads = [base64.b64decode(i) if model == "images" else i.encode() for i in inputs]
        return predict(model, payloads, message.get("parameters", {}))

    def _open_inference(self, model: str, request: httpx.Request) -> Any:
        message = json.loads(request.content)
        (tensor,) = message["inputs"]
        assert tensor["datatype"] == "BYTES"
        assert tensor["shape"] == [len(tensor["data"])]
        is_image = tensor["name"] == "image"
        payloads = [base64.b64decode(item) if is_image else item.encode() for item in tensor["data"]]
        outputs = tensors(model, predict(model, payloads, message.get("parameters", {})))
        return {"id": message.get("id", ""), "model_name": model, "model_version": "1.0", "outputs": outputs}

    def page(self, limit: int, token: int) -> dict[str, Any]:
        names, last = self.names[token : token + limit], token + limit
        following = {"nextPageToken": str(last)} if last <= len(self.names) else {}
        return following | {"models": [{"modelName": name, "modelUrl": f"{name}.mar"} for name in names]}

    def find(self, model: str, version: str) -> str:
        """Return a version, the default one for ""."""
        if model not in self.versions:
            raise Refused(404, "ModelNotFoundException", f"Model not found: {model}")
        chosen = version or self.defaults[model]
        if chosen not in self.versions[model]:
            message = f"Model version: {version} does not exist for model: {model}"
            raise Refused(404, "ModelVersionNotFoundException", message)
        return chosen

    def describe(self, model: str, version: str, customized: bool) -> list[dict[str, Any]]:
        names = list(self.versions.get(model, ())) if version == "all" else []
        self.loading, self.queued = self.loading - 1, self.queued - 1
        status = "UNLOADING" if self.loading >= 0 or self.dies_at_load else self.status
        answer = []
        for name in names or [self.find(model, "" if version == "all" else version)]:
            described = self.versions[model][name]
            if self.dies_at_load:
                described.pids = [pid + 1 for pid in described.pids]
            answer.append(description(model, name, described, status, max(self.queued + 1, 0)))
            if customized:
                self.customized += 1
                answer[-1]["customizedMetadata"] = {"engine": "torch"}
        return answer

    def register(self, url: str, name: str | None) -> str:
        """Register an archive. Like TorchServe's, the message names model and version only after waiting."""
        model = name or self.registers_as or url.removesuffix(".mar")
        version = self.registers_version or f"{len(self.versions.get(model, ())) + 1}.0"
        if url == "twice.mar":
            raise Refused(409, "ConflictStatusException", "Model version 1.0 is already registered")
        pids = [4000 + index for index in range(self.new_workers)]
        self.versions.setdefault(model, {})[version] = Version(url, self.new_workers, self.new_workers, pids)
        self.defaults.setdefault(model, version)
        self.names = sorted({*self.names, model})
        return "Processing worker updates..."

    def scale(self, model: str, version: str, workers: tuple[int, int]) -> str:
        """Change the number of workers, also if the answer is 500."""
        scaled = self.versions[model][self.find(model, version)]
        scaled.min_workers, scaled.max_workers = workers
        started = list(range(5000, 5000 + max(0, workers[0] - len(scaled.pids))))
        scaled.pids = (scaled.pids + started)[: workers[1]]
        self.failing_scales -= 1
        if self.failing_scales >= 0:
            raise Refused(500, "InternalServerException", "java.util.ConcurrentModificationException")
        return "Processing worker updates..."

    def set_default(self, model: str, version: str) -> str:
        self.defaults[model] = self.find(model, version)
        return f"default of {model} is {version}"

    def unregister(self, model: str, version: str) -> str:
        removed = self.find(model, version)
        if removed == self.defaults[model] and len(self.versions[model]) > 1:
            raise Refused(403, "InvalidModelVersionException", "Cannot remove default version")
        del self.versions[model][removed]
        if not self.versions[model]:
            del self.versions[model], self.defaults[model]
            self.names.remove(model)
        return f"unregistered {model} {removed}"


@contextmanager
def over_http(answer: Callable[[httpx.Request], httpx.Response]) -> Iterator[int]:
    """Serve `answer` on a free port of a real socket and yield the port."""

    class Bridge(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            url = self.path if "://" in self.path else f"http://127.0.0.1{self.path}"  # whole for a proxy
            response = answer(httpx.Request(self.command, url, headers=dict(self.headers), content=body))
            self.send_response(response.status_code)
            self.send_header("content-length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        do_GET = do_POST = do_PUT = do_DELETE = handle_any

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bridge)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
