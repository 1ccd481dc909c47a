"""Tests that hostile bodies on every parsing route need at most a small multiple of their size in memory."""

import random
import time
import tracemalloc

import pytest

from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.core.shout import Shout
from tests.unit.handlers.sending import HTTP, JSON, OPEN_INFERENCE, RAW

pytestmark = pytest.mark.full

SIZE = 2**19
GROWTH = 20
"""Maximum memory growth of a batch, in multiples of one body's size. Requests are parsed one after the other."""
BATCHES = {"native": 2, "raw": 2, "form": 2}
"""The requests of a batch, by route; one where a route is not named. More take long."""
CONSTANT = 4 * 2**20
SECONDS = 60

PROXIED = HTTP | {
    "content-type": "application/octet-stream",
    "body": {"content-type": "application/octet-stream"},
}
FORM = PROXIED | {"x-form-content-type": "application/x-www-form-urlencoded"}
MULTIPART = PROXIED | {"x-form-content-type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n'
TENSOR = b'{"inputs":[{"name":"text","shape":[1],"datatype":"%b","data":['
OIP_JSON = OPEN_INFERENCE | {"content-type": "application/json", "body": {"content-type": "application/json"}}
GRPC_JSON = {"body": {"content-type": "application/json"}}
GRPC_MAP = {"text": {"content-type": ""}}
ROUTES = {
    "native": (JSON, b'{"inputs":[', b'"x"]}'),
    "parameters": (JSON, b'{"inputs":"x","parameters":{"k":[', b"0]}}"),
    "numbers": (OIP_JSON, TENSOR % b"UINT8", b"0]}]}"),
    "bytes": (OIP_JSON, TENSOR % b"BYTES", b'"x"]}]}'),
    "grpc-open-inference": (GRPC_JSON, TENSOR % b"BYTES", b'"x"]}]}'),
    "form": (FORM, b"text=a&k=[", b"0]"),
    "form-input": (FORM, b"text=", b""),
    "form-fields": (FORM, b"a=", b""),
    "multipart-field": (MULTIPART, PART % b"text" + b"a\r\n" + PART % b"k" + b"[", b"0]\r\n--x--"),
    "multipart-head": (MULTIPART, b"--x\r\n", b"\r\n\r\n--x--"),
    "multipart-parts": (MULTIPART, b"", b"\r\n--x--"),
    "raw": (RAW, b"", b""),
}
UNITS = [
    *(
        b"[],",
        b'{"a":1},',
        b"[1,2,3],",
        b"-9,",
        b"0.1,",
        b'"ab",',
        b'"\\\\",',
        b'"\\"",',
        b"1" * 4000 + b",",
        b"[",
    ),
    *(b'{"a":', b"&a=", b"%41", b"+", b"A: b\r\n", b"\r\n--x\r\n", PART % b"a" + b"\r\n", b"\xff"),
]


def body(head, unit, tail, size=SIZE):
    return bytearray(head + unit * ((size - len(head) - len(tail)) // len(unit)) + tail)


@pytest.fixture(scope="module", params=[True, False], ids=["numbers", "texts"])
def handler(request, tmp_path_factory):
    handler = Shout()
    handler.takes_numbers = request.param
    handler.initialize(FakeContext(tmp_path_factory.mktemp("model")))
    return handler


def measure_batch(handler, data, headers):
    """Return the peak memory growth and remaining growth in bytes, and the duration of a batch in seconds."""
    context = FakeContext(".")
    context.receive([headers] * len(data))
    tracemalloc.start()
    try:
        start = time.monotonic()
        sizes = [len(answer) for answer in handler.handle(data, context)]
        seconds = time.monotonic() - start
        handler.batches_run.clear()
        remaining, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(sizes) == len(data)
    return peak, remaining, seconds


@pytest.mark.parametrize("route", ROUTES)
def test_memory_growth_of_hostile_body_is_bounded(handler, route):
    headers, head, tail = ROUTES[route]
    for unit in UNITS:
        data = [{"body": body(head, unit, tail)} for _ in range(BATCHES.get(route, 1))]
        peak, remaining, seconds = measure_batch(handler, data, headers)
        assert peak < GROWTH * SIZE + CONSTANT, (unit, peak / SIZE)
        assert remaining < CONSTANT, (unit, remaining / SIZE)
        assert seconds < SECONDS, (unit, seconds)


def test_memory_growth_of_grpc_map_is_bounded(handler):
    for unit in UNITS:
        data = [
            {"text": bytearray(b"a"), "k": body(b"[", unit, b"]"), "x-request-timeout": body(b"", unit, b"")}
            for _ in range(2)
        ]
        peak, remaining, seconds = measure_batch(handler, data, GRPC_MAP)
        assert peak < GROWTH * SIZE + CONSTANT, (unit, peak / SIZE)
        assert remaining < CONSTANT, (unit, remaining / SIZE)
        assert seconds < SECONDS, (unit, seconds)


@pytest.mark.parametrize("seed", range(6))
def test_memory_growth_of_random_body_is_bounded(handler, seed):
    source = random.Random(seed)
    pieces = [
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b'"',
        b"\\",
        b"1",
        b"-",
        b"e",
        b".",
        b"a",
        b"&",
        b"=",
        b"%4",
        b"\n",
    ]
    for _ in range(5):
        headers, head, tail = ROUTES[source.choice(list(ROUTES))]
        unit = b"".join(source.choices(pieces, k=source.randint(1, 9)))
        data = [{"body": body(head, unit, tail, SIZE // 2)} for _ in range(2)]
        peak, _, seconds = measure_batch(handler, data, headers)
        assert peak < GROWTH * SIZE // 2 + CONSTANT, (unit, peak / SIZE)
        assert seconds < SECONDS, (unit, seconds)
