"""REST transports on httpx, sync and async."""

import asyncio
import ssl
import time
from functools import cache
from typing import Any, TypeVar

import httpx

from torchserve_models.client.call_types import RestCall
from torchserve_models.client.deadlines import Deadline, deadline_fields
from torchserve_models.client.endpoints import Endpoints, is_loopback
from torchserve_models.client.error_conversion import annotate, error_from_body
from torchserve_models.client.errors import TorchServeError, TransportError, Unavailable, UnexpectedAnswer
from torchserve_models.client.settings import Settings

T = TypeVar("T")


class RestTransport:
    """Transport for any number of threads; httpx's connection pool is safe to share."""

    def __init__(self, settings: Settings, transport: httpx.BaseTransport | None = None) -> None:
        self._settings = settings
        self._client = httpx.Client(
            transport=transport,
            verify=_trusted(settings),
            limits=_limits(settings),
            **_proxies(settings.endpoints),
        )

    def send(self, call: RestCall[T], deadline: Deadline) -> T:
        """Send a call and return its answer. Raises TorchServeError."""
        request = _request(self._client, call, self._settings, deadline)
        end = time.monotonic() + _seconds_for(call, deadline)
        try:
            response = self._client.send(request, stream=True)
            try:
                chunks = []
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    # httpx's timeout covers one read; a server that sends byte by byte would never reach it.
                    if time.monotonic() > end:
                        raise deadline.timeout_error(f"from {_origin(request)}")
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise _as_torchserve_error(error, deadline) from error
        return _read(call, response, b"".join(chunks))

    def close(self) -> None:
        """Close all connections."""
        self._client.close()


class AsyncRestTransport:
    """Transport for one event loop."""

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._settings = settings
        self._client = httpx.AsyncClient(
            transport=transport,
            verify=_trusted(settings),
            limits=_limits(settings),
            **_proxies(settings.endpoints),
        )

    async def send(self, call: RestCall[T], deadline: Deadline) -> T:
        """Send a call and return its answer. Raises TorchServeError."""
        request = _request(self._client, call, self._settings, deadline)
        try:
            async with asyncio.timeout(_seconds_for(call, deadline)):
                response = await self._client.send(request)
        except TimeoutError as error:
            raise deadline.timeout_error(f"from {_origin(request)}") from error
        except httpx.HTTPError as error:
            raise _as_torchserve_error(error, deadline) from error
        return _read(call, response, response.content)

    async def close(self) -> None:
        await self._client.aclose()


def _trusted(settings: Settings) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else _default_trust()


@cache
def _default_trust() -> ssl.SSLContext:
    """Return httpx's default, cached because loading its certificates takes 30 ms."""
    return httpx.create_ssl_context()


def _limits(settings: Settings) -> httpx.Limits:
    """Return the connection limits; by default one connection per request, because TorchServe queues requests."""
    return httpx.Limits(max_connections=settings.max_connections, max_keepalive_connections=64)


def _seconds_for(call: RestCall[Any], deadline: Deadline) -> float:
    """Return the seconds for one attempt."""
    left = deadline.left()
    return left if call.limit is None else min(left, call.limit)


def _proxies(endpoints: Endpoints) -> dict[str, Any]:
    """Return httpx's arguments for using the environment's proxy, except for loopback addresses."""
    services = (endpoints.inference, endpoints.management, endpoints.metrics, endpoints.health)
    direct = [service for service in services if is_loopback(service)]
    mounts = {f"all://{httpx.URL(service).netloc.decode()}": None for service in direct}
    return {"trust_env": len(direct) < len(services), "mounts": mounts}


def _request(
    client: httpx.Client | httpx.AsyncClient, call: RestCall[T], settings: Settings, deadline: Deadline
) -> httpx.Request:
    left = _seconds_for(call, deadline)
    timeout = httpx.Timeout(left, connect=min(left, settings.connect_timeout))
    base: str = getattr(settings.endpoints, call.service)
    sends_deadline = call.carries_deadline and settings.send_deadline
    return client.build_request(
        call.method,
        base.rstrip("/") + call.path,
        headers={
            "accept": "application/json",
            **settings.credentials,
            **call.headers,
            **(deadline_fields(base, left) if sends_deadline else {}),
        },
        content=call.body or None,
        timeout=timeout,
    )


def _read(call: RestCall[T], response: httpx.Response, body: bytes) -> T:
    if response.is_success:
        return call.read(body)
    if response.status_code < 400:
        raise UnexpectedAnswer(_redirection(response), code=response.status_code)
    raise annotate(error_from_body(response.status_code, body), response.headers)


def _redirection(response: httpx.Response) -> str:
    """Return the message for a redirect, which is not followed because most redirects drop the body of a POST."""
    location = response.headers.get("location")
    if location is None:
        return f"the server answered with the unexpected status {response.status_code}"
    return (
        f"{_origin(response.request)} redirects to {location[:200]}, which is not followed; use that address"
    )


def _as_torchserve_error(error: httpx.HTTPError, deadline: Deadline) -> TorchServeError:
    where = _origin(error.request)
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return Unavailable(f"no server answers at {where} ({error or 'no connection in time'})", sent=False)
    if isinstance(error, httpx.TimeoutException):
        return deadline.timeout_error(f"from {where}")
    if isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)):
        return Unavailable(f"the connection to {where} broke: {error or type(error).__name__}")
    return TransportError(f"the request to {where} failed: {error or type(error).__name__}")


def _origin(request: httpx.Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc.decode()}"
