"""Bodies at the size limit that would expand when parsed: they are rejected, and their memory is freed."""

import concurrent.futures
import json
import time

import grpc
import httpx
import psutil
import pytest

from torchserve_models.client import Client
from torchserve_models.client._stubs import inference_pb2, inference_pb2_grpc
from training.images import draw_image

SIZE = 16_000_000
TEXT = "The new bridge over the Aller will open to traffic on Monday."
FORM = {
    "x-form-content-type": "application/x-www-form-urlencoded",
    "content-type": "application/octet-stream",
}
MULTIPART = {
    "x-form-content-type": "multipart/form-data; boundary=x",
    "content-type": "application/octet-stream",
}
JSON = {"content-type": "application/json"}
PART = b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n'


def filled(head, unit, tail=b""):
    return head + unit * ((SIZE - len(head) - len(tail)) // len(unit)) + tail


def rest_bodies():
    """Return route, headers and body of each request; the route contains {} for the model's name."""
    tensor = b'{"inputs":[{"name":"%b","shape":[1],"datatype":"%b","data":['
    return [
        ("/predictions/{}", JSON, filled(b'{"inputs":[', b"[],", b"0]}")),
        ("/predictions/{}", JSON, filled(b'{"inputs":"x","parameters":{"k":[', b"{},", b"0]}}")),
        ("/predictions/{}", JSON, filled(b'{"text":[', b'"ab",', b"0]}")),
        ("/v2/models/{}/infer", JSON, filled(tensor % (b"image", b"UINT8"), b"[],", b"0]}]}")),
        ("/v2/models/{}/infer", JSON, filled(tensor % (b"text", b"BYTES"), b'"ab",', b'"x"]}]}')),
        ("/predictions/{}", FORM, filled(b"text=a&k=[", b"[],", b"0]")),
        ("/predictions/{}", FORM, filled(b"text=", b"&a=")),
        ("/predictions/{}", MULTIPART, filled(PART % b"k" + b"[", b"[],", b"0]\r\n--x--")),
        ("/predictions/{}", MULTIPART, filled(b"--x\r\n", b"A: b\r\n", b"\r\n\r\n--x--")),
        ("/predictions/{}", {"content-type": "application/octet-stream"}, filled(b"", b"\xff\xfe")),
    ]


def workers(server, model):
    (described,) = httpx.get(f"{server.management}/models/{model}", timeout=30).json()
    return [psutil.Process(worker["pid"]) for worker in described["workers"]]


def good_request(server, model):
    content = draw_image(5, 3)[1] if model == "resnet-50" else TEXT.encode()
    return httpx.post(f"{server.inference}/predictions/{model}", content=content, timeout=120)


def predictions(server, model, fields):
    """Return the answer of a gRPC call."""
    options = [("grpc.max_send_message_length", 2**26)]
    with grpc.insecure_channel(server.endpoints.grpc_inference, options=options) as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        request = inference_pb2.PredictionsRequest(model_name=model, input=fields)
        return json.loads(stub.Predictions(request, timeout=120).prediction)


def memory_returns_to(before, server, model, process):
    """Return whether the memory of the worker `process` returns to about `before` bytes while it answers."""
    deadline = time.monotonic() + 20
    while process.memory_info().rss > 1.1 * before + 20_000_000:
        assert good_request(server, model).status_code == 200
        if time.monotonic() > deadline:
            return False
    return True


@pytest.mark.parametrize(
    "model", ["resnet-50", "t5-small", pytest.param("bart-large-cnn", marks=pytest.mark.slow)]
)
def test_hostile_bodies_use_bounded_memory(server, model):
    (process,) = workers(server, model)
    for _ in range(3):
        assert good_request(server, model).status_code == 200
    before = process.memory_info().rss
    peak = before
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for route, headers, body in rest_bodies():
            url = f"{server.inference}{route.format(model)}"
            sent = [
                pool.submit(httpx.post, url, content=body, headers=headers, timeout=120) for _ in range(8)
            ]
            assert good_request(server, model).status_code == 200
            while not all(request.done() for request in sent):
                peak = max(peak, process.memory_info().rss)
                time.sleep(0.02)
            statuses = {request.result().status_code for request in sent}
            assert statuses <= {400, 413, 503}, (route, headers, statuses)
    # TorchServe's worker code keeps the bodies of a batch while it receives the next one.
    assert peak - before < 16 * SIZE + 250_000_000
    assert memory_returns_to(before, server, model, process), process.memory_info().rss
    assert workers(server, model) == [process]


def test_hostile_grpc_calls_use_bounded_memory(server):
    (process,) = workers(server, "t5-small")
    assert good_request(server, "t5-small").status_code == 200
    before = process.memory_info().rss
    hostile = {"text": b"a", "parameters": filled(b'{"k":[', b"{},", b"0]}")}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: predictions(server, "t5-small", hostile), range(8)))
    assert {answer["code"] for answer in answers} <= {400, 503}
    assert good_request(server, "t5-small").status_code == 200
    assert memory_returns_to(before, server, "t5-small", process), process.memory_info().rss


def test_request_with_a_passed_deadline_is_504(server):
    url = f"{server.inference}/predictions/resnet-50"
    image = draw_image(5, 3)[1]
    before = count_skipped(server)
    start = {"X-Request-Start": f"{time.time() - 10:.3f}"}
    answer = httpx.post(url, content=image, headers=start | {"X-Request-Timeout": "5"}, timeout=60)
    assert (answer.status_code, answer.json()["type"]) == (504, "DeadlineExceeded")
    assert httpx.post(url, content=image, headers=start, timeout=60).status_code == 200
    assert httpx.post(url, content=image, headers={"X-Request-Timeout": "50"}, timeout=60).status_code == 200
    invalid = httpx.post(url, content=image, headers={"X-Request-Timeout": "soon"}, timeout=60)
    assert (invalid.status_code, invalid.json()["type"]) == (400, "InvalidRequest")
    fields = {"image": image, "x-request-timeout": b"50"}
    assert predictions(server, "resnet-50", fields)[0]["label"]
    late = predictions(server, "resnet-50", fields | {"x-request-timeout": b"0"})
    assert (late["code"], late["type"]) == (504, "DeadlineExceeded")
    end = time.monotonic() + 20
    while count_skipped(server) < before + 2:
        assert time.monotonic() < end
        time.sleep(0.2)


def count_skipped(server):
    """Return the number of requests to resnet-50 that were skipped because of their deadline."""
    with Client(endpoints=server.endpoints) as client:
        metrics = client.metrics(["handler_skipped_requests_total"])
    return metrics.total("handler_skipped_requests_total", ModelName="resnet-50", Reason="deadline")
