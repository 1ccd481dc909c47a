"""Tests of the base handler: error isolation, batching, protocols, metrics and time limits."""

import time

import pytest

from handlers.core.device import Device
from handlers.core.errors import ConfigurationError
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.core.shout import Shout
from tests.unit.handlers.sending import HTTP, js, raw, send


@pytest.fixture
def context(tmp_path):
    return FakeContext(tmp_path, {"handler": {"max_items": 3}})


@pytest.fixture
def handler(context):
    handler = Shout()
    handler.initialize(context)
    return handler


def text(**changes):
    return {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]} | changes


def test_batch_is_one_run_of_the_model(handler, context):
    answers, statuses = send(handler, context, raw("a"), js({"inputs": ["b", "c"]}), raw("d"))
    assert answers == [[{"shout": "A"}], [{"shout": "B"}, {"shout": "C"}], [{"shout": "D"}]]
    assert statuses == [200, 200, 200]
    assert handler.batches_run[-1] == ["a", "b", "c", "d"]
    assert context.types == dict.fromkeys(range(3), "application/json")


@pytest.mark.parametrize(
    ("bad", "status", "kind"),
    [
        (raw(" "), 400, "InvalidText"),
        (raw("xyz"), 400, "InvalidText"),
        (raw("poison"), 500, "InternalError"),
        (raw("memory"), 507, "OutOfMemory"),
        (js({"inputs": "a", "parameters": {"times": 9}}), 400, "InvalidParameter"),
        (js({"inputs": ["a"] * 4}), 413, "TooManyItems"),
        (js({"inputs": ["a", "poison"]}), 500, "InternalError"),
        (({"body": b"x"}, {"explain": "True"}), 400, "InvalidRequest"),
        (raw("a\ud800"), 400, "InvalidText"),
        (js({"\ud800": 1, "inputs": "x"}), 400, "InvalidRequest"),
        (js({"inputs": "x", "parameters": {"\ud800": 1}}), 400, "InvalidParameter"),
        (
            js({"inputs": "x", "parameters": {"times": 1, "generate_parameters": {"\ud800": 1}}}),
            400,
            "InvalidParameter",
        ),
        (js({"inputs": [text(), text(name="\ud800")]}), 400, "InvalidParameter"),
        (js({"inputs": [text()], "outputs": [{"name": "\ud800"}]}), 400, "InvalidRequest"),
        (js({"id": "\ud800", "inputs": [text(data=[" "])]}), 400, "InvalidText"),
    ],
)
def test_bad_item_does_not_affect_its_neighbors(handler, context, bad, status, kind):
    answers, statuses = send(handler, context, raw("a"), bad, raw("b"))
    assert statuses == [200, status, 200]
    assert (answers[0], answers[2]) == ([{"shout": "A"}], [{"shout": "B"}])
    assert (answers[1]["code"], answers[1]["type"]) == (status, kind)
    assert "secret" not in answers[1]["message"]
    assert context.metrics["handler_failed_items_total"] == {(kind,): 1}


def test_requests_errors_and_times_are_counted(handler, context):
    send(handler, context, raw("ab"), js({"inputs": ["c", "d"]}), raw(" "))
    assert context.metrics["handler_requests_total"] == {(): 3}
    assert context.metrics["handler_batch_size_sum"] == {(): 3}
    assert context.metrics["handler_batch_size_count"] == {(): 1}
    assert context.metrics["handler_generated_tokens_total"] == {(): 4}
    for name in ("decode", "inference", "encode"):
        assert context.metrics[f"handler_{name}_seconds_count"] == {(): 1}
        assert 0 < context.metrics[f"handler_{name}_seconds_sum"][()] < 60
    assert context.metrics.models("handler_requests_total") == {("model", "1.0")}


def test_duration_of_a_request_includes_the_time_before_the_worker(handler, context):
    """Requests without a start time are not measured, because their time in TorchServe's queue is unknown."""
    started = HTTP | {"X-Request-Start": f"{time.time() - 2:.3f}"}
    send(handler, context, raw("a"), ({"body": bytearray(b"b")}, started))
    assert context.metrics["handler_request_seconds_count"] == {(): 1}
    assert 2 <= context.metrics["handler_request_seconds_sum"][()] < 60


def test_worker_start_is_counted_even_if_loading_fails(context, monkeypatch):
    def load(*_):
        raise ConfigurationError("no weights")

    handler = Shout()
    monkeypatch.setattr(handler, "load", load)
    with pytest.raises(ConfigurationError):
        handler.initialize(context)
    assert context.metrics["handler_worker_starts_total"] == {(): 1}


def test_zero_tokens_are_not_counted(handler, context, monkeypatch):
    monkeypatch.setattr(handler, "generated_tokens", lambda _: 0)
    send(handler, context, raw("a"), raw("b"))
    assert context.metrics["handler_generated_tokens_total"] == {}


def test_batch_of_errors_does_not_run_the_model(handler, context):
    before = len(handler.batches_run)
    _, statuses = send(handler, context, raw(""), raw(" "))
    assert statuses == [400, 400]
    assert len(handler.batches_run) == before


def test_batches_are_split_by_task_and_answers_stay_in_order(handler, context, monkeypatch):
    monkeypatch.setattr(handler, "batches", lambda items: [[2, 0], [1]])
    answers, _ = send(handler, context, raw("a"), raw("poison"), raw("c"))
    assert [answer[0]["shout"] for answer in (answers[0], answers[2])] == ["A", "C"]
    assert answers[1]["type"] == "InternalError"
    assert handler.batches_run[-2:] == [["c", "a"], ["poison"]]
    assert context.metrics["handler_batch_size_sum"] == {(): 3}
    assert context.metrics["handler_batch_size_count"] == {(): 2}


def test_request_not_started_in_time_is_rejected(tmp_path):
    """After responseTimeout, TorchServe kills the worker and fails all of its requests."""
    context = FakeContext(tmp_path, {"responseTimeout": 0.4})
    handler = Shout()
    handler.initialize(context)
    handler.batches = lambda items: [[index] for index in range(len(items))]
    slow = handler.predict

    def predict(items):
        time.sleep(0.25)
        return slow(items)

    handler.predict = predict
    answers, statuses = send(handler, context, raw("a"), raw("b"), raw("c"))
    assert statuses == [200, 503, 503]
    assert answers[2]["type"] == "Overloaded"


def test_slow_request_does_not_use_the_time_of_its_neighbors(tmp_path):
    context = FakeContext(tmp_path, {"responseTimeout": 1.2})
    handler = Shout()
    handler.initialize(context)
    decode = handler.decode

    def slowly(payload, parameters):
        time.sleep(0.15 if payload == "slow" else 0)
        return decode(payload, parameters)

    handler.decode = slowly
    answers, statuses = send(handler, context, raw("a"), js({"inputs": ["slow"] * 8}), raw("b"))
    assert statuses == [200, 503, 200]
    assert (answers[0], answers[2]) == ([{"shout": "A"}], [{"shout": "B"}])


def test_tokenizers_use_one_thread(handler):
    assert not handler.parallel_decode
    assert list(handler.parallel_map(str, [1, 2])) == ["1", "2"]


def test_error_names_the_input_among_several(handler, context):
    (answer,), _ = send(handler, context, js({"inputs": ["a", " "]}))
    assert answer["message"] == "inputs[1]: the text is empty"
    (answer,), _ = send(handler, context, js({"inputs": [" "]}))
    assert answer["message"] == "the text is empty"


def test_request_with_describe_header_and_body_is_predicted(handler, context):
    (answer,), _ = send(handler, context, ({"body": b"a"}, HTTP | {"describe": "True"}))
    assert answer == [{"shout": "A"}]


def test_lost_device_exits_the_worker(handler, context, monkeypatch):
    ended = []
    monkeypatch.setattr("handlers.core.exception_handling.os._exit", ended.append)
    monkeypatch.setattr(
        handler, "predict", lambda items: (_ for _ in ()).throw(RuntimeError("CUDA error: launch"))
    )
    send(handler, context, raw("a"))
    assert ended == [1]


def test_open_inference_request_is_answered_with_tensors(handler, context):
    message = {"id": "9", "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}]}
    (answer,), _ = send(handler, context, js(message))
    tensor = {"name": "shout", "datatype": "BYTES", "shape": [2], "data": ["A", "B"]}
    assert answer == {"id": "9", "model_name": "model", "model_version": "1.0", "outputs": [tensor]}


def test_unknown_output_is_rejected(handler, context):
    text = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    (answer,), statuses = send(handler, context, js({"inputs": [text], "outputs": [{"name": "loud"}]}))
    assert statuses == [400]
    assert answer["error"] == "unknown output 'loud'; this model has: shout"


def test_grpc_response_ends_its_stream(handler, context):
    (answer,), _ = send(handler, context, ({"text": bytearray(b"a")}, {"text": {"content-type": ""}}))
    assert answer == [{"shout": "A"}]
    assert context.response_headers[0] == {"ts_stream_next": "false"}
    send(handler, context, raw("a"))
    assert context.response_headers[0] == {}


def test_description_has_provenance_device_and_parameters(tmp_path):
    (tmp_path / "provenance.json").write_text('{"weights": "starter", "version": "starter-1"}')
    context = FakeContext(tmp_path, {"handler": {"precision": "fp32", "threads": 1}})
    handler = Shout()
    handler.initialize(context)
    (answer,), _ = send(handler, context, ({}, {"describe": "True"}))
    assert answer["weights"] == "starter"
    assert (answer["device"], answer["precision"], answer["threads"]) == ("cpu", "fp32", 1)
    assert answer["parameters"] == [
        {"name": "times", "type": "integer", "minimum": 1, "maximum": 3, "expected": "an integer from 1 to 3"}
    ]
    assert answer["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert answer["max_items"] == 32


def test_device_is_chosen_by_settings_of_the_model(tmp_path, monkeypatch):
    arguments = []

    def choose(*values):
        arguments.extend(values)
        raise InterruptedError

    monkeypatch.setattr(Device, "choose", choose)
    with pytest.raises(InterruptedError):
        Shout().initialize(FakeContext(tmp_path, {"deviceIds": [1, 3], "minWorkers": 4}, gpu_id=3))
    assert (arguments[0], *arguments[2:]) == (3, 4, Shout.bf16_flags, [1, 3], False)


def test_invalid_configuration_fails_initialization(tmp_path):
    with pytest.raises(ConfigurationError, match=r"unknown key 'handler.color'"):
        Shout().initialize(FakeContext(tmp_path, {"handler": {"color": "red"}}))


def test_answer_that_json_cannot_represent_is_an_internal_error(handler, context, monkeypatch):
    monkeypatch.setattr(handler, "encode", lambda answer: {"score": float("nan")})
    answers, statuses = send(handler, context, raw("a"), js({"inputs": [{"name": "text", "shape": [1],
        "datatype": "BYTES", "data": ["b"]}]}))  # fmt: skip
    assert statuses == [500, 200]
    assert answers[0]["type"] == "InternalError"
