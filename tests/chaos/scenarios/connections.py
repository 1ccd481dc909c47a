"""Connections that use the server's memory or connection slots: unfinished uploads, idle sockets, many gRPC calls."""

import errno
import resource
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc

from tests.chaos import raw_socket
from tests.chaos.scenarios.base import (
    NGINX_LIMIT_MB,
    Bystander,
    PeakMemory,
    ScenarioResult,
    compare,
)
from tests.chaos.stack import Stack
from torchserve_models.client.call_types import import_stubs

BEFORE_S = 6.0
PIECE = 65536
SOURCES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")


def slow_uploads(
    stack: Stack, count: int = 300, size: int = 1_500_000, seconds: float = 20.0
) -> ScenarioResult:
    """Open `count` unfinished uploads from one address."""
    result = ScenarioResult("slow-uploads", {"uploads": count, "bytes each": size})
    headers = {"content-type": "application/octet-stream"}
    payload = raw_socket.head("/predictions/resnet-50", size, headers) + bytes(size - 1)
    _measure(stack, result, HeldConnections(stack, count, SOURCES[:1], payload), seconds)
    return result


def idle_sockets(
    stack: Stack, count: int = 8400, sources: Sequence[str] = SOURCES, seconds: float = 15.0
) -> ScenarioResult:
    """Open `count` connections as fast as possible that send nothing, or only the beginning of a header."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 1000)), hard))
    count = min(count, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
    result = ScenarioResult("idle-sockets", {"sockets": count, "addresses": len(sources)})
    for prefix, payload in (
        ("silent: ", b""),
        ("half a header: ", b"POST /predictions/resnet-50 HTTP/1.1\r\n"),
    ):
        _measure(stack, result, HeldConnections(stack, count, sources, payload), seconds, prefix)
    return result


def grpc_flood(
    stack: Stack, calls: int = 250, size: int = 1_040_000, seconds: float = 20.0
) -> ScenarioResult:
    """Open `calls` gRPC calls on one connection, each with a large message and an unfinished stream."""
    result = ScenarioResult("grpc-flood", {"calls": calls, "bytes each": size})
    with Bystander(stack) as bystander, PeakMemory(stack) as peak:
        before = bystander.measure(BEFORE_S)
        quiet = peak.megabytes("nginx")
        start = time.monotonic()
        with _open_calls(stack, calls, size) as answers:
            time.sleep(seconds)
            during = bystander.during(start)
        result.numbers["calls that were ended by the server"] = len(answers)
        _memory(result, peak, quiet)
    compare(result, before, during)
    return result


def _measure(
    stack: Stack, result: ScenarioResult, connections: "HeldConnections", seconds: float, prefix: str = ""
) -> None:
    with Bystander(stack) as bystander, PeakMemory(stack) as peak:
        before = bystander.measure(BEFORE_S)
        quiet = peak.megabytes("nginx")
        start = time.monotonic()
        with connections:
            time.sleep(seconds)
            during = bystander.during(start)
        result.numbers |= {
            f"{prefix}connections opened": connections.opened,
            f"{prefix}seconds to open them": round(connections.seconds, 2),
            f"{prefix}closed or refused by the server": connections.closed,
            f"{prefix}MB sent": round(connections.sent / 1e6, 1),
        }
        _memory(result, peak, quiet, prefix)
    compare(result, before, during, prefix)


def _memory(result: ScenarioResult, peak: PeakMemory, quiet: float, prefix: str = "") -> None:
    result.numbers[f"{prefix}nginx MB before"] = quiet
    result.at_most(f"{prefix}nginx MB at most", peak.megabytes("nginx"), NGINX_LIMIT_MB, " MB")


class HeldConnections:
    """Context manager that opens connections, sends the payload, and holds them open until the server closes them."""

    def __init__(self, stack: Stack, count: int, sources: Sequence[str], payload: bytes) -> None:
        self._address = raw_socket.address_of(stack.edge.inference)
        self._count, self._sources, self._payload = count, sources, payload
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.opened = self.closed = self.sent = 0
        self.seconds = 0.0
        """Seconds until all connections were started."""

    def __enter__(self) -> "HeldConnections":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _run(self) -> None:
        selector, started = selectors.DefaultSelector(), time.monotonic()
        written: dict[int, int] = {}
        for number in range(self._count):
            if self._over.is_set():
                break
            connection = socket.socket()
            connection.setblocking(False)
            try:
                connection.bind((self._sources[number % len(self._sources)], 0))
                problem = connection.connect_ex(self._address)
            except OSError as error:
                problem = error.errno or errno.EIO
            if problem not in (0, errno.EINPROGRESS):
                self.closed += 1
                connection.close()
                continue
            written[connection.fileno()] = 0
            selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
            self._turn(selector, written, 0.0)
        self.seconds = time.monotonic() - started
        while not self._over.is_set() and selector.get_map():
            self._turn(selector, written, 0.2)
        for key in list(selector.get_map().values()):
            _socket(key).close()
        selector.close()

    def _turn(self, selector: selectors.BaseSelector, written: dict[int, int], timeout: float) -> None:
        for key, mask in selector.select(timeout):
            connection, offset = _socket(key), written[key.fd]
            try:
                if mask & selectors.EVENT_WRITE:
                    if offset == 0:
                        self.opened += 1
                    piece = self._payload[offset : offset + PIECE]
                    offset += connection.send(piece) if piece else 0
                    self.sent += offset - written[key.fd]
                    written[key.fd] = max(offset, 1)
                    if offset >= len(self._payload):
                        selector.modify(connection, selectors.EVENT_READ)
                if mask & selectors.EVENT_READ and not connection.recv(4096):
                    raise ConnectionResetError
            except BlockingIOError:
                continue
            except OSError:
                self.closed += 1
                selector.unregister(connection)
                connection.close()


def _socket(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj


@contextmanager
def _open_calls(stack: Stack, calls: int, size: int) -> Iterator[list[str]]:
    """Open calls with unfinished requests on one channel; yield a list of the status of each call that has ended."""
    module, over, ended = import_stubs("inference"), threading.Event(), list[str]()
    message = module.PredictionsRequest(model_name="resnet-50", input={"data": bytes(size)})

    def endless() -> Iterator[object]:
        yield message
        over.wait(120)

    def note(call: grpc.Future) -> None:
        if not over.is_set():
            ended.append(str(call.code()))  # type: ignore[attr-defined]

    with grpc.insecure_channel(stack.edge.grpc_inference, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        method = channel.stream_unary(
            "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions",
            request_serializer=module.PredictionsRequest.SerializeToString,
            response_deserializer=module.PredictionResponse.FromString,
        )
        pending = [method.future(endless(), timeout=110) for _ in range(calls)]
        for call in pending:
            call.add_done_callback(note)
        try:
            yield ended
        finally:
            over.set()
            for call in pending:
                call.cancel()  # type: ignore[no-untyped-call]
