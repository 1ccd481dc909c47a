"""Configure uvicorn with limits on connections, headers, slow clients and the shutdown."""

import asyncio

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 1024
"""Maximum connections. nginx keeps few idle connections, so this limits the requests in progress."""
MAX_HEADER_BYTES = 16 * 2**10
HEADER_TIMEOUT_S = 20.0
"""Limit for a whole header, from the connection or from the first byte after a response."""
WRITE_TIMEOUT_S = 60.0
"""Seconds that a response may wait for a client that does not read it."""
KEEP_ALIVE_S = 75
"""Longer than other proxies keep idle connections (60 s), so that they never send to a connection being closed."""
SHUTDOWN_TIMEOUT_S = 30


class BoundedProtocol(H11Protocol):  # type: ignore[misc]  # uvicorn is Any to mypy here
    """uvicorn's protocol with limits on connections and on the time that a client may neither send nor read."""

    max_connections = MAX_CONNECTIONS
    header_timeout_s = HEADER_TIMEOUT_S
    write_timeout_s = WRITE_TIMEOUT_S
    _header_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()
            return
        self._header_timer = self.loop.call_later(self.header_timeout_s, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_header_timer()
        elif self._header_timer is None and not self.transport.is_closing():
            self._header_timer = self.loop.call_later(self.header_timeout_s, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def uvicorn_config(app: Starlette, host: str, port: int) -> uvicorn.Config:
    """Return the configuration of a server for `app`."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        ws="none",
        loop="asyncio",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=1024,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        proxy_headers=False,
    )
