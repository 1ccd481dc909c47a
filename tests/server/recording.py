"""Record the requests that a real TorchServe passes to a handler, for each form in which clients send them.

`python -m tests.server.recording` writes tests/unit/handlers/recorded_requests.json. Unit tests take their requests
from that file; tests/server/test_recorded_requests.py checks that TorchServe still passes on the same.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc

from tests.conftest import ROOT
from tests.faults.toys import toy
from tests.server.fronted import in_front_of
from torchserve_models import serving
from torchserve_models.client._stubs import (
    inference_pb2,
    inference_pb2_grpc,
    open_inference_grpc_pb2,
    open_inference_grpc_pb2_grpc,
)

FILE = ROOT / "tests" / "unit" / "handlers" / "recorded_requests.json"
MODEL = "echo"
VARIABLE_HEADERS = {"host", "user-agent", "x-request-id", "x-request-start", "x-edge-id"}
BOUNDARY = re.compile("-{24}[0-9a-f]{16}")
"""The boundary of curl's multipart forms."""

ECHO = """
import json
from ts.service import Service

retrieve, batches = Service.retrieve_data_for_inference, []

def keep(batch):
    batches[:] = batch
    return retrieve(batch)

def shown(request):
    fields = [[each["name"], each["contentType"], each["value"].decode("latin-1")] for each in request["parameters"]]
    headers = [[each["name"].decode(), each["value"].decode()] for each in request["headers"]]
    return {"parameters": fields, "headers": headers}

class Toy:
    def initialize(self, context):
        Service.retrieve_data_for_inference = staticmethod(keep)

    def handle(self, data, context):
        answers = []
        for index, request in enumerate(batches):
            seen = shown(request)
            if "explain" not in context.get_all_request_header(index):  # maybe TorchServe's ModelInfer
                output = {"name": "echo", "datatype": "BYTES", "shape": [1], "data": [json.dumps(seen)]}
                seen = {"id": "", "model_name": "echo", "model_version": "1.0", "outputs": [output]}
            answers.append(json.dumps(seen).encode())
        return answers
"""
"""A handler that answers with each request as the worker receives it, before TorchServe converts it."""

JSON = '{"inputs": "Rain fell.", "parameters": {"max_new_tokens": 3}}'
TENSORS = '{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["Rain fell."]}]}'
CAFE = "caf\udce9"
"""`café` in Latin-1 as a command-line argument."""
FORM = "Content-Type: application/x-www-form-urlencoded"
PREDICT = f"/predictions/{MODEL}"
INVOKE = f"/models/{MODEL}/invoke"
INFER = f"/v2/models/{MODEL}/infer"

CURL: dict[str, tuple[str, list[str]]] = {
    "json": (PREDICT, ["-H", "Content-Type: application/json", "-d", JSON]),
    "json with a charset": (PREDICT, ["-H", "Content-Type: application/json; charset=utf-16le", "-d", JSON]),
    "json that curl calls a form": (PREDICT, ["-d", JSON]),
    "json without a content type": (PREDICT, ["-H", "Content-Type:", "-d", JSON]),
    "json as text/plain": (PREDICT, ["-H", "Content-Type: text/plain;charset=UTF-8", "-d", JSON]),
    "json as text/json": (PREDICT, ["-H", "Content-Type: text/json", "-d", JSON]),
    "json as application/jsonlines": (PREDICT, ["-H", "Content-Type: application/jsonlines", "-d", JSON]),
    "json with a merged content type": (
        PREDICT,
        ["-H", "Content-Type: application/json, application/json", "-d", JSON],
    ),
    "json with two content types": (
        PREDICT,
        ["-H", "Content-Type: application/json", "-H", "Content-Type: text/plain", "-d", JSON],
    ),
    "text": (PREDICT, ["-H", "Content-Type: text/plain", "-d", "Rain fell."]),
    "text with a charset": (
        PREDICT,
        ["-H", "Content-Type: text/plain; charset=iso-8859-1", "-d", "Rain fell."],
    ),
    "text without a content type": (PREDICT, ["-H", "Content-Type:", "-d", "Rain fell."]),
    "text that curl calls a form": (PREDICT, ["-d", "Rain fell."]),
    "text in latin-1": (PREDICT, ["-H", "Content-Type: text/plain; charset=iso-8859-1", "-d", CAFE]),
    "multipart": (PREDICT, ["-F", "text=Rain fell.", "-F", "max_new_tokens=3"]),
    "multipart file": (PREDICT, ["-F", "text=Rain fell.;filename=rain.txt;type=text/plain"]),
    "multipart part of json": (PREDICT, ["-F", f"text={JSON};type=application/json"]),
    "multipart file of json": (PREDICT, ["-F", f"file={JSON};filename=a.json;type=application/json"]),
    "multipart part in latin-1": (PREDICT, ["-F", f"text={CAFE};type=text/plain;charset=iso-8859-1"]),
    "multipart file in latin-1": (
        PREDICT,
        ["-F", f"text={CAFE};filename=a.txt;type=text/plain;charset=iso-8859-1"],
    ),
    "multipart with a charset field": (PREDICT, ["-F", "_charset_=iso-8859-1", "-F", f"text={CAFE}"]),
    "multipart field named body": (PREDICT, ["-F", f"body={JSON};type=application/json"]),
    "multipart field named inputs": (PREDICT, ["-F", "inputs=Rain fell.", "-F", 'parameters={"top_k": 3}']),
    "multipart field twice": (PREDICT, ["-F", "text=Rain fell.", "-F", "text=Sun shone."]),
    "multipart file twice": (
        PREDICT,
        ["-F", "file=Rain fell.;filename=a.txt", "-F", "file=Sun shone.;filename=b.txt"],
    ),
    "multipart parameter twice": (
        PREDICT,
        ["-F", "text=Rain fell.", "-F", "num_beams=1", "-F", "num_beams=2"],
    ),
    "form": (PREDICT, ["--data-urlencode", "text=Rain fell.", "-d", "max_new_tokens=3"]),
    "form of json": (PREDICT, ["--data-urlencode", f"text={JSON}"]),
    "form in latin-1": (PREDICT, ["-H", f"{FORM}; charset=iso-8859-1", "-d", "text=caf%E9"]),
    "form with an ampersand": (PREDICT, ["-d", "text=AT&T rose."]),
    "form with a line break": (PREDICT, ["--data-binary", "text=Rain fell.\nSun shone."]),
    "form that begins with a brace": (PREDICT, ["-d", '{"inputs": "Fish &text=chips"}']),
    "form of prose": (PREDICT, ["-d", "Fish&chips"]),
    "form field twice": (PREDICT, ["-d", "text=Rain+fell.", "-d", "text=Sun+shone."]),
    "query": (f"{INVOKE}?max_new_tokens=3", ["-H", "Content-Type: text/plain", "-d", "Rain fell."]),
    "query parameter twice": (
        f"{INVOKE}?num_beams=1&num_beams=2",
        ["-H", "Content-Type: text/plain", "-d", "Rain fell."],
    ),
    "query of the prediction route": (
        f"{PREDICT}?num_beams=1&num_beams=2",
        ["-H", "Content-Type: text/plain", "-d", "Rain fell."],
    ),
    "query beside a form": (f"{INVOKE}?num_beams=1", ["-F", "text=Rain fell.", "-F", "num_beams=2"]),
    "query named body": (f"{INVOKE}?body=x", ["-H", "Content-Type: text/plain", "-d", "Rain fell."]),
    "open inference": (INFER, ["-H", "Content-Type: application/json", "-d", TENSORS]),
    "open inference without a content type": (INFER, ["-H", "Content-Type:", "-d", TENSORS]),
    "open inference that curl calls a form": (INFER, ["-d", TENSORS]),
    "open inference on the prediction route": (
        PREDICT,
        ["-H", "Content-Type: application/json", "-d", TENSORS],
    ),
    "nothing": (PREDICT, ["-X", "POST", "-H", "Content-Length: 0"]),
}
"""Path and curl's options of each case."""

PREDICTIONS: dict[str, dict[str, bytes]] = {
    "grpc": {"text": b"Rain fell.", "max_new_tokens": b"3"},
    "grpc json": {"text": JSON.encode()},
    "grpc json in data": {"data": JSON.encode()},
    "grpc json in body": {"body": JSON.encode()},
    "grpc inputs and parameters": {"inputs": b"Rain fell.", "parameters": b'{"max_new_tokens": 3}'},
}
"""Input maps of TorchServe's gRPC `Predictions`."""


def record(direct: str, proxied: str, grpc_address: str) -> dict[str, Any]:
    """Return the worker's `parameters` (name, type, bytes as Latin-1) and `headers` by name of the case."""
    answers: dict[str, Any] = {}
    for name, (path, options) in CURL.items():
        answers[name] = _curl(direct + path, options)
        answers[f"{name}, through nginx"] = _curl(proxied + path.replace(INVOKE, PREDICT), options)
    with grpc.insecure_channel(grpc_address) as channel:
        predictions = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        for name, fields in PREDICTIONS.items():
            request = inference_pb2.PredictionsRequest(model_name=MODEL, input=fields)
            answers[name] = _read(predictions.Predictions(request, timeout=30).prediction)
        tensors = open_inference_grpc_pb2_grpc.GRPCInferenceServiceStub(channel)
        infer = open_inference_grpc_pb2.ModelInferRequest(model_name=MODEL, id="7")
        tensor = infer.inputs.add(name="text", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(b"Rain fell.")
        answer = tensors.ModelInfer(infer, timeout=30)
        answers["grpc open inference"] = _read(json.loads(answer.outputs[0].contents.bytes_contents[0]))
    return answers


def _curl(url: str, options: list[str]) -> dict[str, Any]:
    command = ["curl", "-sS", "-m", "30", "--fail-with-body", *options, url]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return _read(done.stdout)


def _read(answer: bytes | str) -> dict[str, Any]:
    """Return the recorded request without values that differ between runs."""
    value: dict[str, Any] = json.loads(answer)
    if "outputs" in value:
        return _read(value["outputs"][0]["data"][0])
    value["headers"] = sorted(pair for pair in value["headers"] if pair[0].lower() not in VARIABLE_HEADERS)
    value["parameters"].sort()
    fixed: dict[str, Any] = json.loads(BOUNDARY.sub("-" * 40, json.dumps(value)))
    return fixed


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, run_dir = Path(folder, "store"), Path(folder, "run")
        store.mkdir()
        names = [toy(store, MODEL, ECHO)]
        with (
            serving.start(names, pack=False, run_dir=run_dir, store=store) as server,
            in_front_of(server.endpoints, text_models=(MODEL,)) as front,
        ):
            answers = record(server.inference, front.url, server.grpc_inference)
    FILE.write_text(json.dumps(answers, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
