"""What TorchServe answers over REST, around two small models: "pictures" and "texts"."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote

import httpx

NO_WORKER = (
    'Model "{}" has no worker to serve inference request. Please use scale workers API to add workers.'
)
METRICS = b"""# HELP handler_requests_total Requests
# TYPE handler_requests_total counter
handler_requests_total{ModelName="pictures",Hostname="here",} 3.0
handler_requests_total{ModelName="texts",Hostname="here",} 4.0
# HELP handler_batch_size Batch
# TYPE handler_batch_size histogram
handler_batch_size_bucket{ModelName="pictures",le="+Inf",} 2.0
handler_batch_size_count{ModelName="pictures",} 2.0
handler_batch_size_sum{ModelName="pictures",} 3.0
"""


class Refused(Exception):
    """An error answer: code, type and message."""

    def __init__(self, code: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.value = {"code": code, "type": kind, "message": message}


def predict(model: str, payloads: list[bytes], parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """The native JSON answer. Its values depend on all that a request says, so that nothing can get lost unseen."""
    if model == "busy":
        raise Refused(503, "ServiceUnavailableException", NO_WORKER.format(model))
    if model == "dying":
        raise Refused(500, "InternalServerException", "Worker died.")
    if model not in ("pictures", "texts"):
        raise Refused(404, "ModelNotFoundException", f"Model not found: {model}")
    known = {"top_k": int, "min_length": int, "length_penalty": float, "truncation": bool, "strategy": str}
    for name, value in parameters.items():
        if name not in known or type(value) is not known[name]:
            raise Refused(400, "InvalidParameter", f"{name}={value!r} is no parameter")
    if model == "texts":
        note = json.dumps(parameters, sort_keys=True)
        return [{"summary_text": f"{p.decode()} {note}"} | _truncated(p) for p in payloads]
    if payloads[0].startswith(b"bad"):
        raise Refused(400, "InvalidImage", "these bytes are no picture")
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


def description(
    model: str, version: str = "1.0", status: str = "READY", customized: bool = False
) -> dict[str, Any]:
    if model == "absent":
        raise Refused(404, "ModelNotFoundException", f"Model not found: {model}")
    worker = {"id": "9000", "startTime": "2026-01-01T00:00:00.000Z", "status": status, "memoryUsage": 1048576,
              "pid": 4711, "gpu": False, "gpuUsage": "N/A"}  # fmt: skip
    value = {"modelName": model, "modelVersion": version, "modelUrl": f"{model}.mar", "runtime": "python",
             "minWorkers": 1, "maxWorkers": 1, "batchSize": 8, "maxBatchDelay": 1, "responseTimeout": 60,
             "startupTimeout": 120, "deviceType": "cpu", "loadedAtStartup": True, "workers": [worker],
             "jobQueueStatus": {"remainingCapacity": 99, "pendingRequests": 1}}  # fmt: skip
    return value | ({"customizedMetadata": {"engine": "torch"}} if customized else {})


class FakeTorchServe:
    """`seen` holds what arrived: REST as (method, path with query), gRPC as the method's name."""

    def __init__(self, status: str = "READY", models: int = 2) -> None:
        self.status = status
        self.min_workers = 1
        self.loading = 0  # so many descriptions more will say that the workers still load
        self.names = sorted(["pictures", "texts", *(f"model-{index}" for index in range(models - 2))])[
            :models
        ]
        self.seen: list[Any] = []

    def rest(self, request: httpx.Request) -> httpx.Response:
        path = unquote(request.url.path)
        self.seen.append((request.method, request.url.raw_path.decode()))
        try:
            return self._rest(request, path.split("/")[1:])
        except Refused as error:
            extra = (
                {"error": error.value["message"]}
                if path.startswith("/v2") and error.value["code"] < 404
                else {}
            )
            return httpx.Response(error.value["code"], json=extra | error.value)

    def _rest(self, request: httpx.Request, path: list[str]) -> httpx.Response:
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
            case "GET", ["models", model, *rest]:
                return httpx.Response(
                    200, json=self.describe(model, rest[0] if rest else "", "customized" in query)
                )
            case "PUT", ["models", model, version, "set-default"]:
                return httpx.Response(200, json={"status": f"default of {model} is {version}"})
            case "PUT", ["models", model, *version]:
                return httpx.Response(
                    202, json={"status": f"scaled {model} {version} {sorted(query.items())}"}
                )
            case "POST", ["models"]:
                if query["url"] == "twice.mar":
                    raise Refused(409, "ConflictStatusException", "Model version 1.0 is already registered")
                return httpx.Response(
                    200, json={"status": self.registered(query["url"], sorted(query.items()))}
                )
            case "DELETE", ["models", model, *version]:
                return httpx.Response(200, json={"status": f"unregistered {model} {version}"})
        raise Refused(
            404, "ResourceNotFoundException", "Requested resource is not found, please refer to API document."
        )

    def _native(self, model: str, request: httpx.Request) -> Any:
        if request.headers["content-type"] != "application/json":
            return predict(model, [request.content], {})
        message = json.loads(request.content)
        inputs = message["inputs"] if isinstance(message["inputs"], list) else [message["inputs"]]
        payloads = [base64.b64decode(i) if model == "pictures" else i.encode() for i in inputs]
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

    def describe(self, model: str, version: str, customized: bool) -> list[dict[str, Any]]:
        versions = ["1.0", "2.0"] if version == "all" else [version or "1.0"]
        self.loading -= 1
        status = "UNLOADING" if self.loading >= 0 else self.status
        return [
            description(model, v, status, customized) | {"minWorkers": self.min_workers} for v in versions
        ]

    def registered(self, url: str, details: Any) -> str:
        """The beginning is TorchServe's sentence, with the name that an archive has by our convention."""
        name = url.removesuffix(".mar")
        return f'Model "{name}" Version: 1.0 registered with 1 initial workers {url} {details}'


@contextmanager
def over_http(answer: Callable[[httpx.Request], httpx.Response]) -> Iterator[int]:
    """Serves `answer` on a free port of a real socket; gives the port."""

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
