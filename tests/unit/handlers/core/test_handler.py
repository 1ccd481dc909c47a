"""The base handler: items keep apart, answers come in the request's protocol, everything is counted."""

import json
import threading
import time

import pytest

from handlers.core.device import Device
from handlers.core.errors import ConfigurationError, InvalidText
from handlers.core.handler import Handler
from handlers.core.parameters import Parameter
from handlers.core.tensor import Tensor
from tests.unit.handlers.context import FakeContext

HTTP = {"explain": "False", "host": "x"}
JSON = HTTP | {"content-type": "application/json"}


class Shout(Handler[str, str]):
    """Upper case; a text with 'poison' breaks the whole batch that it is in."""

    payload_fields = ("text",)

    def load(self, folder, config, device: Device) -> None:
        self.seen: list[list[str]] = []

    def parameters(self):
        return (Parameter("times", int, low=1, high=3),)

    def decode(self, payload, parameters):
        try:
            text = payload if isinstance(payload, str) else payload.decode()
        except UnicodeDecodeError:
            raise InvalidText("not UTF-8") from None
        if not text.strip():
            raise InvalidText("the text is empty")
        return text * parameters.get("times", 1)

    def predict(self, items):
        self.seen.append(list(items))
        for item in items:
            if "poison" in item:
                raise RuntimeError("secret reason")
            if "memory" in item:
                raise MemoryError
        return [InvalidText("no vowels") if item == "xyz" else item.upper() for item in items]

    def encode(self, answer):
        return {"shout": answer}

    def outputs(self, answers):
        return [Tensor("shout", "BYTES", (len(answers),), list(answers))]

    def warm_up(self):
        self.predict(["warm"])

    def generated_tokens(self, answer):
        return len(answer)


@pytest.fixture
def context(tmp_path):
    return FakeContext(tmp_path, {"handler": {"max_items": 3}})


@pytest.fixture
def handler(context):
    handler = Shout()
    handler.initialize(context)
    return handler


def send(handler, context, *requests):
    """Each request is (fields, headers); the decoded answers and the statuses."""
    context.receive([headers for _, headers in requests])
    answers = handler.handle([fields for fields, _ in requests], context)
    return [json.loads(answer) for answer in answers], [context.statuses[i] for i in range(len(requests))]


def raw(text):
    return {"body": bytearray(text.encode("utf-8", "surrogatepass"))}, HTTP


def text(**changes):
    return {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]} | changes


def js(value):
    return {"body": bytearray(json.dumps(value).encode())}, JSON


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
        (js({"inputs": [text(name="\ud800")]}), 400, "InvalidRequest"),
        (js({"inputs": [text()], "outputs": [{"name": "\ud800"}]}), 400, "InvalidRequest"),
        (js({"id": "\ud800", "inputs": [text(data=[" "])]}), 400, "InvalidText"),
    ],
)
def test_a_bad_item_leaves_its_neighbours_alone(handler, context, bad, status, kind):
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


def test_a_request_that_takes_its_time_has_no_share_of_its_neighbours(tmp_path):
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


class ParallelShout(Shout):
    """Decodes in threads; `at_once` is the most that were in there together."""

    parallel_decode = True
    at_once = inside = 0
    threads: set[str] = set()  # noqa: RUF012

    def decode(self, payload, parameters):
        self.inside += 1
        self.at_once = max(self.at_once, self.inside)
        self.threads = self.threads | {threading.current_thread().name}
        time.sleep(0.3 if payload == "slow" else 0.02)
        self.inside -= 1
        return super().decode(payload, parameters)


@pytest.fixture
def parallel(tmp_path):
    context = FakeContext(tmp_path, {"handler": {"threads": 2}, "responseTimeout": 2.4})
    handler = ParallelShout()
    handler.initialize(context)
    return handler, context


def test_inputs_of_all_requests_are_decoded_side_by_side(parallel):
    handler, context = parallel
    answers, statuses = send(handler, context, raw("a"), js({"inputs": ["b", " ", "c"]}), raw("d"), raw("e"))
    assert statuses == [200, 400, 200, 200]
    assert answers[1]["message"] == "inputs[1]: the text is empty"
    assert [answer[0]["shout"] for answer in (answers[0], *answers[2:])] == ["A", "D", "E"]
    assert handler.at_once == 2
    assert handler.seen[-1] == ["a", "d", "e"]


def test_a_single_input_needs_no_thread(parallel):
    handler, context = parallel
    answers, _ = send(handler, context, raw("a"))
    assert answers == [[{"shout": "A"}]]
    assert handler.threads == {threading.current_thread().name}


def test_slow_requests_have_no_share_of_their_neighbours_in_threads_either(parallel):
    """A share is 0.2 s: both threads are with the slow request, whose further inputs are then not begun."""
    handler, context = parallel
    answers, statuses = send(handler, context, raw("a"), js({"inputs": ["slow"] * 8}), raw("b"))
    assert statuses == [200, 503, 200]
    assert (answers[0], answers[2]) == ([{"shout": "A"}], [{"shout": "B"}])


def test_tokenizers_keep_to_one_thread(handler):
    assert not handler.parallel_decode
    assert handler._pool is None


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
    monkeypatch.setattr("handlers.core.handler.os._exit", ended.append)
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
    assert answer["parameters"] == {"times": "an integer from 1 to 3"}


def test_a_wrong_configuration_stops_the_start(tmp_path):
    with pytest.raises(ConfigurationError, match=r"unknown key 'handler.colour'"):
        Shout().initialize(FakeContext(tmp_path, {"handler": {"colour": "red"}}))


def test_numbers_that_json_lacks_are_our_fault(handler, context, monkeypatch):
    monkeypatch.setattr(handler, "encode", lambda answer: {"score": float("nan")})
    answers, statuses = send(handler, context, raw("a"), js({"inputs": [{"name": "text", "shape": [1],
        "datatype": "BYTES", "data": ["b"]}]}))  # fmt: skip
    assert statuses == [500, 200]
    assert answers[0]["type"] == "InternalError"
