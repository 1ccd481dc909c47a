"""HTTP server of the supervisor: readiness and liveness probes, state, metrics, and holds of workers.

One thread runs an event loop; a connection costs a few kilobytes and no thread. At the limit of connections, the
connection that has been idle for the longest time is closed, so that probes always get an answer.
"""

import asyncio
import json
import re
import threading
import time
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

from torchserve_models.client import ModelNotFound
from torchserve_models.serving.health import state_report
from torchserve_models.serving.health.metrics import CONTENT_TYPE, SupervisorMetrics
from torchserve_models.serving.health.observations import ServerObservation

MAX_CONNECTIONS = 256
MAX_HEADER_BYTES = 8192
REQUEST_TIMEOUT_S = 5.0
"""Limit for the complete header of a connection's first request."""
IDLE_TIMEOUT_S = 30.0
MAX_PIPELINED = 16
"""Maximum requests in one read; more would delay other clients' probes."""
LIVE_LIMIT_S = 30.0
"""GET /livez fails if the monitor has observed nothing for this long."""
_TRUE = ("1", "true", "yes", "on", "")

Response = tuple[int, str, bytes]


class StateSource(Protocol):
    """Source of the server's state for responses."""

    metrics: SupervisorMetrics

    @property
    def stalled_s(self) -> float: ...

    @property
    def recorded(self) -> float: ...

    def snapshot(self) -> ServerObservation: ...

    def refreshed(self) -> ServerObservation: ...

    def hold(self, pid: int) -> bool: ...


_ABSOLUTE = re.compile(r"^https?://[^/?]*", re.IGNORECASE)
"""Scheme and host of a target in absolute form (RFC 9112, 3.2.2)."""


def handle_get(source: StateSource, target: str) -> Response:
    """Return status, content type and body for the path and query of a GET request."""
    path, _, text = _ABSOLUTE.sub("", target, count=1).partition("?")
    segments = [unquote(segment) for segment in path.split("/")[1:]]
    query = parse_qs(text, keep_blank_values=True)
    strict = query.get("strict", ["0"])[-1].lower() in _TRUE
    now = time.monotonic()
    match segments:
        case ["livez"]:
            stalled = source.stalled_s
            reason = f"nothing has been observed for {stalled:.0f} s" if stalled > LIVE_LIMIT_S else None
            return _probe("live", reason)
        case ["readyz"]:
            return _probe("ready", source.snapshot().report(now).problem(strict))
        case ["readyz", name] if name:
            return _model(source.snapshot(), name, None, now, strict)
        case ["readyz", name, version] if name and version:
            return _model(source.snapshot(), name, version, now, strict)
        case ["state"]:
            return _json(200, state_report.as_json(source.refreshed(), time.monotonic()))
        case ["recorded"]:
            return _json(200, {"recorded": source.recorded, "now": time.time()})
        case ["metrics"]:
            return 200, CONTENT_TYPE, source.metrics.exposition()
    return _json(
        404,
        {
            "error": "unknown route; the routes are /livez, /readyz, /readyz/NAME, /readyz/NAME/VERSION, /state, "
            "/recorded and /metrics"
        },
    )


def handle_post(source: StateSource, target: str, from_page: bool) -> Response:
    """Return the response to a POST. Requests from a web page (`from_page`) are rejected."""
    match target.split("/")[1:]:
        case ["workers", pid, "hold"] if pid.isdecimal() and len(pid) < 10:
            if from_page:
                return _json(
                    403, {"error": "requests from web pages (with an Origin header) are not allowed"}
                )
            if source.hold(int(pid)):
                return _json(202, {"held": True})
            return _json(404, {"error": f"no worker with process id {pid} can be held"})
    return 405, "text/plain", b"only GET and HEAD, and POST /workers/PID/hold\n"


def _model(snapshot: ServerObservation, name: str, version: str | None, now: float, strict: bool) -> Response:
    try:
        return _probe("ready", snapshot.report(now).model_problem(name, version, strict))
    except ModelNotFound as error:
        return _json(404, {"ready": False, "reason": error.message})


def _probe(state_name: str, problem: str | None) -> Response:
    return _json(
        503 if problem else 200, {state_name: problem is None} | ({"reason": problem} if problem else {})
    )


def _json(status: int, value: dict[str, Any]) -> Response:
    return status, "application/json", json.dumps(value).encode() + b"\n"


class HealthServer:
    """HTTP server in a separate thread, from `start` to `close`."""

    def __init__(self, host: str, port: int, source: StateSource) -> None:
        self._host = host
        self._port = port
        self._source = source
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start listening. Raises OSError if the port cannot be bound."""
        loop = asyncio.new_event_loop()
        connections: dict[_Connection, None] = {}
        try:
            server = loop.run_until_complete(
                loop.create_server(
                    lambda: _Connection(self._source, connections, loop),
                    self._host,
                    self._port,
                    backlog=512,
                )
            )
        except OSError:
            loop.close()
            raise
        self._loop = loop

        def run() -> None:
            loop.run_forever()
            server.close()
            for connection in list(connections):
                connection.abort()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        self._thread = threading.Thread(target=run, name="health-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. May be called twice."""
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5.0)


class _Connection(asyncio.Protocol):
    """One client connection, which adds itself to `connections`: all open connections, the longest idle first."""

    def __init__(
        self,
        source: StateSource,
        connections: dict["_Connection", None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._source = source
        self._connections = connections
        self._loop = loop
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        while len(self._connections) >= MAX_CONNECTIONS:
            next(iter(self._connections)).abort()
        self._connections[self] = None
        self._timer = self._loop.call_later(REQUEST_TIMEOUT_S, self.abort)

    def connection_lost(self, _: Exception | None) -> None:
        self._connections.pop(self, None)
        if self._timer:
            self._timer.cancel()

    def abort(self) -> None:
        self._connections.pop(self, None)
        if self._transport:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        for _ in range(MAX_PIPELINED):
            if b"\r\n\r\n" not in self._received:
                break
            header, _, remaining = bytes(self._received).partition(b"\r\n\r\n")
            self._received = bytearray(remaining)
            if not self._answer(header.decode("latin-1")):
                return
        else:
            if b"\r\n\r\n" in self._received:
                self._close()
                return
        if len(self._received) > MAX_HEADER_BYTES:
            self._send((431, "text/plain", b"header too large\n"), keep=False)

    def _close(self) -> None:
        """Close the connection after pending writes, without reading more."""
        assert self._transport is not None
        self._connections.pop(self, None)
        self._transport.close()

    def _answer(self, header: str) -> bool:
        """Answer one request; return whether the connection stays open."""
        line, *fields = header.split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)
        }
        method, _, target_and_protocol = line.partition(" ")
        target, _, protocol = target_and_protocol.rpartition(" ")
        if not target.startswith("/") or not protocol.startswith("HTTP/1."):
            return self._send((400, "text/plain", b"not an HTTP/1.1 request\n"), keep=False)
        if method not in ("GET", "HEAD", "POST"):
            return self._send((405, "text/plain", b"only GET and HEAD\n"), keep=False)
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        connection_option = headers.get("connection", "").lower()
        keep = (
            not has_body
            and connection_option != "close"
            and (protocol == "HTTP/1.1" or connection_option == "keep-alive")
        )
        try:
            if method == "POST":
                response = handle_post(self._source, target, from_page="origin" in headers)
            else:
                response = handle_get(self._source, target)
        except Exception as error:
            response = 500, "text/plain", f"internal error: {error!r}\n".encode()
        return self._send(response, keep, body=method != "HEAD")

    def _send(self, response: Response, keep: bool, body: bool = True) -> bool:
        assert self._transport is not None
        status, content_type, content = response
        allow = "Allow: GET, HEAD\r\n" if status == 405 else ""
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {content_type}\r\n{allow}"
            f"Content-Length: {len(content)}\r\nCache-Control: no-store\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
        )
        self._transport.write(head.encode("latin-1") + (content if body else b""))
        if self._transport.get_write_buffer_size() > 2**20:  # a client that does not read the responses
            self.abort()
            return False
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(IDLE_TIMEOUT_S if keep else REQUEST_TIMEOUT_S, self.abort)
        self._connections.pop(self, None)
        if keep:
            self._connections[self] = None
        else:
            self._transport.close()
        return keep
