"""The service grpc.health.v1.Health, answered from the readiness that the gateway polls."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from torchserve_models.client import TorchServeError
from torchserve_models.gateway.readiness_poller import ReadinessPoller
from torchserve_models.gateway.shutdown import ShutdownFlag

WATCH_INTERVAL_S = 0.25
"""Half of the interval in which the readiness is polled."""
_STATUS = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Health of the server (the empty name, or a gRPC service) and of models (`NAME` or `NAME/VERSION`)."""

    def __init__(self, readiness: ReadinessPoller, shutdown: ShutdownFlag, services: tuple[str, ...]) -> None:
        """
        Args:
            readiness: Returns the readiness of the server and its models.
            shutdown: Ends all `Watch` calls once the shutdown has begun, because nginx waits for calls in progress.
            services: Names of gRPC services, which are as ready as the server.
        """
        self._readiness = readiness
        self._shutdown = shutdown
        self._services = ("", *services)

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # the method's name in the protocol
        """Return the current status. An unknown name is NOT_FOUND."""
        status = self._status(request.service)
        if status == _STATUS.SERVICE_UNKNOWN:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"unknown service or model: {request.service[:60]}"
            )
        return _STATUS(status=status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Yield the current status and every change. An unknown name is SERVICE_UNKNOWN, and may become known."""
        sent = None
        while True:
            is_ending = self._shutdown.reason is not None
            status = self._status(request.service)
            if status != sent:
                sent = status
                yield _STATUS(status=status)
            if is_ending:
                await context.abort(grpc.StatusCode.UNAVAILABLE, self._shutdown.reason)
            await asyncio.sleep(WATCH_INTERVAL_S)

    def _status(self, name: str) -> Any:
        if name in self._services:
            problem = self._readiness.server_problem()
        else:
            model, _, version = name.partition("/")
            try:
                problem = self._readiness.model_problem(model, version or None)
            except TorchServeError:  # no such model
                return _STATUS.SERVICE_UNKNOWN
        return _STATUS.SERVING if problem is None else _STATUS.NOT_SERVING
