"""The gRPC server for health and reflection, which stream and can therefore not be carried over HTTP/1.1."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc

from torchserve_models.gateway.grpc import inference_service, predictions_service
from torchserve_models.gateway.grpc.health_service import HealthService
from torchserve_models.gateway.grpc.reflection_service import reflection_handlers
from torchserve_models.gateway.readiness_poller import ReadinessPoller
from torchserve_models.gateway.shutdown import ShutdownFlag

SERVICES = (
    predictions_service.SERVICE,
    inference_service.SERVICE,
    inference_service.TORCHSERVE_SERVICE,
    health.SERVICE_NAME,
)
MAX_CALLS = 512
"""Calls in progress, more than nginx allows."""
_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 2**10),
    # Only "identity": a compressed message could be any size when decompressed.
    ("grpc.compression_enabled_algorithms_bitset", 1),
]


@asynccontextmanager
async def run_standard_services(
    address: str, readiness: ReadinessPoller, shutdown: ShutdownFlag
) -> AsyncIterator[str]:
    """Serve health and reflection within this context; return the address, with a port if `address` has port 0.

    Raises:
        RuntimeError: The address is in use.
    """
    server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
    health_pb2_grpc.add_HealthServicer_to_server(HealthService(readiness, shutdown, SERVICES), server)
    server.add_generic_rpc_handlers(reflection_handlers(SERVICES))
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"{address.rpartition(':')[0]}:{port}"
    finally:
        await server.stop(None)
