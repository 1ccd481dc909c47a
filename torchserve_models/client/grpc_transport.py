"""gRPC transports, sync and async: one channel for each address, opened when it is first needed."""

import asyncio
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from torchserve_models.client.call_types import RpcCall
from torchserve_models.client.deadlines import Deadline, deadline_fields
from torchserve_models.client.endpoints import is_loopback
from torchserve_models.client.error_conversion import annotate, error_from_status, error_from_trailers
from torchserve_models.client.errors import NotAllowed, TorchServeError, Unavailable
from torchserve_models.client.settings import Settings

T = TypeVar("T")

KEEPALIVE_TIMEOUT_MS = 20_000


def _target(call: RpcCall[Any], settings: Settings) -> str:
    endpoints = settings.endpoints
    target = endpoints.grpc_management if call.service == "management" else endpoints.grpc_inference
    if not target:
        raise NotAllowed(f"the gRPC address of {endpoints.inference} is not known; pass endpoints=")
    return target


def _options(target: str, settings: Settings) -> list[tuple[str, Any]]:
    """Return channel options: size limits in both directions, fast reconnection, and no shared subchannels."""
    return [
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", int(settings.connect_timeout * 1000)),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # With keepalive on, Linux also ends a connection whose data is not acknowledged within the timeout.
        ("grpc.keepalive_time_ms", int(settings.keepalive * 1000)),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0 if is_loopback(target) else 1),
    ]


def _grpc() -> Any:
    """Import gRPC at its first use: importing it takes longer than the rest of the client."""
    import grpc
    import grpc.aio

    return grpc


def _channel(grpc: Any, kind: Any, target: str, settings: Settings) -> Any:
    """Open a channel; `kind` is the module grpc or grpc.aio."""
    options = _options(target, settings)
    if not target.startswith("https://"):
        return kind.insecure_channel(target, options)
    roots = Path(settings.ca_file).read_bytes() if settings.ca_file else None
    return kind.secure_channel(target.removeprefix("https://"), grpc.ssl_channel_credentials(roots), options)


class GrpcTransport:
    """Transport for any number of threads; channels are safe to share."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._channels: dict[str, Any] = {}
        self._lock = Lock()

    def send(self, call: RpcCall[T], deadline: Deadline) -> T:
        """Send a call and return its answer. Raises TorchServeError."""
        grpc, target = _grpc(), _target(call, self._settings)
        with self._lock:
            if target not in self._channels:
                self._channels[target] = _channel(grpc, grpc, target, self._settings)
            method = _method(self._channels[target], call)
        try:
            answer = method(call.request, **_arguments(call, target, self._settings, deadline))
        except grpc.RpcError as error:
            raise _as_torchserve_error(error, target, deadline) from error
        return call.read(answer)

    def close(self) -> None:
        """Close all channels."""
        with self._lock:
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()


class AsyncGrpcTransport:
    """Transport for one event loop, in which the channels are first used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._channels: dict[str, Any] = {}

    async def send(self, call: RpcCall[T], deadline: Deadline) -> T:
        """Send a call and return its answer. Raises TorchServeError."""
        grpc, target = _grpc(), _target(call, self._settings)
        if target not in self._channels:
            self._channels[target] = _channel(grpc, grpc.aio, target, self._settings)
        try:
            method = _method(self._channels[target], call)
            answer = await method(call.request, **_arguments(call, target, self._settings, deadline))
        except grpc.RpcError as error:
            raise _as_torchserve_error(error, target, deadline) from error
        return call.read(answer)

    async def close(self) -> None:
        """Close all channels."""
        channels, self._channels = list(self._channels.values()), {}
        await asyncio.gather(*(channel.close() for channel in channels))


def _method(channel: Any, call: RpcCall[Any]) -> Any:
    return channel.unary_unary(
        call.path,
        request_serializer=type(call.request).SerializeToString,
        response_deserializer=call.answer.FromString,
    )


def _arguments(call: RpcCall[Any], target: str, settings: Settings, deadline: Deadline) -> dict[str, Any]:
    """Return timeout and metadata of one attempt; add the remaining time to a prediction's input map."""
    left = deadline.left()
    seconds = left if call.limit is None else min(left, call.limit)
    if call.carries_deadline and settings.send_deadline:
        for name, value in deadline_fields(target, seconds).items():
            call.request.input[name] = value.encode()
    metadata = {**settings.credentials, **call.headers}
    return {"timeout": seconds, "metadata": tuple(metadata.items()) or None}


def _as_torchserve_error(error: Any, target: str, deadline: Deadline) -> TorchServeError:
    """Convert a gRPC error of the sync or the async API."""
    status, details = error.code().name, error.details() or ""
    if status == "DEADLINE_EXCEEDED":
        return deadline.timeout_error(f"from {target}")
    metadata = _metadata(error)
    torchserve_error = annotate(
        error_from_trailers(metadata, details) or error_from_status(status, details), metadata
    )
    if isinstance(torchserve_error, Unavailable):
        if torchserve_error.sent:
            return Unavailable(f"the connection to {target} broke: {details}")
        return Unavailable(f"no server answers at {target} ({details.rpartition(': ')[2]})", sent=False)
    return torchserve_error


def _metadata(error: Any) -> dict[str, str]:
    """Return the headers and trailers of the error, with lower-case names."""
    pairs = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
    return {str(name).lower(): value for name, value in pairs if isinstance(value, str)}
