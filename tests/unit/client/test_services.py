"""Management, health, metrics and raw Open Inference tensors, over REST and gRPC, sync and async."""

import httpx
import pytest

from tests.unit.client.fake_grpc import over_grpc
from tests.unit.client.fake_torchserve import FakeTorchServe, over_http
from torchserve_models.client import (
    Endpoints,
    InvalidParameter,
    InvalidRequest,
    ModelEntry,
    ModelNotFound,
    Tensor,
    UnexpectedAnswer,
)

both = pytest.mark.parametrize("protocol", ["rest", "grpc"])
tensors = pytest.mark.parametrize("protocol", ["open-inference", "open-inference-grpc"])


@both
def test_list_models_follows_all_pages(call, protocol):
    fake = FakeTorchServe(models=250)
    with over_grpc(fake) as endpoints:
        entries = call(
            lambda c: c.list_models(),
            protocol=protocol,
            endpoints=endpoints,
            transport=httpx.MockTransport(fake.handle_rest),
        )
    assert entries == [ModelEntry(name, f"{name}.mar") for name in fake.names]
    assert len(entries) == 250


@both
def test_describe_returns_one_version(call, connection, protocol, fake):
    fake.queued = 1
    model = call(lambda c: c.describe("texts", customized=True), protocol=protocol, **connection)
    assert (model.name, model.version, model.batch_size, model.queue_waiting) == ("texts", "1.0", 8, 1)
    assert model.metadata == {"engine": "torch"}
    assert model.workers[0].pid == 4711
    assert model.workers[0].memory_bytes == 2**20
    assert model.ready
    assert call(lambda c: c.describe("texts", "2.0"), protocol=protocol, **connection).version == "2.0"


@both
def test_describe_versions_marks_the_default_version(call, connection, protocol):
    models = call(lambda c: c.describe_versions("texts"), protocol=protocol, **connection)
    assert [(model.version, model.default) for model in models] == [("1.0", True), ("2.0", False)]
    with pytest.raises(InvalidRequest, match="describe_versions"):
        call(lambda c: c.describe("texts", "all"), protocol=protocol, **connection)


@both
def test_describe_of_unknown_model_raises_model_not_found(call, connection, protocol):
    with pytest.raises(ModelNotFound, match="Model not found: absent") as caught:
        call(lambda c: c.describe("absent"), protocol=protocol, **connection)
    assert caught.value.code == 404


@both
@pytest.mark.parametrize(("smallest", "largest"), [(-1, 1), (2, 1)])
def test_scale_rejects_invalid_worker_counts(call, connection, protocol, fake, smallest, largest):
    with pytest.raises(InvalidParameter):
        call(lambda c: c.scale("texts", smallest, largest), protocol=protocol, **connection)
    assert fake.received == []


@pytest.mark.parametrize("protocol", ["rest", "grpc", "open-inference", "open-inference-grpc"])
def test_health_methods_report_live_and_ready(call, connection, protocol, fake):
    assert call(lambda c: c.live(), protocol=protocol, **connection) is True
    assert call(lambda c: c.server_live(), protocol=protocol, **connection) is True
    assert call(lambda c: c.server_ready(), protocol=protocol, **connection) is True
    assert call(lambda c: c.ready("texts"), protocol=protocol, **connection)
    assert call(lambda c: c.ready(), protocol=protocol, **connection)
    fake.status = "UNLOADING"
    assert call(lambda c: c.live(), protocol=protocol, **connection) is True
    assert not call(lambda c: c.ready("texts"), protocol=protocol, **connection)
    assert not call(lambda c: c.ready(), protocol=protocol, **connection)
    assert call(lambda c: c.model_ready("texts"), protocol=protocol, **connection) is False
    with pytest.raises(ModelNotFound):
        call(lambda c: c.ready("absent"), protocol=protocol, **connection)


@both
def test_unready_server_has_a_reason(call, connection, protocol, fake):
    fake.status = "UNLOADING"
    reason = call(lambda c: c.ready(), protocol=protocol, **connection).reason
    assert reason == "images: worker 4711 is loading the model; texts: worker 4711 is loading the model"
    call(lambda c: c.scale("texts", 0, force=True), **connection)
    assert (
        call(lambda c: c.ready("texts"), protocol=protocol, **connection).reason
        == "the version has no worker"
    )


@pytest.mark.parametrize("protocol", ["rest", "grpc", "open-inference", "open-inference-grpc"])
def test_health_without_server_is_false(call, nowhere, protocol):
    assert call(lambda c: c.live(), protocol=protocol, endpoints=nowhere) is False
    answer = call(lambda c: c.ready("texts"), protocol=protocol, endpoints=nowhere)
    assert not answer
    assert "127.0.0.1:1" in answer.reason


@pytest.mark.parametrize("elsewhere", ["inference", "metrics"])
def test_environment_proxy_is_used_for_other_machines_only(call, fake, monkeypatch, elsewhere):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    proxied = []

    def proxy(request):
        proxied.append(request.url.host)
        return fake.handle_rest(request)

    with over_http(fake.handle_rest) as port, over_http(proxy) as proxy_port:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy_port}")
        services = dict.fromkeys(("inference", "management", "metrics"), f"http://127.0.0.1:{port}")
        endpoints = Endpoints(**services | {elsewhere: "http://server.invalid:8080"})

        call(lambda c: c.classify("images", b"x"), endpoints=endpoints)
        call(lambda c: c.describe("texts"), endpoints=endpoints)
        call(lambda c: c.metrics(), endpoints=endpoints)
    assert proxied == ["server.invalid"]


def test_server_without_models_is_not_ready(call):
    fake = FakeTorchServe(models=0)
    answer = call(lambda c: c.ready(), transport=httpx.MockTransport(fake.handle_rest))
    assert (answer.ready, answer.reason) == (False, "no model is registered")


def test_model_metadata_and_readiness_always_use_grpc(call, connection):
    metadata = call(lambda c: c.model_metadata("texts"), protocol="rest", **connection)
    assert (metadata.name, metadata.versions) == ("texts", ("1.0", "2.0"))
    assert call(lambda c: c.model_ready("texts"), protocol="rest", **connection) is True


@tensors
def test_infer_returns_output_tensors(call, connection, protocol):
    inputs = [Tensor("text", "BYTES", (2,), ("a", 'b "quoted" é'))]
    answer = call(
        lambda c: c.infer("texts", inputs, {"min_length": 1}, id="request-7"), protocol=protocol, **connection
    )
    assert (answer.id, answer.model_name, answer.model_version) == ("request-7", "texts", "1.0")
    assert answer.output("summary_text").data == ('a {"min_length": 1}', 'b "quoted" é {"min_length": 1}')
    assert answer.output("truncated") == Tensor("truncated", "BOOL", (2,), (False, False))
    with pytest.raises(KeyError, match="summary_text, truncated"):
        answer.output("label")


def test_infer_rejects_tensors_that_torchserve_drops(call, connection):
    with pytest.raises(InvalidRequest, match="FP16"):
        call(lambda c: c.infer("texts", [Tensor("x", "FP16", (1,), (1.0,))]), protocol="grpc", **connection)


def test_metrics_are_parsed_and_summed(call, connection):
    metrics = call(lambda c: c.metrics(), protocol="grpc", **connection)
    assert metrics.total("handler_requests_total") == 7
    assert metrics.total("handler_requests_total", ModelName="texts") == 4
    assert metrics.total("handler_requests_total", ModelName="nobody") == 0
    assert metrics.total("handler_batch_size_sum", ModelName="images") == 3
    assert len(metrics) == 5


def test_metrics_can_be_selected_by_name(call, connection, fake):
    call(lambda c: c.metrics(["handler_requests_total", "x"]), **connection)
    assert fake.received == [("GET", "/metrics?name%5B%5D=handler_requests_total&name%5B%5D=x")]


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (lambda c: c.classify("m", b"x"), b"<html>a proxy's page</html>"),
        (lambda c: c.classify("m", b"x"), b'{"label": "x"}'),
        (lambda c: c.classify("m", b"x"), b"null"),
        (lambda c: c.summarize("m", "x"), b'[{"label": "x", "score": 1}]'),
        (lambda c: c.summarize("m", "x"), b'["x"]'),
        (lambda c: c.infer("m", []), b'{"outputs": [{}]}'),
        (lambda c: c.infer("m", []), b"[]"),
        (lambda c: c.describe("m"), b"[{}]"),
        (lambda c: c.describe("m"), b"[]"),
        (lambda c: c.list_models(), b"{}"),
        (lambda c: c.metrics(), b"a b c d"),
        (lambda c: c.metrics(), b"\xff\xfe"),
    ],
)
def test_answer_of_another_program_raises_unexpected_answer(call, operation, body):
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=body))
    with pytest.raises(UnexpectedAnswer):
        call(operation, transport=transport)
