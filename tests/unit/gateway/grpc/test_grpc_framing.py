"""Frames and deadlines of gRPC requests."""

import asyncio

import httpx
import pytest

from handlers.core.deadline import parse_timeout
from tests.unit.gateway.grpc.grpc_calls import PIXELS, call, frame, infer
from torchserve_models.client._stubs import open_inference_grpc_pb2 as messages
from torchserve_models.gateway.app import create_app
from torchserve_models.gateway.grpc.grpc_framing import parse_timeout_s
from torchserve_models.gateway.settings import GatewaySettings


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("99999999H", 1e6), ("1000001S", 1e6), ("12345678m", 12345.678), ("3M", 180), ("60000000u", 60)],
)
async def test_deadline_has_a_format_that_workers_accept(http, torchserve, timeout, seconds):
    """Include the very long deadlines that libraries send for "no deadline"."""
    _, status, details = await call(
        http, "ModelInfer", infer(raw=PIXELS.tobytes()), **{"grpc-timeout": timeout}
    )
    assert (status, details) == (0, "")
    assert parse_timeout(torchserve.requests[0].headers["x-request-timeout"]) == pytest.approx(seconds)


@pytest.mark.parametrize("timeout", ["0S", "1n", "50u"])
@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata"])
async def test_expired_deadline_ends_every_method(http, torchserve, monkeypatch, method, timeout):
    message = infer(raw=PIXELS.tobytes())
    if method == "ModelMetadata":
        message = messages.ModelMetadataRequest(name="images")
        monkeypatch.setattr(
            "torchserve_models.gateway.upstream.model_descriptions.ModelDescriptions.fetch",
            lambda *_: asyncio.sleep(60),
        )
    _, status, details = await call(http, method, message, **{"grpc-timeout": timeout})
    assert (status, "no answer within" in details) == (4, True)
    assert torchserve.requests == []


async def test_message_is_limited_to_16_mib(torchserve):
    app = create_app(GatewaySettings(max_body_bytes=48 * 2**20), httpx.MockTransport(torchserve.handle_rest))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        content = frame(bytes(17 * 2**20))
        _, status, details = await call(http, "ModelInfer", None, content)
        assert (status, details) == (8, "the body is larger than 16 MiB")
        message = infer(raw=b"")
        message.raw_input_contents[0] = bytes(2**24 - message.ByteSize() - 3)
        assert message.ByteSize() == 2**24
        _, status, details = await call(http, "ModelInfer", message)
    assert (status, details) == (8, "the tensors exceed 16 MiB")
    assert torchserve.requests == []


async def test_compressed_message_is_decompressed(http):
    content = frame(infer(raw=PIXELS.tobytes()).SerializeToString(), compressed=True)
    _, status, _ = await call(http, "ModelInfer", None, content, **{"grpc-encoding": "gzip"})
    assert status == 0
    bomb = frame(infer(raw=b"\0" * 20 * 2**20).SerializeToString(), compressed=True)
    _, status, details = await call(http, "ModelInfer", None, bomb, **{"grpc-encoding": "gzip"})
    assert (status, details) == (8, "the body is larger than 16 MiB when decompressed")
    _, status, details = await call(http, "ModelInfer", None, content, **{"grpc-encoding": "snappy"})
    assert (status, "'snappy' is not supported" in details) == (3, True)


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [("1S", 1.0), ("100m", 0.1), ("2H", 7200.0), ("3M", 180.0), ("5u", 5e-6), ("7n", 7e-9)],
)
def test_timeout_units_are_converted(timeout, seconds):
    assert parse_timeout_s(timeout) == pytest.approx(seconds)


async def test_invalid_timeout_is_rejected(http):
    headers = {"grpc-timeout": "5 s"}
    _, status, details = await call(http, "ModelInfer", infer(raw=PIXELS.tobytes()), **headers)
    assert (status, "grpc-timeout" in details) == (3, True)


async def test_large_messages_in_progress_are_limited(torchserve):
    """Each message of 15 MiB takes almost the whole memory budget until its answer."""
    released = asyncio.Event()

    async def answer(request):
        await released.wait()
        return torchserve.handle_rest(request)

    app = create_app(GatewaySettings(), httpx.MockTransport(answer))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        large = infer(raw=bytes(15 * 2**20))
        calls = [asyncio.ensure_future(call(http, "ModelInfer", large)) for _ in range(4)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        small = asyncio.ensure_future(call(http, "ModelInfer", infer(raw=PIXELS.tobytes())))
        await asyncio.wait(calls[:2], timeout=0.5)
        released.set()
        statuses = sorted(status for _, status, _ in await asyncio.gather(*calls))
        assert (await small)[1] == 0
    assert statuses == [3, 8, 8, 8]  # 3: not the bytes of the shape
