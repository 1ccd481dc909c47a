"""The base handler: items keep apart, answers come in the request's protocol, everything is counted."""

import time

import pytest

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


def test_a_batch_goes_through_the_model_as_one(handler, context):
    answers, statuses = send(handler, context, raw("a"), js({"inputs": ["b", "c"]}), raw("d"))
    assert answers == [[{"shout": "A"}], [{"shout": "B"}, {"shout": "C"}], [{"shout": "D"}]]
    assert statuses == [200, 200, 200]
    assert handler.seen[-1] == ["a", "b", "c", "d"]
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
def test_a_bad_item_leaves_its_neighbors_alone(handler, context, bad, status, kind):
    answers, statuses = send(handler, context, raw("a"), bad, raw("b"))
    assert statuses == [200, status, 200]
    assert (answers[0], answers[2]) == ([{"shout": "A"}], [{"shout": "B"}])
    assert (answers[1]["code"], answers[1]["type"]) == (status, kind)
    assert "secret" not in answers[1]["message"]
    assert context.metrics["handler_failed_items_total"] == [(1, ("model", kind))]


def test_everything_is_counted(handler, context):
    send(handler, context, raw("ab"), js({"inputs": ["c", "d"]}), raw(" "))
    assert context.metrics["handler_requests_total"] == [(3, ("model",))]
    assert context.metrics["handler_batch_size"] == [(3, ("model",))]
    assert sum(value for value, _ in context.metrics["handler_generated_tokens_total"]) == 4
    for name in ("decode", "inference", "encode"):
        ((seconds, labels),) = context.metrics[f"handler_{name}_seconds"]
        assert seconds >= 0
        assert labels == ("model",)


def test_metrics_wait_until_the_model_is_done(handler, context, monkeypatch):
    """The front end reads each of them as a line, on the same cores."""
    predict, before = handler.predict, []

    def watched(items):
        before.append(context.metrics["handler_requests_total"].copy())
        return predict(items)

    monkeypatch.setattr(handler, "predict", watched)
    send(handler, context, raw("ab"))
    assert before == [[]]
    assert context.metrics["handler_requests_total"] == [(1, ("model",))]


def test_a_batch_of_errors_alone_does_not_reach_the_model(handler, context):
    before = len(handler.seen)
    _, statuses = send(handler, context, raw(""), raw(" "))
    assert statuses == [400, 400]
    assert len(handler.seen) == before


def test_batches_are_cut_as_the_task_says_and_answers_stay_in_order(handler, context, monkeypatch):
    monkeypatch.setattr(handler, "batches", lambda items: [[2, 0], [1]])
    answers, _ = send(handler, context, raw("a"), raw("poison"), raw("c"))
    assert [answer[0]["shout"] for answer in (answers[0], answers[2])] == ["A", "C"]
    assert answers[1]["type"] == "InternalError"
    assert handler.seen[-2:] == [["c", "a"], ["poison"]]
    assert [value for value, _ in context.metrics["handler_batch_size"]] == [2, 1]


def test_what_is_not_begun_in_time_is_refused_not_killed(tmp_path):
    """TorchServe kills a worker after responseTimeout, and every request in its hands."""
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


def test_a_request_that_takes_its_time_has_no_share_of_its_neighbors(tmp_path):
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


def test_tokenizers_keep_to_one_thread(handler):
    assert not handler.parallel_decode
    assert list(handler.spread(str, [1, 2])) == ["1", "2"]


def test_an_error_says_which_input_of_several_it_is_about(handler, context):
    (answer,), _ = send(handler, context, js({"inputs": ["a", " "]}))
    assert answer["message"] == "inputs[1]: the text is empty"
    (answer,), _ = send(handler, context, js({"inputs": [" "]}))
    assert answer["message"] == "the text is empty"


def test_a_header_alone_does_not_describe(handler, context):
    (answer,), _ = send(handler, context, ({"body": b"a"}, HTTP | {"describe": "True"}))
    assert answer == [{"shout": "A"}]


def test_a_lost_device_ends_the_process(handler, context, monkeypatch):
    ended = []
    monkeypatch.setattr("handlers.core.faults.os._exit", ended.append)
    monkeypatch.setattr(
        handler, "predict", lambda items: (_ for _ in ()).throw(RuntimeError("CUDA error: launch"))
    )
    send(handler, context, raw("a"))
    assert ended == [1]


def test_the_open_inference_protocol_answers_in_tensors(handler, context):
    message = {"id": "9", "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}]}
    (answer,), _ = send(handler, context, js(message))
    tensor = {"name": "shout", "datatype": "BYTES", "shape": [2], "data": ["A", "B"]}
    assert answer == {"id": "9", "model_name": "model", "model_version": "1.0", "outputs": [tensor]}


def test_an_unknown_output_is_the_clients_error(handler, context):
    text = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}
    (answer,), statuses = send(handler, context, js({"inputs": [text], "outputs": [{"name": "loud"}]}))
    assert statuses == [400]
    assert answer["error"] == "unknown output 'loud'; this model has: shout"


def test_grpc_answers_end_their_stream(handler, context):
    (answer,), _ = send(handler, context, ({"text": bytearray(b"a")}, {"text": {"content-type": ""}}))
    assert answer == [{"shout": "A"}]
    assert context.response_headers[0] == {"ts_stream_next": "false"}
    send(handler, context, raw("a"))
    assert context.response_headers[0] == {}


def test_describe_tells_provenance_device_and_parameters(tmp_path):
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


def test_a_wrong_configuration_stops_the_start(tmp_path):
    with pytest.raises(ConfigurationError, match=r"unknown key 'handler.color'"):
        Shout().initialize(FakeContext(tmp_path, {"handler": {"color": "red"}}))


def test_numbers_that_json_lacks_are_our_fault(handler, context, monkeypatch):
    monkeypatch.setattr(handler, "encode", lambda answer: {"score": float("nan")})
    answers, statuses = send(handler, context, raw("a"), js({"inputs": [{"name": "text", "shape": [1],
        "datatype": "BYTES", "data": ["b"]}]}))  # fmt: skip
    assert statuses == [500, 200]
    assert answers[0]["type"] == "InternalError"
