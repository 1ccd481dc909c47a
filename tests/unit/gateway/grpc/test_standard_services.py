"""Health and reflection, with the clients of their packages."""

import asyncio

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from torchserve_models.client import ModelNotFound
from torchserve_models.gateway.grpc import health_service
from torchserve_models.gateway.grpc.reflection_service import VERSIONS, descriptors
from torchserve_models.gateway.grpc.standard_services import SERVICES, run_standard_services
from torchserve_models.gateway.shutdown import ShutdownFlag

Response = health_pb2.HealthCheckResponse


class FakeReadiness:
    def __init__(self, shutdown):
        self.problem = None
        self.models = {("images", None): None, ("images", "1.0"): None, ("texts", None): "no worker"}
        self.shutdown = shutdown

    def server_problem(self):
        return self.shutdown.reason or self.problem

    def model_problem(self, name, version):
        if (name, version) not in self.models:
            raise ModelNotFound(name)
        return self.shutdown.reason or self.models[name, version]


@pytest.fixture
def shutdown():
    return ShutdownFlag()


@pytest.fixture
def readiness(shutdown, monkeypatch):
    monkeypatch.setattr(health_service, "WATCH_INTERVAL_S", 0.01)
    return FakeReadiness(shutdown)


@pytest.fixture
async def channel(readiness, shutdown):
    async with (
        run_standard_services("127.0.0.1:0", readiness, shutdown) as address,
        grpc.aio.insecure_channel(address) as opened,
    ):
        yield opened


@pytest.fixture
async def health(channel):
    return health_pb2_grpc.HealthStub(channel)


def named(service=""):
    return health_pb2.HealthCheckRequest(service=service)


async def test_check_reports_the_server_its_services_and_models(health, readiness):
    for name in ("", *SERVICES, "images", "images/1.0"):
        assert (await health.Check(named(name))).status == Response.SERVING, name
    assert (await health.Check(named("texts"))).status == Response.NOT_SERVING
    readiness.problem = "no model is ready"
    assert (await health.Check(named())).status == Response.NOT_SERVING
    for name in ("absent", "images/9", SERVICES[0].lower()):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await health.Check(named(name))
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watch_reports_each_change_once(health, readiness):
    watch = health.Watch(named("late"))
    assert (await watch.read()).status == Response.SERVICE_UNKNOWN
    for problem, status in (("no worker", Response.NOT_SERVING), (None, Response.SERVING)):
        readiness.models["late", None] = problem
        assert (await watch.read()).status == status
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.read(), 0.1)
    watch.cancel()


async def test_shutdown_ends_every_watch(health, shutdown):
    watch = health.Watch(named("images"))
    assert (await watch.read()).status == Response.SERVING
    shutdown.begin()
    assert (await watch.read()).status == Response.NOT_SERVING
    assert await watch.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("version", VERSIONS)
async def test_reflection_lists_and_describes_services(channel, version):
    call = channel.stream_stream(
        f"/{version}/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    services = [service.name for service in (await call.read()).list_services_response.service]
    assert services == sorted([*SERVICES, *VERSIONS])
    for service in services:
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=service))
        assert (await call.read()).file_descriptor_response.file_descriptor_proto, service
    await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="absent"))
    assert (await call.read()).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    await call.done_writing()


def test_standard_open_inference_service_has_types_of_its_own_package():
    service = descriptors().FindServiceByName("inference.GRPCInferenceService")
    for method in service.methods:
        assert method.input_type.full_name == f"inference.{method.name}Request"
    message = service.methods_by_name["ModelInfer"].input_type
    assert (
        message.fields_by_name["inputs"].message_type.full_name
        == "inference.ModelInferRequest.InferInputTensor"
    )
