"""Tests of late requests, the activity file, released memory, and request ids in the log."""

import gc
import io
import logging
import time
import weakref

import pytest

from handlers.core.activity import read_activity
from handlers.core.errors import InvalidRequest, InvalidText
from handlers.core.exception_handling import to_handler_error
from handlers.core.step_reporting import report_step
from tests.unit.handlers.context import FakeContext
from tests.unit.handlers.core.shout import Shout
from tests.unit.handlers.sending import HTTP, JSON, js, raw, send

EDGE_ID = "c" * 32
GRPC_JSON = {"body": {"content-type": "application/json"}}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    (tmp_path / "edge" / "left").mkdir(parents=True)
    (tmp_path / "activity").mkdir()
    monkeypatch.setenv("EDGE_EVENTS_DIR", str(tmp_path / "edge"))
    monkeypatch.setenv("WORKER_ACTIVITY_DIR", str(tmp_path / "activity"))
    return tmp_path


@pytest.fixture
def context(folders):
    return FakeContext(folders, {"responseTimeout": 20})


@pytest.fixture
def handler(context):
    handler = Shout()
    handler.initialize(context)
    return handler


def late(text="late"):
    return {"body": bytearray(text.encode())}, HTTP | {
        "X-Request-Timeout": "2",
        "X-Request-Start": f"{time.time() - 3:.3f}",
    }


def test_request_with_passed_deadline_is_rejected(handler, context):
    answers, statuses = send(handler, context, raw("a"), late(), raw("b"))
    assert statuses == [200, 504, 200]
    assert answers[1]["type"] == "DeadlineExceeded"
    assert handler.batches_run[-1] == ["a", "b"]
    assert context.metrics["handler_failed_items_total"] == {("DeadlineExceeded",): 1}
    assert context.metrics["handler_skipped_requests_total"] == {("deadline",): 1}


def test_grpc_call_with_passed_deadline_is_rejected(handler, context):
    by_grpc = {"text": {"content-type": ""}}
    in_time = {"text": bytearray(b"a"), "x-request-timeout": bytearray(b"9")}
    answers, _ = send(handler, context, (in_time, by_grpc), (in_time | {"x-request-timeout": b"0"}, by_grpc))
    assert answers[0] == [{"shout": "A"}]
    assert answers[1]["code"] == 504
    assert context.response_headers[1] == {"ts_stream_next": "false"}


def test_rejection_follows_protocol_of_request(handler, context):
    """TorchServe's gRPC service kills a worker that sends a response without `outputs`."""
    body = {"body": bytearray(b'{"inputs": []}'), "x-request-timeout": b"0"}
    (answer,), _ = send(handler, context, (body, GRPC_JSON))
    assert answer["outputs"][0]["name"] == "error"


def test_request_of_disconnected_client_is_rejected(handler, context, folders):
    (folders / "edge" / "left" / EDGE_ID).touch()
    _, statuses = send(handler, context, (raw("a")[0], HTTP | {"X-Edge-Id": EDGE_ID}), raw("b"))
    assert statuses == [504, 200]
    assert handler.batches_run[-1] == ["b"]


def test_request_that_becomes_late_during_batch_is_rejected(handler, context, folders):
    handler.batches = lambda items: [[index] for index in range(len(items))]
    predict = handler.predict

    def slowly(items):
        (folders / "edge" / "left" / EDGE_ID).touch()
        time.sleep(0.3)
        return predict(items)

    handler.predict = slowly
    _, statuses = send(
        handler,
        context,
        raw("a"),
        (raw("b")[0], HTTP | {"X-Edge-Id": EDGE_ID}),
        (raw("c")[0], HTTP | {"X-Request-Timeout": "0.2"}),
        (raw("d")[0], HTTP | {"X-Request-Timeout": "60"}),
    )
    assert statuses == [200, 504, 504, 200]
    assert [items for items in handler.batches_run if items != ["warm"]] == [["a"], ["d"]]


def test_invalid_timeout_is_rejected(handler, context):
    answers, statuses = send(handler, context, (raw("a")[0], HTTP | {"x-request-timeout": "soon"}))
    assert statuses == [400]
    assert "'X-Request-Timeout' must be a number" in answers[0]["message"]


def test_draining_server_rejects_with_retry_after(handler, context, folders):
    (folders / "edge" / "draining").write_text(f"{time.time() - 1:.3f}")
    start = f"{time.time():.3f}"
    by_rest = raw("a")[0], HTTP | {"X-Request-Start": start}
    by_grpc = {"text": b"a", "x-request-start": start.encode()}, {"text": {"content-type": ""}}
    answers, statuses = send(handler, context, by_rest, by_grpc)
    assert statuses == [503, 503]
    assert answers[0]["message"] == "the server is shutting down"
    assert context.response_headers[0] == {"Retry-After": "1"}
    assert context.response_headers[1] == {"ts_stream_next": "false"}


def test_generation_stops_before_response_timeout(folders):
    context = FakeContext(folders, {"responseTimeout": 1})
    handler = Shout()
    handler.initialize(context)

    def endless(items):
        while True:
            time.sleep(0.01)
            report_step()

    handler.predict = endless
    start = time.monotonic()
    _, statuses = send(handler, context, raw("a"), raw("b"))
    assert time.monotonic() - start < 5
    assert statuses == [503, 503]
    report_step()  # outside of a batch nothing ends


def test_activity_file_shows_running_batch(handler, context, folders):
    (file,) = (folders / "activity").iterdir()
    assert not read_activity(file).is_computing
    during = []
    predict = handler.predict

    def watched(items):
        during.append(read_activity(file))
        time.sleep(0.01)
        report_step()
        during.append(read_activity(file))
        return predict(items)

    handler.predict = watched
    send(handler, context, raw("a"), raw("poison"))
    after = read_activity(file)
    assert during[0].is_computing
    assert during[0].batch_requests == 2
    assert during[1].progress > during[0].progress
    assert (after.is_computing, after.batches, after.answers) == (False, 1, 2)


def test_failing_batch_ends_in_activity_file(handler, context, folders, monkeypatch):
    (file,) = (folders / "activity").iterdir()
    monkeypatch.setattr(handler, "batches", lambda items: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        send(handler, context, raw("a"))
    assert not read_activity(file).is_computing


def test_loading_worker_has_no_activity_file(context, folders):
    handler = Shout()
    handler.warm_up = lambda: files.extend((folders / "activity").iterdir())
    files = []
    handler.initialize(context)
    assert files == []
    assert len(list((folders / "activity").iterdir())) == 1


class FrameContent:
    """An object that only a stack frame refers to."""


def test_handler_error_refers_to_no_frame():
    def fails():
        body = FrameContent()
        references.append(weakref.ref(body))
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise InvalidRequest("outer") from inner

    references: list[weakref.ref] = []
    try:
        fails()
    except InvalidRequest as error:
        handler_error = to_handler_error(error)
    gc.collect()
    assert references[0]() is None
    assert (handler_error.__traceback__, handler_error.__cause__, handler_error.__context__) == (
        None,
        None,
        None,
    )


def test_errors_of_batch_do_not_keep_requests_in_memory(handler, context, monkeypatch):
    answered_requests = []
    pipeline = handler._pipeline
    respond = pipeline._respond
    monkeypatch.setattr(
        pipeline,
        "_respond",
        lambda request, *others: answered_requests.append(request) or respond(request, *others),
    )
    send(handler, context, raw(" "), js({"inputs": [1]}), js([]), raw("poison"), raw("xyz"))
    errors = [request.error for request in answered_requests if request.error]
    assert len(errors) == 3
    for error in errors:
        assert (error.__traceback__, error.__context__) == (None, None)
    for request in answered_requests:
        assert (request.fields, request.payloads) == ({}, ())


def test_bodies_are_released_after_parsing(handler, context):
    data = [{"body": bytearray(b"a")}, {"body": bytearray(b"[")}, {"text": bytearray(b"b")}]
    context.receive([HTTP, JSON, HTTP])
    handler.handle(data, context)
    assert [next(iter(fields.values())) for fields in data] == [b"", b"", b""]


def test_logged_error_names_request(handler, context):
    stream = io.StringIO()
    output = logging.StreamHandler(stream)
    logging.getLogger().addHandler(output)
    try:
        Shout().initialize(context)  # installs the filter on what writes the log
        headers = HTTP | {"X-Request-Id": "order-7\nforged line"}
        decode = handler.decode

        def odd(payload, parameters):
            if payload == b"odd":
                logging.getLogger("vision").warning("an odd image")
            return decode(payload, parameters)

        handler.decode = odd
        send(handler, context, (raw("poison")[0], headers), (raw("b")[0], HTTP | {"X-Edge-Id": EDGE_ID}))
        send(handler, context, (raw("odd")[0], headers))
    finally:
        logging.getLogger().removeHandler(output)
    lines = stream.getvalue().splitlines()
    assert any(
        line.startswith(
            "[request order-7forgedline, REST, request " + EDGE_ID + ", REST through the proxy] a batch"
        )
        for line in lines
    )
    assert any(line == "[request order-7forgedline, REST] an odd image" for line in lines)


def test_returned_error_with_traceback_is_answered(handler, context):
    def predict(items):
        try:
            raise InvalidText("no")
        except InvalidText as error:
            return [error] * len(items)

    handler.predict = predict
    assert send(handler, context, raw("a"))[1] == [400]


def test_description_is_not_counted_as_an_answer(handler, context, folders):
    """A drain requests descriptions and waits until the number of answers stops increasing."""
    send(handler, context, ({}, {"describe": "True"}))
    (file,) = (folders / "activity").iterdir()
    described = read_activity(file)
    assert (described.is_computing, described.batches, described.answers) == (False, 1, 0)
