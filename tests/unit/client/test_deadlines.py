"""The remaining time, headers and request id that are sent with a prediction."""

import time

import httpx
import pytest

from torchserve_models.client import Endpoints, InvalidRequest, ModelNotFound, Tensor, Timeout, Unavailable
from torchserve_models.client.deadlines import deadline_fields

PREDICTIONS = [
    lambda c, **extra: c.classify("images", b"x", **extra),
    lambda c, **extra: c.summarize("texts", "x", **extra),
]


def infer(c, **extra):
    return c.infer("texts", [Tensor("text", "BYTES", (1,), ("x",))], **extra)


@pytest.mark.parametrize("protocol", ["rest", "open-inference"])
@pytest.mark.parametrize("operation", [*PREDICTIONS, infer])
def test_rest_sends_time_left(call, connection, fake, protocol, operation):
    call(lambda c: operation(c, timeout=7), protocol=protocol, **connection)
    (headers,) = fake.headers
    assert 5 < float(headers["x-request-timeout"]) <= 7
    assert abs(float(headers["x-request-start"]) - time.time()) < 60


@pytest.mark.parametrize("operation", PREDICTIONS)
def test_grpc_sends_time_left_in_input_map(call, connection, fake, operation):
    call(lambda c: operation(c, timeout=7), protocol="grpc", **connection)
    (entries,) = fake.inputs
    assert 5 < float(entries["x-request-timeout"]) <= 7
    assert abs(float(entries["x-request-start"]) - time.time()) < 60


@pytest.mark.parametrize("operation", PREDICTIONS)
def test_sending_the_deadline_can_be_switched_off(call, connection, fake, operation):
    call(operation, send_deadline=False, **connection)
    call(operation, protocol="grpc", send_deadline=False, **connection)
    assert not any(name.startswith("x-request") for name in fake.headers[0])
    assert list(fake.inputs[0]) == ["data"]


def test_only_predictions_carry_the_deadline(call, connection, fake):
    call(lambda c: c.describe("texts"), **connection)
    call(lambda c: c.live(), **connection)
    assert not any(name.startswith("x-request") for headers in fake.headers for name in headers)


def test_each_attempt_sends_less_time_left(call):
    def refuse(request):
        left.append(float(request.headers["x-request-timeout"]))
        return httpx.Response(503, json={"code": 503, "type": "Overloaded", "message": "full"})

    left = []
    with pytest.raises(Exception, match="full"):
        call(lambda c: c.classify("m", b"x", timeout=9), transport=httpx.MockTransport(refuse), retries=2)
    assert 9 >= left[0] > left[1] > left[2] > 5


def test_start_time_is_not_sent_to_another_machine():
    assert deadline_fields("http://10.0.0.7:8080", 5.0) == {"x-request-timeout": "5.000"}
    assert deadline_fields("server.invalid:7070", 1e-9) == {"x-request-timeout": "0.001"}
    assert list(deadline_fields("127.0.0.1:7070", 5.0)) == ["x-request-timeout", "x-request-start"]


@pytest.mark.parametrize("protocol", ["rest", "grpc", "open-inference"])
def test_caller_headers_are_sent(call, connection, fake, protocol):
    headers = {"X-Request-Id": "order-7", "Authorization": "Bearer key"}
    call(lambda c: c.summarize("texts", "x", headers=headers), protocol=protocol, **connection)
    (sent,) = fake.metadata if protocol == "grpc" else fake.headers
    assert sent["x-request-id"] == "order-7"
    assert sent["authorization"] == "Bearer key"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Host": "elsewhere"},
        {"X-Request-Timeout": "5"},
        {"grpc-timeout": "5S"},
        {"a b": "x"},
        {"x-note": "two\r\nlines"},
        {"x-note": "é"},
        {"x-note": 7},
    ],
)
def test_invalid_header_is_rejected(call, connection, fake, headers):
    with pytest.raises(InvalidRequest):
        call(lambda c: c.classify("images", b"x", headers=headers), **connection)
    assert fake.received == []


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_error_has_request_id_that_was_sent(call, connection, protocol):
    headers = {"X-Request-Id": "order-7"}
    with pytest.raises(ModelNotFound) as caught:
        call(lambda c: c.classify("absent", b"x", headers=headers), protocol=protocol, **connection)
    assert caught.value.request_id == "order-7"
    with pytest.raises(Unavailable) as lost:
        call(
            lambda c: c.classify("absent", b"x", headers=headers),
            endpoints=Endpoints.at(inference_port=1, grpc_port=1),
            protocol=protocol,
            retries=0,
        )
    assert lost.value.request_id == "order-7"


def test_call_timeout_overrides_client_timeout(call):
    def wait(request):
        raise httpx.ReadTimeout("late", request=request)

    with pytest.raises(Timeout, match=r"no answer within 0\.25 s"):
        call(lambda c: c.classify("m", b"x", timeout=0.25), transport=httpx.MockTransport(wait))
