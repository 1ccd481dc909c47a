"""gRPC through nginx and the gateway: statuses, deadlines, streams, health and reflection with unmodified clients."""

import json
import time

import grpc
import httpx
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.faults.test_workers import until
from tests.faults.toys import OBEDIENT, STREAMING, toy
from tests.server.fronted import IMAGE, LABEL, in_front_of, needs_nginx, through
from torchserve_models.client import Client, InvalidImage, Overloaded, WorkerDied
from torchserve_models.client._stubs import (
    inference_pb2,
    inference_pb2_grpc,
    open_inference_grpc_pb2,
    open_inference_grpc_pb2_grpc,
)

pytestmark = needs_nginx
Status = grpc.StatusCode
NATIVE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
)
ORDERS = OBEDIENT.replace('fields.get("body", b"")', 'fields["data"]')
STREAM = STREAMING.replace('if "body" not in data[0]', 'if b"stream" in data[0].values()')


@pytest.fixture(scope="module")
def front(server):
    with in_front_of(server.endpoints) as running:
        yield running


@pytest.fixture(scope="module")
def channel(front):
    with grpc.insecure_channel(front.config.grpc) as opened:
        yield opened


@pytest.fixture(scope="module")
def predictions(channel):
    return inference_pb2_grpc.InferenceAPIsServiceStub(channel)


@pytest.fixture(scope="module")
def toys(server):
    """Two models: `obedient`, whose queue holds one request, and `streams`."""
    names = [toy(server.store, "obedient", ORDERS, queue=1, batch=1), toy(server.store, "streams", STREAM)]
    with Client(endpoints=server.endpoints) as client:
        for name in names:
            client.register(f"{name}.mar")
        yield names
        for name in names:
            client.unregister(name)
            (server.store / f"{name}.mar").unlink()


def request(model, data=b"", **fields):
    return inference_pb2.PredictionsRequest(model_name=model, input={"data": data} | fields)


def refused(call, *arguments, **options):
    with pytest.raises(grpc.RpcError) as error:
        list(call(*arguments, **{"timeout": 30} | options))
    return error.value


def refusal(stub, *arguments, **options):
    """Return the status, the message and the trailers of a unary call."""
    with pytest.raises(grpc.RpcError) as error:
        stub(*arguments, **{"timeout": 30} | options)
    return error.value.code(), error.value.details(), dict(error.value.trailing_metadata())


def test_prediction_has_the_handlers_answer_and_the_request_id(predictions):
    answer, call = predictions.Predictions.with_call(
        request("resnet-50", IMAGE, top_k=b"1"), timeout=60, metadata=(("x-request-id", "mine-1"),)
    )
    assert json.loads(answer.prediction)[0]["label"] == LABEL
    assert dict(call.initial_metadata())["x-request-id"] == "mine-1"


def test_handler_errors_have_a_status_a_message_and_a_type(predictions):
    code, details, trailers = refusal(predictions.Predictions, request("resnet-50", b"x"))
    assert code is Status.INVALID_ARGUMENT
    assert (trailers["x-error-type"], trailers["x-error-code"]) == ("InvalidImage", "400")
    assert "image" in details
    code, details, _ = refusal(predictions.Predictions, request("resnet-50", IMAGE, color=b"1"))
    assert (code, "'color'" in details) == (Status.INVALID_ARGUMENT, True)
    code, details, _ = refusal(predictions.Predictions, request("absent", IMAGE))
    assert (code, "absent" in details) == (Status.NOT_FOUND, True)
    code, _, _ = refusal(predictions.Predictions, request("", IMAGE))
    assert code is Status.NOT_FOUND
    code, _, _ = refusal(predictions.Predictions, request("resnet-50", bytes(17 << 20)))
    assert code is Status.RESOURCE_EXHAUSTED


def test_python_client_raises_the_errors_of_rest(front, server):
    with Client(endpoints=through(front, server), protocol="grpc", retries=0) as client:
        with pytest.raises(InvalidImage) as error:
            client.classify("resnet-50", b"x")
        assert error.value.code == 400


def test_handler_that_raises_is_internal_and_its_worker_is_sound(predictions, toys):
    code, _, _ = refusal(predictions.Predictions, request("obedient", b"raise"))
    assert code is Status.INTERNAL
    assert predictions.Predictions(request("obedient"), timeout=30).prediction


def test_full_queue_is_resource_exhausted(front, server, predictions, toys):
    calls = [predictions.Predictions.future(request("obedient", b"sleep 1"), timeout=60) for _ in range(8)]
    failures = [call.exception() for call in calls]
    codes = {failure.code() for failure in failures if failure}
    assert codes == {Status.RESOURCE_EXHAUSTED}
    trailers = dict(next(failure for failure in failures if failure).trailing_metadata())
    assert (trailers["x-error-type"], trailers["retry-after"]) == ("Overloaded", "1")
    calls = [predictions.Predictions.future(request("obedient", b"sleep 1"), timeout=60) for _ in range(4)]
    until(lambda: any(call.done() for call in calls))  # one was refused, so the queue is full
    with Client(endpoints=through(front, server), protocol="grpc", retries=0) as client:
        with pytest.raises(Overloaded) as error:
            client.classify("obedient", b"")
        assert error.value.retry_after == 1.0
    assert None in [call.exception() for call in calls]


def test_killed_worker_is_retried_once_and_then_unavailable(predictions, toys, tmp_path, server, front):
    marker = tmp_path / "once"
    answer = predictions.Predictions(request("obedient", f"exit once {marker}".encode()), timeout=60)
    assert answer.prediction
    code, _, trailers = refusal(predictions.Predictions, request("obedient", b"exit"), timeout=60)
    assert (code, trailers["x-error-type"], trailers["x-retried"]) == (Status.UNAVAILABLE, "WorkerDied", "1")
    with Client(endpoints=through(front, server), protocol="grpc", retries=3) as client:
        with pytest.raises(WorkerDied) as error:
            client.classify("obedient", b"exit")
        assert error.value.retried


def test_deadline_ends_a_call_and_reaches_the_handler(predictions, toys):
    code, _, _ = refusal(predictions.Predictions, request("obedient", b"sleep 1"), timeout=0.3)
    assert code is Status.DEADLINE_EXCEEDED
    # The client would wait for 60 s: the handler rejects the request, because its time has passed.
    late = request("resnet-50", IMAGE, **{"x-request-timeout": b"0.000001"})
    code, _, trailers = refusal(predictions.Predictions, late, timeout=None)
    assert (code, trailers["x-error-type"]) == (Status.DEADLINE_EXCEEDED, "DeadlineExceeded")


def test_wrong_calls_neither_kill_nor_hang_a_worker(predictions, toys):
    """A unary call of a model that streams, and a streaming call of one that does not."""
    before = predictions.Predictions(request("streams"), timeout=30).prediction
    answer = predictions.Predictions(request("streams", b"stream"), timeout=30)
    assert answer.prediction == b"..." + before
    parts = [
        part.prediction for part in predictions.StreamPredictions(request("streams", b"stream"), timeout=30)
    ]
    assert parts == [b"...", before]
    parts = [part.prediction for part in predictions.StreamPredictions(request("streams"), timeout=30)]
    assert parts == [before]  # the process id: the worker is still the same
    error = refused(predictions.StreamPredictions, request("resnet-50", b"x"))
    assert error.code() is Status.INVALID_ARGUMENT
    error = refused(predictions.StreamPredictions2, iter([request("streams")]))
    assert error.code() is Status.UNIMPLEMENTED


def test_torchserves_open_inference_service_reports_readiness_and_metadata(channel, server):
    stub = open_inference_grpc_pb2_grpc.GRPCInferenceServiceStub(channel)
    messages = open_inference_grpc_pb2
    assert stub.ModelReady(messages.ModelReadyRequest(name="resnet-50"), timeout=30).ready
    assert not stub.ModelReady(messages.ModelReadyRequest(name="absent"), timeout=30).ready
    assert (
        stub.ModelMetadata(messages.ModelMetadataRequest(name="resnet-50"), timeout=30).inputs[0].name
        == "image"
    )
    code, _, _ = refusal(stub.ModelMetadata, messages.ModelMetadataRequest(name="absent"))
    assert code is Status.NOT_FOUND
    code, _, _ = refusal(stub.ModelInfer, messages.ModelInferRequest(model_name="resnet-50"))
    assert code is Status.INVALID_ARGUMENT


def test_health_reports_servers_services_and_models(channel, server, front):
    health = health_pb2_grpc.HealthStub(channel)
    until(lambda: httpx.get(f"{front.url}/readyz").status_code == 200)  # other tests kill workers
    with Client(endpoints=server.endpoints) as client:
        version = client.describe("resnet-50").version
    for name in ("", NATIVE, "inference.GRPCInferenceService", "resnet-50", f"resnet-50/{version}"):
        assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=30).status == SERVING, name
    code, details, _ = refusal(health.Check, health_pb2.HealthCheckRequest(service="absent"))
    assert (code, "absent" in details) == (Status.NOT_FOUND, True)


def test_watch_reports_changes_until_it_is_canceled(channel, server):
    health = health_pb2_grpc.HealthStub(channel)
    watch = health.Watch(health_pb2.HealthCheckRequest(service="late"), timeout=60)
    assert next(watch).status == SERVICE_UNKNOWN
    toy(server.store, "late", OBEDIENT)
    with Client(endpoints=server.endpoints) as client:
        client.register("late.mar")
        while (status := next(watch).status) != SERVING:
            assert status == NOT_SERVING
        client.unregister("late")
    (server.store / "late.mar").unlink()
    while (status := next(watch).status) != SERVICE_UNKNOWN:
        assert status == NOT_SERVING
    watch.cancel()


def test_shutdown_ends_watches_with_not_serving(server):
    with in_front_of(server.endpoints) as running, grpc.insecure_channel(running.config.grpc) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == SERVING
        begin = time.monotonic()
        running.stop()
        assert time.monotonic() - begin < 5  # the grace period of the fixture, if nginx waits for the stream
        assert next(watch).status == NOT_SERVING
        assert refused(lambda **_: watch).code() is Status.UNAVAILABLE


def test_reflection_describes_every_service_to_a_client_without_stubs(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {NATIVE, "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= set(database.get_services())
    pool = DescriptorPool(database)
    service = pool.FindServiceByName("inference.GRPCInferenceService")
    method = service.methods_by_name["ServerReady"]
    request_type, answer_type = (
        message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type)
    )
    call = channel.unary_unary(
        f"/{service.full_name}/{method.name}",
        request_serializer=request_type.SerializeToString,
        response_deserializer=answer_type.FromString,
    )
    assert call(request_type(), timeout=30).ready
    assert (
        pool.FindServiceByName(NATIVE).methods_by_name["Predictions"].input_type.name == "PredictionsRequest"
    )


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_answers_before_the_client_ends_its_stream(channel, version):
    """grpcurl sends its next question after the answer to the one before."""
    from grpc_reflection.v1alpha import reflection_pb2

    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    answers = []

    def questions():
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        end = time.monotonic() + 20
        while not answers:
            assert time.monotonic() < end
            time.sleep(0.01)
        yield reflection_pb2.ServerReflectionRequest(file_containing_symbol=NATIVE)

    for answer in call(questions(), timeout=30):
        answers.append(answer)
    services = [service.name for service in answers[0].list_services_response.service]
    assert f"grpc.reflection.{version}.ServerReflection" in services
    assert answers[1].file_descriptor_response.file_descriptor_proto
