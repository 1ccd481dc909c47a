"""Bodies at the size limit that would expand many times, to every parsing route: refused, forgotten, and harmless."""

import concurrent.futures
import json
import time

import grpc
import httpx
import psutil
import pytest

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
    """Route, headers and body of requests to a model named {}."""
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
    """One gRPC call; the body of its answer."""
    options = [("grpc.max_send_message_length", 2**26)]
    with grpc.insecure_channel(server.endpoints.grpc_inference, options=options) as channel:
        stub = inference_pb2_grpc.InferenceAPIsServiceStub(channel)
        request = inference_pb2.PredictionsRequest(model_name=model, input=fields)
        return json.loads(stub.Predictions(request, timeout=120).prediction)


def settled(server, model, process, before):
    """Whether the worker's memory returns to where it was, while it answers."""
    deadline = time.monotonic() + 20
    while process.memory_info().rss > 1.1 * before + 20_000_000:
        assert good_request(server, model).status_code == 200
        if time.monotonic() > deadline:
            return False
    return True


@pytest.mark.parametrize("model", ["resnet-50", "t5-small", "bart-large-cnn"])
def test_hostile_bodies_do_no_harm(server, model):
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
            while not all(each.done() for each in sent):
                peak = max(peak, process.memory_info().rss)
                time.sleep(0.02)
            statuses = {each.result().status_code for each in sent}
            assert statuses <= {400, 413, 503}, (route, headers, statuses)
    # TorchServe's worker code keeps the bodies of a batch while it receives the next one.
    assert peak - before < 16 * SIZE + 250_000_000
    assert settled(server, model, process, before), (before, process.memory_info().rss)
    assert workers(server, model) == [process]


def test_hostile_grpc_calls_do_no_harm(server):
    (process,) = workers(server, "t5-small")
    assert good_request(server, "t5-small").status_code == 200
    before = process.memory_info().rss
    hostile = {"text": b"a", "parameters": filled(b'{"k":[', b"{},", b"0]}")}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: predictions(server, "t5-small", hostile), range(8)))
    assert {answer["code"] for answer in answers} <= {400, 503}
    assert good_request(server, "t5-small").status_code == 200
    assert settled(server, "t5-small", process, before), (before, process.memory_info().rss)


def test_a_deadline_that_has_passed_is_answered_504(server):
    url = f"{server.inference}/predictions/resnet-50"
    image = draw_image(5, 3)[1]
    before = skipped(server)
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
    while skipped(server) < before + 2:
        assert time.monotonic() < end
        time.sleep(0.2)


def skipped(server):
    """How many requests to resnet-50 were not begun for their deadline."""
    lines = httpx.get(server.metrics + "/metrics", timeout=30).text.splitlines()
    name = 'handler_skipped_requests_total{ModelName="resnet-50",Reason="deadline"'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))
